//! One client's socket: bytes in, bytes out, and the last word before it is closed.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

use super::error::SqlError;
use super::outbox;

/// Room made for each read.
const READ_BYTES: usize = 16 * 1024;
/// A client that does not take the last word in this time goes without.
const LAST_WORD_TIMEOUT: Duration = Duration::from_secs(1);

/// A client's socket and what it has sent so far.
pub(super) struct Wire {
    pub(super) reader: OwnedReadHalf,
    pub(super) writer: OwnedWriteHalf,
    pub(super) input: BytesMut,
}

impl Wire {
    pub(super) fn new(stream: TcpStream) -> Wire {
        let (reader, writer) = stream.into_split();
        Wire { reader, writer, input: BytesMut::new() }
    }

    /// Where the client is, if that can be told.
    pub(super) fn peer(&self) -> Option<SocketAddr> {
        self.reader.peer_addr().ok()
    }

    /// Waits for more input; 0 is the end of it. Loses nothing when it is dropped half-way.
    pub(super) async fn read_more(&mut self) -> io::Result<usize> {
        read_more(&mut self.reader, &mut self.input).await
    }

    /// Writes what the client takes without anybody waiting for it, and leaves the rest. An error shows at the next write.
    pub(super) fn write_now(&mut self, bytes: &mut Bytes) {
        while !bytes.is_empty() {
            match self.writer.try_write(bytes) {
                Ok(count) if count > 0 => bytes.advance(count),
                _ => return,
            }
        }
    }

    pub(super) async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.writer.write_all(bytes).await
    }

    /// Tells the client why its connection ends, and closes it.
    pub(super) async fn last_word(&mut self, error: &SqlError) {
        let mut bytes = BytesMut::new();
        if outbox::put_error(&mut bytes, error).is_err() {
            return;
        }
        // A client that is gone misses nothing.
        let _ = timeout(LAST_WORD_TIMEOUT, async {
            self.writer.write_all(&bytes).await?;
            self.writer.shutdown().await
        })
        .await;
    }

    /// Reads and forgets what the client still sends, for a moment: closing a socket with unread input resets it, and
    /// the client might then never see its last word.
    pub(super) async fn let_finish(&mut self) {
        let _ = timeout(LAST_WORD_TIMEOUT, async {
            loop {
                self.input.clear();
                if matches!(self.read_more().await, Ok(0) | Err(_)) {
                    return;
                }
            }
        })
        .await;
    }
}

/// See [`Wire::read_more`]; for a socket whose halves are used apart.
pub(super) async fn read_more(reader: &mut OwnedReadHalf, input: &mut BytesMut) -> io::Result<usize> {
    input.reserve(READ_BYTES);
    reader.read_buf(input).await
}
