//! `mainstay status`: the members as the metadata has them, and what each says of itself.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use mainstay::cluster::rpc::channel::Nodes;
use mainstay::cluster::rpc::client::Client;
use mainstay::cluster::rpc::proto::{RaftGroup, StatusResponse};
use mainstay::meta::METADATA_GROUP;
use mainstay::meta::client::Meta;
use mainstay::meta::proto::{ClusterHeader, KvHeader, Member};
use mainstay::meta::service::MetaError;
use mainstay::net::NetConfig;
use serde_json::{Value, json};

use super::StatusArgs;
use super::outcome::{Failed, Outcome};
use super::show::{self, lasting, printable, size};

/// How long a member has to say how it stands. One that is not there shall not keep the others from being shown.
const MEMBER_TIMEOUT: Duration = Duration::from_secs(2);
/// Members asked at a time.
const ASKED_AT_ONCE: usize = 32;
/// Clears a terminal, and begins at its top.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// What is known of the cluster.
struct Picture {
    cluster: ClusterHeader,
    kv: KvHeader,
    members: Vec<Seen>,
    /// Nobody leads: this is what the node that answered has known last. Why.
    stale: Option<String>,
}

/// A member, and what it says of itself.
struct Seen {
    member: Member,
    said: Result<StatusResponse, String>,
}

/// Does it.
pub async fn run(args: &StatusArgs) -> Result<Outcome, Failed> {
    let (client, net) = (args.connect.client()?, args.connect.net());
    let (meta, timeout) = (client.meta(""), args.connect.timeout);
    if !args.watch {
        let picture = look(&meta, &net, timeout).await?;
        return shown(&picture, args.json);
    }
    let clear = if std::io::stdout().is_terminal() && !args.json { CLEAR } else { "" };
    loop {
        match look(&meta, &net, timeout).await {
            Ok(picture) => {
                print!("{clear}");
                shown(&picture, args.json)?;
            }
            Err(Failed::Meta(error @ MetaError::Unavailable { .. })) => {
                print!("{clear}");
                eprintln!("mainstay: trying on: {}", printable(error.to_string().as_bytes()));
            }
            Err(error) => return Err(error),
        }
        if clear.is_empty() && !args.json {
            show::line("")?;
        }
        tokio::time::sleep(args.interval).await;
    }
}

/// All of it within this time. If nobody leads, what is known without a leader has the second half of it.
async fn look(meta: &Meta, net: &NetConfig, timeout: Duration) -> Result<Picture, Failed> {
    let deadline = Instant::now() + timeout;
    let left = || deadline.saturating_duration_since(Instant::now());
    let cluster = meta.within(timeout / 2).members().cluster().await;
    let (meta, stale) = match &cluster {
        Err(MetaError::Unavailable { why, .. }) => (meta.local(), Some(why.clone())),
        _ => (meta.clone(), None),
    };
    let cluster = match (cluster, &stale) {
        (_, Some(_)) => meta.within(left()).members().cluster().await?,
        (cluster, None) => cluster?,
    };
    let members = meta.within(left()).members().list().await?;
    let kv = meta.within(left()).kv().size().await?;
    let mut seen = Vec::with_capacity(members.len());
    let mut members = members.into_iter();
    loop {
        let asked: Vec<_> = members
            .by_ref()
            .take(ASKED_AT_ONCE)
            .map(|member| {
                let net = net.clone();
                let until = deadline.min(Instant::now() + MEMBER_TIMEOUT);
                tokio::spawn(async move { Seen { said: ask(&member, &net, until).await, member } })
            })
            .collect();
        if asked.is_empty() {
            break;
        }
        for asked in asked {
            seen.push(asked.await.map_err(|error| Failed::Io(std::io::Error::other(error)))?);
        }
    }
    Ok(Picture { cluster, kv, members: seen, stale })
}

/// The cluster and its members, for programs.
///
/// # Errors
/// It cannot be asked.
pub async fn cluster_json(meta: &Meta, net: &NetConfig, timeout: Duration) -> Result<Value, Failed> {
    look(meta, net, timeout).await.map(|picture| object(&picture))
}

/// What a member says of itself. Another node may listen where it did.
async fn ask(member: &Member, net: &NetConfig, until: Instant) -> Result<StatusResponse, String> {
    let addresses: Result<Vec<_>, _> = member.addresses.iter().map(|address| address.parse()).collect();
    let nodes = addresses.and_then(|addresses| Nodes::new(addresses, net)).map_err(|error| error.to_string())?;
    let status = Client::new(nodes.asked_once()).status(until).await;
    match status {
        Ok(status) if status.node == member.id => Ok(status),
        Ok(status) => Err(format!("node {} answers at its address", status.node)),
        Err(MetaError::Unavailable { why, .. }) => Err(why),
        Err(error) => Err(error.to_string()),
    }
}

impl Picture {
    /// What members say of the metadata group.
    fn groups(&self) -> impl Iterator<Item = (u64, &RaftGroup)> {
        let said = self.members.iter().filter_map(|seen| seen.said.as_ref().ok());
        said.filter_map(|said| Some((said.node, metadata(said)?)))
    }

    /// The leader's own word; of several who believe to lead, the one of the latest term.
    fn leader(&self) -> Option<(u64, &RaftGroup)> {
        self.groups().filter(|(node, group)| group.leader == *node).max_by_key(|(_, group)| group.term)
    }

    fn role<'a>(&'a self, seen: &'a Seen) -> &'a str {
        let replica = self.leader().map(|(_, group)| group).or_else(|| self.groups().map(|(_, group)| group).next());
        let replica = replica.and_then(|group| group.replicas.iter().find(|replica| replica.node == seen.member.id));
        match (seen.said.as_ref().ok().and_then(metadata), replica) {
            (_, Some(replica)) if replica.is_learner => "learner",
            (Some(group), _) => &group.role,
            (None, Some(_)) => "voter",
            (None, None) => "-",
        }
    }

    /// Entries of the leader's log that a member has not applied; of one that does not answer, that it has not got.
    fn lag(&self, seen: &Seen) -> Option<u64> {
        let (_, leader) = self.leader()?;
        let reached = match seen.said.as_ref().ok().and_then(metadata) {
            Some(group) => group.applied,
            None => leader.replicas.iter().find(|replica| replica.node == seen.member.id)?.matched?,
        };
        // They were not asked at one moment.
        Some(leader.committed.saturating_sub(reached))
    }
}

fn metadata(said: &StatusResponse) -> Option<&RaftGroup> {
    said.groups.iter().find(|group| group.group == METADATA_GROUP.get())
}

fn state(member: &Member) -> String {
    let name = member.state().as_str_name();
    name.strip_prefix("MEMBER_STATE_").unwrap_or(name).to_lowercase()
}

fn shown(picture: &Picture, json: bool) -> Result<Outcome, Failed> {
    match json {
        true => show::json(&object(picture))?,
        false => show::line(text(picture))?,
    }
    let is_well = picture.stale.is_none() && (picture.cluster.version > 0);
    Ok(if is_well { Outcome::Done } else { Outcome::Unwell })
}

fn text(picture: &Picture) -> String {
    let Picture { cluster, kv, .. } = picture;
    if cluster.version == 0 {
        return "no cluster is formed here".to_owned();
    }
    let leader = match (&picture.stale, picture.leader()) {
        (Some(why), _) => {
            format!(
                "NO LEADER: what follows is what the node that answered has known last ({})",
                printable(why.as_bytes())
            )
        }
        (None, Some((node, group))) => format!("leader node {node} in term {}", group.term),
        (None, None) => "a leader that does not answer here".to_owned(),
    };
    let head = format!(
        "cluster {:016x}  system {:016x}  version {}\n{leader}\n{} keys, {}, revision {}\n",
        cluster.cluster_id,
        cluster.system_id,
        cluster.version,
        kv.keys,
        size(kv.live_bytes),
        kv.revision,
    );
    let rows = picture.members.iter().map(|seen| {
        let said = seen.said.as_ref();
        vec![
            seen.member.id.to_string(),
            named(&seen.member.name),
            printable(seen.member.addresses.join(",").as_bytes()),
            state(&seen.member),
            picture.role(seen).to_owned(),
            if seen.member.non_voting { "no" } else { "yes" }.to_owned(),
            picture.lag(seen).map_or("-".to_owned(), |lag| lag.to_string()),
            said.map_or("-".to_owned(), |said| printable(said.version.as_bytes())),
            said.map_or("-".to_owned(), |said| lasting(said.uptime_ms)),
            match said {
                Ok(_) => String::new(),
                Err(why) => format!("not reached: {}", printable(why.as_bytes())),
            },
        ]
    });
    let header = ["node", "name", "address", "state", "role", "vote", "lag", "version", "up", ""];
    format!("{head}\n{}", show::table(&header, &[0, 6, 8], rows))
}

fn named(name: &str) -> String {
    if name.is_empty() { "-".to_owned() } else { printable(name.as_bytes()) }
}

fn object(picture: &Picture) -> Value {
    let leader = picture.leader().filter(|_| picture.stale.is_none());
    let members = picture.members.iter().map(|seen| {
        let said = seen.said.as_ref();
        let group = said.ok().and_then(metadata);
        json!({
            "node": seen.member.id, "name": seen.member.name, "addresses": seen.member.addresses,
            "state": state(&seen.member), "role": picture.role(seen), "vote": !seen.member.non_voting, "lag": picture.lag(seen),
            "attributes": pairs(&seen.member.attributes), "locality": pairs(&seen.member.locality),
            "command_version": seen.member.version, "incarnation": seen.member.incarnation,
            "is_reached": said.is_ok(), "error": said.err(),
            "version": said.ok().map(|said| &said.version), "uptime_ms": said.ok().map(|said| said.uptime_ms),
            "applied": group.map(|group| group.applied), "term": group.map(|group| group.term),
        })
    });
    let Picture { cluster, kv, .. } = picture;
    json!({
        "cluster_id": format!("{:016x}", cluster.cluster_id), "system_id": format!("{:016x}", cluster.system_id),
        "version": cluster.version, "is_stale": picture.stale.is_some(),
        "leader": leader.map(|(node, _)| node), "term": leader.map(|(_, group)| group.term),
        "kv": {"keys": kv.keys, "bytes": kv.live_bytes, "revision": kv.revision, "compacted": kv.compacted},
        "members": members.collect::<Vec<_>>(),
    })
}

fn pairs(attributes: &[mainstay::meta::proto::Attribute]) -> Value {
    attributes.iter().map(|attribute| (attribute.key.clone(), Value::from(attribute.value.clone()))).collect()
}
