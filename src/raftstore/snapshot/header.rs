//! What stands in Raft's own message about a snapshot, beside position and voters: the data of raft-rs' `Snapshot`.
//!
//! ```text
//!  offset  bytes
//!       0      1  what its pairs are: 1 of tables, 2 of a state machine that keeps its own position
//!       1      8  snapshot id, little-endian
//!       9      n  membership, as it is stored: with the node of each replica
//! ```
//!
//! Builds that know no 2 take the message for garbage.

use raft::eraftpb;

use super::{SnapshotId, SnapshotMeta};
use crate::raftstore::entry::Position;
use crate::raftstore::format;

const MEMBERSHIP_AT: usize = 9;

/// Of what a snapshot's pairs are: the same on all replicas of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::raftstore) enum Content {
    /// The tables of the group.
    Tables = 1,
    /// The state of a machine that keeps its own position.
    Machine = 2,
}

/// Raft's word for a snapshot.
pub(in crate::raftstore) fn encode(meta: &SnapshotMeta, content: Content) -> eraftpb::Snapshot {
    let mut data = vec![content as u8];
    data.extend(meta.id.0.to_le_bytes());
    data.extend(format::encode_membership(&meta.membership));
    let metadata = eraftpb::SnapshotMetadata {
        conf_state: Some(meta.membership.to_conf_state()),
        index: meta.position.index.get(),
        term: meta.position.term.get(),
    };
    eraftpb::Snapshot { data, metadata: Some(metadata) }
}

/// What a message of Raft says about a snapshot; `None` if it contradicts itself, or was written by a later version.
pub(in crate::raftstore) fn decode(snapshot: &eraftpb::Snapshot) -> Option<SnapshotMeta> {
    let metadata = snapshot.metadata.as_ref()?;
    let (header, membership) = snapshot.data.split_at_checked(MEMBERSHIP_AT)?;
    let (_, id) = header.split_first().filter(|_| content(snapshot).is_some())?;
    let membership = format::decode_membership(membership).ok()?;
    if metadata.conf_state.as_ref() != Some(&membership.to_conf_state()) {
        return None;
    }
    let id = SnapshotId(u64::from_le_bytes(id.try_into().ok()?));
    Some(SnapshotMeta { id, position: Position::new(metadata.index, metadata.term), membership })
}

/// Of what its pairs are; `None` if that is not known.
pub(in crate::raftstore) fn content(snapshot: &eraftpb::Snapshot) -> Option<Content> {
    let known = [Content::Tables, Content::Machine];
    known.into_iter().find(|content| snapshot.data.first() == Some(&(*content as u8)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ident::{NodeId, ReplicaId};
    use crate::raftstore::entry::Membership;

    fn meta() -> SnapshotMeta {
        let membership = Membership::of_voters([(ReplicaId::new(3), NodeId::new(4))]);
        SnapshotMeta { id: SnapshotId(0x0102), position: Position::new(7, 5), membership }
    }

    #[test]
    fn golden_bytes() {
        let snapshot = encode(&meta(), Content::Tables);
        let mut bytes = vec![1, 2, 1, 0, 0, 0, 0, 0, 0];
        bytes.extend([2, 0, 1, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend([0; 12]);
        bytes.extend([1, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend([3, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(snapshot.data, bytes);
        assert_eq!((decode(&snapshot), content(&snapshot)), (Some(meta()), Some(Content::Tables)));
        let snapshot = encode(&meta(), Content::Machine);
        bytes[0] = 2;
        assert_eq!(snapshot.data, bytes);
        assert_eq!((decode(&snapshot), content(&snapshot)), (Some(meta()), Some(Content::Machine)));
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let changed = |change: fn(&mut eraftpb::Snapshot)| {
            let mut snapshot = encode(&meta(), Content::Tables);
            change(&mut snapshot);
            decode(&snapshot)
        };
        assert_eq!(changed(|_| ()), Some(meta()));
        assert_eq!(changed(|snapshot| snapshot.metadata = None), None);
        assert_eq!(changed(|snapshot| snapshot.data[0] = 3), None);
        assert_eq!(changed(|snapshot| snapshot.data.truncate(8)), None);
        assert_eq!(changed(|snapshot| snapshot.data.push(0)), None);
        let other = |snapshot: &mut eraftpb::Snapshot| {
            if let Some(state) = snapshot.metadata.as_mut().and_then(|metadata| metadata.conf_state.as_mut()) {
                state.voters.push(9);
            }
        };
        assert_eq!(changed(other), None);
    }

    proptest! {
        #[test]
        fn garbage_is_refused_without_panic(data: Vec<u8>) {
            let metadata = Some(eraftpb::SnapshotMetadata::default());
            let _ = decode(&eraftpb::Snapshot { data, metadata });
        }
    }
}
