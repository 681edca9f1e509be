//! Certificates: whose are believed, and that they say who acted.

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use super::hosts::{client_with, net};
use super::*;
use mainstay::net::{NetConfig, TlsConfig};

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn issue(&self, directory: &Path, name: &str, believed: &Authority) -> TlsConfig {
        use std::os::unix::fs::PermissionsExt;
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &self.0).unwrap();
        let at = |kind: &str| directory.join(format!("{name}.{kind}"));
        let config = TlsConfig::new(at("certificate.pem"), at("key.pem"), at("authorities.pem"));
        std::fs::write(&config.authorities, believed.0.pem()).unwrap();
        std::fs::write(&config.certificate, certificate.pem()).unwrap();
        std::fs::write(&config.key, key.serialize_pem()).unwrap();
        std::fs::set_permissions(&config.key, std::fs::Permissions::from_mode(0o600)).unwrap();
        config
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_certificates_of_the_authority_are_taken_and_they_say_who_acted() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let group = Moody::new();
    let server = NetConfig { tls: Some(ours.issue(folder.path(), "node.example", &ours)), ..net() };
    let host = Host::start_with(Arc::clone(&group) as _, server).await;

    let good = ours.issue(folder.path(), "ann.example", &ours);
    let meta = client_with([&host], Some(good)).meta("ann");
    form(&meta).await;
    meta.acting("", "").settings().set("kv.max_leases", "5").await.unwrap();
    let events = meta.events().list(0, 0).await.unwrap();
    let actors: Vec<_> = events.iter().map(|event| event.actor.as_str()).collect();
    assert_eq!(actors, ["ann (ann.example)", "ann (ann.example)", "ann.example"]);

    // The node is not believed; the node does not believe. Neither is worth waiting for.
    let sceptic = ours.issue(folder.path(), "sceptic.example", &theirs);
    let stranger = theirs.issue(folder.path(), "stranger.example", &ours);
    for wrong in [sceptic, stranger] {
        let begun = Instant::now();
        let error = client_with([&host], Some(wrong)).meta("eve").within(PATIENCE).kv().get("a").await.unwrap_err();
        assert!(matches!(error, MetaError::Net(_)), "{error}");
        assert!(error.to_string().contains("ertificate") || error.to_string().contains("UnknownCA"), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    }
    // Without TLS there is no answer at all.
    let plain = client_with([&host], None).meta("eve").within(Duration::from_secs(1)).kv().get("a").await;
    assert!(matches!(plain, Err(MetaError::Unavailable { .. })), "{plain:?}");
}
