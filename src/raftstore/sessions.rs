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

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

use bytes::Bytes;

use super::context::Attempt;
use super::log_store::{GroupStore, StoreError, Table};
use super::state_machine::ApplyBatch;
use crate::ident::{GroupId, LogIndex};

/// Clients that are remembered.
const MAX_CLIENTS: usize = 10_000;
/// Responses above this are not kept.
const MAX_RESPONSE_BYTES: usize = 64 << 10;
const VERSION: u8 = 1;
const HEADER_BYTES: usize = 18;
/// Sessions loaded at a time.
const PAGE: usize = 1000;

/// See the module.
#[derive(Default)]
pub struct Sessions {
    clients: HashMap<u64, Session>,
    /// The client of each last command, by its index.
    by_age: BTreeMap<LogIndex, u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Session {
    sequence: u64,
    index: LogIndex,
    response: Option<Bytes>,
}

/// A command that was applied before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// And this was its response.
    Response(Bytes),
    /// Its response is no longer known.
    Forgotten,
}

impl Sessions {
    /// Those of a group, as stored.
    ///
    /// # Errors
    /// The store failed, or what it holds is damaged.
    pub(super) fn load(store: &dyn GroupStore, group: GroupId) -> Result<Sessions, StoreError> {
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

    /// Whether a command was applied before.
    pub(super) fn seen(&self, attempt: Attempt) -> Option<Seen> {
        let session = self.clients.get(&attempt.client).filter(|session| session.sequence >= attempt.sequence)?;
        match &session.response {
            Some(response) if session.sequence == attempt.sequence => Some(Seen::Response(response.clone())),
            _ => Some(Seen::Forgotten),
        }
    }

    /// A command is being applied.
    pub(super) fn note(&mut self, attempt: Attempt, index: LogIndex, response: Bytes, batch: &mut ApplyBatch<'_>) {
        let response = (response.len() <= MAX_RESPONSE_BYTES).then_some(response);
        let session = Session { sequence: attempt.sequence, index, response };
        batch.put(Table::Sessions, attempt.client.to_be_bytes(), encode(&session));
        if let Some(before) = self.clients.insert(attempt.client, session) {
            self.by_age.remove(&before.index);
        }
        self.by_age.insert(index, attempt.client);
        while self.clients.len() > MAX_CLIENTS {
            let Some((_, oldest)) = self.by_age.pop_first() else { return };
            self.clients.remove(&oldest);
            batch.delete(Table::Sessions, oldest.to_be_bytes());
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
