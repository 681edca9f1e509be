//! Who votes: said in SQL and on the command line, brought about by whoever leads, also after crashes.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::nodes::*;
use crate::support::programs::psql_at;
use crate::support::{LIMIT, Output, eventually, mainstay, run};

/// Longer than a learner takes to become a voter that keeps up.
const LONG_ENOUGH: Duration = Duration::from_secs(4);

/// A statement with psql, as superuser.
fn psql(node: &Node, sql: &str) -> Output {
    let (host, port) = node.sql.rsplit_once(':').unwrap();
    psql_at(&format!("host={host} port={port} user=postgres dbname=postgres"), None, sql)
}

/// What psql prints of one that succeeds without a word beside it.
fn done(node: &Node, sql: &str) -> String {
    let output = psql(node, sql);
    assert_eq!((output.code, output.stderr.as_str()), (Some(0), ""), "{sql}: {output:?}");
    output.stdout
}

/// What one that succeeds has to say.
fn notice(node: &Node, sql: &str) -> String {
    let output = psql(node, sql);
    assert!(output.code == Some(0) && output.stderr.starts_with("NOTICE:"), "{sql}: {output:?}");
    output.stderr
}

/// Who votes, and who leads, as a node knows.
fn voters(address: &str) -> (Vec<u64>, u64) {
    let Some(group) = group(&[address]) else { return Default::default() };
    let voters = group.replicas.iter().filter(|replica| !replica.is_learner).map(|replica| replica.node);
    (voters.collect(), group.leader)
}

fn those_vote(address: &str, expected: &[u64]) {
    eventually(&format!("{expected:?} vote"), LIMIT, || voters(address).0 == expected);
}

/// Nobody becomes a voter by himself.
fn those_go_on_to_vote(address: &str, expected: &[u64]) {
    let begun = Instant::now();
    while begun.elapsed() < LONG_ENOUGH {
        assert_eq!(voters(address).0, expected);
    }
}

/// A member in `mainstay status`.
fn shown(address: &str, node: u64) -> Value {
    let status = run(mainstay().args(["status", "--json", "--addr", address]));
    let status: Value = serde_json::from_str(&status.stdout).unwrap_or_else(|error| panic!("{error}: {status:?}"));
    let member = status["members"].as_array().unwrap().iter().find(|member| member["node"] == node);
    member.unwrap_or_else(|| panic!("no node {node}: {status}")).clone()
}

#[test]
fn a_vote_is_taken_and_given_back_in_sql_and_those_who_vote_decide() {
    let place = Place::new();
    let a = place.form("a");
    let (b, c) = (place.join("b", &a), place.join("c", &a));
    settled(&[&a.cluster], &[1, 2, 3]);
    those_vote(&a.cluster, &[1, 2, 3]);
    // The leader loses its vote, and hands over before; asked of another.
    let led = leader(&[&a.cluster]).unwrap() as usize;
    let mut nodes = [a, b, c].map(Some);
    let names = ["a", "b", "c"];
    let without = nodes[led - 1].take().unwrap();
    let rest: Vec<u64> = (1..=3).filter(|id| *id != led as u64).collect();
    let (goes, stays) = (rest[1] as usize, rest[0] as usize);
    let (dies, lives) = (nodes[goes - 1].take().unwrap(), nodes[stays - 1].take().unwrap());
    let begun = Instant::now();
    assert_eq!(done(&lives, &format!("ALTER RAFT GROUP 0 REMOVE NODE {led}")), "ALTER RAFT GROUP\n");
    println!("the leader's vote was taken in {:?}", begun.elapsed());
    let (now, leads) = voters(&lives.cluster);
    assert!(now == rest && leads != led as u64, "{now:?}, led by {leads}");
    // Every face shows it, also the one without a vote, which reads and writes as before.
    for node in [&without, &dies, &lives] {
        eventually("all know", LIMIT, || {
            let row = &execute(&node.sql, &format!("SHOW NODE {led}"))[0];
            (row[4].as_str(), row[5].as_str()) == ("learner", "f")
        });
        let groups = execute(&node.sql, "SHOW RAFT GROUPS");
        assert_eq!((groups[0][7].clone(), groups[0][8].clone()), (format!("{},{}", rest[0], rest[1]), led.to_string()));
    }
    println!("{}", done(&without, "SHOW RAFT GROUP 0"));
    println!("{}", run(mainstay().args(["status", "--addr", &lives.cluster])).stdout);
    let member = shown(&without.cluster, led as u64);
    assert_eq!((&member["role"], &member["vote"]), (&"learner".into(), &false.into()), "{member}");
    put(&[&without.cluster], "k", "1");
    assert_eq!(value(&[&without.cluster], "k").unwrap(), b"1");
    let said = notice(&without, &format!("ALTER RAFT GROUP 0 REMOVE NODE {led}"));
    assert!(said.contains(&format!("node {led} (node{led}) has no vote already")), "{said}");
    let events = execute(&dies.sql, "SHOW EVENTS");
    let votes: Vec<_> = events.iter().filter(|event| event[2] == "member vote").map(|event| &event[3..]).collect();
    let expected = [led.to_string(), "voting → non-voting".into(), "postgres".into(), "SQL".into()];
    assert_eq!(votes, [&expected[..]]);
    for (sql, state, why) in [
        ("ALTER RAFT GROUP 7 ADD NODE 1", "42704", "there is group 0"),
        ("ALTER RAFT GROUP 0 REMOVE NODE 9", "42704", "there is no member 9"),
    ] {
        let (code, message, _) = refusal(&without.sql, sql);
        assert!(code == state && message.contains(why), "{sql}: {code} {message}");
    }

    // Of the two that vote one dies: nobody decides, and who asks hears so.
    dies.kill();
    for node in [&lives, &without] {
        eventually("it knows that nobody leads", LIMIT, || leader(&[&node.cluster]).is_none());
    }
    let add = format!("ALTER RAFT GROUP 0 ADD NODE {led}");
    let (code, message, _) = refusal(&without.sql, &add);
    assert!(code == "55P03" && message.contains("no leader"), "{code} {message}");
    let mut back = place.start(names[goes - 1], &[]);
    back.ready();
    put(&[&lives.cluster], "k", "2");
    // Neither a new leader nor a start of its own gives the vote back.
    assert_eq!(without.stop().code, Some(0));
    let mut without = place.start(names[led - 1], &[]);
    without.ready();
    eventually("it follows", LIMIT, || value(&[&without.cluster], "k").unwrap() == b"2");
    those_go_on_to_vote(&lives.cluster, &rest);

    done(&without, &add);
    those_vote(&lives.cluster, &[1, 2, 3]);
    assert!(notice(&back, &add).contains("votes already"));
    back.kill();
    put(&[&lives.cluster, &without.cluster], "k", "3");
    // Without the vote of one of the two that are left nobody would decide: nothing is noted either.
    let begun = Instant::now();
    let (code, message, _) = refusal(&lives.sql, &format!("ALTER RAFT GROUP 0 REMOVE NODE {led}"));
    println!("refused in {:?}: {message}", begun.elapsed());
    assert!(code == "55000" && message.contains("no majority"), "{code} {message}");
    assert_eq!(execute(&lives.sql, &format!("SHOW NODE {led}"))[0][5], "t");
}

/// The command for a vote, and its exit status.
fn voter(address: &str, what: &str, node: u64) -> (i32, Output) {
    let node = node.to_string();
    let arguments = ["cluster", "voter", what, &node, "--addr", address, "--actor", "ann", "--reason", "enough"];
    let output = run(mainstay().args(arguments));
    (output.code.unwrap(), output)
}

#[test]
fn a_vote_is_taken_and_given_on_the_command_line_and_one_without_goes_like_any_other() {
    let place = Place::new();
    let a = place.form("a");
    let b = place.join("b", &a);
    settled(&[&a.cluster], &[1, 2]);
    those_vote(&a.cluster, &[1, 2]);
    let taken = run(mainstay().args(["cluster", "voter", "remove", "2", "--json", "--addr", &b.cluster]));
    let taken: Value = serde_json::from_str(&taken.stdout).unwrap_or_else(|error| panic!("{error}: {taken:?}"));
    let fields = ["node", "vote", "was_so", "is_done"].map(|field| taken[field].clone());
    assert_eq!(fields, [Value::from(2), false.into(), false.into(), true.into()]);
    those_vote(&a.cluster, &[1]);
    let (code, again) = voter(&b.cluster, "remove", 2);
    assert_eq!((code, again.stdout.as_str()), (0, "Node 2 (node2) has no vote already.\n"), "{again:?}");
    for (node, expected, why) in [(1, 4, "last active one that votes"), (9, 3, "there is no member 9")] {
        let (code, output) = voter(&b.cluster, "remove", node);
        assert!(code == expected && output.stderr.contains(why), "{node}: {output:?}");
    }
    let drain = |what: &str, node: &str| run(mainstay().args(["cluster", what, node, "--addr", &a.cluster])).code;
    assert_eq!(drain("drain", "1"), Some(4), "nobody else could lead");
    assert_eq!(drain("drain", "2"), Some(0));
    let (code, output) = voter(&a.cluster, "add", 2);
    assert!(code == 4 && output.stderr.contains("member 2 is draining"), "{output:?}");
    assert_eq!(drain("undrain", "2"), Some(0));
    let (code, output) = voter(&a.cluster, "add", 2);
    // Who was not heard of since the leader looked last is not waited for.
    let is_said = ["Node 2 (node2) votes.", "Node 2 (node2) is to vote, and does as soon as"]
        .iter()
        .any(|words| output.stdout.starts_with(words));
    assert!(code == 0 && is_said, "{output:?}");
    those_vote(&a.cluster, &[1, 2]);

    // Killed, without a vote it stops nobody; and it can be taken out then, and joins anew with one.
    assert_eq!(voter(&a.cluster, "remove", 2).0, 0);
    b.kill();
    put(&[&a.cluster], "k", "1");
    assert_eq!(remove(&a.cluster, 2).code, Some(0));
    std::fs::remove_dir_all(place.path("b")).unwrap();
    let b = place.join("b", &a);
    settled(&[&a.cluster], &[1, 3]);
    those_vote(&a.cluster, &[1, 3]);
    assert_eq!(voter(&a.cluster, "remove", 3).0, 0);
    assert_eq!(remove(&a.cluster, 3).code, Some(0));
    assert_eq!(b.ended().code, Some(1));
}

/// What is noted and not yet done when the leader dies, the next one does; the one that lost its vote comes back a learner.
#[test]
fn what_was_noted_is_carried_out_by_whoever_leads_next() {
    let place = Place::new();
    let a = place.form("a");
    let (b, c) = (place.join("b", &a), place.join("c", &a));
    settled(&[&a.cluster], &[1, 2, 3]);
    those_vote(&a.cluster, &[1, 2, 3]);
    let led = leader(&[&a.cluster]).unwrap();
    let mut nodes = [a, b, c].map(Some);
    let addresses: Vec<String> = nodes.iter().flatten().map(|node| node.cluster.clone()).collect();
    let other = &addresses[if led == 1 { 1 } else { 0 }];
    let note = |votes| {
        let noted = async { meta(&[other]).members().set_vote(mainstay::ident::NodeId::new(led), votes).await };
        crate::support::runtime().block_on(noted).unwrap()
    };
    assert!(note(false).non_voting);
    nodes[led as usize - 1].take().unwrap().kill();
    let rest: Vec<u64> = (1..=3).filter(|id| *id != led).collect();
    eventually("it votes no more", LIMIT, || voters(other).0 == rest);
    let mut back = place.start(["a", "b", "c"][led as usize - 1], &[]);
    back.ready();
    eventually("it follows", LIMIT, || voters(&back.cluster).0 == rest);
    assert!(!note(true).non_voting);
    those_vote(other, &[1, 2, 3]);
    // Nobody crashes: a leader hands over by itself.
    let led = leader(&[other]).unwrap();
    let noted = async { meta(&[other]).members().set_vote(mainstay::ident::NodeId::new(led), false).await };
    crate::support::runtime().block_on(noted).unwrap();
    let rest: Vec<u64> = (1..=3).filter(|id| *id != led).collect();
    those_vote(other, &rest);
    assert_ne!(voters(other).1, led);
}

#[test]
fn one_without_a_vote_that_is_forced_to_go_on_alone_has_one() {
    let place = Place::new();
    let a = place.form("a");
    let b = place.join("b", &a);
    settled(&[&a.cluster], &[1, 2]);
    those_vote(&a.cluster, &[1, 2]);
    put(&[&a.cluster], "k", "1");
    assert_eq!(voter(&b.cluster, "remove", 1).0, 0);
    those_vote(&b.cluster, &[2]);
    b.kill();
    a.kill();
    let forced = run(mainstay().args(["cluster", "force-new", "--yes", "--data-dir"]).arg(place.path("a")));
    assert_eq!(forced.code, Some(0), "{forced:?}");
    let mut a = place.start("a", &[]);
    a.ready();
    settled(&[&a.cluster], &[1]);
    put(&[&a.cluster], "k", "2");
    eventually("it is to vote", LIMIT, || shown(&a.cluster, 1)["vote"] == true);
    assert_eq!(shown(&a.cluster, 1)["role"], "leader");
    let c = place.join("c", &a);
    those_vote(&a.cluster, &[1, 3]);
    assert_eq!(c.stop().code, Some(0));
}
