//! The timeouts that sessions set, with PostgreSQL's names, units and SQLSTATEs.

mod support;

use std::time::{Duration, Instant};

use support::programs::{psql_at, python};
use support::raw::{Raw, message, query, sqlstate};
use support::{LIMIT, Running, connect, runtime};
use tokio_postgres::Client;

const ENDLESS: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";

fn node(arguments: &[&str]) -> (tempfile::TempDir, Running) {
    let directory = tempfile::tempdir().unwrap();
    let node = Running::start(&directory.path().join("data"), arguments);
    node.rows("CREATE TABLE t (a int)");
    (directory, node)
}

/// Runs SQL that must fail; answers the SQLSTATE and the message.
async fn error(client: &Client, sql: &str) -> (String, String) {
    let outcome = tokio::time::timeout(LIMIT, client.simple_query(sql)).await.expect("no answer");
    let error = outcome.expect_err(sql);
    let error = error.as_db_error().unwrap_or_else(|| panic!("{sql}: {error:?}"));
    (error.code().code().to_owned(), error.message().to_owned())
}

async fn show(client: &Client, name: &str) -> String {
    client.query_one(&format!("SHOW {name}"), &[]).await.unwrap().get(0)
}

fn statement_timeout() -> (String, String) {
    ("57014".to_owned(), "canceling statement due to statement timeout".to_owned())
}

fn lock_timeout() -> (String, String) {
    ("55P03".to_owned(), "canceling statement due to lock timeout".to_owned())
}

#[test]
fn a_statement_ends_when_its_time_has_run_out() {
    let (_directory, node) = node(&[]);
    runtime().block_on(async {
        let (client, writer) = (connect(&node.address).await, connect(&node.address).await);
        client.batch_execute("SET statement_timeout = '150ms'").await.unwrap();
        assert_eq!(error(&client, ENDLESS).await, statement_timeout());
        let refused = client.query(ENDLESS, &[]).await.unwrap_err();
        assert_eq!(refused.as_db_error().unwrap().message(), statement_timeout().1);
        // It holds for what writes, and for waiting to write.
        assert_eq!(error(&client, &format!("INSERT INTO t {ENDLESS}")).await, statement_timeout());
        writer.batch_execute("BEGIN; INSERT INTO t VALUES (1)").await.unwrap();
        assert_eq!(error(&client, "INSERT INTO t VALUES (2)").await, statement_timeout());
        assert_eq!(error(&client, "BEGIN; INSERT INTO t VALUES (2)").await, statement_timeout());
        assert_eq!(error(&client, "SELECT 1").await.0, "25P02");
        client.batch_execute("ROLLBACK; BEGIN").await.unwrap();
        assert_eq!(error(&client, "INSERT INTO t VALUES (2)").await, statement_timeout());
        client.batch_execute("ROLLBACK").await.unwrap();
        writer.batch_execute("ROLLBACK").await.unwrap();
        // Each statement of a string has its own time, from where it was set.
        client.batch_execute("SET statement_timeout = 0").await.unwrap();
        let slow = "SELECT length(hex(randomblob(20000000)))";
        let string = format!("SET statement_timeout = '20s'; {slow}; {slow}; SET statement_timeout = 200; {ENDLESS}");
        assert_eq!(error(&client, &string).await, statement_timeout());
        assert_eq!(show(&client, "statement_timeout").await, "0", "what failed set nothing");
        // A cancel is still one.
        let cancel = client.cancel_token();
        let (cancelled, _) = tokio::join!(error(&client, ENDLESS), async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            cancel.cancel_query(tokio_postgres::NoTls).await.unwrap();
        });
        assert_eq!(cancelled.1, "canceling statement due to user request");
        assert!(client.query("SELECT a FROM t", &[]).await.unwrap().is_empty());
    });
}

#[test]
fn a_timeout_never_meets_a_later_statement() {
    let (_directory, node) = node(&[]);
    runtime().block_on(async {
        let client = connect(&node.address).await;
        let (mut ended, mut finished) = (0, 0);
        for round in 0..200 {
            client.batch_execute("SET statement_timeout = 12").await.unwrap();
            let numbers = 2_000 * (round % 50);
            let counting = format!("SELECT count(*) FROM (WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT {numbers}) SELECT i FROM n)");
            match client.simple_query(&counting).await {
                Ok(_) => finished += 1,
                Err(_) => ended += 1,
            }
            client.batch_execute("SET statement_timeout = 0").await.unwrap();
            // Long enough for a stray interrupt to come.
            client.simple_query("SELECT length(hex(randomblob(1000000)))").await.unwrap();
        }
        println!("{ended} ended, {finished} finished");
    });
}

#[test]
fn a_copy_that_waits_for_its_client_has_its_time_too() {
    let (_directory, node) = node(&[]);
    let mut raw = Raw::login(&node.address);
    raw.query("SET statement_timeout = '300ms'");
    raw.send(&query("COPY t FROM STDIN")).unwrap();
    raw.until(b'G');
    raw.send(&message(b'd', b"1\n")).unwrap();
    let states: Vec<_> = raw.until(b'Z').iter().filter_map(sqlstate).collect();
    assert_eq!(states, ["57014"]);
    raw.send(&message(b'c', b"")).unwrap();
    raw.query("SET statement_timeout = 0");
    assert_eq!(node.rows("SELECT count(*) FROM t"), [["0"]]);
}

#[test]
fn waiting_for_the_writer_ends_at_the_lock_timeout() {
    let (_directory, node) = node(&["--sql-lock-timeout-s", "1s"]);
    runtime().block_on(async {
        let (client, writer) = (connect(&node.address).await, connect(&node.address).await);
        assert_eq!(show(&client, "lock_timeout").await, "1s");
        writer.batch_execute("BEGIN; INSERT INTO t VALUES (1)").await.unwrap();
        for (setting, low, high) in [("1s", 900, 5000), ("100ms", 90, 900)] {
            client.batch_execute(&format!("SET lock_timeout = '{setting}'")).await.unwrap();
            for sql in ["INSERT INTO t VALUES (2)", "BEGIN; INSERT INTO t VALUES (2)", "CREATE TABLE u (a)"] {
                let begun = Instant::now();
                assert_eq!(error(&client, sql).await, lock_timeout(), "{sql}");
                let waited = begun.elapsed().as_millis();
                assert!((low..high).contains(&waited), "{setting} {sql}: {waited} ms");
                client.batch_execute("ROLLBACK").await.unwrap();
            }
        }
        // In a transaction of its own words.
        client.batch_execute("BEGIN; SELECT 1").await.unwrap();
        assert_eq!(error(&client, "INSERT INTO t VALUES (2)").await, lock_timeout());
        client.batch_execute("ROLLBACK; BEGIN").await.unwrap();
        assert_eq!(error(&client, "INSERT INTO t VALUES (2) RETURNING a").await, lock_timeout());
        client.batch_execute("ROLLBACK").await.unwrap();
        // Zero is any time, here until the writer is done.
        client.batch_execute("SET lock_timeout = 0").await.unwrap();
        let (waited, _) = tokio::join!(client.batch_execute("INSERT INTO t VALUES (3)"), async {
            tokio::time::sleep(Duration::from_millis(1500)).await;
            writer.batch_execute("COMMIT").await.unwrap();
        });
        waited.unwrap();
        // A statement that runs by itself holds no timeout up.
        client.batch_execute("SET lock_timeout = '100ms'").await.unwrap();
        let cancel = writer.cancel_token();
        let endless = format!("INSERT INTO t {ENDLESS}");
        let (cancelled, _) = tokio::join!(error(&writer, &endless), async {
            let begun = Instant::now();
            // Once it runs; whoever came at the same time would share its transaction, and wait for it.
            let runs = "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'INSERT INTO t WITH%' AND state = 'active' AND wait_event IS NULL";
            while client.query(runs, &[]).await.unwrap().is_empty() {
                assert!(begun.elapsed() < LIMIT);
            }
            assert_eq!(error(&client, "DELETE FROM t WHERE a = 2").await, lock_timeout());
            cancel.cancel_query(tokio_postgres::NoTls).await.unwrap();
        });
        assert_eq!(cancelled.0, "57014");
    });
    assert_eq!(node.rows("SELECT a FROM t ORDER BY a"), [["1"], ["3"]]);
}

#[test]
fn silence_ends_a_session_or_its_transaction() {
    let (_directory, node) = node(&["--sql-idle-in-transaction-timeout-s", "1s"]);
    let states = |raw: &mut Raw| raw.until_closed().iter().filter_map(sqlstate).collect::<Vec<_>>();
    let mut idle = Raw::login(&node.address);
    idle.query("SET idle_session_timeout = '300ms'");
    let mut lasting = Raw::login(&node.address);
    lasting.query("SET idle_in_transaction_session_timeout = 0; SET idle_session_timeout = 100; BEGIN");
    let mut short = Raw::login(&node.address);
    short.query("BEGIN; SET LOCAL idle_in_transaction_session_timeout = 200");
    let mut by_server = Raw::login(&node.address);
    by_server.query("BEGIN");
    let begun = Instant::now();
    assert_eq!(states(&mut short), ["25P03"]);
    assert_eq!(states(&mut idle), ["57P05"]);
    assert!(begun.elapsed() < Duration::from_millis(900), "{:?}", begun.elapsed());
    assert_eq!(states(&mut by_server), ["25P03"]);
    std::thread::sleep(Duration::from_millis(500));
    lasting.query("SELECT 1");
    lasting.query("COMMIT");
    assert_eq!(states(&mut lasting), ["57P05"]);
}

#[test]
fn a_message_that_does_not_come_on_ends_its_connection() {
    let (_directory, node) = node(&["--sql-send-timeout-s", "1s"]);
    let mut raw = Raw::login(&node.address);
    raw.send(&query("SELECT 1")[..7]).unwrap();
    let begun = Instant::now();
    let mut dripping = Raw::login(&node.address);
    for byte in query("SELECT 'slowly'").iter().take(30) {
        if dripping.has_answer() || dripping.send(&[*byte]).is_err() {
            break;
        }
        std::thread::sleep(Duration::from_millis(150));
    }
    for raw in [&mut raw, &mut dripping] {
        assert_eq!(raw.until_closed().iter().filter_map(sqlstate).collect::<Vec<_>>(), ["08P01"]);
    }
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn timeouts_are_settings_like_any_others() {
    let (_directory, node) = node(&["--sql-statement-timeout-s", "1h"]);
    runtime().block_on(async {
        let client = connect(&node.address).await;
        let name = "statement_timeout";
        assert_eq!(show(&client, name).await, "1h");
        for (sql, shown) in [
            ("SET statement_timeout = 1500", "1500ms"),
            ("SET SESSION statement_timeout TO '2min'", "2min"),
            ("BEGIN; SET statement_timeout = 1; ROLLBACK", "2min"),
            ("BEGIN; SET statement_timeout = 30000; COMMIT", "30s"),
            ("BEGIN; SET LOCAL statement_timeout = 20000; COMMIT", "30s"),
            ("SET LOCAL statement_timeout = 1", "30s"),
            ("BEGIN; SET LOCAL statement_timeout = 20000", "20s"),
            ("SAVEPOINT a; SET statement_timeout = 21000; SAVEPOINT b; SET LOCAL statement_timeout = 22000", "22s"),
            ("ROLLBACK TO b", "21s"),
            ("RELEASE b", "21s"),
            ("ROLLBACK TO a", "20s"),
            ("COMMIT", "30s"),
            ("BEGIN; SET statement_timeout = 9000; SET LOCAL statement_timeout = 8000; COMMIT", "9s"),
            ("BEGIN; SET statement_timeout = 7000; COMMIT AND CHAIN; ROLLBACK", "7s"),
            ("SET statement_timeout TO DEFAULT", "1h"),
            ("SET statement_timeout = 0; RESET statement_timeout", "1h"),
            ("SET statement_timeout = 0", "0"),
            ("DISCARD ALL", "1h"),
            ("SET statement_timeout = 0", "0"),
            ("RESET ALL", "1h"),
        ] {
            client.simple_query(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
            assert_eq!(show(&client, name).await, shown, "{sql}");
        }
        for sql in ["SET statement_timeout = 'soon'", "SET lock_timeout = -1", "SET idle_session_timeout = '30d'"] {
            assert_eq!(error(&client, sql).await.0, "22023", "{sql}");
        }
    });
    let connection = format!("host=127.0.0.1 port={} user=postgres dbname=postgres", node.port());
    let with = |options: &str, sql: &str| psql_at(&format!("{connection} options='{options}'"), None, sql);
    let output = with("-c statement_timeout=90s --lock-timeout=7", "SHOW statement_timeout; SHOW lock_timeout");
    assert_eq!(output.stdout.lines().collect::<Vec<_>>(), ["90s", "7ms"], "{output:?}");
    let output = with("-c statement_timeout=100", ENDLESS);
    assert!(output.stderr.contains("57014: canceling statement due to statement timeout"), "{output:?}");
    let output = with("-c statement_timeout=soon", "SELECT 1");
    assert!(output.code == Some(2) && output.stderr.contains("invalid value for parameter"), "{output:?}");
    python(
        &node,
        &format!(
            "with psycopg.connect(dsn, options='-c statement_timeout=200') as c:\n    \
                 assert c.execute('show statement_timeout').fetchone() == ('200ms',)\n    \
                 try:\n        c.execute({ENDLESS:?})\n        raise SystemExit('endless')\n    \
                 except errors.QueryCanceled as e: assert 'statement timeout' in str(e), e\n    \
                 c.rollback()\n    \
                 other = psycopg.connect(dsn)\n    \
                 other.execute('insert into t values (1)')\n    \
                 c.execute(\"set local lock_timeout = '50ms'\")\n    \
                 try:\n        c.execute('insert into t values (2)')\n        raise SystemExit('locked')\n    \
                 except errors.LockNotAvailable: pass\n    \
                 c.rollback()\n    other.rollback()\n\
             c = psycopg.connect(dsn, autocommit=True)\n\
             c.execute('set idle_session_timeout = 100')\n\
             import time\ntime.sleep(1)\n\
             try:\n    c.execute('select 1')\n    raise SystemExit('still there')\n\
             except errors.IdleSessionTimeout: pass\n\
             except psycopg.OperationalError as e: assert 'idle-session timeout' in str(e), e"
        ),
    );
}
