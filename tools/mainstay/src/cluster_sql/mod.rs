//! The cluster in SQL, on every node: statements about it are answered here, all others by the engine, if this node has the
//! one that may be written; else they are refused, and the client is told where to go.
//!
//! | file | what it holds |
//! |---|---|
//! | `grammar` | which statements there are |
//! | `answer` | what they come to: rows, or errors of the metadata as SQLSTATEs |
//!
//! It wraps whatever answers SQL on this node and knows nothing of SQLite. What it tells and changes is that of
//! [`ClusterFace`], which the node provides.

mod answer;
mod grammar;

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use mainstay::cluster::rpc::proto::StatusResponse;
use mainstay::ident::{GroupId, NodeId};
use mainstay::meta::client::Meta;
use mainstay::server::pg::{
    Activities, Activity, Backend, ClientInfo, CommandTag, CursorCommand, Description, Interrupt, OwnedValue, PgType,
    Reply, ResultSink, Scope, Session, SlowLog, SqlError, SqlState, Started, Timeouts, TransactionStatus,
};
use tokio::runtime::Handle;
use tokio::sync::Notify;

use crate::sqlite::split;
use answer::Answer;
use grammar::{Change, Statement, parse};

/// How long a statement about the cluster waits for a leader.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A change that could not be made.
pub type Refused = SqlError;

/// The cluster as this node has it.
#[tonic::async_trait]
pub trait ClusterFace: Send + Sync + 'static {
    /// Its metadata.
    fn meta(&self) -> Meta;

    /// How this node stands in its Raft groups.
    fn status(&self) -> StatusResponse;

    /// The address for SQL of the node that takes writes, if that is known and not this one.
    fn primary(&self) -> Option<String>;

    /// Has the replica on a node vote in a Raft group, or only follow; says what there is to say beside that it is so now.
    ///
    /// # Errors
    /// Why not, as the client is to hear it.
    async fn set_vote(&self, group: GroupId, node: NodeId, votes: bool, actor: &str)
    -> Result<Option<String>, Refused>;

    /// Removes a node from the cluster.
    ///
    /// # Errors
    /// Why not, as the client is to hear it.
    async fn remove_node(&self, node: NodeId, actor: &str) -> Result<(), Refused>;
}

/// What answers SQL on a node of a cluster.
pub struct ClusterBackend {
    face: Arc<dyn ClusterFace>,
    /// What takes all other statements, where this node may.
    engine: Option<Arc<dyn Backend>>,
    runtime: Handle,
}

impl ClusterBackend {
    /// Must be called on the runtime that the cluster lives on.
    pub fn new(face: Arc<dyn ClusterFace>, engine: Option<Arc<dyn Backend>>) -> ClusterBackend {
        ClusterBackend { face, engine, runtime: Handle::current() }
    }
}

impl Backend for ClusterBackend {
    fn connect(&self, client: &ClientInfo) -> Result<Box<dyn Session>, SqlError> {
        let inner = self.engine.as_ref().map(|engine| engine.connect(client)).transpose()?;
        Ok(Box::new(ClusterSession {
            face: Arc::clone(&self.face),
            runtime: self.runtime.clone(),
            cancel: Arc::new(Cancel {
                cancelled: Notify::new(),
                inner: inner.as_ref().map(|inner| inner.interrupter()),
            }),
            user: client.user.clone(),
            is_superuser: client.is_superuser,
            inner,
        }))
    }

    fn activities(&self) -> Option<&Arc<Activities>> {
        self.engine.as_ref()?.activities()
    }
}

struct ClusterSession {
    face: Arc<dyn ClusterFace>,
    runtime: Handle,
    cancel: Arc<Cancel>,
    user: String,
    is_superuser: bool,
    inner: Option<Box<dyn Session>>,
}

/// Stops a statement about the cluster, or the engine's.
struct Cancel {
    cancelled: Notify,
    inner: Option<Arc<dyn Interrupt>>,
}

impl Interrupt for Cancel {
    fn interrupt(&self) {
        // Only who waits is told: what comes next is not meant.
        self.cancelled.notify_waiters();
        if let Some(inner) = &self.inner {
            inner.interrupt();
        }
    }
}

impl ClusterSession {
    /// The statement about the cluster, if it is one.
    fn ours(&self, sql: &str) -> Result<Option<Statement>, SqlError> {
        let statement = parse(sql)?;
        if statement.is_some() && self.transaction_status() == TransactionStatus::Failed {
            let message = "current transaction is aborted, commands ignored until end of transaction block";
            return Err(SqlError::new(SqlState::IN_FAILED_SQL_TRANSACTION, message));
        }
        Ok(statement)
    }

    /// The engine's session.
    fn engine(&mut self) -> Result<&mut Box<dyn Session>, SqlError> {
        let primary = self.face.primary();
        self.inner.as_mut().ok_or_else(|| {
            let message = "this node answers statements about the cluster only: it is not the primary";
            let refused = SqlError::new(SqlState::READ_ONLY_SQL_TRANSACTION, message);
            match primary {
                Some(primary) => refused.with_hint(format!("The primary serves SQL at {primary}.")),
                None => refused.with_hint("SHOW NODES lists the nodes of the cluster."),
            }
        })
    }

    fn run(&self, statement: Statement, sink: &mut dyn ResultSink) -> Result<CommandTag, SqlError> {
        if let Statement::Change(change) = &statement {
            self.may_change(change)?;
        }
        let (face, user) = (Arc::clone(&self.face), self.user.clone());
        let answer = self.runtime.block_on(async {
            let meta = face.meta().within(TIMEOUT).acting(&user, "SQL");
            tokio::select! {
                answer = answer::answer(&*face, &meta, statement, &user) => answer,
                () = self.cancel.cancelled.notified() => {
                    Err(SqlError::new(SqlState::QUERY_CANCELED, "canceling statement due to user request"))
                }
            }
        })?;
        match answer {
            Answer::Done { tag, notice } => {
                notice.map_or(Ok(()), |notice| sink.notice(&SqlError::notice(notice)))?;
                Ok(CommandTag(tag.to_owned()))
            }
            Answer::Rows(rows) => rows.send(sink),
        }
    }

    fn may_change(&self, change: &Change) -> Result<(), SqlError> {
        let what = answer::tag(change);
        if !self.is_superuser {
            let message = format!("permission denied: only superusers may {what}");
            return Err(SqlError::new(answer::INSUFFICIENT_PRIVILEGE, message));
        }
        if self.transaction_status() == TransactionStatus::InTransaction {
            let message = format!("{what} cannot run inside a transaction block");
            return Err(SqlError::new(SqlState::ACTIVE_SQL_TRANSACTION, message));
        }
        Ok(())
    }
}

impl Session for ClusterSession {
    fn split<'a>(&self, sql: &'a str) -> Vec<&'a str> {
        self.inner.as_ref().map_or_else(|| split(sql), |inner| inner.split(sql))
    }

    fn describe(&mut self, statement: &str, parameter_types: &[PgType]) -> Result<Description, SqlError> {
        match self.ours(statement)? {
            Some(Statement::Show(shown)) => Ok(Description { parameters: Vec::new(), columns: answer::columns(shown) }),
            Some(Statement::Change(_)) => Ok(Description::default()),
            None => self.engine()?.describe(statement, parameter_types),
        }
    }

    fn cursor_command(&self, statement: &str) -> Result<Option<CursorCommand>, SqlError> {
        self.inner.as_ref().map_or(Ok(None), |inner| inner.cursor_command(statement))
    }

    fn execute(
        &mut self,
        statement: &str,
        parameters: &[OwnedValue],
        scope: Scope,
        sink: &mut dyn ResultSink,
    ) -> Result<CommandTag, SqlError> {
        match self.ours(statement) {
            Ok(None) => self.engine()?.execute(statement, parameters, scope, sink),
            Ok(Some(ours)) => self.run(ours, sink).inspect_err(|_| self.fail_transaction()),
            Err(error) => {
                self.fail_transaction();
                Err(error)
            }
        }
    }

    fn start(&mut self, statement: &str, parameters: &Arc<Vec<OwnedValue>>, scope: Scope, reply: Reply) -> Started {
        match (parse(statement), &mut self.inner) {
            (Ok(None), Some(inner)) => inner.start(statement, parameters, scope, reply),
            _ => Started::Blocks(reply),
        }
    }

    fn poll_started(&mut self, context: &mut Context<'_>) -> Poll<(Result<CommandTag, SqlError>, Reply)> {
        self.inner.as_mut().map_or(Poll::Pending, |inner| inner.poll_started(context))
    }

    fn describes_at_once(&self) -> bool {
        self.inner.as_ref().is_none_or(|inner| inner.describes_at_once())
    }

    fn rest(&mut self) {
        if let Some(inner) = &mut self.inner {
            inner.rest();
        }
    }

    fn end_implicit(&mut self, commit: bool) -> Result<(), SqlError> {
        self.inner.as_mut().map_or(Ok(()), |inner| inner.end_implicit(commit))
    }

    fn fail_transaction(&mut self) {
        if let Some(inner) = &mut self.inner {
            inner.fail_transaction();
        }
    }

    fn entered(&mut self, activity: Arc<Activity>) {
        if let Some(inner) = &mut self.inner {
            inner.entered(activity);
        }
    }

    fn slow_log(&self) -> Option<SlowLog> {
        self.inner.as_ref()?.slow_log()
    }

    fn changed_settings(&mut self) -> Vec<(&'static str, String)> {
        self.inner.as_mut().map_or_else(Vec::new, |inner| inner.changed_settings())
    }

    fn transaction_status(&self) -> TransactionStatus {
        self.inner.as_ref().map_or(TransactionStatus::Idle, |inner| inner.transaction_status())
    }

    fn timeouts(&self) -> Option<Timeouts> {
        self.inner.as_ref()?.timeouts()
    }

    fn forget_interrupts(&mut self) {
        if let Some(inner) = &mut self.inner {
            inner.forget_interrupts();
        }
    }

    fn interrupter(&self) -> Arc<dyn Interrupt> {
        Arc::clone(&self.cancel) as Arc<dyn Interrupt>
    }
}

#[cfg(test)]
#[path = "cluster_sql_test.rs"]
mod tests;
