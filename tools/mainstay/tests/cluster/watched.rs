//! Watches that are there from before the trouble until after it: each gives every change once, in the order of revisions,
//! and all give the same; in the end every node holds what they gave.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use mainstay::meta::client::{Keys, Meta};
use mainstay::meta::proto::{Event, Refusal};
use mainstay::meta::service::MetaError;
use mainstay::meta::watch::{KvChange, KvUpdate, WatchError};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::registers::{PATIENT, PREFIX, client};
use crate::support::LIMIT;

/// A watch says so if nothing came for so long: a node that is gone is noticed then.
const NOTICE_EVERY: Duration = Duration::from_millis(500);
/// Updates until the last watch is closed, and goes on as another client's.
const RENEWED_AFTER: usize = 100;
/// What is put behind everything else.
const END: &str = "r-end";
/// Until every watch and node is there.
const PATIENCE: Duration = Duration::from_secs(60);

/// A key that changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub revision: u64,
    pub key: Vec<u8>,
    /// Nothing if it was deleted.
    pub value: Option<Vec<u8>>,
}

/// Watches, one that begins at each node, and one that changes its client all the time; and one of the events.
pub struct Watched {
    addresses: Vec<String>,
    from: u64,
    watches: Vec<JoinHandle<Vec<Change>>>,
    events: JoinHandle<Vec<Event>>,
}

fn keys() -> Keys {
    Keys::Prefix(PREFIX.into())
}

impl Watched {
    pub async fn start(addresses: &[String]) -> Watched {
        let from = client(addresses, PATIENT).kv().size().await.unwrap().revision + 1;
        let begin_at = |first: usize| {
            let mut addresses = addresses.to_vec();
            addresses.rotate_left(first);
            addresses
        };
        let mut watches: Vec<_> =
            (0..addresses.len()).map(|first| tokio::spawn(watch(begin_at(first), from, usize::MAX))).collect();
        watches.push(tokio::spawn(watch(begin_at(0), from, RENEWED_AFTER)));
        let events = tokio::spawn(follow(begin_at(1)));
        Watched { addresses: addresses.to_vec(), from, watches, events }
    }

    /// Ends the watches and checks them; answers what changed.
    pub async fn end(self, meta: &Meta) -> Vec<Change> {
        let last = meta.kv().put(END, "").await.unwrap();
        // The last of the events, by what it is about.
        meta.settings().set("kv.max_leases", "77777").await.unwrap();
        let mut all = Vec::new();
        for watch in self.watches {
            all.push(timeout(PATIENCE, watch).await.expect("a watch does not get to the end").unwrap());
        }
        let first = all.pop().unwrap();
        assert!(all.iter().all(|other| *other == first), "the watches did not give the same");
        let mut revisions: Vec<u64> = first.iter().map(|change| change.revision).collect();
        assert!(revisions.is_sorted());
        revisions.dedup();
        // Nobody else changes keys here.
        assert!(revisions.iter().copied().eq(self.from..=last), "from {} to {last}: {revisions:?}", self.from);

        let followed = timeout(PATIENCE, self.events).await.expect("the events do not come to an end").unwrap();
        let mut events = meta.events().list(1, 0).await.unwrap();
        events.truncate(followed.len());
        assert_eq!(followed, events);
        assert!(followed.iter().map(|event| event.sequence).eq(1..=followed.len() as u64));

        let mut expected = BTreeMap::new();
        for Change { revision, key, value } in first.iter().cloned() {
            match value {
                Some(value) => drop(expected.insert(key, (revision, value))),
                None => drop(expected.remove(&key)),
            }
        }
        for address in &self.addresses {
            let found = state(address, last).await;
            assert_eq!(found, expected, "{address}");
        }
        first
    }
}

/// What a node holds itself at a revision, once it has it.
async fn state(address: &str, revision: u64) -> BTreeMap<Vec<u8>, (u64, Vec<u8>)> {
    let (meta, begun) = (client(&[address.to_owned()], LIMIT).local(), Instant::now());
    loop {
        match meta.kv().range_at(keys(), 0, revision).await {
            Ok(found) => {
                let pairs = found.pairs.into_iter();
                return pairs.map(|pair| (pair.key, (pair.mod_revision, pair.value))).collect();
            }
            Err(MetaError::Refused(refused)) if refused.why() == Refusal::FutureRevision => {}
            Err(error) => panic!("{address}: {error:?}"),
        }
        assert!(begun.elapsed() < PATIENCE, "{address} does not get to revision {revision}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Watches until the end was put.
async fn watch(mut addresses: Vec<String>, from: u64, renewed_after: usize) -> Vec<Change> {
    let mut watch = client(&addresses, PATIENT).kv().watch_noticed(keys(), from, NOTICE_EVERY);
    let (mut given, mut updates) = (Vec::new(), 0);
    loop {
        let (revision, changes) = match watch.next().await {
            Ok(KvUpdate::Changes { revision, changes }) => (revision, changes),
            Ok(KvUpdate::Progress { revision }) => {
                let last = given.last().map_or(0, |change: &Change| change.revision);
                assert!(revision >= last, "up to {revision} everything was given, and {last} was, too");
                continue;
            }
            // Nobody led for long: it goes on where it is.
            Err(WatchError::Unreachable { .. }) => continue,
            Err(error) => panic!("the watch ended: {error:?}"),
        };
        let last = given.last().map_or(from - 1, |change: &Change| change.revision);
        assert!(revision > last, "revision {revision} came after {last}");
        for change in changes {
            let (key, value) = match change {
                KvChange::Put(pair) => {
                    assert_eq!(pair.mod_revision, revision);
                    (pair.key, Some(pair.value))
                }
                KvChange::Deleted { key } => (key, None),
            };
            given.push(Change { revision, key, value });
        }
        if given.last().is_some_and(|change| change.key == END.as_bytes()) {
            return given;
        }
        updates += 1;
        if updates % renewed_after == 0 {
            addresses.rotate_left(1);
            assert_eq!(watch.position(), revision + 1);
            watch = client(&addresses, PATIENT).kv().watch_noticed(keys(), watch.position(), NOTICE_EVERY);
        }
    }
}

/// Follows the events from the first on until the last.
async fn follow(addresses: Vec<String>) -> Vec<Event> {
    let mut events = client(&addresses, PATIENT).events().follow(1);
    let mut given = Vec::new();
    loop {
        match events.next().await {
            Ok(event) => given.push(event),
            Err(WatchError::Unreachable { .. }) => continue,
            Err(error) => panic!("following ended: {error:?}"),
        }
        if given.last().is_some_and(|event| event.detail.ends_with("77777")) {
            return given;
        }
    }
}
