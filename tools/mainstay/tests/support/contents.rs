//! What is in a database file of SQLite, to be compared with another.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags};

/// The name of each table and its rows in a fixed order, the schema and the version that users set among them.
pub type Contents = BTreeMap<String, Vec<String>>;

/// Everything in the database of a stopped node's engine, which must be sound.
pub fn contents(engine_dir: &Path) -> Contents {
    let file = engine_dir.join("main.sqlite");
    let connection = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_WRITE).unwrap();
    assert_eq!(rows(&connection, "PRAGMA integrity_check"), ["[Text(\"ok\")]"]);
    assert_eq!(rows(&connection, "PRAGMA foreign_key_check"), Vec::<String>::new());
    let mut contents = Contents::new();
    for (name, sql) in
        [("the schema", "SELECT type, name, tbl_name, sql FROM sqlite_schema"), ("user_version", "PRAGMA user_version")]
    {
        contents.insert(name.to_owned(), rows(&connection, sql));
    }
    for table in tables(&connection) {
        let found = rows(&connection, &format!("SELECT * FROM \"{table}\""));
        contents.insert(table, found);
    }
    contents
}

/// The tables of clients and of SQLite.
pub fn tables(connection: &Connection) -> Vec<String> {
    let sql = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'mainstay\\_%' ESCAPE '\\'";
    let mut statement = connection.prepare(sql).unwrap();
    let names = statement.query_map([], |row| row.get(0)).unwrap();
    names.map(Result::unwrap).collect()
}

/// The rows of a query, each as text that tells values of different types apart, in a fixed order.
pub fn rows(connection: &Connection, sql: &str) -> Vec<String> {
    let mut statement = connection.prepare(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    let width = statement.column_count();
    let found = statement.query_map([], |row| {
        let values: Vec<Value> = (0..width).map(|column| row.get(column)).collect::<Result<_, _>>()?;
        Ok(format!("{values:?}"))
    });
    let mut found: Vec<String> = found.unwrap().map(Result::unwrap).collect();
    found.sort();
    found
}
