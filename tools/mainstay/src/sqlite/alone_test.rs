//! Statements that nobody came beside for a while, which run on the thread that asks.

use std::sync::Arc;

use mainstay::server::pg::{Reply, Scope, Started};
use mainstay::wal::{AppendError, CommitError};
use tokio::runtime::{Builder, Runtime};

use super::test_support::{Client, Database};

/// More turns than it takes until a statement counts as alone.
const MANY: usize = 40;

/// A runtime as the server's is: on others nothing may block.
fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).build().unwrap()
}

/// Whether a statement ran on this thread; it is waited for in any case.
#[track_caller]
fn runs_here(client: &mut Client, sql: &str) -> (bool, String) {
    match client.0.start(sql, &Arc::default(), Scope::Single, Reply::default()) {
        Started::Done(outcome, _) => (true, outcome.map_or_else(|error| error.state.0.to_owned(), |tag| tag.0)),
        Started::Elsewhere => (false, client.told()),
        Started::Blocks(_) => panic!("{sql} blocks"),
    }
}

/// A database with a table `t (a INTEGER PRIMARY KEY, b)`, and a client that is alone there.
fn alone() -> (Database, Client) {
    let database = Database::new();
    let mut client = database.session();
    client.ok("CREATE TABLE t (a INTEGER PRIMARY KEY, b UNIQUE); CREATE TABLE n (i)");
    let here = (0..MANY).position(|i| runs_here(&mut client, &format!("INSERT INTO n VALUES ({i})")).0);
    assert!(here.is_some_and(|first| first > 1), "{here:?}");
    (database, client)
}

fn here(told: &str) -> (bool, String) {
    (true, told.to_owned())
}

fn elsewhere(told: &str) -> (bool, String) {
    (false, told.to_owned())
}

#[test]
fn who_writes_alone_for_a_while_does_so_himself() {
    let runtime = runtime();
    let _guard = runtime.enter();
    let (database, mut client) = alone();
    let before = database.records().len();
    assert_eq!(runs_here(&mut client, "INSERT INTO t VALUES (1, 'x')"), here("INSERT 0 1"));
    assert_eq!(database.records().len(), before + 1);
    assert_eq!(runs_here(&mut client, "UPDATE t SET b = 'y'"), here("UPDATE 1"));
    // Others see it, and may be the next.
    let mut other = database.session();
    assert_eq!(other.rows("SELECT b FROM t"), [["y"]]);
    assert_eq!(runs_here(&mut other, "DELETE FROM t"), here("DELETE 1"));
    database.assert_replays();
}

#[test]
fn without_threads_for_it_nothing_runs_so() {
    let database = Database::new();
    let mut client = database.session();
    client.ok("CREATE TABLE n (i)");
    assert!((0..MANY).all(|_| !runs_here(&mut client, "INSERT INTO n VALUES (1)").0));
}

#[test]
fn what_fails_leaves_nothing() {
    let runtime = runtime();
    let _guard = runtime.enter();
    let (database, mut client) = alone();
    assert_eq!(runs_here(&mut client, "INSERT INTO t VALUES (1, 'x')"), here("INSERT 0 1"));
    let before = database.records().len();
    assert_eq!(runs_here(&mut client, "INSERT INTO t VALUES (2, 'new'), (3, 'x')"), here("23505"));
    assert_eq!(runs_here(&mut client, "INSERT OR ROLLBACK INTO t VALUES (2, 'new'), (3, 'x')"), here("23505"));
    database.log.0.lock().append_failures.push(AppendError::DiskFull);
    assert_eq!(runs_here(&mut client, "INSERT INTO t VALUES (4, 'full')"), here("53100"));
    assert_eq!(database.records().len(), before);
    assert_eq!(client.rows("SELECT a FROM t"), [["1"]]);
    assert_eq!(runs_here(&mut client, "INSERT INTO t VALUES (5, 'z')"), here("INSERT 0 1"));
    database.assert_replays();
    database.log.0.lock().commit_failure = Some(CommitError::Fenced);
    assert_eq!(runs_here(&mut client, "INSERT INTO t VALUES (6, 'unknown')"), here("08007"));
}

#[test]
fn what_takes_longer_than_a_moment_is_the_clerks_and_done_once() {
    let runtime = runtime();
    let _guard = runtime.enter();
    let (database, mut client) = alone();
    let before = database.records().len();
    let long = "INSERT INTO t WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50000) \
                SELECT i, i FROM n";
    assert_eq!(runs_here(&mut client, long), elsewhere("INSERT 0 50000"));
    assert_eq!(database.records().len(), before + 1);
    assert_eq!(client.rows("SELECT count(*) FROM t"), [["50000"]]);
    // Who is likely to be so again does not try at once.
    assert!(!runs_here(&mut client, "INSERT INTO n VALUES (1)").0);
    database.assert_replays();
}

#[test]
fn what_runs_at_the_clerk_can_be_cancelled_though_it_began_here() {
    let runtime = runtime();
    let _guard = runtime.enter();
    let (database, mut client) = alone();
    let endless = "INSERT INTO n WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n";
    client.begin(endless);
    let interrupter = client.0.interrupter();
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    // One interrupt may come before there is anything to interrupt.
    let thread = std::thread::spawn(move || {
        while !stopped.load(std::sync::atomic::Ordering::SeqCst) {
            interrupter.interrupt();
            std::thread::yield_now();
        }
    });
    assert_eq!(client.told(), "57014");
    stop.store(true, std::sync::atomic::Ordering::SeqCst);
    thread.join().unwrap();
    assert_eq!(client.rows("SELECT count(*) FROM n WHERE i > 1000"), [["0"]]);
    database.assert_replays();
}

#[test]
fn rows_that_do_not_fit_a_reply_are_returned_of_one_run() {
    let runtime = runtime();
    let _guard = runtime.enter();
    let (database, mut client) = alone();
    for row in 0..100 {
        client.ok(&format!("INSERT INTO t VALUES ({row}, '{row}{}')", "x".repeat(2000)));
    }
    let before = database.records().len();
    client.ok("INSERT INTO n SELECT b FROM t RETURNING i");
    assert_eq!(database.records().len(), before + 1);
    assert_eq!(client.rows("SELECT count(*) FROM n WHERE typeof(i) = 'text'"), [["100"]]);
    database.assert_replays();
}

#[test]
fn nobody_passes_who_has_the_turn_or_waits_for_it() {
    let runtime = runtime();
    let _guard = runtime.enter();
    let (database, mut client) = alone();
    let mut holder = database.session();
    holder.ok("BEGIN; INSERT INTO t VALUES (1, 'x')");
    client.begin("INSERT INTO t VALUES (2, 'y')");
    holder.ok("COMMIT");
    assert_eq!(client.told(), "INSERT 0 1");
    // Somebody else has written meanwhile, so it is not alone for now.
    assert!(!runs_here(&mut client, "INSERT INTO n VALUES (1)").0);
    database.assert_replays();
}
