//! Accepting connections, within limits.

use std::fmt::Display;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketFlags, SocketType};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Sleep, sleep};
use tokio_stream::Stream;

use super::config::NetConfig;
use super::connection::{Connection, Holder};
use super::error::NetError;
use super::tls::Tls;

/// After a failure to accept, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A listening socket. As a stream, it hands over the connections that come of it, once they have done their first steps.
/// When it is dropped, nobody is accepted any more, and the port is free; connections that were handed over belong to the
/// [`Holder`].
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    tls: Option<Arc<Tls>>,
    holder: Weak<Holder>,
    first_steps_limit: Duration,
    connections: Arc<Semaphore>,
    /// Those that do their first steps.
    beginners: JoinSet<Option<Connection>>,
    pause: Option<Pin<Box<Sleep>>>,
}

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// Takes the address that the settings say. Who connects is refused, and need not wait, until a [`Listener`] uses it.
///
/// # Errors
/// [`NetError::Plaintext`], [`NetError::AddressInUse`] or [`NetError::Listen`].
pub fn bind_socket(config: &NetConfig) -> Result<std::net::TcpListener, NetError> {
    let address = config.listen;
    config.check_address(address)?;
    let bound = || -> Result<OwnedFd, Errno> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = net::socket_with(family, SocketType::STREAM, flags, None)?;
        net::sockopt::set_socket_reuseaddr(&socket, true)?;
        net::bind(&socket, &address)?;
        Ok(socket)
    };
    bound().map(std::net::TcpListener::from).map_err(|errno| cannot_listen(address, errno.into()))
}

fn cannot_listen(address: SocketAddr, source: io::Error) -> NetError {
    match source.kind() {
        io::ErrorKind::AddrInUse => NetError::AddressInUse(address),
        _ => NetError::Listen { address, source },
    }
}

impl Listener {
    /// Listens where the settings say. Each connection lasts at the longest until `holder` is dropped.
    ///
    /// # Errors
    /// See [`bind_socket`].
    pub fn bind(config: &NetConfig, tls: Option<Arc<Tls>>, holder: &Arc<Holder>) -> Result<Listener, NetError> {
        Listener::on(bind_socket(config)?, config, tls, holder)
    }

    /// Listens on a socket of [`bind_socket`]. One after the other may use a socket: what connects in between waits.
    ///
    /// # Errors
    /// [`NetError::AddressInUse`] or [`NetError::Listen`].
    pub fn on(
        socket: std::net::TcpListener,
        config: &NetConfig,
        tls: Option<Arc<Tls>>,
        holder: &Arc<Holder>,
    ) -> Result<Listener, NetError> {
        let failed = |source: io::Error| cannot_listen(config.listen, source);
        net::listen(&socket, BACKLOG).map_err(|errno| failed(errno.into()))?;
        let socket = TcpListener::from_std(socket).map_err(failed)?;
        Ok(Listener {
            address: socket.local_addr().map_err(failed)?,
            socket,
            tls,
            holder: Arc::downgrade(holder),
            first_steps_limit: config.connect_timeout,
            connections: Arc::new(Semaphore::new(usize::try_from(config.max_connections).unwrap_or(usize::MAX))),
            beginners: JoinSet::new(),
            pause: None,
        })
    }

    /// Where it listens, with the real port.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    fn begin(&mut self, tcp: TcpStream, address: SocketAddr) {
        let Some(holder) = self.holder.upgrade() else { return };
        let Ok(permit) = Arc::clone(&self.connections).try_acquire_owned() else {
            return turned_away("too_many", address, "too many connections");
        };
        let (limit, tls, gone) = (self.first_steps_limit, self.tls.clone(), holder.gone());
        self.beginners.spawn(async move {
            let accepted = Connection::accept(tcp, limit, tls.as_deref(), gone, permit).await;
            accepted.inspect_err(|error| turned_away("handshake", address, error)).ok()
        });
    }

    fn accept(&mut self, cx: &mut Context<'_>) {
        if self.pause.as_mut().is_some_and(|pause| pause.as_mut().poll(cx).is_pending()) {
            return;
        }
        self.pause = None;
        while let Poll::Ready(accepted) = self.socket.poll_accept(cx) {
            match accepted {
                Ok((tcp, address)) => self.begin(tcp, address),
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection of another node failed");
                    let mut pause = Box::pin(sleep(ACCEPT_PAUSE));
                    // For its wake-up.
                    if pause.as_mut().poll(cx).is_pending() {
                        self.pause = Some(pause);
                        return;
                    }
                }
            }
        }
    }
}

impl Stream for Listener {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.accept(cx);
        loop {
            match self.beginners.poll_join_next(cx) {
                Poll::Ready(Some(Ok(Some(connection)))) => return Poll::Ready(Some(Ok(connection))),
                Poll::Ready(Some(Ok(None))) => {}
                Poll::Ready(Some(Err(error))) => tracing::error!(%error, "a connection's task failed"),
                Poll::Ready(None) | Poll::Pending => return Poll::Pending,
            }
        }
    }
}

fn turned_away(reason: &'static str, address: SocketAddr, why: impl Display) {
    metrics::counter!("mainstay_net_refused_connections_total", "reason" => reason).increment(1);
    // No louder: anybody who reaches the port can cause as many as they like.
    tracing::debug!(%address, "a connection was turned away: {why}");
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    /// Nodes that start together ask each other: an answer that does not come would cost each of them its patience.
    #[tokio::test]
    async fn who_connects_is_refused_until_somebody_listens() {
        let config = NetConfig { listen: ([127, 0, 0, 1], 0).into(), ..NetConfig::default() };
        let socket = bind_socket(&config).unwrap();
        let address = socket.local_addr().unwrap();
        assert_eq!(TcpStream::connect(address).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        let holder = Arc::new(Holder::new());
        let listener = Listener::on(socket, &config, None, &holder).unwrap();
        assert!(TcpStream::connect(address).is_ok());
        let taken = NetConfig { listen: address, ..config };
        assert!(matches!(bind_socket(&taken), Err(NetError::AddressInUse(at)) if at == address));
        drop(listener);
    }
}
