//! Rows of a portal that its client fetches in parts.
//!
//! The statement runs to its end at the first part, and its rows wait here: so no part of the engine is held up by a client
//! that takes its time, the rows are those of one moment, and the session can run other statements in between. What does not
//! fit into a little memory waits in a file without a name, which goes with the portal. Those of cursors are in [`super::scroll`].

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};

use bytes::{Buf, Bytes, BytesMut};

use super::budget::Reserved;
use super::error::{SqlError, SqlState};
use super::outbox::Outbox;

/// So much waits in memory.
pub(super) const MEMORY_BYTES: usize = 256 * 1024;
/// So much waits in a file.
pub(super) const FILE_LIMIT_BYTES: u64 = 4 << 30;
/// A type byte and the length field, which counts itself.
const TYPE_BYTES: usize = 1;

/// Whole messages, each a row, first in, first out. All come in before the first goes out.
pub(super) struct Spool {
    memory: BytesMut,
    file: Option<Overflow>,
    file_bytes: u64,
    rows_left: u64,
    _reserved: Reserved,
}

enum Overflow {
    In(BufWriter<File>),
    Out(BufReader<File>),
}

impl Spool {
    /// An empty one, for whose memory this is set aside.
    pub(super) fn new(reserved: Reserved) -> Spool {
        Spool { memory: BytesMut::new(), file: None, file_bytes: 0, rows_left: 0, _reserved: reserved }
    }

    /// Takes a row.
    ///
    /// # Errors
    /// There is no place for it (53400), or the file fails.
    pub(super) fn push(&mut self, message: &[u8]) -> Result<(), SqlError> {
        self.rows_left += 1;
        if self.file.is_none() && self.memory.len() + message.len() <= MEMORY_BYTES {
            self.memory.extend_from_slice(message);
            return Ok(());
        }
        self.file_bytes += message.len() as u64;
        if self.file_bytes > FILE_LIMIT_BYTES {
            return Err(too_large());
        }
        self.write(message).map_err(|error| failed(&error))
    }

    fn write(&mut self, message: &[u8]) -> io::Result<()> {
        if self.file.is_none() {
            self.file = Some(Overflow::In(BufWriter::new(tempfile::tempfile()?)));
        }
        match &mut self.file {
            Some(Overflow::In(file)) => file.write_all(message),
            _ => Err(io::Error::other("a row came after the first was fetched")),
        }
    }

    /// Sends up to `limit` rows, or all; answers how many.
    ///
    /// # Errors
    /// The file fails, or the client is gone.
    pub(super) fn send(&mut self, limit: Option<u64>, outbox: &mut Outbox) -> Result<u64, SqlError> {
        let mut count = 0;
        while limit.is_none_or(|limit| count < limit)
            && let Some(message) = self.next()?
        {
            outbox.pass(&message)?;
            count += 1;
        }
        Ok(count)
    }

    /// Takes the next row out.
    ///
    /// # Errors
    /// The file fails.
    pub(super) fn next(&mut self) -> Result<Option<Bytes>, SqlError> {
        if self.rows_left == 0 {
            return Ok(None);
        }
        let message = if self.memory.is_empty() {
            self.read().map_err(|error| failed(&error))?.into()
        } else {
            let length = self.memory.get(TYPE_BYTES..).unwrap_or_default().get_u32();
            // Cannot be cut off: it was pushed whole.
            self.memory.split_to((TYPE_BYTES + length as usize).min(self.memory.len())).freeze()
        };
        self.rows_left -= 1;
        Ok(Some(message))
    }

    fn read(&mut self) -> io::Result<Vec<u8>> {
        if let Some(Overflow::In(file)) = self.file.take_if(|file| matches!(file, Overflow::In(_))) {
            let mut file = file.into_inner().map_err(|error| error.into_error())?;
            file.rewind()?;
            self.file = Some(Overflow::Out(BufReader::new(file)));
        }
        let Some(Overflow::Out(file)) = &mut self.file else {
            return Err(io::Error::other("a row that was counted is not there"));
        };
        let mut head = [0; TYPE_BYTES + 4];
        file.read_exact(&mut head)?;
        let length = head.get(TYPE_BYTES..).unwrap_or_default().get_u32() as usize;
        let mut message = vec![0; TYPE_BYTES + length];
        let (start, rest) = message.split_at_mut(head.len());
        start.copy_from_slice(&head);
        file.read_exact(rest)?;
        Ok(message)
    }
}

/// There is no place for so many rows.
pub(super) fn too_large() -> SqlError {
    let text = format!("rows that are fetched in parts take more than {FILE_LIMIT_BYTES} bytes");
    SqlError::new(SqlState("53400"), text).with_hint("Fetch all rows at once, or use LIMIT.")
}

/// The rows could not be kept, or not be read again.
pub(super) fn failed(error: &io::Error) -> SqlError {
    let state = if error.kind() == io::ErrorKind::StorageFull { SqlState::DISK_FULL } else { SqlState::IO_ERROR };
    SqlError::new(state, format!("rows that are fetched in parts could not be kept: {error}"))
}

#[cfg(test)]
mod tests {
    use super::super::budget::Budget;
    use super::*;

    #[test]
    fn rows_come_out_in_order_from_memory_and_file() {
        let mut spool = Spool::new(Budget::new(0).reserve(MEMORY_BYTES).unwrap());
        let row = |number: u32| {
            let body = vec![number as u8; 1000 + number as usize % 7];
            [&b"D"[..], &(body.len() as u32 + 4).to_be_bytes(), &body].concat()
        };
        for number in 0..1000 {
            spool.push(&row(number)).unwrap();
        }
        assert!(spool.file.is_some() && spool.memory.len() <= MEMORY_BYTES);
        let mut sent = 0;
        for (limit, expected) in [(Some(1), 1), (Some(300), 300), (Some(0), 0), (None, 699), (Some(5), 0), (None, 0)] {
            let mut outbox = Outbox::new();
            assert_eq!(spool.send(limit, &mut outbox).unwrap(), expected);
            let rows: Vec<u8> = (sent..sent + expected as u32).flat_map(row).collect();
            assert!(outbox.gathered() == rows, "{limit:?}");
            sent += expected as u32;
        }
    }
}
