//! Who may stop which session: each connection's process id and secret, as told to its client.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::backend::Interrupt;
use super::error::{SqlError, SqlState};

/// The sessions that can be interrupted.
#[derive(Default)]
pub(super) struct Cancels(Mutex<Table>);

#[derive(Default)]
struct Table {
    last_id: i32,
    entries: HashMap<i32, Entry>,
}

struct Entry {
    secret: i32,
    interrupt: Arc<dyn Interrupt>,
}

impl Cancels {
    /// Gives a session a process id that no other has now, and a secret.
    ///
    /// # Errors
    /// The system has no randomness to give.
    pub(super) fn register(self: &Arc<Self>, interrupt: Arc<dyn Interrupt>) -> Result<Registration, SqlError> {
        let secret = getrandom::u32().map_err(|error| {
            SqlError::fatal(SqlState::INTERNAL_ERROR, format!("no randomness for a cancel key: {error}"))
        })?;
        let secret = secret.cast_signed();
        let mut table = self.0.lock();
        let mut process_id = table.last_id;
        loop {
            process_id = process_id.checked_add(1).unwrap_or(1);
            // There are far fewer connections than ids.
            if !table.entries.contains_key(&process_id) {
                break;
            }
        }
        table.last_id = process_id;
        table.entries.insert(process_id, Entry { secret, interrupt });
        Ok(Registration { cancels: Arc::clone(self), process_id, secret })
    }

    /// Interrupts the session of that id, if the secret is its own. The asker is told nothing, as the protocol has it.
    pub(super) fn cancel(&self, process_id: i32, secret: i32) {
        let interrupt = {
            let table = self.0.lock();
            table.entries.get(&process_id).filter(|entry| entry.secret == secret).map(|entry| entry.interrupt.clone())
        };
        tracing::debug!(process_id, known = interrupt.is_some(), "cancel request");
        if let Some(interrupt) = interrupt {
            interrupt.interrupt();
        }
    }
}

/// A session's place in the table; leaves it when dropped.
pub(super) struct Registration {
    cancels: Arc<Cancels>,
    pub(super) process_id: i32,
    pub(super) secret: i32,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.cancels.0.lock().entries.remove(&self.process_id);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Interrupt for Count {
        fn interrupt(&self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn only_the_right_secret_of_a_live_session_interrupts() {
        let cancels = Arc::new(Cancels::default());
        let (one, other) = (Arc::new(Count::default()), Arc::new(Count::default()));
        let registration = cancels.register(one.clone()).unwrap();
        let _other = cancels.register(other.clone()).unwrap();
        let (process_id, secret) = (registration.process_id, registration.secret);
        cancels.cancel(process_id, secret.wrapping_add(1));
        assert_eq!(one.0.load(Ordering::SeqCst), 0);
        cancels.cancel(process_id, secret);
        assert_eq!(one.0.load(Ordering::SeqCst), 1);
        drop(registration);
        cancels.cancel(process_id, secret);
        assert_eq!((one.0.load(Ordering::SeqCst), other.0.load(Ordering::SeqCst)), (1, 0));
    }

    #[test]
    fn process_ids_wrap_and_skip_those_in_use() {
        let cancels = Arc::new(Cancels::default());
        let first = cancels.register(Arc::new(Count::default())).unwrap();
        cancels.0.lock().last_id = i32::MAX;
        let next = cancels.register(Arc::new(Count::default())).unwrap();
        assert_eq!((first.process_id, next.process_id), (1, 2));
    }
}
