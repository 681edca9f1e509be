//! What a crash leaves of a store in RocksDB. A directory is copied while it is in use, as a kill would leave it, and the
//! copy's log is torn as a power cut would: behind what was synced anything may be missing, zero or garbage; before it,
//! nothing may.
//!
//! | file | what it holds |
//! |---|---|
//! | `support` | stores, and directories as a crash leaves them |
//! | `snapshot` | crashes while a snapshot is filled and taken over |
//! | `own` | the same where the state machine has a store of its own |

#![allow(clippy::expect_used, clippy::panic, reason = "a test may stop anywhere")]

#[path = "../support/ledger.rs"]
mod ledger;
mod own;
mod snapshot;
mod support;

use std::fs::{self, File};
use std::io;
use std::ops::Bound;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use mainstay::ident::{GroupId, LogIndex, NodeId, ReplicaId, Term};
use mainstay::lsn::Lsn;
use mainstay::raftstore::check;
use mainstay::raftstore::entry::{Entry, HardState, Membership, Position};
use mainstay::raftstore::log_store::{
    AppliedTo, KeyValue, LogStore, LogWrite, StoreError, StoredGroup, Table, TableStore, TableWrite,
};
use mainstay::raftstore::rocks::RocksStore;
use mainstay::storage::{Storage, StorageError};
use tempfile::TempDir;

use support::*;

/// Ends with synced writes of which the last changed a term, and several that were not synced.
fn crashed() -> Crashed {
    let directory = TempDir::new().expect("a directory");
    let store = open(directory.path());
    let [one, two] = GROUPS;
    store.write(&[create(one), create(two), append(one, 1, 20, 1, 2500)], true).expect("a write");
    apply(&store, one, 5);
    apply(&store, one, 15);
    store.write(&[append(two, 1, 3, 1, 2000)], false).expect("a write");
    store.write(&[LogWrite { truncate: Some(Position::new(10, 1)), ..LogWrite::new(one) }], true).expect("a write");
    // A term: what it is worth is that nobody votes twice.
    store.write(&[append(one, 21, 22, 2, 300)], true).expect("a write");
    let (synced_len, mut all) = (log_len(directory.path()), vec![contents(&store)]);

    let mut step = |done: &mut dyn FnMut()| {
        done();
        all.push(contents(&store));
    };
    for index in 16..20 {
        step(&mut || apply(&store, one, index));
    }
    step(&mut || store.write(&[append(one, 23, 40, 2, 1500)], false).expect("a write"));
    step(&mut || apply(&store, one, 30));
    step(&mut || apply(&store, two, 2));
    let truncate = |group, position| LogWrite { truncate: Some(position), ..LogWrite::new(group) };
    step(&mut || {
        store
            .write(&[truncate(one, Position::new(25, 2)), truncate(two, Position::new(1, 1))], false)
            .expect("a write");
    });
    step(&mut || apply(&store, one, 40));
    Crashed { directory: copy(directory.path()), synced_len, contents: all }
}

#[test]
fn a_kill_loses_nothing() {
    let crashed = crashed();
    assert_eq!(crashed.survives("a kill", |_, _| ()), crashed.contents.len() - 1);
}

#[test]
fn a_log_cut_behind_what_was_synced_holds_a_prefix() {
    let crashed = crashed();
    let len = log_len(crashed.directory.path());
    assert!(len > crashed.synced_len + 4 * PAGE, "{len}");
    let mut places = Vec::new();
    // Finely where effects were written, of which none may be there without its applied index.
    let effects = (crashed.synced_len..crashed.synced_len + 600).step_by(16);
    let step = (len - crashed.synced_len) / 12;
    for cut in effects.chain((crashed.synced_len + 600..=len).step_by(step as usize)) {
        places.push(crashed.survives(&format!("cut at {cut}"), |log, _| log.set_len(cut).expect("a cut")));
    }
    assert!(places.is_sorted() && places[0] == 0, "{places:?}");
    assert!(places.iter().any(|place| (1..crashed.contents.len() - 1).contains(place)), "{places:?}");
}

#[test]
fn a_log_that_is_zero_or_garbage_behind_what_was_synced_holds_a_prefix() {
    let crashed = crashed();
    let len = log_len(crashed.directory.path());
    let step = (len - crashed.synced_len) / 8;
    for fill in [0u8, 0x5A] {
        for from in (crashed.synced_len..len).step_by(step as usize) {
            let torn = |log: &File, len: u64| {
                log.write_all_at(&vec![fill; (len - from) as usize], from).expect("a write");
            };
            crashed.survives(&format!("{fill:#x} from {from}"), torn);
        }
    }
}

/// A file system writes the pages of a file in any order.
#[test]
fn a_log_with_any_of_its_unsynced_pages_missing_holds_a_prefix() {
    let crashed = crashed();
    // Which pages are there: fixed, and different each time.
    let mut seed = 0x9E37_79B9_7F4A_7C15u64;
    let mut later = 0;
    for round in 0..16 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let bits = seed >> 32;
        let torn = |log: &File, len: u64| {
            let mut at = crashed.synced_len;
            for page in 0.. {
                let end = ((at / PAGE + 1) * PAGE).min(len);
                if bits >> (page % 32) & 1 == 0 {
                    log.write_all_at(&vec![0; (end - at) as usize], at).expect("a write");
                }
                at = end;
                if at == len {
                    break;
                }
            }
        };
        later += usize::from(crashed.survives(&format!("round {round}"), torn) > 0);
    }
    assert!(later > 0, "no round kept anything");
}

/// RocksDB's own recovery would silently drop everything behind the flip.
#[test]
fn a_flip_in_what_was_synced_is_refused_and_nothing_is_changed() {
    let crashed = crashed();
    let step = crashed.synced_len / 40;
    for at in (0..crashed.synced_len).step_by(step as usize).chain([crashed.synced_len - 1]) {
        let copy = copy(crashed.directory.path());
        let log = File::options().read(true).write(true).open(rocksdb_log(copy.path())).expect("the log");
        let mut byte = [0];
        log.read_exact_at(&mut byte, at).expect("a byte");
        log.write_all_at(&[byte[0] ^ 4], at).expect("a flip");
        let before = files(copy.path());
        match storage(copy.path()) {
            Err(StorageError::Damaged { .. }) => {}
            Err(other) => panic!("a flip at {at}: {other}"),
            Ok(_) => panic!("a flip at {at} was not noticed"),
        }
        assert!(files(copy.path()) == before, "a flip at {at}: something was changed");
    }
}

/// RocksDB writes out what is in memory, one family before the other, and begins a new log: also then effects never
/// stand without their applied index, nor it without them.
#[test]
fn effects_and_applied_index_agree_though_families_are_written_out_apart() {
    const VALUE_BYTES: usize = 1 << 20;
    const APPLIES: u64 = 80;
    let directory = TempDir::new().expect("a directory");
    let store = open(directory.path());
    let one = GROUPS[0];
    store.write(&[create(one), append(one, 1, APPLIES, 1, 10)], true).expect("a write");
    let first = newest_log(directory.path());
    for index in 1..=APPLIES {
        let writes = [TableWrite::Put(Table::Kv, index.to_be_bytes().to_vec(), vec![index as u8; VALUE_BYTES])];
        let applied = AppliedTo { index: LogIndex::new(index), membership: None };
        store.apply(one, &writes, &applied).expect("an apply");
    }
    let crashed = copy_at_rest(directory.path());
    let newest = newest_log(crashed.path());
    let len = newest.metadata().expect("a file").len();
    assert!(newest.file_name() != first.file_name() && len > VALUE_BYTES as u64, "nothing was written out: {len}");
    for kept in [len, len - 1, len / 2, 100, 0] {
        let torn = copy(crashed.path());
        let log = File::options().write(true).open(newest_log(torn.path())).expect("the log");
        log.set_len(kept).expect("a cut");
        let store = open(torn.path());
        assert_consistent(&store);
        let applied = store.load(one).expect("a group").expect("a group").applied;
        let table = store.scan(one, Table::Kv, (Bound::Unbounded, Bound::Unbounded), usize::MAX).expect("a table");
        assert_eq!(table.len() as u64, applied.get(), "{kept} of {len} bytes");
        // The file may have been another log's before, and longer than this one is.
        assert!(kept > 100 || applied < LogIndex::new(APPLIES));
    }
}

const DIRECTORY: &str = "MAINSTAY_TEST_DIRECTORY";

/// Rule of durable order 5. The operating system refuses to let a file grow beyond a limit, in a process of its own.
#[test]
fn a_failed_write_is_the_last() {
    if let Some(directory) = std::env::var_os(DIRECTORY) {
        return write_until_it_fails(Path::new(&directory));
    }
    let directory = TempDir::new().expect("a directory");
    // Ignored, the signal becomes an error of the write; that is inherited.
    let script = r#"trap "" XFSZ; ulimit -f 2000; exec "$0" "$@""#;
    let output = Command::new("sh")
        .args(["-c", script])
        .arg(std::env::current_exe().expect("this program"))
        .args(["--exact", "a_failed_write_is_the_last", "--nocapture"])
        .env(DIRECTORY, directory.path())
        .output()
        .expect("a process");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let acknowledged = text.lines().find_map(|line| line.split("acknowledged up to ").nth(1));
    let acknowledged: u64 = acknowledged.and_then(|number| number.trim().parse().ok()).expect("a number");
    assert!(acknowledged > 2, "{acknowledged}");
    let store = open(directory.path());
    assert_consistent(&store);
    let stored = store.load(GROUPS[0]).expect("a group").expect("a group");
    assert!(stored.last.index >= LogIndex::new(acknowledged), "{stored:?}");
}

fn write_until_it_fails(directory: &Path) {
    let storage = Arc::new(storage(directory).expect("a data directory"));
    let store = RocksStore::open(Arc::clone(&storage)).expect("a store");
    let [one, two] = GROUPS;
    store.write(&[create(one), create(two)], true).expect("a write");
    let mut index = 0;
    let error = loop {
        index += 1;
        assert!(index < 1000, "the limit is not in force");
        if let Err(error) = store.write(&[append(one, index, index, 1, 64 << 10)], true) {
            break error;
        }
    };
    assert!(matches!(error, StoreError::Failed(_)), "{error}");
    let poisoned = |answer: Result<(), StoreError>| match answer {
        Err(StoreError::Poisoned(what)) => assert_eq!(what, error.to_string()),
        other => panic!("expected it to be poisoned, found {other:?}"),
    };
    // Small enough to be written.
    poisoned(store.write(&[append(two, 1, 1, 1, 1)], true));
    poisoned(store.write(&[append(two, 1, 1, 1, 1)], false));
    poisoned(store.apply(one, &[], &AppliedTo { index: LogIndex::new(1), membership: None }));
    assert!(matches!(storage.note_checkpoint(Lsn::new(1)), Err(StorageError::Poisoned { .. })));
    // What was acknowledged can be read.
    assert_eq!(store.term(one, LogIndex::new(index - 1)), Ok(Some(Term::new(1))));
    println!("\nacknowledged up to {}", index - 1);
}

/// A replica that comes back without its tombstone would vote again for what it has voted on.
#[test]
fn a_tombstone_is_whole_or_its_loss_is_noticed() {
    let directory = TempDir::new().expect("a directory");
    let store = open(directory.path());
    let [one, two] = GROUPS;
    store
        .write(&[create(one), create(two), append(one, 1, 20, 1, 300), append(two, 1, 3, 1, 300)], true)
        .expect("a write");
    apply(&store, one, 15);
    let before = log_len(directory.path());
    store.destroy(one).expect("a destruction");
    let after = log_len(directory.path());
    assert!(after > before, "{before} to {after}");
    apply(&store, two, 2);

    let crashed = copy(directory.path());
    let reopened = open(crashed.path());
    assert_eq!(reopened.groups().expect("groups"), [two]);
    assert_eq!(reopened.tombstones().expect("tombstones"), [(one, ReplicaId::new(1))]);
    assert!(matches!(reopened.write(&[create(one)], true), Err(StoreError::Refused(_))));
    assert_consistent(&reopened);
    for cut in (before..after).step_by(16) {
        let torn = copy(directory.path());
        let log = File::options().write(true).open(rocksdb_log(torn.path())).expect("the log");
        log.set_len(cut).expect("a cut");
        assert!(matches!(storage(torn.path()), Err(StorageError::Damaged { .. })), "cut at {cut}: not noticed");
    }
}
