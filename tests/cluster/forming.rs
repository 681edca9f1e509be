//! The first member: forming, starting again, and what must not become a second cluster.

use mainstay::cluster::operator::OperatorError;
use mainstay::cluster::{ClusterConfig, ClusterError, Entrance, Phase};
use mainstay::config::{NodeConfig, WalConfig};
use mainstay::engine::{Engine, EngineError};
use mainstay::lsn::Lsn;
use mainstay::node::{Node, NodeError, Primary};
use mainstay::storage::Storage;
use mainstay::wal::Record;

use crate::nodes::*;

#[derive(Default)]
struct Nothing(parking_lot::Mutex<(Lsn, Option<Primary>)>);

impl Engine for Nothing {
    fn applied(&self) -> Result<Lsn, EngineError> {
        Ok(self.0.lock().0)
    }
    fn apply(&self, records: &[Record]) -> Result<(), EngineError> {
        self.0.lock().0 = records.last().map_or(Lsn::NONE, |record| record.end);
        Ok(())
    }
    fn checkpoint(&self) -> Result<Lsn, EngineError> {
        Ok(Lsn::NONE)
    }
    fn promote(&self, primary: Primary) -> Result<(), EngineError> {
        self.0.lock().1 = Some(primary);
        Ok(())
    }
    fn demote(&self) {
        self.0.lock().1 = None;
    }
}

fn config(place: &Place, name: &str) -> NodeConfig {
    let wal = WalConfig { segment_size_bytes: SEGMENT, ..WalConfig::default() };
    NodeConfig { wal, ..NodeConfig::new(place.path(name)) }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_directory_waits_forms_a_cluster_and_starts_again_without_being_told() {
    let place = Place::new();
    let waiting = place.waiting("a", listening()).await;
    assert!(matches!(*waiting.phase().borrow(), Phase::Waiting { .. }));
    let address = waiting.local_addr().to_string();
    // Dropped, it has formed nothing and holds nothing.
    drop(waiting);
    let waiting = place.waiting("a", ClusterConfig::default()).await;
    assert_eq!(waiting.local_addr().to_string(), address, "it waits again where it did before");
    let member = spawn(waiting);
    let cluster = operator(&[address.clone()]).init().await.unwrap();
    let node = within(member).await.unwrap().unwrap();
    assert_eq!((node.membership().cluster, node.membership().node.get()), (cluster, 1));
    node.meta().kv().put("k", "v").await.unwrap();
    let first = member_of(&node).await;
    assert_eq!((first.name.as_str(), first.addresses.as_slice()), ("node1", &[address.clone()][..]));
    assert_eq!(first.incarnation, 1);
    let membership = node.membership();
    node.shutdown().await;

    let node = place.again("a").await;
    assert_eq!(node.membership(), membership);
    assert_eq!(node.meta().kv().get("k").await.unwrap().unwrap().value, b"v");
    eventually("its start is noted", async || member_of(&node).await.incarnation == 2).await;
    // Asked once more, it says what it is.
    assert!(matches!(operator(&[address]).init().await, Err(OperatorError::Refused(why)) if why.contains("already")));
    node.shutdown().await;
}

async fn member_of(node: &mainstay::cluster::ClusterNode) -> mainstay::meta::proto::Member {
    member(node, 1).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_alone_becomes_the_first_member_with_its_data() {
    let place = Place::new();
    let node = Node::open(config(&place, "a"), |_| Ok(Nothing::default())).await.unwrap();
    let primary = node.engine().0.lock().1.take().unwrap();
    primary.room(6).await.unwrap();
    let end = primary.append(b"before").unwrap();
    primary.commit(end).await.unwrap();
    drop(primary);
    node.shutdown().await.unwrap();
    let system = Storage::open(&place.path("a"), SEGMENT).unwrap().identity().system;

    let member = place.form("a").await;
    assert_eq!(member.membership().system, system);
    let node = Node::open_member(config(&place, "a"), member, |_| Ok(Nothing::default())).await.unwrap();
    assert_eq!(node.engine().0.lock().0, end, "the log was replayed");
    node.meta().unwrap().kv().put("k", "v").await.unwrap();
    node.shutdown().await.unwrap();

    // Opened as if it were alone, it is refused; as a member, it opens again in the same process.
    let alone = Node::open(config(&place, "a"), |_| Ok(Nothing::default())).await;
    assert!(
        matches!(alone.err().unwrap(), NodeError::Cluster(error) if error.to_string().contains("node 1 of cluster"))
    );
    let member = place.again("a").await;
    let node = Node::open_member(config(&place, "a"), member, |_| Ok(Nothing::default())).await.unwrap();
    assert_eq!(node.meta().unwrap().kv().get("k").await.unwrap().unwrap().value, b"v");
    node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_was_told_nothing_stays_alone() {
    let place = Place::new();
    let Entrance::Alone(storage) = place.open("a", ClusterConfig::default()).await.unwrap() else { panic!("alone") };
    let identity = storage.identity();
    drop(storage);
    // It waited once, and was told nothing the next time: it has its own data, and goes on alone.
    drop(place.waiting("a", listening()).await);
    let Entrance::Alone(storage) = place.open("a", ClusterConfig::default()).await.unwrap() else { panic!("alone") };
    assert_eq!(storage.identity(), identity);
    drop(storage);
    let token = mainstay::meta::token::JoinToken::draw().unwrap().reveal();
    let refused = place.open("a", joining(&["127.0.0.1:1".to_owned()], &token)).await;
    assert!(matches!(refused.err().unwrap(), ClusterError::NotEmpty(system) if system == identity.system));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_five_that_were_told_the_same_one_forms_a_cluster_whoever_is_asked() {
    let place = Place::new();
    let ports: Vec<_> = (0..5).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let addresses: Vec<String> = ports.iter().map(|port| port.local_addr().unwrap().to_string()).collect();
    drop(ports);
    let mut members = Vec::new();
    for (number, address) in addresses.iter().enumerate() {
        let token = place.path(&format!("token{number}"));
        let config = ClusterConfig {
            listen: Some(address.parse().unwrap()),
            join: addresses.iter().map(|address| address.parse().unwrap()).collect(),
            token: mainstay::cluster::TokenSource::File(token),
            ..ClusterConfig::default()
        };
        members.push(spawn(place.waiting(&format!("n{number}"), config).await));
    }
    let asked: Vec<_> = addresses
        .iter()
        .map(|address| {
            let operator = operator(&[address.clone()]);
            tokio::spawn(async move { operator.init().await })
        })
        .collect();
    let mut formed = Vec::new();
    for (number, asked) in asked.into_iter().enumerate() {
        match asked.await.unwrap() {
            Ok(cluster) => formed.push((number, cluster)),
            Err(error) => {
                assert!(matches!(&error, OperatorError::Refused(why) if why.contains(&addresses[0])), "{error}")
            }
        }
    }
    let [(0, cluster)] = formed.as_slice() else { panic!("{formed:?}") };
    for number in 1..5 {
        let token = operator(&addresses[..1]).create_token(None, "a test").await.unwrap().token;
        std::fs::write(place.path(&format!("token{number}")), token).unwrap();
    }
    let mut nodes = Vec::new();
    for member in members {
        nodes.push(within(member).await.unwrap().unwrap());
    }
    assert!(nodes.iter().all(|node| node.membership().cluster == *cluster));
    settled(&nodes[0], &[1, 2, 3, 4, 5]).await;
    for node in nodes {
        node.shutdown().await;
    }
}

/// First in its own list, it may form a cluster; but one of the others is a member of one by now.
#[tokio::test(flavor = "multi_thread")]
async fn who_should_join_a_cluster_that_is_there_forms_no_second_one() {
    let place = Place::new();
    let a = place.form("a").await;
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let token = place.path("token");
    let config = ClusterConfig {
        listen: Some(address),
        join: [address, a.local_addr()].map(|address| address.to_string().parse().unwrap()).into(),
        token: mainstay::cluster::TokenSource::File(token.clone()),
        ..ClusterConfig::default()
    };
    let joins = spawn(place.waiting("b", config).await);
    let refused = operator(&[address.to_string()]).init().await.unwrap_err();
    let cluster = format!("{:016x}", a.membership().cluster.get());
    assert!(matches!(&refused, OperatorError::Refused(why) if why.contains(&cluster)), "{refused}");
    let made = operator(&[a.local_addr().to_string()]).create_token(None, "a test").await.unwrap();
    std::fs::write(token, made.token).unwrap();
    let b = within(joins).await.unwrap().unwrap();
    assert_eq!(b.membership().cluster, a.membership().cluster);
    for node in [a, b] {
        node.shutdown().await;
    }
}
