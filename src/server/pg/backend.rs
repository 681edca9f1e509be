//! The seam between the protocol and an engine: what an engine's tool implements so that PostgreSQL clients can use it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;

use super::access::Roles;
use super::activity::{Activities, Activity};
use super::cursors::CursorCommand;
use super::error::{SqlError, SqlState};
use super::sink::Reply;
use super::slow::SlowLog;
use super::timeouts::Timeouts;
use super::types::{Column, OwnedValue, PgType, Value};

/// Opens sessions. One per server, shared by all connections.
pub trait Backend: Send + Sync + 'static {
    /// Opens a session for a client whose startup packet has been read. May block.
    ///
    /// # Errors
    /// What the client is told before it is disconnected, such as 3D000 for a database that does not exist.
    fn connect(&self, client: &ClientInfo) -> Result<Box<dyn Session>, SqlError>;

    /// Where the server notes what its connections are doing, if this backend shows it.
    fn activities(&self) -> Option<&Arc<Activities>> {
        None
    }
}

/// What a client said of itself in its startup packet, and what it proved.
#[derive(Clone, Debug, Default)]
pub struct ClientInfo {
    /// The role it wants to be.
    pub user: String,
    /// The database it wants; the user's name if it named none, as in PostgreSQL.
    pub database: String,
    /// All parameters of the startup packet, `user` and `database` among them.
    pub parameters: BTreeMap<String, String>,
    /// It proved to be that role, which is known to the server. Without, it may be anybody.
    pub is_authenticated: bool,
    /// It may have the connections that are kept for superusers.
    pub is_superuser: bool,
    /// Who else can log in, for whoever is let in.
    pub roles: Roles,
    /// Those that a session has unless it sets others.
    pub timeouts: Timeouts,
    /// So many clients may be connected at a time.
    pub connection_limit: usize,
}

/// One client's conversation with the engine.
///
/// Methods may block, unless they say otherwise: the server calls them on threads that may. A session is used by one
/// thread at a time. Dropping it rolls back what it had open.
pub trait Session: Send {
    /// Cuts a query string into its statements, by lexical rules alone (they need not make sense). Blank ones and
    /// those of comments only are left out.
    fn split<'a>(&self, sql: &'a str) -> Vec<&'a str>;

    /// Says what a single statement takes and returns, without running it. `parameter_types` are those that the
    /// client declared, in order; missing ones and [`PgType::UNSPECIFIED`] are to be inferred.
    ///
    /// # Errors
    /// The statement is not valid, or the transaction has failed (25P02).
    fn describe(&mut self, statement: &str, parameter_types: &[PgType]) -> Result<Description, SqlError>;

    /// The statement as one about cursors, which the server runs itself; `None` if it is none. No such statement gets to the
    /// other methods, but the query of a cursor does; [`start`](Session::start) answers [`Started::Blocks`] to it.
    ///
    /// # Errors
    /// It begins like one and goes on otherwise, or asks for what cursors cannot do.
    fn cursor_command(&self, statement: &str) -> Result<Option<CursorCommand>, SqlError> {
        let _ = statement;
        Ok(None)
    }

    /// Runs a single statement with `parameters` and sends its rows to `sink`.
    ///
    /// # Errors
    /// The statement failed and left nothing. Inside a transaction the transaction has failed with it; inside
    /// [`Scope::Implicit`] the caller ends the scope.
    fn execute(
        &mut self,
        statement: &str,
        parameters: &[OwnedValue],
        scope: Scope,
        sink: &mut dyn ResultSink,
    ) -> Result<CommandTag, SqlError>;

    /// Runs a statement as [`execute`](Session::execute) does, if that takes no more than a moment or is somebody else's
    /// work. Never blocks: it is called on a thread that serves many connections, which spares the statement the way to another one.
    ///
    /// A session that cannot do so answers [`Started::Blocks`], as this does unless it is overridden.
    fn start(&mut self, statement: &str, parameters: &Arc<Vec<OwnedValue>>, scope: Scope, reply: Reply) -> Started {
        let _ = (statement, parameters, scope);
        Started::Blocks(reply)
    }

    /// After [`Started::Elsewhere`]: whether the statement is over, and its outcome. Never blocks. No other method is called
    /// before it is.
    fn poll_started(&mut self, context: &mut Context<'_>) -> Poll<(Result<CommandTag, SqlError>, Reply)> {
        let _ = context;
        Poll::Pending
    }

    /// Whether [`describe`](Session::describe) takes no more than a moment now.
    fn describes_at_once(&self) -> bool {
        false
    }

    /// Its client has asked for nothing for a while. What can be had again, above all memory, should be given back; that may
    /// take no more than a moment. Called once until the client asks for something again.
    fn rest(&mut self);

    /// Ends the implicit transaction of [`Scope::Implicit`], if one is open: commits it if `commit`, else rolls it
    /// back. Without one, and inside a transaction block that the client began, it does nothing.
    ///
    /// # Errors
    /// The commit failed; nothing of it remains.
    fn end_implicit(&mut self, commit: bool) -> Result<(), SqlError>;

    /// Fails the transaction block that the client began, if one is open and has not failed yet: something went wrong
    /// in it that the session did not see, such as a message that makes no sense. Outside a block it does nothing.
    fn fail_transaction(&mut self);

    /// Its place among the [activities](Backend::activities) of the server, told once before anything else.
    fn entered(&mut self, activity: Arc<Activity>) {
        let _ = activity;
    }

    /// Which statements are to be logged for having taken long. Asked at the end of each.
    fn slow_log(&self) -> Option<SlowLog> {
        None
    }

    /// Those of the settings that clients are told of (PostgreSQL's `GUC_REPORT`) that changed since this was asked last, with
    /// their values. Asked before each ReadyForQuery.
    fn changed_settings(&mut self) -> Vec<(&'static str, String)>;

    /// Where this session stands, as told to the client after each query.
    fn transaction_status(&self) -> TransactionStatus;

    /// The timeouts of this session, if they are not those that it [was given](ClientInfo::timeouts).
    fn timeouts(&self) -> Option<Timeouts> {
        None
    }

    /// A handle that stops whatever this session runs, from any thread: that statement ends with 57014. So does one that has not
    /// got so far when the interrupt comes, because it is still on its way to another thread, or behind others of its query.
    fn interrupter(&self) -> Arc<dyn Interrupt>;

    /// Interrupts that came up to now were not meant for what comes next. Called when the client has sent something to do, and
    /// never between a statement that was [started](Session::start) and is to be executed, and its execution.
    fn forget_interrupts(&mut self);
}

/// What became of a statement that was [started](Session::start).
pub enum Started {
    /// It has run. If the reply [is full](Reply::is_full), it has failed, left nothing and is to be
    /// [executed](Session::execute); likewise after [`Session::poll_started`].
    Done(Result<CommandTag, SqlError>, Reply),
    /// It runs, or waits to; [`Session::poll_started`] says when it is over.
    Elsewhere,
    /// Nothing was done. It is to be [executed](Session::execute) where that may block.
    Blocks(Reply),
}

/// Stops a running statement from outside.
pub trait Interrupt: Send + Sync {
    /// Makes the statement that runs now, if any, or else the next one of the same query, end with an error soon. Never blocks.
    fn interrupt(&self);
}

/// Where the transaction of a statement ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The statement is alone: outside a transaction block it commits by itself.
    Single,
    /// The statement is one of several that succeed or fail together: a query string of many statements, or all that
    /// an extended-protocol client sends before its Sync. Outside a block, the first one opens a transaction that
    /// [`Session::end_implicit`] ends. A BEGIN inside turns it into a block; a COMMIT or ROLLBACK ends it, and
    /// the next statement opens another.
    Implicit,
}

/// Where a session stands between queries (protocol chapter 55.7, ReadyForQuery).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionStatus {
    /// Not in a transaction block.
    Idle,
    /// In a transaction block.
    InTransaction,
    /// In a transaction block that has failed: everything but its end is refused with 25P02.
    Failed,
}

/// What a statement takes and returns.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Description {
    /// The type of each parameter, in the order of their numbers.
    pub parameters: Vec<PgType>,
    /// The columns of its rows; empty if it returns none.
    pub columns: Vec<Column>,
}

/// What a finished statement calls itself, such as `INSERT 0 1` or `CREATE TABLE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandTag(pub String);

/// Takes the rows of a running statement. Blocks while the client is slower than the statement.
pub trait ResultSink {
    /// Announces the columns. Called once, before the first row, by statements that return rows.
    ///
    /// # Errors
    /// The client is gone; the statement should end.
    fn columns(&mut self, columns: &[Column]) -> Result<(), SqlError>;

    /// Sends one row: a value per announced column.
    ///
    /// # Errors
    /// The client is gone, or a value does not fit the announced type; the statement should end.
    fn row(&mut self, values: &[Value<'_>]) -> Result<(), SqlError>;

    /// Sends a notice; the statement goes on.
    ///
    /// # Errors
    /// The client is gone; the statement should end.
    fn notice(&mut self, notice: &SqlError) -> Result<(), SqlError>;

    /// Asks the client for the data of a `COPY … FROM STDIN`, in text, of so many columns. [`copied`](ResultSink::copied)
    /// has it then.
    ///
    /// # Errors
    /// 0A000 if this sink has no data to give, as that of a [started](Session::start) statement; the client is gone.
    fn copy_in(&mut self, columns: usize) -> Result<(), SqlError> {
        let _ = columns;
        Err(no_copy())
    }

    /// The next piece of the data, cut as the client cut it. Waits for it, but no longer than about `patience`, so that the
    /// statement can look whether it was interrupted.
    ///
    /// # Errors
    /// The client gave the COPY up (57014), broke the protocol, left, or let too much time pass. The statement has failed.
    fn copied(&mut self, patience: Duration) -> Result<Copied, SqlError> {
        let _ = patience;
        Err(no_copy())
    }

    /// Announces the data of a `COPY … TO STDOUT`, in text, of so many columns. Called once, before the first piece.
    ///
    /// # Errors
    /// As [`copy_in`](ResultSink::copy_in).
    fn copy_out(&mut self, columns: usize) -> Result<(), SqlError> {
        let _ = columns;
        Err(no_copy())
    }

    /// Sends a piece of the data: a whole row.
    ///
    /// # Errors
    /// As [`row`](ResultSink::row).
    fn copy_data(&mut self, data: &[u8]) -> Result<(), SqlError> {
        let _ = data;
        Err(no_copy())
    }

    /// Says that all data was sent.
    ///
    /// # Errors
    /// The client is gone.
    fn copy_done(&mut self) -> Result<(), SqlError> {
        Err(no_copy())
    }
}

/// What a client sent of the data of a COPY.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Copied {
    /// The next piece.
    Data(Bytes),
    /// Nothing yet.
    Nothing,
    /// There is no more.
    End,
}

fn no_copy() -> SqlError {
    SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, "COPY is not possible here")
}
