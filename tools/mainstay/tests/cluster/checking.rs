//! `mainstay cluster check`: what the members hold is compared, over processes of which one differs.

use std::sync::Arc;

use mainstay::meta::METADATA_GROUP;
use mainstay::raftstore::log_store::{AppliedTo, LogStore, Table, TableStore, TableWrite};
use mainstay::raftstore::rocks::RocksStore;
use mainstay::storage::Storage;
use serde_json::Value;

use crate::nodes::*;
use crate::support::{LIMIT, Output, eventually, mainstay, run};

fn check(addresses: &str, arguments: &[&str]) -> Output {
    run(mainstay().args(["cluster", "check", "--addr", addresses]).args(arguments))
}

fn json(output: &Output) -> Value {
    serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// Of each member, in order.
fn states(found: &Value) -> Vec<&str> {
    found["members"].as_array().unwrap().iter().map(|member| member["state"].as_str().unwrap()).collect()
}

#[test]
fn members_are_compared_and_one_that_differs_is_named_and_repaired() {
    let place = Place::new();
    let a = place.form("a");
    let (b, c) = (place.join("b", &a), place.join("c", &a));
    settled(&[&a.cluster], &[1, 2, 3]);
    put(&[&a.cluster], "greeting", "hello");
    let all = [&*a.cluster, &b.cluster, &c.cluster].join(",");

    // Whoever is asked, the leader answers.
    for address in [&a.cluster, &b.cluster, &c.cluster] {
        let output = check(address, &["--json"]);
        assert_eq!(output.code, Some(0), "{output:?}");
        let found = json(&output);
        assert_eq!((states(&found), &found["is_consistent"]), (vec!["same"; 3], &true.into()), "{found}");
        assert!(found["members"].as_array().unwrap().iter().all(|member| member["hash"] == found["hash"]), "{found}");
    }
    let output = check(&all, &[]);
    println!("{}", output.stdout);
    assert!(output.stdout.ends_with("3 of 3 members hold the same.\n"), "{output:?}");

    // One that is away is not waited for, and is no difference.
    let address = c.cluster.clone();
    assert_eq!(c.stop().code, Some(0));
    let mut last = None;
    eventually("the other is known to be away", LIMIT, || {
        let output = check(&a.cluster, &["--json"]);
        let is_away = output.code == Some(0) && states(&json(&output)) == ["same", "same", "unreached"];
        last = Some(output);
        is_away
    });

    // Behind its back, while it does not run.
    let storage = Arc::new(Storage::open(&place.path("c"), 1 << 20).unwrap());
    let store = RocksStore::open(storage).unwrap();
    let index = store.load(METADATA_GROUP).unwrap().unwrap().applied;
    let write = TableWrite::Put(Table::Kv, b"never written".to_vec(), b"by anybody".to_vec());
    store.apply(METADATA_GROUP, &[write], &AppliedTo { index, membership: None }).unwrap();
    drop(store);
    let mut c = place.start("c", &[]);
    c.ready();
    assert_eq!(c.cluster, address);
    let mut named = None;
    eventually("the member that differs is named", LIMIT, || {
        let output = check(&all, &["--json"]);
        let is_named = output.code == Some(6);
        named = Some(output);
        is_named
    });
    let found = json(&named.unwrap());
    println!("{found}");
    assert_eq!((states(&found), &found["is_consistent"]), (vec!["same", "same", "differs"], &false.into()), "{found}");
    assert_ne!(found["members"][2]["hash"], found["hash"]);

    // It gets what the others have.
    eventually("all hold the same again", LIMIT, || {
        let output = check(&all, &["--json"]);
        output.code == Some(0) && states(&json(&output)) == ["same"; 3]
    });
    assert_eq!(value(&[&c.cluster], "greeting"), Some(b"hello".to_vec()));

    // Without a majority nothing can be compared.
    b.kill();
    c.kill();
    let output = check(&a.cluster, &["--timeout", "2s"]);
    assert_eq!((output.code, output.stdout.as_str()), (Some(1), ""), "{output:?}");
    let nobody = check(&free_addresses(1).remove(0), &["--timeout", "1s"]);
    assert_eq!(nobody.code, Some(1), "{nobody:?}");
}
