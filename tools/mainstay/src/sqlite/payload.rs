//! What one transaction looks like in the WAL. Nobody else reads or writes these bytes.
//!
//! ```text
//!  0        1                5               9
//!  +--------+----------------+---------------+--------- … ---------+
//!  | version| database id    | part count    | parts               |
//!  | u8 = 1 | u32            | u32           |                     |
//!  +--------+----------------+---------------+--------- … ---------+
//!
//!  part:       kind u8 | length u32 | body
//!   1 changeset            a changeset of SQLite's session extension
//!   2 DDL                  the statement's text, UTF-8
//!   3 sequences            count u32, then per table: name length u32 | name | present u8 | value u64
//! ```
//!
//! All integers are little-endian. The order of parts is the order of effects. A sequences part says where AUTOINCREMENT
//! counters stand after the transaction (SQLite tells nobody of changes to `sqlite_sequence`); `present` 0 removes the counter.
//! The log's own record header carries length and checksum, so neither is repeated here.

use mainstay::ident::DatabaseId;
use mainstay::server::pg::{SqlError, SqlState};

/// What a transaction did may take so much in memory and in the log: no record can be longer.
pub(super) const CHANGES_LIMIT_BYTES: usize = 1 << 30;
const VERSION: u8 = 1;
const KIND_CHANGESET: u8 = 1;
const KIND_DDL: u8 = 2;
const KIND_SEQUENCES: u8 = 3;

/// One step of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Row changes.
    Changeset(Vec<u8>),
    /// A statement that changes the schema.
    Ddl(String),
    /// Where AUTOINCREMENT counters stand afterwards.
    Sequences(Vec<SequenceChange>),
}

/// Where the AUTOINCREMENT counter of one table stands; `None`: it has none any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SequenceChange {
    pub(super) table: String,
    pub(super) value: Option<i64>,
}

/// How much what a transaction did may take in all: what is captured, and what was taken of it before.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit(usize);

impl Default for Limit {
    fn default() -> Limit {
        Limit(CHANGES_LIMIT_BYTES)
    }
}

impl Limit {
    #[cfg(test)]
    pub(super) const fn of(len_bytes: usize) -> Limit {
        Limit(len_bytes)
    }

    /// # Errors
    /// 54000: it is more than that.
    pub(super) fn check(self, len_bytes: usize) -> Result<(), SqlError> {
        if len_bytes <= self.0 {
            return Ok(());
        }
        let message = format!("the changes of this transaction take more than {} bytes", self.0);
        let told = SqlError::new(SqlState::PROGRAM_LIMIT_EXCEEDED, message);
        Err(told.with_hint("Make them in several transactions."))
    }
}

/// One transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Payload {
    pub(super) database: DatabaseId,
    pub(super) parts: Vec<Part>,
}

/// Why bytes are not a payload, or a transaction does not fit one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PayloadError {
    #[error("a transaction record has format version {found}; this program reads version {VERSION}")]
    Version { found: u8 },
    #[error("a transaction record ends at byte {at} where {needed} more bytes are expected")]
    Truncated { at: usize, needed: usize },
    #[error("a transaction record goes on after its last part, at byte {at}")]
    Trailing { at: usize },
    #[error("a transaction record has a part of unknown kind {kind} at byte {at}")]
    Kind { at: usize, kind: u8 },
    #[error("a transaction record has text at byte {at} that is not UTF-8")]
    Text { at: usize },
    #[error("a transaction record has {found} at byte {at} where only 0 or 1 may be")]
    Flag { at: usize, found: u8 },
    #[error("a part of a transaction has {len_bytes} bytes, more than a record can hold")]
    TooLarge { len_bytes: usize },
}

impl Payload {
    /// Its bytes.
    pub(super) fn encode(&self) -> Result<Vec<u8>, PayloadError> {
        let mut out = vec![VERSION];
        out.extend_from_slice(&self.database.get().to_le_bytes());
        put_length(&mut out, self.parts.len())?;
        for part in &self.parts {
            match part {
                Part::Changeset(bytes) => put_part(&mut out, KIND_CHANGESET, bytes)?,
                Part::Ddl(text) => put_part(&mut out, KIND_DDL, text.as_bytes())?,
                Part::Sequences(changes) => put_part(&mut out, KIND_SEQUENCES, &encode_sequences(changes)?)?,
            }
        }
        Ok(out)
    }

    /// Reads what [`encode`](Payload::encode) wrote. Memory stays in proportion to `bytes`, whatever they claim.
    pub(super) fn decode(bytes: &[u8]) -> Result<Payload, PayloadError> {
        let mut reader = Reader { bytes, at: 0 };
        let version = reader.u8()?;
        if version != VERSION {
            return Err(PayloadError::Version { found: version });
        }
        let database = DatabaseId::new(reader.u32()?);
        let count = reader.u32()?;
        let mut parts = Vec::new();
        for _ in 0..count {
            parts.push(reader.part()?);
        }
        reader.end()?;
        Ok(Payload { database, parts })
    }
}

fn put_length(out: &mut Vec<u8>, len_bytes: usize) -> Result<(), PayloadError> {
    let length = u32::try_from(len_bytes).map_err(|_| PayloadError::TooLarge { len_bytes })?;
    out.extend_from_slice(&length.to_le_bytes());
    Ok(())
}

fn put_part(out: &mut Vec<u8>, kind: u8, body: &[u8]) -> Result<(), PayloadError> {
    out.push(kind);
    put_length(out, body.len())?;
    out.extend_from_slice(body);
    Ok(())
}

fn encode_sequences(changes: &[SequenceChange]) -> Result<Vec<u8>, PayloadError> {
    let mut out = Vec::new();
    put_length(&mut out, changes.len())?;
    for change in changes {
        put_length(&mut out, change.table.len())?;
        out.extend_from_slice(change.table.as_bytes());
        out.push(u8::from(change.value.is_some()));
        out.extend_from_slice(&change.value.unwrap_or(0).to_le_bytes());
    }
    Ok(out)
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], PayloadError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let Some(taken) = rest.get(..length) else {
            return Err(PayloadError::Truncated { at: self.bytes.len(), needed: length - rest.len() });
        };
        self.at += length;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], PayloadError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn u8(&mut self) -> Result<u8, PayloadError> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32, PayloadError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn text(&mut self, length: usize) -> Result<String, PayloadError> {
        let at = self.at;
        let text = std::str::from_utf8(self.take(length)?).map_err(|_| PayloadError::Text { at })?;
        Ok(text.to_owned())
    }

    fn part(&mut self) -> Result<Part, PayloadError> {
        let at = self.at;
        let kind = self.u8()?;
        let length = self.u32()? as usize;
        match kind {
            KIND_CHANGESET => Ok(Part::Changeset(self.take(length)?.to_vec())),
            KIND_DDL => Ok(Part::Ddl(self.text(length)?)),
            KIND_SEQUENCES => {
                let start = self.at;
                let body = self.take(length)?;
                // Positions in errors count from the payload's start, so the part's reader ends where the part does.
                let end = start + body.len();
                let mut inner = Reader { bytes: self.bytes.get(..end).unwrap_or_default(), at: start };
                let changes = inner.sequences()?;
                inner.end()?;
                Ok(Part::Sequences(changes))
            }
            kind => Err(PayloadError::Kind { at, kind }),
        }
    }

    fn sequences(&mut self) -> Result<Vec<SequenceChange>, PayloadError> {
        let count = self.u32()?;
        let mut changes = Vec::new();
        for _ in 0..count {
            let length = self.u32()? as usize;
            let table = self.text(length)?;
            let at = self.at;
            let present = self.u8()?;
            let value = i64::from_le_bytes(self.array()?);
            let value = match present {
                0 => None,
                1 => Some(value),
                found => return Err(PayloadError::Flag { at, found }),
            };
            changes.push(SequenceChange { table, value });
        }
        Ok(changes)
    }

    fn end(&self) -> Result<(), PayloadError> {
        if self.at == self.bytes.len() { Ok(()) } else { Err(PayloadError::Trailing { at: self.at }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Payload {
        Payload {
            database: DatabaseId::new(1),
            parts: vec![
                Part::Changeset(vec![0xAA, 0xBB]),
                Part::Ddl("DROP TABLE t".into()),
                Part::Sequences(vec![
                    SequenceChange { table: "a".into(), value: Some(-2) },
                    SequenceChange { table: "b".into(), value: None },
                ]),
            ],
        }
    }

    #[test]
    fn golden_bytes() {
        let mut golden = vec![1, 1, 0, 0, 0, 3, 0, 0, 0];
        golden.extend_from_slice(&[1, 2, 0, 0, 0, 0xAA, 0xBB]);
        golden.extend_from_slice(&[2, 12, 0, 0, 0]);
        golden.extend_from_slice(b"DROP TABLE t");
        golden.extend_from_slice(&[3, 32, 0, 0, 0, 2, 0, 0, 0]);
        golden.extend_from_slice(&[1, 0, 0, 0, b'a', 1, 0xFE, 255, 255, 255, 255, 255, 255, 255]);
        golden.extend_from_slice(&[1, 0, 0, 0, b'b', 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(sample().encode().unwrap(), golden);
        assert_eq!(Payload::decode(&golden).unwrap(), sample());
    }

    #[test]
    fn each_prefix_and_each_excess_is_refused() {
        let bytes = sample().encode().unwrap();
        for length in 0..bytes.len() {
            let error = Payload::decode(&bytes[..length]).unwrap_err();
            assert!(matches!(error, PayloadError::Truncated { .. }), "{length}: {error}");
        }
        let longer = [bytes.as_slice(), &[0]].concat();
        assert_eq!(Payload::decode(&longer), Err(PayloadError::Trailing { at: bytes.len() }));
    }

    #[test]
    fn what_it_does_not_know_is_named() {
        let mut bytes = sample().encode().unwrap();
        bytes[9] = 9;
        assert_eq!(Payload::decode(&bytes), Err(PayloadError::Kind { at: 9, kind: 9 }));
        bytes[0] = 2;
        assert_eq!(Payload::decode(&bytes), Err(PayloadError::Version { found: 2 }));
        let not_utf8 = [1, 1, 0, 0, 0, 1, 0, 0, 0, 2, 1, 0, 0, 0, 0xFF];
        assert_eq!(Payload::decode(&not_utf8), Err(PayloadError::Text { at: 14 }));
    }

    fn parts() -> impl Strategy<Value = Vec<Part>> {
        let sequence = ("[a-zß]{0,8}", proptest::option::of(any::<i64>()))
            .prop_map(|(table, value)| SequenceChange { table, value });
        let part = prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..64).prop_map(Part::Changeset),
            ".{0,40}".prop_map(Part::Ddl),
            proptest::collection::vec(sequence, 0..4).prop_map(Part::Sequences),
        ];
        proptest::collection::vec(part, 0..6)
    }

    proptest! {
        #[test]
        fn round_trips(database in any::<u32>(), parts in parts()) {
            let payload = Payload { database: DatabaseId::new(database), parts };
            prop_assert_eq!(Payload::decode(&payload.encode().unwrap()).unwrap(), payload);
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            // What decodes at all is the only encoding of what it says, but for the unused value of an absent counter.
            if let Ok(payload) = Payload::decode(&bytes) {
                prop_assert_eq!(payload.encode().unwrap().len(), bytes.len());
            }
        }
    }
}
