//! One client's socket, plain or TLS: bytes in, bytes out, and the last word before it is closed.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf, ReadHalf, WriteHalf, split};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::error::SqlError;
use super::outbox;
use crate::net::endpoint_tls::Endpoint;
use crate::net::subject;

/// A client of which nothing was heard for so long is asked whether it is still there, and how often, before its connection
/// counts as broken: after two minutes.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 6;
/// Room made for each read.
const READ_BYTES: usize = 16 * 1024;
/// A client that does not take the last word in this time goes without.
const LAST_WORD_TIMEOUT: Duration = Duration::from_secs(1);

/// A client that is in the middle of a message that is not taken may send on for so long, and is done if nothing came for so
/// long: it listens only then.
const HEAR_OUT_TIMEOUT: Duration = Duration::from_secs(5);
const HEARD_OUT_AFTER: Duration = Duration::from_millis(250);

/// A client's socket and what it has sent so far.
pub(super) struct Wire {
    pub(super) reader: Reader,
    pub(super) writer: Writer,
    pub(super) input: BytesMut,
    /// What it was secured with.
    endpoint: Option<Arc<Endpoint>>,
    /// For whom the certificate speaks that the client showed.
    certified: Option<String>,
    peer: Option<SocketAddr>,
}

/// Where bytes come from.
pub(super) enum Reader {
    Plain(OwnedReadHalf),
    Tls(ReadHalf<TlsStream<TcpStream>>),
    /// The socket is gone: TLS could not be agreed upon.
    Gone,
}

/// Where bytes go to.
pub(super) enum Writer {
    Plain(OwnedWriteHalf),
    Tls(TlsWriter),
    /// The socket is gone.
    Gone,
}

/// The writing side of TLS. What it says it wrote is in the socket, as with a plain one: TLS itself takes bytes and may
/// keep them, and whoever waits for their effect would have to know.
pub(super) struct TlsWriter {
    inner: WriteHalf<TlsStream<TcpStream>>,
    /// So many bytes of the last call were taken, and are still on their way. The next call begins with the same ones.
    taken: usize,
}

impl Wire {
    pub(super) fn new(stream: TcpStream) -> Wire {
        let peer = stream.peer_addr().ok();
        let (reader, writer) = stream.into_split();
        let (reader, writer) = (Reader::Plain(reader), Writer::Plain(writer));
        Wire { reader, writer, input: BytesMut::new(), endpoint: None, certified: None, peer }
    }

    /// What it was secured with, if it was.
    pub(super) fn endpoint(&self) -> Option<&Endpoint> {
        self.endpoint.as_deref()
    }

    /// For whom the client's certificate speaks, if it showed one that names somebody.
    pub(super) fn certified(&self) -> Option<&str> {
        self.certified.as_deref()
    }

    /// The first byte that comes, which is left where it is; nothing if none does.
    pub(super) async fn first_byte(&mut self) -> io::Result<Option<u8>> {
        let Reader::Plain(reader) = &mut self.reader else { return Err(io::ErrorKind::NotConnected.into()) };
        let mut byte = [0];
        let count = reader.peek(&mut byte).await?;
        Ok((count > 0).then_some(byte[0]))
    }

    /// Agrees with the client on TLS. Without success the socket is gone. Answers what is to be spoken, if the client asked.
    pub(super) async fn secure(&mut self, endpoint: Arc<Endpoint>) -> io::Result<Option<Vec<u8>>> {
        let halves =
            (std::mem::replace(&mut self.reader, Reader::Gone), std::mem::replace(&mut self.writer, Writer::Gone));
        let (Reader::Plain(reader), Writer::Plain(writer)) = halves else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let tcp = reader.reunite(writer).map_err(io::Error::other)?;
        let stream = TlsAcceptor::from(Arc::clone(&endpoint.server)).accept(tcp).await?;
        let protocol = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
        let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        self.certified = certificate.and_then(subject::common_name);
        let (reader, writer) = split(stream);
        self.reader = Reader::Tls(reader);
        self.writer = Writer::Tls(TlsWriter { inner: writer, taken: 0 });
        self.endpoint = Some(endpoint);
        Ok(protocol)
    }

    /// Where the client is, if that can be told.
    pub(super) fn peer(&self) -> Option<SocketAddr> {
        self.peer
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

    /// Ends the connection of a client that was told why while it was still sending: it is heard out first, because a client
    /// that cannot write on may not read either.
    pub(super) async fn part(&mut self) {
        let hear_out = async {
            loop {
                self.input.clear();
                match timeout(HEARD_OUT_AFTER, self.read_more()).await {
                    Ok(Ok(count)) if count > 0 => {}
                    _ => return,
                }
            }
        };
        // Whoever goes on for longer is not heard out.
        let _ = timeout(HEAR_OUT_TIMEOUT, hear_out).await;
        let _ = self.writer.shutdown().await;
        self.let_finish().await;
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

/// Sets what every socket gets. A socket without goes on, too.
pub(super) fn prepare(stream: &TcpStream) {
    let set = || -> rustix::io::Result<()> {
        sockopt::set_tcp_nodelay(stream, true)?;
        sockopt::set_socket_keepalive(stream, true)?;
        sockopt::set_tcp_keepidle(stream, KEEPALIVE_IDLE)?;
        sockopt::set_tcp_keepintvl(stream, KEEPALIVE_INTERVAL)?;
        sockopt::set_tcp_keepcnt(stream, KEEPALIVE_PROBES)
    };
    if let Err(error) = set() {
        tracing::debug!(%error, "a socket's options cannot be set");
    }
}

/// See [`Wire::read_more`]; for a socket whose halves are used apart.
pub(super) async fn read_more(reader: &mut Reader, input: &mut BytesMut) -> io::Result<usize> {
    input.reserve(READ_BYTES);
    reader.read_buf(input).await
}

impl Writer {
    /// Writes what goes at once.
    fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Writer::Plain(half) => half.try_write(bytes),
            Writer::Tls(half) => {
                // Whoever has to wait for the rest asks again with a waker of its own.
                match Pin::new(half).poll_write(&mut Context::from_waker(Waker::noop()), bytes) {
                    Poll::Ready(written) => written,
                    Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
                }
            }
            Writer::Gone => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

impl AsyncRead for Reader {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Reader::Plain(half) => Pin::new(half).poll_read(cx, buf),
            Reader::Tls(half) => Pin::new(half).poll_read(cx, buf),
            Reader::Gone => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }
}

impl AsyncWrite for Writer {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Writer::Plain(half) => Pin::new(half).poll_write(cx, buf),
            Writer::Tls(half) => Pin::new(half).poll_write(cx, buf),
            Writer::Gone => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Writer::Plain(half) => Pin::new(half).poll_flush(cx),
            Writer::Tls(half) => Pin::new(&mut half.inner).poll_flush(cx),
            Writer::Gone => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Writer::Plain(half) => Pin::new(half).poll_shutdown(cx),
            Writer::Tls(half) => Pin::new(&mut half.inner).poll_shutdown(cx),
            Writer::Gone => Poll::Ready(Ok(())),
        }
    }
}

impl TlsWriter {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.taken == 0 {
            this.taken = ready!(Pin::new(&mut this.inner).poll_write(cx, buf))?;
        }
        ready!(Pin::new(&mut this.inner).poll_flush(cx))?;
        Poll::Ready(Ok(std::mem::take(&mut this.taken).min(buf.len())))
    }
}
