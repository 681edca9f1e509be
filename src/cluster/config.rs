//! What a node is told about its cluster when it is started.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::error::ClusterError;
use super::proto::{NodeRecord, TlsFiles};
use crate::config::{ConfigError, Problem};
use crate::meta::limits::{MAX_NAME_BYTES, MAX_TEXT_BYTES};
use crate::meta::token::JoinToken;
use crate::net::{Address, NetConfig, TlsConfig};

/// Most addresses of members that a node is told to join.
const MAX_JOIN: usize = 64;

/// What a node is told about its cluster. The default tells nothing: a node that was a member before goes on as it was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterConfig {
    /// Where it listens for other nodes; port 0 takes any free one. `None`, the default: where it did before.
    pub listen: Option<SocketAddr>,
    /// Where others reach it, if that is not where it listens. Default: where it listens.
    pub advertise: Option<Address>,
    /// What people call it, up to 63 letters, digits, dots, dashes and underscores. Default: `node` and its number. Only a
    /// node that is no member yet can be given one.
    pub name: Option<String>,
    /// Members to ask, one after the other, to be let in. Default: none, so that a node that is no member yet waits for
    /// somebody to form a cluster with it. A member does not need them.
    pub join: Vec<Address>,
    /// What it shows them.
    pub token: TokenSource,
    /// TLS between nodes. Default: none, or as before.
    pub tls: Option<TlsConfig>,
    /// Lets nodes speak without TLS to any address, not only on loopback. Whoever reaches the port can then read and change
    /// everything. Default false, or as before.
    pub allow_plaintext: bool,
}

/// Where a join token is found.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum TokenSource {
    /// Nowhere.
    #[default]
    None,
    /// Here.
    Given(JoinToken),
    /// In a file, which may not be there yet: it is read before each attempt.
    File(PathBuf),
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TokenSource::None => f.write_str("None"),
            TokenSource::Given(_) => f.write_str("Given"),
            TokenSource::File(path) => write!(f, "File({})", path.display()),
        }
    }
}

impl ClusterConfig {
    /// Checks every setting.
    ///
    /// # Errors
    /// All problems at once.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let mut problems = Vec::new();
        let mut problem = |setting, what: &str| problems.push(Problem { setting, what: what.to_owned() });
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if let Some(name) = &self.name
            && !((1..=MAX_NAME_BYTES).contains(&name.len()) && name.bytes().all(plain))
        {
            problem("cluster.name", "must have 1 to 63 letters, digits, dots, dashes or underscores");
        }
        if self.advertise.as_ref().is_some_and(|address| address.as_str().len() > MAX_TEXT_BYTES) {
            problem("cluster.advertise", "is too long");
        }
        if let (Some(listen), None) = (self.listen, &self.advertise)
            && listen.ip().is_unspecified()
        {
            problem(
                "cluster.advertise",
                "must be given: cluster.listen takes all addresses, and others have to be told one",
            );
        }
        if self.join.len() > MAX_JOIN {
            problem("join", "names more than 64 addresses");
        }
        match (self.join.is_empty(), &self.token) {
            (true, TokenSource::Given(_) | TokenSource::File(_)) => problem("join", "must be given with a join token"),
            (false, TokenSource::None) => {
                problem("join", "needs a join token: `mainstay cluster token create` makes one")
            }
            _ => {}
        }
        if let Some(listen) = self.listen
            && let Err(error) = self.net(listen).validate()
        {
            problems.extend(error.problems.into_iter().map(|problem| match problem.setting {
                "net.listen" => Problem { setting: "cluster.listen", ..problem },
                "net.allow_plaintext" => Problem { setting: "cluster.allow_plaintext", ..problem },
                _ => problem,
            }));
        }
        if problems.is_empty() { Ok(()) } else { Err(ConfigError { problems }) }
    }

    /// The settings of the network.
    pub(super) fn net(&self, listen: SocketAddr) -> NetConfig {
        NetConfig { listen, tls: self.tls.clone(), allow_plaintext: self.allow_plaintext, ..NetConfig::default() }
    }

    /// Fills in what was not said now but before.
    pub(super) fn remembering(mut self, record: &NodeRecord) -> Result<ClusterConfig, ClusterError> {
        let damaged = |what: &str, text: &str| ClusterError::Record(format!("{text:?} is no {what}"));
        let says_security = self.tls.is_some() || self.allow_plaintext;
        if self.listen.is_none() && !record.listen.is_empty() {
            let listen = record.listen.parse().map_err(|_| damaged("address", &record.listen))?;
            self.listen = Some(listen);
            if self.advertise.is_none() && !record.advertise.is_empty() {
                self.advertise = Some(record.advertise.parse().map_err(|_| damaged("address", &record.advertise))?);
            }
        }
        if !says_security {
            self.allow_plaintext = record.allow_plaintext;
            self.tls = record.tls.as_ref().map(|files| TlsConfig {
                require_node_names: files.require_node_names,
                ..TlsConfig::new(&files.certificate, &files.key, &files.authorities)
            });
        }
        Ok(self)
    }

    /// Notes how the node was started, for the next time.
    pub(super) fn note(&self, listen: SocketAddr, record: &mut NodeRecord) {
        record.listen = listen.to_string();
        record.advertise = self.advertise.as_ref().map(Address::to_string).unwrap_or_default();
        record.allow_plaintext = self.allow_plaintext;
        // The next start may be in another directory.
        let text = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string();
        record.tls = self.tls.as_ref().map(|tls| TlsFiles {
            certificate: text(&tls.certificate),
            key: text(&tls.key),
            authorities: text(&tls.authorities),
            require_node_names: tls.require_node_names,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_problems_are_reported_at_once() {
        ClusterConfig::default().validate().unwrap();
        let config = ClusterConfig {
            listen: Some("0.0.0.0:1".parse().unwrap()),
            name: Some("a b".to_owned()),
            token: TokenSource::File("token".into()),
            ..ClusterConfig::default()
        };
        let problems = config.validate().unwrap_err().problems;
        let settings: Vec<_> = problems.iter().map(|problem| problem.setting).collect();
        assert_eq!(settings, ["cluster.name", "cluster.advertise", "join", "cluster.listen"]);
    }

    #[test]
    fn what_was_said_before_holds_until_something_else_is_said() {
        let said = ClusterConfig {
            advertise: Some("db1:7".parse().unwrap()),
            tls: Some(TlsConfig::new("/c", "/k", "/a")),
            ..ClusterConfig::default()
        };
        let mut record = NodeRecord::default();
        said.note("10.0.0.1:7".parse().unwrap(), &mut record);
        let again = ClusterConfig::default().remembering(&record).unwrap();
        assert_eq!(again, ClusterConfig { listen: Some("10.0.0.1:7".parse().unwrap()), ..said });
        let listen = Some("10.0.0.2:7".parse().unwrap());
        let moved = ClusterConfig { listen, ..ClusterConfig::default() }.remembering(&record).unwrap();
        assert_eq!((moved.listen, moved.advertise), (listen, None));
        let open = ClusterConfig { allow_plaintext: true, ..ClusterConfig::default() }.remembering(&record).unwrap();
        assert_eq!(open.tls, None);
    }

    #[test]
    fn tokens_are_not_printed() {
        let token = JoinToken::draw().unwrap();
        let shown = format!("{:?}", TokenSource::Given(token.clone()));
        assert_eq!(shown, "Given");
        assert!(
            !format!("{:?}", ClusterConfig { token: TokenSource::Given(token), ..ClusterConfig::default() })
                .contains("mainstay-join")
        );
    }
}
