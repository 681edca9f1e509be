//! Plain SQLite with PostgreSQL's manners: what a client of a node has to see, said by a program that knows no node.
//!
//! A statement by itself, or a string of them, takes effect whole or not at all; an error fails a transaction block, of
//! which then only a rollback is left, whole or to a savepoint.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, ffi};

use super::Row;

/// What one step of a client gave: per statement its rows in a fixed order and how many it says it touched, or the
/// SQLSTATE.
pub type Outcome = Result<Vec<Answer>, String>;

/// What one statement gave.
#[derive(Debug, PartialEq)]
pub struct Answer {
    pub rows: Vec<Row>,
    pub count: u64,
}

impl Answer {
    /// What this statement gave. Those that change the schema touch no rows that are counted.
    pub fn of(sql: &str, mut rows: Vec<Row>, count: u64) -> Answer {
        rows.sort();
        let first = sql.split_whitespace().next().unwrap_or_default();
        let counts = !["CREATE", "DROP", "ALTER", "PRAGMA", "ANALYZE"].contains(&first);
        Answer { rows, count: if counts { count } else { 0 } }
    }

    fn nothing() -> Answer {
        Answer { rows: Vec::new(), count: 0 }
    }
}

/// What a client does next.
#[derive(Clone, Debug)]
pub enum Step {
    /// One statement.
    Statement(String),
    /// Several, in one query string.
    Script(Vec<String>),
    /// A statement that never ends unless it is cancelled; and whether it writes.
    Endless {
        sql: String,
        writes: bool,
    },
    Begin {
        sql: &'static str,
        read_only: bool,
    },
    Commit,
    Rollback,
    Savepoint(&'static str),
    Release(&'static str),
    RollbackTo(&'static str),
}

impl Step {
    /// Its statements.
    pub fn statements(&self) -> Vec<String> {
        match self {
            Step::Script(statements) => statements.clone(),
            _ => vec![self.sql()],
        }
    }

    pub fn sql(&self) -> String {
        match self {
            Step::Statement(sql) | Step::Endless { sql, .. } => sql.clone(),
            Step::Script(statements) => statements.join("; "),
            Step::Begin { sql, .. } => (*sql).to_owned(),
            Step::Commit => "COMMIT".to_owned(),
            Step::Rollback => "ROLLBACK".to_owned(),
            Step::Savepoint(name) => format!("SAVEPOINT {name}"),
            Step::Release(name) => format!("RELEASE SAVEPOINT {name}"),
            Step::RollbackTo(name) => format!("ROLLBACK TO SAVEPOINT {name}"),
        }
    }
}

/// A transaction block.
#[derive(Default)]
struct Block {
    read_only: bool,
    /// It sees one state until it writes.
    snapshot: bool,
    failed: bool,
    /// SQLite ended the transaction, so no savepoint brings anything back.
    lost: bool,
    savepoints: Vec<&'static str>,
}

/// A database of one client's own.
pub struct Model {
    pub connection: Connection,
    block: Option<Block>,
}

impl Model {
    pub fn new(schema: &str) -> Model {
        let connection = Connection::open_in_memory().unwrap();
        connection.pragma_update(None, "foreign_keys", true).unwrap();
        connection.execute_batch(schema).unwrap();
        Model { connection, block: None }
    }

    /// Does what a node has to do.
    pub fn run(&mut self, step: &Step) -> Outcome {
        match step {
            Step::Statement(sql) if self.block.is_some() => self.in_block(sql).map(|answer| vec![answer]),
            Step::Statement(sql) => self.alone(std::slice::from_ref(sql)),
            Step::Script(statements) if self.block.is_some() => {
                statements.iter().map(|sql| self.in_block(sql)).collect()
            }
            Step::Script(statements) => self.alone(statements),
            Step::Endless { writes, .. } => self.endless(*writes),
            Step::Begin { read_only, sql } => {
                self.batch("BEGIN");
                let snapshot = sql.contains("ISOLATION LEVEL");
                self.block = Some(Block { read_only: *read_only, snapshot, ..Block::default() });
                Ok(vec![Answer::nothing()])
            }
            Step::Commit => self.commit(),
            Step::Rollback => {
                self.block = None;
                self.undo();
                Ok(vec![Answer::nothing()])
            }
            Step::Savepoint(name) | Step::Release(name) | Step::RollbackTo(name) => self.savepoint(step, name),
        }
    }

    fn batch(&self, sql: &str) {
        self.connection.execute_batch(sql).unwrap();
    }

    fn undo(&self) {
        if !self.connection.is_autocommit() {
            self.batch("ROLLBACK");
        }
    }

    fn alone(&self, statements: &[String]) -> Outcome {
        self.batch("BEGIN");
        let outcome: Outcome = statements.iter().map(|sql| self.statement(sql, false)).collect();
        let outcome = outcome.and_then(|answers| self.end().map(|()| answers));
        self.undo();
        outcome
    }

    fn in_block(&mut self, sql: &str) -> Result<Answer, String> {
        let block = self.block.as_ref().unwrap();
        if block.failed {
            return Err("25P02".to_owned());
        }
        let outcome = self.statement(sql, block.read_only);
        let lost = self.connection.is_autocommit();
        if outcome.is_err() {
            let block = self.block.as_mut().unwrap();
            (block.failed, block.lost) = (true, block.lost || lost);
        }
        outcome
    }

    fn endless(&mut self, writes: bool) -> Outcome {
        let Some(block) = &mut self.block else { return Err("57014".to_owned()) };
        let state = match (block.failed, writes && block.read_only) {
            (true, _) => "25P02",
            (_, true) => "25006",
            _ => "57014",
        };
        block.failed = true;
        Err(state.to_owned())
    }

    /// What its last step would have written is not, because others wrote: it was the first that wrote, so nothing is left but
    /// the savepoints. Nothing if that cannot be.
    pub fn overtake(&mut self) -> Option<Outcome> {
        let block = self.block.as_mut().filter(|block| block.snapshot)?;
        (block.failed, block.lost) = (true, false);
        let savepoints: Vec<String> = block.savepoints.iter().map(|name| format!("; SAVEPOINT {name}")).collect();
        self.undo();
        self.batch(&format!("BEGIN{}", savepoints.concat()));
        Some(Err("40001".to_owned()))
    }

    /// Whether the block is one in which nothing can happen but its end.
    pub fn is_failed(&self) -> bool {
        self.block.as_ref().is_some_and(|block| block.failed)
    }

    fn commit(&mut self) -> Outcome {
        let block = self.block.take().unwrap();
        let outcome = if block.failed { Ok(()) } else { self.end() };
        self.undo();
        outcome.map(|()| vec![Answer::nothing()])
    }

    fn savepoint(&mut self, step: &Step, name: &'static str) -> Outcome {
        let block = self.block.as_mut().unwrap();
        if block.failed && (block.lost || !matches!(step, Step::RollbackTo(_))) {
            return Err("25P02".to_owned());
        }
        let found = block.savepoints.iter().rposition(|savepoint| *savepoint == name);
        let kept = match (step, found) {
            (Step::Savepoint(_), _) => {
                block.savepoints.push(name);
                block.savepoints.len()
            }
            (_, None) => {
                block.failed = true;
                return Err("3B001".to_owned());
            }
            (Step::Release(_), Some(position)) => position,
            (_, Some(position)) => position + 1,
        };
        block.savepoints.truncate(kept);
        block.failed = false;
        let sql = step.sql();
        self.batch(&sql);
        Ok(vec![Answer::nothing()])
    }

    fn end(&self) -> Result<(), String> {
        self.connection.execute_batch("COMMIT").map_err(|error| state(&error))
    }

    fn statement(&self, sql: &str, read_only: bool) -> Result<Answer, String> {
        let failed = |error: rusqlite::Error| state(&error);
        let mut statement = self.connection.prepare(sql).map_err(failed)?;
        if read_only && !statement.readonly() {
            return Err("25006".to_owned());
        }
        let (width, reads) = (statement.column_count(), statement.readonly());
        let mut found = Vec::new();
        let mut rows = statement.raw_query();
        while let Some(row) = rows.next().map_err(failed)? {
            found.push((0..width).map(|column| text(row.get_ref(column).unwrap())).collect::<Row>());
        }
        drop(rows);
        let count = if reads { found.len() as u64 } else { self.connection.changes() };
        Ok(Answer::of(sql, found, count))
    }
}

fn text(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => "NULL".to_owned(),
        ValueRef::Integer(integer) => integer.to_string(),
        ValueRef::Real(real) => format!("{real:?}"),
        ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
        ValueRef::Blob(bytes) => {
            format!("\\x{}", bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
        }
    }
}

/// The SQLSTATE of an error of SQLite; of mistakes in statements, its class alone.
fn state(error: &rusqlite::Error) -> String {
    let code = match error {
        rusqlite::Error::SqliteFailure(error, _) | rusqlite::Error::SqlInputError { error, .. } => error.extended_code,
        _ => panic!("the model fails: {error}"),
    };
    match code {
        ffi::SQLITE_CONSTRAINT_UNIQUE | ffi::SQLITE_CONSTRAINT_PRIMARYKEY | ffi::SQLITE_CONSTRAINT_ROWID => "23505",
        ffi::SQLITE_CONSTRAINT_NOTNULL => "23502",
        ffi::SQLITE_CONSTRAINT_FOREIGNKEY => "23503",
        ffi::SQLITE_CONSTRAINT_CHECK => "23514",
        ffi::SQLITE_CONSTRAINT_TRIGGER => "P0001",
        ffi::SQLITE_CONSTRAINT_DATATYPE | ffi::SQLITE_MISMATCH => "22P02",
        ffi::SQLITE_ERROR => "42",
        _ => panic!("the model fails: {error}"),
    }
    .to_owned()
}
