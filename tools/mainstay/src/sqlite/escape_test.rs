//! Ways by which a change would be in SQLite and not in the log, or in the log and not be replayed.

use super::test_support::{Client, Database};

fn with(sql: &str) -> (Database, Client) {
    let database = Database::new();
    let mut client = database.session();
    client.ok(sql);
    (database, client)
}

#[test]
fn a_dropped_table_does_not_leave_null_keys_behind() {
    let (database, mut client) = with(
        "CREATE TABLE p (id INTEGER PRIMARY KEY, up REFERENCES p ON DELETE SET NULL);
         CREATE TABLE c (k INT PRIMARY KEY REFERENCES p ON DELETE SET NULL, v);
         INSERT INTO p VALUES (1, NULL), (2, 1); INSERT INTO c VALUES (1, 'a'), (2, 'b')",
    );
    assert_eq!(client.fails("DROP TABLE p"), "23502");
    assert_eq!(client.fails("BEGIN; DELETE FROM c WHERE k = 1; DROP TABLE p; COMMIT"), "23502");
    client.ok("ROLLBACK");
    assert_eq!(client.rows("SELECT k FROM c ORDER BY k"), [["1"], ["2"]]);
    database.assert_replays();
    client.ok("DELETE FROM c; DROP TABLE p");
    database.assert_replays();
}

#[test]
fn a_dropped_table_whose_own_keys_become_null_is_just_dropped() {
    let (database, mut client) = with(
        "CREATE TABLE p (k TEXT PRIMARY KEY, a TEXT UNIQUE);
         CREATE TABLE q (k TEXT PRIMARY KEY REFERENCES q (a) ON DELETE SET NULL, a TEXT UNIQUE);
         INSERT INTO q VALUES ('x', 'y'), ('y', 'x')",
    );
    client.ok("DROP TABLE q");
    // With more rows than are remembered one by one, whole tables are looked at.
    client.ok("CREATE TABLE q (k TEXT PRIMARY KEY REFERENCES q (a) ON DELETE SET NULL, a TEXT UNIQUE);
         WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 3000) INSERT INTO q SELECT i, i FROM n;
         DROP TABLE q");
    database.assert_replays();
}

#[test]
fn a_dropped_table_may_have_been_touched_without_effect() {
    let (database, mut client) = with("CREATE TABLE p (x); INSERT INTO p VALUES (1); CREATE TABLE q (x PRIMARY KEY)");
    client.ok("BEGIN; UPDATE p SET x = x; DROP TABLE p; COMMIT");
    client.ok("BEGIN; INSERT INTO q VALUES (1); DELETE FROM q; ALTER TABLE q RENAME TO r; DROP TABLE r; COMMIT");
    client.ok("CREATE TABLE p (x); INSERT INTO p VALUES (1)");
    client.ok("BEGIN; UPDATE p SET x = x; SAVEPOINT s; DROP TABLE p; ROLLBACK TO s; UPDATE p SET x = 2; COMMIT");
    database.assert_replays();
}

#[test]
fn pragmas_behind_tables_are_those_that_are_allowed() {
    let (database, mut client) = with(
        "CREATE TABLE t (a); CREATE INDEX i ON t (a); INSERT INTO t VALUES (1);
         CREATE VIEW v AS SELECT * FROM pragma_optimize(0x10002); CREATE TABLE pragma_notes (a)",
    );
    for sql in [
        "SELECT * FROM pragma_optimize(0x10002)",
        "SELECT count(*) FROM Pragma_Optimize(0x10002)",
        "SELECT * FROM v",
        "SELECT 1 WHERE EXISTS (SELECT 1 FROM pragma_optimize)",
        "INSERT INTO t SELECT 1 FROM pragma_journal_mode",
    ] {
        assert_eq!(client.fails(sql), "0A000", "{sql}");
        assert_eq!(client.fails(&format!("BEGIN; DELETE FROM t WHERE a = 9; {sql}")), "0A000", "{sql}");
        client.ok("ROLLBACK");
    }
    assert_eq!(client.rows("SELECT name FROM pragma_table_info('t')"), [["a"]]);
    assert_eq!(client.rows("SELECT * FROM pragma_notes"), Vec::<Vec<String>>::new());
    client
        .ok("BEGIN; INSERT INTO t VALUES (2); SELECT * FROM pragma_table_info('t'); SELECT * FROM pragma_user_version");
    client.ok("ALTER TABLE t ADD COLUMN b NOT NULL DEFAULT 1 CHECK (b > 0); COMMIT");
    assert_eq!(client.rows("SELECT count(*) FROM sqlite_schema WHERE name LIKE 'sqlite_stat%'"), [["0"]]);
    database.assert_replays();
}

#[test]
fn what_was_refused_is_refused_again() {
    let (database, mut client) = with("CREATE TABLE t (a); CREATE INDEX i ON t (a); INSERT INTO t VALUES (1); ANALYZE");
    for _ in 0..3 {
        assert_eq!(client.fails("UPDATE sqlite_stat1 SET stat = 'none'"), "42501");
    }
    database.assert_replays();
}

#[test]
fn any_keys_of_strict_tables_hold_no_floating_point_numbers() {
    let (database, mut client) = with("CREATE TABLE s (k ANY PRIMARY KEY, v INT) STRICT");
    assert_eq!(client.fails("CREATE TABLE w (k any PRIMARY KEY, v INT) STRICT, WITHOUT ROWID"), "0A000");
    client.ok("CREATE TABLE n (k ANY PRIMARY KEY) WITHOUT ROWID");
    client.ok("INSERT INTO s VALUES (1, 1), ('1.0', 2); INSERT INTO n VALUES (1); UPDATE n SET k = 1.0");
    assert_eq!(client.fails("UPDATE s SET k = 1.0 WHERE k = 1"), "0A000");
    assert_eq!(client.fails("INSERT INTO s VALUES (2.5, 1)"), "0A000");
    database.assert_replays();
}

#[test]
fn conflict_clauses_are_refused_however_they_are_written() {
    let (database, mut client) = with("CREATE TABLE t (a)");
    for sql in [
        "CREATE TABLE z (i INTEGER PRIMARY KEY, u UNIQUE ON CONFLICT REPLACE)",
        "CREATE \x0bTABLE z (i INTEGER PRIMARY KEY, u UNIQUE ON \x0bCONFLICT REPLACE)",
        "CREATE \x0c\x0b\tTABLE z (u UNIQUE ON/**/CONFLICT \x0bIGNORE)",
        "ALTER TABLE t ADD COLUMN b NOT NULL ON CONFLICT REPLACE DEFAULT 1",
        "ALTER \x0bTABLE t ADD b DEFAULT 1 NOT NULL ON\n\x0bCONFLICT\n\x0bIGNORE",
    ] {
        assert_eq!(client.fails(sql), "0A000", "{sql:?}");
    }
    assert_eq!(client.rows("SELECT sql FROM sqlite_schema WHERE name = 't'"), [["CREATE TABLE t (a)"]]);
    client.ok("CREATE \x0bTABLE x (u UNIQUE ON \x0bCONFLICT ABORT); ALTER\n\x0bTABLE x ADD v");
    database.assert_replays();
}

#[test]
fn transaction_control_reaches_sqlite_from_nobody_but_us() {
    let (database, mut client) = with("CREATE TABLE t (a)");
    assert_eq!(client.fails("EXPLAIN COMMIT"), "0A000");
    client.ok("BEGIN; INSERT INTO t VALUES (1)");
    assert_eq!(client.fails("EXPLAIN ROLLBACK"), "0A000");
    client.ok("ROLLBACK; EXPLAIN CREATE TABLE u (a); BEGIN; INSERT INTO t VALUES (2); EXPLAIN DROP TABLE t; COMMIT");
    assert_eq!(client.rows("SELECT a FROM t"), [["2"]]);
    database.assert_replays();
}

#[test]
fn nothing_refers_to_our_tables() {
    let (database, mut client) = with("CREATE TABLE t (a)");
    for sql in [
        "CREATE TABLE c (a REFERENCES mainstay_state)",
        "CREATE TABLE c (a, FOREIGN KEY (a) REFERENCES Mainstay_State (one) DEFERRABLE INITIALLY DEFERRED)",
        "CREATE TABLE c (a REFERENCES mainstay_other)",
        "ALTER TABLE t ADD COLUMN b REFERENCES mainstay_state (applied)",
    ] {
        assert_eq!(client.fails(sql), "42939", "{sql}");
    }
    client.ok("INSERT INTO t VALUES (1)");
    database.assert_replays();
}

#[test]
fn what_other_sessions_wrote_is_not_told() {
    let (database, mut client) = with(
        "CREATE TABLE t (a INTEGER PRIMARY KEY); INSERT INTO t VALUES (77);
         CREATE TRIGGER g AFTER DELETE ON t BEGIN INSERT INTO t VALUES (last_insert_rowid() + 1); END",
    );
    for sql in [
        "SELECT last_insert_rowid()",
        "SELECT Changes()",
        "INSERT INTO t SELECT total_changes()",
        "BEGIN; UPDATE t SET a = 78; SELECT last_insert_rowid()",
        "DELETE FROM t",
    ] {
        let error = client.run(sql).unwrap_err();
        assert_eq!((error.state.0, error.hint.as_deref()), ("0A000", Some("Use RETURNING.")), "{sql}");
        client.ok("ROLLBACK");
    }
    database.assert_replays();
}

#[test]
fn autoincrement_counters_stand_where_they_stood() {
    let (database, mut client) = with(
        "CREATE TABLE a (id INTEGER PRIMARY KEY AUTOINCREMENT, v);
         CREATE TABLE b (id INTEGER PRIMARY KEY AUTOINCREMENT); INSERT INTO a (v) VALUES (1); INSERT INTO b VALUES (9)",
    );
    client.ok("UPDATE a SET id = 100");
    database.assert_replays();
    client.ok("BEGIN; UPDATE a SET id = 200; ALTER TABLE a RENAME TO c; UPDATE c SET id = 300; COMMIT");
    database.assert_replays();
    client.ok("BEGIN; UPDATE b SET id = 50; DELETE FROM sqlite_sequence WHERE name = 'b'; COMMIT; DELETE FROM c");
    let other = database.assert_replays();
    other.engine.write_to(Box::new(database.log.clone()));
    assert_eq!(other.session().rows("INSERT INTO c (v) VALUES (1) RETURNING id"), [["2"]]);
}
