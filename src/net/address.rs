//! Where a peer listens.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use super::error::NetError;

/// Longest host name, as in DNS.
const HOST_LIMIT_BYTES: usize = 253;

/// `host:port`, where the host is a name or an IP address. Names are looked up at every connect.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address(String);

impl Address {
    /// The same as a socket address, if the host is an IP address.
    pub fn literal(&self) -> Option<SocketAddr> {
        self.0.parse().ok()
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Address {
    type Err = NetError;

    fn from_str(text: &str) -> Result<Address, NetError> {
        let refused = || NetError::Address(text.to_owned());
        if text.parse::<SocketAddr>().is_ok() {
            return Ok(Address(text.to_owned()));
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(refused)?;
        let named = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'));
        if host.is_empty() || host.len() > HOST_LIMIT_BYTES || !named || port.parse::<u16>().is_err() {
            return Err(refused());
        }
        Ok(Address(text.to_owned()))
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Address {
        Address(address.to_string())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_names_or_ip_addresses_with_a_port() {
        for good in ["127.0.0.1:1", "[::1]:65535", "node-1.example.com:5442", "a_b:1"] {
            assert_eq!(good.parse::<Address>().unwrap().to_string(), good);
        }
        for bad in ["", ":1", "host", "host:", "host:65536", "ho st:1", "::1:1", "host:1/path", "https://host:1"] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
        assert!("127.0.0.1:1".parse::<Address>().unwrap().literal().is_some());
        assert!("localhost:1".parse::<Address>().unwrap().literal().is_none());
    }
}
