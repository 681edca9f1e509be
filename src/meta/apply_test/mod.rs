//! Commands on tables in memory.

mod kv;
mod members;
mod properties;

use super::super::proto::answer;
use super::super::view::MemoryTables;
use super::*;
use crate::meta::proto::{
    AddMember, Attribute, CreateToken, Delete, DueLease, Event, Expire, GrantLease, Init, KeyRange, KeyValue, Lease,
    Member, MemberSpec, MemberState, Op, Put, RaiseVersion, SetSetting, StartMember, Token, Txn,
};
use crate::meta::read;

/// A replica.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Replica {
    tables: MemoryTables,
    index: u64,
}

impl Replica {
    /// One that has formed its cluster.
    fn formed() -> Replica {
        let mut replica = Replica::default();
        replica.done(Kind::Init(init()));
        replica
    }

    /// Applies a batch, and knows nothing but what the tables say.
    fn apply(&mut self, commands: &[Vec<u8>]) -> Result<Vec<Answer>, ApplyError> {
        let remembered = Remembered { state: State::load(&self.tables)?, recent: Recent::default() };
        Ok(self.go_on(remembered, commands)?.0)
    }

    /// Applies a batch behind another.
    fn go_on(&mut self, remembered: Remembered, commands: &[Vec<u8>]) -> Result<(Vec<Answer>, Remembered), ApplyError> {
        let mut applier = Applier::resume(&self.tables, remembered)?;
        let mut answers = Vec::new();
        for command in commands {
            self.index += 1;
            answers.push(applier.apply(LogIndex::new(self.index), command)?.answer);
        }
        let (writes, _, remembered) = applier.finish();
        self.tables.write(writes);
        Ok((answers, remembered))
    }

    fn command(&mut self, actions: Vec<Kind>) -> Result<Done, Refused> {
        match self.apply(&[encoded(actions)]).unwrap().remove(0).outcome.unwrap() {
            answer::Outcome::Done(done) => Ok(done),
            answer::Outcome::Refused(refused) => Err(refused),
        }
    }

    /// Applies one action that has to be done.
    fn done(&mut self, action: Kind) -> Outcome {
        self.command(vec![action]).unwrap().results.remove(0).kind.unwrap()
    }

    /// Applies one action that has to be refused, and writes nothing.
    fn refused(&mut self, action: Kind) -> Refused {
        let before = self.tables.clone();
        let refused = self.command(vec![action]).unwrap_err();
        assert_eq!(self.tables, before, "what is refused writes nothing");
        assert!(!refused.message.is_empty());
        refused
    }

    fn why(&mut self, action: Kind) -> Refusal {
        self.refused(action).why()
    }

    fn get(&self, key: &str) -> Option<String> {
        let pair = read::latest(&self.tables, key.as_bytes()).unwrap();
        pair.map(|pair| String::from_utf8(pair.value).unwrap())
    }

    fn range_at(&self, from: &str, end: &str, revision: u64) -> Vec<(String, String)> {
        let range = KeyRange { key: from.into(), end: end.into() };
        let (pairs, more) = read::range(&self.tables, &range, revision, 100, usize::MAX).unwrap();
        assert!(!more);
        let text = |bytes| String::from_utf8(bytes).unwrap();
        pairs.into_iter().map(|pair| (text(pair.key), text(pair.value))).collect()
    }

    fn kv(&self) -> proto::KvHeader {
        State::headers(&self.tables).unwrap().kv
    }

    fn events(&self) -> Vec<Event> {
        let range = Cluster::Event.all();
        let pairs = self.tables.scan(Table::Cluster, &range.start..&range.end, usize::MAX).unwrap();
        pairs.iter().map(|(key, value)| keys::decode(Table::Cluster, key, value).unwrap()).collect()
    }
}

fn encoded(actions: Vec<Kind>) -> Vec<u8> {
    let actions = actions.into_iter().map(command::action).collect();
    command::encode(&Command { actor: "ann".into(), reason: "a test".into(), unix_ms: 5, actions })
}

fn hash(byte: u8) -> Vec<u8> {
    vec![byte; 32]
}

/// A member with this secret, listening where nobody else does.
fn spec(secret: u8) -> MemberSpec {
    MemberSpec {
        name: String::new(),
        addresses: vec![format!("10.0.0.{secret}:7000")],
        attributes: Vec::new(),
        locality: Vec::new(),
        secret_hash: hash(secret),
        incarnation: 1,
        version: 1,
    }
}

fn init() -> Init {
    Init { cluster_id: 7, system_id: 8, member: Some(spec(1)) }
}

fn put(key: &str, value: &str) -> Kind {
    Kind::Put(leased(key, value, 0))
}

fn leased(key: &str, value: &str, lease: u64) -> Put {
    Put { key: key.into(), value: value.into(), lease }
}

fn delete(from: &str, end: &str) -> Kind {
    Kind::Delete(Delete { range: Some(KeyRange { key: from.into(), end: end.into() }) })
}

fn set(name: &str, value: &str) -> Kind {
    Kind::SetSetting(SetSetting { name: name.into(), value: value.into() })
}

fn grant(id: u64, ttl_ms: u64) -> Kind {
    Kind::GrantLease(GrantLease { id, ttl_ms })
}

/// The record in an outcome.
macro_rules! the {
    ($kind:ident, $outcome:expr) => {
        match $outcome {
            Outcome::$kind(record) => record,
            other => panic!("expected {}, found {other:?}", stringify!($kind)),
        }
    };
}
use the;

#[test]
fn a_command_of_a_newer_version_stops_the_replica() {
    let mut replica = Replica::formed();
    let before = replica.clone();
    let mut newer = encoded(vec![put("a", "1")]);
    newer[0] = 2;
    let error = replica.apply(&[encoded(vec![put("b", "1")]), newer]).unwrap_err();
    assert!(error.to_string().contains("version 2; this build knows 1"), "{error}");
    assert_eq!(replica.tables, before.tables);
    assert!(replica.apply(&[b"garbage".to_vec()]).is_err());
    // An action of no kind at all is not from a newer version, and means nothing.
    let empty = Command { actions: vec![Action { kind: None }], ..Command::default() };
    let answer = replica.apply(&[command::encode(&empty)]).unwrap().remove(0);
    assert!(matches!(answer.outcome, Some(answer::Outcome::Refused(refused)) if refused.why() == Refusal::Invalid));
}

#[test]
fn a_cluster_beyond_this_build_stops_the_replica() {
    let mut replica = Replica::formed();
    assert_eq!(replica.why(Kind::RaiseVersion(RaiseVersion { to: 1 })), Refusal::Version);
    assert_eq!(replica.why(Kind::RaiseVersion(RaiseVersion { to: 2 })), Refusal::Version, "member 1 knows 1 only");
    let start = StartMember { id: 1, secret_hash: hash(1), incarnation: 2, version: 2, addresses: vec![] };
    replica.done(Kind::StartMember(start));
    let raise = encoded(vec![Kind::RaiseVersion(RaiseVersion { to: 2 })]);
    let error = replica.apply(&[raise]).unwrap_err();
    assert!(error.to_string().contains("raised to version 2"), "{error}");
    // A build that was put back does not even begin.
    let mut header = State::headers(&replica.tables).unwrap().cluster;
    header.version = 2;
    let writes = [(Table::Cluster, [(Cluster::Header.key(&[]), Some(keys::encode(&header)))].into())];
    replica.tables.write(writes.into());
    let error = replica.apply(&[encoded(vec![put("a", "1")])]).unwrap_err();
    assert!(error.to_string().contains("the cluster is of version 2; this build knows 1"), "{error}");
}

/// There is no later version yet, so that none can be written down in bytes.
#[test]
fn a_command_of_a_later_version_waits_until_the_cluster_is_raised() {
    let replica = Replica::formed();
    let command = Command::default();
    let step = Step {
        view: Overlay::new(&replica.tables),
        state: State::load(&replica.tables).unwrap(),
        recent: &Recent::default(),
        changed: BTreeMap::new(),
        origin: Origin { index: 9, command: &command },
        change: ChangeSet::default(),
        answer_bytes: 0,
    };
    let action = command::action(put("a", "1"));
    assert!(step.allowed(1, &action).is_ok());
    let Err(Fault::Refused(refused)) = step.allowed(2, &action) else { panic!("it is allowed") };
    assert_eq!((refused.why(), refused.number), (Refusal::Version, 1));
}

#[test]
fn nothing_but_forming_it_is_done_before_there_is_a_cluster_and_that_once() {
    let mut replica = Replica::default();
    assert_eq!(replica.why(put("a", "1")), Refusal::NotFormed);
    assert_eq!(replica.why(Kind::Init(Init { cluster_id: 0, ..init() })), Refusal::Invalid);
    let member = the!(Member, replica.done(Kind::Init(init())));
    assert_eq!((member.id, member.name.as_str(), member.state()), (1, "node1", MemberState::Active));
    assert_eq!(replica.why(Kind::Init(init())), Refusal::AlreadyFormed);
}

#[test]
fn a_command_of_many_actions_takes_effect_as_a_whole_or_not_at_all() {
    let mut replica = Replica::formed();
    let before = replica.tables.clone();
    let refused = replica.command(vec![put("a", "1"), set("kv.max_leases", "5"), put("", "2")]).unwrap_err();
    assert_eq!((refused.why(), refused.action), (Refusal::Invalid, 2));
    assert_eq!(replica.tables, before);
    assert_eq!(replica.kv().revision, 0);
    let done = replica.command(vec![put("a", "1"), set("kv.max_leases", "1"), put("a", "2"), grant(0, 1000)]).unwrap();
    assert_eq!((done.results.len(), done.revision), (4, 2), "each action is a revision of its own");
    assert_eq!(replica.get("a").as_deref(), Some("2"));
    assert_eq!(replica.why(grant(0, 1000)), Refusal::TooMany, "the setting holds from the action on");
    assert_eq!(replica.command(vec![]).unwrap_err().why(), Refusal::TooMany);
    assert_eq!(replica.command(vec![put("a", "1"); 129]).unwrap_err().why(), Refusal::TooMany);
}

#[test]
fn settings_are_set_reset_and_their_history_kept() {
    let mut replica = Replica::formed();
    let refused = replica.refused(set("kv.quota_bytes", "1 KiB"));
    assert_eq!(refused.why(), Refusal::OutOfRange);
    assert!(refused.message.contains("1 MiB to 8 GiB"), "{}", refused.message);
    assert_eq!(replica.why(set("no.such", "1")), Refusal::NoSuchSetting);
    let reset = || Kind::ResetSetting(proto::ResetSetting { name: "kv.quota_bytes".into() });
    assert!(the!(Setting, replica.done(reset())).is_default);
    assert_eq!(replica.events().len(), 2, "resetting what nobody has set is no change");
    let setting = the!(Setting, replica.done(set("kv.quota_bytes", "2 MiB")));
    assert_eq!((setting.number, setting.changes, setting.is_default), (2 << 20, 1, false));
    let setting = the!(Setting, replica.done(reset()));
    assert_eq!((setting.number, setting.changes, setting.is_default), (256 << 20, 2, true));
    let events = replica.events();
    let last: Vec<_> = events.iter().rev().take(2).map(|event| (event.kind(), event.detail.as_str())).collect();
    let reset_event = (proto::EventKind::SettingReset, "2 MiB → 256 MiB");
    assert_eq!(last, [reset_event, (proto::EventKind::SettingSet, "256 MiB → 2 MiB")]);
    assert_eq!((events[3].actor.as_str(), events[3].reason.as_str(), events[3].index), ("ann", "a test", 6));
    for _ in 0..100 {
        replica.done(set("kv.quota_bytes", "3 MiB"));
    }
    let range = keys::setting_changes("kv.quota_bytes");
    let changes = replica.tables.scan(Table::Cluster, &range.start..&range.end, usize::MAX).unwrap();
    assert_eq!(changes.len(), 64, "the history is bounded");
    let last: proto::SettingChange = keys::decode(Table::Cluster, &changes[63].0, &changes[63].1).unwrap();
    assert_eq!((last.value.as_deref(), last.index), (Some("3 MiB"), replica.index));
}

#[test]
fn the_event_log_is_bounded_and_its_numbers_go_on() {
    let mut replica = Replica::formed();
    replica.done(set("events.max_count", "200"));
    for _ in 0..300 {
        replica.done(set("kv.max_leases", "5"));
    }
    let numbers: Vec<_> = replica.events().iter().map(|event| event.sequence).collect();
    assert_eq!(numbers, (104..304).collect::<Vec<_>>());
    // Lowered, it shrinks by a few with each event.
    replica.done(set("events.max_count", "100"));
    assert_eq!(replica.events().len(), 185);
    for _ in 0..10 {
        replica.done(set("kv.max_leases", "5"));
    }
    assert_eq!(replica.events().len(), 100);
}
