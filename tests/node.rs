//! Whole nodes with a small engine: opening, replay, checkpoints, refusals, closing.

#![allow(clippy::unwrap_used, reason = "a test may stop anywhere")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mainstay::config::NodeConfig;
use mainstay::engine::{Engine, EngineError};
use mainstay::ident::SystemId;
use mainstay::lsn::Lsn;
use mainstay::node::{Node, NodeError, Primary};
use mainstay::storage::StorageError;
use mainstay::wal::retention::HolderKind;
use mainstay::wal::{AppendError, Health, Record, SegmentNumber, WalError};

const MIB: u64 = 1 << 20;

/// Keeps the records themselves; its file is a dump of them.
struct Tape {
    file: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    records: BTreeMap<Lsn, Vec<u8>>,
    applied: Lsn,
    primary: Option<Arc<Primary>>,
    /// Answered instead of the truth at the next checkpoint.
    lie: Option<Lsn>,
    /// The system it was told to belong to.
    system: Option<SystemId>,
}

impl Tape {
    fn open(directory: &Path) -> Result<Tape, EngineError> {
        let file = directory.join("tape");
        let mut state = State::default();
        if let Ok(text) = fs::read_to_string(&file) {
            let mut lines = text.lines();
            state.applied = lines.next().unwrap().parse().unwrap();
            for line in lines {
                let (end, payload) = line.split_once(' ').unwrap();
                state.records.insert(end.parse().unwrap(), payload.as_bytes().to_vec());
            }
        }
        Ok(Tape { file, state: Mutex::new(state) })
    }

    fn write(&self, payload: &[u8]) -> Result<Lsn, AppendError> {
        let mut state = self.state.lock().unwrap();
        let primary = Arc::clone(state.primary.as_ref().ok_or(AppendError::Fenced)?);
        primary.room_blocking(payload.len())?;
        let end = primary.append(payload)?;
        primary.commit_blocking(end).unwrap();
        state.records.insert(end, payload.to_vec());
        state.applied = end;
        Ok(end)
    }

    fn payloads(&self) -> Vec<Vec<u8>> {
        self.state.lock().unwrap().records.values().cloned().collect()
    }
}

impl Engine for Tape {
    fn applied(&self) -> Result<Lsn, EngineError> {
        Ok(self.state.lock().unwrap().applied)
    }

    fn system(&self) -> Result<Option<SystemId>, EngineError> {
        Ok(self.state.lock().unwrap().system)
    }

    fn apply(&self, records: &[Record]) -> Result<(), EngineError> {
        let mut state = self.state.lock().unwrap();
        for record in records {
            if state.applied > record.start {
                return Err(EngineError::new(format!("{} was applied before", record.start)));
            }
            state.records.insert(record.end, record.payload.clone());
            state.applied = record.end;
        }
        Ok(())
    }

    fn checkpoint(&self) -> Result<Lsn, EngineError> {
        let state = self.state.lock().unwrap();
        let mut text = format!("{}\n", state.applied);
        for (end, payload) in &state.records {
            text += &format!("{end} {}\n", String::from_utf8_lossy(payload));
        }
        fs::write(&self.file, text).map_err(EngineError::new)?;
        Ok(state.lie.unwrap_or(state.applied))
    }

    fn promote(&self, primary: Primary) -> Result<(), EngineError> {
        self.state.lock().unwrap().primary = Some(Arc::new(primary));
        Ok(())
    }

    fn demote(&self) {
        self.state.lock().unwrap().primary = None;
    }
}

fn config(directory: &Path) -> NodeConfig {
    let mut config = NodeConfig::new(directory);
    config.wal.segment_size_bytes = MIB;
    config.wal.reserve_bytes = MIB;
    config
}

async fn open(config: &NodeConfig) -> Result<Node<Tape>, NodeError> {
    Node::open(config.clone(), Tape::open).await
}

fn payload(number: usize) -> Vec<u8> {
    format!("record {number}").into_bytes()
}

#[tokio::test]
async fn a_node_dropped_without_shutdown_replays_and_a_clean_one_need_not() {
    let place = tempfile::tempdir().unwrap();
    let config = config(place.path());
    let mut expected = Vec::new();
    for round in 0..6 {
        let node = open(&config).await.unwrap();
        assert_eq!(node.engine().payloads(), expected, "round {round}");
        for number in 0..10 {
            expected.push(payload(round * 10 + number));
            node.engine().write(expected.last().unwrap()).unwrap();
        }
        if round % 2 == 0 {
            node.engine().demote();
            drop(node);
        } else {
            node.shutdown().await.unwrap();
        }
    }
}

#[tokio::test]
async fn after_shutdown_the_old_handle_is_void() {
    let place = tempfile::tempdir().unwrap();
    let config = config(place.path());
    let node = open(&config).await.unwrap();
    let engine = Arc::clone(node.engine());
    let kept = Arc::clone(engine.state.lock().unwrap().primary.as_ref().unwrap());
    node.shutdown().await.unwrap();
    assert!(matches!(engine.write(b"late"), Err(AppendError::Fenced)));
    assert!(matches!(kept.append(b"late"), Err(AppendError::Fenced)));
    drop(kept);
    assert!(open(&config).await.unwrap().engine().payloads().is_empty());
}

#[tokio::test]
async fn a_dropped_nodes_engine_writes_nothing_more_while_another_node_has_the_directory() {
    let place = tempfile::tempdir().unwrap();
    let config = config(place.path());
    let first = open(&config).await.unwrap();
    let kept = Arc::clone(first.engine());
    kept.write(b"one").unwrap();
    drop(first);
    let second = open(&config).await.unwrap();
    assert!(matches!(kept.write(b"late"), Err(AppendError::Fenced)));
    second.engine().write(b"two").unwrap();
    drop(second);
    assert_eq!(open(&config).await.unwrap().engine().payloads(), [b"one", b"two"]);
}

#[tokio::test]
async fn an_engine_that_lies_about_its_checkpoint_is_refused_and_loses_nothing() {
    let place = tempfile::tempdir().unwrap();
    let config = config(place.path());
    for lie in [Lsn::new(1 << 40), Lsn::new(MIB + 70), Lsn::new(1)] {
        let node = open(&config).await.unwrap();
        node.engine().write(b"true").unwrap();
        node.engine().state.lock().unwrap().lie = Some(lie);
        let error = node.shutdown().await.unwrap_err();
        assert!(matches!(error, NodeError::BadCheckpoint { answered, .. } if answered == lie), "{error}");
    }
    assert_eq!(open(&config).await.unwrap().engine().payloads().len(), 3);
}

#[tokio::test]
async fn an_engine_of_another_system_is_refused_before_anything_is_applied() {
    let place = tempfile::tempdir().unwrap();
    let config = config(place.path());
    let node = open(&config).await.unwrap();
    let ours = node.engine().state.lock().unwrap().primary.as_ref().unwrap().system();
    node.shutdown().await.unwrap();
    let open_as = async |system| {
        let tape = move |directory: &Path| {
            let tape = Tape::open(directory)?;
            tape.state.lock().unwrap().system = Some(system);
            Ok(tape)
        };
        Node::open(config.clone(), tape).await
    };
    open_as(ours).await.unwrap().shutdown().await.unwrap();
    let error = open_as(SystemId::new(ours.get() ^ 1)).await.err().unwrap();
    assert!(matches!(error, NodeError::EngineForeign { .. }), "{error}");
}

#[tokio::test]
async fn engine_files_that_are_gone_are_rebuilt_while_the_log_reaches_back_and_refused_when_not() {
    let place = tempfile::tempdir().unwrap();
    let mut config = config(place.path());
    let engine_files = place.path().join("engine");
    let node = open(&config).await.unwrap();
    let expected: Vec<_> = (0..50).map(payload).collect();
    for record in &expected {
        node.engine().write(record).unwrap();
    }
    node.shutdown().await.unwrap();
    fs::remove_dir_all(&engine_files).unwrap();

    config.wal.keep_bytes = 0;
    config.checkpoint.wal_bytes = MIB;
    let node = open(&config).await.unwrap();
    assert_eq!(node.engine().payloads(), expected);
    // Enough to be past several segments, and for a checkpoint by volume to recycle the first.
    let first = place.path().join("wal").join("000000010000000000000001");
    let deadline = Instant::now() + Duration::from_secs(30);
    while first.exists() {
        assert!(Instant::now() < deadline, "nothing was recycled");
        node.engine().write(&vec![b'x'; 200_000]).unwrap();
    }
    node.shutdown().await.unwrap();
    fs::remove_dir_all(&engine_files).unwrap();
    let error = open(&config).await.err().unwrap();
    assert!(matches!(error, NodeError::EngineBehind { applied: Lsn::NONE, .. }), "{error}");
    assert!(error.to_string().contains("must be seeded"), "{error}");
}

#[tokio::test]
async fn an_engine_ahead_of_the_log_is_refused_and_the_log_is_left_alone() {
    let place = tempfile::tempdir().unwrap();
    let config = config(place.path());
    let node = open(&config).await.unwrap();
    node.engine().write(b"one").unwrap();
    let end = node.engine().write(b"two").unwrap();
    node.shutdown().await.unwrap();
    let tape = place.path().join("engine").join("tape");
    let text = fs::read_to_string(&tape).unwrap().replacen(&end.to_string(), "0/2000000", 1);
    fs::write(&tape, text).unwrap();
    let segment = place.path().join("wal").join("000000010000000000000001");
    let before = fs::read(&segment).unwrap();
    let error = open(&config).await.err().unwrap();
    assert!(matches!(error, NodeError::Wal(WalError::Damaged(_))), "{error}");
    assert!(error.to_string().contains("the engine's files say that the log reached 0/2000000"), "{error}");
    assert_eq!(fs::read(&segment).unwrap(), before);
}

#[tokio::test]
async fn another_systems_log_is_refused() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for place in [&one, &other] {
        let node = open(&config(place.path())).await.unwrap();
        node.engine().write(b"x").unwrap();
        node.shutdown().await.unwrap();
    }
    fs::remove_dir_all(one.path().join("wal")).unwrap();
    fs::rename(other.path().join("wal"), one.path().join("wal")).unwrap();
    let error = open(&config(one.path())).await.err().unwrap();
    assert!(matches!(error, NodeError::Wal(WalError::Foreign { .. })), "{error}");
}

#[tokio::test]
async fn an_open_directory_is_not_opened_twice_and_bad_settings_are_all_named() {
    let place = tempfile::tempdir().unwrap();
    let mut config = config(place.path());
    let node = open(&config).await.unwrap();
    let error = open(&config).await.err().unwrap();
    assert!(matches!(error, NodeError::Storage(StorageError::Locked { .. })), "{error}");
    node.shutdown().await.unwrap();
    config.wal.segment_size_bytes = 5;
    config.wal.max_unsynced_bytes = 5;
    let error = open(&config).await.err().unwrap().to_string();
    assert!(error.contains("wal.segment_size_bytes") && error.contains("wal.max_unsynced_bytes"), "{error}");
}

/// A node whose checkpoints come often and keep nothing, and its first segment.
async fn open_recycling(config: &mut NodeConfig) -> (Node<Tape>, PathBuf) {
    config.wal.keep_bytes = 0;
    config.checkpoint.wal_bytes = MIB;
    (open(config).await.unwrap(), config.data_dir.join("wal").join("000000010000000000000001"))
}

async fn poll(what: &str, mut is_reached: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_reached() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn log_that_is_held_stays_and_is_recycled_when_let_go_though_nothing_is_written() {
    let place = tempfile::tempdir().unwrap();
    let mut config = config(place.path());
    let (node, first) = open_recycling(&mut config).await;
    node.engine().write(&payload(0)).unwrap();
    let slot = node.hold_log(HolderKind::Slot, "standby", Lsn::new(MIB + 64)).unwrap();
    let mut reader = node.read_log("change feed", Lsn::new(MIB + 64));
    for _ in 0..20 {
        node.engine().write(&vec![b'x'; 200_000]).unwrap();
    }
    let explained = || node.retention().unwrap().explain(SegmentNumber::FIRST);
    poll("no checkpoint", || explained() == "kept by slot standby, reader change feed").await;
    assert!(first.exists());
    let mut records = 0;
    while reader.next_durable().unwrap().is_some() {
        records += 1;
    }
    assert_eq!(records, 21);
    slot.advance(node.durable()).unwrap();
    poll("nothing was recycled", || !first.exists()).await;
    let error = node.hold_log(HolderKind::Slot, "late", Lsn::new(MIB + 64)).unwrap_err();
    assert!(matches!(error, WalError::Recycled { .. }), "{error}");
    node.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_holder_that_would_fill_the_disk_is_invalidated_and_the_log_goes_on() {
    let place = tempfile::tempdir().unwrap();
    let mut config = config(place.path());
    config.wal.max_retained_bytes = 4 * MIB;
    let (node, first) = open_recycling(&mut config).await;
    let slot = node.hold_log(HolderKind::Slot, "gone", Lsn::new(MIB + 64)).unwrap();
    let mut reader = node.read_log("slow", Lsn::new(MIB + 64));
    for _ in 0..40 {
        node.engine().write(&vec![b'x'; 200_000]).unwrap();
    }
    poll("nobody was invalidated", || slot.invalidated().is_some() && !first.exists()).await;
    let reason = slot.check().unwrap_err().to_string();
    assert!(
        reason.starts_with("slot gone was invalidated: it needed the log from 0/100040 on, which kept "),
        "{reason}"
    );
    let WalError::Invalidated { oldest, .. } = reader.next_durable().unwrap_err() else { panic!("it was not told") };
    assert!(oldest > Lsn::new(2 * MIB));
    node.engine().write(b"goes on").unwrap();
    node.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_bit_that_flips_in_an_old_segment_shows_in_the_nodes_health_before_anybody_reads_it() {
    let place = tempfile::tempdir().unwrap();
    let mut config = config(place.path());
    config.wal.scrub_bytes_per_second = 1 << 30;
    let node = open(&config).await.unwrap();
    for _ in 0..12 {
        node.engine().write(&vec![b'x'; 200_000]).unwrap();
    }
    assert!(matches!(node.health(), Health::Good));
    let path = place.path().join("wal").join("000000010000000000000001");
    let byte = fs::read(&path).unwrap()[500_000] ^ 4;
    fs::OpenOptions::new().write(true).open(&path).unwrap().write_all_at(&[byte], 500_000).unwrap();
    poll("not found", || matches!(node.health(), Health::Damaged(_))).await;
    let Health::Damaged(error) = node.health() else { panic!("{:?}", node.health()) };
    assert!(error.to_string().contains("000000010000000000000001 is damaged"), "{error}");
    node.engine().write(b"goes on").unwrap();
    node.shutdown().await.unwrap();
}

/// Threads and descriptors of this process.
#[cfg(target_os = "linux")]
fn resources() -> (usize, usize) {
    let count = |path| fs::read_dir(path).unwrap().count();
    (count("/proc/self/task"), count("/proc/self/fd"))
}

/// Anonymous memory of this process in KiB.
#[cfg(target_os = "linux")]
fn anonymous_kib() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_hundred_rounds_of_opening_and_closing_leak_nothing() {
    let place = tempfile::tempdir().unwrap();
    let config = config(place.path());
    let mut warm = None;
    for round in 0..100 {
        let node = open(&config).await.unwrap();
        node.engine().write(&payload(round)).unwrap();
        node.shutdown().await.unwrap();
        // The first rounds fill pools that stay: tokio's threads, RocksDB's, the allocator's.
        if round == 20 {
            warm = Some((resources(), anonymous_kib()));
        }
    }
    let ((threads, descriptors), kib) = warm.unwrap();
    // Tokio's pool may have taken one more thread for a while; those that have nothing to do end after ten seconds.
    let deadline = Instant::now() + Duration::from_secs(30);
    while resources().0 > threads && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let (threads_now, descriptors_now) = resources();
    assert!(threads_now <= threads, "{threads} threads became {threads_now}");
    assert!(descriptors_now <= descriptors, "{descriptors} descriptors became {descriptors_now}");
    let kib_now = anonymous_kib();
    assert!(kib_now < kib + 8 * 1024, "{kib} KiB of anonymous memory became {kib_now}");
}
