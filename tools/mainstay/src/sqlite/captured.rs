//! What the open transaction does to rows, written down as a changeset while it happens.
//!
//! SQLite calls a hook before each row that it inserts, changes or deletes in a table: by the statement itself, by triggers and
//! the actions of foreign keys, by REPLACE, by what DROP TABLE deletes. It hands out the values that are there and those that
//! will be stored. They are written at once, so nothing has to be read back when the transaction ends.
//!
//! **Why a replay of it ends with the same rows.** At replay, triggers, foreign keys and checks are off, and no table depends on
//! another. Each table's changes are applied in the order in which they were made, so each row goes through the states that it
//! went through here, and no constraint is in the way that was not in the way here.
//!
//! **What it leaves out**: temporary tables, which the log never has; the tables of SQLite's own, which follow from the others or
//! travel in a part of their own; the state table, which differs between nodes.
//!
//! **What it must see.** The hook stays installed as long as the connection, because SQLite compiles `DELETE FROM t` into an
//! erasure that no hook is called for if there is none. No session of SQLite's may be on the same connection: it would take
//! the hook's argument for another session. And SQLite must not copy rows from table to table as they are stored
//! (its "transfer optimization"): of a row that is older than a column, the hook is then told NULL for that column, where the
//! copy has the default. So it is compiled without (`.cargo/config.toml`), and no other build opens a database.
//!
//! **What is undone** does not leave by itself: who rolls back to a savepoint goes [back](Capture::back_to) to the mark that was
//! made with it, or starts again. What a failed statement did is of that kind, too, whether SQLite undid it or not.
//!
//! **Keys.** SQLite allows NULL in a declared key (except in `INTEGER PRIMARY KEY` and `WITHOUT ROWID`), PostgreSQL does not, and
//! replay would not find such a row again: 23502. Floating point numbers in a key column without a type are refused as well: 1
//! and 1.0 are the same key to SQLite, and two in a changeset.

use std::collections::HashMap;
use std::sync::Arc;

use mainstay::server::pg::{SqlError, SqlState};
use parking_lot::Mutex;
use rusqlite::Connection;
use rusqlite::hooks::{Action, PreUpdateCase, PreUpdateNewValueAccessor, PreUpdateOldValueAccessor};
use rusqlite::types::ValueRef;

use super::changeset::{self, By, Operation};
use super::errors::{self, from_sqlite};
use super::payload::Limit;
use super::schema::UNTYPED;
use super::{STATE_TABLE, policy};

/// A changeset has no room for more columns in a key.
const MAX_KEY_COLUMNS: usize = u8::MAX as usize;
/// What SQLite has to be compiled with, without the prefix that all options have.
const NEEDED_OPTION: &str = "OMIT_XFER_OPT";
/// The table of AUTOINCREMENT's counters.
const COUNTERS: &str = "sqlite_sequence";

/// Captures what one connection does to rows of `main`.
pub(super) struct Capture(Arc<Mutex<Captured>>);

/// What was captured up to a moment: the length of each touched table's changes.
pub(super) struct Mark(Vec<usize>);

#[derive(Default)]
struct Captured {
    is_on: bool,
    tables: Vec<Table>,
    /// Where in `tables`, by name.
    places: HashMap<String, usize>,
    /// The schema moved since they were read.
    is_stale: bool,
    has_counters: bool,
    /// Tables that are left out.
    excluded: Vec<String>,
    /// Those with changes, in the order in which they were touched.
    touched: Vec<usize>,
    len_bytes: usize,
    /// What the transaction did before, and is captured no more.
    before_bytes: usize,
    limit: Limit,
    /// A row is being written down. Seen at any other time, it says that this panicked.
    is_noting: bool,
    /// Why what is captured does not hold what was done.
    trouble: Option<SqlError>,
}

/// A table, and what was done to it.
struct Table {
    name: String,
    /// Those that are stored as they are given.
    columns: Vec<Column>,
    /// All, as SQLite counts them.
    count: i32,
    /// It has no key of its own: rows are told apart by the rowid.
    keyless: bool,
    header: Vec<u8>,
    /// The header and the changes; empty if there are none.
    changes: Vec<u8>,
}

struct Column {
    name: String,
    index: i32,
    is_key: bool,
    /// It keeps numbers as they come.
    untyped: bool,
}

/// Why a row was not written down.
enum Unnoted {
    /// SQLite did not hand out a value.
    Value(rusqlite::Error),
    /// It may not be stored.
    Refused(SqlError),
}

impl From<rusqlite::Error> for Unnoted {
    fn from(error: rusqlite::Error) -> Unnoted {
        Unnoted::Value(error)
    }
}

impl Capture {
    /// Installs itself on `connection`, for good.
    ///
    /// # Errors
    /// SQLite's, and a SQLite that was compiled otherwise.
    pub(super) fn install(connection: &mut Connection) -> rusqlite::Result<Capture> {
        let used: bool =
            connection.query_row("SELECT sqlite_compileoption_used(?1)", [NEEDED_OPTION], |row| row.get(0))?;
        if !used {
            let misuse = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_MISUSE);
            let what = format!("this program was built with a SQLite that lacks {NEEDED_OPTION}");
            return Err(rusqlite::Error::SqliteFailure(misuse, Some(what)));
        }
        let captured = Arc::new(Mutex::new(Captured { is_stale: true, ..Captured::default() }));
        let shared = Arc::clone(&captured);
        connection.preupdate_hook(Some(move |_: Action, schema: &str, table: &str, case: &PreUpdateCase| {
            let mut captured = shared.lock();
            if captured.is_on && schema == "main" {
                captured.note(table, case);
            }
        }))?;
        Ok(Capture(captured))
    }

    /// Captures from now on what is done to tables that are not `excluded`, forgetting what was captured so far. What the
    /// transaction did before takes `before_bytes`.
    pub(super) fn start(
        &self,
        connection: &Connection,
        excluded: Vec<String>,
        before_bytes: usize,
    ) -> rusqlite::Result<()> {
        self.stop();
        if self.0.lock().is_stale {
            let tables = Table::all(connection)?;
            self.0.lock().learn(tables);
        }
        let mut captured = self.0.lock();
        captured.excluded = excluded;
        captured.before_bytes = before_bytes;
        captured.is_on = true;
        Ok(())
    }

    /// Captures no more, and forgets what was captured.
    pub(super) fn stop(&self) {
        let mut captured = self.0.lock();
        captured.is_on = false;
        captured.is_noting = false;
        captured.trouble = None;
        captured.forget();
    }

    /// The schema is not what it was; it is read again at the next start.
    pub(super) fn schema_moved(&self) {
        self.0.lock().is_stale = true;
    }

    /// Whether some table has an AUTOINCREMENT counter, as of the last start.
    pub(super) fn has_counters(&self) -> bool {
        self.0.lock().has_counters
    }

    /// Where what is captured stands now.
    pub(super) fn mark(&self) -> Mark {
        Mark(self.0.lock().lengths())
    }

    /// Forgets what was captured since, as it was undone. Nothing was [taken](Capture::take) meanwhile.
    pub(super) fn back_to(&self, mark: &Mark) {
        self.0.lock().back_to(mark);
    }

    /// Fails if a statement did what may not be done, or what could not be written down: it has to be undone. So it does if
    /// nothing captures.
    pub(super) fn check(&self) -> Result<(), SqlError> {
        let captured = self.0.lock();
        if captured.is_noting || !captured.is_on {
            return Err(SqlError::new(SqlState::INTERNAL_ERROR, "a change of a row was not captured"));
        }
        captured.trouble.clone().map_or(Ok(()), Err)
    }

    /// What the transaction did before takes so much now that some of it was [taken](Capture::take).
    pub(super) fn note_before(&self, before_bytes: usize) {
        self.0.lock().before_bytes = before_bytes;
    }

    /// How much a transaction may do.
    pub(super) fn limit(&self) -> Limit {
        self.0.lock().limit
    }

    #[cfg(test)]
    pub(super) fn limit_to(&self, len_bytes: usize) {
        self.0.lock().limit = Limit::of(len_bytes);
    }

    /// Takes what was captured so far, as a changeset; empty if there is nothing.
    pub(super) fn take(&self) -> Vec<u8> {
        self.0.lock().take()
    }
}

impl Captured {
    fn learn(&mut self, (tables, has_counters): (Vec<Table>, bool)) {
        self.places = tables.iter().enumerate().map(|(place, table)| (table.name.clone(), place)).collect();
        (self.tables, self.has_counters, self.is_stale) = (tables, has_counters, false);
    }

    fn note(&mut self, table: &str, case: &PreUpdateCase) {
        if is_never_captured(table) || self.excluded.iter().any(|name| name.eq_ignore_ascii_case(table)) {
            return;
        }
        // What follows is undone with it.
        if self.trouble.is_some() {
            return;
        }
        self.is_noting = true;
        if let Err(trouble) = self.note_row(table, case) {
            self.trouble = Some(trouble);
        }
        self.is_noting = false;
    }

    fn note_row(&mut self, name: &str, case: &PreUpdateCase) -> Result<(), SqlError> {
        let place = self.places.get(name).copied();
        let found = place.and_then(|place| Some((place, self.tables.get_mut(place)?)));
        let Some((place, table)) = found else {
            let message = format!("a change of table \"{name}\" could not be captured: its columns are not known");
            return Err(SqlError::new(SqlState::INTERNAL_ERROR, message));
        };
        let before = table.changes.len();
        if before == 0 {
            table.changes.extend_from_slice(&table.header);
            self.touched.push(place);
        }
        table.note(case)?;
        self.len_bytes += table.changes.len() - before;
        self.limit.check(self.before_bytes.saturating_add(self.len_bytes))
    }

    fn lengths(&self) -> Vec<usize> {
        let length = |place: &usize| self.tables.get(*place).map_or(0, |table| table.changes.len());
        self.touched.iter().map(length).collect()
    }

    fn back_to(&mut self, mark: &Mark) {
        for (position, place) in self.touched.iter().enumerate() {
            if let Some(table) = self.tables.get_mut(*place) {
                table.changes.truncate(mark.0.get(position).copied().unwrap_or(0));
            }
        }
        self.touched.truncate(mark.0.len());
        self.len_bytes = self.lengths().iter().sum();
        self.is_noting = false;
        self.trouble = None;
    }

    fn forget(&mut self) {
        self.len_bytes = 0;
        for place in self.touched.drain(..) {
            if let Some(table) = self.tables.get_mut(place) {
                table.changes = Vec::new();
            }
        }
    }

    fn take(&mut self) -> Vec<u8> {
        self.len_bytes = 0;
        let mut changeset = Vec::new();
        for place in self.touched.drain(..) {
            let Some(table) = self.tables.get_mut(place) else { continue };
            let changes = std::mem::take(&mut table.changes);
            if changes.len() == table.header.len() {
                continue;
            }
            if changeset.is_empty() {
                changeset = changes;
            } else {
                changeset.extend_from_slice(&changes);
            }
        }
        changeset
    }
}

/// SQLite's own tables, and ours.
fn is_never_captured(table: &str) -> bool {
    let own = table.get(..7).is_some_and(|prefix| prefix.eq_ignore_ascii_case("sqlite_"));
    own || table.eq_ignore_ascii_case(STATE_TABLE)
}

impl Table {
    /// Those that clients have, and whether one has a counter.
    fn all(connection: &Connection) -> rusqlite::Result<(Vec<Table>, bool)> {
        let sql = format!(
            "SELECT t.name, c.name, c.cid, c.pk, {UNTYPED}, c.hidden, t.ncol \
             FROM pragma_table_list t, pragma_table_xinfo(t.name, 'main') c \
             WHERE t.schema = 'main' AND t.type = 'table' ORDER BY t.name, c.cid"
        );
        let mut tables: Vec<Table> = Vec::new();
        let mut keys: Vec<u8> = Vec::new();
        let mut has_counters = false;
        let mut statement = connection.prepare_cached(&sql)?;
        let mut rows = statement.raw_query();
        while let Some(row) = rows.next()? {
            let name: String = row.get(0)?;
            has_counters |= name == COUNTERS;
            if is_never_captured(&name) {
                continue;
            }
            if tables.last().is_none_or(|table| table.name != name) {
                tables.last_mut().into_iter().for_each(|table| table.complete(&mut keys));
                let (count, header, changes) = (row.get(6)?, Vec::new(), Vec::new());
                tables.push(Table { name, columns: Vec::new(), count, keyless: false, header, changes });
            }
            // Generated columns are not stored, or made again at replay.
            let (Some(table), 0) = (tables.last_mut(), row.get(5)?) else { continue };
            let place: i64 = row.get(3)?;
            keys.push(u8::try_from(place).unwrap_or(u8::MAX));
            let is_key = place > 0;
            table.columns.push(Column { name: row.get(1)?, index: row.get(2)?, is_key, untyped: row.get(4)? });
        }
        tables.last_mut().into_iter().for_each(|table| table.complete(&mut keys));
        tables.retain(|table| table.columns.iter().filter(|column| column.is_key).count() <= MAX_KEY_COLUMNS);
        Ok((tables, has_counters))
    }

    /// All its columns are known; `keys` are their places in the key.
    fn complete(&mut self, keys: &mut Vec<u8>) {
        self.keyless = keys.iter().all(|place| *place == 0);
        if self.keyless {
            keys.insert(0, 1);
        }
        self.header = changeset::table(&self.name, keys);
        keys.clear();
    }

    fn note(&mut self, case: &PreUpdateCase) -> Result<(), SqlError> {
        let (count, depth) = match case {
            PreUpdateCase::Insert(new) => (new.get_column_count(), new.get_query_depth()),
            PreUpdateCase::Delete(old) | PreUpdateCase::Update { old_value_accessor: old, .. } => {
                (old.get_column_count(), old.get_query_depth())
            }
            PreUpdateCase::Unknown => (-1, 0),
        };
        if count != self.count {
            let message = format!("a change of table \"{}\" could not be captured: it has other columns", self.name);
            return Err(SqlError::new(SqlState::INTERNAL_ERROR, message));
        }
        let by = if depth > 0 { By::Trigger } else { By::Statement };
        let noted = match case {
            PreUpdateCase::Insert(new) => self.inserted(by, new),
            PreUpdateCase::Delete(old) => self.deleted(by, old),
            PreUpdateCase::Update { old_value_accessor: old, new_value_accessor: new } => self.updated(by, old, new),
            PreUpdateCase::Unknown => Ok(()),
        };
        noted.map_err(|unnoted| match unnoted {
            Unnoted::Value(error) => from_sqlite(&error),
            Unnoted::Refused(refusal) => refusal,
        })
    }

    fn inserted(&mut self, by: By, new: &PreUpdateNewValueAccessor) -> Result<(), Unnoted> {
        let out = &mut self.changes;
        changeset::put_change(out, Operation::Insert, by);
        if self.keyless {
            changeset::put_value(out, ValueRef::Integer(new.get_new_row_id()));
        }
        for column in &self.columns {
            let value = new.get_new_column_value(column.index)?;
            column.refuse(&self.name, value)?;
            changeset::put_value(out, value);
        }
        Ok(())
    }

    fn deleted(&mut self, by: By, old: &PreUpdateOldValueAccessor) -> Result<(), Unnoted> {
        let out = &mut self.changes;
        changeset::put_change(out, Operation::Delete, by);
        if self.keyless {
            changeset::put_value(out, ValueRef::Integer(old.get_old_row_id()));
        }
        for column in &self.columns {
            changeset::put_value(out, old.get_old_column_value(column.index)?);
        }
        Ok(())
    }

    /// A row that gets another key is deleted and inserted; one that gets what it has does not change.
    fn updated(
        &mut self,
        by: By,
        old: &PreUpdateOldValueAccessor,
        new: &PreUpdateNewValueAccessor,
    ) -> Result<(), Unnoted> {
        let out = &mut self.changes;
        let begin = out.len();
        let mut is_changed = false;
        let mut has_other_key = self.keyless && old.get_old_row_id() != new.get_new_row_id();
        let mut news = Vec::new();
        changeset::put_change(out, Operation::Update, by);
        if self.keyless {
            changeset::put_value(out, ValueRef::Integer(old.get_old_row_id()));
            changeset::leave_out(&mut news);
        }
        for column in &self.columns {
            let (was, is) = (old.get_old_column_value(column.index)?, new.get_new_column_value(column.index)?);
            let differs = !is_same(was, is);
            column.refuse(&self.name, is)?;
            has_other_key |= differs && column.is_key;
            is_changed |= differs;
            if differs || column.is_key {
                changeset::put_value(out, was);
            } else {
                changeset::leave_out(out);
            }
            if differs {
                changeset::put_value(&mut news, is);
            } else {
                changeset::leave_out(&mut news);
            }
        }
        if has_other_key {
            out.truncate(begin);
            self.deleted(by, old)?;
            return self.inserted(by, new);
        }
        if is_changed {
            out.extend_from_slice(&news);
        } else {
            out.truncate(begin);
        }
        Ok(())
    }
}

/// Whether two values are the same to the bit: the zeros of both signs are not.
fn is_same(one: ValueRef<'_>, other: ValueRef<'_>) -> bool {
    match (one, other) {
        (ValueRef::Real(one), ValueRef::Real(other)) => one.to_bits() == other.to_bits(),
        _ => one == other,
    }
}

impl Column {
    /// Fails if a row with that value in it could not be told from others.
    fn refuse(&self, table: &str, value: ValueRef<'_>) -> Result<(), Unnoted> {
        match value {
            ValueRef::Null if self.is_key => Err(Unnoted::Refused(errors::not_null_key(table, &self.name))),
            ValueRef::Real(_) if self.is_key && self.untyped => Err(Unnoted::Refused(floating_key(table, &self.name))),
            _ => Ok(()),
        }
    }
}

fn floating_key(table: &str, column: &str) -> SqlError {
    let message =
        format!("a floating point number in key column \"{column}\" of relation \"{table}\", which has no type");
    policy::refused(message).with_hint("Declare the column as REAL or NUMERIC.")
}

#[cfg(test)]
#[path = "captured_test.rs"]
mod tests;
