//! `mainstay cluster voter`: which members vote in the metadata group; and the words for what became of that, also in SQL.

use clap::Subcommand;
use mainstay::cluster::operator::{OperatorError, Vote};
use mainstay::ident::NodeId;
use mainstay::meta::METADATA_GROUP;

use super::{MemberArgs, line, named, operator};
use crate::operate::{EXIT_STATUS, printable};

#[derive(Subcommand)]
pub enum VoterAction {
    /// Give a member a vote: it votes as soon as it has caught up. At most seven do.
    #[command(after_help = EXIT_STATUS)]
    Add(MemberArgs),
    /// Take a member's vote. It stays a member, and follows what the others decide.
    ///
    /// If it leads, leadership is handed over first. Refused if those that still vote would be no majority.
    #[command(after_help = EXIT_STATUS)]
    Remove(MemberArgs),
}

/// Does it; says what came of it.
pub async fn run(action: &VoterAction) -> Result<String, OperatorError> {
    let (args, votes) = match action {
        VoterAction::Add(args) => (args, true),
        VoterAction::Remove(args) => (args, false),
    };
    let (node, actor) = (NodeId::new(args.node), &args.actor);
    let asked = operator(&args.connect)?;
    let set = asked.set_vote(METADATA_GROUP, node, votes, &actor.actor, &actor.reason).await?;
    if !args.json {
        return Ok(format!("{}.\n", said(&set).replacen("node", "Node", 1)));
    }
    let mut object = named(&set.member);
    object["vote"] = (!set.member.non_voting).into();
    object["was_so"] = set.was_so.into();
    object["is_done"] = set.is_done.into();
    Ok(line(&object))
}

/// What became of a vote, in words.
pub fn said(vote: &Vote) -> String {
    let Vote { member, was_so, is_done } = vote;
    let what = match (!member.non_voting, was_so, is_done) {
        (true, false, true) => "votes",
        (true, true, true) => "votes already",
        (true, _, false) => "is to vote, and does as soon as it has caught up and fewer than seven others vote",
        (false, false, true) => "votes no more",
        (false, true, true) => "has no vote already",
        (false, _, false) => "is not to vote any more, which takes effect as soon as whoever leads can bring it about",
    };
    format!("node {} ({}) {what}", member.id, printable(member.name.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay::meta::proto::Member;

    #[test]
    fn each_outcome_has_words_of_its_own() {
        let mut all = std::collections::BTreeSet::new();
        for (non_voting, was_so, is_done) in
            [(false, false, true), (false, true, true), (false, false, false), (true, false, true), (true, true, true)]
        {
            let member = Member { id: 3, name: "c".into(), non_voting, ..Member::default() };
            let said = said(&Vote { member, was_so, is_done });
            assert!(said.starts_with("node 3 (c) "), "{said}");
            assert!(all.insert(said));
        }
    }
}
