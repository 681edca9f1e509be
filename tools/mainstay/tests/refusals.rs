//! What a statement is refused for, as drivers tell it to programs: the names of what it violated, and values that are none of
//! their type.

mod support;

use support::Running;
use support::programs::python;

fn node() -> (tempfile::TempDir, Running) {
    let directory = tempfile::tempdir().unwrap();
    let node = Running::start(&directory.path().join("data"), &[]);
    (directory, node)
}

#[test]
fn psycopg_is_told_what_was_violated() {
    let (_directory, node) = node();
    python(
        &node,
        r#"
with psycopg.connect(dsn, autocommit=True) as connection:
    connection.execute("CREATE TABLE parent (id int PRIMARY KEY)")
    connection.execute(
        "CREATE TABLE t (a int PRIMARY KEY, b text NOT NULL UNIQUE, c int CHECK (c > 0), d int, "
        "parent int REFERENCES parent, CONSTRAINT pair UNIQUE (c, d), CONSTRAINT small CHECK (d < 10))"
    )
    connection.execute("CREATE UNIQUE INDEX lower_b ON t (lower(b), d)")
    connection.execute("INSERT INTO t VALUES (1, 'one', 1, 1, NULL)")
    names = {row[0] for row in connection.execute("SELECT conname FROM pg_constraint").fetchall()}
    names |= {row[0] for row in connection.execute("SELECT relname FROM pg_class WHERE relkind = 'i'").fetchall()}
    for values, kind, column, constraint in [
        ("(1, 'two', 2, 2, NULL)", errors.UniqueViolation, None, "t_pkey"),
        ("(2, 'one', 2, 2, NULL)", errors.UniqueViolation, None, "t_b_key"),
        ("(2, 'ONE', 2, 1, NULL)", errors.UniqueViolation, None, "lower_b"),
        ("(2, 'two', 1, 1, NULL)", errors.UniqueViolation, None, "pair"),
        ("(2, NULL, 2, 2, NULL)", errors.NotNullViolation, "b", None),
        ("(NULL, 'two', 2, 2, NULL)", errors.NotNullViolation, "a", None),
        ("(2, 'two', 0, 2, NULL)", errors.CheckViolation, None, "t_check"),
        ("(2, 'two', 2, 20, NULL)", errors.CheckViolation, None, "small"),
    ]:
        # By itself, together with others, in a transaction, and as rows of a COPY.
        def alone(sql):
            connection.execute(sql)
        def prepared(sql):
            connection.execute(sql, prepare=True)
        def in_transaction(sql):
            with connection.transaction():
                connection.execute("SELECT 1")
                connection.execute(sql)
        def copied(sql):
            with connection.cursor().copy("COPY t FROM STDIN CSV") as copy:
                copy.write(values.strip("()").replace("NULL", "").replace("'", "").replace(", ", ",") + "\n")
        for how in (alone, prepared, in_transaction, copied):
            try:
                how(f"INSERT INTO t VALUES {values}")
                raise AssertionError(values)
            except kind as error:
                diag = error.diag
                told = (diag.schema_name, diag.table_name, diag.column_name, diag.constraint_name, diag.datatype_name)
                assert told == ("main", "t", column, constraint, None), (how, values, told)
                assert constraint is None or (constraint in names and f'"{constraint}"' in diag.message_primary), diag.message_primary
                assert "one" not in (diag.message_detail or "").lower(), "no values"
    # SQLite does not say which key it was.
    try:
        connection.execute("INSERT INTO t VALUES (2, 'two', 2, 2, 9)")
        raise AssertionError("a reference to nothing")
    except errors.ForeignKeyViolation as error:
        assert error.diag.constraint_name is None and error.diag.table_name is None
    connection.execute("CREATE TEMP TABLE mine (a int PRIMARY KEY, b int NOT NULL)")
    connection.execute("INSERT INTO mine VALUES (1, 1)")
    try:
        connection.execute("INSERT INTO mine VALUES (1, 1)")
        raise AssertionError("a key twice")
    except errors.UniqueViolation as error:
        assert (error.diag.schema_name, error.diag.constraint_name) == ("pg_temp", "mine_pkey"), error.diag.schema_name
"#,
    );
}

#[test]
fn numbers_that_are_none_are_refused_and_infinite_ones_kept() {
    let (_directory, node) = node();
    python(
        &node,
        r#"
from decimal import Decimal
inf, nan = float("inf"), float("nan")
with psycopg.connect(dsn, autocommit=True) as connection:
    connection.execute("CREATE TABLE t (f double precision, n numeric)")
    for binary in (False, True):
        cursor = connection.cursor(binary=binary)
        slot = "%b" if binary else "%t"
        for sql in (f"INSERT INTO t (f) VALUES ({slot})", f"SELECT {slot}::float8", f"UPDATE t SET f = {slot}"):
            try:
                cursor.execute(sql, (nan,))
                raise AssertionError(sql)
            except errors.FeatureNotSupported as error:
                assert "NaN" in str(error)
        cursor.execute(f"INSERT INTO t (f) VALUES ({slot}), ({slot})", (inf, -inf))
        assert cursor.execute("SELECT f FROM t ORDER BY f").fetchall() == [(-inf,), (inf,)]
        assert cursor.execute(f"SELECT count(*) FROM t WHERE f = {slot}", (inf,)).fetchone() == (1,)
        # A decimal has such a value, which is text to SQLite.
        cursor.execute(f"INSERT INTO t (n) VALUES ({slot})", (Decimal("NaN"),))
        assert cursor.execute("SELECT n FROM t WHERE n IS NOT NULL").fetchone()[0].is_nan()
        cursor.execute("DELETE FROM t")
"#,
    );
}

#[test]
fn what_is_no_date_is_not_copied_into_a_column_of_dates() {
    let (_directory, node) = node();
    python(
        &node,
        r#"
with psycopg.connect(dsn, autocommit=True) as connection:
    connection.execute("CREATE TABLE t (id int PRIMARY KEY, d date, at timestamptz, u uuid, n numeric, j jsonb)")
    cursor = connection.cursor()
    good = "2024-02-29,2024-02-29 10:00:00+02,a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11,1.50,[1]"
    for column, position, kind in [
        ("d", 0, errors.InvalidDatetimeFormat),
        ("at", 1, errors.InvalidDatetimeFormat),
        ("u", 2, errors.InvalidTextRepresentation),
        ("n", 3, errors.InvalidTextRepresentation),
        ("j", 4, errors.InvalidTextRepresentation),
    ]:
        bad = good.split(",")
        bad[position] = "garbage"
        try:
            with cursor.copy("COPY t FROM STDIN CSV") as copy:
                copy.write(f"1,{good}\n2,{','.join(bad)}\n")
            raise AssertionError(column)
        except kind as error:
            assert error.diag.context == f"COPY t, line 2, column {column}", error.diag.context
        assert cursor.execute("SELECT count(*) FROM t").fetchone() == (0,)
    with cursor.copy("COPY t FROM STDIN CSV") as copy:
        copy.write(f"1,{good}\n2,,,,,\n")
    rows = cursor.execute("SELECT d::text, at::text, n FROM t ORDER BY id").fetchall()
    assert str(rows[0]) == "('2024-02-29', '2024-02-29 08:00:00', Decimal('1.5'))", rows
"#,
    );
}
