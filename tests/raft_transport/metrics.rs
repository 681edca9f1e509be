//! What is counted. Each test hands its own recorder to the peers it makes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use ::metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
    with_local_recorder,
};
use tokio::net::TcpListener;

use super::*;

/// Sums of counters, last values of gauges, and the greatest values of histograms, rounded down.
#[derive(Default)]
struct Seen(Mutex<BTreeMap<String, Arc<Cell>>>);

#[derive(Default)]
struct Cell(AtomicU64);

impl CounterFn for Cell {
    fn increment(&self, value: u64) {
        self.0.fetch_add(value, Ordering::SeqCst);
    }

    fn absolute(&self, value: u64) {
        self.0.store(value, Ordering::SeqCst);
    }
}

impl GaugeFn for Cell {
    fn increment(&self, value: f64) {
        self.0.fetch_add(value as u64, Ordering::SeqCst);
    }

    fn decrement(&self, value: f64) {
        self.0.fetch_sub(value as u64, Ordering::SeqCst);
    }

    fn set(&self, value: f64) {
        self.0.store(value as u64, Ordering::SeqCst);
    }
}

impl HistogramFn for Cell {
    fn record(&self, value: f64) {
        self.0.fetch_max(value as u64, Ordering::SeqCst);
    }
}

impl Seen {
    fn cell(&self, key: &Key) -> Arc<Cell> {
        let labels: Vec<_> = key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        let name = key.name().trim_start_matches("mainstay_raft_transport_");
        Arc::clone(self.0.lock().entry(format!("{name}{{{}}}", labels.join(","))).or_default())
    }

    fn get(&self, name: &str) -> u64 {
        self.0.lock().get(name).map_or(0, |cell| cell.0.load(Ordering::SeqCst))
    }
}

impl Recorder for Seen {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.cell(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.cell(key))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.cell(key))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_is_counted_and_batched() {
    let seen = Seen::default();
    let one = Node::start(config(), identity(1, 1)).await;
    let two = Node::start(config(), identity(2, 1)).await;
    with_local_recorder(&seen, || one.knows(2, two.address()));
    // All of it waits while the first connection is made.
    for number in 0..5000 {
        one.send(2, envelope(number, 256)).unwrap();
    }
    eventually("all arrive", || two.arrivals.count() == 5000).await;
    assert_eq!(seen.get("sent_envelopes_total{peer=2}"), 5000);
    assert!(seen.get("sent_bytes_total{peer=2}") > 5000 * 256);
    assert!(seen.get("batch_envelopes{peer=2}") > 100, "{}", seen.get("batch_envelopes{peer=2}"));
    assert!(seen.get("batch_bytes{peer=2}") <= 1 << 20);
    assert_eq!(seen.get("connects_total{peer=2,outcome=ok}"), 1);
    assert_eq!(seen.get("breaker_state{peer=2}"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_dropped_is_counted_by_reason() {
    let seen = Seen::default();
    let hanging = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let quick = Duration::from_millis(200);
    let settings = NetConfig { connect_timeout: quick, queue_envelopes: 16, breaker_failures: 1, ..config() };
    let settings = NetConfig { backoff_base: PATIENCE, backoff_max: PATIENCE, ..settings };
    let one = Node::start(settings, identity(1, 1)).await;
    with_local_recorder(&seen, || {
        one.knows(2, hanging.local_addr().unwrap());
        let _ = one.send(9, envelope(0, 1));
    });
    for number in 0..20 {
        let _ = one.send(2, envelope(number, 1));
    }
    eventually("the breaker is open", || one.send(2, envelope(0, 1)) == Err(Unsent::Unreachable)).await;
    let dropped = |reason: &str| seen.get(&format!("dropped_envelopes_total{{peer=2,reason={reason}}}"));
    assert!(dropped("queue_full") >= 4);
    assert_eq!(dropped("disconnected"), 16);
    assert_eq!(dropped("unreachable"), 1);
    assert_eq!(one.send(2, envelope(0, 64 << 20)), Err(Unsent::TooLarge));
    assert_eq!(dropped("too_large"), 1);
    assert_eq!(seen.get("dropped_envelopes_total{peer=unknown,reason=unknown_node}"), 1);
    assert_eq!(seen.get("connects_total{peer=2,outcome=failed}"), 1);
    eventually("the gauge says so", || seen.get("breaker_state{peer=2}") == 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_are_counted_by_what_became_of_them() {
    let seen = Seen::default();
    let one = Node::start(NetConfig { max_snapshots_out: 1, ..config() }, identity(1, 1)).await;
    let two = Node::start(config(), identity(2, 1)).await;
    one.knows(2, two.address());
    let made = Made::new(1, 1 << 20);
    let send = |group| with_local_recorder(&seen, || one.send_snapshot(2, &made, group));
    let sent = |outcome: &str| seen.get(&format!("snapshots_sent_total{{peer=2,outcome={outcome}}}"));

    send(1).unwrap().get().await.unwrap();
    assert_eq!(sent("ok"), 1);
    let bytes = seen.get("snapshot_sent_bytes_total{peer=2}");
    assert!(bytes > 1_000_000 && bytes < 1_100_000, "{bytes}");
    assert_eq!(seen.get("snapshots_resumed_total{peer=2}"), 0);
    // Everything is there already: this one has nothing to bring.
    send(1).unwrap().get().await.unwrap();
    assert_eq!(seen.get("snapshots_resumed_total{peer=2}"), 1);
    *two.shelf().refusal.lock() = Some(SnapshotRefused::Unwanted("old".to_owned()));
    send(1).unwrap().get().await.unwrap_err();
    assert_eq!(sent("refused"), 1);
    *two.shelf().refusal.lock() = None;

    two.shelf().stop_after(0);
    let stopped: Vec<_> = (0..17).map(|group| send(group).unwrap()).collect();
    assert_eq!(send(99).err(), Some(Unsent::QueueFull));
    assert_eq!(sent("queue_full"), 1);
    one.transport.remove_peer(NodeId::new(2));
    for outcome in stopped {
        outcome.get().await.unwrap_err();
    }
    assert_eq!(sent("stopped"), 17);
    two.shelf().go_on();
    assert_eq!(send(1).err(), Some(Unsent::UnknownNode));
    assert_eq!(seen.get("snapshots_sent_total{peer=unknown,outcome=unknown_node}"), 1);
}
