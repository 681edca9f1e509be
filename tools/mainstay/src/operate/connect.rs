//! Which nodes are spoken to, and how.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use mainstay::cluster::rpc::channel::Nodes;
use mainstay::cluster::rpc::client::Client;
use mainstay::meta::client::Meta;
use mainstay::meta::service::MetaError;
use mainstay::net::{Address, NetConfig, TlsConfig};

use super::outcome::Failed;

/// Longest time that may be waited for: what a node tries for at most.
const MAX_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest time of other kinds.
const MAX_TIME: Duration = Duration::from_secs(3600);

#[derive(Args)]
pub struct ConnectArgs {
    /// Nodes of the cluster; any will do.
    #[arg(
        long,
        value_name = "A[,B,C]",
        env = "MAINSTAY_ADDR",
        default_value = "127.0.0.1:5442",
        value_delimiter = ',',
        value_parser = address
    )]
    pub addr: Vec<Address>,
    /// How long an answer may take, at most 60s. What goes on until it is interrupted has so long to begin.
    #[arg(long, value_name = "TIME", env = "MAINSTAY_TIMEOUT", default_value = "10s", value_parser = timeout)]
    pub timeout: Duration,
    /// A certificate for TLS, in PEM. Without TLS only loopback addresses are spoken to.
    #[arg(long, value_name = "FILE", env = "MAINSTAY_TLS_CERTIFICATE", requires_all = ["tls_key", "tls_authorities"])]
    pub tls_certificate: Option<PathBuf>,
    /// Its key, which nobody else may read.
    #[arg(long, value_name = "FILE", env = "MAINSTAY_TLS_KEY", requires = "tls_certificate")]
    pub tls_key: Option<PathBuf>,
    /// The authorities one of which must have signed the certificates of the nodes.
    #[arg(long, value_name = "FILE", env = "MAINSTAY_TLS_AUTHORITIES", requires = "tls_certificate")]
    pub tls_authorities: Option<PathBuf>,
    /// Speak without TLS to any address: whoever is on the way can read and change everything.
    #[arg(long, conflicts_with = "tls_certificate")]
    pub allow_plaintext: bool,
}

/// Who changes something, and why.
#[derive(Args)]
pub struct ActorArgs {
    /// Who does it; it stands in the log of events, beside the name in the certificate if there is one.
    #[arg(long, value_name = "NAME", env = "USER", hide_env = true, default_value = "")]
    pub actor: String,
    /// Why; it stands there, too.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub reason: String,
}

impl ConnectArgs {
    /// How the network is used.
    pub fn net(&self) -> NetConfig {
        let tls = match (&self.tls_certificate, &self.tls_key, &self.tls_authorities) {
            (Some(certificate), Some(key), Some(authorities)) => Some(TlsConfig::new(certificate, key, authorities)),
            _ => None,
        };
        NetConfig { tls, allow_plaintext: self.allow_plaintext, ..NetConfig::default() }
    }

    /// A way to the nodes that were named.
    ///
    /// # Errors
    /// They, or the files for TLS, cannot be used.
    pub fn client(&self) -> Result<Arc<Client>, Failed> {
        let nodes = Nodes::new(self.addr.clone(), &self.net());
        let nodes = nodes.map_err(|error| Failed::Meta(MetaError::Net(Arc::new(error))))?;
        Ok(Client::new(nodes))
    }

    /// The typed client over it.
    ///
    /// # Errors
    /// As [`client`](ConnectArgs::client).
    pub fn meta(&self, actor: Option<&ActorArgs>) -> Result<Meta, Failed> {
        let meta = self.client()?.meta("").within(self.timeout);
        Ok(actor.map_or(meta.clone(), |args| meta.acting(&args.actor, &args.reason)))
    }
}

fn address(text: &str) -> Result<Address, String> {
    text.trim().parse().map_err(|error: mainstay::net::NetError| error.to_string())
}

fn timeout(text: &str) -> Result<Duration, String> {
    bounded(text, MAX_TIMEOUT, "60s")
}

/// A time that is not nothing: `500ms`, `10s`, `2min`.
pub fn time(text: &str) -> Result<Duration, String> {
    bounded(text, MAX_TIME, "60min")
}

fn bounded(text: &str, limit: Duration, limit_text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|character: char| !character.is_ascii_digit());
    let factor = match text.get(digits.len()..) {
        Some("ms") => 1,
        Some("s") => 1000,
        Some("min") => 60_000,
        _ => 0,
    };
    let milliseconds = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    match milliseconds.map(Duration::from_millis) {
        Some(time) if is_number && !time.is_zero() && time <= limit => Ok(time),
        _ => Err(format!("a time is a number with ms, s or min, such as 500ms or 10s; {limit_text} at most")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        assert_eq!(time("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(time("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(time("2min"), Ok(Duration::from_secs(120)));
        for bad in ["", "10", "0s", "-1s", "+1s", "1h", "s", "61min", "1.5s", "99999999999999999999s"] {
            assert!(time(bad).is_err(), "{bad}");
        }
        // What is said of the bound is what help says.
        for bad in ["61s", "2min", "1h"] {
            let said = timeout(bad).unwrap_err();
            assert!(said.ends_with("; 60s at most"), "{bad}: {said}");
        }
        assert_eq!(timeout("1min"), Ok(MAX_TIMEOUT));
    }
}
