//! The settings of the cluster, and what the library makes of them.

use std::net::SocketAddr;
use std::path::PathBuf;

use mainstay::cluster::{ClusterConfig, TokenSource};
use mainstay::meta::token::JoinToken;
use mainstay::net::{Address, TlsConfig};

/// What a node is told about its cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterSettings {
    /// Where it listens for other nodes.
    pub listen: Option<SocketAddr>,
    /// Where others reach it.
    pub advertise: Option<Address>,
    /// What people call it.
    pub name: Option<String>,
    /// Members to ask to be let in.
    pub join: Vec<Address>,
    /// What they are shown.
    pub token: Option<JoinToken>,
    /// Where that stands.
    pub token_file: Option<PathBuf>,
    /// Its certificate.
    pub tls_certificate: Option<PathBuf>,
    /// Its key.
    pub tls_key: Option<PathBuf>,
    /// Whose certificates others must show.
    pub tls_authorities: Option<PathBuf>,
    /// Whether those must name their nodes.
    pub tls_require_node_names: bool,
    /// Whether TLS may be left out.
    pub allow_plaintext: bool,
}

impl ClusterSettings {
    /// What a node is opened with.
    ///
    /// # Errors
    /// Settings that do not go together.
    pub fn config(&self) -> Result<ClusterConfig, Vec<String>> {
        let mut problems = Vec::new();
        let token = match (&self.token, &self.token_file) {
            (None, None) => TokenSource::None,
            (Some(token), None) => TokenSource::Given(token.clone()),
            (None, Some(file)) => TokenSource::File(file.clone()),
            (Some(_), Some(_)) => {
                problems.push("join_token and join_token_file are both given; one of them is not meant".to_owned());
                TokenSource::None
            }
        };
        let tls = tls(&self.tls_certificate, &self.tls_key, &self.tls_authorities).unwrap_or_else(|problem| {
            problems.push(format!("cluster.{problem}"));
            None
        });
        if tls.is_none() && self.tls_require_node_names {
            problems.push("cluster.tls_require_node_names needs cluster.tls_certificate".to_owned());
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(ClusterConfig {
            listen: self.listen,
            advertise: self.advertise.clone(),
            name: self.name.clone(),
            join: self.join.clone(),
            token,
            tls: tls.map(|tls| TlsConfig { require_node_names: self.tls_require_node_names, ..tls }),
            allow_plaintext: self.allow_plaintext,
        })
    }
}

/// The three files, or none of them.
///
/// # Errors
/// Some are missing: which.
fn tls(
    certificate: &Option<PathBuf>,
    key: &Option<PathBuf>,
    authorities: &Option<PathBuf>,
) -> Result<Option<TlsConfig>, String> {
    match (certificate, key, authorities) {
        (None, None, None) => Ok(None),
        (Some(certificate), Some(key), Some(authorities)) => Ok(Some(TlsConfig::new(certificate, key, authorities))),
        (None, _, _) => Err("tls_certificate is missing: certificate, key and authorities go together".to_owned()),
        (_, None, _) => Err("tls_key is missing: certificate, key and authorities go together".to_owned()),
        (_, _, None) => Err("tls_authorities is missing: certificate, key and authorities go together".to_owned()),
    }
}
