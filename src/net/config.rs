//! The settings of a node's network.

use std::net::SocketAddr;
use std::time::Duration;

use super::backoff::Backoff;
use super::error::NetError;
use super::tls::TlsConfig;
use crate::config::{ConfigError, Problem};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// How a node speaks to the others. The defaults are safe: loopback only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetConfig {
    /// Address to listen on for other nodes. Default 127.0.0.1:5442; port 0 takes any free one.
    pub listen: SocketAddr,
    /// Mutual TLS. Without it, the default, this node listens and connects on loopback addresses only.
    pub tls: Option<TlsConfig>,
    /// Without TLS: speak to any address. Whoever can reach the port can then read and change everything, and pass for
    /// any node. Default false.
    pub allow_plaintext: bool,
    /// Time for a connection from the first packet until both sides know who the other is. Default 2 s, from 100 ms to
    /// 60 s.
    pub connect_timeout: Duration,
    /// A connection on which nothing came for this long is probed. Default 2 s, from 100 ms to 60 s.
    pub keepalive_interval: Duration,
    /// A connection whose probe is not answered within this time is cut. Default 3 s, from 100 ms to 60 s.
    pub keepalive_timeout: Duration,
    /// Connections that others may have to this node at once; more are closed. Default 1024, from 16 to 65 536.
    pub max_connections: u32,
    /// Calls that one connection may have open at once. Default 256, from 1 to 65 536.
    pub max_calls_per_connection: u32,
    /// The most that is waited after the first failure to reach a peer; it doubles with each one. Default 50 ms, from
    /// 1 ms to 60 s.
    pub backoff_base: Duration,
    /// The most that is ever waited before a peer is tried again. Default 1 s, from `backoff_base` to 1 hour.
    pub backoff_max: Duration,
    /// So many failures in a row until nothing is queued for the peer any more. Default 3, from 1 to 1000.
    pub breaker_failures: u32,
    /// Envelopes that may wait for one peer; more are dropped. Default 16 384, from 16 to 1 048 576.
    pub queue_envelopes: u32,
    /// The same in bytes. A larger envelope waits alone. Default 64 MiB, from 64 KiB to 4 GiB.
    pub queue_bytes: u64,
    /// Envelopes are sent together up to so many bytes. A larger one travels alone. Default 1 MiB, from 1 KiB to 16 MiB.
    pub batch_bytes: u64,
    /// Bytes per second of all snapshots that this node sends, taken together. Default 0, which means any number; from
    /// 1 MiB to 1 TiB.
    pub snapshot_bytes_per_second: u64,
    /// Snapshots that this node sends at once; some more wait, others are refused. Default 4, from 1 to 256.
    pub max_snapshots_out: u32,
    /// Snapshots that this node takes at once; whoever offers more is told to come back later. Default 4, from 1 to 256.
    pub max_snapshots_in: u32,
}

impl Default for NetConfig {
    fn default() -> NetConfig {
        NetConfig {
            listen: SocketAddr::from(([127, 0, 0, 1], 5442)),
            tls: None,
            allow_plaintext: false,
            connect_timeout: Duration::from_secs(2),
            keepalive_interval: Duration::from_secs(2),
            keepalive_timeout: Duration::from_secs(3),
            max_connections: 1024,
            max_calls_per_connection: 256,
            backoff_base: Duration::from_millis(50),
            backoff_max: Duration::from_secs(1),
            breaker_failures: 3,
            queue_envelopes: 16_384,
            queue_bytes: 64 * MIB,
            batch_bytes: MIB,
            snapshot_bytes_per_second: 0,
            max_snapshots_out: 4,
            max_snapshots_in: 4,
        }
    }
}

impl NetConfig {
    /// Checks every setting. The files of the TLS settings are looked at when they are loaded.
    ///
    /// # Errors
    /// All problems at once.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let milliseconds = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let base = milliseconds(self.backoff_base);
        let ranges = [
            ("net.connect_timeout_ms", milliseconds(self.connect_timeout), 100, 60_000),
            ("net.keepalive_interval_ms", milliseconds(self.keepalive_interval), 100, 60_000),
            ("net.keepalive_timeout_ms", milliseconds(self.keepalive_timeout), 100, 60_000),
            ("net.max_connections", self.max_connections.into(), 16, 65_536),
            ("net.max_calls_per_connection", self.max_calls_per_connection.into(), 1, 65_536),
            ("net.backoff_base_ms", base, 1, 60_000),
            ("net.backoff_max_ms", milliseconds(self.backoff_max), base.max(1), 3_600_000),
            ("net.breaker_failures", self.breaker_failures.into(), 1, 1000),
            ("net.queue_envelopes", self.queue_envelopes.into(), 16, 1 << 20),
            ("net.queue_bytes", self.queue_bytes, 64 * KIB, 4 * GIB),
            ("net.batch_bytes", self.batch_bytes, KIB, 16 * MIB),
            ("net.max_snapshots_out", self.max_snapshots_out.into(), 1, 256),
            ("net.max_snapshots_in", self.max_snapshots_in.into(), 1, 256),
        ];
        let mut problems = Vec::new();
        for (setting, value, low, high) in ranges {
            if !(low..=high).contains(&value) {
                problems.push(Problem { setting, what: format!("is {value}; must be from {low} to {high}") });
            }
        }
        if self.snapshot_bytes_per_second != 0 && !(MIB..=1024 * GIB).contains(&self.snapshot_bytes_per_second) {
            problems.push(Problem {
                setting: "net.snapshot_bytes_per_second",
                what: format!("is {}; must be 0, or from {MIB} to {}", self.snapshot_bytes_per_second, 1024 * GIB),
            });
        }
        if self.tls.is_some() && self.allow_plaintext {
            problems.push(Problem {
                setting: "net.allow_plaintext",
                what: "is set together with TLS; one of them is not meant".to_owned(),
            });
        }
        if !self.may_use(self.listen) {
            problems.push(Problem {
                setting: "net.listen",
                what: format!("is {}, not a loopback address: configure TLS or allow plaintext", self.listen),
            });
        }
        if problems.is_empty() { Ok(()) } else { Err(ConfigError { problems }) }
    }

    /// The waits between attempts to reach a peer.
    pub fn backoff(&self) -> Backoff {
        Backoff { base: self.backoff_base, max: self.backoff_max }
    }

    /// Whether anything may be said on or to this address.
    ///
    /// # Errors
    /// [`NetError::Plaintext`]: it could be read on the way.
    pub fn check_address(&self, address: SocketAddr) -> Result<(), NetError> {
        if self.may_use(address) { Ok(()) } else { Err(NetError::Plaintext(address)) }
    }

    fn may_use(&self, address: SocketAddr) -> bool {
        self.tls.is_some() || self.allow_plaintext || address.ip().to_canonical().is_loopback()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid() {
        NetConfig::default().validate().unwrap();
    }

    #[test]
    fn all_problems_are_reported_at_once() {
        let config = NetConfig {
            listen: SocketAddr::from(([0, 0, 0, 0], 1)),
            backoff_max: Duration::from_millis(1),
            queue_envelopes: 0,
            snapshot_bytes_per_second: 1,
            max_snapshots_in: 0,
            ..NetConfig::default()
        };
        let problems = config.validate().unwrap_err().problems;
        let settings: Vec<_> = problems.iter().map(|problem| problem.setting).collect();
        let expected = ["net.backoff_max_ms", "net.queue_envelopes", "net.max_snapshots_in"];
        assert_eq!(settings, [expected.as_slice(), &["net.snapshot_bytes_per_second", "net.listen"]].concat());
    }

    #[test]
    fn plaintext_stays_on_loopback_unless_allowed() {
        let mut config = NetConfig::default();
        for loopback in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            config.check_address(loopback.parse().unwrap()).unwrap();
        }
        let elsewhere = ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "[::ffff:10.0.0.1]:1"].map(|text| text.parse().unwrap());
        for address in elsewhere {
            assert!(matches!(config.check_address(address), Err(NetError::Plaintext(_))), "{address}");
        }
        config.allow_plaintext = true;
        for address in elsewhere {
            config.check_address(address).unwrap();
        }
    }
}
