//! Pure: where the other members are called.
//!
//! The metadata is the truth. But it can only be written while somebody leads, and members that came back elsewhere may be
//! those without whom nobody does. So a member that called this node, and proved who it is, is called where it says, until the
//! metadata know of that start of it or of a later one:
//!
//! ```text
//!   metadata: incarnation 4 at A     met: incarnation 5 at B     called at B, then A
//!   metadata: incarnation 5 at B     met: incarnation 5 at B     called at B
//!   metadata: incarnation 6 at C     met: incarnation 5 at B     called at C
//! ```
//!
//! An earlier life is never listened to, so it cannot bring an old address back.

use std::collections::BTreeMap;

use crate::ident::NodeId;
use crate::meta::proto::Member;
use crate::net::Address;
use crate::raftstore::transport::Met;

/// The other members, and where each is called, in the order in which that is tried.
pub(super) fn book(own: NodeId, members: &[Member], met: &BTreeMap<NodeId, Met>) -> BTreeMap<NodeId, Vec<Address>> {
    let others = members.iter().filter(|member| member.id != own.get());
    others
        .map(|member| {
            let node = NodeId::new(member.id);
            let mut addresses = parsed(&member.addresses);
            if let Some(address) = moved_to(member, met.get(&node)) {
                addresses.retain(|known| known != address);
                addresses.insert(0, address.clone());
            }
            (node, addresses)
        })
        .collect()
}

/// Where a member says that it is, if the metadata do not know of that start of it yet.
fn moved_to<'a>(member: &Member, met: Option<&'a Met>) -> Option<&'a Address> {
    met.filter(|met| met.incarnation.get() > member.incarnation).map(|met| &met.address)
}

/// Addresses as the table has them; what is none is left out.
pub(super) fn parsed(addresses: &[String]) -> Vec<Address> {
    addresses.iter().filter_map(|address| address.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ident::Incarnation;

    fn member(id: u64, incarnation: u64, address: &str) -> Member {
        Member { id, incarnation, addresses: vec![address.to_owned()], ..Member::default() }
    }

    fn called(members: &[Member], met: &[(u64, u64, &str)]) -> Vec<(u64, Vec<String>)> {
        let met = met.iter().map(|(node, incarnation, address)| {
            let met = Met { incarnation: Incarnation::new(*incarnation), address: address.parse().unwrap() };
            (NodeId::new(*node), met)
        });
        let book = book(NodeId::new(1), members, &met.collect());
        book.into_iter().map(|(node, all)| (node.get(), all.iter().map(Address::to_string).collect())).collect()
    }

    #[test]
    fn a_start_that_the_metadata_do_not_know_is_called_where_it_says() {
        let members = [member(1, 4, "a:1"), member(2, 4, "b:1"), member(3, 4, "c:1")];
        let moved = called(&members, &[(2, 5, "b:2"), (3, 5, "c:1")]);
        assert_eq!(moved, [(2, vec!["b:2".to_owned(), "b:1".to_owned()]), (3, vec!["c:1".to_owned()])]);
    }

    #[test]
    fn what_the_metadata_know_counts_and_strangers_do_not() {
        // A start that is known, and one that is over: the addresses may have been changed since.
        let members = [member(1, 4, "a:1"), member(2, 5, "b:3"), member(3, 6, "c:3")];
        let known = [(2, vec!["b:3".to_owned()]), (3, vec!["c:3".to_owned()])];
        assert_eq!(called(&members, &[(2, 5, "b:2"), (3, 5, "c:2"), (4, 9, "d:1"), (1, 9, "a:9")]), known);
    }
}
