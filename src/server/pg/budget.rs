//! How much one connection may make the server remember between messages: statements, portals, and all that is theirs.
//!
//! What is remembered holds a [`Reserved`]; when it is forgotten, its bytes are free again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::error::{SqlError, SqlState};

/// What may be remembered beside the largest message.
const KEPT_LIMIT_BYTES: usize = 64 * 1024 * 1024;

/// A connection's budget.
pub(super) struct Budget {
    limit_bytes: usize,
    used_bytes: Arc<AtomicUsize>,
}

impl Budget {
    /// The budget of a connection whose messages may be so large: any single one of them fits into it beside the rest.
    pub(super) fn new(message_limit_bytes: usize) -> Budget {
        Budget { limit_bytes: KEPT_LIMIT_BYTES.saturating_add(message_limit_bytes), used_bytes: Arc::default() }
    }

    /// Sets `bytes` aside. A connection is served by one thread at a time, so nobody else does meanwhile.
    ///
    /// # Errors
    /// So many are not left (54000).
    pub(super) fn reserve(&self, bytes: usize) -> Result<Reserved, SqlError> {
        let used = self.used_bytes.load(Ordering::Relaxed).saturating_add(bytes);
        if used > self.limit_bytes {
            let limit = self.limit_bytes;
            let message = format!("prepared statements and portals would take {used} bytes, more than {limit}");
            return Err(SqlError::new(SqlState::PROGRAM_LIMIT_EXCEEDED, message)
                .with_hint("Close those that are not needed any more."));
        }
        self.used_bytes.store(used, Ordering::Relaxed);
        Ok(Reserved { bytes, used_bytes: Arc::clone(&self.used_bytes) })
    }
}

/// Bytes set aside for something that is remembered.
pub(super) struct Reserved {
    bytes: usize,
    used_bytes: Arc<AtomicUsize>,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.used_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_forgotten_is_free_again() {
        let budget = Budget::new(100);
        let first = budget.reserve(KEPT_LIMIT_BYTES).unwrap();
        let second = budget.reserve(100).unwrap();
        assert_eq!(budget.reserve(1).err().unwrap().state, SqlState::PROGRAM_LIMIT_EXCEEDED);
        drop(second);
        assert!(budget.reserve(100).is_ok() && budget.reserve(usize::MAX).is_err());
        drop(first);
        assert_eq!(budget.used_bytes.load(Ordering::Relaxed), 0);
    }
}
