//! What clients cost that are connected and do nothing, whatever they did before.

mod support;

use std::fs;

use support::certificates::Secrets;
use support::raw::Raw;
use support::{LIMIT, Running, eventually, runtime};

const CLIENTS: u64 = 1000;
const LIMIT_KIB: u64 = 64;
/// What leaves much behind on the connection that runs it: pages that were read, statements, room to sort in.
const LARGE: [&str; 4] = [
    "SELECT count(*), max(b) FROM large",
    "SELECT a FROM large ORDER BY b DESC, a LIMIT 3",
    "SELECT c.relname, a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid WHERE c.relname = 'large'",
    "SELECT * FROM large WHERE a = 1",
];

/// The anonymous resident memory of a node, in KiB.
fn memory_kib(node: &Running) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", node.id())).unwrap();
    let anonymous = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    anonymous.trim().strip_suffix(" kB").unwrap().parse().unwrap()
}

#[test]
fn a_thousand_idle_clients_cost_little() {
    let directory = tempfile::tempdir().unwrap();
    let limits = ["--sql-connection-limit", "1100"];
    let node = Running::start(&directory.path().join("data"), &limits);
    // So much that a connection of SQLite's keeps 2 MiB of it.
    node.rows(
        "CREATE TABLE t (a int PRIMARY KEY, b text); INSERT INTO t VALUES (1, 'x');
         CREATE TABLE large (a int PRIMARY KEY, b text);
         WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30000)
         INSERT INTO large SELECT i, printf('%0100d', i * 7919 % 30000) FROM n",
    );
    let before = memory_kib(&node);
    let mut clients: Vec<Raw> = (0..CLIENTS).map(|_| Raw::login(&node.address)).collect();
    let connected = memory_kib(&node);
    for client in &mut clients {
        client.query("SELECT * FROM t WHERE a = 1");
    }
    let used = memory_kib(&node);
    let each = |now: u64| now.saturating_sub(before) as f64 / CLIENTS as f64;
    println!("KiB for each idle client: {:.1}, after a query {:.1}", each(connected), each(used));
    assert!(each(connected) < LIMIT_KIB as f64);
    // Just used, a connection has a little more than when it rests.
    assert!(each(used) < 2.0 * LIMIT_KIB as f64);
    eventually("memory to be given back", LIMIT, || each(memory_kib(&node)) < LIMIT_KIB as f64);
    for client in &mut clients {
        for sql in LARGE {
            client.query(sql);
        }
    }
    let large = memory_kib(&node);
    eventually("memory to be given back", LIMIT, || each(memory_kib(&node)) < LIMIT_KIB as f64);
    println!("KiB for each after large queries: {:.1}, resting {:.1}", each(large), each(memory_kib(&node)));
    // Everybody is still there.
    for client in clients.iter_mut().rev().step_by(100) {
        assert_eq!(client.query("SELECT 7").len(), 4);
    }
}

#[test]
fn a_thousand_idle_clients_over_tls_cost_little() {
    let (secrets, directory) = (Secrets::new(""), tempfile::tempdir().unwrap());
    let flags = secrets.passwords_and_tls();
    let mut flags: Vec<&str> = flags.iter().skip(2).map(String::as_str).collect();
    flags.extend(["--sql-connection-limit", "1100"]);
    let node = Running::start(&directory.path().join("data"), &flags);
    node.rows("SELECT 1");
    let before = memory_kib(&node);
    let runtime = runtime();
    let clients: Vec<_> = (0..CLIENTS).map(|_| runtime.block_on(secrets.connect(&node))).collect();
    let connected = memory_kib(&node);
    let each = connected.saturating_sub(before) as f64 / CLIENTS as f64;
    println!("KiB for each idle client over TLS: {each:.1}");
    assert!(each < LIMIT_KIB as f64);
    drop(clients);
}
