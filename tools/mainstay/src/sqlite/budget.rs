//! A bound for statements that run where none may take long: about a millisecond.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rusqlite::Connection;

/// Steps of SQLite's machine between two looks at the budget.
const BUDGET_STEPS: i32 = 1000;
/// So many looks a statement gets that has a budget: about a millisecond.
const BUDGET_LOOKS: u32 = 20;
/// A budget that does not run out.
const UNLIMITED: u32 = u32::MAX;
/// A budget that ran out, of which SQLite was told.
const SPENT: u32 = u32::MAX - 1;

/// What is left to the statement that runs on a connection, in looks, or [`UNLIMITED`], or [`SPENT`].
#[derive(Clone)]
pub(super) struct Budget(Arc<AtomicU32>);

impl Budget {
    /// Of that connection, whose statements have none yet.
    pub(super) fn install(connection: &mut Connection) -> rusqlite::Result<Budget> {
        let budget = Arc::new(AtomicU32::new(UNLIMITED));
        let left = Arc::clone(&budget);
        // Only the thread that runs the statement counts. A budget stops one statement, once: what runs behind that one, and
        // still before the budget is lifted, ends the transaction, and must not be stopped too.
        let exhausted = move || match left.load(Ordering::Relaxed) {
            UNLIMITED | SPENT => false,
            0 => {
                left.store(SPENT, Ordering::Relaxed);
                true
            }
            looks => {
                left.store(looks - 1, Ordering::Relaxed);
                false
            }
        };
        connection.progress_handler(BUDGET_STEPS, Some(exhausted))?;
        Ok(Budget(budget))
    }

    /// Runs `work`, whose statement fails when it takes longer than a moment; answers whether it did.
    pub(super) fn within<T>(&self, work: impl FnOnce() -> T) -> (T, bool) {
        self.0.store(BUDGET_LOOKS, Ordering::Relaxed);
        let result = work();
        (result, self.0.swap(UNLIMITED, Ordering::Relaxed) == SPENT)
    }

    /// Whether the statement that runs has a budget.
    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed) != UNLIMITED
    }
}
