//! The engine as the node sees it: opening, replay, checkpoints, and being primary or not.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use mainstay::engine::{Engine, EngineError};
use mainstay::ident::SystemId;
use mainstay::lsn::Lsn;
use mainstay::node::Primary;
use mainstay::server::pg::{Activities, Backend, ClientInfo, Session, SqlError, SqlState};
use mainstay::wal::{Health as Wellness, Record, WalError, WalStatus};
use parking_lot::{Mutex, RwLock};
use rusqlite::config::DbConfig;
use rusqlite::functions::FunctionFlags;
use rusqlite::{Connection, InterruptHandle, OpenFlags};

use super::clerk::{Clerk, Statement};
use super::copier::{Copier, Copying};
use super::errors::from_sqlite;
use super::health::Health;
use super::log::Log;
use super::measures::{self, Measures};
use super::session::{SlowLog, SqliteSession};
use super::turnstile::{Turnstile, Waited};
use super::writer::Writer;
use super::{STATE_TABLE, apply, functions};

/// The database's file in the engine's directory.
const FILE_NAME: &str = "main.sqlite";
/// The role and the database that exist.
pub(super) const ONLY_NAME: &str = "postgres";
/// How long what is no session waits for its turn to write.
pub(super) const WRITER_WAIT: Duration = Duration::from_secs(5);
/// How long a demoted engine waits for the statement that is running to end.
const DEMOTE_WAIT: Duration = Duration::from_secs(5);
/// How often it is interrupted again meanwhile.
const DEMOTE_RETRY: Duration = Duration::from_millis(50);
/// Pages in SQLite's own WAL file from which on it is copied into the database file after a commit (16 MiB).
const COPY_PAGES: u32 = 4096;
/// With so many, whoever commits waits until they are copied (128 MiB).
const TOO_MANY_PAGES: u32 = 8 * COPY_PAGES;
/// Memory for pages on the writing connection, in KiB, as far as it needs so much. Whoever writes waits for what is read again.
const WRITER_CACHE_KIB: i64 = 64 * 1024;
/// Compiled statements that each connection keeps.
const CACHED_STATEMENTS: usize = 64;

/// SQLite as an engine of Mainstay, and the backend of its SQL server.
pub struct SqliteEngine {
    pub(super) shared: Arc<Shared>,
    /// These end with the engine.
    _clerk: Clerk,
    _copier: Copier,
}

/// What the engine and its sessions share.
pub(super) struct Shared {
    path: PathBuf,
    pub(super) turnstile: Turnstile<Writer, Statement>,
    /// Stops what runs on the writer.
    pub(super) writer_interrupt: Arc<InterruptHandle>,
    /// The log, while this node is primary.
    pub(super) log: RwLock<Option<Box<dyn Log>>>,
    /// The connection that reads where replay stands and copies SQLite's WAL file into the database file.
    keeper: Mutex<Connection>,
    /// Pages in SQLite's WAL file after the last commit.
    wal_pages: Arc<AtomicU32>,
    pub(super) copying: Copying,
    health: Arc<Health>,
    /// What the server's connections are doing.
    pub(super) activities: Arc<Activities>,
    pub(super) measures: Measures,
    /// Which statements sessions log for having taken long, unless they set it otherwise.
    pub(super) slow_log: Mutex<SlowLog>,
}

impl SqliteEngine {
    /// Opens the database in `dir`, creating both if missing.
    ///
    /// # Errors
    /// The directory or the database cannot be used.
    pub fn open(dir: &Path) -> Result<SqliteEngine, EngineError> {
        let path = dir.join(FILE_NAME);
        let opened = || -> Result<SqliteEngine, Box<dyn std::error::Error + Send + Sync>> {
            std::fs::create_dir_all(dir)?;
            let shared = Arc::new(Shared::open(&path)?);
            let (clerk, copier) = (Clerk::start(Arc::clone(&shared))?, Copier::start(Arc::clone(&shared))?);
            Ok(SqliteEngine { shared, _clerk: clerk, _copier: copier })
        };
        opened().map_err(|error| EngineError::new(format!("{}: {error}", path.display())))
    }

    /// Resolves with the reason when the engine cannot go on: what can be read is not what clients were told, until replay
    /// at the next start makes it so. The node should then be shut down.
    pub async fn failed(&self) -> String {
        self.shared.health.failed().await
    }

    /// Which statements are logged for having taken long, by sessions that are opened from now on.
    pub fn log_slow(&self, log: SlowLog) {
        *self.shared.slow_log.lock() = log;
    }

    /// Why clients cannot be served now, if so. May block.
    pub fn why_not_ready(&self) -> Option<String> {
        match self.shared.log_status() {
            Ok(Some(status)) => match status.health {
                Wellness::Good => None,
                Wellness::Hangs { since } => {
                    Some(format!("the log's device hangs: a sync has not come back for {} s", since.as_secs()))
                }
                Wellness::Damaged(damage) => Some(format!("an old part of the log is damaged: {damage}")),
                Wellness::Failed(failure) => Some(failure.to_string()),
                other => Some(format!("the log is not well: {other:?}")),
            },
            Ok(None) => Some("this node is not the primary".to_owned()),
            Err(error) => Some(error.to_string()),
        }
    }

    /// Brings the metrics up to date that are looked at rather than counted. May block.
    pub fn observe(&self) {
        let status = self.shared.log_status().ok().flatten();
        measures::observe(status.as_ref(), self.shared.turnstile.waiting(), &self.shared.activities.seen());
    }

    /// Takes writes into `log` from now on.
    pub(super) fn write_to(&self, log: Box<dyn Log>) {
        *self.shared.log.write() = Some(log);
    }
}

impl Shared {
    fn open(path: &Path) -> rusqlite::Result<Shared> {
        let mut connection = open_writing(path)?;
        // Negative: KiB rather than pages.
        connection.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
        connection.execute_batch(&format!(
            "PRAGMA journal_mode = WAL;
             BEGIN IMMEDIATE;
             CREATE TABLE IF NOT EXISTS {STATE_TABLE}
                 (one INTEGER PRIMARY KEY CHECK (one = 1), applied INTEGER NOT NULL, system INTEGER);
             INSERT OR IGNORE INTO {STATE_TABLE} VALUES (1, 0, NULL);
             COMMIT;"
        ))?;
        let wal_pages = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&wal_pages);
        connection.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, pages: i32| {
            counted.store(pages.max(0).cast_unsigned(), Ordering::Relaxed);
            Ok(())
        }))?;
        let writer_interrupt = Arc::new(connection.get_interrupt_handle());
        let health = Arc::new(Health::new());
        Ok(Shared {
            path: path.to_owned(),
            turnstile: Turnstile::new(Writer::new(connection, Arc::clone(&health))?),
            writer_interrupt,
            log: RwLock::new(None),
            keeper: Mutex::new(open_writing(path)?),
            wal_pages,
            copying: Copying::default(),
            health,
            activities: Arc::default(),
            measures: Measures::new(),
            slow_log: Mutex::new(SlowLog::default()),
        })
    }

    /// Where the log stands; nothing while this node is not primary.
    ///
    /// # Errors
    /// The free space of its disk cannot be read.
    pub(super) fn log_status(&self) -> Result<Option<WalStatus>, WalError> {
        // Somebody who waits to write is about to demote.
        let Some(log) = self.log.try_read() else { return Ok(None) };
        log.as_deref().map_or(Ok(None), Log::status)
    }

    /// Opens a connection that can only read.
    pub(super) fn open_reader(&self) -> rusqlite::Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.path, flags)?;
        prepare_connection(&connection)?;
        Ok(connection)
    }

    /// Opens such a connection, to which databases in memory can be attached; it sees one state until it is closed.
    pub(super) fn open_reader_to_attach_to(&self) -> Result<Connection, SqlError> {
        // An absolute path is no URI.
        let path =
            std::path::absolute(&self.path).map_err(|error| SqlError::new(SqlState::IO_ERROR, error.to_string()))?;
        let open = || -> rusqlite::Result<Connection> {
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let connection = Connection::open_with_flags(path, flags)?;
            prepare_connection(&connection)?;
            connection.execute_batch("BEGIN")?;
            connection.prepare("SELECT 1 FROM sqlite_schema")?.exists([])?;
            Ok(connection)
        };
        open().map_err(|error| from_sqlite(&error))
    }

    /// After a commit: keeps SQLite's WAL file short. See [`super::copier`].
    pub(super) fn copy_if_long(&self) {
        let pages = self.wal_pages.load(Ordering::Relaxed);
        if pages >= COPY_PAGES && (self.copying.is_rest_due() || pages >= TOO_MANY_PAGES) {
            self.copy_now();
        }
    }

    /// Copies what readers allow. A failure costs no data and shows at the next checkpoint.
    pub(super) fn copy_now(&self) {
        // Somebody else at it is as good.
        let Some(keeper) = self.keeper.try_lock() else { return };
        if let Err(error) = self.copy(&keeper) {
            tracing::warn!(%error, "SQLite's WAL file could not be copied into its database file");
        }
    }

    /// Copies SQLite's WAL file into the database file as far as readers allow, waiting for nobody.
    fn copy(&self, keeper: &Connection) -> rusqlite::Result<()> {
        let done = keeper.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
        done.inspect_err(|error| self.health.note(error))
    }

    /// Makes everything committed in SQLite so far durable; answers up to which LSN that reaches.
    ///
    /// SQLite's checkpoint alone does not say so: a reader of an old state, or another checkpoint, makes it do part of the
    /// work, or none, without an error. So SQLite's WAL file is synced here. All commits up to the LSN read before are in
    /// it, or were copied into the database file, which SQLite syncs before it writes over the WAL file. Opening after
    /// a crash finds them there.
    fn make_durable(&self) -> Result<Lsn, EngineError> {
        if self.health.has_failed_sync() {
            return Err(EngineError::new(
                "an earlier sync of SQLite's files failed; nothing is trusted until a restart",
            ));
        }
        let keeper = self.keeper.lock();
        let applied = apply::stored_lsn(&keeper).map_err(EngineError::new)?;
        self.sync_wal_file().map_err(EngineError::new)?;
        self.copy(&keeper).map_err(EngineError::new)?;
        Ok(applied)
    }

    /// Syncs SQLite's WAL file and the directory. The database file itself is never opened here: closing it would
    /// drop SQLite's own locks on it.
    fn sync_wal_file(&self) -> io::Result<()> {
        let mut wal = self.path.clone().into_os_string();
        wal.push("-wal");
        let sync = |path: &Path| File::open(path)?.sync_all().inspect_err(|_| self.health.note_failed_sync());
        sync(Path::new(&wal))?;
        self.path.parent().map_or(Ok(()), sync)
    }
}

fn open_writing(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    // Copied by `copy_if_long`, where a failure is seen; SQLite's own automatic way swallows it.
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, true)?;
    prepare_connection(&connection)?;
    Ok(connection)
}

fn prepare_connection(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_prepared_statement_cache_capacity(CACHED_STATEMENTS);
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    functions::register(connection)?;
    // Not usable in a schema: there, a new version could give other values at replay.
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DIRECTONLY;
    let version = format!("PostgreSQL {}", server_version());
    connection.create_scalar_function("version", 0, flags, move |_| Ok(version.clone()))?;
    connection.create_scalar_function("current_database", 0, flags, |_| Ok(ONLY_NAME))?;
    connection.create_scalar_function("current_schema", 0, flags, |_| Ok("main"))
}

/// What clients are told of the server's version: PostgreSQL's, whose protocol and words are spoken, and what it really is.
pub(super) fn server_version() -> String {
    format!("{}, SQLite {}", mainstay::server::pg::SERVER_VERSION, rusqlite::version())
}

impl Engine for SqliteEngine {
    fn applied(&self) -> Result<Lsn, EngineError> {
        apply::stored_lsn(&self.shared.keeper.lock()).map_err(EngineError::new)
    }

    fn system(&self) -> Result<Option<SystemId>, EngineError> {
        let sql = format!("SELECT system FROM {STATE_TABLE}");
        let stored: Result<Option<i64>, _> = self.shared.keeper.lock().query_row(&sql, [], |row| row.get(0));
        Ok(stored.map_err(EngineError::new)?.map(|system| SystemId::new(system.cast_unsigned())))
    }

    /// A record that is applied already is an error: replay starts at [`applied`](Engine::applied), so being given it
    /// again means that somebody lost count.
    fn apply(&self, records: &[Record]) -> Result<(), EngineError> {
        let turnstile = &self.shared.turnstile;
        let never = AtomicBool::new(false);
        let ticket = turnstile.acquire(WRITER_WAIT, &never).map_err(|waited: Waited| {
            EngineError::new(format!("the writer was not free to apply records ({waited:?})"))
        })?;
        let applied = match turnstile.writer(ticket) {
            Some(mut writer) => writer.apply(records).map_err(EngineError::new),
            None => Err(EngineError::new("the engine was demoted while it applied records")),
        };
        turnstile.release(ticket);
        self.shared.copy_if_long();
        applied
    }

    fn checkpoint(&self) -> Result<Lsn, EngineError> {
        self.shared.make_durable()
    }

    fn promote(&self, primary: Primary) -> Result<(), EngineError> {
        let sql = format!("UPDATE {STATE_TABLE} SET system = ?1 WHERE system IS NULL");
        let system = primary.system().get().cast_signed();
        self.shared.keeper.lock().execute(&sql, [system]).map_err(EngineError::new)?;
        self.write_to(Box::new(primary));
        Ok(())
    }

    /// Commits under way end first, by the handle being void. Then whoever has the turn loses it.
    fn demote(&self) {
        *self.shared.log.write() = None;
        let deadline = Instant::now() + DEMOTE_WAIT;
        loop {
            self.shared.writer_interrupt.interrupt();
            if self.shared.turnstile.revoke(DEMOTE_RETRY, Writer::rollback) {
                return;
            }
            if Instant::now() >= deadline {
                tracing::warn!("a statement did not end when the engine was demoted; it cannot commit any more");
                return;
            }
        }
    }
}

impl Backend for SqliteEngine {
    fn connect(&self, client: &ClientInfo) -> Result<Box<dyn Session>, SqlError> {
        // Whoever proved a name is somebody; without proof there is only the one role.
        if client.user != ONLY_NAME && !client.is_authenticated {
            let message = format!("role \"{}\" does not exist", client.user);
            return Err(SqlError::fatal(SqlState::INVALID_AUTHORIZATION, message));
        }
        if client.database != ONLY_NAME {
            let message = format!("database \"{}\" does not exist", client.database);
            return Err(SqlError::fatal(SqlState::INVALID_CATALOG_NAME, message));
        }
        Ok(Box::new(SqliteSession::new(Arc::clone(&self.shared), client)?))
    }

    fn activities(&self) -> Option<&Arc<Activities>> {
        Some(&self.shared.activities)
    }
}

#[cfg(test)]
#[path = "engine_test.rs"]
mod tests;
