//! `raft state`: all records of a group.

use std::io::{self, Write};

use anyhow::bail;
use mainstay::ident::{GroupId, ReplicaId};
use mainstay::raftstore::entry::{Membership, Position};
use mainstay::raftstore::log_store::StoredGroup;
use serde::Serialize;

use super::{Exit, Findings, Report, groups, load, with_nodes, write_findings};
use crate::directory::DataDirectory;

/// What `raft state` shows.
#[derive(Debug, Serialize)]
pub struct States {
    groups: Vec<State>,
    #[serde(flatten)]
    findings: Findings,
}

#[derive(Debug, Serialize)]
pub struct State {
    group: u64,
    replica: u64,
    generation: u32,
    hard_state: HardState,
    applied: u64,
    truncated: Place,
    last: Place,
    /// Why the applied state is not to be trusted, if it is not.
    unhealthy: Option<String>,
    membership: Members,
    #[serde(skip)]
    stored: Membership,
}

#[derive(Debug, Serialize)]
struct HardState {
    term: u64,
    vote: Option<u64>,
    commit: u64,
}

#[derive(Debug, Serialize)]
struct Place {
    index: u64,
    term: u64,
}

#[derive(Debug, Serialize)]
struct Members {
    voters: Vec<u64>,
    learners: Vec<u64>,
    voters_outgoing: Vec<u64>,
    learners_next: Vec<u64>,
    auto_leave: bool,
    nodes: Vec<Member>,
}

#[derive(Debug, Serialize)]
struct Member {
    replica: u64,
    node: u64,
}

/// Shows the records of a group, or of all.
///
/// # Errors
/// There is no such group, or RocksDB failed.
pub fn raft_state(directory: &DataDirectory, group: Option<GroupId>) -> anyhow::Result<States> {
    let mut findings = Findings::of(directory);
    let mut states = Vec::new();
    if let Some(view) = &directory.raft {
        let wanted = match group {
            Some(group) => vec![group],
            None => groups(view, &mut findings)?,
        };
        for group in wanted {
            let is_known = findings.damage.len();
            match load(view, group, &mut findings)? {
                Some(stored) => states.push(State::of(group, stored, view.generation(group)?.unwrap_or_default())),
                None if findings.damage.len() == is_known => bail!("there is no group {group}"),
                None => {}
            }
        }
    }
    Ok(States { groups: states, findings })
}

impl State {
    pub fn of(group: GroupId, stored: StoredGroup, generation: u32) -> State {
        let StoredGroup { replica, hard_state, membership, applied, truncated, last, unhealthy } = stored;
        State {
            group: group.get(),
            replica: replica.get(),
            generation,
            hard_state: HardState {
                term: hard_state.term.get(),
                vote: hard_state.vote.map(ReplicaId::get),
                commit: hard_state.commit.get(),
            },
            applied: applied.get(),
            truncated: Place::of(truncated),
            last: Place::of(last),
            unhealthy: unhealthy.map(|unhealthy| unhealthy.to_string()),
            membership: Members::of(&membership),
            stored: membership,
        }
    }
}

impl Place {
    fn of(position: Position) -> Place {
        Place { index: position.index.get(), term: position.term.get() }
    }
}

impl Members {
    fn of(membership: &Membership) -> Members {
        let numbers = |replicas: &[ReplicaId]| replicas.iter().map(|replica| replica.get()).collect();
        let nodes = membership.nodes.iter();
        Members {
            voters: numbers(&membership.voters),
            learners: numbers(&membership.learners),
            voters_outgoing: numbers(&membership.voters_outgoing),
            learners_next: numbers(&membership.learners_next),
            auto_leave: membership.auto_leave,
            nodes: nodes.map(|(replica, node)| Member { replica: replica.get(), node: node.get() }).collect(),
        }
    }
}

impl Report for States {
    fn exit(&self) -> Exit {
        self.findings.exit()
    }

    fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        for (place, state) in self.groups.iter().enumerate() {
            if place > 0 {
                writeln!(out)?;
            }
            state.write_text(out)?;
        }
        if self.groups.is_empty() && self.findings.exit() == Exit::Clean {
            writeln!(out, "there are no groups")?;
        }
        write_findings(&self.findings, out)
    }
}

impl State {
    pub fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        let State { group, replica, generation, hard_state, applied, truncated, last, unhealthy, stored, .. } = self;
        let HardState { term, vote, commit } = hard_state;
        let vote = vote.map_or("none".into(), |vote| format!("replica {vote}"));
        writeln!(out, "group {group}")?;
        writeln!(out, "  replica          {replica}")?;
        writeln!(out, "  generation       {generation}")?;
        writeln!(out, "  term             {term}")?;
        writeln!(out, "  vote             {vote}")?;
        writeln!(out, "  commit           {commit}")?;
        writeln!(out, "  applied          {applied}")?;
        writeln!(out, "  truncated        {} of term {}", truncated.index, truncated.term)?;
        writeln!(out, "  last             {} of term {}", last.index, last.term)?;
        if let Some(why) = unhealthy {
            writeln!(out, "  unhealthy        {why}")?;
        }
        writeln!(out, "  voters           {}", with_nodes(stored, &stored.voters))?;
        writeln!(out, "  learners         {}", with_nodes(stored, &stored.learners))?;
        if !stored.voters_outgoing.is_empty() {
            let leaves = if stored.auto_leave { "by itself" } else { "when told to" };
            writeln!(out, "  outgoing voters  {}", with_nodes(stored, &stored.voters_outgoing))?;
            writeln!(out, "  next learners    {}", with_nodes(stored, &stored.learners_next))?;
            writeln!(out, "  joint            left {leaves}")?;
        }
        Ok(())
    }
}
