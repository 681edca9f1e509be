//! Those who say what is not so: of another cluster, no member, or in another's name. Over gRPC, as anybody could.

use mainstay::cluster::proto::formation_client::FormationClient;
use mainstay::cluster::proto::peers_client::PeersClient;
use mainstay::cluster::proto::{AnnounceRequest, Claim, JoinRequest, ProposeRequest, join_response};
use mainstay::cluster::{ClusterNode, Entrance};
use mainstay::meta::proto::{MemberSpec, Refusal, StartMember};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::nodes::*;

async fn channel(node: &ClusterNode) -> Channel {
    Channel::from_shared(format!("http://{}", node.local_addr())).unwrap().connect().await.unwrap()
}

/// What node 2 says when it calls that node.
fn claim(node: &ClusterNode) -> Claim {
    let membership = node.membership();
    let (cluster, expects) = (membership.cluster.get(), membership.node.get());
    Claim { version: 1, cluster, node: 2, expects, incarnation: 1 }
}

fn denied<T: std::fmt::Debug>(answer: Result<T, Status>, what: &str) {
    let status = answer.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    assert!(status.message().contains(what), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn members_listen_to_members_of_their_cluster_alone() {
    let place = Place::new();
    let a = place.form("a").await;
    let b = place.join("b", &a).await;
    settled(&a, &[1, 2]).await;
    let mut peers = PeersClient::new(channel(&a).await);
    let good = claim(&a);
    let answer = peers.greet(good).await.unwrap().into_inner();
    assert_eq!((answer.cluster, answer.node, answer.expects), (good.cluster, 1, 2));

    let other = Claim { cluster: good.cluster ^ 1, ..good };
    denied(peers.greet(other).await, "belongs to cluster");
    denied(peers.greet(Claim { expects: 2, ..good }).await, "2");
    denied(peers.greet(Claim { version: 2, ..good }).await, "version");
    let propose = |claim| ProposeRequest { claim, client: 7, sequence: 1, command: vec![1, 0] };
    denied(peers.propose(propose(Some(other))).await, "belongs to cluster");
    denied(peers.propose(propose(None)).await, "does not say who asks");
    denied(peers.propose(propose(Some(Claim { node: 77, ..good }))).await, "node 77 is no member");
    let start = StartMember { id: 1, incarnation: 1000, ..StartMember::default() };
    let announce = AnnounceRequest { claim: Some(good), start: Some(start) };
    denied(peers.announce(announce).await, "speaks for itself alone");
    assert_eq!(member(&a, 1).await.unwrap().incarnation, 1);
    for node in [a, b] {
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_log_has_other_segments_is_not_let_in() {
    let place = Place::new();
    let a = place.form("a").await;
    let token = operator(&[a.local_addr().to_string()]).create_token(None, "a test").await.unwrap().token;
    let config = joining(&[a.local_addr().to_string()], &token);
    let Entrance::Waiting(b) = Entrance::open(place.path("b"), 2 * SEGMENT, config).await.unwrap() else { panic!() };
    let error = within(b.member()).await.err().unwrap().to_string();
    assert!(error.contains("wal.segment_size_bytes"), "{error}");
    // Who does not even say is told so.
    let mut formation = FormationClient::new(channel(&a).await);
    let member = Some(MemberSpec::default());
    let said_nothing = JoinRequest { member, token: token.clone(), segment_size_bytes: 0 };
    let answer = formation.join(said_nothing).await.unwrap().into_inner().outcome;
    assert!(matches!(answer, Some(join_response::Outcome::Refused(why)) if why.why() == Refusal::Invalid));
    // The token is as good as it was.
    let b = within(place.waiting("c", joining(&[a.local_addr().to_string()], &token)).await.member()).await.unwrap();
    assert_eq!(b.membership().node.get(), 2);
    for node in [a, b] {
        node.shutdown().await;
    }
}
