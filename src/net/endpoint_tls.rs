//! TLS towards clients that are no nodes: PostgreSQL's drivers and tools. TLS 1.2 and 1.3.
//!
//! Clients check the server's name as they like. If authorities are configured, clients must show a certificate of theirs;
//! for whom it speaks ([`super::subject`]) is for others to judge. Files are read again when they change (`net/files`). Sessions are never
//! resumed: a resumed one would vouch for a certificate that may have lost its authority since.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};

use super::error::NetError;
use super::files::Watched;
use super::tls::{certificates, private_key, unusable};

/// Where the certificates are. All files are PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointTlsConfig {
    /// The server's certificate and what leads from it to its authority. No default.
    pub certificate: PathBuf,
    /// Its private key. No default. Nobody but its owner may read it; if root owns it, its group may.
    pub key: PathBuf,
    /// The authorities one of which must have signed the certificate that a client shows. Default none: clients show no
    /// certificate.
    pub client_authorities: Option<PathBuf>,
    /// What is spoken over TLS (ALPN), if the client asks. Default nothing: the question is not answered.
    pub protocol: Option<&'static str>,
}

/// TLS settings with the files as last read.
#[derive(Debug)]
pub struct EndpointTls {
    config: EndpointTlsConfig,
    endpoint: Watched<Endpoint>,
}

/// What a handshake needs, and what it vouches for.
#[derive(Debug)]
pub struct Endpoint {
    /// For the handshake.
    pub server: Arc<ServerConfig>,
    /// The certificate that it shows, in DER.
    pub certificate: Vec<u8>,
}

impl EndpointTls {
    /// Reads the files.
    ///
    /// # Errors
    /// [`NetError::TlsFile`] or [`NetError::Tls`].
    pub fn load(config: EndpointTlsConfig) -> Result<EndpointTls, NetError> {
        let mut files = vec![config.certificate.clone(), config.key.clone()];
        files.extend(config.client_authorities.clone());
        let endpoint = Watched::load("endpoint_tls", files, || Endpoint::load(&config))?;
        Ok(EndpointTls { config, endpoint })
    }

    /// What a new connection needs, read again if the files changed. Looks at small local files at most once a second,
    /// which is why it may be called on the runtime.
    pub fn current(&self) -> Arc<Endpoint> {
        self.endpoint.current(|| Endpoint::load(&self.config))
    }

    /// Whether clients have to show a certificate.
    pub fn wants_certificates(&self) -> bool {
        self.config.client_authorities.is_some()
    }
}

impl Endpoint {
    fn load(config: &EndpointTlsConfig) -> Result<Endpoint, NetError> {
        let chain = certificates(&config.certificate)?;
        let certificate = chain.first().map(|first| first.to_vec()).unwrap_or_default();
        let key = private_key(&config.key)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(NetError::Tls)?;
        let builder = match &config.client_authorities {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(path)?), provider)
                    .build()
                    .map_err(|error| unusable(path, error))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut server = builder.with_single_cert(chain, key).map_err(NetError::Tls)?;
        server.alpn_protocols = config.protocol.iter().map(|name| name.as_bytes().to_vec()).collect();
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        Ok(Endpoint { server: Arc::new(server), certificate })
    }
}

fn roots(path: &Path) -> Result<RootCertStore, NetError> {
    let mut roots = RootCertStore::empty();
    for authority in certificates(path)? {
        roots.add(authority).map_err(|error| unusable(path, error))?;
    }
    Ok(roots)
}
