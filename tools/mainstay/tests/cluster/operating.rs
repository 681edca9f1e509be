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

/// A number that `/metrics` tells.
fn measured(node: &Node, name: &str) -> f64 {
    let (code, text) = node.get("/metrics");
    assert_eq!(code, 200, "{text}");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name} is not measured:\n{text}")).parse().unwrap()
}

/// Who leads, as the cluster says.
fn leader(addresses: &str) -> Option<u64> {
    let status = operate(addresses, &["status", "--json", "--timeout", "2s"]);
    if status.code == Some(0) { json(&status.stdout)["leader"].as_u64() } else { None }
}

#[test]
fn a_member_that_drains_hands_over_and_is_of_use_again_afterwards() {
    let place = Place::new();
    let mut a = place.start("a", &["--cluster-listen", "127.0.0.1:0"]);
    let address = a.waiting();
    let formed = json(&good(&address, &["cluster", "init", "--json"]));
    a.ready();
    assert_eq!((&formed["node"], formed["cluster_id"].as_str().map(str::len)), (&1.into(), Some(16)), "{formed}");
    let secret = place.path("secret");
    std::fs::write(&secret, "0123456789abcdef").unwrap();
    std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let flags =
        ["--cluster-listen", "127.0.0.1:0", "--http-drain-token-file", secret.to_str().unwrap(), "--join", &address];
    let join = |name: &str| {
        let made = json(&good(&address, &["cluster", "token", "create", "--ttl", "90s", "--json"]));
        assert_eq!((&made["ttl_ms"], made["id"].is_u64()), (&90_000.into(), true), "{made}");
        let mut node = place.start_with_token(name, &flags, made["token"].as_str().unwrap());
        node.ready();
        node
    };
    let (b, c) = (join("b"), join("c"));
    settled(&[&a.cluster], &[1, 2, 3]);
    let all = [&*a.cluster, &b.cluster, &c.cluster].join(",");
    assert_eq!((measured(&a, "mainstay_cluster_joins_total"), measured(&a, "mainstay_cluster_is_leader")), (2.0, 1.0));
    eventually("it is measured", LIMIT, || measured(&b, r#"mainstay_cluster_members{state="active"}"#) == 3.0);
    assert_eq!((measured(&b, "mainstay_cluster_leader"), measured(&b, "mainstay_cluster_is_leader")), (1.0, 0.0));

    // From the command line, to a member that leads.
    let drained = json(&good(&all, &["cluster", "drain", "1", "--reason", "a new disk", "--json"]));
    assert_eq!((&drained["node"], &drained["state"]), (&1.into(), &"draining".into()), "{drained}");
    eventually("another leads", LIMIT, || leader(&all).is_some_and(|leader| leader != 1));
    eventually("it is not ready", LIMIT, || a.get("/readyz").0 == 503);
    assert!(a.get("/readyz").1.starts_with("draining: "));
    // They may have noticed that nobody led for a moment.
    for other in [&b, &c] {
        eventually("the others are ready", LIMIT, || other.get("/readyz").0 == 200);
    }
    eventually("it is measured", LIMIT, || measured(&a, "mainstay_cluster_is_draining") == 1.0);
    assert_eq!(good(&all, &["cluster", "undrain", "1"]), "Node 1 (node1) is active.\n");
    eventually("it is ready", LIMIT, || a.get("/readyz").0 == 200);
    assert_eq!(operate(&all, &["cluster", "drain", "9"]).code, Some(3));

    // Over HTTP, to whoever leads now, until it starts again.
    let led = leader(&all).unwrap();
    let (node, name) = if led == 2 { (b, "b") } else { (c, "c") };
    assert_eq!(node.post("/health/drain", "0123456789abcdeX").0, 401);
    assert_eq!(node.post("/health/drain", "0123456789abcdef").0, 200);
    assert_eq!(node.get("/readyz").0, 503, "at once");
    eventually("another leads", LIMIT, || leader(&all).is_some_and(|leader| leader != led));
    let state = || json(&good(&all, &["status", "--json"]))["members"][led as usize - 1]["state"].clone();
    eventually("the cluster knows", LIMIT, || state() == "draining");
    assert_eq!(node.stop().code, Some(0));
    let mut back = place.start(name, &[]);
    back.ready();
    settled(&[&a.cluster], &[1, 2, 3]);
    eventually("it is ready", LIMIT, || back.get("/readyz").0 == 200);

    let removed = json(&good(&all, &["cluster", "remove", "3", "--json"]));
    assert_eq!((&removed["node"], &removed["name"]), (&3.into(), &"node3".into()), "{removed}");
    let data_dir = place.path("a");
    assert_eq!(a.stop().code, Some(0));
    let force = ["cluster", "force-new", "--json", "--data-dir", data_dir.to_str().unwrap()];
    let looked = operate("", &force);
    let forecast = json(&looked.stdout);
    assert_eq!((looked.code, &forecast["done"], &forecast["cluster_id"]), (Some(1), &false.into(), &Value::Null));
    assert_eq!(
        (&forecast["previous_cluster_id"], &forecast["lost_members"][0]["node"]),
        (&formed["cluster_id"], &2.into())
    );
    let forced = operate("", &[&force[..], &["--yes"]].concat());
    let result = json(&forced.stdout);
    assert_eq!(
        (forced.code, &result["done"], result["backup"].is_string()),
        (Some(0), &true.into(), true),
        "{forced:?}"
    );
    assert_ne!(result["cluster_id"], result["previous_cluster_id"]);
}
