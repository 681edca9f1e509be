//! A complete engine: a map in memory with a checkpoint file, made durable by Mainstay. Copy it and replace the map.
//!
//! `cargo run --example toy_engine` starts it, writes, kills the process with SIGKILL, and opens it again.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use mainstay::config::NodeConfig;
use mainstay::engine::{Engine, EngineError};
use mainstay::lsn::Lsn;
use mainstay::node::{Node, Primary};
use mainstay::wal::Record;

type AnyError = Box<dyn std::error::Error + Send + Sync>;

struct ToyEngine {
    directory: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    map: BTreeMap<String, String>,
    /// Everything before it is in `map`.
    applied: Lsn,
    primary: Option<Primary>,
}

impl ToyEngine {
    /// Reads the checkpoint file, if there is one: the applied LSN, then a key and a value per line.
    fn open(directory: &Path) -> Result<ToyEngine, EngineError> {
        let mut state = State::default();
        if let Ok(text) = fs::read_to_string(directory.join("checkpoint")) {
            let mut lines = text.lines();
            state.applied = lines.next().unwrap_or_default().parse().map_err(EngineError::new)?;
            state.map = lines.filter_map(split_pair).collect();
        }
        Ok(ToyEngine { directory: directory.to_owned(), state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, key: &str) -> Option<String> {
        self.state().map.get(key).cloned()
    }

    /// Returns when the pair survives a crash. First the log, then the map, then the answer: in this order.
    fn put(&self, key: &str, value: &str) -> Result<(), AnyError> {
        // One writer at a time, so that the map changes in the order of the log.
        let mut state = self.state();
        let primary = state.primary.as_ref().ok_or("not the primary")?;
        let payload = format!("{key}\t{value}");
        primary.room_blocking(payload.len())?;
        let end = primary.append(payload.as_bytes())?;
        primary.commit_blocking(end)?;
        state.map.insert(key.to_owned(), value.to_owned());
        state.applied = end;
        Ok(())
    }

    /// Writes the file whole, syncs it, and only then gives it its name.
    fn write_checkpoint(&self, state: &State) -> std::io::Result<()> {
        let temporary = self.directory.join("checkpoint.tmp");
        let mut file = File::create(&temporary)?;
        writeln!(file, "{}", state.applied)?;
        for (key, value) in &state.map {
            writeln!(file, "{key}\t{value}")?;
        }
        file.sync_all()?;
        fs::rename(&temporary, self.directory.join("checkpoint"))?;
        File::open(&self.directory)?.sync_all()
    }
}

fn split_pair(line: &str) -> Option<(String, String)> {
    line.split_once('\t').map(|(key, value)| (key.to_owned(), value.to_owned()))
}

impl Engine for ToyEngine {
    fn applied(&self) -> Result<Lsn, EngineError> {
        Ok(self.state().applied)
    }

    fn apply(&self, records: &[Record]) -> Result<(), EngineError> {
        let mut state = self.state();
        for record in records {
            let line = String::from_utf8(record.payload.clone()).map_err(EngineError::new)?;
            let (key, value) = split_pair(&line).ok_or_else(|| EngineError::new("not a pair"))?;
            state.map.insert(key, value);
            state.applied = record.end;
        }
        Ok(())
    }

    fn checkpoint(&self) -> Result<Lsn, EngineError> {
        let state = self.state();
        self.write_checkpoint(&state).map_err(EngineError::new)?;
        Ok(state.applied)
    }

    fn promote(&self, primary: Primary) -> Result<(), EngineError> {
        self.state().primary = Some(primary);
        Ok(())
    }

    fn demote(&self) {
        self.state().primary = None;
    }
}

#[tokio::main]
async fn main() -> Result<(), AnyError> {
    if let Some(directory) = std::env::args().nth(1) {
        return write_until_killed(directory).await;
    }
    let directory = std::env::temp_dir().join(format!("toy-engine-{}", std::process::id()));
    let mut writer = Command::new(std::env::current_exe()?).arg(&directory).stdout(Stdio::piped()).spawn()?;
    // The other process prints a number whenever a pair is durable; after the thousandth it is shot.
    let acknowledged = BufReader::new(writer.stdout.take().ok_or("no output")?).lines();
    let last = acknowledged.take(1000).last().ok_or("nothing was written")??;
    writer.kill()?;
    writer.wait()?;

    let node = Node::open(NodeConfig::new(&directory), ToyEngine::open).await?;
    println!("killed after {last} acknowledged writes; reopened up to LSN {}", node.durable());
    let lost = (1..=last.parse()?).filter(|number: &u32| node.engine().get(&format!("key {number}")).is_none());
    println!("lost: {}", lost.count());
    node.shutdown().await?;
    fs::remove_dir_all(&directory)?;
    Ok(())
}

async fn write_until_killed(directory: String) -> Result<(), AnyError> {
    let node = Node::open(NodeConfig::new(directory), ToyEngine::open).await?;
    for number in 1u32.. {
        node.engine().put(&format!("key {number}"), "some value")?;
        println!("{number}");
    }
    Ok(())
}
