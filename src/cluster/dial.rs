//! A connection to one node, called by its address. It is not made again by itself, and ends with its holder.

use std::io;

use tokio::time::timeout;
use tonic::transport::Channel;

use crate::net::connection::{Connection, Holder};
use crate::net::identity::Certified;
use crate::net::tls::Tls;
use crate::net::{Address, NetConfig, NetError};

/// Connects, within the time that the settings give. Says also for whom the certificate speaks that was shown there.
///
/// # Errors
/// [`NetError::Plaintext`], or [`NetError::Connect`].
pub(super) async fn connect(
    address: &Address,
    config: &NetConfig,
    tls: Option<&Tls>,
    holder: &Holder,
) -> Result<(Channel, Certified), NetError> {
    let failed = |source| NetError::Connect { address: address.clone(), source };
    let connecting = async {
        let connection = Connection::open(address, config, tls, holder).await?;
        let certified = connection.info().certified.clone();
        let channel = connection.into_channel(config).await.map_err(|error| failed(io::Error::other(error)))?;
        Ok((channel, certified))
    };
    timeout(config.connect_timeout, connecting).await.unwrap_or_else(|_| Err(failed(io::ErrorKind::TimedOut.into())))
}
