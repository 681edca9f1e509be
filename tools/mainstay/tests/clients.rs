//! Clients that nobody here wrote: psql, pgbench, pg_isready, psycopg 3, tokio-postgres.

mod support;

use std::fs;
use std::time::{Duration, Instant};

use support::programs::{program, python};
use support::raw::{Raw, query, sqlstate};
use support::{LIMIT, Output, Running, connect, run, runtime, settings};
use tokio_postgres::NoTls;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};

/// A node on a directory of its own, with tables that have every constraint.
fn node() -> (tempfile::TempDir, Running) {
    let directory = tempfile::tempdir().unwrap();
    let node = Running::start(&directory.path().join("data"), &[]);
    node.rows(
        "CREATE TABLE parents (id int PRIMARY KEY, name text NOT NULL UNIQUE);
         CREATE TABLE children (id int PRIMARY KEY, parent int REFERENCES parents (id));
         INSERT INTO parents VALUES (1, 'first')",
    );
    (directory, node)
}

fn psql(node: &Running, arguments: &[&str]) -> Output {
    let mut command = program("psql", node);
    run(command.args(["--no-psqlrc", "--no-align", "--tuples-only", "-v", "VERBOSITY=verbose"]).args(arguments))
}

/// Runs psql and answers what it printed; it must succeed and say nothing on standard error.
fn psql_prints(node: &Running, arguments: &[&str]) -> String {
    let output = psql(node, arguments);
    assert_eq!((output.code, output.stderr.as_str()), (Some(0), ""), "{arguments:?}: {output:?}");
    output.stdout
}

/// Runs a script of psql, which goes on after errors.
fn psql_script(node: &Running, script: &str) -> Output {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("script.sql");
    fs::write(&file, script).unwrap();
    psql(node, &["-f", file.to_str().unwrap()])
}

#[test]
fn psql_connects_with_and_without_a_database_name() {
    let (_directory, node) = node();
    assert_eq!(psql_prints(&node, &["-c", "SELECT 1 + 1"]), "2\n");
    assert_eq!(psql_prints(&node, &["-d", "postgres", "-c", "SELECT name FROM parents"]), "first\n");
    let refused = psql(&node, &["-d", "elsewhere", "-c", "SELECT 1"]);
    assert_eq!((refused.code, refused.stdout.as_str()), (Some(2), ""), "{refused:?}");
    assert!(refused.stderr.contains("database \"elsewhere\" does not exist"), "{refused:?}");
}

#[test]
fn psql_runs_several_statements_of_one_string_as_one_transaction() {
    let (_directory, node) = node();
    let script = "INSERT INTO parents VALUES (2, 'second'); SELECT count(*) FROM parents; SELECT max(id) FROM parents";
    assert_eq!(psql_prints(&node, &["-c", script]), "INSERT 0 1\n2\n2\n");
    let script = "INSERT INTO parents VALUES (3, 'third'); INSERT INTO parents VALUES (3, 'again'); SELECT 'not run'";
    let failed = psql(&node, &["-c", script]);
    assert_eq!(failed.code, Some(1), "{failed:?}");
    assert!(failed.stderr.contains("23505") && !failed.stdout.contains("not run"), "{failed:?}");
    assert_eq!(psql_prints(&node, &["-c", "SELECT id FROM parents ORDER BY id"]), "1\n2\n");
    // Each -c is a string, and so a transaction, of its own.
    assert_eq!(psql(&node, &["-c", "INSERT INTO parents VALUES (4, 'fourth')", "-c", "nonsense"]).code, Some(1));
    assert_eq!(psql_prints(&node, &["-c", "SELECT id FROM parents ORDER BY id"]), "1\n2\n4\n");
}

#[test]
fn psql_shows_transactions_command_tags_and_takes_variables_from_rows() {
    let (_directory, node) = node();
    let output = psql_script(
        &node,
        r"BEGIN;
INSERT INTO parents VALUES (2, 'second'), (3, 'third');
UPDATE parents SET name = upper(name) WHERE id > 1;
DELETE FROM parents WHERE id = 3;
COMMIT;
BEGIN;
DELETE FROM parents;
ROLLBACK;
SELECT id AS greatest, name AS its_name FROM parents ORDER BY id DESC LIMIT 1 \gset
\echo :greatest :its_name
INSERT INTO children VALUES (10, :greatest) RETURNING parent;
SELECT NULL, '', 1.5, 'ein Häuschen';
\echo :ROW_COUNT :SQLSTATE
",
    );
    let expected = "BEGIN\nINSERT 0 2\nUPDATE 2\nDELETE 1\nCOMMIT\nBEGIN\nDELETE 2\nROLLBACK\n2 SECOND\n2\nINSERT 0 1\n\
                    ||1.5|ein Häuschen\n1 00000\n";
    assert_eq!((output.code, output.stdout.as_str(), output.stderr.as_str()), (Some(0), expected, ""), "{output:?}");
}

#[test]
fn psql_shows_the_sqlstate_of_each_error_and_the_state_of_a_failed_transaction() {
    let (_directory, node) = node();
    for (sql, code) in [
        ("INSERT INTO parents VALUES (1, 'again')", "23505"),
        ("INSERT INTO parents VALUES (2, 'first')", "23505"),
        ("INSERT INTO parents VALUES (2, NULL)", "23502"),
        ("INSERT INTO children VALUES (1, 99)", "23503"),
        ("DELETE FROM parents WHERE id = 1; INSERT INTO children VALUES (1, 1)", "23503"),
        ("SELEKT 1", "42601"),
        ("SELECT FROM WHERE", "42601"),
        ("INSERT INTO parents VALUES (1", "42601"),
        ("SELECT * FROM nowhere", "42P01"),
        ("INSERT INTO nowhere VALUES (1)", "42P01"),
        ("DROP TABLE nowhere", "42P01"),
        ("SELECT missing FROM parents", "42703"),
        ("INSERT INTO parents (missing) VALUES (1)", "42703"),
        ("UPDATE parents SET missing = 1", "42703"),
    ] {
        let output = psql(&node, &["-c", sql]);
        assert_eq!(output.code, Some(1), "{sql}: {output:?}");
        assert!(output.stderr.starts_with(&format!("ERROR:  {code}: ")), "{sql}: {output:?}");
    }
    let failed = psql_script(
        &node,
        "BEGIN;\nINSERT INTO parents VALUES (5, 'fifth');\nSELECT * FROM nowhere;\nSELECT 1;\nCOMMIT;\n\
         SELECT count(*) FROM parents;\n",
    );
    assert_eq!(failed.stdout, "BEGIN\nINSERT 0 1\nROLLBACK\n1\n", "{failed:?}");
    assert!(failed.stderr.contains("ERROR:  42P01: ") && failed.stderr.contains("ERROR:  25P02: "), "{failed:?}");
}

#[test]
fn pgbench_runs_a_script_in_each_protocol_and_every_transaction_counts() {
    let (directory, node) = node();
    node.rows(
        "CREATE TABLE history (client int, amount int, note text); CREATE TABLE totals (id int PRIMARY KEY, sum int)",
    );
    node.rows("INSERT INTO totals VALUES (0, 0), (1, 0), (2, 0), (3, 0)");
    let script = directory.path().join("script.sql");
    fs::write(
        &script,
        "\\set amount random(1, 1000)\n\\set bucket random(0, 3)\nBEGIN;\n\
         INSERT INTO history VALUES (:client_id, :amount, 'a note');\n\
         UPDATE totals SET sum = sum + :amount WHERE id = :bucket;\nCOMMIT;\n",
    )
    .unwrap();
    let mut expected = 0;
    for protocol in ["simple", "extended", "prepared"] {
        let mut command = program("pgbench", &node);
        command.args(["-n", "-M", protocol, "-c", "8", "-j", "2", "-t", "100", "-f"]).arg(&script).arg("postgres");
        let output = run(&mut command);
        assert_eq!(output.code, Some(0), "{protocol}: {output:?}");
        assert!(output.stdout.contains("actually processed: 800/800"), "{protocol}: {output:?}");
        expected += 800;
        assert_eq!(node.rows("SELECT count(*) FROM history"), [[expected.to_string()]], "{protocol}");
        let sums = node.rows("SELECT (SELECT sum(amount) FROM history), (SELECT sum(sum) FROM totals)");
        assert_eq!(sums[0][0], sums[0][1], "{protocol}: an update was lost");
    }
    assert_eq!(node.rows("SELECT count(DISTINCT client) FROM history"), [["8"]]);
}

#[test]
fn pg_isready_sees_a_node_come_and_go() {
    let (_directory, node) = node();
    let mut ask = program("pg_isready", &node);
    assert_eq!(run(&mut ask).code, Some(0));
    assert_eq!(node.stop("TERM").code, Some(0));
    assert_eq!(run(&mut ask).code, Some(2));
}

#[test]
fn psycopg_commits_rolls_back_and_autocommits() {
    let (_directory, node) = node();
    python(
        &node,
        r#"
with psycopg.connect(dsn) as connection:
    connection.execute("INSERT INTO parents VALUES (2, 'second')")
try:
    with psycopg.connect(dsn) as connection:
        connection.execute("INSERT INTO parents VALUES (3, 'third')")
        raise KeyError
except KeyError:
    pass
with psycopg.connect(dsn, autocommit=True) as connection:
    connection.execute("INSERT INTO parents VALUES (4, 'fourth')")
    try:
        with connection.transaction():
            connection.execute("INSERT INTO parents VALUES (5, 'fifth')")
            raise KeyError
    except KeyError:
        pass
    with connection.transaction():
        connection.execute("INSERT INTO parents VALUES (6, 'sixth')")
        assert connection.info.transaction_status.name == "INTRANS"
    assert connection.info.transaction_status.name == "IDLE"
    ids = connection.execute("SELECT id FROM parents ORDER BY id").fetchall()
    assert ids == [(1,), (2,), (4,), (6,)], ids
    cursor = connection.cursor()
    cursor.executemany("INSERT INTO children VALUES (%s, %s)", [(n, 1) for n in range(500)])
    assert cursor.rowcount == 500, cursor.rowcount
    assert connection.execute("SELECT count(*) FROM children").fetchone() == (500,)
    cursor.execute("DELETE FROM children WHERE id >= %s", [400])
    assert cursor.rowcount == 100 and cursor.statusmessage == "DELETE 100", cursor.statusmessage
    with connection.pipeline():
        replies = [connection.execute("SELECT id FROM children WHERE id = %s", [n]) for n in (7, 8)]
    assert [reply.fetchone() for reply in replies] == [(7,), (8,)]
"#,
    );
}

#[test]
fn psycopg_gets_back_the_values_that_it_sent() {
    let (_directory, node) = node();
    node.rows("CREATE TABLE kinds (id int PRIMARY KEY, i bigint, s text, f double precision, b bytea, t boolean)");
    python(
        &node,
        r#"
rows = [
    (1, 42, "text", 1.5, b"bytes", True),
    (2, -(2**63), "", -0.25, b"", False),
    (3, 2**63 - 1, "it's \\ \"quoted\" %s $1; -- \n\t ü 漢 🦀", 1e300, bytes(range(256)), True),
    (4, None, None, None, None, None),
    (5, 0, "NULL", 0.1 + 0.2, b"\x00\x00", False),
    (6, 2**31, "x" * 100_000, 5e-324, bytes(100_000), True),
]
with psycopg.connect(dsn) as connection:
    for row in rows:
        connection.execute("INSERT INTO kinds VALUES (%s, %s, %s, %s, %s, %s)", row)
    connection.commit()
    for binary in (False, True):
        cursor = connection.cursor(binary=binary)
        for row in rows:
            found = cursor.execute("SELECT id, i, s, f, b, t FROM kinds WHERE id = %s", [row[0]]).fetchone()
            found = tuple(bytes(v) if isinstance(v, memoryview) else v for v in found)
            assert found == row and [type(v) for v in found] == [type(v) for v in row], (binary, str(found)[:500])
        for column, position in (("i", 1), ("s", 2), ("f", 3), ("b", 4), ("t", 5)):
            for row in rows:
                if row[position] is not None:
                    sql = f"SELECT count(*) FROM kinds WHERE id = %s AND {column} = %s"
                    assert cursor.execute(sql, [row[0], row[position]]).fetchone() == (1,), (column, str(row)[:500])
    names = [column.name for column in cursor.execute("SELECT id, i AS renamed, count(*) AS n FROM kinds").description]
    assert names == ["id", "renamed", "n"], names
"#,
    );
}

#[test]
fn psycopg_raises_the_exception_of_each_sqlstate() {
    let (_directory, node) = node();
    python(
        &node,
        r#"
cases = [
    (errors.UniqueViolation, "INSERT INTO parents VALUES (%s, %s)", (1, "again")),
    (errors.NotNullViolation, "INSERT INTO parents VALUES (%s, %s)", (2, None)),
    (errors.ForeignKeyViolation, "INSERT INTO children VALUES (%s, %s)", (1, 99)),
    (errors.SyntaxError, "SELEKT %s", (1,)),
    (errors.UndefinedTable, "SELECT * FROM nowhere WHERE a = %s", (1,)),
    (errors.UndefinedColumn, "SELECT missing FROM parents WHERE id = %s", (1,)),
]
with psycopg.connect(dsn, autocommit=True) as connection:
    for exception, sql, parameters in cases:
        try:
            connection.execute(sql, parameters)
        except exception:
            assert connection.info.transaction_status.name == "IDLE"
        else:
            raise AssertionError(sql)
with psycopg.connect(dsn) as connection:
    for exception, sql, parameters in cases[:3]:
        connection.execute("INSERT INTO parents VALUES (7, 'seventh')")
        try:
            connection.execute(sql, parameters)
        except exception:
            assert connection.info.transaction_status.name == "INERROR"
        else:
            raise AssertionError(sql)
        try:
            connection.execute("SELECT 1")
        except errors.InFailedSqlTransaction:
            connection.rollback()
        else:
            raise AssertionError("a failed transaction went on")
    assert connection.execute("SELECT id FROM parents").fetchall() == [(1,)]
try:
    psycopg.connect(dsn, dbname="elsewhere")
except psycopg.OperationalError as error:
    assert 'database "elsewhere" does not exist' in str(error), error
else:
    raise AssertionError("another database")
"#,
    );
}

/// PostgreSQL fails the transaction for an error in Parse as for any other.
#[test]
fn an_error_in_preparing_a_statement_fails_the_transaction() {
    let (_directory, node) = node();
    python(
        &node,
        r#"
cases = [
    (errors.SyntaxError, "SELEKT %s"),
    (errors.UndefinedTable, "SELECT * FROM nowhere WHERE a = %s"),
    (errors.UndefinedColumn, "SELECT missing FROM parents WHERE id = %s"),
]
with psycopg.connect(dsn) as connection:
    for exception, sql in cases:
        connection.execute("INSERT INTO parents VALUES (%s, %s)", (7, 'seventh'))
        try:
            connection.execute(sql, (1,))
        except exception:
            assert connection.info.transaction_status.name == "INERROR", sql
        else:
            raise AssertionError(sql)
        try:
            connection.execute("SELECT %s", (1,))
        except errors.InFailedSqlTransaction:
            connection.commit()
        else:
            raise AssertionError("a failed transaction went on")
    assert connection.execute("SELECT id FROM parents").fetchall() == [(1,)]
"#,
    );
}

#[test]
fn tokio_postgres_prepares_statements_and_exchanges_binary_values() {
    let (_directory, node) = node();
    runtime().block_on(async {
        let client = connect(&node.address).await;
        client
            .batch_execute(
                "CREATE TABLE kinds (id int PRIMARY KEY, small smallint, big bigint, r real, d double precision, s text, \
                 v varchar(20), b bytea, t boolean)",
            )
            .await
            .unwrap();
        let types = [
            Type::INT4,
            Type::INT2,
            Type::INT8,
            Type::FLOAT4,
            Type::FLOAT8,
            Type::TEXT,
            Type::VARCHAR,
            Type::BYTEA,
            Type::BOOL,
        ];
        let insert = "INSERT INTO kinds VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
        let insert = client.prepare_typed(insert, &types).await.unwrap();
        let bytes: Vec<u8> = (0..=255).collect();
        let values: [&(dyn ToSql + Sync); 9] =
            [&1_i32, &-2_i16, &i64::MIN, &0.5_f32, &f64::MAX, &"größer", &"v", &bytes, &true];
        assert_eq!(client.execute(&insert, &values).await.unwrap(), 1);
        let none: Option<i64> = None;
        let (nothing, no_bytes, no_bool, no_text): (Option<i16>, Option<Vec<u8>>, Option<bool>, Option<String>) =
            (None, None, None, None);
        let (no_real, no_double): (Option<f32>, Option<f64>) = (None, None);
        let values: [&(dyn ToSql + Sync); 9] =
            [&2_i32, &nothing, &none, &no_real, &no_double, &no_text, &no_text, &no_bytes, &no_bool];
        assert_eq!(client.execute(&insert, &values).await.unwrap(), 1);

        let select = "SELECT id, small, big, r, d, s, v, b, t FROM kinds WHERE id = $1";
        let select = client.prepare_typed(select, &[Type::INT4]).await.unwrap();
        let row = client.query_one(&select, &[&1_i32]).await.unwrap();
        // SQLite's integers have 64 bits and its floats too, whatever their column is called.
        assert_eq!((row.get::<_, i64>("id"), row.get::<_, i64>("small"), row.get::<_, i64>("big")), (1, -2, i64::MIN));
        assert_eq!((row.get::<_, f64>("r"), row.get::<_, f64>("d")), (0.5, f64::MAX));
        assert_eq!((row.get::<_, &str>("s"), row.get::<_, &str>("v")), ("größer", "v"));
        assert_eq!((row.get::<_, Vec<u8>>("b"), row.get::<_, bool>("t")), (bytes, true));
        let row = client.query_one(&select, &[&2_i32]).await.unwrap();
        assert_eq!((row.get::<_, Option<i64>>("small"), row.get::<_, Option<i64>>("big")), (None, None));
        assert_eq!((row.get::<_, Option<f64>>("r"), row.get::<_, Option<f64>>("d")), (None, None));
        assert_eq!((row.get::<_, Option<&str>>("s"), row.get::<_, Option<&str>>("v")), (None, None));
        assert_eq!((row.get::<_, Option<Vec<u8>>>("b"), row.get::<_, Option<bool>>("t")), (None, None));
        assert!(client.query(&select, &[&3_i32]).await.unwrap().is_empty());
    });
}

#[test]
fn tokio_postgres_fetches_rows_in_parts() {
    let (_directory, node) = node();
    node.rows("CREATE TABLE numbers (n int PRIMARY KEY)");
    runtime().block_on(async {
        let mut client = connect(&node.address).await;
        let transaction = client.transaction().await.unwrap();
        let fill = "INSERT INTO numbers WITH RECURSIVE s (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < 20000) \
                    SELECT n FROM s";
        transaction.execute(fill, &[]).await.unwrap();
        let portal = transaction.bind("SELECT n FROM numbers ORDER BY n", &[]).await.unwrap();
        let mut found = Vec::new();
        loop {
            let rows = transaction.query_portal(&portal, 3000).await.unwrap();
            if rows.is_empty() {
                break;
            }
            found.extend(rows.iter().map(|row| row.get::<_, i64>(0)));
            // What happens meanwhile is not in the rows of the portal.
            transaction.execute("DELETE FROM numbers WHERE n > 10000", &[]).await.unwrap();
        }
        assert!(found.into_iter().eq(1..=20_000));
        transaction.commit().await.unwrap();
    });
    assert_eq!(node.rows("SELECT count(*) FROM numbers"), [["10000"]]);
}

#[test]
fn tokio_postgres_runs_statements_whose_parameters_have_no_given_type() {
    let (_directory, node) = node();
    runtime().block_on(async {
        let client = connect(&node.address).await;
        let insert = client.prepare("INSERT INTO parents (id, name) VALUES ($1, $2)").await.unwrap();
        println!("inferred: {:?}", insert.params());
        assert_eq!(client.execute("INSERT INTO parents (id, name) VALUES (2, $1)", &[&"second"]).await.unwrap(), 1);
        let found = client.query("SELECT id FROM parents WHERE name = $1", &[&"second"]).await.unwrap();
        assert_eq!(found.iter().map(|row| row.get::<_, i64>(0)).collect::<Vec<_>>(), [2]);
        assert_eq!(client.execute("INSERT INTO parents VALUES ($1, $2)", &[&3_i64, &"third"]).await.unwrap(), 1);
        let update = "UPDATE parents SET name = $1 WHERE id = $2";
        assert_eq!(client.execute(update, &[&"3rd", &3_i64]).await.unwrap(), 1);
        let found = client.query("SELECT name FROM parents WHERE id >= $1 LIMIT $2", &[&3_i64, &1_i64]).await.unwrap();
        assert_eq!(found.iter().map(|row| row.get::<_, &str>(0)).collect::<Vec<_>>(), ["3rd"]);
        // The same parameter twice, and parameters out of order.
        let found =
            client.query("SELECT name FROM parents WHERE name = $2 OR name = $1 OR name = $2", &[&"x", &"first"]);
        assert_eq!(found.await.unwrap().len(), 1);
    });
}

#[test]
fn tokio_postgres_runs_transactions_and_reports_every_sqlstate() {
    let (_directory, node) = node();
    runtime().block_on(async {
        let mut client = connect(&node.address).await;
        let transaction = client.transaction().await.unwrap();
        transaction.execute("INSERT INTO parents VALUES (2, 'second')", &[]).await.unwrap();
        transaction.commit().await.unwrap();
        let transaction = client.transaction().await.unwrap();
        transaction.execute("INSERT INTO parents VALUES (3, 'third')", &[]).await.unwrap();
        transaction.rollback().await.unwrap();
        let dropped = client.transaction().await.unwrap();
        dropped.execute("INSERT INTO parents VALUES (4, 'fourth')", &[]).await.unwrap();
        drop(dropped);

        for (sql, code) in [
            ("INSERT INTO parents VALUES (1, 'again')", SqlState::UNIQUE_VIOLATION),
            ("INSERT INTO parents VALUES (5, NULL)", SqlState::NOT_NULL_VIOLATION),
            ("INSERT INTO children VALUES (1, 99)", SqlState::FOREIGN_KEY_VIOLATION),
            ("SELEKT 1", SqlState::SYNTAX_ERROR),
            ("SELECT * FROM nowhere", SqlState::UNDEFINED_TABLE),
            ("SELECT missing FROM parents", SqlState::UNDEFINED_COLUMN),
        ] {
            let error = client.execute(sql, &[]).await.unwrap_err();
            assert_eq!(error.code(), Some(&code), "{sql}: {error:?}");
            // As a simple query: what an error in Parse does to a transaction has its own test above.
            let transaction = client.transaction().await.unwrap();
            transaction.execute("INSERT INTO parents VALUES (6, 'sixth')", &[]).await.unwrap();
            assert_eq!(transaction.batch_execute(sql).await.unwrap_err().code(), Some(&code), "{sql}");
            let error = transaction.execute("SELECT 1", &[]).await.unwrap_err();
            assert_eq!(error.code(), Some(&SqlState::IN_FAILED_SQL_TRANSACTION), "{sql}");
            // COMMIT of a failed transaction is a rollback.
            transaction.commit().await.unwrap();
        }
        let ids = client.query("SELECT id FROM parents ORDER BY id", &[]).await.unwrap();
        assert_eq!(ids.iter().map(|row| row.get::<_, i64>(0)).collect::<Vec<_>>(), [1, 2]);

        let elsewhere = settings(&node.address).replace("dbname=postgres", "dbname=elsewhere");
        let error = tokio_postgres::connect(&elsewhere, NoTls).await.err().unwrap();
        assert_eq!(error.code(), Some(&SqlState::INVALID_CATALOG_NAME), "{error:?}");
    });
}

#[test]
fn a_foreign_key_checked_at_commit_refuses_the_transaction_and_cascades_reach_every_row() {
    let (directory, node) = node();
    node.rows(
        "CREATE TABLE later (id int PRIMARY KEY, parent int REFERENCES parents (id) ON DELETE CASCADE
             DEFERRABLE INITIALLY DEFERRED);
         CREATE TABLE seen (id int);
         CREATE TRIGGER sees AFTER DELETE ON later BEGIN INSERT INTO seen VALUES (old.id); END",
    );
    let failed =
        psql_script(&node, "BEGIN;\nINSERT INTO later VALUES (1, 50);\nCOMMIT;\nSELECT count(*) FROM later;\n");
    assert!(failed.stderr.contains("ERROR:  23503: "), "{failed:?}");
    assert!(failed.stdout.ends_with("0\n"), "{failed:?}");
    node.rows("BEGIN; INSERT INTO later VALUES (1, 50), (2, 50); INSERT INTO parents VALUES (50, 'late'); COMMIT");
    assert_eq!(node.rows("SELECT count(*) FROM later"), [["2"]]);
    node.rows("DELETE FROM parents WHERE id = 50");
    node.kill();
    fs::remove_dir_all(directory.path().join("data/engine")).unwrap();
    let node = Running::start(&directory.path().join("data"), &[]);
    assert_eq!(node.rows("SELECT count(*) FROM later"), [["0"]]);
    assert_eq!(node.rows("SELECT id FROM seen ORDER BY id"), [["1"], ["2"]]);
    assert_eq!(node.rows("SELECT id FROM parents ORDER BY id"), [["1"]]);
}

#[test]
fn a_client_hears_57p01_when_the_node_stops() {
    let (_directory, node) = node();
    let runtime = runtime();
    let (client, connection) = runtime.block_on(tokio_postgres::connect(&settings(&node.address), NoTls)).unwrap();
    let ended = runtime.spawn(connection);
    runtime.block_on(client.batch_execute("BEGIN; INSERT INTO parents VALUES (2, 'second')")).unwrap();
    node.signal("TERM");
    let error = runtime.block_on(async { tokio::time::timeout(LIMIT, ended).await.unwrap().unwrap().unwrap_err() });
    assert_eq!(error.code(), Some(&SqlState::ADMIN_SHUTDOWN), "{error:?}");
    assert_eq!(node.ended().code, Some(0));
}

#[test]
fn the_node_stops_in_time_for_a_statement_that_would_run_for_ever() {
    let (_directory, node) = node();
    let mut idle = Raw::login(&node.address);
    idle.query("BEGIN");
    idle.query("INSERT INTO parents VALUES (2, 'second')");
    let mut endless = Raw::login(&node.address);
    let numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)";
    endless.send(&query(&format!("{numbers} SELECT i FROM n"))).unwrap();
    endless.until(b'D');
    let begun = Instant::now();
    let output = node.stop("TERM");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(output.code, Some(0), "{output:?}");
    assert_eq!(idle.until_closed().iter().filter_map(sqlstate).collect::<Vec<_>>(), ["57P01"]);
}
