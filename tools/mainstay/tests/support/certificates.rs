//! Certificates for the tests, made on the spot.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{Running, settings};

static COUNT: AtomicUsize = AtomicUsize::new(0);

/// An authority that signs certificates.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn new() -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // A name of its own: by the same one, clients would take one authority for the other.
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        params.distinguished_name.push(DnType::CommonName, format!("authority {number} of the tests"));
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Writes its own certificate to a file.
    pub fn write(&self, path: &Path) {
        write(path, &self.0.pem());
    }

    /// Writes a certificate with this common name, and its key.
    pub fn certify_user(&self, name: &str, certificate: &Path, key: &Path) {
        let pair = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "tests");
        params.distinguished_name.push(DnType::CommonName, name);
        let signed = params.signed_by(&pair, &self.0).unwrap();
        write(key, &pair.serialize_pem());
        write(certificate, &signed.pem());
    }

    /// Writes a certificate for these names and addresses, and its key.
    pub fn certify(&self, names: &[&str], certificate: &Path, key: &Path) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let pair = KeyPair::generate().unwrap();
        let signed = CertificateParams::new(names).unwrap().signed_by(&pair, &self.0).unwrap();
        write(key, &pair.serialize_pem());
        write(certificate, &signed.pem());
    }
}

/// Writes a file that nobody else can read, so that whoever looks sees it whole or not at all.
pub fn write(path: &Path, text: &str) {
    let aside = path.with_extension("new");
    fs::write(&aside, text).unwrap();
    fs::set_permissions(&aside, fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(aside, path).unwrap();
}

/// A folder with what a node needs for users and TLS.
pub struct Secrets {
    pub directory: tempfile::TempDir,
    pub authority: Authority,
}

impl Secrets {
    /// With a certificate for this machine, and the users that those lines name.
    pub fn new(users: &str) -> Secrets {
        let secrets = Secrets { directory: tempfile::tempdir().unwrap(), authority: Authority::new() };
        secrets.authority.write(&secrets.path("root.pem"));
        secrets.authority.certify(
            &["localhost", "127.0.0.1"],
            &secrets.path("server.pem"),
            &secrets.path("server.key"),
        );
        write(&secrets.path("users"), users);
        secrets
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The path as text, for arguments.
    pub fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// What tokio-postgres needs to speak TLS with a node that shows that certificate.
    pub fn tls(&self) -> MakeRustlsConnect {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.path("root.pem")).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config =
            rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"postgresql".to_vec()];
        MakeRustlsConnect::new(config)
    }

    /// Connects a client over TLS.
    pub async fn connect(&self, node: &Running) -> tokio_postgres::Client {
        let settings = format!("{} sslmode=require", settings(&node.address));
        let (client, connection) = tokio_postgres::connect(&settings, self.tls()).await.unwrap();
        tokio::spawn(connection);
        client
    }

    /// The flags of a node that asks for passwords.
    pub fn passwords(&self) -> Vec<String> {
        vec!["--sql-users-file".to_owned(), self.text("users")]
    }

    /// The flags of a node that asks for passwords and speaks TLS.
    pub fn passwords_and_tls(&self) -> Vec<String> {
        let mut flags = self.passwords();
        flags.extend(["--sql-tls-certificate".to_owned(), self.text("server.pem")]);
        flags.extend(["--sql-tls-key".to_owned(), self.text("server.key")]);
        flags
    }
}
