//! Which commands of which clients were applied: what makes a command that is proposed twice take effect once
//! (Raft thesis, 6.3). Kept beside the state machine's tables, written with the effects.
//!
//! ```text
//!  key      8  client, big-endian
//!  value
//!  offset  bytes
//!       0      1  version, 1
//!       1      8  sequence of its last command
//!       9      8  index of the entry that was it
//!      17      1  1: the response follows; 0: it was too large to keep
//!      18      n  response
//! ```
//!
//! All numbers in the value are little-endian. Of each client the last command is known. When there are too many clients
//! the one whose last command is oldest is forgotten, on every replica at the same entry.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;

use bytes::Bytes;

use super::context::Attempt;
use super::log_store::{StoreError, Table, TableStore};
use super::state_machine::ApplyBatch;
use crate::ident::{GroupId, LogIndex};

/// Clients that are remembered.
const MAX_CLIENTS: usize = 10_000;
/// Responses above this are not kept, so that all of them take 40 MiB at most.
const MAX_RESPONSE_BYTES: usize = 4 << 10;
const VERSION: u8 = 1;
const HEADER_BYTES: usize = 18;
/// Sessions loaded at a time.
const PAGE: usize = 1000;

/// See the module.
pub struct Sessions {
    /// Clients that are remembered.
    pub(super) max_clients: usize,
    clients: HashMap<u64, Session>,
    /// The client of each last command, by its index.
    by_age: BTreeMap<LogIndex, u64>,
    /// Clients whose sessions changed since they were written.
    touched: BTreeSet<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Session {
    sequence: u64,
    index: LogIndex,
    response: Option<Bytes>,
}

/// What becomes of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Admitted {
    /// It is applied now.
    Now,
    /// It was applied before, as this entry, with this response if that was kept.
    Before(LogIndex, Option<Bytes>),
    /// A later one of its client was applied. It is not, and whether it was before nobody knows.
    Superseded,
}

impl Default for Sessions {
    fn default() -> Sessions {
        let (clients, by_age, touched) = Default::default();
        Sessions { max_clients: MAX_CLIENTS, clients, by_age, touched }
    }
}

impl Sessions {
    /// Those of a group, as stored.
    ///
    /// # Errors
    /// The store failed, or what it holds is damaged.
    pub(super) fn load(store: &dyn TableStore, group: GroupId) -> Result<Sessions, StoreError> {
        let mut sessions = Sessions::default();
        let mut from: Option<Vec<u8>> = None;
        loop {
            let start = from.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            let page = store.scan(group, Table::Sessions, (start, Bound::Unbounded), PAGE)?;
            let Some((last, _)) = page.last() else { return Ok(sessions) };
            from = Some(last.clone());
            for (key, value) in page {
                let (client, session) = decode(&key, &value).ok_or_else(|| StoreError::Damaged {
                    place: format!("the session {key:02x?} of group {group}"),
                    what: format!("expected a session, found {} bytes", value.len()),
                })?;
                sessions.by_age.insert(session.index, client);
                sessions.clients.insert(client, session);
            }
        }
    }

    /// A command of a client is next. It is to be applied now, or was before.
    ///
    /// Decided entry by entry, also within a batch: where batches begin and end differs between replicas, and who is
    /// forgotten must not.
    pub(super) fn admit(&mut self, attempt: Attempt, index: LogIndex) -> Admitted {
        if let Some(session) = self.clients.get(&attempt.client) {
            match session.sequence.cmp(&attempt.sequence) {
                Ordering::Less => {}
                Ordering::Equal => return Admitted::Before(session.index, session.response.clone()),
                Ordering::Greater => return Admitted::Superseded,
            }
        }
        let session = Session { sequence: attempt.sequence, index, response: None };
        if let Some(before) = self.clients.insert(attempt.client, session) {
            self.by_age.remove(&before.index);
        }
        self.by_age.insert(index, attempt.client);
        self.touched.insert(attempt.client);
        while self.clients.len() > self.max_clients {
            let Some((_, oldest)) = self.by_age.pop_first() else { break };
            self.clients.remove(&oldest);
            self.touched.insert(oldest);
        }
        Admitted::Now
    }

    /// The response to a command that was admitted. Whoever was forgotten since gets none.
    pub(super) fn respond(&mut self, attempt: Attempt, index: LogIndex, response: &[u8]) {
        if let Some(session) = self.clients.get_mut(&attempt.client).filter(|session| session.index == index) {
            // A copy: what the machine gave may be a part of something large.
            session.response = (response.len() <= MAX_RESPONSE_BYTES).then(|| Bytes::copy_from_slice(response));
        }
    }

    /// Puts what has changed into the batch.
    pub(super) fn write(&mut self, batch: &mut ApplyBatch<'_>) {
        for client in std::mem::take(&mut self.touched) {
            match self.clients.get(&client) {
                Some(session) => batch.put(Table::Sessions, client.to_be_bytes(), encode(session)),
                None => batch.delete(Table::Sessions, client.to_be_bytes()),
            }
        }
    }
}

fn encode(session: &Session) -> Vec<u8> {
    let response = session.response.as_deref();
    let mut bytes = Vec::with_capacity(HEADER_BYTES + response.map_or(0, <[u8]>::len));
    bytes.push(VERSION);
    bytes.extend(session.sequence.to_le_bytes());
    bytes.extend(session.index.get().to_le_bytes());
    bytes.push(u8::from(response.is_some()));
    bytes.extend(response.unwrap_or_default());
    bytes
}

fn decode(key: &[u8], value: &[u8]) -> Option<(u64, Session)> {
    let client = u64::from_be_bytes(key.try_into().ok()?);
    let number = |at: usize| Some(u64::from_le_bytes(value.get(at..at + 8)?.try_into().ok()?));
    let (header, response) = value.split_at_checked(HEADER_BYTES)?;
    let response = match (header[0], header[17]) {
        (VERSION, 1) => Some(Bytes::copy_from_slice(response)),
        (VERSION, 0) if response.is_empty() => None,
        _ => return None,
    };
    Some((client, Session { sequence: number(1)?, index: LogIndex::new(number(9)?), response }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn golden_bytes() {
        let session = Session { sequence: 0x0102, index: LogIndex::new(3), response: Some(Bytes::from_static(b"ok")) };
        let bytes = [1, 2, 1, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 1, b'o', b'k'];
        assert_eq!(encode(&session), bytes);
        let key = 7u64.to_be_bytes();
        assert_eq!(decode(&key, &bytes), Some((7, session)));
        assert_eq!(decode(&key, &bytes[..17]), None);
        assert_eq!(decode(&key[1..], &bytes), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(client: u64, sequence: u64, index: u64, response: Option<Vec<u8>>) {
            let session = Session { sequence, index: LogIndex::new(index), response: response.map(Bytes::from) };
            prop_assert_eq!(decode(&client.to_be_bytes(), &encode(&session)), Some((client, session)));
        }

        #[test]
        fn garbage_is_refused_without_panic(bytes: Vec<u8>) {
            let _ = decode(&bytes, &bytes);
        }
    }
}
