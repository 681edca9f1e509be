//! Mutual TLS: both sides show a certificate of the configured authority. TLS 1.3 only.
//!
//! The files are read again when they change, so that certificates are renewed without a restart: new connections use the
//! new ones, connections that stand are left alone. The order of replacing does not matter. Files that do not fit
//! together, as in the midst of being replaced, or cannot be read, leave the old ones in use and an error in the log.
//!
//! Sessions are never resumed: a resumed one would vouch for a certificate that may have lost its authority since.

use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::{ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme};

use super::error::NetError;
use super::files::{self, Watched};
use super::identity::Certified;

/// What is spoken over TLS.
const PROTOCOL: &[u8] = b"h2";

/// Where the certificates are. All files are PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    /// This node's certificate and what leads from it to the authority. No default.
    pub certificate: PathBuf,
    /// Its private key. No default. Nobody but its owner may read it; if root owns it, its group may.
    pub key: PathBuf,
    /// The authorities whose certificates peers must show. No default.
    pub authorities: PathBuf,
    /// Whether a certificate must [name the node](super::identity) that shows it. Default false: whoever has a
    /// certificate of the authority may be any node, unless the certificate names some.
    pub require_node_names: bool,
}

impl TlsConfig {
    /// These files, without required names.
    pub fn new(certificate: impl Into<PathBuf>, key: impl Into<PathBuf>, authorities: impl Into<PathBuf>) -> TlsConfig {
        let (certificate, key, authorities) = (certificate.into(), key.into(), authorities.into());
        TlsConfig { certificate, key, authorities, require_node_names: false }
    }

    fn files(&self) -> [&Path; 3] {
        [&self.certificate, &self.key, &self.authorities]
    }
}

/// TLS settings with the files as last read.
#[derive(Debug)]
pub struct Tls {
    config: TlsConfig,
    credentials: Watched<Credentials>,
}

/// What the handshakes of both sides need.
#[derive(Debug)]
pub struct Credentials {
    pub(super) server: Arc<ServerConfig>,
    pub(super) client: Arc<ClientConfig>,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// [`NetError::TlsFile`] or [`NetError::Tls`].
    pub fn load(config: TlsConfig) -> Result<Tls, NetError> {
        let files = config.files().map(Path::to_owned).to_vec();
        let credentials = Watched::load("tls", files, || Credentials::load(&config))?;
        Ok(Tls { config, credentials })
    }

    /// The credentials for a new connection, read again if the files changed. Looks at three small local files at most
    /// once a second, which is why it may be called on the runtime.
    pub fn current(&self) -> Arc<Credentials> {
        self.credentials.current(|| Credentials::load(&self.config))
    }

    /// For whom the certificate that a peer showed speaks; `None` if it must not speak at all.
    pub(super) fn certified(&self, certificates: Option<&[CertificateDer<'_>]>) -> Option<Certified> {
        let certificate = webpki::EndEntityCert::try_from(certificates?.first()?).ok()?;
        match Certified::by_names(certificate.valid_dns_names()) {
            Certified::Any if self.config.require_node_names => None,
            certified => Some(certified),
        }
    }
}

/// The first DNS name of a certificate that a peer showed, for people to know it by.
pub(super) fn subject(certificates: Option<&[CertificateDer<'_>]>) -> Option<Arc<str>> {
    let certificate = webpki::EndEntityCert::try_from(certificates?.first()?).ok()?;
    certificate.valid_dns_names().next().map(Arc::from)
}

impl Credentials {
    fn load(config: &TlsConfig) -> Result<Credentials, NetError> {
        let chain = certificates(&config.certificate)?;
        let key = private_key(&config.key)?;
        let mut roots = RootCertStore::empty();
        for authority in certificates(&config.authorities)? {
            roots.add(authority).map_err(|error| unusable(&config.authorities, error))?;
        }
        let roots = Arc::new(roots);
        let provider = Arc::new(rustls::crypto::ring::default_provider());

        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
            .build()
            .map_err(|error| unusable(&config.authorities, error))?;
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(NetError::Tls)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.clone(), key.clone_key())
            .map_err(NetError::Tls)?;
        server.alpn_protocols = vec![PROTOCOL.to_vec()];
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;

        let verifier = Arc::new(OfAuthority { roots, provider: Arc::clone(&provider) });
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(NetError::Tls)?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_auth_cert(chain, key)
            .map_err(NetError::Tls)?;
        client.alpn_protocols = vec![PROTOCOL.to_vec()];
        client.resumption = Resumption::disabled();
        Ok(Credentials { server: Arc::new(server), client: Arc::new(client) })
    }
}

pub(super) fn unusable(path: &Path, what: impl ToString) -> NetError {
    NetError::TlsFile { path: path.to_owned(), what: what.to_string() }
}

fn read(path: &Path) -> Result<(Vec<u8>, Metadata), NetError> {
    files::read(path).map_err(|error| unusable(path, error))
}

pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, NetError> {
    let (bytes, _) = read(path)?;
    let mut certificates = Vec::new();
    for (index, certificate) in CertificateDer::pem_slice_iter(&bytes).enumerate() {
        let certificate =
            certificate.map_err(|error| unusable(path, format!("line {}: {error}", line_of(&bytes, index))))?;
        certificates.push(certificate);
    }
    if certificates.is_empty() {
        return Err(unusable(path, "holds no certificate"));
    }
    Ok(certificates)
}

/// The line, counted from 1, on which the certificate of that index begins; the last line if there is none.
fn line_of(pem: &[u8], index: usize) -> usize {
    let begins = |line: &[u8]| line.trim_ascii().starts_with(b"-----BEGIN");
    let lines = || pem.split(|byte| *byte == b'\n');
    let begin = lines().enumerate().filter(|(_, line)| begins(line)).nth(index);
    begin.map_or_else(|| lines().count(), |(line, _)| line + 1)
}

pub(super) fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, NetError> {
    let (bytes, metadata) = read(path)?;
    if let Some(mode) = files::open_to_others(&metadata) {
        return Err(unusable(path, format!("is a private key that others can read: its mode is {mode}, not 600")));
    }
    // The parser's errors may quote the file.
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| unusable(path, "holds no private key"))
}

/// Believes a server whose certificate comes from the authority. Its host's name does not matter: which node it is, is
/// checked [afterwards](super::identity), on both sides alike.
#[derive(Debug)]
struct OfAuthority {
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for OfAuthority {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let certificate = ParsedCertificate::try_from(certificate)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&certificate, &self.roots, intermediates, now, algorithms)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        None
    }
}

#[cfg(test)]
#[path = "tls_test.rs"]
mod tests;
