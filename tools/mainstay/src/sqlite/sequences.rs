//! Where the AUTOINCREMENT counters stand. SQLite calls no hook for changes to `sqlite_sequence`, so they travel in a part of
//! their own.
//!
//! Replay does not move counters as the statements did: an UPDATE of a key leaves them, and arrives as DELETE and INSERT,
//! which do not. So replay sets all of them to what the records say.

use std::collections::BTreeMap;

use rusqlite::{Connection, params};

use super::payload::SequenceChange;

/// The counter of each table that has one.
pub(super) type Sequences = BTreeMap<String, i64>;

/// Reads all counters.
pub(super) fn read(connection: &Connection) -> rusqlite::Result<Sequences> {
    // The table comes with the first AUTOINCREMENT and never goes.
    if !connection.prepare_cached("SELECT 1 FROM sqlite_schema WHERE name = 'sqlite_sequence'")?.exists([])? {
        return Ok(Sequences::new());
    }
    let mut statement = connection.prepare_cached("SELECT name, seq FROM main.sqlite_sequence")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    rows.collect()
}

/// What leads from `before` to `after`.
pub(super) fn changes(before: &Sequences, after: &Sequences) -> Vec<SequenceChange> {
    let gone = before.keys().filter(|table| !after.contains_key(*table));
    let gone = gone.map(|table| SequenceChange { table: table.clone(), value: None });
    let moved = after.iter().filter(|(table, value)| before.get(*table) != Some(*value));
    gone.chain(moved.map(|(table, value)| SequenceChange { table: table.clone(), value: Some(*value) })).collect()
}

/// Takes over changes that [`changes`] answered.
pub(super) fn note(counters: &mut Sequences, changes: &[SequenceChange]) {
    for change in changes {
        match change.value {
            Some(value) => counters.insert(change.table.clone(), value),
            None => counters.remove(&change.table),
        };
    }
}

/// Makes the counters stand as in `expected`, in the transaction that is open.
pub(super) fn restore(connection: &Connection, expected: &Sequences) -> rusqlite::Result<()> {
    changes(&read(connection)?, expected).iter().try_for_each(|change| write(connection, change))
}

fn write(connection: &Connection, change: &SequenceChange) -> rusqlite::Result<()> {
    let Some(value) = change.value else {
        connection.prepare_cached("DELETE FROM main.sqlite_sequence WHERE name = ?1")?.execute([&change.table])?;
        return Ok(());
    };
    let update = "UPDATE main.sqlite_sequence SET seq = ?2 WHERE name = ?1";
    if connection.prepare_cached(update)?.execute(params![change.table, value])? == 0 {
        let insert = "INSERT INTO main.sqlite_sequence (name, seq) VALUES (?1, ?2)";
        connection.prepare_cached(insert)?.execute(params![change.table, value])?;
    }
    Ok(())
}
