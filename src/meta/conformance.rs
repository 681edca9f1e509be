//! What any metadata group has to pass, for whoever implements [`Metadata`]. Nothing here
//! panics: a failing case is answered by its name and what it found.
//!
//! ```
//! use mainstay::meta::{conformance, memory::MemoryMetadata, service::Metadata};
//! use std::sync::Arc;
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), mainstay::raftstore::conformance::Failure> {
//! conformance::check(async || Arc::new(MemoryMetadata::new()) as Arc<dyn Metadata>).await
//! # }
//! ```
//!
//! [`check_clients`] is the same for clients, whatever they stand on.

use std::fmt::{Debug, Display};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::client::{Keys, Meta, compare, ops};
use super::command::action;
use super::proto::action::Kind;
use super::proto::{Command, EventKind, Member, MemberSpec, MemberState, Put, Refusal, SetSetting, Txn};
use super::service::{MetaError, Metadata};
use super::token::sha256;
use super::watch::{KvChange, KvUpdate, WatchError};
use crate::ident::{ClusterId, Incarnation, NodeId, SystemId};
use crate::raftstore::conformance::Failure;
use crate::raftstore::context::Attempt;

/// How long anything may take that has to happen.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is wrong.
#[derive(Debug)]
struct Problem(String);

impl From<MetaError> for Problem {
    fn from(error: MetaError) -> Problem {
        Problem(error.to_string())
    }
}

impl From<WatchError> for Problem {
    fn from(error: WatchError) -> Problem {
        Problem(error.to_string())
    }
}

type Running = Pin<Box<dyn Future<Output = Result<(), Problem>> + Send>>;
type Case = (&'static str, fn(Meta) -> Running);

macro_rules! cases {
    ($($name:ident),* $(,)?) => { [$((stringify!($name), (|meta| Box::pin($name(meta))) as fn(Meta) -> Running)),*] };
}

/// Runs all cases. `make` makes a group in which no cluster is formed yet.
///
/// # Errors
/// The first case that failed.
pub async fn check(mut make: impl AsyncFnMut() -> Arc<dyn Metadata>) -> Result<(), Failure> {
    let service = make().await;
    let case = "a_named_command_takes_effect_once";
    a_named_command_takes_effect_once(service).await.map_err(|Problem(what)| Failure { case, what })?;
    check_clients(async || Meta::new(make().await, "conformance")).await
}

/// Runs the cases that a client can. `make` makes one of a group in which no cluster is formed yet.
///
/// # Errors
/// The first case that failed.
pub async fn check_clients(mut make: impl AsyncFnMut() -> Meta) -> Result<(), Failure> {
    let cases: [Case; 12] = cases![
        nothing_is_done_before_a_cluster_is_formed,
        a_token_lets_one_node_join_once,
        a_member_starts_with_a_higher_incarnation_only,
        a_member_votes_or_not_and_one_always_does,
        settings_are_set_reset_and_remembered,
        what_is_put_is_read,
        of_those_who_race_one_wins,
        a_batch_is_whole_or_nothing,
        a_watch_misses_nothing_and_repeats_nothing,
        a_watch_behind_what_was_compacted_is_told,
        events_can_be_followed,
        keys_go_with_their_lease,
    ];
    for (case, run) in cases {
        let meta = make().await.acting("conformance", "").within(PATIENCE);
        run(meta).await.map_err(|Problem(what)| Failure { case, what })?;
    }
    Ok(())
}

fn equal<T: PartialEq + Debug>(what: impl Display, found: T, expected: T) -> Result<(), Problem> {
    if found == expected { Ok(()) } else { Err(Problem(format!("{what}: expected {expected:?}, found {found:?}"))) }
}

fn refused<T: Debug>(what: impl Display, answer: Result<T, MetaError>, why: Refusal) -> Result<MetaError, Problem> {
    match answer {
        Err(error) if error.refusal() == Some(why) => Ok(error),
        other => Err(Problem(format!("{what}: expected it to be refused ({why:?}), found {other:?}"))),
    }
}

fn spec(number: u8) -> MemberSpec {
    MemberSpec {
        addresses: vec![format!("10.0.0.{number}:7000")],
        secret_hash: sha256(&[number]),
        incarnation: 1,
        version: 1,
        ..MemberSpec::default()
    }
}

async fn form(meta: &Meta) -> Result<Member, MetaError> {
    meta.members().form(ClusterId::new(7), SystemId::new(8), spec(1)).await
}

async fn a_named_command_takes_effect_once(service: Arc<dyn Metadata>) -> Result<(), Problem> {
    let meta = Meta::new(Arc::clone(&service), "conformance").within(PATIENCE);
    form(&meta).await?;
    let put = |value: &str| Put { key: b"a".to_vec(), value: value.into(), lease: 0 };
    let command = |value| Command { actions: vec![action(Kind::Put(put(value)))], ..Command::default() };
    let execute = async |sequence, value| {
        let attempt = Attempt { client: 77, sequence };
        service.execute_named(attempt, command(value), Instant::now() + PATIENCE).await
    };
    let first = execute(1, "1").await?;
    equal("the answer to the same again", execute(1, "1").await?, first)?;
    equal("how often it was put", meta.kv().get("a").await?.map(|pair| pair.version), Some(1))?;
    execute(2, "2").await?;
    match execute(1, "1").await {
        Err(MetaError::Unknown { .. }) => {}
        other => return Err(Problem(format!("an earlier one: found {other:?}"))),
    }
    equal("its value", meta.kv().get("a").await?.map(|pair| pair.value), Some(b"2".to_vec()))
}

async fn nothing_is_done_before_a_cluster_is_formed(meta: Meta) -> Result<(), Problem> {
    refused("a put", meta.kv().put("a", "1").await, Refusal::NotFormed)?;
    equal("the version of no cluster", meta.members().cluster().await?.version, 0)?;
    equal("the first member", form(&meta).await?.id, 1)?;
    refused("a second one", form(&meta).await, Refusal::AlreadyFormed)?;
    let cluster = meta.members().cluster().await?;
    equal("the cluster", (cluster.cluster_id, cluster.system_id, cluster.members), (7, 8, 1))
}

async fn a_token_lets_one_node_join_once(meta: Meta) -> Result<(), Problem> {
    form(&meta).await?;
    let (token, record) = meta.tokens().create(0).await?;
    // Other processes are not shown it: whoever knows it could propose to join with it.
    equal("whether the hash is the token's", record.hash.is_empty() || record.hash == token.hash(), true)?;
    let member = meta.members().join(spec(2), &token).await?;
    equal("who asks again", meta.members().join(spec(2), &token).await?, member.clone())?;
    refused("another", meta.members().join(spec(3), &token).await, Refusal::TokenUsed)?;
    let (unused, record) = meta.tokens().create(60_000).await?;
    meta.tokens().revoke(record.id).await?;
    refused("a revoked token", meta.members().join(spec(3), &unused).await, Refusal::TokenExpired)?;
    equal("the members", meta.members().list().await?.iter().map(|member| member.id).collect(), vec![1, 2])?;
    let two = NodeId::new(2);
    meta.members().set_state(two, MemberState::Joining, MemberState::Active).await?;
    let again = meta.members().set_state(two, MemberState::Joining, MemberState::Active).await;
    refused("the same again", again, Refusal::MemberState)?;
    equal("its state", meta.members().get(two).await?.map(|member| member.state()), Some(MemberState::Active))
}

async fn a_member_starts_with_a_higher_incarnation_only(meta: Meta) -> Result<(), Problem> {
    form(&meta).await?;
    let start = async |secret: u8, incarnation: u64| {
        let (node, incarnation) = (NodeId::new(1), Incarnation::new(incarnation));
        meta.members().started(node, sha256(&[secret]), incarnation, 1, vec![]).await
    };
    equal("its incarnation", start(1, 3).await?.incarnation, 3)?;
    refused("a copy", start(1, 3).await, Refusal::StaleIncarnation)?;
    refused("a stranger", start(2, 4).await, Refusal::WrongSecret)?;
    refused("a version nobody knows", meta.members().raise_version(2).await, Refusal::Version)?;
    Ok(())
}

async fn a_member_votes_or_not_and_one_always_does(meta: Meta) -> Result<(), Problem> {
    let first = form(&meta).await?;
    equal("whether the first one does not vote", first.non_voting, false)?;
    let (one, two) = (NodeId::new(1), NodeId::new(2));
    let (token, _) = meta.tokens().create(0).await?;
    meta.members().join(spec(2), &token).await?;
    refused("the last vote", meta.members().set_vote(one, false).await, Refusal::LastMember)?;
    meta.members().set_state(two, MemberState::Joining, MemberState::Active).await?;
    let set = async |votes| meta.acting("ann", "enough others").members().set_vote(two, votes).await;
    let without = set(false).await?;
    equal("whether the second one does not vote", without.non_voting, true)?;
    equal("the same again", set(false).await?, without.clone())?;
    equal("the member", meta.members().get(two).await?, Some(without))?;
    refused("the last vote", meta.members().set_vote(one, false).await, Refusal::LastMember)?;
    refused("nobody's vote", meta.members().set_vote(NodeId::new(9), true).await, Refusal::NoSuchMember)?;
    let events = meta.events().list(0, 0).await?;
    let votes = events.iter().filter(|event| event.kind() == EventKind::MemberVote);
    let votes: Vec<_> = votes.map(|event| (event.subject.as_str(), event.actor.as_str())).collect();
    equal("the events", votes, vec![("2", "ann")])?;
    equal("whether it does not vote", set(true).await?.non_voting, false)?;
    equal("whether the first one does not vote", meta.members().set_vote(one, false).await?.non_voting, true)
}

async fn settings_are_set_reset_and_remembered(meta: Meta) -> Result<(), Problem> {
    form(&meta).await?;
    let error = refused("too little", meta.settings().set("kv.quota_bytes", "1 B").await, Refusal::OutOfRange)?;
    let names_range = error.to_string().contains("1 MiB to 8 GiB");
    equal("whether the range is said", names_range, true)?;
    refused("no setting", meta.settings().set("no.such", "1").await, Refusal::NoSuchSetting)?;
    refused("no setting", meta.settings().get("no.such").await, Refusal::NoSuchSetting)?;
    meta.acting("ann", "more room").settings().set("kv.quota_bytes", "512 MiB").await?;
    equal("the setting", meta.settings().get("kv.quota_bytes").await?.number, 512 << 20)?;
    let changed: Vec<_> =
        meta.settings().list().await?.into_iter().filter(|(setting, _)| !setting.is_default).collect();
    equal("what is not a default", changed.len(), 1)?;
    meta.settings().reset("kv.quota_bytes").await?;
    equal("the default", meta.settings().get("kv.quota_bytes").await?.number, 256 << 20)?;
    let history = meta.settings().history("kv.quota_bytes").await?;
    let history: Vec<_> = history.iter().map(|change| (change.actor.as_str(), change.value.as_deref())).collect();
    equal("the history", history, vec![("ann", Some("512 MiB")), ("conformance", None)])
}

async fn what_is_put_is_read(meta: Meta) -> Result<(), Problem> {
    form(&meta).await?;
    let kv = meta.kv();
    equal("the first revision", kv.put("a/1", "x").await?, 1)?;
    kv.put("a/2", "y").await?;
    kv.put("b", "z").await?;
    equal("a value", kv.get("a/2").await?.map(|pair| pair.value), Some(b"y".to_vec()))?;
    let prefix = || Keys::Prefix(b"a/".to_vec());
    let keys = |pairs: Vec<super::proto::KeyValue>| pairs.into_iter().map(|pair| pair.key).collect::<Vec<_>>();
    let found = kv.range(prefix(), 0).await?;
    equal(
        "a prefix",
        (keys(found.pairs), found.more, found.revision),
        (vec![b"a/1".to_vec(), b"a/2".to_vec()], false, 3),
    )?;
    equal("a limit", kv.range(prefix(), 1).await?.more, true)?;
    equal("deleted", kv.delete(prefix()).await?, 2)?;
    equal("what is left", kv.range(Keys::From(vec![]), 0).await?.pairs.len(), 1)?;
    equal("what was", kv.range_at(Keys::From(vec![]), 0, 3).await?.pairs.len(), 3)?;
    refused("the future", kv.range_at("b", 0, 99).await, Refusal::FutureRevision)?;
    kv.compact(4).await?;
    match kv.range_at("b", 0, 3).await {
        Err(MetaError::Watch(WatchError::Compacted { .. })) => {}
        other => return Err(Problem(format!("a revision that was compacted: found {other:?}"))),
    }
    equal("here", meta.local().kv().get("b").await?.map(|pair| pair.value), Some(b"z".to_vec()))?;
    refused("a large value", kv.put("a", vec![0; (1 << 20) + 1]).await, Refusal::TooLarge)?;
    Ok(())
}

async fn of_those_who_race_one_wins(meta: Meta) -> Result<(), Problem> {
    const TASKS: u64 = 8;
    const EACH: u64 = 5;
    form(&meta).await?;
    let count = async |meta: Meta| -> Result<(), Problem> {
        for _ in 0..EACH {
            loop {
                let before = meta.kv().get("count").await?;
                let number = before.as_ref().map_or(0, |pair| pair.value.len());
                let compares = vec![match &before {
                    Some(pair) => compare::mod_revision("count", pair.mod_revision),
                    None => compare::absent("count"),
                }];
                let then = vec![ops::put("count", vec![b'+'; number + 1])];
                if meta.kv().txn(Txn { compares, then, otherwise: vec![] }).await?.succeeded {
                    break;
                }
            }
        }
        Ok(())
    };
    let tasks: Vec<_> = (0..TASKS).map(|_| tokio::spawn(count(meta.clone()))).collect();
    for task in tasks {
        task.await.map_err(|error| Problem(error.to_string()))??;
    }
    let value = meta.kv().get("count").await?.map_or(0, |pair| pair.value.len() as u64);
    equal("what all counted", value, TASKS * EACH)
}

async fn a_batch_is_whole_or_nothing(meta: Meta) -> Result<(), Problem> {
    form(&meta).await?;
    let put = |key: &str| Kind::Put(Put { key: key.into(), value: vec![], lease: 0 });
    let set = SetSetting { name: "kv.max_leases".into(), value: "0".into() };
    refused("a batch", meta.batch(vec![put("a"), Kind::SetSetting(set)]).await, Refusal::OutOfRange)?;
    equal("the key of it", meta.kv().get("a").await?, None)?;
    equal("the results", meta.batch(vec![put("a"), put("b")]).await?.results.len(), 2)
}

/// What comes next, within the time that anything may take.
async fn soon<T, E: Into<Problem>>(next: impl Future<Output = Result<T, E>>) -> Result<T, Problem> {
    let next = tokio::time::timeout(PATIENCE, next).await;
    next.map_err(|_| Problem("nothing came in time".to_owned()))?.map_err(Into::into)
}

async fn a_watch_misses_nothing_and_repeats_nothing(meta: Meta) -> Result<(), Problem> {
    form(&meta).await?;
    let prefix = || Keys::Prefix(b"w".to_vec());
    let mut watch = meta.kv().watch(prefix(), 1);
    let writer = meta.clone();
    let written = tokio::spawn(async move {
        for number in 0..40u8 {
            writer.kv().put(format!("w{}", number % 3), [number]).await?;
            writer.kv().put("other", [number]).await?;
        }
        writer.kv().delete(prefix()).await
    });
    let mut revisions = Vec::new();
    let mut values = Vec::new();
    while values.len() < 40 {
        if let KvUpdate::Changes { revision, changes } = soon(watch.next()).await? {
            revisions.push(revision);
            values.extend(changes.into_iter().filter_map(|change| match change {
                KvChange::Put(pair) => pair.value.first().copied(),
                KvChange::Deleted { .. } => None,
            }));
        }
        // Another begins where this one is.
        watch = meta.kv().watch_noticed(prefix(), watch.position(), PATIENCE);
    }
    equal("the values", values, (0..40).collect())?;
    equal("whether revisions rise", revisions.is_sorted_by(|one, two| one < two), true)?;
    equal("deleted", written.await.map_err(|error| Problem(error.to_string()))??, 3)?;
    match soon(watch.next()).await? {
        KvUpdate::Changes { changes, .. } => equal("deletions in one revision", changes.len(), 3)?,
        other => return Err(Problem(format!("expected deletions, found {other:?}"))),
    }
    let mut idle = meta.kv().watch_noticed("never", 1, Duration::from_millis(1));
    let last = meta.kv().range("never", 0).await?.revision;
    equal("a notice", soon(idle.next()).await?, KvUpdate::Progress { revision: last })
}

async fn a_watch_behind_what_was_compacted_is_told(meta: Meta) -> Result<(), Problem> {
    form(&meta).await?;
    for number in 0..5 {
        meta.kv().put("a", [number]).await?;
    }
    meta.kv().compact(3).await?;
    // A watch reads what is here, and that may be older than what was acknowledged.
    meta.kv().get("a").await?;
    match soon(async { Ok::<_, Problem>(meta.kv().watch("a", 3).next().await) }).await? {
        Err(WatchError::Compacted { oldest: 4 }) => {}
        other => return Err(Problem(format!("expected to be told of revision 4, found {other:?}"))),
    }
    match soon(meta.kv().watch("a", 4).next()).await? {
        KvUpdate::Changes { revision: 4, .. } => Ok(()),
        other => Err(Problem(format!("expected revision 4, found {other:?}"))),
    }
}

async fn events_can_be_followed(meta: Meta) -> Result<(), Problem> {
    form(&meta).await?;
    let mut follow = meta.events().follow(1);
    let mut kinds = Vec::new();
    for _ in 0..2 {
        kinds.push(soon(follow.next()).await?.kind());
    }
    meta.acting("ann", "because").settings().set("kv.max_leases", "7").await?;
    let event = soon(follow.next()).await?;
    kinds.push(event.kind());
    equal("the kinds", kinds, vec![EventKind::ClusterFormed, EventKind::MemberAdded, EventKind::SettingSet])?;
    equal("the event", (event.sequence, event.actor.as_str(), event.reason.as_str()), (3, "ann", "because"))?;
    equal("the list", meta.events().list(2, 9).await?.len(), 2)?;
    equal("all of it", meta.events().list(0, 9).await?.len(), 3)
}

async fn keys_go_with_their_lease(meta: Meta) -> Result<(), Problem> {
    form(&meta).await?;
    let granted = meta.kv().grant_lease(Duration::from_secs(60)).await?;
    let lease = granted.id;
    meta.kv().put_leased("a", "1", lease).await?;
    let renewed = meta.kv().keep_alive(lease).await?;
    equal("whether it was renewed", renewed.renewal > granted.renewal, true)?;
    equal("its keys", meta.kv().lease(lease).await?.map(|lease| lease.keys), Some(1))?;
    let other = meta.kv().grant_lease(Duration::from_secs(60)).await?.id;
    let numbers = async |from, limit| {
        let leases = meta.kv().leases(from, limit).await?;
        Ok::<_, MetaError>(leases.iter().map(|lease| lease.id).collect::<Vec<_>>())
    };
    equal("all leases", numbers(0, 0).await?, vec![lease, other])?;
    equal("one lease", numbers(0, 1).await?, vec![lease])?;
    equal("leases from a number on", numbers(lease + 1, 9).await?, vec![other])?;
    equal("revoked", meta.kv().revoke_lease(lease).await?, 1)?;
    equal("its key", meta.kv().get("a").await?, None)?;
    equal("it", meta.kv().lease(lease).await?, None)?;
    refused("a put under it", meta.kv().put_leased("a", "1", lease).await, Refusal::NoSuchLease)?;
    Ok(())
}
