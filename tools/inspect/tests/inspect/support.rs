//! Data directories to look at, and the program that looks.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

use mainstay::config::NodeConfig;
use mainstay::engine::{Engine, EngineError};
use mainstay::lsn::Lsn;
use mainstay::node::{Node, Primary};
use mainstay::wal::Record;
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;

pub const MIB: u64 = 1 << 20;
/// Several of these fill a segment, and one of them lies across its end.
pub const LARGE: usize = 300_000;

/// An engine whose only state is how far it got, in a file.
pub struct Counter {
    file: PathBuf,
    state: Mutex<(Lsn, Option<Primary>)>,
}

impl Counter {
    fn open(directory: &Path) -> Result<Counter, EngineError> {
        let file = directory.join("applied");
        let applied = fs::read_to_string(&file).map_or(Lsn::NONE, |text| text.parse().unwrap());
        Ok(Counter { file, state: Mutex::new((applied, None)) })
    }

    pub fn write(&self, payload: &[u8]) {
        let mut state = self.state.lock().unwrap();
        let primary = state.1.as_ref().unwrap();
        primary.room_blocking(payload.len()).unwrap();
        let end = primary.append(payload).unwrap();
        primary.commit_blocking(end).unwrap();
        state.0 = end;
    }
}

impl Engine for Counter {
    fn applied(&self) -> Result<Lsn, EngineError> {
        Ok(self.state.lock().unwrap().0)
    }

    fn apply(&self, records: &[Record]) -> Result<(), EngineError> {
        self.state.lock().unwrap().0 = records.last().unwrap().end;
        Ok(())
    }

    fn checkpoint(&self) -> Result<Lsn, EngineError> {
        let applied = self.applied()?;
        fs::write(&self.file, applied.to_string()).map_err(EngineError::new)?;
        Ok(applied)
    }

    fn promote(&self, primary: Primary) -> Result<(), EngineError> {
        self.state.lock().unwrap().1 = Some(primary);
        Ok(())
    }

    fn demote(&self) {
        self.state.lock().unwrap().1 = None;
    }
}

/// A data directory, and the runtime of the nodes that made it.
pub struct Place {
    runtime: Runtime,
    directory: TempDir,
}

/// What the program answered.
pub struct Answer {
    pub code: i32,
    pub text: String,
    pub error: String,
}

impl Answer {
    /// Standard output as the one JSON document that it must be.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }
}

impl Place {
    pub fn new() -> Place {
        Place { runtime: Runtime::new().unwrap(), directory: tempfile::tempdir().unwrap() }
    }

    /// Stopped cleanly after small records and large ones across several segments.
    pub fn clean() -> Place {
        let place = Place::new();
        place.fill(|place, node| place.runtime.block_on(node.shutdown()).unwrap());
        place
    }

    /// Left by a crash after the same.
    pub fn killed() -> Place {
        let place = Place::new();
        place.fill(|_, node| {
            node.engine().demote();
            drop(node);
        });
        place
    }

    fn fill(&self, stop: impl FnOnce(&Place, Node<Counter>)) {
        let node = self.start();
        for number in 0..3 {
            node.engine().write(format!("record {number}").as_bytes());
        }
        for _ in 0..8 {
            node.engine().write(&[b'x'; LARGE]);
        }
        node.engine().write(b"the last one");
        self.await_prepared();
        stop(self, node);
    }

    /// The next segment is prepared in the background.
    fn await_prepared(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        let is_prepared = |path: PathBuf| {
            let bytes = fs::read(path).unwrap_or_default();
            let (header, records) = bytes.split_at(bytes.len().min(64));
            bytes.len() as u64 == MIB && header.iter().any(|byte| *byte != 0) && records.iter().all(|byte| *byte == 0)
        };
        let any = || fs::read_dir(self.path().join("wal")).unwrap().any(|entry| is_prepared(entry.unwrap().path()));
        while !any() {
            assert!(Instant::now() < deadline, "no segment is prepared");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Starts a node on the directory.
    pub fn start(&self) -> Node<Counter> {
        self.try_start().unwrap()
    }

    /// The same, or why it does not start.
    pub fn try_start(&self) -> Result<Node<Counter>, String> {
        let mut config = NodeConfig::new(self.path());
        config.wal.segment_size_bytes = MIB;
        config.wal.reserve_bytes = MIB;
        self.runtime.block_on(Node::open(config, Counter::open)).map_err(|error| error.to_string())
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The n-th segment; the first is 1.
    pub fn segment(&self, number: u64) -> PathBuf {
        self.path().join("wal").join(format!("00000001{:08X}{:08X}", 0, number))
    }

    /// Flips a bit of a segment.
    pub fn flip(&self, number: u64, offset: u64) {
        flip(&self.segment(number), offset);
    }

    /// Runs the program on the directory and makes sure that it changes nothing.
    pub fn inspect(&self, arguments: &[&str]) -> Answer {
        let before = files(self.path());
        let answer = answer(inspector().arg(self.path()).args(arguments).output().unwrap());
        assert!(files(self.path()) == before, "{arguments:?} changed something");
        answer
    }

    /// [`inspect`](Place::inspect) with `--json`.
    pub fn inspect_json(&self, arguments: &[&str]) -> (i32, Value) {
        let answer = self.inspect(&[arguments, &["--json"]].concat());
        (answer.code, answer.json())
    }

    /// The records according to `wal dump`.
    pub fn records(&self) -> Vec<Value> {
        self.inspect_json(&["wal", "dump"]).1["records"].as_array().unwrap().clone()
    }
}

pub fn inspector() -> Command {
    Command::new(env!("CARGO_BIN_EXE_mainstay-inspect"))
}

pub fn answer(output: Output) -> Answer {
    Answer {
        code: output.status.code().unwrap(),
        text: String::from_utf8(output.stdout).unwrap(),
        error: String::from_utf8(output.stderr).unwrap(),
    }
}

pub fn flip(path: &Path, offset: u64) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 1], offset).unwrap();
}

/// The position of an LSN as `X/Y`.
pub fn lsn(value: &Value) -> u64 {
    value.as_str().unwrap().parse::<Lsn>().unwrap().get()
}

/// Everything below a directory: names, modification times, contents.
pub fn files(directory: &Path) -> BTreeMap<PathBuf, (SystemTime, Vec<u8>)> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        if path.is_dir() {
            all.extend(files(&path));
            all.insert(path, (modified, Vec::new()));
        } else {
            let contents = fs::read(&path).unwrap();
            all.insert(path, (modified, contents));
        }
    }
    all
}
