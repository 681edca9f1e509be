//! A connection to a peer: plain TCP or TLS, and cut when its owner says so.

use std::error::Error;
use std::future::{Future, Ready, ready};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use tonic::codegen::{Service, http::Uri};
use tonic::transport::server::Connected;
use tonic::transport::{Channel, Endpoint};

use super::address::Address;
use super::config::NetConfig;
use super::error::NetError;
use super::identity::Certified;
use super::tls::{self, Tls};

/// What every HTTP/2 client says first.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// A name has more addresses than this? Then these are tried.
const LOOKUP_LIMIT: usize = 8;

/// Whoever holds it keeps its connections; when it is dropped they end, whatever they are doing.
#[derive(Debug)]
pub struct Holder(watch::Sender<()>);

impl Holder {
    /// One without connections.
    #[allow(clippy::new_without_default, reason = "dropping it is what it is for; none should come about by accident")]
    pub fn new() -> Holder {
        Holder(watch::channel(()).0)
    }

    /// Ends when the holder is gone.
    pub(super) fn gone(&self) -> impl Future<Output = ()> + Send + Sync + 'static {
        let mut receiver = self.0.subscribe();
        // Nothing is ever sent: a change is the end.
        async move { while receiver.changed().await.is_ok() {} }
    }
}

/// What is known of the other side of a connection.
#[derive(Clone, Debug)]
pub struct PeerInfo {
    /// Where it is.
    pub address: SocketAddr,
    /// For whom its certificate speaks.
    pub certified: Certified,
    /// The name in its certificate.
    pub subject: Option<Arc<str>>,
}

/// What TLS found wrong with a connection after its handshake. In TLS 1.3 that is when a client hears that its certificate
/// is not taken.
pub type Fault = Arc<OnceLock<String>>;

/// What TLS found wrong, if that is what an error comes from.
pub fn tls_fault(error: &(dyn Error + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(fault) = error.downcast_ref::<rustls::Error>() {
            return Some(fault.to_string());
        }
        next = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

/// A connection, ready to be used.
pub struct Connection {
    io: Io,
    info: PeerInfo,
    /// Ends when the connection is to be cut.
    gone: Option<Pin<Box<dyn Future<Output = ()> + Send + Sync>>>,
    /// How much of the preface, which was read already, is still to be read.
    preface_left: usize,
    fault: Fault,
    /// Its place among the connections that may be.
    _permit: Option<OwnedSemaphorePermit>,
}

enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connection {
    /// Connects to the first address that takes it. How long that may take is for the caller to say.
    ///
    /// # Errors
    /// [`NetError::Plaintext`] or [`NetError::Connect`].
    pub async fn open(
        address: &Address,
        config: &NetConfig,
        tls: Option<&Tls>,
        holder: &Holder,
    ) -> Result<Connection, NetError> {
        let tcp = dial(address, config).await?;
        let failed = |source| NetError::Connect { address: address.clone(), source };
        let mut info = PeerInfo { address: tcp.peer_addr().map_err(failed)?, certified: Certified::Any, subject: None };
        let io = match tls {
            None => Io::Plain(tcp),
            Some(tls) => {
                // The name that the handshake asks for; nobody looks at it.
                let name = ServerName::IpAddress(info.address.ip().into());
                let connector = TlsConnector::from(Arc::clone(&tls.current().client));
                let stream = connector.connect(name, tcp).await.map_err(failed)?;
                let certificates = stream.get_ref().1.peer_certificates();
                info.certified = tls.certified(certificates).ok_or_else(unnamed).map_err(failed)?;
                info.subject = tls::subject(certificates);
                Io::Tls(Box::new(stream.into()))
            }
        };
        Ok(Connection {
            io,
            info,
            gone: Some(Box::pin(holder.gone())),
            preface_left: 0,
            fault: Fault::default(),
            _permit: None,
        })
    }

    /// Does the first steps with a client: TLS, and the preface of HTTP/2.
    pub(super) async fn accept(
        tcp: TcpStream,
        limit: Duration,
        tls: Option<&Tls>,
        gone: impl Future<Output = ()> + Send + Sync + 'static,
        permit: OwnedSemaphorePermit,
    ) -> io::Result<Connection> {
        let accepting = async {
            tcp.set_nodelay(true)?;
            let info = PeerInfo { address: tcp.peer_addr()?, certified: Certified::Any, subject: None };
            let (mut io, info) = match tls {
                None => (Io::Plain(tcp), info),
                Some(tls) => {
                    let stream = TlsAcceptor::from(Arc::clone(&tls.current().server)).accept(tcp).await?;
                    let certificates = stream.get_ref().1.peer_certificates();
                    let certified = tls.certified(certificates).ok_or_else(unnamed)?;
                    let subject = tls::subject(certificates);
                    (Io::Tls(Box::new(stream.into())), PeerInfo { certified, subject, ..info })
                }
            };
            let mut preface = [0; PREFACE.len()];
            io.read_exact(&mut preface).await?;
            if preface != *PREFACE {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "it does not speak HTTP/2"));
            }
            Ok((io, info))
        };
        let (io, info) = timeout(limit, accepting).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        Ok(Connection {
            io,
            info,
            gone: Some(Box::pin(gone)),
            preface_left: PREFACE.len(),
            fault: Fault::default(),
            _permit: Some(permit),
        })
    }

    /// Speaks HTTP/2 over it, to call gRPC services. When the connection breaks, so does the channel.
    ///
    /// # Errors
    /// The other side does not speak HTTP/2, or is gone.
    pub async fn into_channel(self, config: &NetConfig) -> Result<Channel, tonic::transport::Error> {
        Endpoint::from_static("http://mainstay")
            .http2_keep_alive_interval(config.keepalive_interval)
            .keep_alive_timeout(config.keepalive_timeout)
            .keep_alive_while_idle(true)
            .connect_with_connector(Once(Some(self)))
            .await
    }

    /// What TLS finds wrong with it from now on.
    pub fn fault(&self) -> Fault {
        Arc::clone(&self.fault)
    }

    /// What is known of the other side.
    pub fn info(&self) -> &PeerInfo {
        &self.info
    }

    /// Fails when the connection is to be cut. Asked before reads and writes: a peer that takes nothing would otherwise
    /// hold a connection that waits to write.
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if let Some(gone) = &mut self.gone
            && gone.as_mut().poll(cx).is_ready()
        {
            self.gone = None;
        }
        if self.gone.is_some() { Ok(()) } else { Err(io::ErrorKind::ConnectionAborted.into()) }
    }
}

/// Hands a connection that stands already to tonic, which is used to connecting by itself.
struct Once(Option<Connection>);

impl Service<Uri> for Once {
    type Response = TokioIo<Connection>;
    type Error = io::Error;
    type Future = Ready<io::Result<TokioIo<Connection>>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _uri: Uri) -> Self::Future {
        let closed = || io::Error::new(io::ErrorKind::NotConnected, "the other side closed the connection");
        ready(self.0.take().map(TokioIo::new).ok_or_else(closed))
    }
}

fn unnamed() -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, "its certificate names no node, and names are required")
}

async fn dial(address: &Address, config: &NetConfig) -> Result<TcpStream, NetError> {
    let failed = |source| NetError::Connect { address: address.clone(), source };
    let mut last = NetError::Connect { address: address.clone(), source: io::ErrorKind::NotFound.into() };
    for found in lookup_host(address.as_str()).await.map_err(failed)?.take(LOOKUP_LIMIT) {
        // Checked after the look-up: what a name stands for can change.
        if let Err(error) = config.check_address(found) {
            last = error;
            continue;
        }
        match TcpStream::connect(found).await {
            Ok(stream) => {
                stream.set_nodelay(true).map_err(failed)?;
                return Ok(stream);
            }
            Err(error) => last = failed(error),
        }
    }
    Err(last)
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.check(cx)?;
        if this.preface_left > 0 {
            let left = &PREFACE[PREFACE.len() - this.preface_left..];
            let taken = left.len().min(buf.remaining());
            buf.put_slice(&left[..taken]);
            this.preface_left -= taken;
            return Poll::Ready(Ok(()));
        }
        let read = Pin::new(&mut this.io).poll_read(cx, buf);
        if let Poll::Ready(Err(error)) = &read
            && let Some(fault) = tls_fault(error)
        {
            let _ = this.fault.set(fault);
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.check(cx)?;
        Pin::new(&mut this.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.check(cx)?;
        Pin::new(&mut this.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.check(cx)?;
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

impl Connected for Connection {
    type ConnectInfo = PeerInfo;

    fn connect_info(&self) -> PeerInfo {
        self.info.clone()
    }
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Io::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Io::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Io::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Io::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Io::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Io::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Io::Plain(stream) => stream.is_write_vectored(),
            Io::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Io::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Io::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Io::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Io::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
