//! Who takes part, as it is stored.
//!
//! ```text
//!  version 2 │ auto leave 1 │ voters │ learners │ voters outgoing │ learners next │ nodes │ highest replica 8
//!    the first four: count 4, then a replica 8 each
//!    nodes: count 4, then replica 8 and node 8 each, replicas rising
//!
//!  version 1, only read: without the highest replica, which is that of the nodes
//! ```

use std::collections::BTreeMap;

use super::{Mismatch, Reader, Writer};
use crate::ident::{NodeId, ReplicaId};
use crate::raftstore::entry::Membership;

const VERSION: u8 = 2;
/// Written before replicas could be removed.
const VERSION_WITHOUT_HIGHEST: u8 = 1;

pub(in crate::raftstore) fn encode_membership(membership: &Membership) -> Vec<u8> {
    // Spelled out, so that a field that is added later is not forgotten here.
    let Membership { voters, learners, voters_outgoing, learners_next, auto_leave, nodes, highest } = membership;
    let mut writer = Writer(vec![VERSION]).u8(u8::from(*auto_leave));
    for replicas in [voters, learners, voters_outgoing, learners_next] {
        writer = replicas.iter().fold(writer.count(replicas.len()), |writer, replica| writer.u64(replica.get()));
    }
    let writer = writer.count(nodes.len());
    let writer = nodes.iter().fold(writer, |writer, (replica, node)| writer.u64(replica.get()).u64(node.get()));
    writer.u64(highest.get()).0
}

pub(in crate::raftstore) fn decode_membership(value: &[u8]) -> Result<Membership, Mismatch> {
    let mut reader = Reader(value);
    let version = match reader.u8() {
        Some(version @ (VERSION_WITHOUT_HIGHEST | VERSION)) => version,
        Some(other) => return Err(Mismatch::new("version 1 or 2", format_args!("version {other}"))),
        None => return Err(Mismatch::new("version 1 or 2", "0 bytes")),
    };
    let auto_leave = match reader.u8() {
        Some(0) => false,
        Some(1) => true,
        Some(other) => return Err(Mismatch::new("auto leave to be 0 or 1", other)),
        None => return Err(cut_short(value)),
    };
    let mut lists: [Vec<ReplicaId>; 4] = Default::default();
    for list in &mut lists {
        let count = reader.count(8).ok_or_else(|| cut_short(value))?;
        list.reserve_exact(count);
        for _ in 0..count {
            list.push(ReplicaId::new(reader.u64().ok_or_else(|| cut_short(value))?));
        }
    }
    let nodes = decode_nodes(&mut reader, value)?;
    let highest = match version {
        VERSION => ReplicaId::new(reader.u64().ok_or_else(|| cut_short(value))?),
        _ => nodes.last_key_value().map(|(replica, _)| *replica).unwrap_or_default(),
    };
    if !reader.rest().is_empty() {
        return Err(Mismatch::new("the membership to end", format_args!("{} bytes more", reader.rest().len())));
    }
    let [voters, learners, voters_outgoing, learners_next] = lists;
    Ok(Membership { voters, learners, voters_outgoing, learners_next, auto_leave, nodes, highest })
}

fn decode_nodes(reader: &mut Reader<'_>, value: &[u8]) -> Result<BTreeMap<ReplicaId, NodeId>, Mismatch> {
    let mut nodes = BTreeMap::new();
    for _ in 0..reader.count(16).ok_or_else(|| cut_short(value))? {
        let (Some(replica), Some(node)) = (reader.u64(), reader.u64()) else { return Err(cut_short(value)) };
        let replica = ReplicaId::new(replica);
        if let Some((last, _)) = nodes.last_key_value().filter(|(last, _)| **last >= replica) {
            return Err(Mismatch::new(format!("a replica after {last}"), replica));
        }
        nodes.insert(replica, NodeId::new(node));
    }
    Ok(nodes)
}

fn cut_short(value: &[u8]) -> Mismatch {
    Mismatch::new("a whole membership", format_args!("one cut short after {} bytes", value.len()))
}
