//! What a node notes of itself as a member of a cluster, in its data directory.
//!
//! ```text
//!  offset  bytes
//!       0      2  version, little-endian: 1
//!       2      n  a protobuf message of proto/cluster.proto: NodeRecord
//! ```
//!
//! The secret is drawn and noted before anything is asked of anybody; the hash of it is what the cluster knows the node by.
//! Cluster, system and number are noted when the cluster has told them, before the directory's identity is. So whatever dies
//! in between, the node asks again as the same one, and is told the same.

use prost::Message;

use super::error::ClusterError;
use super::proto::{NodeRecord, PeerAddresses};
use crate::ident::{ClusterId, NodeId, SystemId};
use crate::meta::proto::Member;
use crate::meta::token::sha256;

const VERSION: u16 = 1;
const VERSION_BYTES: usize = 2;
const SECRET_BYTES: usize = 32;

/// The record, decoded.
#[derive(Clone, PartialEq)]
pub(super) struct Record(pub(super) NodeRecord);

/// Which member of which cluster a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The cluster.
    pub cluster: ClusterId,
    /// The lineage of its WAL.
    pub system: SystemId,
    /// The node's number.
    pub node: NodeId,
}

impl Record {
    /// One with a new secret.
    pub(super) fn draw() -> Result<Record, ClusterError> {
        let mut secret = vec![0; SECRET_BYTES];
        getrandom::fill(&mut secret).map_err(ClusterError::random)?;
        Ok(Record(NodeRecord { secret, ..NodeRecord::default() }))
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = VERSION.to_le_bytes().to_vec();
        // An encoder of prost fails only for want of room, and a vector grows.
        let _ = self.0.encode(&mut bytes);
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Record, ClusterError> {
        let damaged = |what: String| ClusterError::Record(what);
        let (version, body) = bytes
            .split_first_chunk::<VERSION_BYTES>()
            .ok_or_else(|| damaged(format!("expected {VERSION_BYTES} bytes or more, found {}", bytes.len())))?;
        let version = u16::from_le_bytes(*version);
        if version != VERSION {
            return Err(damaged(format!("it is of version {version}; this build knows {VERSION}")));
        }
        let record = NodeRecord::decode(body).map_err(|error| damaged(error.to_string()))?;
        if record.secret.len() != SECRET_BYTES {
            return Err(damaged(format!("expected a secret of {SECRET_BYTES} bytes, found {}", record.secret.len())));
        }
        let ids = [record.cluster, record.system, record.node];
        if ids.contains(&0) && ids != [0; 3] {
            return Err(damaged(format!("expected cluster, system and node, found {ids:?}")));
        }
        Ok(Record(record))
    }

    /// What the cluster knows the node by.
    pub(super) fn secret_hash(&self) -> Vec<u8> {
        sha256(&self.0.secret)
    }

    /// `None`: it is no member yet.
    pub(super) fn membership(&self) -> Option<Membership> {
        (self.0.cluster != 0).then(|| Membership {
            cluster: ClusterId::new(self.0.cluster),
            system: SystemId::new(self.0.system),
            node: NodeId::new(self.0.node),
        })
    }

    pub(super) fn set_membership(&mut self, membership: Membership) {
        self.0.cluster = membership.cluster.get();
        self.0.system = membership.system.get();
        self.0.node = membership.node.get();
    }
}

/// Which member of which cluster a node is that noted this; `None` if it is none yet.
///
/// # Errors
/// The note is damaged, or of a later version.
pub fn membership(note: Option<&[u8]>) -> Result<Option<Membership>, ClusterError> {
    Ok(note.map(Record::decode).transpose()?.and_then(|record| record.membership()))
}

/// Where members are.
pub(super) fn addresses(members: &[Member]) -> Vec<PeerAddresses> {
    members.iter().map(|member| PeerAddresses { node: member.id, addresses: member.addresses.clone() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let mut record = Record(NodeRecord { secret: vec![7; SECRET_BYTES], ..NodeRecord::default() });
        record.set_membership(Membership {
            cluster: ClusterId::new(0x0102),
            system: SystemId::new(0x0304),
            node: NodeId::new(5),
        });
        record.0.peers = vec![PeerAddresses { node: 1, addresses: vec!["a:1".to_owned()] }];
        record.0.listen = "127.0.0.1:7".to_owned();
        record
    }

    #[test]
    fn golden_bytes() {
        let hex: String = record().encode().iter().map(|byte| format!("{byte:02x}")).collect();
        let secret = "07".repeat(32);
        let expected = format!(
            "0100 0a20{secret} 110201000000000000 190403000000000000 2005 3207 0801 1203613a31 520b3132372e302e302e313a37"
        );
        assert_eq!(hex, expected.replace(' ', ""));
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        assert_eq!(Record::decode(&record().encode()).unwrap().0, record().0);
        assert_eq!(record().membership().unwrap().node, NodeId::new(5));
        let drawn = Record::draw().unwrap();
        assert_eq!((drawn.membership(), drawn.secret_hash().len()), (None, 32));
        assert_ne!(drawn.0.secret, Record::draw().unwrap().0.secret);
        assert_eq!(membership(None).unwrap(), None);
    }

    #[test]
    fn what_no_version_writes_is_refused() {
        let bytes = record().encode();
        let refused = |bytes: &[u8]| Record::decode(bytes).err().unwrap().to_string();
        assert!(refused(&[]).contains("found 0"));
        assert!(refused(&[2, 0]).contains("version 2"));
        assert!(refused(&bytes[..bytes.len() - 1]).contains("record"));
        let mut half = record();
        half.0.system = 0;
        assert!(refused(&half.encode()).contains("expected cluster"));
        half.0.secret.pop();
        assert!(refused(&half.encode()).contains("a secret of 32"));
    }
}
