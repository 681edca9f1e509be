//! The modes of transactions: asked for, kept, merged and obeyed.

use mainstay::server::pg::Scope;

use super::super::test_support::{Client, Database, Seen};

fn with(sql: &str) -> Database {
    let database = Database::new();
    database.session().ok(sql);
    database
}

#[test]
fn default_modes_are_kept_shown_and_obeyed() {
    let database = with("CREATE TABLE t (a)");
    let (mut client, mut other) = (database.session(), database.session());
    for (set, reset) in [
        (
            "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
            "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
        ),
        ("SET default_transaction_read_only = on", "RESET default_transaction_read_only"),
        ("SET default_transaction_read_only TO 'true'", "DISCARD ALL"),
    ] {
        client.ok(set);
        assert_eq!(client.rows("SHOW default_transaction_read_only"), [["on"]]);
        assert_eq!(client.rows("SHOW transaction_read_only"), [["on"]]);
        assert_eq!(client.fails("INSERT INTO t VALUES (1)"), "25006", "{set}");
        client.ok("BEGIN");
        assert_eq!(client.fails("INSERT INTO t VALUES (1)"), "25006", "{set}");
        client.ok("ROLLBACK; BEGIN READ WRITE; INSERT INTO t VALUES (1); ROLLBACK");
        client.ok(reset);
        client.ok("BEGIN; INSERT INTO t VALUES (1); ROLLBACK");
    }
    client.ok(
        "SET default_transaction_isolation = 'repeatable read'; SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
    );
    assert_eq!(client.rows("SHOW default_transaction_isolation"), [["repeatable read"]]);
    client.ok("BEGIN");
    assert_eq!(client.rows("SELECT count(*) FROM t"), [["0"]]);
    other.ok("INSERT INTO t VALUES (2)");
    assert_eq!(client.rows("SELECT count(*) FROM t"), [["0"]]);
    client.ok("COMMIT");
    assert_eq!(client.rows("SELECT count(*) FROM t"), [["1"]]);
    database.assert_replays();
}

#[test]
fn default_modes_come_back_with_a_rollback() {
    let database = Database::new();
    let mut client = database.session();
    client.ok("BEGIN; SET default_transaction_read_only = on; ROLLBACK");
    assert_eq!(client.rows("SHOW default_transaction_read_only"), [["off"]]);
    client.0.execute("SET default_transaction_read_only = on", &[], Scope::Implicit, &mut Seen::default()).unwrap();
    client.0.end_implicit(false).unwrap();
    assert_eq!(client.rows("SHOW default_transaction_read_only"), [["off"]]);
    client.ok("BEGIN; SAVEPOINT s");
    assert_eq!(client.fails("SET default_transaction_read_only = on"), "0A000");
    client.ok("ROLLBACK; BEGIN; SET default_transaction_read_only = on; COMMIT");
    assert_eq!(client.rows("SHOW default_transaction_read_only"), [["on"]]);
}

#[test]
fn modes_that_are_not_named_stay() {
    let database = with("CREATE TABLE t (a)");
    let mut client = database.session();
    client.ok("BEGIN READ ONLY; SET TRANSACTION ISOLATION LEVEL SERIALIZABLE");
    assert_eq!(client.fails("INSERT INTO t VALUES (1)"), "25006");
    client.ok("ROLLBACK; BEGIN ISOLATION LEVEL SERIALIZABLE; SET TRANSACTION READ ONLY");
    assert_eq!(client.rows("SHOW transaction_isolation"), [["serializable"]]);
    client.ok("SELECT 1");
    assert_eq!(client.fails("SET TRANSACTION READ WRITE"), "25001");
    client.ok("ROLLBACK");
}

#[test]
fn a_transaction_that_becomes_read_only_after_a_write_writes_no_more() {
    let database = with("CREATE TABLE t (a)");
    let mut client = database.session();
    for becomes in ["BEGIN READ ONLY", "SET TRANSACTION READ ONLY", "SET transaction_read_only = on"] {
        for sql in ["INSERT INTO t VALUES (2)", "CREATE TABLE u (a)", "WITH x AS (SELECT 1) DELETE FROM t"] {
            let mut run = |sql: &str| client.0.execute(sql, &[], Scope::Implicit, &mut Seen::default());
            run("INSERT INTO t VALUES (1)").unwrap();
            run(becomes).unwrap();
            run("SELECT count(*) FROM t").unwrap();
            assert_eq!(run(sql).unwrap_err().state.0, "25006", "{becomes}: {sql}");
            client.0.end_implicit(false).unwrap();
            client.ok("ROLLBACK");
        }
    }
    client.0.execute("SET TRANSACTION READ ONLY", &[], Scope::Implicit, &mut Seen::default()).unwrap();
    let refused = client.0.execute("INSERT INTO t VALUES (1)", &[], Scope::Implicit, &mut Seen::default());
    assert_eq!(refused.unwrap_err().state.0, "25006");
    client.0.end_implicit(false).unwrap();
    assert_eq!(client.rows("SELECT * FROM t").len(), 0);
}

#[test]
fn who_sees_one_state_writes_only_upon_that_state() {
    let database = with("CREATE TABLE t (a); INSERT INTO t VALUES (1)");
    let (mut client, mut other) = (database.session(), database.session());
    for level in ["REPEATABLE READ", "SERIALIZABLE"] {
        let begin = format!("BEGIN ISOLATION LEVEL {level}");
        let count = |client: &mut Client| client.rows("SELECT count(*) FROM t");
        client.ok(&begin);
        let before = count(&mut client);
        // Nobody waits for one who has only read.
        other.ok("INSERT INTO t VALUES (2)");
        assert_eq!(count(&mut client), before, "{level}");
        assert_eq!(client.fails("INSERT INTO t VALUES (3)"), "40001", "{level}");
        assert_eq!(client.fails("SELECT 1"), "25P02");
        client.ok("ROLLBACK");

        // Once more, alone; from the first write on, others wait.
        client.ok(&format!("{begin}; SAVEPOINT s"));
        let before = count(&mut client);
        client.ok("INSERT INTO t VALUES (4)");
        assert_ne!(count(&mut client), before);
        other.ok("SET lock_timeout = '10ms'");
        assert_eq!(other.fails("INSERT INTO t VALUES (5)"), "55P03");
        client.ok("ROLLBACK TO s");
        assert_eq!(count(&mut client), before);
        client.ok("UPDATE t SET a = 9 WHERE a = 4; COMMIT");
        other.ok("RESET lock_timeout");

        // Who has seen nothing yet has nothing to lose.
        client.ok(&begin);
        other.ok("INSERT INTO t VALUES (6)");
        client.ok("INSERT INTO t VALUES (6); COMMIT");
        // What was committed and rolled back, or changed nothing, is no change.
        client.ok(&begin);
        let before = count(&mut client);
        other.ok("BEGIN; INSERT INTO t VALUES (7); ROLLBACK; DELETE FROM t WHERE a = 1000");
        client.ok("DELETE FROM t WHERE a = 2; COMMIT");
        assert_ne!(count(&mut client), before);
    }
    // Back to a savepoint, it still sees the same state.
    client.ok("BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT 1 FROM t; SAVEPOINT s");
    other.ok("INSERT INTO t VALUES (8)");
    assert_eq!(client.fails("DELETE FROM t"), "40001");
    client.ok("ROLLBACK TO s");
    assert_eq!(client.rows("SELECT count(*) FROM t WHERE a = 8"), [["0"]]);
    assert_eq!(client.fails("DELETE FROM t"), "40001");
    client.ok("ROLLBACK; BEGIN ISOLATION LEVEL SERIALIZABLE; DELETE FROM t WHERE a = 8; COMMIT");
    assert_eq!(client.rows("SELECT count(*) FROM t WHERE a = 8"), [["0"]]);
    database.assert_replays();
}

#[test]
fn who_rests_goes_on_as_before() {
    let database = with("CREATE TABLE t (a); INSERT INTO t VALUES (1)");
    let (mut client, mut other) = (database.session(), database.session());
    client.ok("CREATE TEMP TABLE own AS SELECT 7 AS a");
    client.0.rest();
    assert_eq!(client.rows("SELECT t.a, own.a FROM t, own"), [["1", "7"]]);
    client.ok("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT a FROM t");
    other.ok("UPDATE t SET a = 2");
    client.0.rest();
    assert_eq!(client.rows("SELECT a FROM t"), [["1"]]);
    client.ok("COMMIT; BEGIN; SELECT a FROM t; INSERT INTO own VALUES (8)");
    client.0.rest();
    assert_eq!(client.rows("SELECT sum(t.a), sum(own.a) FROM t, own"), [["4", "15"]]);
    client.ok("INSERT INTO t VALUES (3)");
    client.0.rest();
    client.ok("COMMIT");
    client.0.rest();
    assert_eq!(client.rows("SELECT count(*) FROM t"), [["2"]]);
}
