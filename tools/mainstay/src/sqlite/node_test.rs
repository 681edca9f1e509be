//! On a real node: the engine's directory is made again from the WAL.

use mainstay::config::NodeConfig;
use mainstay::node::Node;

use super::engine::SqliteEngine;
use super::test_support::{client_of, contents};

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_engine_directory_comes_back_from_the_wal() {
    let dir = tempfile::tempdir().unwrap();
    let config = NodeConfig::new(dir.path().join("data"));
    let engine_dir = config.data_dir.join("engine");
    let open = || Node::open(config.clone(), SqliteEngine::open);

    let node = open().await.unwrap();
    let mut client = client_of(node.engine());
    tokio::task::block_in_place(|| {
        client.ok("CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT, v); CREATE TABLE u (a)");
        client.ok("BEGIN; INSERT INTO t (v) VALUES ('x'), ('y'); ALTER TABLE u ADD COLUMN b; INSERT INTO u VALUES (1, 2); COMMIT");
        client.ok("BEGIN; DELETE FROM t; ROLLBACK; DELETE FROM t WHERE id = 2");
    });
    drop(client);
    let before = contents(&engine_dir);
    node.shutdown().await.unwrap();

    let node = open().await.unwrap();
    assert_eq!(contents(&engine_dir), before);
    node.shutdown().await.unwrap();

    std::fs::remove_dir_all(&engine_dir).unwrap();
    let node = open().await.unwrap();
    assert_eq!(contents(&engine_dir), before);
    let mut client = client_of(node.engine());
    tokio::task::block_in_place(|| assert_eq!(client.rows("INSERT INTO t (v) VALUES ('z') RETURNING id"), [["3"]]));
    drop(client);
    node.shutdown().await.unwrap();
}
