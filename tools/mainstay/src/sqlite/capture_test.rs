//! What could hide from the log: each kind of change, and a copy made from the log that holds the same.

use mainstay::server::pg::{OwnedValue, Scope};

use rusqlite::Connection;

use super::test_support::{Client, Database, Seen};

fn with(sql: &str) -> (Database, Client) {
    let database = Database::new();
    let mut client = database.session();
    client.ok(sql);
    (database, client)
}

#[test]
fn a_table_of_the_rows_of_a_query_holds_the_rows_that_were_found_then() {
    let (database, mut client) = with(
        "CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT, c REAL, d BLOB, e NUMERIC);
         INSERT INTO t VALUES (1, 'x', 1.5, x'00ff', '12'), (2, NULL, -0.0, x'', 'words')",
    );
    assert_eq!(client.tag("CREATE TABLE drawn AS SELECT random() AS r, randomblob(8) AS b, a FROM t"), "SELECT 2");
    assert_eq!(
        client.tag("create table IF NOT EXISTS main.\"A b\" AS SELECT *, a + 1, b || c AS \"d e\", 7 FROM t"),
        "SELECT 2"
    );
    assert_eq!(client.tag("CREATE TABLE listed AS VALUES (1, 'x'), (NULL, x'01')"), "SELECT 2");
    assert_eq!(
        client.tag(
            "CREATE TABLE counted AS WITH n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 3000) SELECT i FROM n"
        ),
        "SELECT 3000"
    );
    assert_eq!(client.tag("CREATE TABLE none AS SELECT * FROM t WHERE a > 9"), "SELECT 0");
    database.assert_replays();
    assert_eq!(
        client.rows("SELECT sql FROM sqlite_schema WHERE name IN ('drawn', 'A b', 'listed') ORDER BY name"),
        [
            [
                "CREATE TABLE \"A b\"(\"a\" INT, \"b\" TEXT, \"c\" REAL, \"d\", \"e\" NUMERIC, \"a + 1\" BIGINT, \"d e\", \"7\" BIGINT)"
            ],
            ["CREATE TABLE \"drawn\"(\"r\" BIGINT, \"b\", \"a\" INT)"],
            ["CREATE TABLE \"listed\"(\"column1\", \"column2\")"],
        ]
    );
    let records = database.records().len();
    client.ok("CREATE TABLE IF NOT EXISTS drawn AS SELECT random()");
    assert_eq!(database.records().len(), records);
    assert_eq!(client.fails("CREATE TABLE drawn AS SELECT 1"), "42P07");
    assert_eq!(client.fails("CREATE TABLE mainstay_rows AS SELECT 1"), "42939");
    // The texts of the log hold no query.
    for record in database.records() {
        let text = String::from_utf8_lossy(&record.payload).into_owned();
        assert!(!text.contains("random()") && !text.contains("SELECT"), "{text}");
    }
}

#[test]
fn a_table_of_rows_is_part_of_its_transaction() {
    let (database, mut client) = with("CREATE TABLE t (a); INSERT INTO t VALUES (1), (2)");
    client.ok("BEGIN; INSERT INTO t VALUES (3); CREATE TABLE u AS SELECT a, random() AS r FROM t; INSERT INTO u VALUES (9, 9);
         SAVEPOINT s; CREATE TABLE v AS SELECT * FROM u; DROP TABLE u; ROLLBACK TO s; UPDATE u SET r = 0 WHERE a = 1;
         CREATE TABLE w AS SELECT * FROM u; ALTER TABLE w DROP COLUMN r; DELETE FROM w WHERE a = 2; COMMIT");
    database.assert_replays();
    assert_eq!(client.rows("SELECT a FROM w ORDER BY a"), [["1"], ["3"], ["9"]]);
    client.ok("BEGIN; CREATE TABLE x AS SELECT * FROM t; ROLLBACK");
    // It fails in the middle, behind rows.
    client.ok("BEGIN; INSERT INTO t VALUES (4)");
    assert_eq!(client.fails("CREATE TABLE x AS SELECT abs(-9223372036854775807 - (a > 2)) FROM t"), "22003");
    client.ok("ROLLBACK; BEGIN; INSERT INTO t VALUES (5); SAVEPOINT s");
    assert_eq!(client.fails("CREATE TABLE x AS SELECT abs(-9223372036854775807 - (a > 2)) FROM t"), "22003");
    client.ok("ROLLBACK TO s; CREATE TABLE x AS SELECT a FROM t; COMMIT");
    assert_eq!(client.rows("SELECT a FROM x"), [["1"], ["2"], ["3"], ["5"]]);
    assert_eq!(client.rows("SELECT count(*) FROM sqlite_temp_schema"), [["0"]]);
    database.assert_replays();
}

#[test]
fn a_table_of_rows_takes_parameters() {
    let (database, mut client) = with("CREATE TABLE t (a); INSERT INTO t VALUES (1), (2), (3)");
    let parameters = [OwnedValue::Text("x".into()), OwnedValue::Integer(2)];
    let sql = "CREATE TABLE u AS SELECT a, $1 AS b FROM t WHERE a >= $2";
    client.0.describe(sql, &[]).unwrap();
    client.0.execute(sql, &parameters, Scope::Single, &mut Seen::default()).unwrap();
    assert_eq!(client.rows("SELECT * FROM u"), [["2", "x"], ["3", "x"]]);
    database.assert_replays();
}

#[test]
fn the_clients_own_pragmas_are_kept() {
    let (database, mut client) = with("CREATE TABLE t (a); PRAGMA user_version = 5; PRAGMA main.application_id = -7");
    database.assert_replays();
    client.ok("BEGIN; INSERT INTO t VALUES (1); PRAGMA user_version(6); SAVEPOINT s; PRAGMA user_version = 7; ROLLBACK TO s; COMMIT");
    client.ok("BEGIN; PRAGMA user_version = 8; ROLLBACK");
    assert_eq!(client.rows("PRAGMA user_version"), [["6"]]);
    assert_eq!(client.rows("PRAGMA application_id"), [["-7"]]);
    let other = database.assert_replays();
    assert_eq!(other.session().rows("PRAGMA user_version"), [["6"]]);
    assert_eq!(client.fails("SELECT * FROM pragma_user_version(9)"), "42601");
    assert_eq!(client.fails("BEGIN READ ONLY; PRAGMA user_version = 9"), "25006");
    client.ok("ROLLBACK");
    database.assert_replays();
}

#[test]
fn a_replaced_row_takes_all_it_conflicts_with_and_what_refers_to_them() {
    let (database, mut client) = with(
        "CREATE TABLE t (a INTEGER PRIMARY KEY, b UNIQUE, c UNIQUE); CREATE UNIQUE INDEX i ON t (lower(c));
         CREATE TABLE child (a REFERENCES t ON DELETE CASCADE, n INTEGER PRIMARY KEY);
         INSERT INTO t VALUES (1, 1, 'A'), (2, 2, 'B'), (3, 3, 'C'), (4, 4, 'D');
         INSERT INTO child VALUES (1, 1), (2, 2), (3, 3), (4, 4)",
    );
    client.ok("INSERT OR REPLACE INTO t VALUES (1, 2, 'c')");
    assert_eq!(client.rows("SELECT a, b, c FROM t"), [["1", "2", "c"], ["4", "4", "D"]]);
    assert_eq!(client.rows("SELECT n FROM child"), [["4"]]);
    client.ok("UPDATE OR REPLACE t SET b = 4, c = 'd' WHERE a = 1");
    assert_eq!(client.rows("SELECT a, b, c FROM t"), [["1", "4", "d"]]);
    database.assert_replays();
}

#[test]
fn triggers_that_call_one_another_leave_what_they_left() {
    let (database, mut client) = with(
        "CREATE TABLE t (a INTEGER PRIMARY KEY, n); CREATE TABLE u (a, n); CREATE TABLE log (what, n);
         CREATE TRIGGER down AFTER INSERT ON t WHEN new.n > 0 BEGIN INSERT INTO u VALUES (new.a, new.n - 1); END;
         CREATE TRIGGER up AFTER INSERT ON u WHEN new.n > 0 BEGIN INSERT INTO t (n) VALUES (new.n - 1); END;
         CREATE TRIGGER note AFTER UPDATE OF n ON t BEGIN INSERT INTO log VALUES ('t', new.n);
             UPDATE u SET n = new.n + random() % 100 WHERE a = new.a; DELETE FROM u WHERE n = old.n; END",
    );
    client.ok("INSERT INTO t (n) VALUES (6); UPDATE t SET n = n + 1 WHERE a <= 2");
    assert_eq!(client.rows("SELECT count(*), (SELECT count(*) FROM log) FROM t"), [["2", "2"]]);
    assert_eq!(client.fails("PRAGMA recursive_triggers = on"), "0A000");
    database.assert_replays();
}

#[test]
fn indexes_that_say_when_and_of_what_hold_the_same() {
    let (database, mut client) = with(
        "CREATE TABLE t (a INT, b TEXT, c INT AS (a * 2) STORED); CREATE UNIQUE INDEX part ON t (b) WHERE a > 5;
         CREATE UNIQUE INDEX expression ON t (abs(a), lower(b)); CREATE INDEX generated ON t (c) WHERE b IS NOT NULL",
    );
    client.ok("INSERT INTO t (a, b) VALUES (1, 'x'), (2, 'x'), (6, 'x'), (7, 'y')");
    assert_eq!(client.fails("UPDATE t SET a = 8 WHERE a = 1"), "23505");
    assert_eq!(client.fails("INSERT INTO t (a, b) VALUES (-2, 'X')"), "23505");
    client.ok("UPDATE t SET a = 5 WHERE a = 6; UPDATE t SET a = 8 WHERE a = 1; INSERT OR REPLACE INTO t (a, b) VALUES (-2, 'X')");
    let other = database.assert_replays();
    let mut copy = other.session();
    for sql in [
        "SELECT a FROM t WHERE b = 'x' AND a > 5",
        "SELECT b FROM t WHERE abs(a) = 2 AND lower(b) = 'x'",
        "SELECT a FROM t WHERE c = 14 AND b IS NOT NULL",
    ] {
        assert!(client.rows(&format!("EXPLAIN QUERY PLAN {sql}"))[0].concat().contains("USING"), "{sql}");
        assert_eq!(copy.rows(sql), client.rows(sql), "{sql}");
    }
}

#[test]
fn strict_tables_and_values_of_every_kind_are_the_same() {
    let (database, mut client) = with(
        "CREATE TABLE s (i INT, t TEXT, r REAL, b BLOB, a ANY, k TEXT PRIMARY KEY) STRICT; CREATE TABLE w (a, b, c)",
    );
    client.ok("INSERT INTO s VALUES (1, 'x', 2, x'00', 1.0, 'k'), (NULL, '', -0.0, x'', x'ff', 'l'), ('3', 4, '5', NULL, '1', 'm')");
    assert_eq!(client.fails("INSERT INTO s (k, i) VALUES ('n', 'x')"), "22P02");
    client.ok("UPDATE s SET a = CASE k WHEN 'k' THEN 1 WHEN 'l' THEN 'ff' ELSE 1 END");
    client
        .ok("INSERT INTO w VALUES (1, 1.0, '1'), (9007199254740993, 9007199254740993.0, x'31'), (1e999, -1e999, NULL),
         (zeroblob(100000), randomblob(100000), hex(randomblob(50000))), ('', x'', 0)");
    client.ok("UPDATE w SET a = b, b = c, c = a");
    database.assert_replays();
}

#[test]
fn statistics_are_gathered_again() {
    let (database, mut client) = with("CREATE TABLE t (a, b); CREATE INDEX i ON t (a, b); CREATE INDEX j ON t (b)");
    client.ok("WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 500) INSERT INTO t SELECT i % 7, i FROM n");
    client.ok("BEGIN; ANALYZE; DELETE FROM t WHERE a = 3; ANALYZE i; COMMIT; ANALYZE main.t");
    assert_eq!(client.rows("SELECT stat FROM sqlite_stat1 WHERE idx = 'j'"), [["428 1"]]);
    database.assert_replays();
}

#[test]
fn rows_that_no_record_can_hold_are_refused() {
    let (database, mut client) = with("CREATE TABLE t (a, b)");
    for sql in [
        "INSERT INTO t (a) VALUES (zeroblob(1000000001))",
        "INSERT INTO t VALUES (zeroblob(600000000), zeroblob(600000000))",
        "CREATE TABLE u AS SELECT zeroblob(600000000) AS a, zeroblob(600000000) AS b",
    ] {
        assert_eq!(client.fails(sql), "54000", "{sql}");
    }
    client.ok("INSERT INTO t VALUES (1, 2)");
    database.assert_replays();
}

/// The changes of one transaction wait in memory until its end, and travel as one record.
#[test]
fn a_transaction_of_256_mib_is_one_record() {
    let (database, mut client) = with("CREATE TABLE t (k INTEGER PRIMARY KEY, v)");
    let before = database.records().len();
    client.ok("BEGIN");
    for _ in 0..4 {
        client.ok("WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 64) INSERT INTO t (v) SELECT randomblob(1 << 20) FROM n");
        client.ok("SAVEPOINT s");
    }
    client.ok("COMMIT");
    let records = database.records();
    assert_eq!(records.len(), before + 1);
    assert!(records[before].payload.len() > 256 << 20);
    let other = database.replayed();
    let rows = |database: &Database| -> Vec<(i64, Vec<u8>)> {
        let connection = Connection::open(database.dir.path().join("main.sqlite")).unwrap();
        let mut statement = connection.prepare("SELECT k, v FROM t ORDER BY k").unwrap();
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        rows.map(Result::unwrap).collect()
    };
    assert!(rows(&database).len() == 256 && rows(&database) == rows(&other));
}

/// Rows that are older than a column do not hold its default; what is copied from them does not either.
#[test]
fn rows_that_are_copied_from_table_to_table_have_the_defaults_of_columns_that_came_later() {
    for (kind, shape) in [("k INTEGER PRIMARY KEY", ""), ("k", ""), ("k INTEGER PRIMARY KEY", "WITHOUT ROWID")] {
        let (database, mut client) = with(&format!(
            "CREATE TABLE a ({kind}, u) {shape}; INSERT INTO a VALUES (1, 2), (2, 3);
             ALTER TABLE a ADD COLUMN v INT NOT NULL DEFAULT 5; ALTER TABLE a ADD COLUMN w REAL DEFAULT 3;
             CREATE TABLE b ({kind}, u, v INT NOT NULL DEFAULT 5, w REAL DEFAULT 3) {shape};
             CREATE TABLE c ({kind}, u, v INT NOT NULL DEFAULT 5, w REAL DEFAULT 3) {shape};
             CREATE TABLE d (x INTEGER PRIMARY KEY);
             CREATE TRIGGER copies AFTER INSERT ON d BEGIN INSERT INTO c SELECT * FROM a; END",
        ));
        client.ok("INSERT INTO b SELECT * FROM a; INSERT INTO d VALUES (1)");
        let all = "SELECT count(*) FROM (SELECT * FROM b UNION ALL SELECT * FROM c) WHERE v = 5 AND w = 3";
        assert_eq!(client.rows(all), [["4"]]);
        database.assert_replays();
        client.ok("UPDATE b SET u = 7 WHERE k = 2; DELETE FROM b WHERE k = 1; DELETE FROM c");
        database.assert_replays();
    }
}
