//! Being let in, starting again, and who is not let in.

use mainstay::cluster::proto::formation_client::FormationClient;
use mainstay::cluster::proto::{JoinRequest, join_response};
use mainstay::cluster::{ClusterConfig, ClusterError, Entrance};
use mainstay::meta::proto::{MemberSpec, Refusal};
use mainstay::meta::token::JoinToken;

use crate::nodes::*;

fn refusal(error: &ClusterError) -> Refusal {
    match error {
        ClusterError::Refused(refused) => refused.why(),
        other => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_become_one_cluster_and_all_start_again_without_being_told() {
    let place = Place::new();
    let a = place.form("a").await;
    let b = place.join("b", &a).await;
    // Any member lets others in.
    let c = place.join("c", &b).await;
    settled(&a, &[1, 2, 3]).await;
    for node in [&b, &c] {
        assert_eq!(node.membership().cluster, a.membership().cluster);
        assert_eq!(node.storage().identity().system, a.membership().system);
    }
    // Asked of any, what was put through any is found.
    c.meta().kv().put("k", "v").await.unwrap();
    assert_eq!(b.meta().kv().get("k").await.unwrap().unwrap().value, b"v");
    for node in [a, b, c] {
        node.shutdown().await;
    }
    // None can be there without another: they start together.
    let [a, b, c] = ["a", "b", "c"].map(|name| place.waiting(name, ClusterConfig::default()));
    let [a, b, c] = [spawn(a.await), spawn(b.await), spawn(c.await)];
    let nodes = [a.await.unwrap().unwrap(), b.await.unwrap().unwrap(), c.await.unwrap().unwrap()];
    assert_eq!(nodes[1].meta().kv().get("k").await.unwrap().unwrap().value, b"v");
    for id in 1..=3 {
        eventually("each start is noted", async || member(&nodes[0], id).await.unwrap().incarnation >= 2).await;
    }
    for node in nodes {
        node.shutdown().await;
    }
}

/// One that has just come has nothing of the cluster yet but its place in it. Whom it lets in must hear where the leader is,
/// or could never answer it.
#[tokio::test(flavor = "multi_thread")]
async fn members_that_have_just_come_let_others_in() {
    let place = Place::new();
    let mut nodes = vec![place.form("a").await];
    let first = nodes[0].local_addr().to_string();
    let operator = operator(&[first.clone()]);
    let token = async || operator.create_token(None, "a test").await.unwrap().token;
    for (number, name) in (1..).zip(["b", "c", "d"]) {
        let (own, next) = (token().await, token().await);
        let config = joining(&[first.clone()], &own);
        let node = within(place.waiting(name, config).await.member()).await.unwrap();
        let member = MemberSpec {
            addresses: vec![format!("127.0.0.1:{number}")],
            secret_hash: vec![number; 32],
            version: 1,
            ..MemberSpec::default()
        };
        let request = JoinRequest { member: Some(member), token: next, segment_size_bytes: SEGMENT };
        let mut asked = FormationClient::connect(format!("http://{}", node.local_addr())).await.unwrap();
        let answer = asked.join(request).await.unwrap().into_inner().outcome;
        let Some(join_response::Outcome::Joined(joined)) = answer else { panic!("{answer:?}") };
        let told = joined.members.iter().find(|member| member.node == 1);
        assert!(told.is_some_and(|told| told.addresses == [first.clone()]), "{joined:?}");
        nodes.push(node);
    }
    for node in nodes {
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_tokens_are_refused_for_what_they_are() {
    let place = Place::new();
    let a = place.form("a").await;
    let address = a.local_addr().to_string();
    let operator = operator(&[address.clone()]);
    let used = operator.create_token(None, "a test").await.unwrap().token;
    let b = within(place.waiting("b", joining(&[address.clone()], &used)).await.member()).await.unwrap();
    let unknown = JoinToken::draw().unwrap().reveal();
    let expired = operator.create_token(Some(std::time::Duration::from_secs(1)), "a test").await.unwrap();
    eventually("it has expired", async || {
        let tokens = a.meta().tokens().list().await.unwrap();
        tokens.iter().any(|token| token.id == expired.id && token.state() == mainstay::meta::proto::TokenState::Expired)
    })
    .await;
    let cases =
        [(&used, Refusal::TokenUsed), (&unknown, Refusal::NoSuchToken), (&expired.token, Refusal::TokenExpired)];
    for (token, expected) in cases {
        let error = within(place.waiting("c", joining(&[address.clone()], token)).await.member()).await.err().unwrap();
        assert_eq!(refusal(&error), expected, "{error}");
        assert!(!error.to_string().contains(token));
    }
    // Nothing of the cluster is in the directory: with a good one, it joins.
    let c = place.join("c", &a).await;
    assert_eq!(c.membership().node.get(), 3);
    for node in [a, b, c] {
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn joining_goes_on_where_it_died_with_the_same_token() {
    let place = Place::new();
    let a = place.form("a").await;
    let address = a.local_addr().to_string();
    let token = operator(&[address.clone()]).create_token(None, "a test").await.unwrap().token;
    // The cluster has let it in, and it dies before it knows: nothing but its secret is durable.
    let config = joining(&[address.clone()], &token);
    drop(place.waiting("b", config.clone()).await);
    let before = place.path("before");
    copy(&place.path("b"), &before);
    let b = within(place.waiting("b", config.clone()).await.member()).await.unwrap();
    let (membership, address_b) = (b.membership(), b.local_addr());
    b.shutdown().await;
    std::fs::remove_dir_all(place.path("b")).unwrap();
    std::fs::rename(&before, place.path("b")).unwrap();
    let again = ClusterConfig { listen: Some(address_b), ..config };
    let error = within(place.waiting("b", again.clone()).await.member()).await;
    // It is let in as the same member, and its token was not used twice. Its starts are counted from the beginning,
    // however, so that it is taken for what it is: put back to an earlier state.
    assert_eq!(refusal(&error.err().unwrap()), Refusal::StaleIncarnation);
    let b = within(place.waiting("b", again).await.member()).await.unwrap();
    assert_eq!(b.membership(), membership);
    assert_eq!(a.meta().members().list().await.unwrap().len(), 2);
    for node in [a, b] {
        node.shutdown().await;
    }
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).unwrap()),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_process_on_a_copy_of_a_directory_is_refused() {
    let place = Place::new();
    let a = place.form("a").await;
    let b = place.join("b", &a).await;
    // The third is there so that a majority is while the second is not.
    let c = place.join("c", &a).await;
    settled(&a, &[1, 2, 3]).await;
    b.shutdown().await;
    copy(&place.path("b"), &place.path("copy"));
    let b = place.again("b").await;
    eventually("its start is noted", async || member(&a, 2).await.unwrap().incarnation == 2).await;
    let second = within(place.waiting("copy", listening()).await.member()).await;
    let error = second.err().unwrap();
    assert_eq!(refusal(&error), Refusal::StaleIncarnation);
    assert!(error.to_string().contains("copied"), "{error}");
    // Started once more it counts further, and the first one goes: of both there is one at any time.
    let second = within(place.waiting("copy", listening()).await.member()).await.unwrap();
    let error = within(b.failed()).await;
    assert!(matches!(*error, ClusterError::Superseded(node) if node.get() == 2), "{error}");
    for node in [a, b, c, second] {
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_a_member_has_is_refused() {
    let place = Place::new();
    let a = place.form("a").await;
    let b = place.join("b", &a).await;
    let address = b.local_addr();
    b.shutdown().await;
    std::fs::remove_dir_all(place.path("b")).unwrap();
    let token = operator(&[a.local_addr().to_string()]).create_token(None, "a test").await.unwrap().token;
    let config = joining(&[a.local_addr().to_string()], &token);
    let config = ClusterConfig { listen: Some(address), ..config };
    let error = within(place.waiting("b", config).await.member()).await.err().unwrap();
    assert_eq!(refusal(&error), Refusal::AddressTaken, "{error}");
    a.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clusters_refuse_each_others_nodes_both_ways() {
    let place = Place::new();
    let (a, other) = (place.form("a").await, place.form("other").await);
    let b = place.join("b", &a).await;
    settled(&a, &[1, 2]).await;
    let address = b.local_addr();
    b.shutdown().await;
    // Where the member was, a node of another cluster listens now.
    let token = operator(&[other.local_addr().to_string()]).create_token(None, "a test").await.unwrap().token;
    let config = joining(&[other.local_addr().to_string()], &token);
    let config = ClusterConfig { listen: Some(address), ..config };
    let stranger = within(place.waiting("stranger", config).await.member()).await.unwrap();
    eventually("it is refused", async || {
        let peers = a.transport().peers();
        peers.iter().any(|peer| peer.last_failure.as_ref().is_some_and(|why| why.contains("belongs to cluster")))
    })
    .await;
    assert_ne!(stranger.membership().cluster, a.membership().cluster);
    for node in [a, other, stranger] {
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_ignores_what_it_was_told_to_join_with() {
    let place = Place::new();
    let a = place.form("a").await;
    let address = a.local_addr().to_string();
    let token = operator(&[address.clone()]).create_token(None, "a test").await.unwrap().token;
    let config = joining(&[address], &token);
    let b = within(place.waiting("b", config.clone()).await.member()).await.unwrap();
    let membership = b.membership();
    b.shutdown().await;
    let Entrance::Waiting(b) = place.open("b", config).await.unwrap() else { panic!("alone") };
    let b = within(b.member()).await.unwrap();
    assert_eq!(b.membership(), membership);
    for node in [a, b] {
        node.shutdown().await;
    }
}
