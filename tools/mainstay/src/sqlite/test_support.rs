//! A log in memory, a client, and databases to compare.

use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use mainstay::engine::Engine;
use mainstay::lsn::Lsn;
use mainstay::server::pg::{
    Backend, ClientInfo, Column, CommandTag, OwnedValue, Reply, ResultSink, Scope, Session, SqlError, Started, Value,
};
use mainstay::wal::{AppendError, CommitError, Record};
use parking_lot::Mutex;
use rusqlite::Connection;
use rusqlite::types::Value as Stored;
use tempfile::TempDir;

use super::engine::SqliteEngine;
use super::log::Log;
use super::names::quoted;
use super::{STATE_TABLE, engine, functions};

/// A log in memory, which can be told to fail.
#[derive(Clone, Default)]
pub(super) struct MemoryLog(pub(super) Arc<Mutex<Memory>>);

#[derive(Default)]
pub(super) struct Memory {
    pub(super) records: Vec<Record>,
    /// What the next appends answer.
    pub(super) append_failures: Vec<AppendError>,
    /// What the next commit answers.
    pub(super) commit_failure: Option<CommitError>,
    /// Runs when a record is appended and committed.
    pub(super) on_commit: Option<Box<dyn FnMut() + Send>>,
    /// How often somebody waited for room.
    pub(super) waits: usize,
}

impl Log for MemoryLog {
    fn append(&self, payload: &[u8]) -> Result<Lsn, AppendError> {
        let mut memory = self.0.lock();
        if let Some(failure) = memory.append_failures.pop() {
            return Err(failure);
        }
        let start = memory.records.last().map_or(Lsn::new(0x40), |record| record.end);
        let end = start.advanced(16 + payload.len() as u64);
        memory.records.push(Record { start, end, payload: payload.to_vec() });
        Ok(end)
    }

    fn room(&self, _: usize) -> Result<(), AppendError> {
        self.0.lock().waits += 1;
        Ok(())
    }

    fn commit(&self, end: Lsn) -> Result<(), CommitError> {
        let mut memory = self.0.lock();
        assert!(memory.records.iter().any(|record| record.end == end), "commit of what was not appended");
        if let Some(hook) = memory.on_commit.as_mut() {
            hook();
        }
        memory.commit_failure.take().map_or(Ok(()), Err)
    }
}

/// An engine on a directory of its own, writing to a [`MemoryLog`].
pub(super) struct Database {
    pub(super) engine: SqliteEngine,
    pub(super) log: MemoryLog,
    pub(super) dir: TempDir,
}

impl Database {
    pub(super) fn new() -> Database {
        let database = Database::standby();
        database.engine.write_to(Box::new(database.log.clone()));
        database
    }

    pub(super) fn standby() -> Database {
        let dir = tempfile::tempdir().unwrap();
        let engine = SqliteEngine::open(dir.path()).unwrap();
        Database { engine, log: MemoryLog::default(), dir }
    }

    pub(super) fn session(&self) -> Client {
        client_of(&self.engine)
    }

    pub(super) fn records(&self) -> Vec<Record> {
        self.log.0.lock().records.clone()
    }

    /// Another database, from the log alone.
    pub(super) fn replayed(&self) -> Database {
        let other = Database::standby();
        other.engine.apply(&self.records()).unwrap();
        other
    }

    /// Fails unless a database made from the log holds the same; answers it.
    pub(super) fn assert_replays(&self) -> Database {
        let other = self.replayed();
        assert_eq!(contents(self.dir.path()), contents(other.dir.path()));
        assert_eq!(self.engine.applied().unwrap(), other.engine.applied().unwrap());
        other
    }
}

/// A session of an engine.
pub(super) fn client_of(engine: &SqliteEngine) -> Client {
    let user = "postgres".to_owned();
    let client = ClientInfo { database: user.clone(), user, ..ClientInfo::default() };
    Client(engine.connect(&client).unwrap())
}

/// Everything in a database: the schema, and each table's rows.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Contents(Vec<(String, Vec<Vec<Stored>>)>);

pub(super) fn contents(dir: &Path) -> Contents {
    let connection = Connection::open(dir.join("main.sqlite")).unwrap();
    // Of which indexes may be made.
    functions::register(&connection).unwrap();
    contents_of(&connection)
}

pub(super) fn contents_of(connection: &Connection) -> Contents {
    let all = |sql: &str| -> Vec<Vec<Stored>> {
        let mut statement = connection.prepare(sql).unwrap();
        let width = statement.column_count();
        let rows = statement.query_map([], |row| (0..width).map(|column| row.get(column)).collect()).unwrap();
        let mut rows: Vec<Vec<Stored>> = rows.map(Result::unwrap).collect();
        rows.sort_by_key(|row| format!("{row:?}"));
        rows
    };
    let mut contents = vec![("schema".to_owned(), all("SELECT type, name, tbl_name, sql FROM sqlite_schema"))];
    for pragma in ["user_version", "application_id"] {
        contents.push((pragma.to_owned(), all(&format!("PRAGMA {pragma}"))));
    }
    let tables =
        format!("SELECT name FROM sqlite_schema WHERE type = 'table' AND name <> '{STATE_TABLE}' ORDER BY name");
    for table in all(&tables) {
        let Stored::Text(name) = &table[0] else { panic!("{table:?}") };
        contents.push((name.clone(), all(&format!("SELECT * FROM {}", quoted(name)))));
    }
    assert_eq!(all("PRAGMA integrity_check"), [[Stored::Text("ok".into())]]);
    Contents(contents)
}

/// What a client saw of one statement.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) columns: Vec<Column>,
    pub(super) rows: Vec<Vec<String>>,
    pub(super) notices: Vec<SqlError>,
}

impl ResultSink for Seen {
    fn columns(&mut self, columns: &[Column]) -> Result<(), SqlError> {
        self.columns = columns.to_vec();
        Ok(())
    }

    fn row(&mut self, values: &[Value<'_>]) -> Result<(), SqlError> {
        assert_eq!(values.len(), self.columns.len());
        self.rows.push(values.iter().map(text).collect());
        Ok(())
    }

    fn notice(&mut self, notice: &SqlError) -> Result<(), SqlError> {
        self.notices.push(notice.clone());
        Ok(())
    }
}

fn text(value: &Value<'_>) -> String {
    match value {
        Value::Null => "NULL".into(),
        Value::Integer(value) => value.to_string(),
        Value::Real(value) => format!("{value:?}"),
        Value::Text(value) => (*value).into(),
        Value::Blob(value) => format!("{value:?}"),
    }
}

/// Anything that takes longer is a failure.
const LIMIT: Duration = Duration::from_secs(30);

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// A session and shorthands for it.
pub(super) struct Client(pub(super) Box<dyn Session>);

impl Client {
    /// Runs a string of statements one by one, each by itself, as the server does: where nothing blocks, if possible.
    pub(super) fn run(&mut self, sql: &str) -> Result<Vec<CommandTag>, SqlError> {
        let statements: Vec<String> = self.0.split(sql).into_iter().map(str::to_owned).collect();
        statements.iter().map(|sql| self.run_one(sql)).collect()
    }

    fn run_one(&mut self, sql: &str) -> Result<CommandTag, SqlError> {
        self.0.forget_interrupts();
        let (outcome, reply) = match self.0.start(sql, &Arc::default(), Scope::Single, Reply::default()) {
            Started::Done(outcome, reply) => (outcome, reply),
            Started::Elsewhere => self.finish(),
            Started::Blocks(_) => return self.0.execute(sql, &[], Scope::Single, &mut Seen::default()),
        };
        if reply.is_full() { self.0.execute(sql, &[], Scope::Single, &mut Seen::default()) } else { outcome }
    }

    /// Begins a statement that runs elsewhere.
    #[track_caller]
    pub(super) fn begin(&mut self, sql: &str) {
        self.0.forget_interrupts();
        let started = self.0.start(sql, &Arc::default(), Scope::Single, Reply::default());
        assert!(matches!(started, Started::Elsewhere), "{sql}");
    }

    /// Waits for the statement that runs elsewhere.
    pub(super) fn finish(&mut self) -> (Result<CommandTag, SqlError>, Reply) {
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let mut context = Context::from_waker(&waker);
        let begun = Instant::now();
        loop {
            if let Poll::Ready(over) = self.0.poll_started(&mut context) {
                return over;
            }
            assert!(begun.elapsed() < LIMIT, "a statement does not end");
            thread::park_timeout(LIMIT);
        }
    }

    /// The tag or SQLSTATE of the statement that runs elsewhere.
    pub(super) fn told(&mut self) -> String {
        self.finish().0.map_or_else(|error| error.state.0.to_owned(), |tag| tag.0)
    }

    /// As [`run`](Client::run), where nothing fails.
    #[track_caller]
    pub(super) fn ok(&mut self, sql: &str) {
        if let Err(error) = self.run(sql) {
            panic!("{sql}: {error}");
        }
    }

    /// The SQLSTATE that `sql` fails with.
    #[track_caller]
    pub(super) fn fails(&mut self, sql: &str) -> &'static str {
        match self.run(sql) {
            Ok(tags) => panic!("{sql} gave {tags:?}"),
            Err(error) => {
                println!("{sql}: {error}");
                error.state.0
            }
        }
    }

    #[track_caller]
    pub(super) fn tag(&mut self, sql: &str) -> String {
        self.run(sql).unwrap_or_else(|error| panic!("{sql}: {error}")).pop().unwrap().0
    }

    #[track_caller]
    pub(super) fn rows(&mut self, sql: &str) -> Vec<Vec<String>> {
        self.with(sql, &[]).rows
    }

    #[track_caller]
    pub(super) fn with(&mut self, sql: &str, parameters: &[OwnedValue]) -> Seen {
        let mut seen = Seen::default();
        self.0.forget_interrupts();
        let outcome = self.0.execute(sql, parameters, Scope::Single, &mut seen);
        outcome.unwrap_or_else(|error| panic!("{sql}: {error}"));
        seen
    }
}

/// So that a test notices if a limit it waits for is raised.
pub(super) const WRITER_WAIT: std::time::Duration = engine::WRITER_WAIT;
