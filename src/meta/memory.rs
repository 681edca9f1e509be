//! A metadata group of one, in memory: for tests of what stands on it. It applies with the same code as any other, and
//! nothing expires by itself.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::apply::{Applier, Reached};
use super::command::{self, MAX_COMMAND_BYTES};
use super::names::Names;
use super::proto::{Answer, Command, Done};
use super::service::{MetaError, Metadata, outcome};
use super::view::{MemoryTables, View};
use crate::ident::LogIndex;
use crate::raftstore::context::Attempt;
use crate::raftstore::log_store::{KeyValue, StoreError, Table};
use crate::raftstore::state_machine::ApplyError;

/// See the module.
pub struct MemoryMetadata {
    tables: Arc<Shared>,
    log: Mutex<Log>,
    names: Names,
    progress: watch::Sender<Reached>,
}

/// Held while a command is applied.
#[derive(Default)]
struct Log {
    /// The index of the last command.
    last: LogIndex,
    /// The last command of each client, and its answer.
    sessions: HashMap<u64, (u64, Answer)>,
}

/// Clients that are remembered; with more, all are forgotten.
const MAX_CLIENTS: usize = 10_000;

#[derive(Default)]
struct Shared(Mutex<MemoryTables>);

impl View for Shared {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.0.lock().get(table, key)
    }

    fn scan(&self, table: Table, range: Range<&[u8]>, limit: usize) -> Result<Vec<KeyValue>, StoreError> {
        self.0.lock().scan(table, range, limit)
    }
}

impl Default for MemoryMetadata {
    fn default() -> MemoryMetadata {
        let first = Reached { first_event: 1, next_event: 1, ..Reached::default() };
        MemoryMetadata {
            tables: Arc::default(),
            log: Mutex::default(),
            names: Names::default(),
            progress: watch::channel(first).0,
        }
    }
}

impl MemoryMetadata {
    /// An empty one: no cluster is formed yet.
    pub fn new() -> MemoryMetadata {
        MemoryMetadata::default()
    }
}

#[tonic::async_trait]
impl Metadata for MemoryMetadata {
    async fn execute(&self, command: Command, deadline: Instant) -> Result<Done, MetaError> {
        let lent = self.names.lend()?;
        self.execute_named(lent.attempt(), command, deadline).await
    }

    async fn execute_named(&self, attempt: Attempt, command: Command, _deadline: Instant) -> Result<Done, MetaError> {
        let bytes = command::encode(&command);
        if bytes.len() > MAX_COMMAND_BYTES {
            return Err(MetaError::TooLarge { limit_bytes: MAX_COMMAND_BYTES });
        }
        let mut log = self.log.lock();
        match log.sessions.get(&attempt.client) {
            Some((sequence, answer)) if *sequence == attempt.sequence => return outcome(answer.clone()),
            Some((sequence, _)) if *sequence > attempt.sequence => {
                return Err(MetaError::Unknown { why: "a later command of the same client was applied".to_owned() });
            }
            _ => {}
        }
        let stopped = |error| match error {
            ApplyError::Store(error) => error,
            error => StoreError::Failed(error.to_string()),
        };
        let mut applier = Applier::new(&*self.tables).map_err(stopped)?;
        let answer = applier.apply(log.last.next(), &bytes).map_err(stopped)?.answer;
        let (writes, reached, _) = applier.finish();
        self.tables.0.lock().write(writes);
        log.last = log.last.next();
        if log.sessions.len() >= MAX_CLIENTS {
            log.sessions.clear();
        }
        log.sessions.insert(attempt.client, (attempt.sequence, answer.clone()));
        self.progress.send_if_modified(|known| std::mem::replace(known, reached) != reached);
        outcome(answer)
    }

    async fn barrier(&self, _deadline: Instant) -> Result<(), MetaError> {
        Ok(())
    }

    fn view(&self) -> Arc<dyn View> {
        Arc::clone(&self.tables) as Arc<dyn View>
    }

    fn progress(&self) -> watch::Receiver<Reached> {
        self.progress.subscribe()
    }
}
