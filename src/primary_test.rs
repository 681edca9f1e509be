//! The fence, on a log that would take everything.

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
