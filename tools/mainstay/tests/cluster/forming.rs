//! Forming, and starting again.

use crate::nodes::*;
use crate::support::{mainstay, run};

#[test]
fn a_node_with_data_becomes_the_first_member_and_restarts_without_flags() {
    let place = Place::new();
    let mut alone = place.start("a", &[]);
    alone.ready();
    assert!(alone.cluster.is_empty());
    execute(&alone.sql, "CREATE TABLE t (a); INSERT INTO t VALUES (1), (2)");
    assert_eq!(alone.stop().code, Some(0));

    let mut node = place.start("a", &["--cluster-listen", "127.0.0.1:0"]);
    let address = node.waiting();
    let (status, why) = node.get("/readyz");
    assert_eq!(status, 503);
    assert!(why.contains("waiting") && why.contains(&format!("cluster init --addr {address}")), "{why}");
    assert_eq!(node.get("/livez").0, 200);
    // While it waits it can do nothing else for others.
    let early = run(mainstay().args(["cluster", "remove", "2", "--addr", &address, "--timeout", "1s"]));
    assert_eq!(early.code, Some(1), "{early:?}");
    assert!(early.stderr.contains("no member of a cluster itself"), "{early:?}");
    let formed = run(mainstay().args(["cluster", "init", "--addr", &address]));
    assert_eq!(formed.code, Some(0), "{formed:?}");
    node.ready();
    assert_eq!(execute(&node.sql, "SELECT a FROM t ORDER BY a"), [["1"], ["2"]]);
    assert_eq!(node.get("/readyz").0, 200);
    settled(&[&address], &[1]);
    let again = run(mainstay().args(["cluster", "init", "--addr", &address]));
    assert_eq!(again.code, Some(4));
    assert!(again.stderr.contains("already"), "{again:?}");
    node.kill();

    let mut node = place.start("a", &[]);
    node.ready();
    assert_eq!(node.cluster, address);
    assert_eq!(execute(&node.sql, "SELECT a FROM t ORDER BY a"), [["1"], ["2"]]);
    settled(&[&address], &[1]);
    assert_eq!(node.stop().code, Some(0));
}

#[test]
fn five_that_are_started_at_once_become_one_cluster() {
    let place = Place::new();
    let addresses = free_addresses(5);
    let list = addresses.join(",");
    let mut nodes: Vec<Node> = (0..5)
        .map(|number| {
            let token = place.path(&format!("token{number}"));
            let token = token.to_str().unwrap();
            let arguments = ["--cluster-listen", &addresses[number], "--join", &list, "--join-token-file", token];
            place.start(&format!("n{number}"), &arguments)
        })
        .collect();
    nodes.iter_mut().for_each(|node| drop(node.waiting()));
    // Somebody asks all of them at once, and one does it.
    let asked: Vec<_> = addresses
        .iter()
        .map(|address| {
            let address = address.clone();
            std::thread::spawn(move || run(mainstay().args(["cluster", "init", "--addr", &address])))
        })
        .collect();
    let answers: Vec<_> = asked.into_iter().map(|asked| asked.join().unwrap()).collect();
    let codes: Vec<_> = answers.iter().map(|answer| answer.code.unwrap()).collect();
    assert_eq!(codes, [0, 4, 4, 4, 4], "{answers:?}");
    assert!(answers[3].stderr.contains(&addresses[0]), "{answers:?}");
    for number in 1..5 {
        std::fs::write(place.path(&format!("token{number}")), token(&addresses[0])).unwrap();
    }
    nodes.iter_mut().for_each(|node| node.ready());
    for address in &addresses {
        settled(&[address], &[1, 2, 3, 4, 5]);
    }
}

#[test]
fn bad_input_is_refused_with_one_line() {
    let place = Place::new();
    let path = place.path("x");
    let path = path.to_str().unwrap();
    let refused = |arguments: &[&str], code: i32, what: &str| {
        let output = run(mainstay().args(arguments));
        assert_eq!(output.code, Some(code), "{arguments:?}: {output:?}");
        assert!(output.stderr.contains(what), "{arguments:?}: {output:?}");
        assert_eq!(output.stderr.trim().lines().count(), 1, "{output:?}");
    };
    let start = |more: &[&'static str]| {
        [&["start", "--log-level", "off", "--sql-listen", "127.0.0.1:0", "--data-dir"], more].concat()
    };
    let with = |more: &[&'static str]| {
        let mut all: Vec<String> = start(more).into_iter().map(str::to_owned).collect();
        all.insert(6, path.to_owned());
        all
    };
    let bad = |more: &[&'static str], what: &str| {
        let all = with(more);
        refused(&all.iter().map(String::as_str).collect::<Vec<_>>(), 1, what);
    };
    bad(&["--join", "127.0.0.1:1"], "join needs a join token");
    bad(&["--cluster-name", "a"], "cluster.listen must be given");
    bad(&["--cluster-listen", "0.0.0.0:0"], "cluster.advertise must be given");
    bad(&["--cluster-listen", "192.0.2.1:1"], "configure TLS or allow plaintext");
    bad(&["--cluster-listen", "127.0.0.1:0", "--cluster-tls-key", "/k"], "tls_certificate is missing");
    refused(&["cluster", "init", "--addr", "192.0.2.1:1"], 2, "not a loopback address");
    refused(&["cluster", "init", "--addr", "127.0.0.1:1,127.0.0.1:2"], 2, "give one address");
    refused(&["cluster", "remove", "2", "--addr", "127.0.0.1:1", "--timeout", "1s"], 1, "no node could do it in time");
    assert!(!place.path("x").join("identity").exists());
}

/// Said at once, and not when somebody forms a cluster with the node: also of what it was told at an earlier start.
#[test]
fn a_port_for_two_things_is_refused_at_the_start() {
    let place = Place::new();
    let address = &free_addresses(1)[0];
    let start = |arguments: &[&str]| {
        let directory = place.path("a");
        run(mainstay().args(["start", "--log-level", "off", "--data-dir"]).arg(directory).args(arguments))
    };
    let elsewhere = ["--sql-listen", "127.0.0.1:0"];
    for same in [&["--sql-listen", address][..], &["--http-listen", address, elsewhere[0], elsewhere[1]]] {
        let output = start(&[&["--cluster-listen", address], same].concat());
        assert!(output.code == Some(1) && output.stderr.contains("are the same port"), "{same:?}: {output:?}");
    }
    assert!(!place.path("a").exists(), "nothing was begun");
    let mut node = place.start("a", &["--cluster-listen", address]);
    node.waiting();
    assert_eq!(node.stop().code, Some(0));
    let output = start(&["--sql-listen", address, "--wal-segment-size-bytes", "1MiB"]);
    let said = format!("sql.listen is the same port: {address}");
    assert!(output.code == Some(1) && output.stderr.contains(&said), "{output:?}");
}
