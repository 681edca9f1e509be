//! COPY as the clients do it that nobody here wrote: psql, psycopg 3, tokio-postgres, and a load like that of `pgbench -i`.

mod support;

use std::fs;
use std::path::Path;

use futures_util::{SinkExt, StreamExt};
use support::programs::{program, python};
use support::{Output, Running, SMALL, connect, run, runtime};
use tokio_postgres::error::SqlState;

/// Text that every format has to take care of; the last row is all NULL.
const ROWS: &str = r#"
    INSERT INTO kinds VALUES
    (1, 42, 'plain', 1.5, x'00ff', 1),
    (2, -9223372036854775808, '', -0.25, x'', 0),
    (3, 0, char(9, 10, 13, 92, 34, 39, 44), 1e300, x'5c2e', 1),
    (4, 7, 'größe 漢 🦀', 0.1, x'0a', 0),
    (5, 7, '\N', 0.1, x'0a', 0),
    (6, 7, '\.', 0.1, x'0a', 0),
    (7, 7, '"', 0.1, x'0a', 0),
    (8, 7, 'two' || char(10) || char(10) || 'lines', 0.1, x'0a', 0),
    (9, NULL, NULL, NULL, NULL, NULL)"#;
const KINDS: &str = "(id int PRIMARY KEY, i bigint, s text, f double precision, b bytea, t boolean)";

fn node() -> (tempfile::TempDir, Running) {
    let directory = tempfile::tempdir().unwrap();
    let node = Running::start(&directory.path().join("data"), &[]);
    node.rows(&format!("CREATE TABLE kinds {KINDS}; CREATE TABLE again {KINDS}; {ROWS}"));
    (directory, node)
}

fn psql(node: &Running, arguments: &[&str]) -> Output {
    let mut command = program("psql", node);
    run(command.args(["--no-psqlrc", "--no-align", "--tuples-only", "-v", "VERBOSITY=verbose"]).args(arguments))
}

fn contents(node: &Running, table: &str) -> Vec<Vec<String>> {
    node.rows(&format!("SELECT id, i, quote(s), quote(f), quote(b), typeof(t), t FROM {table} ORDER BY id"))
}

#[test]
fn psql_copies_to_a_file_and_back_in_every_format() {
    let (directory, node) = node();
    let file = directory.path().join("rows");
    let file = file.to_str().unwrap();
    for options in [
        "",
        "csv",
        "(format csv, header, null 'nil')",
        "csv delimiter E'\\t' quote '|' escape '!'",
        "with delimiter '|' null ''",
    ] {
        node.rows("DELETE FROM again");
        let out = psql(&node, &["-c", &format!("\\copy kinds to '{file}' {options}")]);
        assert_eq!((out.code, out.stdout.as_str()), (Some(0), "COPY 9\n"), "{options}: {out:?}");
        let back = psql(&node, &["-c", &format!("\\copy again from '{file}' {options}")]);
        let lossy = options.ends_with("null ''");
        assert_eq!((back.code, back.stdout.as_str()), (Some(0), "COPY 9\n"), "{options}: {back:?}");
        if !lossy {
            assert_eq!(contents(&node, "again"), contents(&node, "kinds"), "{options}");
        }
    }
    let query = "\\copy (select id, s from kinds where id in (3, 9) order by id) to stdout csv header";
    assert_eq!(psql(&node, &["-c", query]).stdout, "id,s\n3,\"\t\n\r\\\"\"',\"\n9,\n");
    // Columns in another order, and the rest as their defaults.
    fs::write(file, "text\t100\n").unwrap();
    assert_eq!(psql(&node, &["-c", &format!("\\copy again (s, id) from '{file}'")]).stdout, "COPY 1\n");
    assert_eq!(node.rows("SELECT s, i FROM again WHERE id = 100"), [["text", "NULL"]]);
}

#[test]
fn copy_fails_as_a_whole_and_says_where() {
    let (directory, node) = node();
    node.rows("CREATE TABLE parents (id int PRIMARY KEY); INSERT INTO parents VALUES (1)");
    node.rows(
        "CREATE TABLE children (id int NOT NULL UNIQUE, parent int REFERENCES parents (id), n int CHECK (n > 0))",
    );
    let file = directory.path().join("rows");
    for (rows, state, context) in [
        ("1\t1\t1\n2\t1\n", "22P04", "COPY children, line 2: \"2\t1\""),
        ("1\t1\t1\n2\t1\tx\n", "22P02", "COPY children, line 2, column n"),
        ("1\t1\t1\n2\t1\t0\n", "23514", "COPY children, line 2"),
        ("1\t1\t1\n1\t1\t1\n", "23505", "COPY children, line 2"),
        ("1\t1\t1\n\\N\t1\t1\n", "23502", "COPY children, line 2"),
        ("1\t1\t1\n2\t99\t1\n", "23503", "COPY children, line 2"),
    ] {
        fs::write(&file, rows).unwrap();
        let failed = psql(&node, &["-c", &format!("\\copy children from '{}'", file.display())]);
        assert_eq!(failed.code, Some(1), "{rows}");
        assert!(failed.stderr.contains(&format!("ERROR:  {state}: ")), "{failed:?}");
        assert!(failed.stderr.contains(&format!("CONTEXT:  {context}")), "{failed:?}");
        assert!(node.rows("SELECT * FROM children").is_empty(), "{rows}");
    }
    for (sql, state) in [
        ("COPY nowhere FROM STDIN", "42P01"),
        ("COPY nowhere TO STDOUT", "42P01"),
        ("COPY kinds (missing) FROM STDIN", "42703"),
        ("COPY kinds FROM STDIN (FORMAT binary)", "0A000"),
        ("COPY (DELETE FROM kinds) TO STDOUT", "0A000"),
        ("COPY mainstay_state FROM STDIN", "42939"),
        ("BEGIN READ ONLY; COPY kinds FROM STDIN", "25006"),
    ] {
        assert_eq!(node.sqlstate(sql), state, "{sql}");
    }
    assert_eq!(node.rows("SELECT count(*) FROM kinds"), [["9"]]);
}

#[test]
fn psycopg_copies_both_ways_and_in_transactions() {
    let (_directory, node) = node();
    python(
        &node,
        r#"
rows = [(n, n * 2, f"text {n} \t\n\\ \" ü 漢", n / 4, None, n % 2 == 0) for n in range(5000)]
with psycopg.connect(dsn) as connection:
    cursor = connection.cursor()
    with cursor.copy("COPY again FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)
    assert cursor.rowcount == 5000 and cursor.statusmessage == "COPY 5000", cursor.statusmessage
    assert cursor.execute("SELECT count(*) FROM again").fetchone() == (5000,)
    connection.rollback()
    assert cursor.execute("SELECT count(*) FROM again").fetchone() == (0,)
    connection.rollback()
    with cursor.copy("COPY again (id, i, s, f, b, t) FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)
    connection.commit()
    found = cursor.execute("SELECT id, i, s, f, b, t FROM again ORDER BY id").fetchall()
    assert found == rows, found[:3]
    with cursor.copy("COPY (SELECT id, i, s FROM again ORDER BY id) TO STDOUT") as copy:
        copy.set_types(["int8", "int8", "text"])
        assert list(copy.rows()) == [row[:3] for row in rows]
    connection.commit()
    try:
        with cursor.copy("COPY again FROM STDIN") as copy:
            copy.write_row((9000, 1, "lost", 1.0, None, None))
            raise KeyError
    except KeyError:
        pass
    assert connection.info.transaction_status.name == "INERROR", connection.info.transaction_status
    connection.rollback()
    try:
        with cursor.copy("COPY again FROM STDIN") as copy:
            for n in range(10_000, 60_000):
                copy.write_row((n if n != 11_000 else 10_000, 1, "x" * 100, 1.0, None, None))
        raise AssertionError("a key twice")
    except errors.UniqueViolation:
        connection.rollback()
    assert cursor.execute("SELECT count(*), count(*) FILTER (WHERE id < 5000) FROM again").fetchone() == (5000, 5000)
"#,
    );
}

#[test]
fn tokio_postgres_copies_both_ways() {
    let (_directory, node) = node();
    runtime().block_on(async {
        let mut client = connect(&node.address).await;
        let sink = client.copy_in("COPY again (id, s) FROM STDIN WITH CSV").await.unwrap();
        let mut sink = std::pin::pin!(sink);
        for number in 0..1000 {
            sink.send(std::io::Cursor::new(format!("{number},\"a \"\"quote\"\" {number}\"\n").into_bytes()))
                .await
                .unwrap();
        }
        assert_eq!(sink.finish().await.unwrap(), 1000);
        let stream = client.copy_out("COPY (SELECT id, s FROM again ORDER BY id LIMIT 2) TO STDOUT CSV").await.unwrap();
        let pieces: Vec<_> = stream.map(Result::unwrap).collect().await;
        assert_eq!(pieces.concat(), b"0,\"a \"\"quote\"\" 0\"\n1,\"a \"\"quote\"\" 1\"\n");

        let transaction = client.transaction().await.unwrap();
        let sink = transaction.copy_in("COPY again FROM STDIN").await.unwrap();
        let mut sink = std::pin::pin!(sink);
        sink.send(&b"not a row\n"[..]).await.unwrap();
        let error = sink.finish().await.unwrap_err();
        assert_eq!(error.code(), Some(&SqlState::BAD_COPY_FILE_FORMAT));
        let error = transaction.query("SELECT 1", &[]).await.unwrap_err();
        assert_eq!(error.code(), Some(&SqlState::IN_FAILED_SQL_TRANSACTION));
        transaction.rollback().await.unwrap();

        // Given up half-way: CopyFail.
        let sink = client.copy_in::<_, &[u8]>("COPY again (id) FROM STDIN").await.unwrap();
        let mut sink = Box::pin(sink);
        sink.send(&b"5000\n"[..]).await.unwrap();
        drop(sink);
        let count = client.query_one("SELECT count(*) FROM again", &[]).await.unwrap();
        assert_eq!(count.get::<_, i64>(0), 1000);
    });
}

#[test]
fn a_copy_that_waits_for_its_client_keeps_nobody_waiting() {
    let (_directory, node) = node();
    runtime().block_on(async {
        let (idle, busy) = (connect(&node.address).await, connect(&node.address).await);
        let sink = idle.copy_in::<_, &[u8]>("COPY again (id) FROM STDIN").await.unwrap();
        busy.execute("INSERT INTO again (id) VALUES (1)", &[]).await.unwrap();
        let mut sink = std::pin::pin!(sink);
        sink.send(&b"2\n"[..]).await.unwrap();
        assert_eq!(sink.finish().await.unwrap(), 1);
    });
}

/// What `pgbench -i` sends, for what SQLite has words for.
#[test]
fn a_load_like_that_of_pgbench_survives_a_kill_and_a_rebuild() {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    let node = Running::start(&data_dir, &SMALL);
    node.rows("CREATE TABLE pgbench_accounts (aid int not null, bid int, abalance int, filler char(84))");
    let accounts = 100_000;
    let rows: String = (1..=accounts).map(|account| format!("{account}\t1\t0\t\n")).collect();
    let file = directory.path().join("accounts");
    fs::write(&file, rows).unwrap();
    let script = format!(
        "begin;\n\\copy pgbench_accounts from '{}' with (freeze on)\ncommit;\n\
         create unique index pgbench_accounts_pkey on pgbench_accounts (aid);\n",
        file.display()
    );
    let loaded = directory.path().join("load.sql");
    fs::write(&loaded, script).unwrap();
    let output = psql(&node, &["-f", loaded.to_str().unwrap()]);
    assert_eq!(
        (output.code, output.stdout.as_str()),
        (Some(0), "BEGIN\nCOPY 100000\nCOMMIT\nCREATE INDEX\n"),
        "{output:?}"
    );
    let sums = "SELECT count(*), sum(aid), sum(length(filler)), count(DISTINCT aid) FROM pgbench_accounts";
    let expected = node.rows(sums);
    assert_eq!(expected, [["100000", "5000050000", "0", "100000"]]);
    node.kill();
    let node = Running::start(&data_dir, &SMALL);
    assert_eq!(node.rows(sums), expected);
    node.kill();
    rebuilt(&data_dir, |node| assert_eq!(node.rows(sums), expected));
}

#[test]
fn copied_rows_are_the_same_after_a_kill_and_a_rebuild() {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    let node = Running::start(&data_dir, &SMALL);
    node.rows(&format!("CREATE TABLE kinds {KINDS}; CREATE TABLE again {KINDS}; {ROWS}"));
    let file = directory.path().join("rows");
    let copy = format!("\\copy kinds to '{0}'\n\\copy again from '{0}'\n", file.display());
    let script = directory.path().join("copy.sql");
    fs::write(&script, copy).unwrap();
    assert_eq!(psql(&node, &["-f", script.to_str().unwrap()]).stdout, "COPY 9\nCOPY 9\n");
    // One that has not ended when the node is killed leaves nothing.
    runtime().block_on(async {
        let client = connect(&node.address).await;
        let sink = client.copy_in::<_, &[u8]>("COPY again (id) FROM STDIN").await.unwrap();
        let mut sink = std::pin::pin!(sink);
        sink.send(&b"100\n"[..]).await.unwrap();
        sink.flush().await.unwrap();
    });
    let expected = contents(&node, "kinds");
    assert_eq!(contents(&node, "again"), expected);
    node.kill();
    rebuilt(&data_dir, |node| assert_eq!(contents(node, "again"), expected));
}

/// Starts a node whose engine's files are gone.
fn rebuilt(data_dir: &Path, look: impl FnOnce(&Running)) {
    fs::remove_dir_all(data_dir.join("engine")).unwrap();
    look(&Running::start(data_dir, &SMALL));
}

#[test]
fn what_was_copied_survives_a_kill_and_the_loss_of_the_engines_files() {
    let (directory, node) = node();
    let file = directory.path().join("rows");
    node.rows("CREATE TABLE plain (id bigint PRIMARY KEY, v text, at timestamp); CREATE TABLE mixed (id int, v weird)");
    let rows: String = (1..=20_000).map(|id| format!("{id}\tvalue {id}\t2020-01-01 00:00:{:02}\n", id % 60)).collect();
    fs::write(&file, rows).unwrap();
    let copy = |table: &str| psql(&node, &["-c", &format!("\\copy {table} from '{}'", file.display())]);
    assert_eq!(copy("plain").stdout, "COPY 20000\n");
    fs::write(&file, "1\t1.50\n2\tx\n3\t007\n").unwrap();
    assert_eq!(copy("mixed").stdout, "COPY 3\n");
    fs::write(&file, "20001\tnew\t\\N\n7\tthere already\t\\N\n").unwrap();
    assert_eq!(copy("plain").code, Some(1));
    let all = "SELECT count(*), sum(id), group_concat(v || at), group_concat(typeof(id) || typeof(v)) FROM plain";
    let mixed = "SELECT id, quote(v) FROM mixed ORDER BY id";
    let before = (node.rows(all), node.rows(mixed));
    assert_eq!(before.0[0][0], "20000");
    assert_eq!(before.1, [["1", "1.5"], ["2", "'x'"], ["3", "7"]]);
    node.kill();
    fs::remove_dir_all(directory.path().join("data/engine")).unwrap();
    let node = Running::start(&directory.path().join("data"), &[]);
    assert!((node.rows(all), node.rows(mixed)) == before, "the log has what was copied");
}
