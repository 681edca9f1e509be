use std::sync::mpsc;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};

use super::super::test_support::Database;
use super::*;

/// Panics where it is said that SQLite's WAL file could not be copied.
struct Panics;

impl<S: Subscriber> Layer<S> for Panics {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        assert!(!metadata.target().ends_with("sqlite::engine") || *metadata.level() != Level::WARN, "on purpose");
    }
}

#[test]
fn the_clerk_outlives_a_panic_while_it_copies() {
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(Panics)).unwrap();
    let database = Database::new();
    let shared = &database.engine.shared;
    // In a transaction, the keeper cannot copy.
    shared.keeper.lock().execute_batch("BEGIN; SELECT 1 FROM sqlite_schema").unwrap();
    shared.wal_pages.store(TOO_MANY_PAGES, Ordering::Relaxed);
    for _ in 0..2 {
        let (tell, told) = mpsc::channel();
        shared.turnstile.send(Box::new(move || tell.send(()).unwrap()));
        assert_eq!(told.recv_timeout(Duration::from_secs(30)), Ok(()));
    }
    // What the last errand left is over as well, before its log goes.
    shared.keeper.lock().execute_batch("ROLLBACK").unwrap();
    database.session().ok("CREATE TABLE t (a); INSERT INTO t VALUES (1)");
}
