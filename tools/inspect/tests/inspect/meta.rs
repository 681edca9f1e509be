//! The cluster's metadata: what is shown of it, and what never is.

use std::sync::Arc;

use mainstay::ident::{ClusterId, NodeId, ReplicaId, SystemId};
use mainstay::meta::METADATA_GROUP;
use mainstay::meta::client::Meta;
use mainstay::meta::proto::{Attribute, MemberSpec};
use mainstay::meta::raft::RaftMetadata;
use mainstay::meta::token::sha256;
use mainstay::raftstore::entry::Membership;
use mainstay::raftstore::group::GroupConfig;
use mainstay::raftstore::rocks::RocksStore;
use mainstay::raftstore::store::{RaftStore, StoreConfig};
use mainstay::raftstore::transport::MemoryNetwork;
use mainstay::storage::{Durability, Family, Storage};
use serde_json::json;

use super::support::*;

const COMMANDS: [&[&str]; 6] = [&["members"], &["settings"], &["kv"], &["kv", "--values"], &["events"], &["tokens"]];

/// A directory of a cluster of one, and its secrets.
fn place() -> (Place, Vec<String>) {
    let place = Place::clean();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let secrets = runtime.block_on(async {
        let store = Arc::new(RocksStore::open(Arc::new(storage(&place))).unwrap());
        let transport = Arc::new(MemoryNetwork::new().transport(NodeId::new(1)));
        let raft = RaftStore::start(StoreConfig::default(), Arc::clone(&store) as _, transport).unwrap();
        let replica = ReplicaId::new(1);
        raft.create_group(METADATA_GROUP, replica, Membership::of_voters([(replica, NodeId::new(1))])).unwrap();
        let metadata = RaftMetadata::open(&raft, store, GroupConfig::new(replica), None).unwrap();
        let meta = Meta::new(Arc::new(metadata), "ann");
        let secret_hash = sha256(b"the secret of node 1");
        let first = MemberSpec {
            name: "alpha".into(),
            addresses: vec!["10.0.0.1:7000".into()],
            locality: vec![Attribute { key: "zone".into(), value: "a".into() }],
            secret_hash: secret_hash.clone(),
            incarnation: 3,
            version: 1,
            ..MemberSpec::default()
        };
        meta.members().form(ClusterId::new(7), SystemId::new(8), first).await.unwrap();
        let (token, record) = meta.tokens().create(60_000).await.unwrap();
        meta.settings().set("kv.quota_bytes", "512 MiB").await.unwrap();
        for (key, value) in [("app/one", "password"), ("app/two", "2"), ("other", "3")] {
            meta.kv().put(key, value).await.unwrap();
        }
        meta.kv().delete("app/two").await.unwrap();
        raft.shutdown();
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        vec![token.reveal(), hex(&record.hash), hex(&secret_hash)]
    });
    (place, secrets)
}

fn storage(place: &Place) -> Storage {
    Storage::open(place.path(), MIB).unwrap()
}

#[test]
fn the_cluster_is_shown_from_the_files_alone_and_no_secret_ever() {
    let (place, secrets) = place();
    let (code, report) = place.inspect_json(&["members"]);
    assert_eq!(code, 0, "{report:#}");
    let expected = json!([{
        "id": 1, "name": "alpha", "state": "active", "vote": true, "incarnation": 3, "version": 1, "addresses": ["10.0.0.1:7000"],
        "attributes": [], "locality": ["zone=a"], "added": 2, "changed": 2,
    }]);
    assert_eq!(report["rows"], expected);
    let (_, report) = place.inspect_json(&["settings"]);
    let quota = report["rows"].as_array().unwrap().iter().find(|row| row["name"] == "kv.quota_bytes").unwrap();
    assert_eq!(
        (&quota["value"], &quota["number"], &quota["is_default"]),
        (&json!("512 MiB"), &json!(512 << 20), &json!(false))
    );
    let (_, report) = place.inspect_json(&["kv"]);
    let keys: Vec<_> = report["rows"].as_array().unwrap().iter().map(|row| row["key"].clone()).collect();
    assert_eq!(keys, ["app/one", "other"]);
    assert_eq!(report["rows"][0].get("value_hex"), None, "{report:#}");
    let (_, report) = place.inspect_json(&["kv", "--values", "--prefix", "app/"]);
    assert_eq!(report["rows"].as_array().unwrap().len(), 1);
    assert_eq!(report["rows"][0]["value_hex"], "70617373776f7264");
    let (_, report) = place.inspect_json(&["events", "--limit", "2"]);
    let kinds: Vec<_> = report["rows"].as_array().unwrap().iter().map(|row| row["kind"].clone()).collect();
    assert_eq!(kinds, ["token_created", "setting_set"]);
    let (_, report) = place.inspect_json(&["tokens"]);
    assert_eq!((&report["rows"][0]["state"], &report["rows"][0]["created_by"]), (&json!("open"), &json!("ann")));
    for command in COMMANDS {
        let (text, json) = (place.inspect(command), place.inspect(&[command, &["--json"]].concat()));
        assert_eq!((text.code, json.code), (0, 0), "{command:?}: {}", text.error);
        assert!(text.text.contains("of group 0"), "{}", text.text);
        for shown in [text, json] {
            let leaks = secrets.iter().any(|secret| shown.text.contains(secret) || shown.error.contains(secret));
            assert!(!leaks, "{command:?}: {}", shown.text);
            assert_eq!(
                shown.text.contains("70617373") || shown.text.contains("password"),
                command.contains(&"--values")
            );
        }
    }
}

#[test]
fn a_directory_without_a_cluster_says_so() {
    let place = Place::clean();
    for command in COMMANDS {
        let answer = place.inspect(command);
        assert_eq!(answer.code, 0, "{}", answer.error);
        assert!(answer.text.contains("no metadata group was made here"), "{}", answer.text);
    }
}

#[test]
fn a_damaged_record_is_named_and_not_shown() {
    let (place, _) = place();
    let key = [&0u64.to_be_bytes()[..], &1u32.to_be_bytes(), &[2], &1u64.to_be_bytes()].concat();
    let storage = storage(&place);
    let mut batch = storage.batch().unwrap();
    batch.put(Family::Cluster, &key, b"\x01broken");
    storage.write(batch, Durability::Synced).unwrap();
    drop(storage);
    let answer = place.inspect(&["members"]);
    assert_eq!(answer.code, 1, "{}", answer.text);
    assert!(answer.text.contains("kind 2 in the metadata table Cluster"), "{}", answer.text);
    assert!(!answer.text.contains("broken"), "{}", answer.text);
    assert_eq!(place.inspect(&["settings"]).code, 0, "what is whole is shown");
}
