//! Being let in.

use std::time::Duration;

use mainstay::meta::proto::{EventKind, MemberState};

use crate::nodes::*;
use crate::support::{LIMIT, Random, eventually, mainstay, run, runtime};

#[test]
fn two_join_refuse_sql_naming_the_primary_and_all_restart_without_flags() {
    let place = Place::new();
    let a = place.form("a");
    execute(&a.sql, "CREATE TABLE t (a)");
    let b = place.join("b", &a);
    let c = place.join("c", &b);
    let addresses = [a.cluster.clone(), b.cluster.clone(), c.cluster.clone()];
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    settled(&addresses, &[1, 2, 3]);
    for node in [&b, &c] {
        for statement in ["SELECT 1", "INSERT INTO t VALUES (1)", "BEGIN"] {
            eventually("the primary is named", LIMIT, || {
                let (code, _, hint) = refusal(&node.sql, statement);
                assert_eq!(code, "25006");
                hint.is_some_and(|hint| hint.contains(&a.sql))
            });
        }
        assert_eq!(node.get("/readyz").0, 200);
        // What is asked of the cluster is answered on every node.
        assert_eq!(execute(&node.sql, "SHOW NODES").len(), 3);
    }
    put(&addresses[2..], "k", "v");
    for node in [a, b, c] {
        let output = node.stop();
        assert_eq!(output.code, Some(0), "{output:?}");
        assert!(!output.stderr.contains("mainstay-join-"), "{output:?}");
    }
    let mut nodes = ["a", "b", "c"].map(|name| place.start(name, &[]));
    nodes.iter_mut().for_each(Node::ready);
    assert_eq!(nodes.iter().map(|node| node.cluster.as_str()).collect::<Vec<_>>(), addresses);
    assert_eq!(value(&addresses[1..2], "k").unwrap(), b"v");
    settled(&addresses, &[1, 2, 3]);
    assert_eq!(execute(&nodes[0].sql, "SELECT count(*) FROM t"), [["0"]]);
}

#[test]
fn bad_tokens_end_the_node_with_one_line_that_does_not_show_them() {
    let place = Place::new();
    let a = place.form("a");
    let used = token(&a.cluster);
    let arguments = ["--cluster-listen", "127.0.0.1:0", "--join", &a.cluster, "--log-level", "off"];
    let mut b = place.start_with_token("b", &arguments, &used);
    b.ready();
    let unknown = format!("mainstay-join-1-{}", "ab".repeat(32));
    for (token, what) in [(used, "was used, by member 2"), (unknown, "there is no such token")] {
        let output = place.start_with_token("c", &arguments, &token).ended();
        assert_eq!(output.code, Some(1), "{output:?}");
        assert!(output.stderr.contains(what) && !output.stderr.contains(&token[16..]), "{output:?}");
        assert_eq!(output.stderr.trim().lines().count(), 1, "{output:?}");
    }
    let output = place.start_with_token("c", &arguments, "mainstay-join-1-abc").ended();
    assert_eq!(output.code, Some(1));
    assert!(output.stderr.contains("MAINSTAY_JOIN_TOKEN: a join token is"), "{output:?}");
    let short = run(mainstay().args(["cluster", "token", "create", "--ttl", "1ms", "--addr", &a.cluster]));
    assert_eq!(short.code, Some(4));
    assert!(short.stderr.contains("it must be 1000 ms to"), "{short:?}");
}

#[test]
fn who_is_killed_while_joining_goes_on_and_so_does_a_cluster_whose_leader_is() {
    let place = Place::new();
    let a = place.form("a");
    let b = place.join("b", &a);
    let c = place.join("c", &a);
    let stay = [b.cluster.clone(), c.cluster.clone()];
    let stay: Vec<&str> = stay.iter().map(String::as_str).collect();
    settled(&stay, &[1, 2, 3]);
    let mut random = Random::new("killed while joining");
    // The joiner, at any moment, with one and the same token.
    let secret = token(&b.cluster);
    let listen = &free_addresses(1)[0];
    let arguments = ["--cluster-listen", listen, "--join", &b.cluster];
    for _ in 0..6 {
        let joiner = place.start_with_token("d", &arguments, &secret);
        std::thread::sleep(Duration::from_millis(random.below(400)));
        joiner.kill();
    }
    // The leader, which is the first, while the next one joins through another.
    let mut joiner = place.start_with_token("d", &arguments, &secret);
    std::thread::sleep(Duration::from_millis(random.below(300)));
    a.kill();
    eventually("it is ready", LIMIT * 2, || {
        joiner.poll_ready();
        !joiner.sql.is_empty()
    });
    let joined = members(&stay).expect("a majority is there");
    assert_eq!(joined.iter().map(|member| member.id).collect::<Vec<_>>(), [1, 2, 3, 4]);
    let mut a = place.start("a", &[]);
    a.ready();
    settled(&stay, &[1, 2, 3, 4]);
    put(&[&joiner.cluster], "k", "v");
    assert_eq!(value(&[&a.cluster], "k").unwrap(), b"v");
}

/// The leader dies at a certain moment of a join, and another ends what it began.
#[test]
fn a_join_ends_once_though_the_leader_dies_in_the_middle_of_it() {
    let place = Place::new();
    let a = place.form("a");
    let (b, c) = (place.join("b", &a), place.join("c", &a));
    let mut nodes = vec![("a", a), ("b", b), ("c", c)];
    settled(&[&nodes[0].1.cluster], &[1, 2, 3]);
    for (name, is_in_the_middle) in [("d", is_added as fn(&str, u64) -> bool), ("e", is_learner)] {
        let joins = nodes.len() as u64 + 1;
        let leads = leader(&[&nodes[0].1.cluster]).expect("somebody leads") as usize - 1;
        let by = &nodes[(leads + 1) % nodes.len()].1;
        let mut joiner = place.joining(name, by);
        eventually("the join is under way", LIMIT, || is_in_the_middle(&nodes[leads].1.cluster, joins));
        let (killed, dead) = nodes.remove(leads);
        dead.kill();
        joiner.ready();
        let expected: Vec<u64> = (1..=joins).collect();
        settled(&[&joiner.cluster], &expected);
        let mut back = place.start(killed, &[]);
        back.ready();
        nodes.insert(leads, (killed, back));
        nodes.push((name, joiner));
        settled(&[&nodes[leads].1.cluster], &expected);
        assert_eq!(added(&nodes[leads].1.cluster), expected, "each was added once");
    }
}

/// Whether a member has its number, and takes no part yet.
fn is_added(address: &str, id: u64) -> bool {
    let members = members(&[address]).unwrap_or_default();
    members.iter().any(|member| member.id == id && member.state() == MemberState::Joining)
}

/// Whether the group has its replica, which does not vote yet.
fn is_learner(address: &str, id: u64) -> bool {
    let replicas = group(&[address]).map(|group| group.replicas).unwrap_or_default();
    replicas.iter().any(|replica| replica.node == id && replica.is_learner)
}

/// The members that were added, in order, as the log of events has it.
fn added(address: &str) -> Vec<u64> {
    let events = runtime().block_on(async { meta(&[address]).events().list(1, 0).await.unwrap() });
    let added = events.iter().filter(|event| event.kind() == EventKind::MemberAdded);
    added.map(|event| event.subject.parse().unwrap()).collect()
}

#[test]
fn the_second_process_on_a_copy_of_a_directory_is_refused() {
    let place = Place::new();
    let a = place.form("a");
    let b = place.join("b", &a);
    let c = place.join("c", &a);
    settled(&[&a.cluster], &[1, 2, 3]);
    assert_eq!(c.stop().code, Some(0));
    let copied = run(std::process::Command::new("cp")
        .arg("-r")
        .arg(place.path("c"))
        .arg(place.path("copy"))
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped()));
    assert_eq!(copied.code, Some(0));
    let mut c = place.start("c", &[]);
    c.ready();
    let output = place.start("copy", &["--cluster-listen", "127.0.0.1:0"]).ended();
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(output.stderr.contains("the data directory was copied"), "{output:?}");
    drop(b);
    assert_eq!(c.stop().code, Some(0));
}
