//! Cursors: psycopg's named ones, psql's, and what is true of them at the edges.

mod support;

use support::programs::python;
use support::raw::{Message, Raw, message, sqlstate};
use support::{Running, connect, row, runtime};

fn node() -> (tempfile::TempDir, Running) {
    let directory = tempfile::tempdir().unwrap();
    let node = Running::start(&directory.path().join("data"), &[]);
    node.rows(
        "CREATE TABLE t (n int PRIMARY KEY, s text, f double precision, b bytea, z boolean);
         WITH RECURSIVE i (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM i LIMIT 1000)
         INSERT INTO t SELECT n, 'text ' || n, n / 2.0, CAST('b' || n AS BLOB), n % 2 FROM i;
         UPDATE t SET s = NULL WHERE n = 7",
    );
    (directory, node)
}

#[test]
fn psycopgs_named_cursors_fetch_in_parts() {
    let (_directory, node) = node();
    python(
        &node,
        r#"
expected = [(n, None if n == 7 else f"text {n}", n / 2, f"b{n}".encode(), n % 2 == 1) for n in range(1, 1001)]
query = "SELECT n, s, f, b, z FROM t WHERE n >= %s ORDER BY n"
with psycopg.connect(dsn) as connection:
    for binary in (False, True):
        with connection.cursor("a Name", binary=binary) as cursor:
            cursor.itersize = 70
            cursor.execute(query, [1])
            assert [column.name for column in cursor.description] == ["n", "s", "f", "b", "z"]
            assert cursor.fetchone() == expected[0] and cursor.fetchmany(3) == expected[1:4]
            # Other statements in between, which the cursor's rows know nothing of.
            connection.execute("DELETE FROM t WHERE n > 900")
            assert list(cursor) == expected[4:]
            assert cursor.fetchone() is None and cursor.fetchall() == []
        connection.rollback()
    with connection.cursor("scrolled", scrollable=False) as cursor:
        cursor.execute(query, [1])
        cursor.scroll(10)
        assert cursor.fetchone() == expected[10]
        cursor.scroll(20, mode="absolute")
        assert cursor.fetchmany(2) == expected[20:22]
        try:
            cursor.scroll(-1)
        except errors.ObjectNotInPrerequisiteState:
            connection.rollback()
        else:
            raise AssertionError("a cursor went back")
    with connection.cursor("scrolls", scrollable=True) as cursor:
        cursor.execute(query, [1])
        assert cursor.fetchmany(3) == expected[:3]
        cursor.scroll(-2)
        assert cursor.fetchone() == expected[1]
        cursor.scroll(899, mode="absolute")
        assert cursor.fetchone() == expected[899]
        cursor.scroll(0, mode="absolute")
        assert cursor.fetchall() == expected
    one, other = connection.cursor("one"), connection.cursor("other")
    one.execute("SELECT n FROM t WHERE n < %s ORDER BY n", [3])
    other.execute("VALUES ('x'), ('y')")
    assert one.fetchone() == (1,) and other.fetchone() == ("x",) and one.fetchone() == (2,)
    connection.commit()
    try:
        one.fetchone()
    except errors.InvalidCursorName:
        connection.rollback()
    else:
        raise AssertionError("a cursor outlived its transaction")
with psycopg.connect(dsn, autocommit=True) as connection:
    with connection.cursor("held", withhold=True) as cursor:
        cursor.execute("SELECT count(*), max(n) FROM t")
        assert cursor.fetchall() == [(1000, 1000)]
    try:
        connection.cursor("c").execute("SELECT 1")
    except errors.NoActiveSqlTransaction:
        pass
    else:
        raise AssertionError("a cursor without a transaction")
"#,
    );
}

/// Runs each statement by itself and answers the rows of each, or its SQLSTATE.
fn answers(node: &Running, statements: &[&str]) -> Vec<Result<Vec<String>, String>> {
    runtime().block_on(async {
        let client = connect(&node.address).await;
        let mut answers = Vec::new();
        for sql in statements {
            answers.push(match client.simple_query(sql).await {
                Ok(messages) => Ok(messages.into_iter().filter_map(row).map(|row| row.join("|")).collect()),
                Err(error) => Err(error.code().unwrap().code().to_owned()),
            });
        }
        answers
    })
}

#[test]
fn cursors_end_when_their_transaction_does_unless_they_are_held() {
    let (_directory, node) = node();
    let rows = |rows: &[&str]| Ok(rows.iter().map(|row| (*row).to_owned()).collect::<Vec<_>>());
    let error = |code: &str| Err(code.to_owned());
    let script = [
        ("BEGIN", rows(&[])),
        ("DECLARE c CURSOR FOR SELECT n FROM t ORDER BY n", rows(&[])),
        ("DECLARE held CURSOR WITH HOLD FOR SELECT n FROM t ORDER BY n DESC", rows(&[])),
        ("FETCH 2 FROM c", rows(&["1", "2"])),
        ("MOVE 3 IN c", rows(&[])),
        ("FETCH NEXT FROM c", rows(&["6"])),
        ("FETCH RELATIVE 2 FROM c", rows(&["8"])),
        ("FETCH held", rows(&["1000"])),
        ("SAVEPOINT s", rows(&[])),
        ("DECLARE c CURSOR FOR SELECT 1", error("42P03")),
        ("FETCH c", error("25P02")),
        ("ROLLBACK TO s", rows(&[])),
        ("FETCH c", rows(&["9"])),
        ("COMMIT", rows(&[])),
        ("FETCH c", error("34000")),
        ("FETCH held", rows(&["999"])),
        ("BEGIN; DECLARE lost CURSOR WITH HOLD FOR SELECT 1; FETCH 1 FROM held; ROLLBACK", rows(&["998"])),
        ("FETCH lost", error("34000")),
        ("FETCH held", rows(&["997"])),
        ("CLOSE held", rows(&[])),
        ("CLOSE held", error("34000")),
        ("DECLARE c CURSOR FOR SELECT 1", error("25P01")),
        // In a query string, what belongs together is a transaction.
        (
            "DECLARE c CURSOR FOR SELECT n FROM t ORDER BY n; FETCH 2 FROM c; MOVE ALL FROM c; FETCH c",
            rows(&["1", "2"]),
        ),
        ("FETCH c", error("34000")),
        ("DECLARE lost CURSOR WITH HOLD FOR SELECT abs(-9223372036854775807 - n) FROM t ORDER BY n", error("22003")),
        ("FETCH lost", error("34000")),
        ("DECLARE kept CURSOR WITH HOLD FOR VALUES ('a'), (NULL)", rows(&[])),
        ("FETCH kept", rows(&["a"])),
        ("DISCARD ALL", rows(&[])),
        ("FETCH kept", error("34000")),
        ("BEGIN; DECLARE a CURSOR FOR SELECT 1; DECLARE b CURSOR FOR SELECT 2; CLOSE ALL", rows(&[])),
        ("FETCH a", error("34000")),
        ("ROLLBACK", rows(&[])),
    ];
    let found = answers(&node, &script.each_ref().map(|(sql, _)| *sql));
    for ((sql, expected), found) in script.into_iter().zip(found) {
        assert_eq!(found, expected, "{sql}");
    }
}

#[test]
fn what_ends_cursors_does_so_also_when_its_rows_are_fetched_in_parts() {
    let (_directory, node) = node();
    let mut raw = Raw::login(&node.address);
    // A portal of which at most one row is asked for.
    let in_part = |raw: &mut Raw, sql: &str| -> Vec<Message> {
        let parse = message(b'P', &[b"s\0", sql.as_bytes(), b"\0\0\0"].concat());
        let run = [message(b'B', b"\0s\0\0\0\0\0\0\0"), message(b'E', b"\0\0\0\0\x01"), message(b'S', b"")].concat();
        raw.send(&[message(b'C', b"Ss\0"), parse, run].concat()).unwrap();
        raw.until(b'Z')
    };
    let failed = |messages: Vec<Message>| messages.iter().find_map(sqlstate);
    raw.query("BEGIN");
    raw.query("DECLARE lost CURSOR WITH HOLD FOR SELECT 1");
    assert_eq!(failed(in_part(&mut raw, "ROLLBACK")), None);
    assert_eq!(failed(raw.query("FETCH lost")).as_deref(), Some("34000"));
    raw.query("DECLARE kept CURSOR WITH HOLD FOR VALUES (1), (2)");
    assert_eq!(failed(in_part(&mut raw, "FETCH kept")), None);
    let told = in_part(&mut raw, "DISCARD ALL");
    assert!(told.contains(&(b'C', b"DISCARD ALL\0".to_vec())), "{told:?}");
    assert_eq!(failed(raw.query("FETCH kept")).as_deref(), Some("34000"));
    // It forgot the prepared statement that it was itself.
    raw.send(&[message(b'D', b"Ss\0"), message(b'S', b"")].concat()).unwrap();
    assert_eq!(failed(raw.until(b'Z')).as_deref(), Some("26000"));
}

#[test]
fn a_cursor_goes_both_ways() {
    let (_directory, node) = node();
    let rows = |rows: &[&str]| Ok(rows.iter().map(|row| (*row).to_owned()).collect::<Vec<_>>());
    let script = [
        ("BEGIN; DECLARE c SCROLL CURSOR FOR SELECT n FROM t WHERE n <= 5 ORDER BY n", rows(&[])),
        ("FETCH PRIOR FROM c", rows(&[])),
        ("FETCH 0 FROM c", rows(&[])),
        ("FETCH 2 FROM c", rows(&["1", "2"])),
        ("FETCH 0 FROM c", rows(&["2"])),
        ("FETCH BACKWARD 0 FROM c", rows(&["2"])),
        ("FETCH RELATIVE 0 FROM c", rows(&["2"])),
        ("FETCH PRIOR FROM c", rows(&["1"])),
        ("FETCH PRIOR FROM c", rows(&[])),
        ("FETCH NEXT FROM c", rows(&["1"])),
        ("FETCH LAST FROM c", rows(&["5"])),
        ("FETCH NEXT FROM c", rows(&[])),
        ("FETCH NEXT FROM c", rows(&[])),
        ("FETCH BACKWARD 2 FROM c", rows(&["5", "4"])),
        ("FETCH FORWARD ALL FROM c", rows(&["5"])),
        ("FETCH BACKWARD ALL FROM c", rows(&["5", "4", "3", "2", "1"])),
        ("FETCH c", rows(&["1"])),
        ("FETCH ABSOLUTE 4 FROM c", rows(&["4"])),
        ("FETCH ABSOLUTE -4 FROM c", rows(&["2"])),
        ("FETCH RELATIVE 2 FROM c", rows(&["4"])),
        ("FETCH RELATIVE -3 FROM c", rows(&["1"])),
        ("FETCH ABSOLUTE 9 FROM c", rows(&[])),
        ("FETCH -1 FROM c", rows(&["5"])),
        ("FETCH ABSOLUTE -9 FROM c", rows(&[])),
        ("FETCH FIRST FROM c", rows(&["1"])),
        ("MOVE LAST FROM c; FETCH RELATIVE 0 FROM c", rows(&["5"])),
        ("MOVE ABSOLUTE 0 FROM c; FETCH c", rows(&["1"])),
        ("MOVE FORWARD 3 FROM c; MOVE BACKWARD 2 FROM c; FETCH 0 FROM c", rows(&["2"])),
        ("DECLARE plain CURSOR FOR SELECT n FROM t ORDER BY n; FETCH 3 FROM plain", rows(&["1", "2", "3"])),
        ("FETCH BACKWARD 2 FROM plain", rows(&["2", "1"])),
        ("DECLARE none SCROLL CURSOR FOR SELECT n FROM t WHERE n > 5000; FETCH LAST FROM none", rows(&[])),
        ("FETCH PRIOR FROM none; FETCH NEXT FROM none; FETCH 0 FROM none", rows(&[])),
        ("DECLARE once NO SCROLL CURSOR FOR SELECT n FROM t ORDER BY n; FETCH 2 FROM once", rows(&["1", "2"])),
        ("FETCH ABSOLUTE 4 FROM once; FETCH RELATIVE 2 FROM once", rows(&["4", "6"])),
    ];
    let found = answers(&node, &script.each_ref().map(|(sql, _)| *sql));
    for ((sql, expected), found) in script.into_iter().zip(found) {
        assert_eq!(found, expected, "{sql}");
    }
    for back in ["FETCH PRIOR", "FETCH 0", "FETCH ABSOLUTE 3", "FETCH LAST", "MOVE BACKWARD ALL", "FETCH RELATIVE -1"] {
        let sql = format!("BEGIN; DECLARE c NO SCROLL CURSOR FOR SELECT n FROM t; MOVE 3 FROM c; {back} FROM c");
        assert_eq!(node.sqlstate(&sql), "55000", "{back}");
    }
    let mut raw = Raw::login(&node.address);
    raw.query("BEGIN; DECLARE c SCROLL CURSOR FOR SELECT n FROM t");
    for (sql, tag) in
        [("MOVE 10 FROM c", "MOVE 10"), ("MOVE BACKWARD ALL FROM c", "MOVE 9"), ("MOVE LAST FROM c", "MOVE 1")]
    {
        let said = raw.query(sql).iter().any(|message| message.0 == b'C' && message.1.starts_with(tag.as_bytes()));
        assert!(said, "{sql}");
    }
}

#[test]
fn a_long_cursor_goes_both_ways_in_little_memory() {
    let (_directory, node) = node();
    python(
        &node,
        r#"
length = 200000
query = f"with recursive i (n) as (select 1 union all select n + 1 from i limit {length}) select n, printf('%.100c', 'x') from i"
with psycopg.connect(dsn) as connection:
    with connection.cursor("long", scrollable=True) as cursor:
        cursor.execute(query)
        for at in (length - 1, 0, length // 2, 7, length - 7):
            cursor.scroll(at, mode="absolute")
            assert [int(row[0]) for row in cursor.fetchmany(5)] == list(range(at + 1, min(at + 6, length + 1)))
    connection.execute("declare back scroll cursor for " + query)
    connection.execute("move last from back")
    rows = connection.execute("fetch backward all from back").fetchall()
    assert [int(row[0]) for row in rows] == list(range(length - 1, 0, -1))
"#,
    );
}

#[test]
fn a_connection_has_so_many_cursors_and_no_more() {
    let (_directory, node) = node();
    let mut raw = Raw::login(&node.address);
    raw.query("BEGIN");
    let mut codes = Vec::new();
    for number in 0..70 {
        let messages = raw.query(&format!("DECLARE c{number} CURSOR FOR SELECT {number}"));
        codes.extend(messages.iter().find_map(sqlstate));
    }
    assert_eq!(codes[0], "54000");
    assert_eq!(codes.len(), 6);
}
