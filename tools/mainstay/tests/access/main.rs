//! Passwords, TLS and limits, as psql, psycopg and tokio-postgres meet them.

mod limits;
mod stopping;
#[path = "../support/mod.rs"]
mod support;

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use limits::{asked, sasl_initial};
use mainstay::server::pg::{Verifier, users_line};
use support::certificates::{Authority, Secrets, write};
use support::programs::{psql_at, python_with};
use support::raw::message;
use support::{LIMIT, Output, Running, Starting, eventually, mainstay, one_clear_line, refused, run, runtime};
use tokio_postgres::NoTls;

pub const PASSWORD: &str = "correct horse";

/// The superuser `postgres` and the users `ann` and `ben`, all with one password; `ben`'s is in plain text.
fn users() -> String {
    let line = |name, superuser| users_line(name, &Verifier::new(PASSWORD).unwrap(), superuser);
    format!("{}\n{}\n\"ben\" \"{PASSWORD}\"\n", line("postgres", true), line("ann", false))
}

pub struct Rig {
    pub secrets: Secrets,
    pub node: Running,
    pub data: tempfile::TempDir,
}

impl Rig {
    pub fn start(flags: impl FnOnce(&Secrets) -> Vec<String>) -> Rig {
        let (secrets, data) = (Secrets::new(&users()), tempfile::tempdir().unwrap());
        let flags = flags(&secrets);
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let node = Running::start(&data.path().join("data"), &flags);
        Rig { secrets, node, data }
    }

    /// A connection string for libpq.
    pub fn libpq(&self, user: &str, more: &str) -> String {
        format!("host=localhost port={} user={user} dbname=postgres {more}", self.node.port())
    }

    /// Like [`libpq`](Rig::libpq), and checks the server's certificate.
    pub fn verified(&self, user: &str, more: &str) -> String {
        self.libpq(user, &format!("sslmode=verify-full sslrootcert={} {more}", self.secrets.text("root.pem")))
    }
}

/// What psql printed; it must have succeeded.
pub fn prints(connection: &str, password: Option<&str>, sql: &str) -> String {
    let output = psql_at(connection, password, sql);
    assert_eq!((output.code, output.stderr.as_str()), (Some(0), ""), "{connection}: {output:?}");
    output.stdout
}

/// What psql said when it could not connect.
pub fn fails(connection: &str, password: Option<&str>) -> String {
    let Output { code, stdout, stderr } = psql_at(connection, password, "SELECT 1");
    assert_eq!((code, stdout.as_str()), (Some(2), ""), "{connection}: {stderr}");
    stderr
}

pub fn with(flags: Vec<String>, more: &[&str]) -> Vec<String> {
    flags.into_iter().chain(more.iter().map(|flag| (*flag).to_owned())).collect()
}

#[test]
fn passwords_are_asked_for_and_checked() {
    let rig = Rig::start(Secrets::passwords);
    for user in ["postgres", "ann", "ben"] {
        assert_eq!(prints(&rig.libpq(user, ""), Some(PASSWORD), "SELECT 7"), "7\n");
    }
    let said = |user: &str, password: &str| fails(&rig.libpq(user, ""), Some(password)).replace(user, "USER");
    let wrong = said("ann", "wrong");
    assert!(wrong.contains("FATAL:  password authentication failed for user \"USER\""), "{wrong}");
    assert_eq!(said("ben", &PASSWORD.to_uppercase()), wrong);
    assert_eq!(said("nobody", PASSWORD), wrong, "nobody learns who exists");
    assert!(fails(&rig.libpq("ann", ""), None).contains("no password supplied"));

    let connect = |user: &str, password: &str| {
        let port = rig.node.port();
        let settings = format!("host=127.0.0.1 port={port} user={user} dbname=postgres password='{password}'");
        runtime().block_on(async move {
            let (client, connection) = tokio_postgres::connect(&settings, NoTls).await?;
            let superuser = connection.parameter("is_superuser").unwrap().to_owned();
            tokio::spawn(connection);
            client.batch_execute("CREATE TABLE IF NOT EXISTS t (a)").await.map(|()| superuser)
        })
    };
    assert_eq!(connect("postgres", PASSWORD).unwrap(), "on");
    assert_eq!(connect("ann", PASSWORD).unwrap(), "off");
    assert_eq!(connect("ann", "wrong").unwrap_err().code().unwrap().code(), "28P01");
    python_with(
        &rig.libpq("ann", "password=wrong"),
        &format!(
            "try:\n    psycopg.connect(dsn)\n    raise SystemExit('let in')\nexcept psycopg.OperationalError as e:\n    \
             assert 'password authentication failed' in str(e), e\n\
             with psycopg.connect(dsn, password={PASSWORD:?}) as c:\n    assert c.execute('select 7').fetchone() == (7,)"
        ),
    );
}

#[test]
fn users_come_and_go_while_the_node_runs() {
    let rig = Rig::start(Secrets::passwords);
    let command = |name: &str, flags: &[&str], password: &str| {
        let mut command = mainstay();
        let mut process = command.args(["user", name]).args(flags).stdin(Stdio::piped()).spawn().unwrap();
        process.stdin.take().unwrap().write_all(password.as_bytes()).unwrap();
        process.wait_with_output().unwrap()
    };
    let made = command("eve \"q\"", &["--superuser"], "pass word\n");
    let line = String::from_utf8(made.stdout).unwrap();
    assert!(made.status.success() && line.starts_with("\"eve \"\"q\"\"\" \"SCRAM-SHA-256$4096:"), "{line}");
    assert!(line.ends_with("\" superuser\n") && !line.contains("pass word"), "{line}");
    for (name, password, what) in [("eve", "\n", "password is empty"), ("", "x\n", "name is empty")] {
        let refused = command(name, &[], password);
        let said = String::from_utf8(refused.stderr).unwrap();
        assert!(refused.status.code() == Some(1) && said.contains(what), "{said}");
    }
    assert_eq!(run(mainstay().args(["user", "eve", "password"])).code, Some(2), "passwords are no arguments");

    let eve = rig.libpq("'eve \"q\"'", "");
    assert!(fails(&eve, Some("pass word")).contains("password authentication failed"));
    write(&rig.secrets.path("users"), &line);
    eventually("the new user is let in", LIMIT, || psql_at(&eve, Some("pass word"), "SELECT 1").code == Some(0));
    assert!(fails(&rig.libpq("ann", ""), Some(PASSWORD)).contains("password authentication failed"));
    // What cannot be understood changes nothing.
    write(&rig.secrets.path("users"), "no line of a user");
    std::thread::sleep(Duration::from_millis(1100));
    prints(&eve, Some("pass word"), "SELECT 1");
    assert!(rig.node.kill().contains("changed files cannot be used; the old ones stay in use"));
}

#[test]
fn users_are_listed_as_roles_without_their_secrets() {
    let rig = Rig::start(Secrets::passwords);
    let ann = rig.libpq("ann", "");
    let told = prints(&ann, Some(PASSWORD), "\\du");
    let line =
        |name: &str| told.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}: {told}"));
    assert!(line("postgres").contains("Superuser") && !line("postgres").contains("Cannot login"), "{told}");
    assert!(!line("ann").contains("Superuser") && !line("ben").contains("Superuser"), "{told}");
    let all = "SELECT rolname, oid, rolsuper, rolcanlogin, rolpassword FROM pg_roles ORDER BY 1";
    let before = prints(&ann, Some(PASSWORD), all);
    assert!(before.contains("postgres|10|t|t|********\n"), "{before}");
    let text = std::fs::read_to_string(rig.secrets.path("users")).unwrap();
    let secrets = text.lines().map(|line| line.split('"').nth(3).unwrap());
    for secret in secrets.flat_map(|secret| secret.split(['$', ':']).filter(|part| part.len() > 8)) {
        assert!(secret == "SCRAM-SHA-256" || !before.contains(secret), "{secret}: {before}");
    }
    let shown = "SELECT usename FROM pg_user WHERE passwd <> '********' OR usename = current_user";
    assert_eq!(prints(&ann, Some(PASSWORD), shown), "ann\n");
    let own = "SELECT r.rolname FROM pg_stat_activity a JOIN pg_roles r ON r.oid = a.usesysid";
    assert_eq!(prints(&ann, Some(PASSWORD), own), "ann\n");

    // Without the owner, and with somebody new: who stays keeps his number.
    let line = |name| users_line(name, &Verifier::new(PASSWORD).unwrap(), false);
    write(&rig.secrets.path("users"), &format!("{}\n{}\n", line("zoe"), line("ann")));
    let roles = || prints(&ann, Some(PASSWORD), all);
    eventually("the users are read again", LIMIT, || roles().contains("zoe"));
    let after = roles();
    assert!(after.contains("postgres|10|t|f|********\n") && !after.contains("ben"), "{after}");
    let of_ann = |told: &str| told.lines().find(|line| line.starts_with("ann|")).unwrap().to_owned();
    assert_eq!(of_ann(&after), of_ann(&before));
    assert_eq!(prints(&ann, Some(PASSWORD), "SELECT count(*) FROM pg_user"), "2\n");
}

#[test]
fn a_terminal_does_not_show_the_password() {
    let program = env!("CARGO_BIN_EXE_mainstay");
    let script = format!(
        "import os, pty\n\
         pid, terminal = pty.fork()\n\
         if pid == 0:\n    os.execv({program:?}, ['mainstay', 'user', 'eve'])\n\
         seen = b''\n\
         for question in (b'Password: ', b'Again: '):\n    \
             while question not in seen: seen += os.read(terminal, 1000)\n    \
             os.write(terminal, b'hidden words\\n')\n\
         try:\n    \
             while True: seen += os.read(terminal, 1000)\n\
         except OSError: pass\n\
         assert b'hidden' not in seen, seen\n\
         assert b'\"eve\" \"SCRAM-SHA-256$' in seen, seen\n\
         assert os.waitpid(pid, 0)[1] == 0"
    );
    python_with("", &script);
}

#[test]
fn plain_passwords_in_a_file_that_others_can_read_are_refused_in_words() {
    use std::os::unix::fs::PermissionsExt;
    let (secrets, data) = (Secrets::new(&users()), tempfile::tempdir().unwrap());
    std::fs::set_permissions(secrets.path("users"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let said = refused(&data.path().join("data"), &["--sql-users-file", &secrets.text("users")]);
    assert!(said.contains("line 3: a password in plain text, in a file that others can read"), "{said}");
    assert!(said.contains("mode is 644, not 600") && !said.contains(PASSWORD), "{said}");
    let said = refused(&data.path().join("data"), &["--sql-users-file", "/nowhere/users"]);
    assert!(said.contains("/nowhere/users: cannot be read"), "{said}");
    let key = ["--sql-tls-certificate", &secrets.text("server.pem"), "--sql-tls-key", &secrets.text("server.key")];
    std::fs::set_permissions(secrets.path("server.key"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let said = refused(&data.path().join("data"), &key);
    assert!(said.contains("private key that others can read"), "{said}");
}

#[test]
fn tls_in_every_sslmode() {
    let rig = Rig::start(Secrets::passwords_and_tls);
    let seven = |connection: &str| assert_eq!(prints(connection, Some(PASSWORD), "SELECT 7"), "7\n");
    for mode in ["disable", "allow", "prefer", "require"] {
        seven(&rig.libpq("ann", &format!("sslmode={mode}")));
    }
    seven(&rig.verified("ann", ""));
    seven(&rig.verified("ann", "channel_binding=require"));
    seven(&rig.verified("ann", "channel_binding=disable"));
    seven(&rig.verified("ann", "ssl_max_protocol_version=TLSv1.2 channel_binding=require"));
    let info = prints(&rig.verified("ann", "channel_binding=require"), Some(PASSWORD), "\\conninfo");
    assert!(info.contains("SSL connection (protocol: TLSv1.3"), "{info}");
    let info = prints(&rig.libpq("ann", "sslmode=disable"), Some(PASSWORD), "\\conninfo");
    assert!(!info.contains("SSL"), "{info}");

    let elsewhere = rig.verified("ann", "").replace("host=localhost", "host=127.0.0.2");
    // Loopback is the whole of 127/8, but the certificate names one address of it.
    let node = rig.secrets.passwords_and_tls();
    let flags: Vec<&str> = node.iter().map(String::as_str).collect();
    let data = tempfile::tempdir().unwrap();
    let other = Starting::launch_at("127.0.0.2:0", &data.path().join("data"), &flags).ready().unwrap();
    let elsewhere = elsewhere.replace(&format!("port={}", rig.node.port()), &format!("port={}", other.port()));
    let said = fails(&elsewhere, Some(PASSWORD));
    assert!(said.contains("does not match host name"), "{said}");
    seven(&elsewhere.replace("verify-full", "verify-ca"));

    let stranger = rig.secrets.path("stranger.pem");
    Authority::new().write(&stranger);
    let said =
        fails(&rig.libpq("ann", &format!("sslmode=verify-ca sslrootcert={}", stranger.display())), Some(PASSWORD));
    assert!(said.contains("certificate verify failed"), "{said}");
    let said = fails(&rig.verified("ann", ""), Some("wrong"));
    assert!(said.contains("password authentication failed"), "{said}");
}

#[test]
fn tls_for_psycopg_and_tokio_postgres() {
    let rig = Rig::start(Secrets::passwords_and_tls);
    python_with(
        &rig.verified("ann", &format!("password='{PASSWORD}' channel_binding=require")),
        "for more in ({}, {'sslnegotiation': 'direct'}):\n    \
             with psycopg.connect(dsn, **more) as c:\n        \
                 assert c.pgconn.ssl_in_use, more\n        \
                 assert len(c.execute(\"select printf('%.3000000c', 'x')\").fetchone()[0]) == 3000000\n        \
                 assert c.execute('select length(%s)', ['y' * 2000000]).fetchone() == (2000000,)\n        \
                 c.execute('create table if not exists t (a)')\n        \
                 with c.cursor().copy('copy t from stdin') as copy:\n            \
                     for n in range(100000): copy.write_row([n])\n        \
                 assert c.execute('select count(*) from t').fetchone() == (100000,)\n        \
                 with c.cursor().copy('copy t to stdout') as copy:\n            \
                     assert sum(1 for row in copy.rows()) == 100000\n        \
                 c.rollback()",
    );
    let tls = rig.secrets.tls();
    for negotiation in ["postgres", "direct"] {
        let settings =
            rig.libpq("ann", &format!("sslmode=require channel_binding=require sslnegotiation={negotiation}"));
        runtime().block_on(async {
            let mut settings: tokio_postgres::Config = settings.parse().unwrap();
            let (client, connection) = settings.password(PASSWORD).connect(tls.clone()).await.unwrap();
            let connection = tokio::spawn(connection);
            let wide = client.query_one("SELECT printf('%.3000000c', 'x')", &[]).await.unwrap();
            assert_eq!(wide.get::<_, &str>(0).len(), 3_000_000);
            drop(client);
            connection.await.unwrap().unwrap();
        });
    }
}

#[test]
fn certificates_are_renewed_while_the_node_runs() {
    let rig = Rig::start(Secrets::passwords_and_tls);
    let old_root = rig.secrets.path("old.pem");
    std::fs::copy(rig.secrets.path("root.pem"), &old_root).unwrap();
    let mut old = rig.verified("ann", "").replace("root.pem", "old.pem");
    old.push_str(" channel_binding=require");
    prints(&old, Some(PASSWORD), "SELECT 1");
    let authority = Authority::new();
    authority.write(&rig.secrets.path("root.pem"));
    // One file after the other, as an operator's tools do it.
    authority.certify(&["localhost"], &rig.secrets.path("server.pem"), &rig.secrets.path("server.key"));
    let new = rig.verified("ann", "channel_binding=require");
    eventually("the new certificate is shown", LIMIT, || psql_at(&new, Some(PASSWORD), "SELECT 1").code == Some(0));
    assert!(fails(&old, Some(PASSWORD)).contains("certificate verify failed"));
}

#[test]
fn clients_show_certificates_where_they_are_asked_for() {
    let rig = Rig::start(|secrets| {
        secrets.authority.certify(&["ann"], &secrets.path("ann.pem"), &secrets.path("ann.key"));
        Authority::new().certify(&["ann"], &secrets.path("stranger.pem"), &secrets.path("stranger.key"));
        with(secrets.passwords_and_tls(), &["--sql-tls-client-authorities", &secrets.text("root.pem")])
    });
    let shows = |name: &str| {
        let (certificate, key) = (format!("{name}.pem"), format!("{name}.key"));
        rig.verified("ann", &format!("sslcert={} sslkey={}", rig.secrets.text(&certificate), rig.secrets.text(&key)))
    };
    assert_eq!(prints(&shows("ann"), Some(PASSWORD), "SELECT 7"), "7\n");
    assert!(fails(&shows("ann"), Some("wrong")).contains("password authentication failed"), "both are needed");
    assert!(fails(&rig.verified("ann", ""), Some(PASSWORD)).contains("certificate required"));
    let said = fails(&shows("stranger"), Some(PASSWORD));
    assert!(said.contains("alert"), "{said}");
    let said = fails(&rig.libpq("ann", "sslmode=disable"), Some(PASSWORD));
    assert!(said.contains("FATAL:  connections without TLS are refused: clients have to show"), "{said}");
}

/// A node that asks for certificates, and what of them matters to it.
fn with_certificates(what: &str) -> Rig {
    Rig::start(|secrets| {
        for name in ["ann", "postgres", "nobody"] {
            let (certificate, key) = (secrets.path(&format!("{name}.pem")), secrets.path(&format!("{name}.key")));
            secrets.authority.certify_user(name, &certificate, &key);
        }
        // It names her where PostgreSQL does not look.
        secrets.authority.certify(&["ann"], &secrets.path("other.pem"), &secrets.path("other.key"));
        Authority::new().certify_user("ann", &secrets.path("stranger.pem"), &secrets.path("stranger.key"));
        let root = secrets.text("root.pem");
        let more = ["--sql-tls-client-authorities", &root, "--sql-tls-client-certificates", what];
        with(secrets.passwords_and_tls(), &more)
    })
}

impl Rig {
    /// How to connect as a user with the certificate of that name.
    fn certified(&self, user: &str, name: &str) -> String {
        let (certificate, key) = (self.secrets.text(&format!("{name}.pem")), self.secrets.text(&format!("{name}.key")));
        self.verified(user, &format!("sslcert={certificate} sslkey={key}"))
    }
}

#[test]
fn a_certificate_is_the_users_password_where_it_is_enough() {
    let rig = with_certificates("cert");
    assert_eq!(prints(&rig.certified("ann", "ann"), None, "SELECT 7"), "7\n");
    let script =
        "import psycopg\nwith psycopg.connect(dsn) as c:\n    assert c.info.parameter_status('is_superuser') == ";
    python_with(&rig.certified("postgres", "postgres"), &format!("{script}'on'"));
    python_with(&rig.certified("ann", "ann"), &format!("{script}'off'"));
    for (user, certificate) in
        [("postgres", "ann"), ("ben", "ann"), ("nobody", "nobody"), ("ann", "other"), ("Ann", "ann")]
    {
        // Not with the password either.
        let said = fails(&rig.certified(user, certificate), Some(PASSWORD));
        let expected = format!("FATAL:  certificate authentication failed for user \"{user}\"");
        assert!(said.contains(&expected), "{user} {certificate}: {said}");
    }
    assert!(fails(&rig.certified("ann", "stranger"), None).contains("alert"));
    assert!(fails(&rig.verified("ann", ""), Some(PASSWORD)).contains("certificate required"));
    let said = fails(&rig.libpq("ann", "sslmode=disable"), Some(PASSWORD));
    assert!(said.contains("clients have to show a certificate"), "{said}");
    // Who is taken from the file is not let in any more.
    write(&rig.secrets.path("users"), &users_line("postgres", &Verifier::new(PASSWORD).unwrap(), true));
    let ann = rig.certified("ann", "ann");
    eventually("a user is gone", LIMIT, || psql_at(&ann, None, "SELECT 1").code == Some(2));
}

#[test]
fn a_certificate_and_a_password_of_one_user_where_both_are_asked_for() {
    let rig = with_certificates("verify-full");
    assert_eq!(prints(&rig.certified("ann", "ann"), Some(PASSWORD), "SELECT 7"), "7\n");
    assert!(fails(&rig.certified("ann", "ann"), Some("wrong")).contains("password authentication failed"));
    let said = fails(&rig.certified("ann", "postgres"), Some(PASSWORD));
    assert!(said.contains("certificate authentication failed for user \"ann\""), "{said}");
}

/// An address of this machine that is not a loopback address, if it has one.
fn own_address() -> Option<Ipv4Addr> {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    // Nothing is sent.
    socket.connect("192.0.2.1:9").ok()?;
    match socket.local_addr().unwrap() {
        SocketAddr::V4(address) if !address.ip().is_loopback() => Some(*address.ip()),
        _ => None,
    }
}

#[test]
fn beyond_loopback_there_are_passwords_and_tls_or_nothing() {
    let (secrets, data) = (Secrets::new(&users()), tempfile::tempdir().unwrap());
    let start = |flags: &[String]| {
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        Starting::launch_at("0.0.0.0:0", &data.path().join("data"), &flags).ready()
    };
    let said = one_clear_line(&start(&[]).err().unwrap());
    assert!(said.contains("0.0.0.0:0, needs passwords (users_file") && said.contains("and TLS (tls_cert"), "{said}");
    let said = one_clear_line(&start(&secrets.passwords()).err().unwrap());
    assert!(said.contains("needs TLS (") && !said.contains("passwords ("), "{said}");
    let Some(address) = own_address() else {
        println!("this machine has loopback addresses only; the rest is in the unit tests");
        return;
    };
    secrets.authority.certify(&[&address.to_string()], &secrets.path("server.pem"), &secrets.path("server.key"));
    let connection = |node: &Running, more: &str| {
        let root = secrets.text("root.pem");
        format!("host={address} port={} user=ann dbname=postgres sslrootcert={root} {more}", node.port())
    };
    let node = start(&secrets.passwords_and_tls()).unwrap();
    assert_eq!(prints(&connection(&node, "sslmode=verify-full"), Some(PASSWORD), "SELECT 7"), "7\n");
    let said = fails(&connection(&node, "sslmode=disable"), Some(PASSWORD));
    assert!(said.contains("connections without TLS are refused from other machines"), "{said}");
    node.kill();
    let node = start(&with(secrets.passwords(), &["--sql-allow-remote-plaintext", "true"])).unwrap();
    assert_eq!(prints(&connection(&node, "sslmode=disable"), Some(PASSWORD), "SELECT 7"), "7\n");
    node.kill();
    let allowed = ["--sql-allow-remote-plaintext", "true", "--sql-allow-remote-without-password", "true"];
    let node = start(&with(Vec::new(), &allowed)).unwrap();
    assert_eq!(prints(&connection(&node, "sslmode=disable user=postgres"), None, "SELECT 7"), "7\n");
}

#[test]
fn a_cancel_request_works_over_tls() {
    let rig = Rig::start(Secrets::passwords_and_tls);
    python_with(
        &rig.verified("ann", &format!("password='{PASSWORD}'")),
        "import threading\n\
         with psycopg.connect(dsn) as c:\n    \
             timer = threading.Timer(0.5, lambda: c.cancel_safe(timeout=10))\n    \
             timer.start()\n    \
             try:\n        \
                 c.execute('with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n')\n        \
                 raise SystemExit('not cancelled')\n    \
             except errors.QueryCanceled: pass\n    \
             timer.join()\n    \
             c.rollback()\n    \
             assert c.execute('select 7').fetchone() == (7,)",
    );
}

/// Every line of a file that is not a boundary.
fn base64_lines(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().filter(|line| !line.starts_with("--") && line.len() > 16).map(str::to_owned).collect()
}

#[test]
fn no_log_holds_a_secret() {
    let rig =
        Rig::start(|secrets| with(secrets.passwords_and_tls(), &["--log-level", "trace", "--log-format", "json"]));
    prints(&rig.verified("ann", "channel_binding=require"), Some(PASSWORD), "SELECT 7");
    prints(&rig.libpq("ben", "sslmode=disable"), Some(PASSWORD), "SELECT 7");
    fails(&rig.libpq("ann", "sslmode=disable"), Some("a wrong guess"));
    let mut raw = asked(&rig.node);
    raw.send(&sasl_initial("SCRAM-SHA-256", b"n,,n=,r=nonceofaclient")).unwrap();
    let (_, body) = raw.message().unwrap();
    let server_first = String::from_utf8(body[4..].to_vec()).unwrap();
    raw.send(&message(b'p', b"c=biws,r=nonceofaclient,p=cHJvb2ZvZmFjbGllbnQ=")).unwrap();
    raw.until_closed();
    let text = std::fs::read_to_string(rig.secrets.path("users")).unwrap();
    write(&rig.secrets.path("users"), &format!("{text}\n\"hunter\" \"another secret\" nonsense"));
    std::thread::sleep(Duration::from_millis(1100));
    prints(&rig.libpq("ben", ""), Some(PASSWORD), "SELECT 7");

    let mut secrets = vec![PASSWORD.to_owned(), "a wrong guess".to_owned(), "another secret".to_owned()];
    secrets.extend(["nonceofaclient", "cHJvb2ZvZmFjbGllbnQ"].map(str::to_owned));
    secrets.extend(server_first.split(',').take(2).map(|part| part[2..].to_owned()));
    let verifiers = text.split(['$', ':', '"']).filter(|part| part.len() > 20);
    secrets.extend(verifiers.map(str::to_owned));
    secrets.extend(base64_lines(&rig.secrets.path("server.key")));
    assert!(secrets.len() > 12, "{secrets:?}");
    let log = rig.node.stop("TERM").stderr;
    assert!(log.contains("\"level\":\"TRACE\"") || log.contains("\"level\":\"DEBUG\""), "it was not a whole log");
    assert!(log.contains("a login failed") && log.contains("changed files cannot be used"), "{log}");
    for secret in secrets {
        assert!(!log.contains(&secret), "the log holds {secret:?}");
    }
}
