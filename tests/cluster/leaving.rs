//! Taking members out.

use mainstay::cluster::operator::OperatorError;
use mainstay::cluster::{ClusterError, ClusterNode};
use mainstay::ident::NodeId;
use mainstay::meta::proto::Refusal;

use crate::nodes::*;

/// Three members, the first of which formed the cluster.
async fn three(place: &Place) -> [ClusterNode; 3] {
    let a = place.form("a").await;
    let b = place.join("b", &a).await;
    let c = place.join("c", &a).await;
    settled(&a, &[1, 2, 3]).await;
    [a, b, c]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_is_removed_also_when_it_leads() {
    let place = Place::new();
    let a = place.form("a").await;
    let b = place.join("b", &a).await;
    let c = place.join("c", &b).await;
    settled(&a, &[1, 2, 3]).await;
    // Another than the first one leads.
    a.shutdown().await;
    let leads = leader(&[&b, &c]).await.membership().node;
    let a = place.again("a").await;
    settled(&a, &[1, 2, 3]).await;
    let addresses: Vec<String> = [&a, &b, &c].map(|node| node.local_addr().to_string()).into();
    let removed = within(operator(&addresses[..1]).remove(leads, "a test")).await.unwrap();
    assert_eq!(removed.id, leads.get());
    let (gone, stays) = if leads == b.membership().node { (b, c) } else { (c, b) };
    let failure = within(gone.failed()).await;
    assert!(matches!(*failure, ClusterError::Removed(node) if node == leads), "{failure}");
    settled(&a, &[1, stays.membership().node.get()]).await;
    assert!(member(&a, leads.get()).await.is_none());
    stays.meta().kv().put("k", "v").await.unwrap();
    // What is gone is not found, and what was removed does not come back.
    let again = operator(&addresses[..1]).remove(leads, "a test").await.unwrap_err();
    assert!(matches!(again, OperatorError::NotFound(_)), "{again}");
    let name = if leads.get() == 2 { "b" } else { "c" };
    gone.shutdown().await;
    let back = within(place.waiting(name, Default::default()).await.member()).await;
    assert!(matches!(back.err().unwrap(), ClusterError::Removed(node) if node == leads));
    for node in [a, stays] {
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_stops_hands_over_first() {
    let place = Place::new();
    let [a, b, c] = three(&place).await;
    leader(&[&a]).await;
    a.shutdown().await;
    // Not after an election time-out: already.
    let leads = [&b, &c].map(|node| node.group().leader_node() == Some(node.membership().node));
    assert!(leads.contains(&true), "nobody leads yet");
    assert!(b.health().why_not_good().is_none() && c.health().why_not_good().is_none());
    for node in [b, c] {
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_drains_leads_nothing_until_it_starts_again() {
    let place = Place::new();
    let [a, b, c] = three(&place).await;
    leader(&[&a]).await;
    a.handle().drain("a test").await.unwrap();
    assert!(a.handle().is_draining() && !b.handle().is_draining());
    let next = leader(&[&b, &c]).await;
    assert_eq!(active(next).await, [2, 3]);
    a.meta().kv().put("k", "v").await.unwrap();
    // The others drain, too: the last active one does not, and leads.
    let (drains, stays) = if next.membership().node == b.membership().node { (&b, &c) } else { (&c, &b) };
    let meta = a.meta();
    meta.members().drain(drains.membership().node).await.unwrap();
    meta.members().drain(drains.membership().node).await.unwrap();
    leader(&[stays]).await;
    let refused = stays.handle().drain("a test").await.unwrap_err();
    assert_eq!(refused.refusal(), Some(Refusal::LastMember), "{refused}");
    // It ends by a word, and by a start.
    meta.members().undrain(drains.membership().node).await.unwrap();
    eventually("it is told", async || !drains.handle().is_draining()).await;
    // Whoever holds on to it keeps the directory.
    drop(meta);
    a.shutdown().await;
    let a = place.again("a").await;
    settled(&a, &[1, 2, 3]).await;
    eventually("it drains no more", async || !a.handle().is_draining()).await;
    for node in [a, b, c] {
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_that_would_break_the_majority_is_refused() {
    let place = Place::new();
    let [a, b, c] = three(&place).await;
    leader(&[&a]).await;
    let operator = operator(&[a.local_addr().to_string()]);
    c.shutdown().await;
    let refused = async || operator.remove(NodeId::new(2), "a test").await;
    let error = refused().await.unwrap_err();
    assert!(matches!(&error, OperatorError::Refused(why) if why.contains("no majority")), "{error}");
    assert_eq!(active(&a).await, [1, 2, 3], "it goes on as it was");
    // The one that is gone can go, and then the other.
    operator.remove(NodeId::new(3), "a test").await.unwrap();
    settled(&a, &[1, 2]).await;
    operator.remove(NodeId::new(2), "a test").await.unwrap();
    settled(&a, &[1]).await;
    let first = operator.remove(NodeId::new(1), "a test").await.unwrap_err();
    assert!(matches!(&first, OperatorError::Refused(why) if why.contains("primary")), "{first}");
    let failure = within(b.failed()).await;
    assert!(matches!(*failure, ClusterError::Removed(_)), "{failure}");
    for node in [a, b] {
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_whose_disk_was_wiped_is_replaced() {
    let place = Place::new();
    let [a, b, c] = three(&place).await;
    a.meta().kv().put("k", "v").await.unwrap();
    let address = c.local_addr();
    c.shutdown().await;
    std::fs::remove_dir_all(place.path("c")).unwrap();
    operator(&[b.local_addr().to_string()]).remove(NodeId::new(3), "a test").await.unwrap();
    let token = operator(&[b.local_addr().to_string()]).create_token(None, "a test").await.unwrap().token;
    let config = joining(&[b.local_addr().to_string()], &token);
    let config = mainstay::cluster::ClusterConfig { listen: Some(address), ..config };
    let c = within(place.waiting("c", config).await.member()).await.unwrap();
    assert_eq!(c.membership().node.get(), 4, "no number is given twice");
    settled(&a, &[1, 2, 4]).await;
    assert_eq!(c.meta().kv().get("k").await.unwrap().unwrap().value, b"v");
    for node in [a, b, c] {
        node.shutdown().await;
    }
}
