//! Names of commands, which make that each takes effect once, however often it is proposed.
//!
//! A name is a client and a sequence ([`Attempt`]). Of a client one command is under way at a time, so whoever has several
//! at once needs several clients: they are drawn at random, and lent to one command after the other.

use parking_lot::Mutex;

use super::service::MetaError;
use crate::raftstore::context::Attempt;

/// The clients of one proposer that are not lent.
#[derive(Default)]
pub struct Names(Mutex<Vec<Attempt>>);

impl Names {
    /// A name for the next command.
    ///
    /// # Errors
    /// The operating system has no random numbers.
    pub fn lend(&self) -> Result<Lent<'_>, MetaError> {
        let idle = self.0.lock().pop();
        let attempt = match idle {
            Some(Attempt { client, sequence }) => Attempt { client, sequence: sequence + 1 },
            None => Attempt { client: random()?, sequence: 1 },
        };
        Ok(Lent { attempt, names: self })
    }
}

/// A name that goes back when its command is through, or given up: what comes under it next has a higher sequence, so
/// that one given up that comes late has no effect.
pub struct Lent<'a> {
    attempt: Attempt,
    names: &'a Names,
}

impl Lent<'_> {
    /// The name.
    pub fn attempt(&self) -> Attempt {
        self.attempt
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        self.names.0.lock().push(self.attempt);
    }
}

/// Never 0, which stands for no name.
fn random() -> Result<u64, MetaError> {
    let drawn = getrandom::u64().map_err(|error| MetaError::Unavailable {
        leader: None,
        why: format!("the operating system has no random numbers: {error}"),
    })?;
    Ok(drawn.max(1))
}
