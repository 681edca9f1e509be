//! The connection that a session's temporary tables are on, and what is known of them.

use std::collections::HashSet;
use std::sync::Arc;

use mainstay::server::pg::{CommandTag, OwnedValue, ResultSink, SqlError, SqlState};
use rusqlite::types::ToSqlOutput;
use rusqlite::{Connection, InterruptHandle};

use super::super::super::catalog::Home;
use super::super::super::command::{self, OnCommit, TemporaryAs};
use super::super::super::engine::Shared;
use super::super::super::errors::{from_sqlite, of_statement};
use super::super::super::lexer::tokens;
use super::super::super::names::quoted;
use super::super::super::policy::{self, Policy, Verb};
use super::super::super::values;
use super::super::super::writer::filling::Gathered;
use super::super::super::writer::lent::{Kind, Lent, Object};
use super::super::super::writer::rows::{Row, RowParameters};
use super::super::read_only;
use super::super::savepoints::lost;

/// The temporary tables of a session take at most so much of the disk (1 GiB in pages of 4 KiB).
const LIMIT_PAGES: u32 = 262_144;
/// What happens to which table when a transaction ends. Tables are known by the page that they begin at, which
/// renaming them does not change.
const ON_COMMIT: &str = "mainstay_on_commit";
/// The number of their schema among those of a connection.
const TEMPORARY_NUMBER: i64 = 1;
/// What SQLite lists them in.
const LISTS: [&str; 2] = ["sqlite_temp_schema", "sqlite_temp_master"];

/// Where a session has its temporary tables.
pub(in super::super) struct Temporary {
    pub(super) connection: Connection,
    pub(super) policy: Policy,
    pub(super) interrupt: Arc<InterruptHandle>,
    /// What is there, in lower case.
    pub(super) names: HashSet<String>,
    /// The pages that its tables begin at.
    tables: HashSet<i64>,
    /// The session's transaction takes part here.
    takes_part: bool,
}

/// What a statement does with the tables of one schema.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Uses {
    reads: bool,
    /// Rows or definitions.
    changes: bool,
}

/// Where a statement runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// It is about nothing temporary.
    Elsewhere,
    Here,
    /// On the writer, with what it names lent to it.
    Writer,
    /// Its query there, likewise, and what it makes of that here.
    Filled,
}

/// What a transaction that names temporary tables is like otherwise.
#[derive(Clone, Copy)]
pub(super) struct Standing {
    pub(super) has_turn: bool,
    pub(super) read_only: bool,
    pub(super) stable: bool,
}

impl Temporary {
    pub(super) fn open(shared: &Shared) -> rusqlite::Result<Temporary> {
        let mut connection = shared.open_reader()?;
        connection.pragma_update(Some("temp"), "max_page_count", LIMIT_PAGES)?;
        let policy = Policy::install_for_temporary(&mut connection)?;
        policy.own(|| {
            connection
                .execute_batch(&format!("CREATE TEMP TABLE {ON_COMMIT} (page INTEGER PRIMARY KEY, drops INTEGER)"))
        })?;
        let interrupt = Arc::new(connection.get_interrupt_handle());
        let (names, tables) = (HashSet::new(), HashSet::new());
        let mut temporary = Temporary { connection, policy, interrupt, names, tables, takes_part: false };
        temporary.learn()?;
        Ok(temporary)
    }

    /// Whether a statement has a word in it that is the name of something here.
    pub(super) fn is_mentioned(&self, sql: &str) -> bool {
        let known = |name: String| self.names.contains(&name.to_ascii_lowercase());
        tokens(sql).any(|token| token.name().is_some_and(known))
    }

    /// Learns what is here, and forgets what was to happen to tables that are not.
    fn learn(&mut self) -> rusqlite::Result<()> {
        self.names = LISTS.iter().map(|&list| list.to_owned()).collect();
        self.tables.clear();
        let mut objects = self.connection.prepare_cached(
            "SELECT lower(name), CASE type WHEN 'table' THEN rootpage END FROM temp.sqlite_schema WHERE name <> ?1",
        )?;
        let mut rows = objects.query([ON_COMMIT])?;
        while let Some(row) = rows.next()? {
            self.names.insert(row.get(0)?);
            self.tables.extend(row.get::<_, Option<i64>>(1)?);
        }
        Ok(())
    }

    /// Gives back memory that it can do without.
    pub(in super::super) fn rest(&self) {
        self.connection.flush_prepared_statement_cache();
        if let Err(error) = self.connection.release_memory() {
            tracing::debug!(%error, "memory for temporary tables was not given back");
        }
    }

    pub(super) fn is_in_transaction(&self) -> bool {
        !self.connection.is_autocommit()
    }

    /// Whether SQLite ended what the session's transaction did here, as it does for want of disk or memory, and where a statement
    /// asks for it.
    pub(in super::super) fn has_lost_transaction(&self) -> bool {
        self.takes_part && !self.is_in_transaction()
    }

    /// Begins a transaction with these savepoints, unless one is open; answers whether it did.
    ///
    /// The schema of the database is read first, and stays, as for anything that reads
    /// ([`OneState`](super::super::reader::OneState)).
    pub(super) fn enter(&mut self, savepoints: &[String]) -> Result<bool, SqlError> {
        if self.is_in_transaction() {
            return Ok(false);
        }
        if self.has_lost_transaction() {
            return Err(lost());
        }
        let begun = || -> rusqlite::Result<()> {
            self.connection.execute_batch("BEGIN")?;
            self.connection.query_row("PRAGMA schema_version", [], |_| Ok(()))?;
            self.connection.prepare("SELECT 1 FROM main.sqlite_schema")?.exists([])?;
            savepoints.iter().try_for_each(|name| self.batch(&format!("SAVEPOINT {}", quoted(name))))
        };
        let begun = begun().map_err(|error| from_sqlite(&error));
        if begun.is_err() && self.is_in_transaction() {
            // A BEGIN that is interrupted may have begun.
            self.batch("ROLLBACK").map_err(|error| from_sqlite(&error))?;
        }
        self.takes_part = begun.is_ok();
        begun.map(|()| true)
    }

    fn batch(&self, sql: &str) -> rusqlite::Result<()> {
        self.policy.own(|| self.connection.execute_batch(sql))
    }

    /// Does something to a savepoint that the transaction here has too.
    pub(super) fn at_savepoint(&mut self, words: &str, name: &str) -> Result<(), SqlError> {
        if self.has_lost_transaction() {
            return Err(lost());
        }
        if !self.is_in_transaction() {
            return Ok(());
        }
        let done = self.batch(&format!("{words} {}", quoted(name))).and_then(|()| self.learn());
        done.map_err(|error| from_sqlite(&error))
    }

    /// Ends the transaction, and does what is to be done with its tables then.
    pub(super) fn end(&mut self, commit: bool) -> rusqlite::Result<()> {
        let took_part = std::mem::take(&mut self.takes_part);
        if !self.is_in_transaction() {
            // What SQLite rolled back may have been known by name.
            return if took_part { self.learn() } else { Ok(()) };
        }
        if commit {
            self.at_commit()?;
        }
        self.batch(if commit { "COMMIT" } else { "ROLLBACK" })?;
        self.learn()
    }

    fn at_commit(&self) -> rusqlite::Result<()> {
        let sql = format!(
            "SELECT s.name, o.drops FROM temp.sqlite_schema s JOIN temp.{ON_COMMIT} o ON o.page = s.rootpage \
             WHERE s.type = 'table'"
        );
        let mut due = self.connection.prepare(&sql)?;
        let due = due.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let due: Vec<(String, bool)> = due.collect::<rusqlite::Result<_>>()?;
        for (table, drops) in due {
            let words = if drops { "DROP TABLE" } else { "DELETE FROM" };
            self.batch(&format!("{words} temp.{}", quoted(&table)))?;
        }
        self.forget_dropped()
    }

    fn forget_dropped(&self) -> rusqlite::Result<()> {
        self.batch(&format!(
            "DELETE FROM temp.{ON_COMMIT} WHERE page NOT IN (SELECT rootpage FROM temp.sqlite_schema WHERE type = 'table')"
        ))
    }

    /// What a statement does with temporary tables, and with others.
    ///
    /// Of a change to the schema, the authorizer tells. For all else it is not enough (it is not asked about the columns of
    /// a USING), so SQLite's program is looked at, which begins by taking part in each schema that it needs.
    fn uses(&self, sql: &str) -> Result<(Uses, Uses), SqlError> {
        let (statement, actions) = self.policy.watch(|| self.connection.prepare(sql))?;
        if statement.is_explain() != 0 {
            return Ok((Uses { reads: true, changes: false }, Uses::default()));
        }
        drop(statement);
        let (mut temporary, mut others) = (Uses::default(), Uses::default());
        if actions.ddl {
            (temporary.changes, others.changes) = (actions.changes_temporary, actions.changes_stored);
        }
        let program = || -> rusqlite::Result<()> {
            let mut program = self.connection.prepare(&format!("EXPLAIN {sql}"))?;
            let mut steps = program.raw_query();
            while let Some(step) = steps.next()? {
                if step.get_ref("opcode")?.as_str()? != "Transaction" {
                    continue;
                }
                let uses = if step.get::<_, i64>("p1")? == TEMPORARY_NUMBER { &mut temporary } else { &mut others };
                uses.reads = true;
                uses.changes |= !actions.ddl && step.get::<_, i64>("p2")? != 0;
            }
            Ok(())
        };
        self.policy.own(program).map_err(|error| from_sqlite(&error))?;
        if actions.ddl && !actions.creates_table_of_rows() {
            // What is looked up to change the schema is no reading.
            (temporary.reads, others.reads) = (false, false);
        }
        temporary.reads |= actions.asks_pragma;
        Ok((temporary, others))
    }

    pub(super) fn place(&self, sql: &str, standing: Standing) -> Result<Place, SqlError> {
        let (temporary, others) = match self.uses(sql) {
            Ok(uses) => uses,
            // It may name what only this transaction has made.
            Err(_) if standing.has_turn => {
                let is_filled = command::makes_temporary(sql) && TemporaryAs::of(sql).is_some();
                return Ok(if is_filled { Place::Filled } else { Place::Writer });
            }
            Err(error) => return Err(error),
        };
        if temporary == Uses::default() {
            return Ok(Place::Elsewhere);
        }
        if others.changes && temporary.changes {
            return Err(policy::refused("one statement cannot change both temporary tables and others"));
        }
        if others.changes {
            return if standing.read_only { Err(read_only(sql)) } else { Ok(Place::Writer) };
        }
        if !others.reads || !(standing.has_turn || standing.stable) {
            return Ok(Place::Here);
        }
        if temporary.changes && !standing.read_only && TemporaryAs::of(sql).is_some() {
            return Ok(Place::Filled);
        }
        if temporary.changes || (standing.stable && standing.read_only) {
            return Err(mixed(standing));
        }
        Ok(Place::Writer)
    }

    /// Runs a statement here.
    pub(super) fn run(
        &mut self,
        sql: &str,
        on_commit: Option<OnCommit>,
        parameters: &[OwnedValue],
        sink: &mut dyn ResultSink,
    ) -> Result<CommandTag, SqlError> {
        let (mut statement, actions) = self.policy.watch(|| self.connection.prepare(sql))?;
        values::bind(&mut statement, sql, parameters)?;
        let columns = values::columns(&self.connection, &statement, sql);
        let verb = actions.verb.filter(|_| !statement.readonly() && !actions.ddl);
        let told = |error: &rusqlite::Error| explain_full(of_statement(&self.connection, Home::Temporary, error));
        let rows = values::run(&mut statement, &columns, sink, told)?;
        let changes = self.connection.changes();
        let explains = statement.is_explain() != 0;
        drop(statement);
        let words = command::leading_words(sql);
        if actions.ddl && !explains {
            let made = self.definitions_changed(on_commit).map_err(|error| from_sqlite(&error))?;
            return match made.filter(|_| actions.creates_table_of_rows()) {
                Some(table) => self.count(&table).map(|rows| CommandTag(format!("SELECT {rows}"))),
                None => Ok(CommandTag(words)),
            };
        }
        Ok(CommandTag(match verb {
            Some(Verb::Insert) => format!("INSERT 0 {changes}"),
            Some(Verb::Update) => format!("UPDATE {changes}"),
            Some(Verb::Delete) => format!("DELETE {changes}"),
            None if explains => words,
            None => format!("SELECT {rows}"),
        }))
    }

    /// Makes a table, by its name as it is written, of what a query gave elsewhere; answers how many rows.
    /// [`made`](Temporary::made) follows.
    pub(super) fn fill(&self, table: &str, gathered: &Gathered<'_>) -> Result<u64, SqlError> {
        let failed = |error: rusqlite::Error| explain_full(from_sqlite(&error));
        // By the policy, as a client's: the name is his.
        let create = format!("CREATE TEMP TABLE {table}{}", gathered.columns);
        let (mut statement, _) = self.policy.watch(|| self.connection.prepare(&create))?;
        statement.raw_execute().map_err(failed)?;
        drop(statement);
        let mut select = gathered.rows().map_err(failed)?;
        let count = select.column_count();
        let insert = format!("INSERT INTO temp.{table} VALUES ({})", vec!["?"; count].join(", "));
        let mut insert = self.connection.prepare(&insert).map_err(failed)?;
        let mut rows = select.raw_query();
        let mut filled = 0;
        while let Some(row) = rows.next().map_err(failed)? {
            for position in 0..count {
                let value = ToSqlOutput::Borrowed(row.get_ref(position).map_err(failed)?);
                insert.raw_bind_parameter(position + 1, value).map_err(failed)?;
            }
            insert.raw_execute().map_err(failed)?;
            filled += 1;
        }
        Ok(filled)
    }

    /// A table was made.
    pub(super) fn made(&mut self, on_commit: Option<OnCommit>) -> Result<(), SqlError> {
        self.definitions_changed(on_commit).map(drop).map_err(|error| from_sqlite(&error))
    }

    /// Notes what is to happen to the table that was made, if one was; answers its name.
    fn definitions_changed(&mut self, on_commit: Option<OnCommit>) -> rusqlite::Result<Option<String>> {
        let before = std::mem::take(&mut self.tables);
        self.learn()?;
        self.forget_dropped()?;
        let Some(made) = self.tables.difference(&before).next() else { return Ok(None) };
        let insert = format!("INSERT INTO temp.{ON_COMMIT} VALUES (?1, ?2)");
        if let Some(what) = on_commit {
            self.policy.own(|| self.connection.execute(&insert, (made, what == OnCommit::Drop)))?;
        }
        let name = "SELECT name FROM temp.sqlite_schema WHERE type = 'table' AND rootpage = ?1";
        self.connection.query_row(name, [made], |row| row.get(0)).map(Some)
    }

    fn count(&self, table: &str) -> Result<i64, SqlError> {
        let sql = format!("SELECT count(*) FROM temp.{}", quoted(table));
        self.connection.query_row(&sql, [], |row| row.get(0)).map_err(|error| from_sqlite(&error))
    }

    /// Foreign keys are left to PostgreSQL's rules, by which they would have to be temporary on both sides, and to nobody to
    /// check: this connection does not.
    pub(super) fn refuse_references(&self) -> Result<(), SqlError> {
        let sql = "SELECT t.name FROM pragma_table_list t, pragma_foreign_key_list(t.name, 'temp') \
                   WHERE t.schema = 'temp' LIMIT 1";
        match self.connection.prepare(sql).and_then(|mut statement| statement.exists([])) {
            Ok(false) => Ok(()),
            Ok(true) => Err(policy::refused("foreign keys of temporary tables are not supported")),
            Err(error) => Err(from_sqlite(&error)),
        }
    }

    /// What a statement names of what is here, and what that names in turn.
    pub(super) fn lend(&self, sql: &str, with_rows: bool) -> Result<Lent<'_>, SqlError> {
        let all = || -> rusqlite::Result<Vec<(Object, String)>> {
            let mut objects = self.connection.prepare_cached(
                "SELECT type, name, lower(tbl_name), sql FROM temp.sqlite_schema \
                 WHERE sql NOTNULL AND name <> ?1 AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY rowid",
            )?;
            let object = |row: &rusqlite::Row<'_>| {
                let kind = match row.get_ref(0)?.as_str()? {
                    "view" => Kind::View,
                    "index" => Kind::Index,
                    _ => Kind::Table,
                };
                Ok((Object { kind, name: row.get(1)?, definition: row.get(3)? }, row.get(2)?))
            };
            objects.query_map([ON_COMMIT], object)?.collect()
        };
        let all = all().map_err(|error| from_sqlite(&error))?;
        let mut named: HashSet<String> = HashSet::new();
        let mut texts = vec![sql];
        while let Some(text) = texts.pop() {
            for name in tokens(text).filter_map(|token| token.name()).map(|name| name.to_ascii_lowercase()) {
                let view = all.iter().find(|(object, _)| object.name.eq_ignore_ascii_case(&name));
                if named.insert(name) {
                    texts.extend(
                        view.filter(|(object, _)| object.kind == Kind::View).map(|(object, _)| &*object.definition),
                    );
                }
            }
        }
        let mut objects: Vec<Object> =
            all.into_iter().filter(|(_, table)| named.contains(table)).map(|(object, _)| object).collect();
        objects.sort_by_key(|object| object.kind);
        Ok(Lent { connection: &self.connection, objects, with_rows })
    }

    /// Runs an INSERT again and again, as [`Writer::insert_rows`](super::super::super::writer::Writer::insert_rows).
    pub(super) fn insert_rows(
        &self,
        sql: &str,
        mut next: impl FnMut(Row, &mut RowParameters<'_, '_>) -> Result<bool, SqlError>,
    ) -> Result<u64, SqlError> {
        let (mut statement, _) = self.policy.watch(|| self.connection.prepare(sql))?;
        let mut count = 0;
        while next(Row::Next, &mut RowParameters::of(&mut statement))? {
            let told = |error| explain_full(of_statement(&self.connection, Home::Temporary, &error));
            statement.raw_execute().map_err(told)?;
            count += 1;
        }
        Ok(count)
    }

    /// Drops all of them, in the transaction that is open.
    pub(super) fn drop_all(&mut self) -> rusqlite::Result<()> {
        let all = "SELECT type, name FROM temp.sqlite_schema WHERE type IN ('table', 'view') AND name <> ?1 \
                   AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'";
        let all: Vec<(String, String)> = {
            let mut all = self.connection.prepare(all)?;
            all.query_map([ON_COMMIT], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<rusqlite::Result<_>>()?
        };
        for (kind, name) in all {
            self.batch(&format!("DROP {kind} temp.{}", quoted(&name)))?;
        }
        self.forget_dropped()?;
        self.learn()
    }
}

fn mixed(standing: Standing) -> SqlError {
    let message = if standing.has_turn || !standing.read_only {
        "a transaction that writes, or sees one state throughout, cannot change temporary tables by what it reads of others"
    } else {
        "a read-only transaction that sees one state throughout cannot read temporary tables together with others"
    };
    policy::refused(message).with_hint("Fill the temporary table before the transaction, or before its first write.")
}

fn explain_full(error: SqlError) -> SqlError {
    if error.state == SqlState::DISK_FULL {
        return error.with_hint("The temporary tables of a session take at most 1 GiB of the disk.");
    }
    error
}

#[cfg(test)]
mod tests {
    use super::super::super::super::test_support::{Database, Seen};
    use super::*;

    #[test]
    fn what_they_take_of_the_disk_is_bounded() {
        let database = Database::new();
        let mut temporary = Temporary::open(&database.engine.shared).unwrap();
        let pages = |temporary: &Temporary| -> u32 {
            let sql = "PRAGMA temp.max_page_count";
            temporary.policy.own(|| temporary.connection.query_row(sql, [], |row| row.get(0))).unwrap()
        };
        assert_eq!(pages(&temporary), LIMIT_PAGES);
        temporary.batch("PRAGMA temp.max_page_count = 20").unwrap();
        let mut run = |sql: &str| temporary.run(sql, None, &[], &mut Seen::default());
        run("CREATE TEMP TABLE t (a)").unwrap();
        let fill = "WITH RECURSIVE i (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM i LIMIT 100) \
                    INSERT INTO t SELECT zeroblob(1000) FROM i";
        let error = run(fill).unwrap_err();
        assert_eq!(error.state, SqlState::DISK_FULL);
        assert!(error.hint.unwrap().contains("at most 1 GiB"));
    }
}
