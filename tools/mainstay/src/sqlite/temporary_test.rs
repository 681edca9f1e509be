//! Temporary tables: the session's own, part of its transactions, and in no record.

use mainstay::server::pg::{OwnedValue, PgType};

use super::test_support::{Client, Database, contents};

fn with(sql: &str) -> (Database, Client) {
    let database = Database::new();
    let mut client = database.session();
    client.ok(sql);
    (database, client)
}

const STORED: &str =
    "CREATE TABLE stored (a INTEGER PRIMARY KEY, b TEXT); INSERT INTO stored VALUES (1, 'one'), (2, 'two')";

/// Nothing is left where tables were lent to.
fn nothing_is_left_on_the_writer(database: &Database) {
    let turn = database.engine.shared.turnstile.acquire(super::test_support::WRITER_WAIT, &false.into()).unwrap();
    let writer = database.engine.shared.turnstile.writer(turn).unwrap();
    let left: i64 =
        writer.for_describe().0.query_row("SELECT count(*) FROM sqlite_temp_schema", [], |row| row.get(0)).unwrap();
    assert_eq!(left, 0);
}

#[test]
fn what_is_temporary_is_in_no_record_and_no_file() {
    let (database, mut client) = with(STORED);
    let (records, before) = (database.records(), contents(database.dir.path()));
    for (sql, tag) in [
        ("CREATE TEMP TABLE t (id SERIAL PRIMARY KEY, v TEXT NOT NULL)", "CREATE TABLE"),
        ("INSERT INTO t (v) VALUES ('x'), ('y')", "INSERT 0 2"),
        ("CREATE TEMPORARY TABLE u AS SELECT * FROM stored", "SELECT 2"),
        ("CREATE TABLE pg_temp.w (a, b)", "CREATE TABLE"),
        ("CREATE LOCAL TEMP TABLE IF NOT EXISTS temp.w (a)", "CREATE TABLE"),
        ("CREATE UNIQUE INDEX i ON t (v)", "CREATE INDEX"),
        ("CREATE TEMP VIEW v AS SELECT t.id, b FROM t JOIN stored ON a = id", "CREATE VIEW"),
        ("INSERT INTO w SELECT a, b FROM stored", "INSERT 0 2"),
        ("WITH x AS (SELECT max(a) AS a FROM stored) UPDATE w SET b = 'z' WHERE a = (SELECT a FROM x)", "UPDATE 1"),
        ("INSERT INTO t VALUES (1, 'z') ON CONFLICT (id) DO UPDATE SET v = excluded.v", "INSERT 0 1"),
        ("ALTER TABLE w RENAME TO x", "ALTER TABLE"),
        ("ALTER TABLE x ADD COLUMN c", "ALTER TABLE"),
        ("DELETE FROM x WHERE a = 1", "DELETE 1"),
        ("ANALYZE t", "ANALYZE"),
        ("SELECT * FROM v", "SELECT 2"),
        ("PRAGMA table_info(x)", "SELECT 3"),
        ("EXPLAIN SELECT * FROM t", "EXPLAIN"),
        ("EXPLAIN DROP TABLE t", "EXPLAIN"),
        ("TRUNCATE u", "TRUNCATE TABLE"),
        ("DROP TABLE u", "DROP TABLE"),
        ("BEGIN", "BEGIN"),
        ("DELETE FROM t", "DELETE 2"),
        ("ROLLBACK", "ROLLBACK"),
    ] {
        assert_eq!(client.tag(sql), tag, "{sql}");
    }
    assert_eq!(client.rows("SELECT * FROM t ORDER BY id"), [["1", "z"], ["2", "y"]]);
    assert_eq!(client.rows("SELECT count(*) FROM t"), [["2"]]);
    assert_eq!(client.rows("SELECT t.v, b FROM t JOIN stored ON a = id ORDER BY id"), [["z", "one"], ["y", "two"]]);
    assert_eq!(client.rows("SELECT * FROM pg_temp.x"), [["2", "z", "NULL"]]);
    assert_eq!(client.fails("INSERT INTO t VALUES (9, 'y')"), "23505");
    assert_eq!(client.fails("INSERT INTO t VALUES (9, NULL)"), "23502");
    assert_eq!((database.records().len(), contents(database.dir.path())), (records.len(), before));
    // Nobody else has them.
    assert_eq!(database.session().fails("SELECT * FROM t"), "42P01");
    let mut again = database.session();
    again.ok("CREATE TEMP TABLE t (other)");
    assert_eq!(again.rows("SELECT count(*) FROM t"), [["0"]]);
    drop(client);
    assert_eq!(database.session().fails("SELECT * FROM x"), "42P01");
}

#[test]
fn changes_by_what_temporary_tables_hold_are_captured() {
    let (database, mut client) = with(STORED);
    client.ok("CREATE TEMP TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT, b TEXT, c AS (b || '!')); CREATE INDEX i ON t (b);
         CREATE TEMP TABLE w (k TEXT PRIMARY KEY, v) WITHOUT ROWID; CREATE TEMP VIEW v AS SELECT id + 100 AS a, c FROM t;
         INSERT INTO t (b) VALUES ('one'), ('five'); INSERT INTO w VALUES ('x', 1)");
    for (sql, tag) in [
        ("INSERT INTO stored SELECT id + 10, b FROM t", "INSERT 0 2"),
        ("UPDATE stored SET b = c FROM t WHERE t.b = stored.b", "UPDATE 3"),
        ("DELETE FROM stored WHERE a IN (SELECT id + 11 FROM t)", "DELETE 1"),
        ("INSERT INTO stored SELECT * FROM v WHERE true ON CONFLICT DO NOTHING", "INSERT 0 2"),
        ("CREATE TABLE copied AS SELECT t._rowid_ AS r, t.*, k FROM t, w", "SELECT 2"),
        ("WITH x AS (SELECT k FROM w) INSERT INTO copied (k) SELECT k || k FROM x", "INSERT 0 1"),
    ] {
        assert_eq!(client.tag(sql), tag, "{sql}");
        database.assert_replays();
    }
    assert_eq!(
        client.rows("SELECT * FROM stored"),
        [["1", "one!"], ["2", "two"], ["11", "one!"], ["101", "one!"], ["102", "five!"]]
    );
    assert_eq!(
        client.rows("SELECT r, b, k FROM copied"),
        [["1", "one", "x"], ["2", "five", "x"], ["NULL", "NULL", "xx"]]
    );
    assert_eq!(client.fails("INSERT INTO stored SELECT 1, b FROM t"), "23505");
    assert_eq!(client.fails("INSERT INTO stored SELECT 1, missing FROM t"), "42703");
    // The counter of the temporary table is none of the database's.
    client
        .ok("CREATE TABLE counted (id INTEGER PRIMARY KEY AUTOINCREMENT, b); INSERT INTO counted (b) SELECT b FROM t");
    client.ok("INSERT INTO counted (b) VALUES ('x'); DELETE FROM counted");
    let other = database.assert_replays();
    assert_eq!(other.session().rows("SELECT * FROM sqlite_sequence"), [["counted", "3"]]);
    nothing_is_left_on_the_writer(&database);
}

#[test]
fn a_name_that_hides_a_table_hides_nothing_from_the_log() {
    let (database, mut client) = with("CREATE TABLE t (k TEXT PRIMARY KEY, v); INSERT INTO t VALUES ('x', 1)");
    client.ok("CREATE TEMP TABLE t (k TEXT, v); INSERT INTO t VALUES ('y', 2), (NULL, 3)");
    assert_eq!(client.rows("SELECT k FROM t"), [["y"], ["NULL"]]);
    assert_eq!(client.rows("SELECT k FROM main.t"), [["x"]]);
    // NULL in a declared key, which is looked for in the table that was changed.
    assert_eq!(client.fails("INSERT INTO main.t SELECT * FROM t"), "23502");
    client.ok("INSERT INTO main.t SELECT * FROM t WHERE k NOTNULL; UPDATE main.t SET v = 9 WHERE k = 'x'");
    client.ok("DELETE FROM t; ALTER TABLE main.t RENAME TO u; CREATE TABLE main.t (z); INSERT INTO main.t VALUES (1)");
    database.assert_replays();
    assert_eq!(client.rows("SELECT * FROM u"), [["x", "9"], ["y", "2"]]);
    client.ok("DROP TABLE t");
    assert_eq!(client.rows("SELECT * FROM t"), [["1"]]);
}

#[test]
fn they_are_part_of_transactions() {
    let (database, mut client) = with(STORED);
    client.ok("CREATE TEMP TABLE t (a); BEGIN; INSERT INTO stored VALUES (3, 'three'); SAVEPOINT s;
         INSERT INTO t VALUES (1); CREATE TEMP TABLE u (a); INSERT INTO stored VALUES (4, 'four'); ROLLBACK TO s;
         INSERT INTO t VALUES (2); SAVEPOINT s2; INSERT INTO t VALUES (3); RELEASE s2");
    assert_eq!(client.fails("SELECT * FROM u"), "42P01");
    client.ok("ROLLBACK TO s; INSERT INTO t VALUES (4); COMMIT");
    assert_eq!(client.rows("SELECT * FROM t"), [["4"]]);
    assert_eq!(client.rows("SELECT a FROM stored"), [["1"], ["2"], ["3"]]);
    client.ok("BEGIN; CREATE TEMP TABLE u (a); DROP TABLE t; ROLLBACK");
    assert_eq!(client.rows("SELECT * FROM t"), [["4"]]);
    assert_eq!(client.fails("SELECT * FROM u"), "42P01");
    // A statement that ends the transaction of all.
    client
        .ok("CREATE TEMP TABLE k (a PRIMARY KEY); INSERT INTO k VALUES (1); BEGIN; INSERT INTO stored VALUES (7, 'x')");
    assert_eq!(client.fails("INSERT OR ROLLBACK INTO k VALUES (1)"), "23505");
    assert_eq!(client.fails("SELECT 1"), "25P02");
    assert_eq!(client.tag("COMMIT"), "ROLLBACK");
    assert_eq!(client.rows("SELECT count(*) FROM stored WHERE a = 7"), [["0"]]);
    // A failed statement by itself leaves nothing.
    assert_eq!(client.fails("INSERT INTO k VALUES (2), (1)"), "23505");
    assert_eq!(client.rows("SELECT * FROM k"), [["1"]]);
    database.assert_replays();
}

#[test]
fn a_commit_that_fails_takes_them_along() {
    let (database, mut client) = with(STORED);
    client.ok("CREATE TABLE child (a REFERENCES stored DEFERRABLE INITIALLY DEFERRED); CREATE TEMP TABLE t (a)");
    client.ok("BEGIN; INSERT INTO t VALUES (1); INSERT INTO child VALUES (99)");
    assert_eq!(client.fails("COMMIT"), "23503");
    assert_eq!(client.rows("SELECT count(*) FROM t"), [["0"]]);
    database.assert_replays();
}

#[test]
fn a_transaction_that_writes_sees_both_of_its_sides() {
    let (database, mut client) = with(STORED);
    client.ok("CREATE TEMP TABLE t (a, v); INSERT INTO t VALUES (1, 'x'), (3, 'z'); BEGIN; INSERT INTO stored VALUES (3, 'three');
         CREATE TABLE made (a)");
    assert_eq!(client.rows("SELECT b, v FROM stored JOIN t USING (a) ORDER BY a"), [["one", "x"], ["three", "z"]]);
    client.ok("INSERT INTO t VALUES (5, 'only here'); INSERT INTO made SELECT a FROM t");
    assert_eq!(client.rows("SELECT count(*) FROM made JOIN t USING (a)"), [["3"]]);
    client.ok("SAVEPOINT s");
    assert_eq!(client.fails("INSERT INTO t SELECT a, b FROM stored"), "0A000");
    client.ok("ROLLBACK TO s; COMMIT");
    assert_eq!(client.rows("SELECT count(*) FROM made"), [["3"]]);
    database.assert_replays();
}

#[test]
fn a_table_is_filled_from_what_the_transaction_wrote() {
    let (database, mut client) = with(STORED);
    client
        .ok("CREATE TEMP TABLE t (a, v); INSERT INTO t VALUES (1, 'x'); BEGIN; INSERT INTO stored VALUES (3, 'three');
         CREATE TABLE made (a INTEGER, \"B b\" BLOB, r REAL); INSERT INTO made VALUES (7, x'00ff', 1), (8, NULL, 0.5)");
    for (sql, tag) in [
        ("CREATE TEMP TABLE u AS SELECT made.*, made.a || 'x' AS e FROM made ORDER BY a DESC", "SELECT 2"),
        ("CREATE TEMP TABLE IF NOT EXISTS u AS SELECT * FROM made", "CREATE TABLE"),
        (
            "CREATE TEMPORARY TABLE pg_temp.\"W w\" AS SELECT b, v FROM stored LEFT JOIN t USING (a) ORDER BY a",
            "SELECT 3",
        ),
        (
            "CREATE LOCAL TEMP TABLE d ON COMMIT DROP AS WITH x AS (SELECT max(a) AS m FROM stored) SELECT * FROM x",
            "SELECT 1",
        ),
        ("INSERT INTO made SELECT m, NULL, NULL FROM d", "INSERT 0 1"),
    ] {
        assert_eq!(client.tag(sql), tag, "{sql}");
    }
    assert_eq!(client.rows("SELECT a, typeof(r), e FROM u"), [["8", "real", "8x"], ["7", "real", "7x"]]);
    assert_eq!(client.rows("SELECT typeof(\"B b\") FROM u"), [["null"], ["blob"]]);
    assert_eq!(client.rows("SELECT * FROM \"W w\""), [["one", "x"], ["two", "NULL"], ["three", "NULL"]]);
    let two = "CREATE TEMP TABLE p AS SELECT a FROM made WHERE a > $2 AND a < $1";
    let described = client.0.describe(two, &[]).unwrap();
    assert_eq!((described.parameters, described.columns.len()), (vec![PgType::INT8; 2], 0));
    client.with(two, &[OwnedValue::Integer(8), OwnedValue::Integer(3)]);
    client.ok("SAVEPOINT s; CREATE TEMP TABLE gone AS SELECT * FROM made");
    for (sql, state) in [
        ("CREATE TEMP TABLE u AS SELECT * FROM made", "42P07"),
        ("CREATE TEMP TABLE n AS SELECT missing FROM made", "42703"),
        ("CREATE TEMP TABLE n AS SELECT last_insert_rowid() FROM made", "0A000"),
        ("CREATE TEMP TABLE mainstay_x AS SELECT * FROM made", "42939"),
        ("CREATE TEMP TABLE n AS DELETE FROM made RETURNING a", "0A000"),
    ] {
        client.ok("SAVEPOINT s2");
        assert_eq!(client.fails(sql), state, "{sql}");
        client.ok("ROLLBACK TO s2");
    }
    client.ok("ROLLBACK TO s");
    assert_eq!(client.fails("SELECT * FROM gone"), "42P01");
    client.ok("ROLLBACK TO s; COMMIT");
    assert_eq!(client.fails("SELECT * FROM d"), "42P01");
    assert_eq!(
        client.rows("SELECT (SELECT count(*) FROM u), (SELECT a FROM p), (SELECT max(a) FROM made)"),
        [["2", "7", "8"]]
    );
    // Also where a block that has not written sees one state.
    client.ok("BEGIN ISOLATION LEVEL REPEATABLE READ; CREATE TEMP TABLE q AS SELECT * FROM stored; COMMIT");
    assert_eq!(client.rows("SELECT count(*) FROM q"), [["3"]]);
    client.ok("BEGIN; DELETE FROM stored; CREATE TEMP TABLE lost AS SELECT * FROM made; ROLLBACK");
    assert_eq!(client.fails("SELECT * FROM lost"), "42P01");
    let other = database.assert_replays();
    assert_eq!(other.session().fails("SELECT * FROM u"), "42P01");
    nothing_is_left_on_the_writer(&database);
}

#[test]
fn the_catalogs_list_them_for_their_session() {
    let (database, mut client) = with(STORED);
    client.ok("CREATE INDEX by_b ON stored (b); CREATE TEMP TABLE t (id INTEGER PRIMARY KEY, v TEXT NOT NULL CHECK (v <> ''));
         CREATE UNIQUE INDEX i ON t (v); CREATE TEMP VIEW w AS SELECT v FROM t; CREATE TEMP TABLE stored (x INT)");
    let classes = "SELECT n.nspname, c.relname, c.relpersistence, c.relkind FROM pg_class c \
                   JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname IN ('main', 'pg_temp') \
                   AND pg_table_is_visible(c.oid) ORDER BY 1, 2";
    let seen = client.rows(classes);
    assert_eq!(
        seen,
        [
            ["main", "by_b", "p", "i"],
            ["main", "stored_pkey", "p", "i"],
            ["pg_temp", "i", "t", "i"],
            ["pg_temp", "stored", "t", "r"],
            ["pg_temp", "t", "t", "r"],
            ["pg_temp", "t_pkey", "t", "i"],
            ["pg_temp", "w", "t", "v"],
        ]
    );
    let columns = |table: &str| {
        format!("SELECT attname FROM pg_attribute WHERE attrelid = '{table}'::regclass AND attnum > 0 ORDER BY attnum")
    };
    assert_eq!(client.rows(&columns("stored")), [["x"]]);
    assert_eq!(client.rows(&columns("pg_temp.stored")), [["x"]]);
    assert_eq!(client.rows(&columns("main.stored")), [["a"], ["b"]]);
    let tables = "SELECT table_schema, table_name, table_type FROM information_schema.tables \
                  WHERE table_schema NOT IN ('pg_catalog', 'information_schema') ORDER BY 1, 2";
    assert_eq!(
        client.rows(tables),
        [
            ["main", "stored", "BASE TABLE"],
            ["pg_temp", "stored", "LOCAL TEMPORARY"],
            ["pg_temp", "t", "LOCAL TEMPORARY"],
            ["pg_temp", "w", "VIEW"],
        ]
    );
    let definition = "SELECT indexdef FROM pg_indexes WHERE schemaname = 'pg_temp' AND indexname = 'i'";
    assert_eq!(client.rows(definition), [["CREATE UNIQUE INDEX i ON pg_temp.t USING btree (v)"]]);
    let numbers = "SELECT oid FROM pg_constraint WHERE conrelid = 'main.stored'::regclass";
    let (with, without) = (client.rows(numbers), database.session().rows(numbers));
    assert_eq!(with, without, "numbers are the same whatever is temporary");
    // In a transaction as it stands, and nobody else's.
    client.ok("BEGIN; DROP TABLE t; CREATE TEMP TABLE u (a)");
    let names = "SELECT relname FROM pg_class WHERE relpersistence = 't' AND relkind = 'r' ORDER BY 1";
    assert_eq!(client.rows(names), [["stored"], ["u"]]);
    client.ok("INSERT INTO main.stored VALUES (9, 'x')");
    assert_eq!(client.rows(names), [["stored"], ["u"]]);
    client.ok("ROLLBACK");
    assert_eq!(client.rows(names), [["stored"], ["t"]]);
    assert_eq!(database.session().rows(names), Vec::<Vec<String>>::new());
    assert_eq!(database.session().rows("SELECT count(*) FROM pg_namespace WHERE nspname = 'pg_temp'"), [["0"]]);
}

#[test]
fn each_counter_begins_anew_where_it_is() {
    let (database, mut client) = with(
        "CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT, v); CREATE TABLE u (id INTEGER PRIMARY KEY AUTOINCREMENT, v);
         INSERT INTO t (v) VALUES (1), (2); INSERT INTO u (v) VALUES (1), (2)",
    );
    client.ok("CREATE TEMP TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT, v); INSERT INTO t (v) VALUES (1)");
    client.ok("TRUNCATE u RESTART IDENTITY; INSERT INTO u (v) VALUES (3); TRUNCATE t RESTART IDENTITY; INSERT INTO t (v) VALUES (3)");
    assert_eq!(client.rows("SELECT id FROM u"), [["1"]]);
    assert_eq!(client.rows("SELECT id FROM t"), [["1"]]);
    client.ok("INSERT INTO main.t (v) VALUES (3)");
    assert_eq!(client.rows("SELECT id FROM main.t"), [["1"], ["2"], ["3"]]);
    database.assert_replays();
}

#[test]
fn read_only_and_stable_transactions() {
    let (database, mut client) = with(STORED);
    client.ok("CREATE TEMP TABLE t (a); BEGIN READ ONLY; INSERT INTO t VALUES (1)");
    assert_eq!(client.rows("SELECT count(*) FROM t, stored"), [["2"]]);
    assert_eq!(client.fails("INSERT INTO stored SELECT 5, a FROM t"), "25006");
    client.ok(
        "ROLLBACK; BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY; SELECT 1 FROM stored; INSERT INTO t VALUES (1)",
    );
    assert_eq!(client.fails("SELECT * FROM t JOIN stored USING (a)"), "0A000");
    client.ok("ROLLBACK; BEGIN ISOLATION LEVEL REPEATABLE READ; INSERT INTO t VALUES (1)");
    assert_eq!(client.rows("SELECT b FROM t JOIN stored USING (a)"), [["one"]]);
    client.ok("COMMIT; BEGIN");
    assert_eq!(client.rows("SELECT b FROM t JOIN stored USING (a)"), [["one"]]);
    database.session().ok("UPDATE stored SET b = 'uno' WHERE a = 1");
    // With temporary tables as of the block's first use of them; alone as ever.
    assert_eq!(client.rows("SELECT b FROM t JOIN stored USING (a)"), [["one"]]);
    assert_eq!(client.rows("SELECT b FROM stored WHERE a = 1"), [["uno"]]);
    client.ok("COMMIT");
    assert_eq!(client.rows("SELECT b FROM t JOIN stored USING (a)"), [["uno"]]);
}

#[test]
fn what_happens_on_commit() {
    let (_database, mut client) = with(STORED);
    client.ok("CREATE TEMP TABLE d (a) ON COMMIT DELETE ROWS; INSERT INTO d VALUES (1)");
    assert_eq!(client.rows("SELECT count(*) FROM d"), [["0"]]);
    client.ok("BEGIN; INSERT INTO d VALUES (1); CREATE TEMP TABLE x ON COMMIT DROP AS SELECT * FROM stored;
         CREATE TEMP TABLE p (a) ON COMMIT PRESERVE ROWS; INSERT INTO p SELECT a FROM x; ALTER TABLE d RENAME TO e");
    assert_eq!(client.rows("SELECT count(*) FROM x JOIN p USING (a), e"), [["2"]]);
    client.ok("COMMIT");
    assert_eq!(client.fails("SELECT * FROM x"), "42P01");
    assert_eq!(client.rows("SELECT (SELECT count(*) FROM e), (SELECT count(*) FROM p)"), [["0", "2"]]);
    // Not what was to happen to a table that is gone.
    client.ok("DROP TABLE e; CREATE TEMP TABLE e (a); INSERT INTO e VALUES (1)");
    assert_eq!(client.rows("SELECT count(*) FROM e"), [["1"]]);
}

#[test]
fn discard_drops_them() {
    let (database, mut client) = with(STORED);
    for discard in ["DISCARD TEMP", "DISCARD TEMPORARY", "DISCARD ALL"] {
        client.ok("CREATE TEMP TABLE t (a); CREATE TEMP VIEW v AS SELECT * FROM t; INSERT INTO t VALUES (1)");
        client.ok(&format!("BEGIN; {discard}; ROLLBACK"));
        assert_eq!(client.rows("SELECT * FROM v"), [["1"]], "{discard}");
        client.ok(discard);
        assert_eq!(client.fails("SELECT * FROM t"), "42P01", "{discard}");
        client.ok("CREATE TEMP TABLE t (a)");
        client.ok(&format!("BEGIN; {discard}; COMMIT"));
        assert_eq!(client.fails("SELECT * FROM t"), "42P01", "{discard}");
    }
    assert_eq!(client.fails("DISCARD SOMETHING"), "42601");
    database.assert_replays();
}

#[test]
fn what_temporary_tables_cannot_do_is_refused() {
    let (database, mut client) = with(STORED);
    client.ok("CREATE TEMP TABLE t (a)");
    let records = database.records().len();
    for sql in [
        "CREATE TEMP TRIGGER x AFTER INSERT ON stored BEGIN SELECT 1; END",
        "CREATE TEMP TRIGGER x AFTER INSERT ON t BEGIN SELECT 1; END",
        "CREATE TRIGGER x AFTER INSERT ON t BEGIN SELECT 1; END",
        "CREATE TEMP TABLE u (a REFERENCES t (a))",
        "CREATE TEMP TABLE mainstay_x (a)",
        "CREATE VIRTUAL TABLE temp.f USING fts5(a)",
    ] {
        assert!(["0A000", "42939"].contains(&client.fails(sql)), "{sql}");
    }
    assert_eq!(client.fails("SELECT * FROM temp.u"), "42P01");
    assert_eq!(client.fails("SELECT missing FROM t"), "42703");
    assert_eq!(client.fails("SELECT FROM WHERE t"), "42601");
    assert_eq!(database.records().len(), records);
}

#[test]
fn parameters_and_columns_have_their_types() {
    let (_database, mut client) = with(STORED);
    client.ok("CREATE TEMP TABLE t (id INTEGER PRIMARY KEY, done BOOLEAN)");
    let insert = "INSERT INTO t VALUES ($1, $2)";
    assert_eq!(client.0.describe(insert, &[]).unwrap().parameters, [PgType::INT8, PgType::BOOL]);
    client.with(insert, &[OwnedValue::Integer(1), OwnedValue::Integer(1)]);
    let select = "SELECT done, b FROM t JOIN stored ON a = id WHERE id = $1";
    let types = |client: &mut Client| {
        let described = client.0.describe(select, &[]).unwrap();
        described.columns.iter().map(|column| column.pg_type).collect::<Vec<_>>()
    };
    assert_eq!(types(&mut client), [PgType::BOOL, PgType::TEXT]);
    assert_eq!(client.with(select, &[OwnedValue::Integer(1)]).rows, [["1", "one"]]);
    client.0.describe("CREATE TEMP TABLE u (a) ON COMMIT DROP", &[]).unwrap();
    // Also where the transaction has made one side.
    client.ok("BEGIN; CREATE TABLE made (x INTEGER)");
    let described = client.0.describe("INSERT INTO made SELECT id FROM t WHERE id > $1 RETURNING x", &[]).unwrap();
    assert_eq!(described.columns[0].pg_type, PgType::INT8);
    assert_eq!(types(&mut client), [PgType::BOOL, PgType::TEXT]);
    client.ok("COMMIT");
    assert_eq!(client.rows("SELECT count(*) FROM t"), [["1"]]);
}
