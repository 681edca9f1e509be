use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::*;

const LIMIT: Duration = Duration::from_secs(20);

/// Ready or not, and how often it was asked to observe.
#[derive(Default)]
struct Switch {
    ready: AtomicBool,
    observed: AtomicUsize,
    drained: AtomicBool,
}

impl Probe for Switch {
    fn readiness(&self) -> Readiness {
        if self.ready.load(Ordering::SeqCst) {
            Readiness::Ready
        } else {
            Readiness::NotReady("starting: waits for the test".to_owned())
        }
    }

    fn observe(&self) {
        let times = self.observed.fetch_add(1, Ordering::SeqCst) + 1;
        metrics::gauge!("mainstay_test_observed").set(times as f64);
    }

    fn events(&self, from: Option<u64>, limit: u32) -> Told {
        match from {
            Some(0) => Told::NotNow("no leader".to_owned()),
            from => Told::Json(format!("[{}, {limit}]", from.unwrap_or_default())),
        }
    }

    fn begin_drain(&self) {
        self.drained.store(true, Ordering::SeqCst);
    }
}

fn config() -> HttpConfig {
    HttpConfig { listen: Some(([127, 0, 0, 1], 0).into()), ..HttpConfig::default() }
}

/// Sends bytes and reads until the server closes.
async fn exchange(server: &HttpServer, request: &str) -> String {
    let mut stream = TcpStream::connect(server.local_addr()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(LIMIT, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    answer
}

async fn get(server: &HttpServer, path: &str) -> (u16, String) {
    let answer = exchange(server, &format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).await;
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
}

/// One test, because a process has one recorder.
#[tokio::test]
async fn health_and_metrics_are_told_within_limits() {
    let exposition = Exposition::install().unwrap();
    assert!(matches!(Exposition::install(), Err(ExpositionError::Taken)));
    let probe = Arc::new(Switch::default());
    let server = HttpServer::start(config(), probe.clone(), exposition.clone()).await.unwrap();
    let ok = (200, "ok\n".to_owned());
    for path in ["/livez", "/health/live"] {
        assert_eq!(get(&server, path).await, ok);
    }
    for path in ["/readyz", "/healthz"] {
        assert_eq!(get(&server, path).await, (503, "starting: waits for the test\n".to_owned()));
    }
    probe.ready.store(true, Ordering::SeqCst);
    for path in ["/readyz", "/healthz"] {
        assert_eq!(get(&server, path).await, ok);
    }
    metrics::histogram!("mainstay_test_seconds").record(0.0003);
    metrics::histogram!("mainstay_test_statements").record(3.0);
    let (status, text) = get(&server, "/metrics").await;
    assert_eq!(status, 200);
    for line in [
        "mainstay_test_observed 1",
        "mainstay_test_seconds_bucket{le=\"0.00025\"} 0",
        "mainstay_test_seconds_bucket{le=\"0.0005\"} 1",
        "mainstay_test_statements_bucket{le=\"4\"} 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    assert_eq!(get(&server, "/nothing").await.0, 404);
    assert!(exchange(&server, "POST /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.contains(" 405 "));
    refusals(&server).await;
    too_many(probe, exposition).await;
}

/// What is no request of a sensible size.
async fn refusals(server: &HttpServer) {
    let long = format!("GET /livez HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(64 * 1024));
    let mut stream = TcpStream::connect(server.local_addr()).await.unwrap();
    // It may close before everything is written.
    let _ = stream.write_all(long.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = timeout(LIMIT, stream.read_to_end(&mut answer)).await.unwrap();
    assert!(!String::from_utf8_lossy(&answer).contains(" 200 "), "{answer:?}");
    // A client that says nothing is sent away.
    let mut silent = TcpStream::connect(server.local_addr()).await.unwrap();
    silent.write_all(b"GET /livez HT").await.unwrap();
    let mut answer = Vec::new();
    let _ = timeout(LIMIT, silent.read_to_end(&mut answer)).await.unwrap();
    assert!(!String::from_utf8_lossy(&answer).contains(" 200 "), "{answer:?}");
}

/// More connections than there may be are closed.
async fn too_many(probe: Arc<Switch>, exposition: Exposition) {
    let config = HttpConfig { connection_limit: 1, ..config() };
    let server = HttpServer::start(config, probe, exposition).await.unwrap();
    let mut first = TcpStream::connect(server.local_addr()).await.unwrap();
    first.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = [0; 12];
    timeout(LIMIT, first.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    let mut second = TcpStream::connect(server.local_addr()).await.unwrap();
    // Closed without an answer, perhaps before the request is written.
    let _ = second.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    let mut nothing = Vec::new();
    let _ = timeout(LIMIT, second.read_to_end(&mut nothing)).await.unwrap();
    assert!(nothing.is_empty(), "{}", String::from_utf8_lossy(&nothing));
    drop(first);
    // As soon as the first is gone, there is room again.
    let begun = Instant::now();
    loop {
        assert!(begun.elapsed() < LIMIT, "there is no room although the first is gone");
        let mut next = TcpStream::connect(server.local_addr()).await.unwrap();
        let request = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        let mut answer = String::new();
        let asked = next.write_all(request).await.is_ok() && next.read_to_string(&mut answer).await.is_ok();
        if asked && answer.contains(" 200 ") {
            return;
        }
    }
}

#[test]
fn only_loopback_unless_told_otherwise() {
    let remote = HttpConfig { listen: Some(([0, 0, 0, 0], 1).into()), ..HttpConfig::default() };
    assert!(matches!(remote.validate(), Err(HttpError::NotLoopback(_))));
    HttpConfig { allow_remote: true, ..remote }.validate().unwrap();
    config().validate().unwrap();
    HttpConfig::default().validate().unwrap();
    assert!(HttpConfig { connection_limit: 0, ..config() }.validate().is_err());
}

#[tokio::test]
async fn the_cluster_is_told_in_json_and_draining_takes_the_token() {
    use std::os::unix::fs::PermissionsExt;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, "0123456789abcdef").unwrap();
    std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o600)).unwrap();
    let probe = Arc::new(Switch::default());
    let exposition = Exposition::of_nothing();
    let with = HttpConfig { drain_token_file: Some(file.path().to_owned()), ..config() };
    let server = HttpServer::start(with, probe.clone(), exposition.clone()).await.unwrap();
    assert_eq!(get(&server, "/v1/cluster").await, (404, "this node is no member of a cluster\n".to_owned()));
    assert_eq!(get(&server, "/v1/events").await, (200, "[0, 100]".to_owned()));
    assert_eq!(get(&server, "/v1/events?from=7&limit=5000").await, (200, "[7, 1000]".to_owned()));
    assert_eq!(get(&server, "/v1/events?from=0").await.0, 503);
    for wrong in ["from=x", "from", "until=3", "limit=-1"] {
        assert_eq!(get(&server, &format!("/v1/events?{wrong}")).await.0, 400, "{wrong}");
    }

    let drain = async |server: &HttpServer, header: &str| {
        let request = format!("POST /health/drain HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{header}\r\n");
        let answer = exchange(server, &request).await;
        answer.split(' ').nth(1).unwrap().parse::<u16>().unwrap()
    };
    assert_eq!(get(&server, "/health/drain").await.0, 405);
    assert_eq!(drain(&server, "").await, 401);
    assert_eq!(drain(&server, "Authorization: Bearer 0123456789abcdeX\r\n").await, 401);
    assert!(!probe.drained.load(Ordering::SeqCst));
    assert_eq!(drain(&server, "Authorization: Bearer 0123456789abcdef\r\n").await, 200);
    assert!(probe.drained.load(Ordering::SeqCst));
    let without = HttpServer::start(config(), probe, exposition).await.unwrap();
    assert_eq!(drain(&without, "Authorization: Bearer 0123456789abcdef\r\n").await, 403);
}
