//! Health and metrics of a real node, asked with bare sockets.

mod support;

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use support::{LIMIT, Running, Starting, eventually, refused};

/// An address that nobody listens on now.
fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// Status and body of a path; nothing if nobody answers.
fn try_get(address: &str, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

fn get(address: &str, path: &str) -> (u16, String) {
    try_get(address, path).unwrap_or_else(|| panic!("{path} is not answered"))
}

/// The value of a metric, which must be there.
fn metric(text: &str, name: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name} is not in\n{text}")).parse().unwrap()
}

fn start(data_dir: &Path, http: &str, more: &[&str]) -> Running {
    Running::start(data_dir, &[&["--http-listen", http], more].concat())
}

#[test]
fn who_has_the_token_drains_the_node_which_goes_on_serving() {
    let directory = tempfile::tempdir().unwrap();
    let token = directory.path().join("token");
    support::certificates::write(&token, "a-token-of-the-tests\n");
    let more = ["--http-drain-token-file", token.to_str().unwrap()];
    let node = start(&directory.path().join("data"), "127.0.0.1:0", &more);
    let http = node.ready.split_whitespace().find_map(|word| word.strip_prefix("http=")).unwrap().to_owned();
    let drain = |token: &str| {
        let mut stream = TcpStream::connect(&http).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let head = format!("POST /health/drain HTTP/1.1\r\nHost: node\r\nAuthorization: Bearer {token}\r\n");
        write!(stream, "{head}Connection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.split(' ').nth(1).unwrap().parse::<u16>().unwrap()
    };
    assert_eq!(drain("another-token-entirely"), 401);
    assert_eq!(get(&http, "/healthz").0, 200);
    assert_eq!(get(&http, "/v1/cluster").0, 404);
    assert_eq!(drain("a-token-of-the-tests"), 200);
    let (status, why) = get(&http, "/healthz");
    assert!(status == 503 && why.starts_with("draining: "), "{status} {why}");
    assert_eq!(get(&http, "/livez").0, 200);
    assert_eq!(node.rows("SELECT 1").len(), 1);
    assert_eq!(node.stop("TERM").code, Some(0));
}

#[test]
fn a_node_says_that_it_is_ready_and_what_it_measures() {
    let directory = tempfile::tempdir().unwrap();
    let node = start(&directory.path().join("data"), "127.0.0.1:0", &[]);
    let http = node.ready.split_whitespace().find_map(|word| word.strip_prefix("http=")).unwrap().to_owned();
    for path in ["/livez", "/health/live", "/readyz", "/healthz"] {
        assert_eq!(get(&http, path), (200, "ok\n".to_owned()), "{path}");
    }
    node.rows("CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT)");
    for number in 0..10 {
        node.rows(&format!("INSERT INTO t VALUES ({number}, 'x')"));
    }
    let (status, text) = get(&http, "/metrics");
    assert_eq!(status, 200);
    for stage in ["queue", "execute", "append", "sync", "store"] {
        let count = metric(&text, &format!("mainstay_sql_commit_seconds_count{{stage=\"{stage}\"}}"));
        assert!(count >= 10.0, "{stage}: {count}");
    }
    assert!(metric(&text, "mainstay_sql_group_statements_count") >= 10.0);
    assert!(metric(&text, "mainstay_wal_flush_seconds_count") >= 10.0);
    assert!(metric(&text, "mainstay_wal_flush_seconds_bucket{le=\"+Inf\"}") >= 10.0);
    let (durable, end) = (metric(&text, "mainstay_wal_durable_lsn"), metric(&text, "mainstay_wal_end_lsn"));
    assert!(durable > metric(&text, "mainstay_wal_oldest_lsn") && durable <= end);
    assert!(metric(&text, "mainstay_wal_free_bytes") > 0.0 && metric(&text, "mainstay_wal_reserve_bytes") > 0.0);
    assert_eq!(metric(&text, "mainstay_wal_full"), 0.0);
    assert_eq!(metric(&text, "mainstay_sql_writers_waiting"), 0.0);
    let columns = "timeline oldest_lsn durable_lsn end_lsn unsynced_bytes waiting prepared_bytes segment_size_bytes \
                   free_bytes reserve_bytes is_full health";
    let wal = node.rows("SHOW WAL");
    assert_eq!(wal.len(), 1);
    assert_eq!(wal[0].len(), columns.split_whitespace().count());
    assert_eq!((wal[0][0].as_str(), wal[0][10].as_str(), wal[0][11].as_str()), ("1", "f", "good"), "{wal:?}");
    let mut sessions = Vec::new();
    // A connection is there a moment longer than its client.
    eventually("this session is the only one", LIMIT, || {
        sessions = node.rows("SHOW SESSIONS");
        sessions.len() == 1
    });
    assert_eq!((sessions[0][1].as_str(), sessions[0][5].as_str()), ("postgres", "active"));
    assert_eq!(sessions[0][8], "SHOW SESSIONS");
    node.stop("TERM");
    assert_eq!(try_get(&http, "/livez"), None);
}

#[test]
fn a_node_that_starts_or_stops_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    let http = free_address();
    let node = start(&data_dir, &http, &[]);
    node.rows("CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT)");
    node.rows("INSERT INTO t VALUES (1, 'x')");
    node.kill();
    // The whole log has to be replayed, which takes a moment.
    std::fs::remove_dir_all(data_dir.join("engine")).unwrap();
    let starting = Starting::launch(&data_dir, &["--http-listen", &http]);
    let begun = Instant::now();
    let first = loop {
        if let Some(answer) = try_get(&http, "/readyz") {
            break answer;
        }
        assert!(begun.elapsed() < LIMIT, "nobody answers");
    };
    assert_eq!(first.0, 503, "{first:?}");
    assert!(first.1.starts_with("starting: "), "{first:?}");
    assert_eq!(get(&http, "/livez").0, 200);
    let node = starting.ready().unwrap();
    eventually("the node to be ready", LIMIT, || get(&http, "/readyz").0 == 200);
    // A statement that goes on for a while keeps it from ending at once.
    node.query_in_background("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n");
    eventually("the statement to run", LIMIT, || {
        let active = "SELECT pid FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'WITH RECURSIVE%'";
        !node.rows(active).is_empty()
    });
    node.signal("TERM");
    eventually("the node to drain", Duration::from_secs(5), || {
        try_get(&http, "/healthz").is_some_and(|answer| answer.0 == 503 && answer.1.starts_with("draining: "))
    });
    assert_eq!(get(&http, "/livez").0, 200);
    node.ended();
}

#[test]
fn a_node_whose_log_is_damaged_is_not_healthy() {
    const MIB: usize = 1 << 20;
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    let http = free_address();
    let more = ["--wal-segment-size-bytes", "1MiB", "--wal-scrub-bytes-per-second", "1GiB"];
    let node = start(&data_dir, &http, &more);
    node.rows("CREATE TABLE t (a BLOB)");
    for _ in 0..8 {
        node.rows("INSERT INTO t VALUES (randomblob(500000))");
    }
    assert_eq!(get(&http, "/readyz").0, 200);
    let mut segments: Vec<_> =
        std::fs::read_dir(data_dir.join("wal")).unwrap().map(|entry| entry.unwrap().path()).collect();
    segments.sort();
    let oldest = OpenOptions::new().read(true).write(true).open(&segments[0]).unwrap();
    let mut byte = [0];
    oldest.read_exact_at(&mut byte, MIB as u64 / 2).unwrap();
    oldest.write_all_at(&[byte[0] ^ 1], MIB as u64 / 2).unwrap();
    eventually("the damage to be found", LIMIT, || get(&http, "/readyz").0 == 503);
    let (status, why) = get(&http, "/healthz");
    assert!(status == 503 && why.contains("damaged"), "{why}");
    assert_eq!(get(&http, "/livez").0, 200);
    assert!(metric(&get(&http, "/metrics").1, "mainstay_wal_damaged_segments") >= 1.0);
    assert!(node.rows("SHOW WAL")[0][11].starts_with("damaged: "));
}

#[test]
fn http_stays_on_this_machine_unless_it_is_told_otherwise() {
    let directory = tempfile::tempdir().unwrap();
    let line = refused(&directory.path().join("data"), &["--http-listen", "0.0.0.0:0"]);
    assert!(line.contains("HTTP listens on loopback addresses only"), "{line}");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let line = refused(&directory.path().join("data"), &["--http-listen", &taken.local_addr().unwrap().to_string()]);
    assert!(line.contains("cannot listen for HTTP"), "{line}");
    let node = start(&directory.path().join("data"), "0.0.0.0:0", &["--http-allow-remote", "true"]);
    assert!(node.ready.contains(" http=0.0.0.0:"), "{}", node.ready);
    node.stop("TERM");
}
