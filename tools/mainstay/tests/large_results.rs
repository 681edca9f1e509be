//! Results that are larger than memory go to clients that are slower than the statement.

mod support;

use std::fs;
use std::io::Read as _;
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use support::raw::{Raw, query};
use support::{LIMIT, Running, eventually};

const LIMIT_KIB: u64 = 100 * 1024;
const GIB: u64 = 1 << 30;
/// A client that stops reading does so until the node's memory has not changed for so many looks.
const STILL_LOOKS: u32 = 10;
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// The memory of a node that is not files, in KiB.
fn memory_kib(node: &Running) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", node.id())).unwrap();
    let anonymous = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    anonymous.trim().strip_suffix(" kB").unwrap().parse().unwrap()
}

/// Stops reading until the node has taken what it takes for a client that does not read; answers how much memory that is.
fn wait_until_still(node: &Running) -> u64 {
    let (mut last, mut looks) = (memory_kib(node), 0);
    eventually("the node stops taking memory", LIMIT, || {
        thread::sleep(LOOK_INTERVAL);
        let now = memory_kib(node);
        looks = if now == last { looks + 1 } else { 0 };
        last = now;
        looks >= STILL_LOOKS
    });
    last
}

fn read(stream: &mut TcpStream, buffer: &mut [u8]) {
    stream.read_exact(buffer).unwrap();
}

/// Reads `rows` rows, each a number and text of `row_bytes`, and stops on the way. Answers the most memory that was seen.
fn read_slowly(node: &Running, rows: u64, row_bytes: u64) -> u64 {
    let mut client = Raw::login(&node.address);
    let sql = format!(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows}) \
         SELECT i, hex(zeroblob({})) FROM n",
        row_bytes / 2
    );
    client.send(&query(&sql)).unwrap();
    let (mut seen, mut highest_kib, mut body) = (0, 0, Vec::new());
    loop {
        let mut head = [0; 5];
        read(&mut client.0, &mut head);
        body.resize(u32::from_be_bytes(head[1..].try_into().unwrap()) as usize - 4, 0);
        read(&mut client.0, &mut body);
        match head[0] {
            b'T' => {}
            b'D' => {
                seen += 1;
                let number = seen.to_string();
                let second = &body[6 + number.len()..];
                assert_eq!(&body[6..6 + number.len()], number.as_bytes(), "no row is lost or comes twice");
                assert_eq!((second.len() as u64, second[4], *second.last().unwrap()), (4 + row_bytes, b'0', b'0'));
                if seen % (rows / 8) == 1 {
                    highest_kib = highest_kib.max(wait_until_still(node));
                } else if seen % 64 == 0 {
                    highest_kib = highest_kib.max(memory_kib(node));
                }
            }
            b'C' => assert_eq!(body, format!("SELECT {rows}\0").as_bytes()),
            b'Z' => break,
            kind => panic!("a message of type {kind}: {}", String::from_utf8_lossy(&body)),
        }
    }
    assert_eq!(seen, rows);
    highest_kib
}

#[test]
fn a_select_of_two_gib_to_a_slow_client_takes_little_memory() {
    let directory = tempfile::tempdir().unwrap();
    let node = Running::start(&directory.path().join("data"), &[]);
    for (total_bytes, row_bytes) in [(2 * GIB, 64 << 10), (GIB / 4, 1 << 20)] {
        let highest_kib = read_slowly(&node, total_bytes / row_bytes, row_bytes);
        println!("{total_bytes} bytes in rows of {row_bytes}: at most {highest_kib} KiB of memory");
        assert!(highest_kib < LIMIT_KIB, "{highest_kib} KiB");
    }
}
