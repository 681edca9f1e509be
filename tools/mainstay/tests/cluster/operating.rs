//! What operators do with a cluster that runs: over its command line, in SQL and over HTTP.

use serde_json::Value;

use crate::nodes::*;
use crate::support::{LIMIT, Output, eventually, mainstay, run};

/// A command of the operator's, over these nodes.
fn operate(addresses: &str, arguments: &[&str]) -> Output {
    run(mainstay().args(arguments).env("MAINSTAY_ADDR", addresses).env("USER", "ann"))
}

fn good(addresses: &str, arguments: &[&str]) -> String {
    let output = operate(addresses, arguments);
    assert_eq!((output.code, output.stderr.as_str()), (Some(0), ""), "{arguments:?}: {output:?}");
    output.stdout
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn a_cluster_is_looked_at_and_changed_over_every_face_of_every_member() {
    let place = Place::new();
    let a = place.form("a");
    let (b, c) = (place.join("b", &a), place.join("c", &a));
    settled(&[&a.cluster], &[1, 2, 3]);
    let all = [&*a.cluster, &b.cluster, &c.cluster].join(",");

    let text = good(&all, &["status"]);
    println!("{text}");
    let status = json(&good(&all, &["status", "--json"]));
    let leader = status["leader"].as_u64().unwrap();
    for (place, member) in status["members"].as_array().unwrap().iter().enumerate() {
        let role = if place as u64 + 1 == leader { "leader" } else { "follower" };
        assert_eq!((&member["is_reached"], &member["role"]), (&true.into(), &role.into()), "{member}");
        assert!(member["lag"].as_u64().unwrap() < 1000, "{member}");
    }
    for node in [&a, &b, &c] {
        let rows = execute(&node.sql, "SHOW NODES");
        assert_eq!(rows.iter().map(|row| row[0].as_str()).collect::<Vec<_>>(), ["1", "2", "3"]);
        assert_eq!(execute(&node.sql, "SHOW CLUSTER; SHOW NODE 2").len(), 2);
        assert_eq!(execute(&node.sql, "SHOW RAFT GROUPS")[0][7], "1,2,3");
        let (code, body) = node.get("/v1/cluster");
        assert_eq!((code, json(&body)["members"].as_array().unwrap().len()), (200, 3));
        let (code, body) = node.get("/v1/events?from=1&limit=1");
        assert_eq!((code, &json(&body)[0]["kind"]), (200, &"cluster formed".into()));
    }

    // Changed here, seen there.
    execute(&b.sql, "ALTER SYSTEM SET kv.max_leases = 7");
    assert_eq!(good(&c.cluster, &["settings", "get", "kv.max_leases"]), "7\n");
    let (code, message, _) = refusal(&c.sql, "ALTER SYSTEM SET kv.quota_bytes = '9 GiB'");
    assert!(code == "22023" && message.contains("1 MiB to 8 GiB"), "{code} {message}");
    good(&b.cluster, &["settings", "reset", "kv.max_leases", "--reason", "enough"]);
    let events = execute(&a.sql, "SHOW EVENTS");
    let reset = events.iter().find(|event| event[2] == "setting reset").unwrap();
    assert_eq!((reset[3].as_str(), &reset[5..]), ("kv.max_leases", &["ann".to_owned(), "enough".to_owned()][..]));
    good(&c.cluster, &["kv", "put", "k", "v"]);
    assert_eq!(good(&a.cluster, &["kv", "get", "k"]), "v\n");

    assert_eq!(refusal(&b.sql, "REMOVE NODE 1").0, "55000");
    assert_eq!(refusal(&b.sql, "REMOVE NODE 9").0, "42704");
    assert_eq!(refusal(&b.sql, "ALTER RAFT GROUP 0 REMOVE NODE 2").0, "0A000");
    execute(&b.sql, "REMOVE NODE 3");
    assert_eq!(c.ended().code, Some(1));
    settled(&[&a.cluster], &[1, 2]);

    // Without a majority nobody hangs, and what was known can be seen.
    b.kill();
    let mut output = None;
    eventually("no leader is known", LIMIT, || {
        let status = operate(&a.cluster, &["status", "--json", "--timeout", "1s"]);
        let is_stale = status.code == Some(1) && json(&status.stdout)["is_stale"] == true;
        output = Some(status);
        is_stale
    });
    let status = json(&output.unwrap().stdout);
    assert_eq!((status["members"].as_array().unwrap().len(), &status["leader"]), (2, &Value::Null));
    assert_eq!(refusal(&a.sql, "SHOW NODES").0, "55P03");
    assert_eq!(execute(&a.sql, "SHOW RAFT GROUPS").len(), 1);
    assert_eq!(operate(&a.cluster, &["kv", "put", "k", "w", "--timeout", "1s"]).code, Some(1));
    assert_eq!(good(&a.cluster, &["kv", "get", "k", "--local"]), "v\n");
    let (code, body) = a.get("/v1/cluster");
    assert_eq!((code, &json(&body)["is_stale"]), (200, &true.into()));
    let stopped = a.stop();
    assert_eq!(stopped.code, Some(0), "{stopped:?}");
}
