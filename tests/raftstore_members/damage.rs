//! Bits that flip in RocksDB's table files: the disk returns what it was not given.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use mainstay::raftstore::log_store::{Table, TableWrite};
use mainstay::storage::Storage;

use crate::consistency::{at_rest, check, healthy, replicas, unhealthy};
use crate::nodes::{Kind, Nodes, until};
use crate::short;

/// Flips a bit of a value where one of the table files holds it; says which.
fn flip(directory: &Path, value: &[u8]) -> PathBuf {
    let files = std::fs::read_dir(directory.join("meta")).unwrap().map(|file| file.unwrap().path());
    let mut tables = files.filter(|path| path.extension().is_some_and(|end| end == "sst"));
    let found = tables.find_map(|path| {
        let content = std::fs::read(&path).unwrap();
        let at = content.windows(100).position(|window| window == &value[100..200])?;
        Some((path, at as u64))
    });
    let (path, at) = found.expect("the value in a table");
    let file = File::options().read(true).write(true).open(&path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
    path
}

/// In a value that nobody reads: the check reads it, RocksDB's checksum tells, and the replica gets the state of the others,
/// however often its node is started; and in the end the file is gone.
async fn a_flipped_bit_is_repaired(key: &[u8]) {
    let mut nodes = Nodes::found(Kind::Rocks, 3, short);
    nodes.put(&[1, 2, 3], 0..200, &"x".repeat(300)).await;
    at_rest(&nodes, &[1, 2, 3]).await;
    // Cannot be compressed, and is in no log.
    let mut seed = 7u64;
    let noise = std::iter::repeat_with(|| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 56) as u8
    });
    let value: Vec<u8> = noise.take(3000).collect();
    for number in 1..=3 {
        nodes.tamper(number, TableWrite::Put(Table::Kv, key.to_vec(), value.clone()));
    }
    assert!(check(&nodes, &[1, 2, 3]).await.is_good());
    let leader = nodes.leader_of(&[1, 2, 3]).await;
    let (bad, good) = (leader % 3 + 1, (leader + 1) % 3 + 1);
    // What a log has, an opening moves into tables.
    nodes.stop(bad);
    drop(Storage::open(nodes.directory(bad), 1 << 20).unwrap());
    let path = flip(nodes.directory(bad), &value);
    nodes.restart(bad);
    nodes.put(&[1, 2, 3], 200..210, "later").await;
    assert_eq!(unhealthy(&nodes, bad), None, "nobody has read it yet");
    at_rest(&nodes, &[leader, bad, good]).await;
    let verdict = check(&nodes, &[1, 2, 3]).await;
    assert_eq!((verdict.is_good(), verdict.missing), (true, replicas(&[bad])));
    let repaired = || nodes.group(bad).view().status.positions.first > verdict.index;
    until("a snapshot in its place", || repaired().then_some(())).await;
    healthy(&nodes, bad).await;
    nodes.agree(good, bad).await;
    let verdict = check(&nodes, &[1, 2, 3]).await;
    assert_eq!((verdict.is_good(), verdict.missing), (true, vec![]));
    for round in 0..6 {
        nodes.put(&[1, 2, 3], 210..220, &format!("{round}")).await;
        nodes.stop(bad);
        nodes.restart(bad);
    }
    assert!(!path.exists(), "{} is there still", path.display());
    nodes.put(&[1, 2, 3], 220..230, "in the end").await;
    nodes.agree(good, bad).await;
    at_rest(&nodes, &[leader, bad, good]).await;
    let verdict = check(&nodes, &[1, 2, 3]).await;
    assert_eq!((verdict.is_good(), verdict.missing), (true, vec![]));
    assert!(nodes.raft(bad).health().is_good());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bit_that_flips_in_the_middle_is_repaired() {
    a_flipped_bit_is_repaired(b"000100+").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bit_that_flips_in_the_last_pair_is_repaired() {
    a_flipped_bit_is_repaired(b"zzz").await;
}
