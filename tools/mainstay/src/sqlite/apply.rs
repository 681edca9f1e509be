//! Records of the WAL put into SQLite: replay after a start, on a standby, and the way out when SQLite's own COMMIT of a
//! durable transaction failed.
//!
//! Triggers, foreign keys and CHECKs are off: a record holds their effects already. Nothing is skipped: a row that is not
//! as the record says it was, or a table that is not there, is an error, because going on would hide that data differ.

use std::num::NonZero;
use std::sync::Arc;

use mainstay::lsn::Lsn;
use mainstay::wal::Record;
use parking_lot::Mutex;
use rusqlite::config::DbConfig;
use rusqlite::fallible_streaming_iterator::FallibleStreamingIterator;
use rusqlite::session::{ChangesetItem, ChangesetIter, ConflictAction, ConflictType};
use rusqlite::{Connection, OptionalExtension};

use super::payload::{Part, Payload, PayloadError};
use super::{DATABASE, STATE_TABLE, sequences};

/// Records per SQLite transaction: many small ones share one commit.
const BATCH_RECORDS: usize = 256;
/// Payload bytes per SQLite transaction, but for a single record that is larger.
const BATCH_BYTES: usize = 4 << 20;

/// Why records could not be applied.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApplyError {
    #[error("record at {start}: {source}")]
    Payload { start: Lsn, source: PayloadError },
    #[error("record at {start} belongs to database {found}; this engine holds {DATABASE}")]
    Database { start: Lsn, found: u32 },
    #[error("record {start}–{end} was given again: everything before {applied} is applied")]
    Again { start: Lsn, end: Lsn, applied: Lsn },
    #[error("record at {start} does not fit the data it should change: {conflict}")]
    Conflict { start: Lsn, conflict: String },
    #[error("record at {start}: {source}")]
    Sqlite { start: Lsn, source: rusqlite::Error },
    #[error("{0}")]
    Connection(#[from] rusqlite::Error),
}

/// Where replay stands, as stored.
pub(super) fn stored_lsn(connection: &Connection) -> rusqlite::Result<Lsn> {
    let sql = format!("SELECT applied FROM {STATE_TABLE}");
    let stored: Option<i64> = connection.prepare_cached(&sql)?.query_row([], |row| row.get(0)).optional()?;
    Ok(Lsn::new(stored.unwrap_or(0).cast_unsigned()))
}

/// Stores where replay stands, in the transaction that is open.
pub(super) fn store_lsn(connection: &Connection, end: Lsn) -> rusqlite::Result<()> {
    let sql = format!("UPDATE {STATE_TABLE} SET applied = ?1");
    let changed = connection.prepare_cached(&sql)?.execute([end.get().cast_signed()])?;
    if changed == 1 { Ok(()) } else { Err(rusqlite::Error::StatementChangedRows(changed)) }
}

/// Applies records in order, in as few transactions as its bounds allow. No transaction may be open.
pub(super) fn apply(connection: &Connection, records: &[Record]) -> Result<(), ApplyError> {
    let mut rest = records;
    while !rest.is_empty() {
        let (batch, later) = rest.split_at(batch_length(rest));
        bare(connection, |connection| apply_batch(connection, batch))?;
        rest = later;
    }
    Ok(())
}

fn batch_length(records: &[Record]) -> usize {
    let mut bytes = 0;
    let fits = |record: &&Record| {
        bytes += record.payload.len();
        bytes <= BATCH_BYTES
    };
    records.iter().take(BATCH_RECORDS).take_while(fits).count().max(1)
}

/// Runs `work` without triggers, foreign keys and checks, which are on again afterwards.
fn bare(connection: &Connection, work: impl FnOnce(&Connection) -> Result<(), ApplyError>) -> Result<(), ApplyError> {
    let set = |on: bool| {
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, on)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, on)?;
        connection.pragma_update(None, "ignore_check_constraints", !on)
    };
    let done = set(false).map_err(ApplyError::from).and_then(|()| work(connection));
    let restored = set(true);
    done?;
    Ok(restored?)
}

fn apply_batch(connection: &Connection, batch: &[Record]) -> Result<(), ApplyError> {
    connection.execute_batch("BEGIN IMMEDIATE")?;
    let done = apply_in_transaction(connection, batch).and_then(|()| Ok(connection.execute_batch("COMMIT")?));
    if done.is_err() && !connection.is_autocommit() {
        connection.execute_batch("ROLLBACK")?;
    }
    done
}

fn apply_in_transaction(connection: &Connection, batch: &[Record]) -> Result<(), ApplyError> {
    let mut applied = stored_lsn(connection)?;
    let mut counters = sequences::read(connection)?;
    for record in batch {
        let start = record.start;
        if record.end <= applied {
            return Err(ApplyError::Again { start, end: record.end, applied });
        }
        let payload = Payload::decode(&record.payload).map_err(|source| ApplyError::Payload { start, source })?;
        if payload.database != DATABASE {
            return Err(ApplyError::Database { start, found: payload.database.get() });
        }
        for part in &payload.parts {
            match part {
                Part::Changeset(changeset) => apply_changeset(connection, start, changeset)?,
                Part::Ddl(text) => {
                    apply_ddl(connection, text).map_err(|source| ApplyError::Sqlite { start, source })?;
                }
                Part::Sequences(changes) => sequences::note(&mut counters, changes),
            }
        }
        applied = record.end;
    }
    // No record's effects depend on where counters stand, so once for all is enough.
    sequences::restore(connection, &counters)?;
    Ok(store_lsn(connection, applied)?)
}

fn apply_ddl(connection: &Connection, text: &str) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(text)?;
    let mut rows = statement.raw_query();
    while rows.next()?.is_some() {}
    Ok(())
}

fn apply_changeset(connection: &Connection, start: Lsn, changeset: &[u8]) -> Result<(), ApplyError> {
    let conflict = |conflict| ApplyError::Conflict { start, conflict };
    check_tables(connection, changeset)
        .map_err(|source| ApplyError::Sqlite { start, source })?
        .map_or(Ok(()), |found| Err(conflict(found)))?;
    let first = Arc::new(Mutex::new(None));
    let noted = Arc::clone(&first);
    let note = move |kind: ConflictType, item: ChangesetItem| {
        noted.lock().get_or_insert_with(|| describe(&kind, &item));
        ConflictAction::SQLITE_CHANGESET_ABORT
    };
    let mut input = changeset;
    let applied = connection.apply_strm(&mut input, None::<fn(&str) -> bool>, note);
    match (applied, first.lock().take()) {
        (Err(_), Some(found)) | (Ok(()), Some(found)) => Err(conflict(found)),
        (Err(source), None) => Err(ApplyError::Sqlite { start, source }),
        (Ok(()), None) => Ok(()),
    }
}

fn describe(kind: &ConflictType, item: &ChangesetItem) -> String {
    match item.op() {
        Ok(operation) => format!("{:?} of a row of {}: {kind:?}", operation.code(), operation.table_name()),
        Err(_) => format!("{kind:?}"),
    }
}

/// SQLite skips the changes of tables that are missing or have another shape, and says so in its log only. So their shapes
/// are compared first; answers what does not fit.
fn check_tables(connection: &Connection, changeset: &[u8]) -> rusqlite::Result<Option<String>> {
    let mut input = changeset;
    let input: &mut dyn std::io::Read = &mut input;
    let mut items = ChangesetIter::start_strm(&input)?;
    let mut last = String::new();
    while let Some(item) = items.next()? {
        let operation = item.op()?;
        let name = operation.table_name();
        if name == last {
            continue;
        }
        let expected = item.pk()?;
        let found = shape(connection, name)?;
        if found != expected {
            let message = format!("table {name} has key columns {found:?}, the record {expected:?}");
            return Ok(Some(if found.is_empty() { format!("table {name} does not exist") } else { message }));
        }
        last = name.to_owned();
    }
    Ok(None)
}

/// The place of each stored column in the table's primary key, 0 for none, as changesets have it: a table without one
/// counts its rowid as the first column. Empty if there is no such table.
fn shape(connection: &Connection, table: &str) -> rusqlite::Result<Vec<u8>> {
    let sql = "SELECT pk FROM pragma_table_xinfo(?1) WHERE hidden = 0 ORDER BY cid";
    let mut statement = connection.prepare_cached(sql)?;
    let mut keys = statement.query_map([table], |row| row.get(0))?.collect::<rusqlite::Result<Vec<u8>>>()?;
    let keyless = NonZero::new(keys.len()).is_some() && keys.iter().all(|place| *place == 0);
    if keyless {
        keys.insert(0, 1);
    }
    Ok(keys)
}
