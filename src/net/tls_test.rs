use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use super::*;
use crate::ident::{ClusterId, NodeId};
use crate::net::files::{FILE_LIMIT_BYTES, POLL_INTERVAL};
use crate::net::identity::node_name;

struct Files {
    directory: tempfile::TempDir,
    config: TlsConfig,
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
}

impl Files {
    fn new(names: &[String]) -> Files {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let config = TlsConfig::new(at("certificate.pem"), at("key.pem"), at("authorities.pem"));
        let files = Files { directory, config };
        files.renew(names);
        files
    }

    fn renew(&self, names: &[String]) {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &authority).unwrap();
        write(&self.config.authorities, &authority.pem());
        write(&self.config.certificate, &certificate.pem());
        write(&self.config.key, &key.serialize_pem());
    }

    fn refusal(&self) -> String {
        Tls::load(self.config.clone()).unwrap_err().to_string()
    }
}

/// Lets the next look at the files happen.
fn pass(tls: &Tls) {
    let mut state = tls.credentials.state.lock();
    state.looked_at = state.looked_at.checked_sub(2 * POLL_INTERVAL).unwrap();
}

#[test]
fn files_that_cannot_be_used_are_refused_with_their_path() {
    let files = Files::new(&[]);
    Tls::load(files.config.clone()).unwrap();
    let text = std::fs::read_to_string(&files.config.key).unwrap();
    write(&files.config.key, "no key");
    assert!(files.refusal().contains("key.pem: holds no private key"), "{}", files.refusal());
    write(&files.config.key, &text);
    write(&files.config.certificate, &text);
    assert!(files.refusal().contains("certificate.pem: holds no certificate"), "{}", files.refusal());
    std::fs::remove_file(&files.config.authorities).unwrap();
    files.renew(&[]);
    std::fs::remove_file(&files.config.authorities).unwrap();
    assert!(files.refusal().contains("authorities.pem"), "{}", files.refusal());
    let other = Files::new(&[]);
    files.renew(&[]);
    std::fs::copy(&other.config.key, &files.config.key).unwrap();
    assert!(matches!(Tls::load(files.config.clone()), Err(NetError::Tls(_))));
    let large = "x".repeat(usize::try_from(FILE_LIMIT_BYTES).unwrap() + 1);
    write(&files.config.authorities, &large);
    assert!(files.refusal().contains("is larger than"), "{}", files.refusal());
}

#[cfg(unix)]
#[test]
fn a_key_that_others_can_read_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let files = Files::new(&[]);
    for mode in [0o644, 0o604, 0o660] {
        std::fs::set_permissions(&files.config.key, std::fs::Permissions::from_mode(mode)).unwrap();
        assert!(files.refusal().contains("others can read"), "{mode:o}: {}", files.refusal());
    }
    std::fs::set_permissions(&files.config.key, std::fs::Permissions::from_mode(0o400)).unwrap();
    Tls::load(files.config.clone()).unwrap();
}

#[test]
fn changed_files_are_read_again_but_bad_ones_leave_the_old() {
    let files = Files::new(&[]);
    let tls = Tls::load(files.config.clone()).unwrap();
    let first = tls.current();
    pass(&tls);
    assert!(Arc::ptr_eq(&first, &tls.current()), "nothing changed");

    // Half of a renewal.
    let other = Files::new(&[]);
    std::fs::copy(&other.config.certificate, &files.config.certificate).unwrap();
    assert!(Arc::ptr_eq(&first, &tls.current()), "not looked at again so soon");
    pass(&tls);
    assert!(Arc::ptr_eq(&first, &tls.current()), "the key does not fit");

    std::fs::copy(&other.config.key, &files.config.key).unwrap();
    pass(&tls);
    let second = tls.current();
    assert!(!Arc::ptr_eq(&first, &second));

    std::fs::remove_file(&files.config.key).unwrap();
    pass(&tls);
    assert!(Arc::ptr_eq(&second, &tls.current()));
    drop(files.directory);
    pass(&tls);
    assert!(Arc::ptr_eq(&second, &tls.current()));
}

#[test]
fn certificates_speak_for_the_nodes_they_name() {
    let (cluster, node) = (ClusterId::new(7), NodeId::new(2));
    let certified = |names: &[String], required| {
        let files = Files::new(names);
        let tls = Tls::load(TlsConfig { require_node_names: required, ..files.config.clone() }).unwrap();
        tls.certified(Some(&certificates(&files.config.certificate).unwrap()))
    };
    let named = [node_name(cluster, node), "db2.example.com".to_owned()];
    assert_eq!(certified(&named, true), Some(Certified::Nodes(vec![(cluster, node)])));
    assert_eq!(certified(&named[1..], false), Some(Certified::Any));
    assert_eq!(certified(&named[1..], true), None);
    let files = Files::new(&[]);
    assert_eq!(Tls::load(files.config.clone()).unwrap().certified(None), None);
}

#[test]
fn keys_are_not_printed() {
    let files = Files::new(&[]);
    let text = std::fs::read_to_string(&files.config.key).unwrap();
    let secret = text.lines().nth(1).unwrap();
    let tls = Tls::load(files.config.clone()).unwrap();
    assert!(!format!("{tls:?}").contains(secret));
    write(&files.config.key, &text.replace("PRIVATE", "PUBLIC"));
    assert!(!files.refusal().contains(secret));
}
