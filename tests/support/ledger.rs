//! A state machine that keeps its own position: a map in memory, and a file of its own that is written anew with each
//! flush. Nothing of it is in the raftstore's tables.

#![allow(dead_code, reason = "each program of tests uses what it needs")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use mainstay::ident::LogIndex;
use mainstay::raftstore::log_store::{KeyValue, StoreError};
use mainstay::raftstore::state_machine::{
    ApplyBatch, ApplyError, Command, MachineSnapshots, MachineState, StateMachine,
};

/// The name of the file.
pub const FILE: &str = "ledger";
/// What is being written.
const NEW: &str = "ledger.new";
/// How much of a snapshot is read at once.
const PAGE_BYTES: usize = 64 << 10;

pub type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// Where the machine is, and what it holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    pub applied: u64,
    pub map: Arc<Map>,
}

/// What a test sees of a machine, and does to it, while the raftstore has it.
#[derive(Default)]
pub struct Shared {
    held: Mutex<Held>,
    /// The next install breaks off in the middle.
    breaks: AtomicBool,
}

impl Shared {
    pub fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().expect("nobody panics with it")
    }

    pub fn break_next_install(&self) {
        self.breaks.store(true, Ordering::SeqCst);
    }

    /// Behind the back of the machine.
    pub fn tamper(&self, key: &[u8], value: &[u8]) {
        Arc::make_mut(&mut self.held().map).insert(key.to_vec(), value.to_vec());
    }
}

/// Sets keys: `key=value` is answered by how many commands there were.
pub struct Ledger {
    directory: PathBuf,
    shared: Arc<Shared>,
}

const COUNT: &[u8] = b"#count";

impl Ledger {
    /// The one in a directory, or an empty one.
    pub fn open(directory: &Path) -> io::Result<Ledger> {
        let held = match File::open(directory.join(FILE)) {
            Ok(file) => read(file)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Held::default(),
            Err(error) => return Err(error),
        };
        let shared = Shared { held: Mutex::new(held), ..Shared::default() };
        Ok(Ledger { directory: directory.to_owned(), shared: Arc::new(shared) })
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.shared.held()
    }

    /// Durable, and all or nothing: a new file takes the place of the old one.
    fn replace(&self, write: impl FnOnce(&mut dyn Write) -> Result<(), ApplyError>) -> Result<(), ApplyError> {
        let new = self.directory.join(NEW);
        let mut file = io::BufWriter::new(File::create(&new).map_err(failed)?);
        write(&mut file)?;
        file.into_inner().map_err(|error| failed(error.into_error()))?.sync_all().map_err(failed)?;
        fs::rename(&new, self.directory.join(FILE)).map_err(failed)?;
        File::open(&self.directory).and_then(|directory| directory.sync_all()).map_err(failed)
    }
}

fn failed(error: io::Error) -> ApplyError {
    ApplyError::Machine(error.to_string())
}

fn put(file: &mut dyn Write, part: &[u8]) -> Result<(), ApplyError> {
    file.write_all(&(part.len() as u64).to_le_bytes()).and_then(|()| file.write_all(part)).map_err(failed)
}

fn read(file: File) -> io::Result<Held> {
    let mut file = io::BufReader::new(file);
    let mut number = || -> io::Result<Option<u64>> {
        let mut bytes = [0; 8];
        match file.read_exact(&mut bytes) {
            Ok(()) => Ok(Some(u64::from_le_bytes(bytes))),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    };
    let applied = number()?.unwrap_or_default();
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let (mut rest, mut parts) = (bytes.as_slice(), Vec::new());
    while let Some((length, behind)) = rest.split_first_chunk() {
        let (part, behind) = behind.split_at(u64::from_le_bytes(*length) as usize);
        parts.push(part.to_vec());
        rest = behind;
    }
    let map = parts.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect();
    Ok(Held { applied, map: Arc::new(map) })
}

impl StateMachine for Ledger {
    fn own_applied(&self) -> Result<Option<LogIndex>, ApplyError> {
        Ok(Some(LogIndex::new(self.held().applied)))
    }

    fn apply(&mut self, commands: &[Command<'_>], _: &mut ApplyBatch<'_>) -> Result<Vec<Bytes>, ApplyError> {
        let mut held = self.held();
        let mut responses = Vec::new();
        for command in commands {
            let map = Arc::make_mut(&mut held.map);
            let at = command.data.iter().position(|byte| *byte == b'=').unwrap_or(command.data.len());
            let (key, value) = command.data.split_at(at);
            map.insert(key.to_vec(), value.to_vec());
            let count = map.get(COUNT).and_then(|count| count.as_slice().try_into().ok()).map_or(0, u64::from_le_bytes);
            map.insert(COUNT.to_vec(), (count + 1).to_le_bytes().to_vec());
            held.applied = command.index.get();
            responses.push(Bytes::copy_from_slice(&(count + 1).to_le_bytes()));
        }
        Ok(responses)
    }

    fn flush(&mut self) -> Result<LogIndex, ApplyError> {
        let Held { applied, map } = self.held().clone();
        self.replace(|file| {
            file.write_all(&applied.to_le_bytes()).map_err(failed)?;
            map.iter().try_for_each(|(key, value)| put(file, key).and_then(|()| put(file, value)))
        })?;
        Ok(LogIndex::new(applied))
    }

    fn snapshots(&mut self) -> Option<&mut dyn MachineSnapshots> {
        Some(self)
    }
}

impl MachineSnapshots for Ledger {
    fn capture(&mut self) -> Result<Box<dyn MachineState>, ApplyError> {
        Ok(Box::new(Captured(Arc::clone(&self.held().map))))
    }

    fn install(&mut self, index: LogIndex, state: &dyn MachineState) -> Result<(), ApplyError> {
        self.replace(|file| {
            file.write_all(&index.get().to_le_bytes()).map_err(failed)?;
            let mut last: Option<Vec<u8>> = None;
            loop {
                let page = state.read(last.as_deref(), PAGE_BYTES)?;
                let Some((key, _)) = page.last() else { return Ok(()) };
                last = Some(key.clone());
                if self.shared.breaks.swap(false, Ordering::SeqCst) {
                    return Err(ApplyError::Machine("broken off".into()));
                }
                page.iter().try_for_each(|(key, value)| put(file, key).and_then(|()| put(file, value)))?;
            }
        })?;
        *self.held() = File::open(self.directory.join(FILE)).and_then(read).map_err(failed)?;
        Ok(())
    }
}

struct Captured(Arc<Map>);

impl MachineState for Captured {
    fn read(&self, after: Option<&[u8]>, limit_bytes: usize) -> Result<Vec<KeyValue>, StoreError> {
        use std::ops::Bound::{Excluded, Unbounded};
        let pairs = self.0.range::<[u8], _>((after.map_or(Unbounded, Excluded), Unbounded));
        let mut bytes = 0;
        let fits = |(key, value): &(&Vec<u8>, &Vec<u8>)| {
            let first = bytes == 0;
            bytes += key.len() + value.len() + 1;
            first || bytes <= limit_bytes
        };
        Ok(pairs.take_while(fits).map(|(key, value)| (key.clone(), value.clone())).collect())
    }
}
