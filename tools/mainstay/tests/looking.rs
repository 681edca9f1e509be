//! Looking in from outside: psql's backslash commands, the catalogs through drivers, `pg_stat_activity`, slow statements.

mod support;

use std::time::{Duration, Instant};

use support::programs::{program, python};
use support::{LIMIT, Running, eventually, run, runtime, settings};
use tokio_postgres::{Client, NoTls};

/// A statement that writes for any time.
const ENDLESS: &str = "INSERT INTO parents SELECT i, 'b' FROM \
    (WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n) WHERE i < 0";

/// A node on a directory of its own, with tables that have a bit of everything.
fn node() -> (tempfile::TempDir, Running) {
    let directory = tempfile::tempdir().unwrap();
    let node = Running::start(&directory.path().join("data"), &[]);
    node.rows(
        "CREATE TABLE parents (id INTEGER PRIMARY KEY, name TEXT NOT NULL DEFAULT 'x');
         CREATE TABLE children (id INT PRIMARY KEY, parent INT REFERENCES parents ON DELETE CASCADE, u TEXT UNIQUE, \
                                CHECK (id > 0));
         CREATE INDEX by_parent ON children (parent) WHERE parent > 1;
         CREATE VIEW names AS SELECT name FROM parents",
    );
    (directory, node)
}

/// Connects a client that calls itself so.
async fn connect(node: &Running, name: &str) -> Client {
    let settings = format!("{} application_name={name}", settings(&node.address));
    let (client, connection) = tokio_postgres::connect(&settings, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// What psql prints; it must succeed and say nothing on standard error.
fn psql(node: &Running, arguments: &[&str]) -> String {
    let output = run(program("psql", node).arg("--no-psqlrc").args(arguments));
    assert_eq!((output.code, output.stderr.as_str()), (Some(0), ""), "{arguments:?}: {output:?}");
    let lines: Vec<&str> = output.stdout.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    lines.join("\n")
}

#[test]
fn psql_describes_a_table() {
    let (_directory, node) = node();
    let expected = "\
              Table \"main.children\"
 Column |  Type  | Collation | Nullable | Default
--------+--------+-----------+----------+---------
 id     | bigint |           | not null |
 parent | bigint |           |          |
 u      | text   |           |          |
Indexes:
    \"children_pkey\" PRIMARY KEY, btree (id)
    \"by_parent\" btree (parent) WHERE parent > 1
    \"children_u_key\" UNIQUE CONSTRAINT, btree (u)
Check constraints:
    \"children_check\" CHECK (id > 0)
Foreign-key constraints:
    \"children_parent_fkey\" FOREIGN KEY (parent) REFERENCES parents(id) ON DELETE CASCADE";
    let told = psql(&node, &["-c", "\\d children"]);
    let plain = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(plain(&told), plain(expected), "{told}");
    let parent = psql(&node, &["-c", "\\d parents"]);
    assert!(plain(&parent).contains("name | text | | not null | 'x'"), "{parent}");
    assert!(parent.contains("\"parents_pkey\" PRIMARY KEY, btree (id)"), "{parent}");
    assert!(parent.contains("TABLE \"children\" CONSTRAINT \"children_parent_fkey\""), "{parent}");
    let view = psql(&node, &["-c", "\\d+ names"]);
    assert!(view.contains("View definition:") && view.contains("SELECT name FROM parents"), "{view}");
    let index = psql(&node, &["-c", "\\d by_parent"]);
    assert!(index.contains("btree, for table \"main.children\", predicate (parent > 1)"), "{index}");
}

#[test]
fn psql_lists_what_there_is() {
    let (_directory, node) = node();
    let list = |command: &str| psql(&node, &["--no-align", "--tuples-only", "-c", command]);
    assert_eq!(list("\\d"), "main|children|table|postgres\nmain|names|view|postgres\nmain|parents|table|postgres");
    assert_eq!(list("\\dt"), "main|children|table|postgres\nmain|parents|table|postgres");
    assert_eq!(list("\\dt pa*"), "main|parents|table|postgres");
    assert_eq!(list("\\dt main.children"), "main|children|table|postgres");
    assert_eq!(list("\\dv"), "main|names|view|postgres");
    assert_eq!(
        list("\\di"),
        "main|by_parent|index|postgres|children\nmain|children_pkey|index|postgres|children\n\
         main|children_u_key|index|postgres|children\nmain|parents_pkey|index|postgres|parents"
    );
    assert_eq!(list("\\dn"), "main|postgres");
    assert_eq!(list("\\l"), "postgres|postgres|UTF8|C|C||libc|");
    assert_eq!(list("\\du"), "postgres|Superuser, Create role, Create DB, Replication, Bypass RLS|{}");
    // Nothing of these kinds is here.
    let empty = [
        "\\dAc", "\\dAf+", "\\dAo+", "\\dAp+", "\\dc+", "\\dC+", "\\dd", "\\dD+", "\\ddp", "\\des+", "\\det+",
        "\\deu+", "\\dew+", "\\df+", "\\dF+", "\\dFd+", "\\dFp", "\\dFt+", "\\dl+", "\\dL+", "\\do+", "\\dO+", "\\dP+",
        "\\dRs+", "\\dX", "\\dy+",
    ];
    for command in empty {
        let told = run(program("psql", &node).args(["--no-psqlrc", "--no-align", "--tuples-only", "-c", command]));
        assert!(told.stdout.is_empty() && !told.stderr.contains("ERROR"), "{command}: {told:?}");
    }
    for command in [
        "\\db+",
        "\\dconfig+ *",
        "\\dt+",
        "\\di+",
        "\\l+",
        "\\dn+",
        "\\du+",
        "\\d+ children",
        "\\db",
        "\\dp",
        "\\dt *.*",
        "\\dx",
    ] {
        assert!(!psql(&node, &["-c", command]).is_empty(), "{command}");
    }
    let missing = run(program("psql", &node).args(["--no-psqlrc", "-c", "\\d nothing"]));
    assert!(missing.stderr.contains("Did not find any relation named \"nothing\"."), "{missing:?}");
}

#[test]
fn a_transaction_sees_its_own_tables() {
    let (_directory, node) = node();
    let script =
        ["-c", "BEGIN", "-c", "CREATE TABLE fresh (a)", "-c", "\\dt fresh", "-c", "ROLLBACK", "-c", "\\dt pa*"];
    let told = psql(&node, &script);
    assert!(told.contains("fresh") && told.contains("parents"), "{told}");
    let after = run(program("psql", &node).args(["--no-psqlrc", "-c", "\\dt fresh"]));
    assert!(after.stderr.contains("Did not find any relation"), "{after:?}");
}

#[test]
fn what_sqlite_accepts_is_sqlites() {
    let (_directory, node) = node();
    node.rows("CREATE TABLE pg_class (mine TEXT); INSERT INTO pg_class VALUES ('own')");
    assert_eq!(node.rows("SELECT * FROM pg_class"), [vec!["own".to_owned()]]);
    assert_eq!(
        node.rows("SELECT count(*) FROM pg_catalog.pg_class WHERE relname = 'pg_class' AND relkind = 'r'").len(),
        1
    );
    assert_eq!(node.sqlstate("SELECT * FROM pg_nothing"), "42P01");
    assert_eq!(node.sqlstate("SELECT * FROM pg_type JOIN nowhere ON true"), "42P01");
}

#[test]
fn catalogs_are_joined_with_tables() {
    let (_directory, node) = node();
    node.rows(
        "CREATE TABLE notes (\"table\" TEXT, note VARCHAR_5, size INT, done BOOLEAN);
         INSERT INTO notes VALUES ('parents', 'old', 7, true), ('children', 'new', NULL, false), ('gone', '', 1, false)",
    );
    let joined = "SELECT c.relname, n.note, n.size + 1 FROM pg_catalog.pg_class c JOIN notes n ON n.\"table\" = c.relname \
                  WHERE c.relkind = 'r' ORDER BY 1";
    let row = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>();
    let rows = node.rows(joined);
    assert_eq!(rows.len(), 2, "{rows:?}");
    assert_eq!((&rows[0][..2], &rows[1]), (&row(&["children", "new"])[..], &row(&["parents", "old", "8"])));
    let missing = "SELECT n.\"table\" FROM main.notes AS n WHERE NOT EXISTS \
                   (SELECT 1 FROM pg_tables t WHERE t.tablename = n.\"table\")";
    assert_eq!(node.rows(missing), [row(&["gone"])]);
    let own = "WITH notes AS (SELECT 'children' AS t) SELECT relname FROM notes JOIN pg_class ON relname = t";
    assert_eq!(node.rows(own), [row(&["children"])]);

    runtime().block_on(async {
        let client = connect(&node, "joining").await;
        // Types are the tables' own, and parameters are bound.
        let typed = "SELECT n.size, n.done, c.oid, c.relhasindex, n.note FROM notes n, pg_class c \
                     WHERE c.relname = n.\"table\" AND n.\"table\" = $1";
        let row = client.query_one(typed, &[&"parents"]).await.unwrap();
        assert_eq!((row.get::<_, i64>(0), row.get::<_, bool>(1), row.get::<_, bool>(3)), (7, true, true));
        assert!(row.get::<_, u32>(2) > 0 && row.get::<_, &str>(4) == "old");
        let refused = async |sql: &str| {
            let error = client.batch_execute(sql).await.unwrap_err();
            client.batch_execute("ROLLBACK").await.unwrap();
            let told = error.as_db_error().unwrap();
            assert_eq!(told.code().code(), "0A000", "{told:?}");
            told.message().to_owned()
        };
        // Where it would be something else than what the transaction sees, it says so.
        let said = refused(&format!("BEGIN; DELETE FROM notes; {joined}")).await;
        assert!(said.starts_with("table \"notes\", in a transaction that has written or sees one state"), "{said}");
        let said = refused(&format!("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT * FROM names; {joined}")).await;
        assert!(said.contains("sees one state throughout"), "{said}");
        client.batch_execute("BEGIN; SELECT 1; ").await.unwrap();
        assert_eq!(client.simple_query(joined).await.unwrap().len(), 4, "a block that has not written sees what is");
        client.batch_execute("COMMIT; CREATE TEMP TABLE notes (\"table\" TEXT, note TEXT, size INT)").await.unwrap();
        assert!(refused(joined).await.starts_with("temporary table \"notes\""));
        // Nothing can be written through it, and the catalogs' own tables are not left behind.
        client.batch_execute("DROP TABLE notes").await.unwrap();
        assert_eq!(client.query(joined, &[]).await.unwrap().len(), 2);
    });
    assert_eq!(node.rows("SELECT count(*) FROM notes"), [row(&["3"])]);
}

#[test]
fn a_session_sees_who_is_there_and_what_they_do() {
    let (_directory, node) = node();
    runtime().block_on(async {
        let watched = connect(&node, "watched").await;
        watched.batch_execute("BEGIN; INSERT INTO parents VALUES (1, 'a')").await.unwrap();
        let watcher = connect(&node, "watcher").await;
        let sql = "SELECT state, wait_event, query, xact_start IS NOT NULL, client_addr::text, now() - query_start < '1 hour'::interval \
                   FROM pg_stat_activity WHERE application_name = $1 AND usename = current_user";
        let row = watcher.query_one(sql, &[&"watched"]).await.unwrap();
        let state: String = row.get(0);
        let event: String = row.get(1);
        let query: String = row.get(2);
        assert_eq!((state.as_str(), event.as_str()), ("idle in transaction", "ClientRead"));
        assert_eq!(query, "INSERT INTO parents VALUES (1, 'a')");
        assert!(row.get::<_, bool>(3) && row.get::<_, bool>(5));
        assert_eq!(row.get::<_, String>(4), "127.0.0.1");
        let me = "SELECT count(*) FROM pg_stat_activity WHERE pid = pg_backend_pid() AND state = 'active'";
        assert_eq!(watcher.query_one(me, &[]).await.unwrap().get::<_, i64>(0), 1);

        // Who waits for the writer is seen waiting.
        let waiting = connect(&node, "waiting").await;
        let cancel = waiting.cancel_token();
        let blocked = tokio::spawn(async move { waiting.batch_execute(ENDLESS).await });
        let seen = "SELECT state, wait_event_type, wait_event FROM pg_stat_activity WHERE application_name = 'waiting'";
        let until_waits = async |wait: Option<(&str, &str)>| {
            let begun = Instant::now();
            loop {
                let row = watcher.query_one(seen, &[]).await.unwrap();
                let [state, kind, event] = [0, 1, 2].map(|column| row.get::<_, Option<&str>>(column));
                if state == Some("active") && kind.zip(event) == wait {
                    break;
                }
                assert!(begun.elapsed() < LIMIT, "it is seen as {state:?}, {kind:?}, {event:?}");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        until_waits(Some(("Lock", "Writer"))).await;
        watched.batch_execute("COMMIT").await.unwrap();
        // And no longer once it writes.
        until_waits(None).await;
        cancel.cancel_query(NoTls).await.unwrap();
        blocked.await.unwrap().unwrap_err();
        let after = watcher.query_one(sql, &[&"watched"]).await.unwrap();
        assert_eq!((after.get::<_, String>(0).as_str(), after.get::<_, bool>(3)), ("idle", false));
        drop(watched);
    });
    eventually("the session to be gone", LIMIT, || {
        node.rows("SELECT pid FROM pg_stat_activity WHERE application_name = 'watched'").is_empty()
    });
}

#[test]
fn psql_asks_with_what_only_postgresql_has() {
    let (_directory, node) = node();
    let rows = |sql: &str| psql(&node, &["--no-align", "--tuples-only", "-c", sql]);
    let older = "SELECT count(*) FROM pg_stat_activity WHERE query_start < now() - interval '1 hour'";
    assert_eq!(rows(older), "0");
    let younger = "SELECT count(*) FROM pg_stat_activity WHERE query_start + interval '1 hour' > now() AND pid = pg_backend_pid()";
    assert_eq!(rows(younger), "1");
    assert_eq!(rows("SELECT * FROM generate_series(1, 7, 3)"), "1\n4\n7");
    assert_eq!(rows("SELECT current_date = now()::date, current_user"), "t|postgres");
    assert_eq!(rows("SELECT a, b FROM (VALUES (1, 'x')) s(a, b)"), "1|x");
    node.rows("INSERT INTO parents VALUES (2, 'b')");
    assert_eq!(
        rows("SELECT g, p.name FROM generate_series(1, 2) g LEFT JOIN parents p ON p.id = g ORDER BY 1"),
        "1|\n2|b"
    );
    let script = script_of("SELECT id, name, count(*) AS n FROM parents GROUP BY 1, 2 \\gdesc\n");
    let described = psql(&node, &["--no-align", "--tuples-only", "-f", script.path().to_str().unwrap()]);
    assert_eq!(described, "id|bigint\nname|text\nn|bigint");
}

/// A file that has that text.
fn script_of(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    file
}

#[test]
fn drivers_read_the_catalogs() {
    let (_directory, node) = node();
    python(
        &node,
        r#"
with psycopg.connect(dsn, autocommit=True) as connection:
    rows = connection.execute("""
        SELECT a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod), a.attnotnull
        FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
        WHERE c.relname = %s AND a.attnum > 0 ORDER BY a.attnum""", ("parents",)).fetchall()
    assert rows == [("id", "bigint", True), ("name", "text", True)], rows
    rows = connection.execute(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = 'main' ORDER BY 1").fetchall()
    assert rows == [("children",), ("names",), ("parents",)], rows
    settings = dict(connection.execute("SELECT name, setting FROM pg_settings").fetchall())
    assert settings["timezone"] == "UTC", settings
    assert connection.execute("SELECT pg_catalog.version()").fetchone()[0].startswith("PostgreSQL 15")
    with connection.transaction():
        connection.execute("SELECT 1 FROM pg_catalog.pg_type WHERE oid = 25")
    memberof = connection.execute("SELECT ARRAY(SELECT nspname FROM pg_namespace ORDER BY 1)").fetchone()[0]
    assert memberof == ["information_schema", "main", "pg_catalog"], memberof
    binary = connection.cursor(binary=True)
    row = binary.execute("SELECT oid, typname, typlen, typtype FROM pg_type WHERE oid = %s", (23,)).fetchone()
    assert row[:3] == (23, "int4", 4), row
"#,
    );
}

#[test]
fn slow_statements_are_logged_without_what_was_bound() {
    let directory = tempfile::tempdir().unwrap();
    let node = Running::start(&directory.path().join("data"), &["--log-min-duration-statement-ms", "0"]);
    runtime().block_on(async {
        let client = connect(&node, "slow").await;
        client.batch_execute("CREATE TABLE t (a TEXT)").await.unwrap();
        client.execute("INSERT INTO t VALUES ($1 || 'logged')", &[&"secret-one"]).await.unwrap();
        let shown = client.query_one("SHOW log_min_duration_statement", &[]).await.unwrap();
        assert_eq!(shown.get::<_, String>(0), "0ms");
        client.batch_execute("SET log_parameter_max_length = 8").await.unwrap();
        client.execute("INSERT INTO t VALUES ($1 || 'asked for')", &[&"secret-two"]).await.unwrap();
        client.batch_execute("SET log_min_duration_statement = -1").await.unwrap();
        client.execute("INSERT INTO t VALUES ($1 || 'never')", &[&"secret-three"]).await.unwrap();
        client.batch_execute("BEGIN; SET log_min_duration_statement TO '1h'; ROLLBACK").await.unwrap();
        let shown = client.query_one("SHOW log_min_duration_statement", &[]).await.unwrap();
        assert_eq!(shown.get::<_, String>(0), "-1");
        client.batch_execute("RESET log_min_duration_statement").await.unwrap();
        client.query("SELECT a FROM t WHERE a = $1 || 'back'", &[&"secret-four"]).await.unwrap();
        let refused = client.batch_execute("SET log_min_duration_statement = soon").await.unwrap_err();
        assert_eq!(refused.code().unwrap().code(), "22023");
    });
    let log = node.stop("TERM").stderr;
    let lines =
        |part: &str| log.lines().filter(|line| line.contains("a statement took long") && line.contains(part)).count();
    assert_eq!(lines("|| 'logged'"), 1, "{log}");
    assert_eq!(lines("|| 'asked for'"), 1, "{log}");
    assert_eq!((lines("|| 'never'"), lines("|| 'back'")), (0, 1), "{log}");
    assert!(log.lines().any(|line| line.contains("duration_ms=")), "{log}");
    assert!(log.contains("$1 = 'secret-t...'"), "{log}");
    assert!(!log.contains("secret-one") && !log.contains("secret-two") && !log.contains("secret-four"), "{log}");
}
