//! Keeps SQLite's WAL file short: copies it into the database file when it has grown long.
//!
//! That takes two syncs of much data, which no client should wait for. So a thread copies while others write; what they
//! wrote meanwhile is little, and is copied by the thread that writes, between two transactions. Only when nothing is left to
//! copy does SQLite begin its WAL file anew.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use parking_lot::{Condvar, Mutex};

use super::engine::Shared;

/// How far copying is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Idle,
    /// The thread should copy, or does.
    Wanted,
    /// It did; the rest is left to whoever writes.
    Rest,
    Closed,
}

/// Asks for copying, and says when the rest is due.
#[derive(Default)]
pub(super) struct Copying {
    stage: Mutex<Stage>,
    changed: Condvar,
}

impl Copying {
    /// The file is long. Answers whether the caller should copy the rest now.
    pub(super) fn is_rest_due(&self) -> bool {
        let mut stage = self.stage.lock();
        match *stage {
            Stage::Idle => {
                *stage = Stage::Wanted;
                self.changed.notify_one();
                false
            }
            Stage::Rest => {
                *stage = Stage::Idle;
                true
            }
            Stage::Wanted | Stage::Closed => false,
        }
    }
}

/// The thread; it ends when this is dropped.
pub(super) struct Copier {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Copier {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub(super) fn start(shared: Arc<Shared>) -> io::Result<Copier> {
        let of_thread = Arc::clone(&shared);
        let thread = thread::Builder::new().name("sqlite-copier".to_owned()).spawn(move || run(&of_thread))?;
        Ok(Copier { shared, thread: Some(thread) })
    }
}

impl Drop for Copier {
    fn drop(&mut self) {
        *self.shared.copying.stage.lock() = Stage::Closed;
        self.shared.copying.changed.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that copies SQLite's WAL file had panicked");
        }
    }
}

fn run(shared: &Shared) {
    let copying = &shared.copying;
    loop {
        {
            let mut stage = copying.stage.lock();
            loop {
                match *stage {
                    Stage::Wanted => break,
                    Stage::Closed => return,
                    Stage::Idle | Stage::Rest => copying.changed.wait(&mut stage),
                }
            }
        }
        shared.copy_now();
        let mut stage = copying.stage.lock();
        if *stage == Stage::Wanted {
            *stage = Stage::Rest;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_is_due_once_after_the_thread_copied() {
        let copying = Copying::default();
        assert!(!copying.is_rest_due());
        assert_eq!(*copying.stage.lock(), Stage::Wanted);
        assert!(!copying.is_rest_due());
        *copying.stage.lock() = Stage::Rest;
        assert!(copying.is_rest_due() && !copying.is_rest_due());
    }
}
