//! Certificates: whose are believed, and how they are renewed.

use std::path::Path;

use mainstay::net::TlsConfig;
use mainstay::net::identity::node_name;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::fake::{FakeCaller, FakeFrame, hello};
use super::*;

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Writes what a node needs into a folder, over what is there.
    fn issue(&self, directory: &Path, names: &[String], believed: &[&Authority]) -> TlsConfig {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &self.0).unwrap();
        let authorities: String = believed.iter().map(|authority| authority.0.pem()).collect();
        let at = |name: &str| directory.join(name);
        let config = TlsConfig::new(at("certificate.pem"), at("key.pem"), at("authorities.pem"));
        std::fs::write(&config.authorities, authorities).unwrap();
        std::fs::write(&config.certificate, certificate.pem()).unwrap();
        std::fs::write(&config.key, key.serialize_pem()).unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(&config.key, std::fs::Permissions::from_mode(0o600)).unwrap();
        }
        config
    }
}

/// A node's folder.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn with(tls: TlsConfig) -> NetConfig {
    NetConfig { tls: Some(tls), ..config() }
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_with_certificates_of_one_authority_speak() {
    let authority = Authority::new();
    let (first, second) = (folder(), folder());
    let everywhere = SocketAddr::from(([0, 0, 0, 0], 0));
    let one = with(authority.issue(first.path(), &[], &[&authority]));
    let one = Node::start(NetConfig { listen: everywhere, ..one }, identity(1, 1)).await;
    let two = Node::start(with(authority.issue(second.path(), &[], &[&authority])), identity(2, 1)).await;
    let there = SocketAddr::from(([127, 0, 0, 1], one.address().port()));
    two.knows(1, there);
    one.knows(2, two.address());
    two.reaches(1, &one).await;
    for number in 0..1000 {
        one.send(2, envelope(number, 5000)).unwrap();
    }
    eventually("all arrive", || two.arrivals.count() == 1000).await;
    assert_eq!(two.arrivals.numbers(), (0..1000).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_of_another_authority_are_refused_both_ways() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let (first, second, third) = (folder(), folder(), folder());
    let one = Node::start(with(ours.issue(first.path(), &[], &[&ours])), identity(1, 1)).await;
    // Would believe us, and we must not believe it; and the other way round.
    let imposter = Node::start(with(theirs.issue(second.path(), &[], &[&ours])), identity(2, 1)).await;
    let sceptic = Node::start(with(ours.issue(third.path(), &[], &[&theirs])), identity(3, 1)).await;
    one.knows(2, imposter.address());
    one.is_kept_from(2, "invalid peer certificate").await;
    imposter.knows(1, one.address());
    imposter.never_reaches(1).await;
    one.knows(3, sceptic.address());
    one.never_reaches(3).await;
    sceptic.knows(1, one.address());
    sceptic.is_kept_from(1, "invalid peer certificate").await;
    for node in [&one, &imposter, &sceptic] {
        assert_eq!(node.arrivals.count(), 0);
        assert!(node.transport.peers().iter().all(|peer| !peer.is_connected));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_without_certificate_is_refused_and_so_is_plaintext() {
    let authority = Authority::new();
    let first = folder();
    let files = authority.issue(first.path(), &["localhost".to_owned()], &[&authority]);
    let one = Node::start(with(files), identity(1, 1)).await;

    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.0.pem().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let client = client.with_root_certificates(roots).with_no_client_auth();
    let tcp = TcpStream::connect(one.address()).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
    // In TLS 1.3 the client is done before the server looks for its certificate.
    let mut stream = connector.connect(ServerName::try_from("localhost").unwrap(), tcp).await.unwrap();
    let error = stream.read_u8().await.unwrap_err();
    assert!(error.to_string().contains("CertificateRequired"), "{error}");

    let plain = Node::start(config(), identity(2, 1)).await;
    plain.knows(1, one.address());
    plain.never_reaches(1).await;
    let frame = FakeFrame { hello: Some(hello(2, 1, 1)), batch: None };
    let call = async {
        let endpoint = tonic::transport::Endpoint::try_from(format!("http://{}", one.address())).unwrap();
        endpoint.connect().await.is_ok() && FakeCaller::call(one.address(), frame).await.is_ok()
    };
    assert!(!call.await);
    assert_eq!(one.arrivals.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn renewed_files_are_used_without_a_restart() {
    let (old, new) = (Authority::new(), Authority::new());
    let (first, second) = (folder(), folder());
    let one = Node::start(with(old.issue(first.path(), &[], &[&old])), identity(1, 1)).await;
    let two = Node::start(with(old.issue(second.path(), &[], &[&old])), identity(2, 1)).await;
    one.knows(2, two.address());
    one.reaches(2, &two).await;
    // Node 2 starts again and believes the new authority only. Node 1 goes on.
    let listen = two.address();
    two.transport.shutdown().await;
    let files = new.issue(second.path(), &[], &[&new]);
    let two = Node::start(NetConfig { listen, ..with(files) }, identity(2, 2)).await;
    one.is_kept_from(2, "invalid peer certificate").await;
    two.knows(1, one.address());
    two.is_kept_from(1, "invalid peer certificate").await;
    new.issue(first.path(), &[], &[&new]);
    one.reaches(2, &two).await;
    two.reaches(1, &one).await;
    // Nonsense changes nothing.
    std::fs::write(first.path().join("certificate.pem"), "nonsense").unwrap();
    two.transport.shutdown().await;
    let files = TlsConfig::new(
        second.path().join("certificate.pem"),
        second.path().join("key.pem"),
        second.path().join("authorities.pem"),
    );
    let two = Node::start(NetConfig { listen, ..with(files) }, identity(2, 3)).await;
    one.reaches(2, &two).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_with_node_names_speaks_for_those_only() {
    let authority = Authority::new();
    let name = |node| node_name(ClusterId::new(CLUSTER), NodeId::new(node));
    let (first, second, third) = (folder(), folder(), folder());
    let one = Node::start(with(authority.issue(first.path(), &[name(1)], &[&authority])), identity(1, 1)).await;
    let two = Node::start(with(authority.issue(second.path(), &[name(2)], &[&authority])), identity(2, 1)).await;
    one.knows(2, two.address());
    one.reaches(2, &two).await;
    two.transport.shutdown().await;

    // Node 3 has stolen nothing, and says it is node 2.
    let thief = Node::start(with(authority.issue(third.path(), &[name(3)], &[&authority])), identity(2, 9)).await;
    one.knows(2, thief.address());
    one.is_kept_from(2, "certificate does not name node 2").await;
    thief.knows(1, one.address());
    thief.is_kept_from(1, "certificate does not name node 2").await;
    assert_eq!(one.arrivals.count() + thief.arrivals.count(), 0);

    // And where names are required, a certificate without any is not enough.
    let mut strict = authority.issue(first.path(), &[name(4)], &[&authority]);
    strict.require_node_names = true;
    let strict = Node::start(with(strict), identity(4, 1)).await;
    let nameless = authority.issue(third.path(), &[], &[&authority]);
    let nameless = Node::start(with(nameless), identity(5, 1)).await;
    strict.knows(5, nameless.address());
    strict.is_kept_from(5, "names are required").await;
    nameless.knows(4, strict.address());
    nameless.never_reaches(4).await;
    assert_eq!(strict.arrivals.count() + nameless.arrivals.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_travel_under_tls_and_only_to_whom_they_are_for() {
    let authority = Authority::new();
    let name = |node| node_name(ClusterId::new(CLUSTER), NodeId::new(node));
    let (first, second, third) = (folder(), folder(), folder());
    let one = Node::start(with(authority.issue(first.path(), &[name(1)], &[&authority])), identity(1, 1)).await;
    let two = Node::start(with(authority.issue(second.path(), &[name(2)], &[&authority])), identity(2, 1)).await;
    one.knows(2, two.address());
    one.send_snapshot(2, &Made::new(1, 5 << 20), 1).unwrap().get().await.unwrap();
    assert!(two.shelf().stored(1).is_complete);

    // Node 3 says that it is node 2, to a caller and as one.
    let thief = Node::start(with(authority.issue(third.path(), &[name(3)], &[&authority])), identity(2, 9)).await;
    one.knows(2, thief.address());
    let refused = one.send_snapshot(2, &Made::new(2, 1 << 20), 1).unwrap().get().await.unwrap_err();
    assert!(refused.to_string().contains("certificate does not name node 2"), "{refused}");
    thief.knows(1, one.address());
    let refused = thief.send_snapshot(1, &Made::new(3, 1 << 20), 1).unwrap().get().await.unwrap_err();
    assert!(refused.to_string().contains("certificate does not name node 2"), "{refused}");
    assert!(thief.shelf().stored.lock().is_empty() && one.shelf().stored.lock().is_empty());
}
