//! What clients see: transactions, refusals, failures of the log and of SQLite.

use std::sync::Arc;
use std::time::Instant;

use mainstay::engine::Engine;
use mainstay::lsn::Lsn;
use mainstay::server::pg::{Backend, ClientInfo, OwnedValue, PgType, Scope, Severity, TransactionStatus::*};
use mainstay::wal::{AppendError, CommitError};

use super::engine::SqliteEngine;
use super::test_support::{Database, Seen, WRITER_WAIT, contents};

fn with(sql: &str) -> Database {
    let database = Database::new();
    database.session().ok(sql);
    database
}

#[test]
fn tags_are_those_of_postgresql() {
    let database = Database::new();
    let mut client = database.session();
    for (sql, tag) in [
        ("CREATE TABLE t (a INTEGER PRIMARY KEY, b)", "CREATE TABLE"),
        ("INSERT INTO t VALUES (1, 1), (2, 2)", "INSERT 0 2"),
        ("WITH x AS (SELECT 3 AS a) INSERT INTO t SELECT a, a FROM x", "INSERT 0 1"),
        ("INSERT INTO t VALUES (1, 5) ON CONFLICT DO NOTHING", "INSERT 0 0"),
        ("INSERT INTO t VALUES (1, 5) ON CONFLICT (a) DO UPDATE SET b = 5", "INSERT 0 1"),
        ("UPDATE t SET b = 0 WHERE a > 1", "UPDATE 2"),
        ("WITH x AS (SELECT 3 AS a) UPDATE t SET b = 1 WHERE a IN (SELECT a FROM x)", "UPDATE 1"),
        ("SELECT * FROM t", "SELECT 3"),
        ("VALUES (1), (2)", "SELECT 2"),
        ("WITH x AS (SELECT 1) SELECT * FROM x", "SELECT 1"),
        ("EXPLAIN SELECT 1", "EXPLAIN"),
        ("PRAGMA table_info(t)", "SELECT 2"),
        ("CREATE INDEX i ON t (b)", "CREATE INDEX"),
        ("ALTER TABLE t RENAME b TO c", "ALTER TABLE"),
        ("BEGIN", "BEGIN"),
        ("SAVEPOINT s", "SAVEPOINT"),
        ("DELETE FROM t", "DELETE 3"),
        ("SELECT * FROM t", "SELECT 0"),
        ("PRAGMA table_info(t)", "SELECT 2"),
        ("EXPLAIN SELECT 1", "EXPLAIN"),
        ("ROLLBACK TO s", "ROLLBACK"),
        ("RELEASE s", "RELEASE"),
        ("COMMIT", "COMMIT"),
        ("START TRANSACTION", "START TRANSACTION"),
        ("ROLLBACK", "ROLLBACK"),
        ("SET search_path = x", "SET"),
        ("SHOW server_version", "SHOW"),
        ("DROP TABLE t", "DROP TABLE"),
    ] {
        assert_eq!(client.tag(sql), tag, "{sql}");
    }
    database.assert_replays();
}

#[test]
fn returning_gives_rows_and_the_tag() {
    let database = with("CREATE TABLE t (a INTEGER PRIMARY KEY AUTOINCREMENT, b TEXT)");
    let mut seen = Seen::default();
    let sql = "INSERT INTO t (b) VALUES ($1), ($2) RETURNING a, b";
    let parameters = [OwnedValue::Text("x".into()), OwnedValue::Null];
    let tag = database.session().0.execute(sql, &parameters, Scope::Single, &mut seen).unwrap();
    assert_eq!(
        (tag.0.as_str(), seen.rows),
        ("INSERT 0 2", vec![vec!["1".into(), "x".into()], vec!["2".into(), "NULL".into()]])
    );
    assert_eq!(seen.columns[0].pg_type, PgType::INT8);
}

#[test]
fn what_would_escape_the_log_is_refused() {
    let database = with("CREATE TABLE t (a); INSERT INTO t VALUES (1)");
    let mut client = database.session();
    let before = database.records().len();
    for block in [false, true] {
        for sql in [
            "VACUUM",
            "VACUUM INTO '/tmp/x'",
            "ATTACH 'x' AS y",
            "ATTACH 'x' || 'y' AS y",
            "DETACH main",
            "PRAGMA journal_mode = DELETE",
            "PRAGMA schema_version = 5",
            "PRAGMA writable_schema = 1",
            "PRAGMA wal_checkpoint",
            "PRAGMA foreign_keys = 0",
            "CREATE VIRTUAL TABLE v USING fts5(a)",
            "CREATE TEMP TRIGGER u AFTER INSERT ON t BEGIN SELECT 1; END",
            "CREATE TABLE u (a UNIQUE ON CONFLICT REPLACE)",
            "CREATE TABLE u (_rowid_)",
        ] {
            if block {
                client.ok("BEGIN; INSERT INTO t VALUES (2)");
            }
            assert_eq!(client.fails(sql), "0A000", "{sql}");
            if block {
                client.ok("ROLLBACK");
            }
        }
        for sql in [
            "UPDATE mainstay_state SET applied = 0",
            "DROP TABLE mainstay_state",
            "CREATE TABLE mainstay_x (a)",
            "ALTER TABLE t RENAME TO mainstay_x",
            "CREATE INDEX x ON mainstay_state (applied)",
            "CREATE TRIGGER x AFTER UPDATE ON mainstay_state BEGIN SELECT 1; END",
        ] {
            assert_eq!(client.fails(sql), "42939", "{sql}");
        }
    }
    client.ok("ANALYZE");
    let before = before + 1;
    for sql in
        ["INSERT INTO sqlite_schema VALUES (1, 2, 3, 4, 5)", "DELETE FROM sqlite_schema", "DELETE FROM sqlite_stat1"]
    {
        assert_eq!(client.fails(sql), "42501", "{sql}");
    }
    assert_eq!(database.records().len(), before);
    client.ok("PRAGMA table_list; PRAGMA foreign_key_check; PRAGMA user_version; SELECT * FROM pragma_table_info('t')");
    assert_eq!(client.rows("SELECT a FROM t"), [["1"]]);
}

#[test]
fn a_failed_block_takes_only_its_end() {
    let database = with("CREATE TABLE t (a PRIMARY KEY)");
    let mut client = database.session();
    client.ok("BEGIN; INSERT INTO t VALUES (1)");
    assert_eq!(client.0.transaction_status(), InTransaction);
    assert_eq!(client.fails("INSERT INTO t VALUES (1)"), "23505");
    assert_eq!(client.0.transaction_status(), Failed);
    for sql in
        ["SELECT 1", "INSERT INTO t VALUES (2)", "SAVEPOINT s", "BEGIN", "SHOW server_version", "SELEC", "VACUUM"]
    {
        assert_eq!(client.fails(sql), "25P02", "{sql}");
    }
    assert_eq!(client.tag("COMMIT"), "ROLLBACK");
    assert_eq!(client.0.transaction_status(), Idle);
    client.ok("BEGIN; INSERT INTO t VALUES (1); SAVEPOINT s");
    assert_eq!(client.fails("SELECT * FROM missing"), "42P01");
    client.ok("ROLLBACK TO s; INSERT INTO t VALUES (2); COMMIT");
    assert_eq!(client.rows("SELECT a FROM t"), [["1"], ["2"]]);
    database.assert_replays();
}

#[test]
fn an_error_of_reading_fails_the_block_too() {
    let database = with("CREATE TABLE t (a)");
    let mut client = database.session();
    client.ok("BEGIN; SAVEPOINT s");
    assert_eq!(client.fails("SELECT missing FROM t"), "42703");
    assert_eq!(client.fails("SELECT 1"), "25P02");
    client.ok("ROLLBACK TO s; SELECT 1");
    assert_eq!(client.fails("ROLLBACK TO other"), "3B001");
    client.ok("ROLLBACK");
}

#[test]
fn a_statement_that_ends_sqlites_transaction_ends_the_block() {
    let database = with("CREATE TABLE t (a PRIMARY KEY); INSERT INTO t VALUES (1)");
    let mut client = database.session();
    client.ok("BEGIN; INSERT INTO t VALUES (2); SAVEPOINT s; CREATE TABLE u (a)");
    assert_eq!(client.fails("INSERT OR ROLLBACK INTO t VALUES (1)"), "23505");
    assert_eq!(client.fails("SELECT 1"), "25P02");
    // Another may write at once.
    database.session().ok("INSERT INTO t VALUES (3)");
    assert_eq!(client.fails("ROLLBACK TO s"), "25P02");
    assert_eq!(client.tag("COMMIT"), "ROLLBACK");
    assert_eq!(client.fails("INSERT OR ROLLBACK INTO t VALUES (1)"), "23505");
    assert_eq!(client.rows("SELECT a FROM t"), [["1"], ["3"]]);
    database.assert_replays();
}

#[test]
fn readers_see_committed_rows_and_wait_for_nobody() {
    let database = with("CREATE TABLE t (a); INSERT INTO t VALUES (1)");
    let (mut writer, mut reader) = (database.session(), database.session());
    writer.ok("BEGIN; INSERT INTO t VALUES (2); ALTER TABLE t ADD COLUMN b");
    assert_eq!(writer.rows("SELECT * FROM t"), [["1", "NULL"], ["2", "NULL"]]);
    assert_eq!(reader.rows("SELECT * FROM t"), [["1"]]);
    writer.ok("COMMIT");
    assert_eq!(reader.rows("SELECT * FROM t"), [["1", "NULL"], ["2", "NULL"]]);
    // Nor does the writing connection go by what it compiled before.
    let sql = "BEGIN; INSERT INTO t (a) VALUES (3)";
    writer.ok(sql);
    assert_eq!(writer.rows("SELECT * FROM t WHERE a = 3"), [["3", "NULL"]]);
    writer.ok("SAVEPOINT s; ALTER TABLE t DROP COLUMN b");
    assert_eq!(writer.rows("SELECT * FROM t WHERE a = 3"), [["3"]]);
    writer.ok("ROLLBACK TO s");
    assert_eq!(writer.rows("SELECT * FROM t WHERE a = 3"), [["3", "NULL"]]);
    writer.ok("ROLLBACK");
}

#[test]
fn writers_wait_a_bounded_time() {
    let database = with("CREATE TABLE t (a)");
    let (mut first, mut second) = (database.session(), database.session());
    first.ok("BEGIN; INSERT INTO t VALUES (1)");
    let started = Instant::now();
    assert_eq!(second.fails("INSERT INTO t VALUES (2)"), "55P03");
    assert!(started.elapsed() >= WRITER_WAIT);
    drop(first);
    second.ok("INSERT INTO t VALUES (3)");
    assert_eq!(second.rows("SELECT a FROM t"), [["3"]]);
}

#[test]
fn isolation_is_what_was_asked_for() {
    let database = with("CREATE TABLE t (a); INSERT INTO t VALUES (1)");
    let (mut client, mut other) = (database.session(), database.session());
    client.ok("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
    assert_eq!(client.rows("SHOW transaction_isolation"), [["repeatable read"]]);
    assert_eq!(client.rows("SELECT count(*) FROM t"), [["1"]]);
    other.ok("INSERT INTO t VALUES (2)");
    assert_eq!(client.rows("SELECT count(*) FROM t"), [["1"]]);
    assert_eq!(client.fails("DELETE FROM t"), "25006");
    client.ok("ROLLBACK; BEGIN");
    assert_eq!(client.rows("SELECT count(*) FROM t"), [["2"]]);
    other.ok("INSERT INTO t VALUES (3)");
    assert_eq!(client.rows("SELECT count(*) FROM t"), [["3"]]);
    client.ok("COMMIT; BEGIN IMMEDIATE; SELECT count(*) FROM t");
    let started = Instant::now();
    assert_eq!(other.fails("INSERT INTO t VALUES (4)"), "55P03");
    assert!(started.elapsed() >= WRITER_WAIT);
    client.ok("INSERT INTO t VALUES (5); COMMIT");
    database.assert_replays();
}

#[test]
fn an_implicit_transaction_ends_as_a_whole() {
    let database = with("CREATE TABLE t (a PRIMARY KEY)");
    let mut client = database.session();
    let before = database.records().len();
    let run = |client: &mut super::test_support::Client, sql: &str| {
        client.0.execute(sql, &[], Scope::Implicit, &mut Seen::default()).map(|tag| tag.0)
    };
    run(&mut client, "INSERT INTO t VALUES (1)").unwrap();
    assert_eq!(client.0.transaction_status(), Idle);
    run(&mut client, "INSERT INTO t VALUES (1)").unwrap_err();
    client.0.end_implicit(false).unwrap();
    assert_eq!(database.records().len(), before);
    for sql in ["SELECT 1", "INSERT INTO t VALUES (1)", "INSERT INTO t VALUES (2)"] {
        run(&mut client, sql).unwrap();
    }
    client.0.end_implicit(true).unwrap();
    assert_eq!(database.records().len(), before + 1);
    for sql in ["INSERT INTO t VALUES (3)", "BEGIN", "INSERT INTO t VALUES (4)"] {
        run(&mut client, sql).unwrap();
    }
    client.0.end_implicit(true).unwrap();
    assert_eq!(client.0.transaction_status(), InTransaction);
    run(&mut client, "ROLLBACK").unwrap();
    for sql in ["INSERT INTO t VALUES (5)", "COMMIT", "INSERT INTO t VALUES (6)"] {
        run(&mut client, sql).unwrap();
    }
    client.0.end_implicit(false).unwrap();
    assert_eq!(client.rows("SELECT a FROM t"), [["1"], ["2"], ["5"]]);
    database.assert_replays();
}

#[test]
fn odd_transaction_control_is_answered_as_postgresql_does() {
    let database = Database::new();
    let mut client = database.session();
    for (sql, state) in [("COMMIT", "25P01"), ("ROLLBACK", "25P01"), ("SET TRANSACTION READ ONLY", "25P01")] {
        let notices = client.with(sql, &[]).notices;
        assert_eq!((notices[0].severity, notices[0].state.0), (Severity::Warning, state), "{sql}");
    }
    for sql in ["SAVEPOINT s", "RELEASE s", "ROLLBACK TO s"] {
        assert_eq!(client.fails(sql), "25P01", "{sql}");
    }
    client.ok("BEGIN");
    assert_eq!(client.with("BEGIN", &[]).notices[0].state.0, "25001");
    client.ok("COMMIT AND CHAIN");
    assert_eq!(client.0.transaction_status(), InTransaction);
    client.ok("SELECT 1");
    assert_eq!(client.fails("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"), "25001");
    client.ok("ROLLBACK");
    assert_eq!(client.fails("SHOW missing"), "42704");
    assert_eq!(client.with("SET a = 1", &[]).notices[0].severity, Severity::Notice);
}

#[test]
fn describe_says_what_execute_does() {
    let database = with("CREATE TABLE t (a INTEGER PRIMARY KEY, b BOOLEAN, c)");
    let mut client = database.session();
    let described =
        client.0.describe("SELECT a, b, c, count(*) FROM t WHERE c = $2 AND a = $1", &[PgType::INT4]).unwrap();
    assert_eq!(described.parameters, [PgType::INT4, PgType::TEXT]);
    let types: Vec<_> = described.columns.iter().map(|column| column.pg_type).collect();
    assert_eq!(types, [PgType::INT8, PgType::BOOL, PgType::TEXT, PgType::INT8]);
    assert_eq!(client.0.describe("INSERT INTO t (c) VALUES ($1)", &[]).unwrap().columns, []);
    assert_eq!(client.0.describe("SHOW timezone", &[]).unwrap().columns.len(), 1);
    assert_eq!(client.0.describe("SELECT * FROM missing", &[]).unwrap_err().state.0, "42P01");
    assert_eq!(client.0.describe("PRAGMA schema_version = 1", &[]).unwrap_err().state.0, "0A000");
    client.ok("BEGIN; CREATE TABLE u (x REAL)");
    assert_eq!(client.0.describe("SELECT x FROM u", &[]).unwrap().columns[0].pg_type, PgType::FLOAT8);
    // Describing runs nothing.
    client.0.describe("DELETE FROM t", &[]).unwrap();
    client.ok("COMMIT");
}

#[test]
fn others_may_not_connect() {
    let database = Database::new();
    let connect = |user: &str, database_name: &str| {
        let client = ClientInfo { user: user.into(), database: database_name.into(), ..ClientInfo::default() };
        database.engine.connect(&client).err().map(|error| error.state.0)
    };
    assert_eq!(connect("postgres", "postgres"), None);
    assert_eq!(connect("root", "postgres"), Some("28000"));
    assert_eq!(connect("postgres", "shop"), Some("3D000"));
}

#[test]
fn a_log_that_refuses_leaves_nothing() {
    let database = with("CREATE TABLE t (a)");
    let mut client = database.session();
    for (failure, state) in [
        (AppendError::DiskFull, "53100"),
        (AppendError::TooLarge { len_bytes: 2, limit_bytes: 1 }, "54000"),
        (AppendError::Fenced, "25006"),
    ] {
        database.log.0.lock().append_failures = vec![failure];
        assert_eq!(client.fails("INSERT INTO t VALUES (1)"), state);
    }
    database.log.0.lock().append_failures =
        vec![AppendError::Busy { len_bytes: 1 }, AppendError::Busy { len_bytes: 1 }];
    client.ok("INSERT INTO t VALUES (2)");
    assert_eq!(database.log.0.lock().waits, 2);
    assert_eq!(client.rows("SELECT a FROM t"), [["2"]]);
    database.assert_replays();
}

#[test]
fn an_unknown_outcome_is_told_and_stops_writes() {
    let database = with("CREATE TABLE t (a)");
    let mut client = database.session();
    database.log.0.lock().commit_failure = Some(CommitError::Fenced);
    assert_eq!(client.fails("INSERT INTO t VALUES (1)"), "08007");
    assert_eq!(client.fails("INSERT INTO t VALUES (2)"), "58030");
    assert_eq!(client.rows("SELECT a FROM t"), Vec::<Vec<String>>::new());
    // SQLite is behind the log, not ahead: opened again, replay brings it.
    let applied = database.engine.applied().unwrap();
    let missing: Vec<_> = database.records().into_iter().filter(|record| record.end > applied).collect();
    assert_eq!(missing.len(), 1);
    drop(client);
    let Database { engine, dir, .. } = database;
    drop(engine);
    let engine = SqliteEngine::open(dir.path()).unwrap();
    assert_eq!(engine.applied().unwrap(), applied);
    engine.apply(&missing).unwrap();
}

#[test]
fn demotion_ends_writes_and_gives_the_writer_to_replay() {
    let database = with("CREATE TABLE t (a)");
    let (mut client, mut other) = (database.session(), database.session());
    client.ok("BEGIN; INSERT INTO t VALUES (1)");
    database.engine.demote();
    assert_eq!(other.fails("INSERT INTO t VALUES (2)"), "25006");
    assert_eq!(client.fails("INSERT INTO t VALUES (3)"), "25006");
    assert_eq!(client.tag("COMMIT"), "ROLLBACK");
    assert_eq!(client.rows("SELECT a FROM t"), Vec::<Vec<String>>::new());
    let elsewhere = database.replayed();
    elsewhere.engine.write_to(Box::new(database.log.clone()));
    elsewhere.session().ok("INSERT INTO t VALUES (4)");
    database.engine.apply(&database.records()[1..]).unwrap();
    assert_eq!(client.rows("SELECT a FROM t"), [["4"]]);
    assert_eq!(contents(database.dir.path()), contents(elsewhere.dir.path()));
    database.engine.write_to(Box::new(database.log.clone()));
    client.ok("INSERT INTO t VALUES (5)");
}

#[test]
fn demotion_stops_a_statement_that_runs() {
    let database = with("CREATE TABLE t (a)");
    let mut client = database.session();
    client.ok("BEGIN; INSERT INTO t VALUES (1)");
    let thread = std::thread::spawn(move || client.fails(ENDLESS));
    database.engine.demote();
    let state = thread.join().unwrap();
    assert_eq!(state, "25006");
}

const ENDLESS: &str = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";

#[test]
fn a_running_statement_can_be_cancelled() {
    let database = with("CREATE TABLE t (a)");
    for begin in ["SELECT 1", "BEGIN; INSERT INTO t VALUES (1)"] {
        let mut client = database.session();
        client.ok(begin);
        let interrupter = client.0.interrupter();
        let thread = std::thread::spawn(move || {
            let state = client.fails(ENDLESS);
            (client, state)
        });
        // Once is enough for a statement that runs; it is not said when it begins to.
        while !thread.is_finished() {
            interrupter.interrupt();
            std::thread::yield_now();
        }
        let (mut client, state) = thread.join().unwrap();
        assert_eq!(state, "57014");
        client.ok("ROLLBACK; INSERT INTO t VALUES (2)");
    }
}

#[test]
fn waiting_for_the_writer_can_be_cancelled() {
    let database = with("CREATE TABLE t (a)");
    let (mut first, mut second) = (database.session(), database.session());
    first.ok("BEGIN; INSERT INTO t VALUES (1)");
    let interrupter = second.0.interrupter();
    let thread = std::thread::spawn(move || second.fails("INSERT INTO t VALUES (2)"));
    while !thread.is_finished() {
        interrupter.interrupt();
        std::thread::yield_now();
    }
    assert_eq!(thread.join().unwrap(), "57014");
    first.ok("COMMIT");
}

#[test]
fn checkpoints_say_what_is_durable_while_sessions_write() {
    let database = with("CREATE TABLE t (a)");
    let mut reader = database.session();
    // A reader of an old state keeps SQLite's own checkpoint from finishing.
    reader.ok("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT * FROM t");
    let mut writer = database.session();
    writer.ok("INSERT INTO t VALUES (1)");
    let applied = database.engine.applied().unwrap();
    writer.ok("BEGIN; INSERT INTO t VALUES (2)");
    assert_eq!(database.engine.checkpoint().unwrap(), applied);
    writer.ok("COMMIT");
    assert!(database.engine.checkpoint().unwrap() > applied);
    assert_eq!(Database::standby().engine.checkpoint().unwrap(), Lsn::NONE);
}

#[test]
fn a_file_that_is_no_database_is_named() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("main.sqlite"), [7; 8192]).unwrap();
    let error = SqliteEngine::open(dir.path()).err().unwrap().to_string();
    assert!(error.contains("main.sqlite") && error.contains("not a database"), "{error}");
}

#[test]
fn sixteen_clients_at_once() {
    let database = Arc::new(with("CREATE TABLE t (who, n)"));
    let threads: Vec<_> = (0..16)
        .map(|who| {
            let database = Arc::clone(&database);
            std::thread::spawn(move || {
                let mut client = database.session();
                for n in 0..20 {
                    client.ok(&format!(
                        "BEGIN; INSERT INTO t VALUES ({who}, {n}); SELECT 1; COMMIT; SELECT count(*) FROM t"
                    ));
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(database.session().rows("SELECT count(*) FROM t"), [["320"]]);
    database.assert_replays();
}

#[test]
fn a_block_fails_from_outside_and_only_a_block() {
    let database = with("CREATE TABLE t (a)");
    let mut client = database.session();
    client.0.fail_transaction();
    assert_eq!(client.0.transaction_status(), Idle);
    client.ok("BEGIN; INSERT INTO t VALUES (1)");
    client.0.fail_transaction();
    assert_eq!(client.0.transaction_status(), Failed);
    assert_eq!(client.fails("SELECT 1"), "25P02");
    assert_eq!(client.tag("COMMIT"), "ROLLBACK");
    assert_eq!(client.rows("SELECT * FROM t").len(), 0);
}

#[test]
fn the_version_is_the_same_wherever_it_is_told() {
    let database = Database::new();
    let mut client = database.session();
    let version = mainstay::server::pg::SERVER_VERSION;
    assert_eq!(client.rows("SHOW server_version"), [[version]]);
    assert!(client.rows("SELECT version()")[0][0].starts_with(&format!("PostgreSQL {version}")));
}
