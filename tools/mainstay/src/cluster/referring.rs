//! The SQL server of a member that holds no rows: clients are let in, and told at each statement who does.

use std::sync::{Arc, Weak};

use mainstay::cluster::{ClusterNode, FIRST_MEMBER};
use mainstay::server::pg::{
    Backend, ClientInfo, CommandTag, Description, Interrupt, OwnedValue, PgType, ResultSink, Scope, Session, SqlError,
    SqlState, TransactionStatus,
};

/// See the module.
pub struct Referring(Weak<ClusterNode>);

impl Referring {
    /// One that knows what the member knows, and does not keep it.
    pub fn new(member: Weak<ClusterNode>) -> Referring {
        Referring(member)
    }

    /// Why clients are not served here, and who serves them.
    pub fn why(&self) -> String {
        let Some(member) = self.0.upgrade() else { return "the node stops".to_owned() };
        let own = member.membership().node;
        match member.first_member() {
            Ok(Some(first)) => format!(
                "node {own} holds no rows: the primary is node {FIRST_MEMBER} ({}, at {} for other nodes)",
                first.name,
                first.addresses.join(", ")
            ),
            Ok(None) => format!("node {own} holds no rows, and no primary is known here"),
            Err(error) => format!("node {own} holds no rows, and cannot say who does: {error}"),
        }
    }
}

impl Backend for Referring {
    fn connect(&self, _: &ClientInfo) -> Result<Box<dyn Session>, SqlError> {
        Ok(Box::new(Referred(Referring(Weak::clone(&self.0)))))
    }
}

/// A client's conversation, which is short.
struct Referred(Referring);

impl Referred {
    fn refusal(&self) -> SqlError {
        let mut error = SqlError::new(SqlState::READ_ONLY_SQL_TRANSACTION, self.0.why());
        error.hint = Some("Connect to the primary.".to_owned());
        error
    }
}

/// Nothing runs.
struct Nothing;

impl Interrupt for Nothing {
    fn interrupt(&self) {}
}

impl Session for Referred {
    /// What none of it is run needs no cutting.
    fn split<'a>(&self, sql: &'a str) -> Vec<&'a str> {
        if sql.trim().is_empty() { Vec::new() } else { vec![sql] }
    }

    fn describe(&mut self, _: &str, _: &[PgType]) -> Result<Description, SqlError> {
        Err(self.refusal())
    }

    fn execute(&mut self, _: &str, _: &[OwnedValue], _: Scope, _: &mut dyn ResultSink) -> Result<CommandTag, SqlError> {
        Err(self.refusal())
    }

    fn end_implicit(&mut self, _: bool) -> Result<(), SqlError> {
        Ok(())
    }

    fn fail_transaction(&mut self) {}

    fn transaction_status(&self) -> TransactionStatus {
        TransactionStatus::Idle
    }

    fn interrupter(&self) -> Arc<dyn Interrupt> {
        Arc::new(Nothing)
    }
}
