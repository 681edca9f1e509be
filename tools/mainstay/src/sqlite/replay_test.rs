//! Whatever clients do, a database made from the log alone holds the same.

use super::test_support::{Client, Database};

/// Runs scripts, each statement by itself, and compares with a replay after each script.
#[track_caller]
fn replays(scripts: &[&str]) -> (Database, Client) {
    let database = Database::new();
    let mut client = database.session();
    for script in scripts {
        client.ok(script);
        database.assert_replays();
    }
    (database, client)
}

#[test]
fn tables_with_and_without_key() {
    let (_, mut client) = replays(&[
        "CREATE TABLE a (id INTEGER PRIMARY KEY, v TEXT); CREATE TABLE b (v, w); CREATE TABLE c (x TEXT PRIMARY KEY, y)",
        "INSERT INTO a VALUES (1, 'x'), (2, NULL); INSERT INTO b VALUES (1, 1.5), (1, 1.5), (NULL, x'00ff')",
        "INSERT INTO c VALUES ('k', 1), ('', x''), ('ß', -9223372036854775808)",
        "UPDATE a SET v = v || 'y'; UPDATE b SET w = 2 WHERE rowid = 2; UPDATE c SET x = x || '!'",
        "UPDATE a SET id = id + 10; DELETE FROM b WHERE w = 1.5",
        "DELETE FROM b; DELETE FROM c WHERE x = 'k!'; INSERT INTO b SELECT id, v FROM a; INSERT INTO b SELECT * FROM b",
        "DELETE FROM a; DELETE FROM b; DELETE FROM c",
    ]);
    assert_eq!(client.rows("SELECT count(*) FROM b"), [["0"]]);
}

#[test]
fn an_erased_table_is_erased_again_also_by_a_cached_statement() {
    let (database, mut client) = replays(&["CREATE TABLE a (v); INSERT INTO a VALUES (1), (2)", "DELETE FROM a"]);
    client.ok("INSERT INTO a VALUES (3)");
    client.ok("DELETE FROM a");
    database.assert_replays();
    assert_eq!(client.rows("SELECT * FROM a"), Vec::<Vec<String>>::new());
}

#[test]
fn values_that_trade_places_under_a_unique_index() {
    replays(&[
        "CREATE TABLE a (id INTEGER PRIMARY KEY, u UNIQUE); INSERT INTO a VALUES (1, 1), (2, 2), (3, 3)",
        "BEGIN; UPDATE a SET u = 9 WHERE id = 1; UPDATE a SET u = 1 WHERE id = 2; UPDATE a SET u = 2 WHERE id = 1; COMMIT",
        "BEGIN; DELETE FROM a WHERE id = 3; INSERT INTO a VALUES (4, 3); COMMIT",
        "BEGIN; UPDATE a SET u = -u; UPDATE a SET u = CASE u WHEN -1 THEN 2 WHEN -2 THEN 3 ELSE 1 END; COMMIT",
        "UPDATE a SET id = id + 1 WHERE id >= 4",
    ]);
}

#[test]
fn keys_that_compare_by_more_than_bytes_are_refused() {
    let (database, mut client) = replays(&["CREATE TABLE a (k TEXT PRIMARY KEY, v TEXT COLLATE NOCASE UNIQUE)"]);
    for sql in [
        "CREATE TABLE b (k TEXT COLLATE NOCASE PRIMARY KEY)",
        "CREATE TABLE b (k TEXT COLLATE NOCASE PRIMARY KEY) WITHOUT ROWID",
        "CREATE TABLE b (k, l COLLATE RTRIM, PRIMARY KEY (k, l))",
    ] {
        assert_eq!(client.fails(sql), "0A000", "{sql}");
    }
    assert_eq!(client.fails("CREATE TABLE b (k, v, PRIMARY KEY (k)) WITHOUT ROWID"), "0A000");
    client
        .ok("CREATE TABLE b (k PRIMARY KEY); INSERT INTO b VALUES (1); CREATE TABLE c (k REAL PRIMARY KEY, l NUMERIC)");
    assert_eq!(client.fails("UPDATE b SET k = 1.0"), "0A000");
    client.ok("INSERT INTO c VALUES (1, 1); UPDATE c SET k = 1.0, l = 1.0; UPDATE c SET k = -0.0; UPDATE c SET k = 0");
    client.ok("INSERT INTO a VALUES ('x', 'A'); UPDATE a SET v = 'a', k = 'X'; UPDATE a SET k = 'x'");
    database.assert_replays();
}

#[test]
fn autoincrement_goes_on_where_it_stood() {
    let (database, mut client) = replays(&[
        "CREATE TABLE a (id INTEGER PRIMARY KEY AUTOINCREMENT, v); CREATE TABLE b (id INTEGER PRIMARY KEY AUTOINCREMENT)",
        "INSERT INTO a (v) VALUES (1), (2), (3)",
        "DELETE FROM a WHERE id = 3",
        "BEGIN; INSERT INTO a (v) VALUES (4); DELETE FROM a WHERE v = 4; COMMIT",
        "ALTER TABLE a RENAME TO c; INSERT INTO c (v) VALUES (5)",
        "INSERT INTO b VALUES (100); DELETE FROM b",
        "UPDATE sqlite_sequence SET seq = 200 WHERE name = 'b'",
        "BEGIN; DROP TABLE b; CREATE TABLE b (id INTEGER PRIMARY KEY AUTOINCREMENT); INSERT INTO b VALUES (7); COMMIT",
        "DELETE FROM sqlite_sequence WHERE name = 'b'",
    ]);
    let other = database.assert_replays();
    other.engine.write_to(Box::new(database.log.clone()));
    let insert = "INSERT INTO c (v) VALUES (6) RETURNING id";
    assert_eq!(other.session().rows(insert), [["6"]]);
    assert_eq!(client.rows(insert), [["6"]]);
}

#[test]
fn triggers_run_once() {
    let (_, mut client) = replays(&[
        "CREATE TABLE a (v); CREATE TABLE seen (what, v); CREATE VIEW w AS SELECT v FROM a",
        "CREATE TRIGGER t1 AFTER INSERT ON a BEGIN INSERT INTO seen VALUES ('new;', new.v); SELECT 1; END",
        "CREATE TRIGGER t2 BEFORE DELETE ON a BEGIN INSERT INTO seen VALUES ('old', old.v); END;
         CREATE TRIGGER t3 INSTEAD OF INSERT ON w BEGIN INSERT INTO a VALUES (new.v * 2); END",
        "INSERT INTO a VALUES (1), (2); INSERT INTO w VALUES (5); DELETE FROM a WHERE v = 1",
        "DROP TRIGGER t1; INSERT INTO a VALUES (9)",
    ]);
    assert_eq!(client.rows("SELECT count(*) FROM seen"), [["4"]]);
}

#[test]
fn foreign_keys_carry_on() {
    let (_, mut client) = replays(&[
        "CREATE TABLE p (id INTEGER PRIMARY KEY);
         CREATE TABLE c (id INTEGER PRIMARY KEY, p REFERENCES p ON DELETE CASCADE ON UPDATE CASCADE);
         CREATE TABLE n (p REFERENCES p ON DELETE SET NULL);
         INSERT INTO p VALUES (1), (2), (3); INSERT INTO c VALUES (1, 1), (2, 2), (3, 3); INSERT INTO n VALUES (1), (3)",
        "DELETE FROM p WHERE id = 1; UPDATE p SET id = 20 WHERE id = 2",
        "BEGIN; INSERT INTO c VALUES (9, 3); DROP TABLE p; COMMIT",
    ]);
    assert_eq!(client.rows("SELECT count(*) FROM c"), [["0"]]);
    assert_eq!(client.rows("SELECT p FROM n"), [["NULL"], ["NULL"]]);
}

#[test]
fn deferred_foreign_keys_are_checked_before_the_log() {
    let (database, mut client) = replays(&[
        "CREATE TABLE p (id INTEGER PRIMARY KEY);
         CREATE TABLE c (p REFERENCES p DEFERRABLE INITIALLY DEFERRED)",
        "BEGIN; INSERT INTO c VALUES (1); INSERT INTO p VALUES (1); COMMIT",
    ]);
    let before = database.records().len();
    assert_eq!(client.fails("BEGIN; INSERT INTO c VALUES (2); COMMIT"), "23503");
    assert_eq!(client.fails("INSERT INTO c VALUES (2)"), "23503");
    assert_eq!(database.records().len(), before);
    database.assert_replays();
}

#[test]
fn without_rowid_and_generated_columns() {
    replays(&[
        "CREATE TABLE a (x TEXT, y INT, v, PRIMARY KEY (y, x)) WITHOUT ROWID;
         CREATE TABLE g (a INT, b INT AS (a * 2), c INT AS (a + 1) STORED, d TEXT);
         CREATE TABLE h (b INT AS (a * 2) STORED, a INT PRIMARY KEY, z INT AS (b + 1), e)",
        "INSERT INTO a VALUES ('p', 1, 2), ('q', 1, 3); INSERT INTO g (a, d) VALUES (1, 'x'), (2, 'y');
         INSERT INTO h (a, e) VALUES (5, 6), (7, 8)",
        "UPDATE a SET x = 'r' WHERE v = 3; UPDATE g SET a = 5 WHERE a = 1; UPDATE h SET a = 6, e = 1 WHERE a = 5",
        "DELETE FROM g WHERE b = 10; DELETE FROM a WHERE v = 2; DELETE FROM h WHERE z = 15",
    ]);
}

#[test]
fn schema_changes() {
    let (_, mut client) = replays(&[
        "CREATE TABLE a (id INTEGER PRIMARY KEY, v, w); INSERT INTO a VALUES (1, 2, 3)",
        "ALTER TABLE a ADD COLUMN x DEFAULT 7; INSERT INTO a (id) VALUES (2); UPDATE a SET x = 8 WHERE id = 1",
        "ALTER TABLE a RENAME COLUMN v TO u; ALTER TABLE a DROP COLUMN w; ALTER TABLE a RENAME TO b",
        "UPDATE b SET u = 5; CREATE UNIQUE INDEX i ON b (u, id); CREATE VIEW s AS SELECT * FROM b; ANALYZE; REINDEX",
        "DROP VIEW s; DROP INDEX i",
        "CREATE TABLE IF NOT EXISTS b (z); DROP TABLE IF EXISTS missing; CREATE TABLE IF NOT EXISTS c (z)",
    ]);
    assert_eq!(client.rows("SELECT * FROM b"), [["1", "5", "8"], ["2", "5", "7"]]);
}

#[test]
fn schema_and_rows_in_one_transaction() {
    let (database, mut client) = replays(&["CREATE TABLE a (v); INSERT INTO a VALUES (0)"]);
    let before = database.records().len();
    client.ok("BEGIN; INSERT INTO a VALUES (1); ALTER TABLE a ADD COLUMN w; INSERT INTO a VALUES (2, 3);
         CREATE TABLE b (k TEXT PRIMARY KEY); INSERT INTO b VALUES ('x'); UPDATE a SET w = 9; DELETE FROM a WHERE v = 0;
         ALTER TABLE a DROP COLUMN v; INSERT INTO b VALUES ('y'); INSERT INTO a VALUES (4); DROP TABLE b; COMMIT");
    assert_eq!(database.records().len(), before + 1);
    database.assert_replays();
    assert_eq!(client.rows("SELECT * FROM a"), [["9"], ["9"], ["4"]]);
}

#[test]
fn what_is_rolled_back_is_not_in_the_log() {
    let (database, mut client) = replays(&["CREATE TABLE a (v PRIMARY KEY); INSERT INTO a VALUES (1)"]);
    let before = database.records().len();
    client.ok("BEGIN; INSERT INTO a VALUES (2); CREATE TABLE b (v); INSERT INTO b VALUES (1); DROP TABLE a; ROLLBACK");
    client.ok("BEGIN; UPDATE a SET v = v; DELETE FROM a WHERE v > 99; COMMIT; BEGIN; SELECT 1; COMMIT");
    client.ok("BEGIN; SAVEPOINT s; INSERT INTO a VALUES (5); ROLLBACK TO s; COMMIT");
    assert_eq!(client.fails("INSERT INTO a VALUES (7), (1)"), "23505");
    let mut gone = database.session();
    gone.ok("BEGIN; INSERT INTO a VALUES (8)");
    drop(gone);
    assert_eq!(database.records().len(), before);
    // What was done and done back is.
    client.ok("BEGIN; INSERT INTO a VALUES (5); UPDATE a SET v = 6 WHERE v = 5; DELETE FROM a WHERE v = 6; COMMIT");
    assert_eq!(client.rows("SELECT * FROM a"), [["1"]]);
    database.assert_replays();
}

#[test]
fn savepoints_cut_rows_and_schema() {
    let (_, mut client) = replays(&[
        "CREATE TABLE a (v PRIMARY KEY)",
        "BEGIN; INSERT INTO a VALUES (1); SAVEPOINT s; INSERT INTO a VALUES (2); ALTER TABLE a ADD COLUMN w;
         INSERT INTO a VALUES (3, 3); ROLLBACK TO s; INSERT INTO a VALUES (4); COMMIT",
        "BEGIN; SAVEPOINT s; UPDATE a SET v = 10 WHERE v = 1; SAVEPOINT \"T t\"; DELETE FROM a; CREATE TABLE b (x);
         INSERT INTO b VALUES (1); ROLLBACK TO SAVEPOINT \"T t\"; RELEASE s; INSERT INTO a VALUES (5); COMMIT",
        "BEGIN; SAVEPOINT s; INSERT INTO a VALUES (6); SAVEPOINT s; INSERT INTO a VALUES (7); ROLLBACK TO s; RELEASE s;
         INSERT INTO a VALUES (8); ROLLBACK TO s; INSERT INTO a VALUES (9); COMMIT",
        "BEGIN; SELECT 1; SAVEPOINT s; SELECT 2; SAVEPOINT t; INSERT INTO a VALUES (11); ROLLBACK TO s;
         CREATE TABLE d (x); INSERT INTO d VALUES (1); RELEASE s; COMMIT",
        "BEGIN; CREATE TABLE e (id INTEGER PRIMARY KEY AUTOINCREMENT); SAVEPOINT s; INSERT INTO e DEFAULT VALUES;
         ROLLBACK TO s; COMMIT",
    ]);
    assert_eq!(client.rows("SELECT v FROM a ORDER BY v"), [["4"], ["5"], ["9"], ["10"]]);
}

#[test]
fn upsert_and_replace() {
    let (_, mut client) = replays(&[
        "CREATE TABLE a (id INTEGER PRIMARY KEY, u UNIQUE, v); CREATE TABLE b (u UNIQUE, v);
         INSERT INTO a VALUES (1, 1, 0), (2, 2, 0); INSERT INTO b VALUES (1, 0), (2, 0)",
        "INSERT INTO a VALUES (1, 5, 1) ON CONFLICT (id) DO UPDATE SET v = excluded.v + 10",
        "INSERT OR REPLACE INTO a VALUES (3, 2, 7); REPLACE INTO b VALUES (1, 8)",
        "INSERT OR IGNORE INTO a VALUES (3, 9, 9), (4, 4, 4); UPDATE OR REPLACE b SET u = 1",
        "INSERT INTO b VALUES (1, 1) ON CONFLICT DO NOTHING; REPLACE INTO a VALUES (1, 4, 4)",
    ]);
    assert_eq!(client.rows("SELECT * FROM a ORDER BY id"), [["1", "4", "4"], ["3", "2", "7"]]);
}

#[test]
fn null_in_a_declared_key_is_refused() {
    let (database, mut client) = replays(&[
        "CREATE TABLE a (k TEXT PRIMARY KEY, v); CREATE TABLE b (x, y, rowid, PRIMARY KEY (x, y));
         CREATE TABLE c (v); CREATE TRIGGER t AFTER INSERT ON c BEGIN INSERT INTO a VALUES (new.v, 1); END;
         CREATE TABLE d (k INTEGER PRIMARY KEY DESC)",
        "INSERT INTO a VALUES ('x', 1); INSERT INTO b VALUES (1, 2, 3)",
    ]);
    for sql in [
        "INSERT INTO a (v) VALUES (2)",
        "UPDATE a SET k = NULL",
        "INSERT INTO b VALUES (1, NULL, 1)",
        "INSERT INTO c VALUES (NULL)",
        "INSERT INTO d VALUES (NULL)",
        "INSERT INTO a SELECT NULL, 1 UNION ALL SELECT 'y', 2",
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 2000)
         INSERT INTO a SELECT nullif(i, 1999), i FROM n",
    ] {
        assert_eq!(client.fails(sql), "23502", "{sql}");
    }
    client.ok("INSERT INTO b VALUES (5, 6, NULL)");
    database.assert_replays();
}

#[test]
fn replay_is_batched_and_not_repeated() {
    let database = Database::new();
    let mut client = database.session();
    client.ok("CREATE TABLE a (v)");
    for _ in 0..600 {
        client.ok("INSERT INTO a VALUES (1)");
    }
    let other = database.assert_replays();
    use mainstay::engine::Engine;
    let error = other.engine.apply(&database.records()[600..]).unwrap_err();
    assert!(error.to_string().contains("given again"), "{error}");
}

#[test]
fn what_does_not_fit_is_an_error() {
    use mainstay::engine::Engine;
    let database = Database::new();
    let mut client = database.session();
    client.ok("CREATE TABLE a (k INTEGER PRIMARY KEY, v); INSERT INTO a VALUES (1, 1); UPDATE a SET v = 2");
    client.ok("INSERT INTO a VALUES (2, 2); DELETE FROM a WHERE k = 2");
    let records = database.records();
    for (kept, word) in
        [(vec![1], "does not exist"), (vec![0, 2], "NOTFOUND"), (vec![0, 1, 1], "again"), (vec![0, 4], "NOTFOUND")]
    {
        let other = Database::standby();
        let some: Vec<_> = kept.iter().map(|position: &usize| records[*position].clone()).collect();
        let error = other.engine.apply(&some).unwrap_err().to_string();
        assert!(error.contains(word), "{kept:?}: {error}");
        assert!(other.engine.applied().unwrap().is_none(), "{kept:?}: nothing of the batch stays");
    }
    let other = Database::standby();
    let mut foreign = records[0].clone();
    foreign.payload[1] = 2;
    assert!(other.engine.apply(&[foreign]).unwrap_err().to_string().contains("database 2"));
}
