use rusqlite::Connection;

use super::super::super::errors::of_statement;
use super::super::read_schema;
use super::*;

const TABLES: &str = "
    CREATE TABLE t (a INTEGER PRIMARY KEY, b NOT NULL UNIQUE, c CHECK (c > 0), d CONSTRAINT \"Even\" CHECK (d % 2 = 0),
                    CONSTRAINT pair UNIQUE (c, d), UNIQUE (d, b));
    CREATE TABLE u (a TEXT, b INT, x, CONSTRAINT main_key PRIMARY KEY (b, a), CHECK (x <> 'no'), CHECK(length( X )<3));
    CREATE TABLE w (a TEXT PRIMARY KEY, a_b UNIQUE, a2, b2, UNIQUE (a2, b2), CHECK (a <> 'never')) WITHOUT ROWID;
    CREATE INDEX w_a2_b2_key ON w (b2);
    CREATE TABLE two (a, b);
    CREATE UNIQUE INDEX low ON two (a) WHERE b < 5; CREATE UNIQUE INDEX high ON two (a) WHERE b > 2;
    CREATE UNIQUE INDEX cased ON two (lower(b)); CREATE UNIQUE INDEX plain ON two (b, a);
    CREATE TABLE same (a CHECK (a <> 'never'), b CONSTRAINT twice CHECK (b < 9));
    CREATE TABLE again (b CONSTRAINT twice CHECK (b < 9));
    CREATE TABLE \"odd.name\" (a NOT NULL);
    INSERT INTO t VALUES (1, 1, 1, 2); INSERT INTO u VALUES ('a', 1, 'y'); INSERT INTO w VALUES ('a', 1, 2, 3);
    INSERT INTO two VALUES (1, 3), (9, 'B'); INSERT INTO same VALUES (1, 1);";

fn database() -> Connection {
    let connection = Connection::open_in_memory().unwrap();
    connection.execute_batch(TABLES).unwrap();
    connection
}

/// Table, column and constraint that the error of a statement names, and its message.
fn told(connection: &Connection, home: Home, sql: &str) -> ([Option<String>; 3], String) {
    let error = connection.execute(sql, []).unwrap_err();
    let told = of_statement(connection, home, &error);
    let object = told.object.map(|object| *object).unwrap_or_default();
    let is_told = object == ErrorObject::default() || object.table.is_none() || object.schema.is_some();
    assert!(is_told && object.data_type.is_none(), "{object:?}");
    ([object.table, object.column, object.constraint], told.message)
}

#[test]
fn what_was_violated_is_named() {
    let connection = database();
    let unique = "duplicate key value violates unique constraint";
    for (sql, table, column, constraint, message) in [
        ("INSERT INTO t VALUES (1, 2, 2, 2)", "t", "", "t_pkey", format!("{unique} \"t_pkey\"")),
        ("INSERT INTO t VALUES (2, 1, 2, 4)", "t", "", "t_b_key", format!("{unique} \"t_b_key\"")),
        ("INSERT INTO t VALUES (2, 2, 1, 2)", "t", "", "pair", format!("{unique} \"pair\"")),
        ("INSERT INTO u VALUES ('a', 1, NULL)", "u", "", "main_key", format!("{unique} \"main_key\"")),
        ("INSERT INTO w VALUES ('a', 2, 3, 4)", "w", "", "w_pkey", format!("{unique} \"w_pkey\"")),
        ("INSERT INTO w VALUES ('b', 1, 3, 4)", "w", "", "w_a_b_key", format!("{unique} \"w_a_b_key\"")),
        // Another index is called as PostgreSQL would call it first.
        ("INSERT INTO w VALUES ('b', 2, 2, 3)", "w", "", "w_a2_b2_key1", format!("{unique} \"w_a2_b2_key1\"")),
        ("INSERT INTO two VALUES (9, 'B')", "two", "", "plain", format!("{unique} \"plain\"")),
        ("INSERT INTO two VALUES (10, 'b')", "two", "", "cased", format!("{unique} \"cased\"")),
        // Two indexes have that column, and SQLite does not say which it is.
        ("INSERT INTO two VALUES (1, 4)", "two", "", "", format!("{unique} on two (a)")),
        ("INSERT INTO two (rowid, b) VALUES (1, 7)", "two", "", "", format!("{unique} on two (rowid)")),
        (
            "UPDATE t SET b = NULL",
            "t",
            "b",
            "",
            "null value in column \"b\" of relation \"t\" violates not-null constraint".to_owned(),
        ),
        (
            "UPDATE t SET d = 3",
            "t",
            "",
            "Even",
            "new row for relation \"t\" violates check constraint \"Even\"".to_owned(),
        ),
        (
            "UPDATE t SET c = 0",
            "t",
            "",
            "t_check",
            "new row for relation \"t\" violates check constraint \"t_check\"".to_owned(),
        ),
        (
            "UPDATE u SET x = 'long'",
            "u",
            "",
            "u_check1",
            "new row for relation \"u\" violates check constraint \"u_check1\"".to_owned(),
        ),
        // Either of two tables, whose constraints are called the same, or not.
        ("UPDATE same SET b = 10", "", "", "twice", "new row violates check constraint \"twice\"".to_owned()),
        ("UPDATE same SET a = 'never'", "", "", "", "new row violates check constraint \"a <> 'never'\"".to_owned()),
        (
            "INSERT INTO \"odd.name\" VALUES (NULL)",
            "",
            "",
            "",
            "null value in column \"name.a\" of relation \"odd\" violates not-null constraint".to_owned(),
        ),
    ] {
        let expected = [table, column, constraint].map(|name| (!name.is_empty()).then(|| name.to_owned()));
        assert_eq!(told(&connection, Home::Stored, sql), (expected, message), "{sql}");
    }
}

/// What the catalogs call it is what an error does.
#[test]
fn the_catalogs_have_the_same_names() {
    let schema = read_schema(&database()).unwrap();
    let names_of = |table: &str| {
        let oid = schema.table_named(table).unwrap().oid;
        let constraints = schema.constraints.iter().filter(|constraint| constraint.table == oid);
        let mut names: Vec<&str> = constraints.map(|constraint| constraint.name.as_str()).collect();
        names.sort_unstable();
        names
    };
    assert_eq!(names_of("t"), ["Even", "pair", "t_b_key", "t_check", "t_d_b_key", "t_pkey"]);
    assert_eq!(names_of("u"), ["main_key", "u_check", "u_check1"]);
    assert_eq!(names_of("w"), ["w_a2_b2_key1", "w_a_b_key", "w_check", "w_pkey"]);
    let indexes: Vec<&str> = schema.indexes.iter().map(|index| index.name.as_str()).collect();
    for name in ["t_pkey", "pair", "main_key", "w_a2_b2_key", "w_a2_b2_key1", "cased", "low"] {
        assert!(indexes.contains(&name), "{name}: {indexes:?}");
    }
}

#[test]
fn temporary_tables_are_named_as_such() {
    let connection = database();
    connection.execute_batch("CREATE TEMP TABLE t (z UNIQUE); INSERT INTO t VALUES (1)").unwrap();
    let error = connection.execute("INSERT INTO t VALUES (1)", []).unwrap_err();
    let object = of_statement(&connection, Home::Temporary, &error).object.unwrap();
    assert_eq!((object.schema.as_deref(), object.constraint.as_deref()), (Some("pg_temp"), Some("t_z_key")));
}
