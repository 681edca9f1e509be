//! A node that stops while clients work.

use tokio_postgres_rustls::MakeRustlsConnect;

use crate::support::certificates::Secrets;
use crate::support::{LIMIT, Running, runtime};
use crate::{PASSWORD, Rig, prints};

#[test]
fn sigterm_under_load_ends_every_client_in_words() {
    let rig = Rig::start(Secrets::passwords_and_tls);
    prints(&rig.libpq("ann", ""), Some(PASSWORD), "CREATE TABLE t (client int, number int)");
    let (address, tls) = (rig.node.address.clone(), rig.secrets.tls());
    let settings = move |user: &str| {
        let (host, port) = address.rsplit_once(':').unwrap();
        format!("host={host} port={port} user={user} dbname=postgres password='{PASSWORD}' sslmode=require")
    };
    let (started, running) = std::sync::mpsc::channel();
    let clients: Vec<_> = (0..12)
        .map(|client| {
            let (settings, tls, started) = (settings("ann"), tls.clone(), started.clone());
            std::thread::spawn(move || runtime().block_on(load_until_the_end(client, &settings, tls, &started)))
        })
        .collect();
    (0..12).for_each(|_| running.recv_timeout(LIMIT).unwrap());
    rig.node.signal("TERM");
    // Newcomers hear that they come too late, or that nobody listens any more.
    let late = runtime().block_on(async {
        loop {
            match tokio_postgres::connect(&settings("ann"), tls.clone()).await {
                Ok(_) => {}
                Err(error) => match error.code() {
                    Some(code) if code.code() == "57P01" => {}
                    code => break code.map(|code| code.code().to_owned()),
                },
            }
        }
    });
    println!("a newcomer heard {late:?}");
    assert!(late.is_none() || late.as_deref() == Some("57P03"), "{late:?}");
    let (mut acknowledged, mut states) = (0_u64, Vec::new());
    for client in clients {
        let (rows, state) = client.join().unwrap();
        acknowledged += rows;
        states.push(state);
    }
    println!("{acknowledged} rows were acknowledged; clients ended with {states:?}");
    assert!(states.iter().all(|state| state == "57P01"), "{states:?}");
    let Rig { node, secrets: _secrets, data } = rig;
    let output = node.ended();
    assert_eq!(output.code, Some(0), "{output:?}");
    let again = Running::start(&data.path().join("data"), &[]);
    let found: u64 = again.rows("SELECT count(*) FROM t")[0][0].parse().unwrap();
    // What was acknowledged is there; what was under way may be.
    assert!((acknowledged..=acknowledged + 12).contains(&found), "{found} of {acknowledged}");
}

/// Writes rows, or runs what never ends, until the node sends it away; answers how many rows were acknowledged, and with
/// what it was sent away.
async fn load_until_the_end(
    client: u64,
    settings: &str,
    tls: MakeRustlsConnect,
    started: &std::sync::mpsc::Sender<()>,
) -> (u64, String) {
    let (connected, connection) = tokio_postgres::connect(settings, tls).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut rows = 0;
    let error = loop {
        let sql = match client % 4 {
            0 if rows > 0 => {
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n".to_owned()
            }
            _ => format!("INSERT INTO t VALUES ({client}, {rows})"),
        };
        if rows == 1 {
            started.send(()).unwrap();
        }
        match connected.simple_query(&sql).await {
            Ok(_) => rows += 1,
            Err(error) => break error,
        }
    };
    if rows == 0 {
        panic!("nothing was written: {error:?}");
    }
    // A client that was told between two statements hears it from its connection.
    let said = match error.code() {
        Some(code) => Some(code.code().to_owned()),
        None => connection.await.unwrap().err().and_then(|error| error.code().map(|code| code.code().to_owned())),
    };
    (rows, said.unwrap_or_else(|| format!("{error:?}")))
}
