//! What a node that does nothing costs: the time to start it and the memory that it keeps.

mod support;

use std::fs;
use std::time::Duration;

use support::Running;

const MEMORY_LIMIT_KIB: u64 = 60 * 1024;
/// The promise is half a second for a release build; this build is slower and the machine may be busy.
const START_LIMIT: Duration = Duration::from_secs(if cfg!(debug_assertions) { 3 } else { 1 });

#[test]
fn an_idle_node_starts_quickly_and_stays_small() {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    let first = Running::start(&data_dir, &[]);
    println!("first start: {:?}", first.start_time);
    assert_eq!(first.stop("TERM").code, Some(0));
    let again = Running::start(&data_dir, &[]);
    println!("next start: {:?}", again.start_time);
    assert!(again.start_time <= START_LIMIT, "{:?}", again.start_time);
    let status = fs::read_to_string(format!("/proc/{}/status", again.id())).unwrap();
    let anonymous = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    let anonymous_kib: u64 = anonymous.trim().strip_suffix(" kB").unwrap().parse().unwrap();
    println!("anonymous resident memory: {anonymous_kib} KiB");
    assert!(anonymous_kib <= MEMORY_LIMIT_KIB, "{anonymous_kib} KiB");
}
