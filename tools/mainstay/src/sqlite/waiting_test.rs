//! Whoever waits for the writer is heard, and hears in time, whatever the writer does meanwhile.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mainstay::engine::Engine;
use mainstay::server::pg::Interrupt;

use super::test_support::{Client, Database};

/// A statement for the clerk that takes any time, and no space.
const ENDLESS: &str = "INSERT INTO t SELECT i FROM \
    (WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n) WHERE i < 0";
const HASTE: Duration = Duration::from_millis(100);
/// Anything that takes longer is a failure.
const LIMIT: Duration = Duration::from_secs(30);

fn with_table() -> Database {
    let database = Database::new();
    database.session().ok("CREATE TABLE t (a)");
    database
}

/// A client that waits for the writer so long.
fn patient(database: &Database, lock_timeout: &str) -> Client {
    let mut client = database.session();
    client.ok(&format!("SET lock_timeout = '{lock_timeout}'"));
    client
}

/// Two that wait no longer than [`HASTE`]: with a statement by itself, and in a block.
fn hasty(database: &Database) -> [Client; 2] {
    let (mut single, mut block) = (patient(database, "100ms"), patient(database, "100ms"));
    single.begin("INSERT INTO t VALUES ('single')");
    block.ok("BEGIN");
    block.begin("INSERT INTO t VALUES ('block')");
    [single, block]
}

/// Stops what would else go on when the test ends early.
struct Stop(Arc<dyn Interrupt>);

impl Stop {
    fn of(client: &Client) -> Stop {
        Stop(client.0.interrupter())
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.interrupt();
    }
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < LIMIT, "{what}");
        std::thread::yield_now();
    }
}

/// Waits until so many wait for the writer at most.
fn until_waiting(database: &Database, at_most: usize) {
    until("the queue does not move", || database.engine.shared.turnstile.waiting() <= at_most);
}

#[test]
fn a_longer_timeout_ahead_holds_nobody_up() {
    let database = with_table();
    let mut holder = database.session();
    holder.ok("BEGIN; INSERT INTO t VALUES ('holder')");
    let (mut any_time, mut long) = (patient(&database, "0"), patient(&database, "60s"));
    any_time.begin("INSERT INTO t VALUES ('any time')");
    long.ok("BEGIN");
    long.begin("INSERT INTO t VALUES ('long')");
    let begun = Instant::now();
    let mut hasty = hasty(&database);
    assert_eq!(hasty.each_mut().map(Client::told), ["55P03", "55P03"]);
    assert!(begun.elapsed() >= HASTE);
    holder.ok("COMMIT");
    assert_eq!((any_time.told(), long.told()), ("INSERT 0 1".into(), "INSERT 0 1".into()));
    long.ok("COMMIT");
    assert_eq!(any_time.rows("SELECT a FROM t"), [["holder"], ["any time"], ["long"]]);
}

#[test]
fn a_statement_that_runs_holds_no_timeout_up() {
    let database = with_table();
    for begin in ["SELECT 1", "BEGIN; INSERT INTO t VALUES (1)"] {
        let mut long = patient(&database, "60s");
        long.ok(begin);
        long.begin(ENDLESS);
        let stop = Stop::of(&long);
        until_waiting(&database, 0);
        let begun = Instant::now();
        let mut hasty = hasty(&database);
        assert_eq!(hasty.each_mut().map(Client::told), ["55P03", "55P03"], "{begin}");
        assert!(begun.elapsed() >= HASTE);
        drop(stop);
        assert_eq!(long.told(), "57014");
        long.ok("ROLLBACK");
    }
    assert_eq!(database.session().rows("SELECT count(*) FROM t"), [["0"]]);
}

#[test]
fn a_long_statement_of_a_group_holds_nobody_behind_it() {
    let database = with_table();
    let mut holder = database.session();
    holder.ok("BEGIN; INSERT INTO t VALUES ('holder')");
    let mut group: [Client; 4] = std::array::from_fn(|_| patient(&database, "60s"));
    let [first, long, cancelled, last] = &mut group;
    first.begin("INSERT INTO t VALUES ('first')");
    long.begin(ENDLESS);
    cancelled.begin("INSERT INTO t VALUES ('cancelled')");
    last.begin("INSERT INTO t VALUES ('last')");
    let mut late = patient(&database, "2s");
    late.begin("INSERT INTO t VALUES ('late')");
    let begun = Instant::now();
    let stop = Stop::of(long);
    let before = database.records().len();
    holder.ok("COMMIT");
    until_waiting(&database, 3);
    cancelled.0.interrupter().interrupt();
    assert_eq!(cancelled.told(), "57014");
    assert!(begun.elapsed() < Duration::from_secs(2), "the test took too long to see anything");
    assert_eq!(late.told(), "55P03");
    assert_eq!(database.engine.shared.turnstile.waiting(), 1, "the last, behind the one that runs");
    drop(stop);
    assert_eq!(long.told(), "57014");
    assert_eq!((first.told(), last.told()), ("INSERT 0 1".into(), "INSERT 0 1".into()));
    assert_eq!(database.records().len() - before, 2, "the holder's, and one for the rest of the group");
    assert_eq!(first.rows("SELECT a FROM t"), [["holder"], ["first"], ["last"]]);
    database.assert_replays();
}

#[test]
fn a_demotion_is_told_as_one() {
    for sql in [&[ENDLESS][..], &["INSERT INTO t VALUES (1)", ENDLESS, "INSERT INTO t VALUES (2)"]] {
        let database = with_table();
        let mut holder = database.session();
        holder.ok("BEGIN; INSERT INTO t VALUES ('holder')");
        let mut clients: Vec<Client> = sql.iter().map(|_| database.session()).collect();
        clients.iter_mut().zip(sql).for_each(|(client, sql)| client.begin(sql));
        holder.ok("COMMIT");
        until_waiting(&database, sql.len().saturating_sub(2));
        database.engine.demote();
        for client in &mut clients {
            assert_eq!(client.told(), "25006");
        }
    }
    let database = with_table();
    let mut client = database.session();
    client.ok("BEGIN; INSERT INTO t VALUES (1)");
    client.begin(ENDLESS);
    database.engine.demote();
    assert_eq!(client.told(), "25006");
}

#[test]
fn a_demotion_is_told_as_one_on_a_thread() {
    let database = with_table();
    let mut client = database.session();
    let endless = format!("CREATE TABLE u AS {}", ENDLESS.trim_start_matches("INSERT INTO t "));
    let thread = std::thread::spawn(move || client.fails(&endless));
    let mut other = patient(&database, "1ms");
    until("nobody has the writer", || other.run("INSERT INTO t VALUES (1)").is_err());
    database.engine.demote();
    assert_eq!(thread.join().unwrap(), "25006");
}
