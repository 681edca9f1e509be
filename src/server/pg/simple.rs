//! The simple query protocol: a string of statements, their results as text.

use super::backend::Scope;
use super::conversation::Conversation;
use super::error::SqlError;
use super::outbox::Outbox;
use super::sink::Expected;

impl Conversation {
    /// Runs the statements of `sql`, all or none of them unless they say otherwise themselves.
    pub(super) fn simple_query(&mut self, sql: &str, outbox: &mut Outbox) -> Result<(), SqlError> {
        self.forget_unnamed();
        let statements = self.session.split(sql);
        if statements.is_empty() {
            outbox.empty_query()?;
        }
        // What an extended-protocol client ran without a Sync belongs to the same transaction.
        let alone = statements.len() == 1 && !self.implicit_open;
        let scope = if alone { Scope::Single } else { Scope::Implicit };
        let last = statements.len().saturating_sub(1);
        for (index, statement) in statements.into_iter().enumerate() {
            let tag = self.run(statement, &[], scope, Expected::Nothing, outbox)?;
            if index == last {
                // Before its completion is told: a commit that fails fails the last statement.
                self.commit_implicit()?;
            }
            outbox.complete(&tag)?;
        }
        // Of a blank string after an extended-protocol client's statements.
        self.commit_implicit()?;
        self.ready(outbox)
    }

    /// The unnamed statement and portal live until the next simple query.
    pub(super) fn forget_unnamed(&mut self) {
        self.statements.remove("");
        self.portals.remove("");
    }
}
