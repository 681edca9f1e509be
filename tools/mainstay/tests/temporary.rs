//! Temporary tables, as psql and psycopg use them; and that nothing of them is in the data directory, in the log least of all.

mod support;

use std::fs;
use std::path::Path;

use support::contents::contents;
use support::programs::{program, python};
use support::{Running, run};

/// In every row that is temporary, and in no other.
const MARK: &str = "nobody-else-sees-this";

const PSYCOPG: &str = r#"
mark = "nobody-else-sees-this"
with psycopg.connect(dsn) as c:
    end = c.execute("show wal").fetchone()[3]
    c.execute("create temp table staged (id serial primary key, body text, n int) on commit preserve rows")
    with c.cursor() as cursor:
        cursor.executemany("insert into staged (body, n) values (%s, %s)", [(mark, n) for n in range(500)])
        assert cursor.rowcount == 500, cursor.rowcount
        with cursor.copy("copy staged (body, n) from stdin") as copy:
            for n in range(5000):
                copy.write_row((f"{mark} {n}", None))
        assert cursor.rowcount == 5000, cursor.rowcount
        with cursor.copy("copy staged to stdout") as copy:
            assert sum(1 for row in copy.rows()) == 5500
    assert c.execute("select count(*), max(id) from staged").fetchone() == (5500, 5500)
    with c.cursor("a cursor") as cursor:
        cursor.execute("select id from staged order by id")
        assert cursor.fetchmany(3) == [(1,), (2,), (3,)]
    c.commit()
    with psycopg.connect(dsn) as other:
        try:
            other.execute("select * from staged")
        except errors.UndefinedTable:
            pass
        else:
            raise AssertionError("another session saw a temporary table")
    assert c.execute("show wal").fetchone()[3] == end, "the log grew"
    c.commit()
    # What is made of them is the database's.
    with c.pipeline():
        c.execute("insert into kept select id, n * 2 from staged where n is not null")
        c.execute("update kept set v = -v where id in (select id from staged where n < %s)", [10])
        found = c.execute("select count(*), sum(v) from kept join staged using (id)")
    assert found.fetchone() == (500, sum(range(500)) * 2 - 4 * sum(range(10)))
    c.commit()
    for binary in (False, True):
        row = c.execute("select id, body from staged where id = %s", [7], binary=binary).fetchone()
        assert row == (7, mark), row
    c.execute("create temp table gone on commit drop as select * from kept where id < %s", [4])
    assert c.execute("select count(*) from gone").fetchone() == (3,)
    c.commit()
    try:
        c.execute("select * from gone")
    except errors.UndefinedTable:
        # psycopg forgets what it prepared (DEALLOCATE) when it rolls back.
        c.rollback()
    try:
        c.execute("delete from kept")
        c.execute("insert into staged (n) select v from kept")
    except errors.FeatureNotSupported as error:
        assert "temporary" in str(error), error
        c.rollback()
    c.autocommit = True
    c.execute("discard all")
    assert c.execute("select to_regclass('kept') is null").fetchone() == (False,)
    try:
        c.execute("select * from staged")
    except errors.UndefinedTable:
        pass
    else:
        raise AssertionError("a temporary table is still there")
"#;

#[test]
fn nothing_temporary_outlives_its_session_or_reaches_the_disk() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let node = Running::start(&data, &[]);
    node.rows("CREATE TABLE kept (id INTEGER PRIMARY KEY, v INT)");
    python(&node, PSYCOPG);
    let rows = directory.path().join("rows.csv");
    fs::write(&rows, format!("1,{MARK}\n2,{MARK}\n")).unwrap();
    let script = [
        "CREATE TEMPORARY TABLE t (a int, b text);".to_owned(),
        format!("\\copy t FROM '{}' CSV", rows.display()),
        format!("INSERT INTO t VALUES (3, '{MARK}') RETURNING a;"),
        "BEGIN; DELETE FROM t; SAVEPOINT s; INSERT INTO t VALUES (4, ''); ROLLBACK TO s;".to_owned(),
        "SELECT count(*) FROM t; ROLLBACK; SELECT a, v FROM t JOIN kept ON id = a ORDER BY a;".to_owned(),
        "DROP TABLE t; SELECT * FROM t;".to_owned(),
    ];
    let file = directory.path().join("script.sql");
    fs::write(&file, script.join("\n")).unwrap();
    let mut psql = program("psql", &node);
    let output = run(psql.args(["-X", "-q", "-A", "-t", "-f", file.to_str().unwrap()]));
    assert_eq!(output.stdout, "3\n0\n1|0\n2|-2\n3|-4\n", "{output:?}");
    assert!(output.stderr.contains("relation \"t\" does not exist"), "{output:?}");

    assert_eq!(node.stop("TERM").code, Some(0));
    assert_eq!(holding(&data, MARK), Vec::<String>::new());
    let engine = data.join("engine");
    let before = contents(&engine);
    assert_eq!(before.get("kept").map(Vec::len), Some(500));
    fs::rename(&engine, directory.path().join("aside")).unwrap();
    assert_eq!(Running::start(&data, &[]).stop("TERM").code, Some(0));
    assert_eq!(contents(&engine), before);
}

/// The files below a directory that have those bytes in them.
fn holding(directory: &Path, bytes: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(holding(&path, bytes));
        } else if fs::read(&path).unwrap().windows(bytes.len()).any(|window| window == bytes.as_bytes()) {
            found.push(path.display().to_string());
        }
    }
    found
}
