//! gRPC over one connection of one's own: it is not made again by itself, and ends with its holder.

use std::future::{Ready, ready};
use std::io;
use std::task::{Context, Poll};

use hyper_util::rt::TokioIo;
use tokio::time::timeout;
use tonic::codegen::{Service, http::Uri};
use tonic::transport::{Channel, Endpoint};

use super::address::Address;
use super::config::NetConfig;
use super::connection::{Connection, Holder};
use super::error::NetError;
use super::identity::Certified;
use super::tls::Tls;

/// Connects to an address, within the time that the settings give. Says also for whom the certificate speaks that was
/// shown there.
///
/// # Errors
/// [`NetError::Plaintext`], or [`NetError::Connect`].
pub async fn connect(
    address: &Address,
    config: &NetConfig,
    tls: Option<&Tls>,
    holder: &Holder,
) -> Result<(Channel, Certified), NetError> {
    let failed = |source| NetError::Connect { address: address.clone(), source };
    let connecting = async {
        let connection = Connection::open(address, config, tls, holder).await?;
        let certified = connection.info().certified.clone();
        let channel = Endpoint::from_static("http://mainstay")
            .http2_keep_alive_interval(config.keepalive_interval)
            .keep_alive_timeout(config.keepalive_timeout)
            .connect_with_connector(Once(Some(connection)))
            .await
            .map_err(|error| failed(io::Error::other(error)))?;
        Ok((channel, certified))
    };
    timeout(config.connect_timeout, connecting).await.unwrap_or_else(|_| Err(failed(io::ErrorKind::TimedOut.into())))
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
        ready(self.0.take().map(TokioIo::new).ok_or_else(|| io::ErrorKind::NotConnected.into()))
    }
}
