//! TLS between nodes, and towards operators.

use crate::nodes::*;
use crate::support::certificates::Secrets;
use crate::support::{LIMIT, Output, eventually, mainstay, run};

#[test]
fn nodes_and_operators_show_certificates_of_the_authority_and_remember_where_they_are() {
    let (place, secrets, stranger) = (Place::new(), Secrets::new(""), Secrets::new(""));
    let file = |secrets: &Secrets, name: &str| secrets.path(name).to_str().unwrap().to_owned();
    let of = |secrets: &Secrets| ["root.pem", "server.pem", "server.key"].map(|name| file(secrets, name));
    let ask = |secrets: Option<&Secrets>, arguments: &[&str]| -> Output {
        let mut command = mainstay();
        command.args(arguments).args(["--timeout", "5s"]);
        if let Some(secrets) = secrets {
            let [root, certificate, key] = of(secrets);
            command.args(["--tls-authorities", &root, "--tls-certificate", &certificate, "--tls-key", &key]);
        }
        run(&mut command)
    };
    let [root, certificate, key] = of(&secrets);
    let tls = [
        "--cluster-tls-authorities",
        root.as_str(),
        "--cluster-tls-certificate",
        certificate.as_str(),
        "--cluster-tls-key",
        key.as_str(),
    ];
    let mut a = place.start("a", &[&["--cluster-listen", "127.0.0.1:0"], tls.as_slice()].concat());
    let address = a.waiting();
    let init = ["cluster", "init", "--addr", &address];
    assert_ne!(ask(None, &init).code, Some(0), "without a certificate");
    assert_ne!(ask(Some(&stranger), &init).code, Some(0), "with one of another authority");
    let formed = ask(Some(&secrets), &init);
    assert_eq!(formed.code, Some(0), "{formed:?}");
    a.ready();
    let token = ask(Some(&secrets), &["cluster", "token", "create", "--addr", &address]);
    assert_eq!(token.code, Some(0), "{token:?}");
    let arguments = [&["--cluster-listen", "127.0.0.1:0", "--join", &address], tls.as_slice()].concat();
    let mut b = place.start_with_token("b", &arguments, token.stdout.trim());
    b.ready();
    let other = b.cluster.clone();
    let settled = || {
        eventually("both are members that keep up", LIMIT, || {
            let status = ask(Some(&secrets), &["status", "--addr", &other]);
            status.code == Some(0) && status.stdout.matches("active").count() == 2
        });
    };
    settled();
    assert_eq!(a.stop().code, Some(0));
    assert_eq!(b.stop().code, Some(0));
    let mut nodes = ["a", "b"].map(|name| place.start(name, &[]));
    nodes.iter_mut().for_each(Node::ready);
    assert_eq!(nodes[1].cluster, other);
    settled();
}
