//! The right to write: [`Primary`], and the fence that takes it away.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::ident::SystemId;
use crate::lsn::{Epoch, Lsn};
use crate::wal::{AppendError, CommitError, Wal, WalError, WalStatus};

/// The right to write in one epoch: held by the engine of the primary, and void once the node is not primary any more.
pub struct Primary {
    wal: Arc<Wal>,
    system: SystemId,
    epoch: Epoch,
    fence: Fence,
}

/// Taken down in front of a new primary, raised for good when it must not write any more.
#[derive(Clone, Default)]
pub(crate) struct Fence(Arc<AtomicBool>);

impl Fence {
    pub(crate) fn raise(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn is_raised(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl Primary {
    pub(crate) fn new(wal: Arc<Wal>, system: SystemId, epoch: Epoch, fence: Fence) -> Primary {
        Primary { wal, system, epoch, fence }
    }

    /// The system whose log this writes. An engine notes it in its files and answers it in
    /// [`Engine::system`](crate::engine::Engine::system).
    pub fn system(&self) -> SystemId {
        self.system
    }

    /// The epoch in which this node is primary.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Puts one record into the log and answers where it ends. Never waits. From here on the transaction only goes
    /// forward: later records build on it.
    ///
    /// # Errors
    /// Nothing was appended, but for [`AppendError::Unknown`]; [`AppendError`] says what to do.
    pub fn append(&self, payload: &[u8]) -> Result<Lsn, AppendError> {
        self.check_append()?;
        self.wal.append(payload)
    }

    /// Waits until [`append`](Primary::append) of `len_bytes` would not be [`AppendError::Busy`].
    ///
    /// # Errors
    /// Waiting is pointless; [`AppendError`] says why.
    pub async fn room(&self, len_bytes: usize) -> Result<(), AppendError> {
        self.check_append()?;
        self.wal.room(len_bytes).await
    }

    /// [`room`](Primary::room) for plain threads.
    ///
    /// # Errors
    /// Waiting is pointless; [`AppendError`] says why.
    pub fn room_blocking(&self, len_bytes: usize) -> Result<(), AppendError> {
        self.check_append()?;
        self.wal.room_blocking(len_bytes)
    }

    /// Waits until everything before `end` is on this node's disk. Cancelling the wait changes nothing in the log.
    ///
    /// # Errors
    /// It is unknown whether it is, and [`CommitError`] says why.
    pub async fn durable(&self, end: Lsn) -> Result<(), CommitError> {
        self.wal.wait_durable(end).await
    }

    /// Waits until everything before `end` is committed: durable wherever the write concern asks, which for a cluster
    /// of one is here. Cancelling the wait changes nothing in the log; whether it commits is then unknown.
    ///
    /// # Errors
    /// It is unknown whether it is committed, and [`CommitError`] says why.
    pub async fn commit(&self, end: Lsn) -> Result<(), CommitError> {
        self.wal.wait_durable(end).await?;
        self.check_commit()
    }

    /// [`commit`](Primary::commit) for plain threads; an idle log is synced by the calling thread itself.
    ///
    /// # Errors
    /// It is unknown whether it is committed, and [`CommitError`] says why.
    pub fn commit_blocking(&self, end: Lsn) -> Result<(), CommitError> {
        self.wal.make_durable(end)?;
        self.check_commit()
    }

    /// Where the log stands. May block: it asks for the free space of the disk.
    ///
    /// # Errors
    /// The free space cannot be read.
    pub fn log_status(&self) -> Result<WalStatus, WalError> {
        self.wal.status()
    }

    // Rule 8: the epoch is checked where bytes are written and where they are acknowledged.
    fn check_append(&self) -> Result<(), AppendError> {
        if self.fence.is_raised() { Err(AppendError::Fenced) } else { Ok(()) }
    }

    fn check_commit(&self) -> Result<(), CommitError> {
        if self.fence.is_raised() { Err(CommitError::Fenced) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::lossy::{Faults, LossyDisk};
    use crate::wal::Evidence;
    use crate::wal::testing::{append, open};

    /// Rule 8 on a log that takes everything: nothing but the fence refuses.
    #[tokio::test]
    async fn behind_the_fence_nothing_is_written_and_nothing_acknowledged() {
        let wal = Arc::new(open(&LossyDisk::new(Faults::default()), Evidence::default()).unwrap());
        let fence = Fence::default();
        let primary = Primary::new(Arc::clone(&wal), SystemId::new(7), Epoch::FIRST, fence.clone());
        primary.room(5).await.unwrap();
        let before = primary.append(b"first").unwrap();
        primary.commit(before).await.unwrap();
        primary.room_blocking(6).unwrap();
        let unfinished = primary.append(b"second").unwrap();

        fence.raise();
        // What was appended becomes durable here; whether it is committed only the new epoch knows.
        assert!(matches!(primary.commit(unfinished).await, Err(CommitError::Fenced)));
        assert!(wal.durable() >= unfinished);
        for end in [before, unfinished] {
            assert!(matches!(primary.commit(end).await, Err(CommitError::Fenced)));
            assert!(matches!(primary.commit_blocking(end), Err(CommitError::Fenced)));
        }
        let end = wal.end();
        assert!(matches!(primary.append(b"late"), Err(AppendError::Fenced)));
        assert!(matches!(primary.room(4).await, Err(AppendError::Fenced)));
        assert!(matches!(primary.room_blocking(4), Err(AppendError::Fenced)));
        assert_eq!(wal.end(), end);
        append(&wal, b"the log itself takes more").unwrap();
    }
}
