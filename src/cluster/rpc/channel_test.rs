//! Lists of nodes of which some are not there, do not know, or do not want.

use tokio::net::TcpListener;

use super::*;
use crate::ident::NodeId;
use crate::meta::service::MetaError;

const DEADLINE: Duration = Duration::from_secs(10);

fn nodes(addresses: &[String]) -> Nodes {
    Nodes::new(addresses.iter().map(|address| address.parse().unwrap()).collect(), &NetConfig::default()).unwrap()
}

/// Somebody who takes connections, and speaks HTTP/2 as far as a client needs to go on.
async fn listening() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let mut taken = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            taken.push(stream);
        }
    });
    address
}

/// An address at which nobody listens.
async fn nobody() -> String {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string()
}

async fn ask(nodes: &Nodes, repeat: Repeat, wait: Duration, answers: &[(&str, Status)]) -> Result<String, CallError> {
    let deadline = Instant::now() + wait;
    nodes
        .call(Purpose::Call, repeat, deadline, |line, _| {
            let address = line.address().to_string();
            let answer = answers.iter().find(|(of, _)| *of == address).map(|(_, status)| status.clone());
            async move { answer.map_or(Ok(address), Err) }
        })
        .await
}

#[tokio::test]
async fn the_next_one_is_asked_when_one_is_not_there_or_does_not_know() {
    let (gone, ignorant, good) = (nobody().await, listening().await, listening().await);
    let nodes = nodes(&[gone, ignorant.clone(), good.clone()]);
    let answers = [(&*ignorant, Status::unavailable("no leader"))];
    assert_eq!(ask(&nodes, Repeat::Never, DEADLINE, &answers).await.unwrap(), good);
    // From now on it is asked first.
    assert_eq!(ask(&nodes, Repeat::Never, DEADLINE, &[]).await.unwrap(), good);
}

#[tokio::test]
async fn a_word_of_a_node_is_final() {
    let (first, second) = (listening().await, listening().await);
    let nodes = nodes(&[first.clone(), second]);
    let answers = [(&*first, Status::invalid_argument("no such setting"))];
    let Err(CallError::Refused(status)) = ask(&nodes, Repeat::Safe, DEADLINE, &answers).await else { panic!() };
    assert_eq!(status.message(), "no such setting");
}

#[tokio::test]
async fn what_may_have_taken_effect_is_repeated_only_if_it_may_be() {
    let (first, second) = (listening().await, listening().await);
    let nodes = nodes(&[first.clone(), second.clone()]);
    let answers = [(&*first, Status::deadline_exceeded("too slow"))];
    let Err(CallError::Unknown { why }) = ask(&nodes, Repeat::Never, DEADLINE, &answers).await else { panic!() };
    assert!(why.contains("too slow"), "{why}");
    assert_eq!(ask(&nodes, Repeat::Safe, DEADLINE, &answers).await.unwrap(), second);
}

#[tokio::test]
async fn the_deadline_ends_it_and_says_what_was_heard() {
    let (gone, ignorant) = (nobody().await, listening().await);
    let nodes = nodes(&[gone, ignorant.clone()]);
    let begun = Instant::now();
    let answers = [(&*ignorant, Status::unavailable("no leader is known"))];
    let error = ask(&nodes, Repeat::Safe, Duration::from_millis(300), &answers).await.unwrap_err();
    assert!(matches!(error, CallError::Unavailable { .. }), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(5));
}

/// Whatever was tried last: that a node is not there is not why there is no answer.
#[tokio::test]
async fn that_nobody_leads_comes_before_who_is_not_there() {
    let (ignorant, busy, gone) = (listening().await, listening().await, nobody().await);
    let nodes = nodes(&[busy.clone(), ignorant.clone(), gone.clone()]).asked_once();
    let leaderless = MetaError::Unavailable { leader: None, why: "nobody leads".to_owned() };
    let answers = [(&*ignorant, failure::status(&leaderless)), (&*busy, Status::unavailable("too many watches"))];
    let Err(CallError::Unavailable { why }) = ask(&nodes, Repeat::Safe, DEADLINE, &answers).await else { panic!() };
    let place = |part: &str| why.find(part).unwrap_or_else(|| panic!("{part}: {why}"));
    assert!(why.starts_with(&format!("no leader answered: {ignorant}: ")), "{why}");
    assert!(place(&busy) < place(&gone), "{why}");
    // Of a node that knows who leads, and could not reach it, nobody says so.
    let follower = MetaError::Unavailable { leader: Some(NodeId::new(2)), why: "too slow".to_owned() };
    let answers = [(&*ignorant, failure::status(&follower)), (&*busy, Status::unavailable("too many watches"))];
    let Err(CallError::Unavailable { why }) = ask(&nodes, Repeat::Safe, DEADLINE, &answers).await else { panic!() };
    assert!(!why.contains("no leader answered") && why.contains("too slow"), "{why}");
}

#[tokio::test]
async fn a_node_that_says_nothing_leaves_others_their_turn() {
    let (silent, good) = (listening().await, listening().await);
    let nodes = nodes(&[silent.clone(), good.clone()]);
    let deadline = Instant::now() + Duration::from_secs(4);
    let answer = nodes
        .call(Purpose::Call, Repeat::Safe, deadline, |line, _| {
            let address = line.address().to_string();
            let is_silent = address == silent;
            async move {
                match is_silent {
                    true => std::future::pending().await,
                    false => Ok(address),
                }
            }
        })
        .await;
    assert_eq!(answer.unwrap(), good);
}

#[tokio::test]
async fn streams_share_a_connection_up_to_a_bound() {
    let address = listening().await;
    let nodes = nodes(&[address]);
    let mut lines = Vec::new();
    for _ in 0..=STREAMS_PER_CONNECTION {
        let deadline = Instant::now() + DEADLINE;
        let line = nodes.call(Purpose::Stream, Repeat::Safe, deadline, |line, _| async move { Ok(line) });
        lines.push(line.await.unwrap());
    }
    assert!(lines[STREAMS_PER_CONNECTION - 2].is(&lines[0]));
    assert!(!lines[STREAMS_PER_CONNECTION].is(&lines[0]));
}

#[test]
fn addresses_that_cannot_be_used_are_refused_at_once() {
    let of = |address: &str| Nodes::new(vec![address.parse().unwrap()], &NetConfig::default());
    assert!(matches!(of("10.0.0.1:1"), Err(NetError::Plaintext(_))));
    assert!(matches!(Nodes::new(Vec::new(), &NetConfig::default()), Err(NetError::Address(_))));
    let allowed = NetConfig { allow_plaintext: true, ..NetConfig::default() };
    assert!(Nodes::new(vec!["10.0.0.1:1".parse().unwrap()], &allowed).is_ok());
}

#[tokio::test]
async fn who_is_asked_once_is_not_waited_for() {
    let nodes = nodes(&[nobody().await, nobody().await]).asked_once();
    let begun = Instant::now();
    let error = ask(&nodes, Repeat::Safe, DEADLINE, &[]).await.unwrap_err();
    assert!(matches!(error, CallError::Unavailable { .. }), "{error}");
    assert!(begun.elapsed() < DEADLINE / 2);
}
