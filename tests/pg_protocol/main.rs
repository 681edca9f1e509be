//! The PostgreSQL protocol, spoken by clients that nobody here wrote (tokio-postgres, psql) and by raw sockets, to an
//! engine of a few words.

#![cfg(test)]

mod copy;
mod drivers;
mod fake;
mod limits;
mod raw;
mod stopping;
mod transactions;

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mainstay::server::pg::{PgConfig, PgServer};

use fake::{Fake, FakeBackend};

/// Nothing here takes longer unless it hangs.
const PATIENCE: Duration = Duration::from_secs(20);
const POLL_INTERVAL: Duration = Duration::from_millis(5);

struct Rig {
    server: PgServer,
    fake: Arc<Fake>,
}

impl Rig {
    async fn start() -> Rig {
        Rig::with(PgConfig::default()).await
    }

    async fn with(config: PgConfig) -> Rig {
        let fake = Arc::new(Fake::default());
        let config = PgConfig { listen: "127.0.0.1:0".parse().unwrap(), ..config };
        let server = PgServer::start(config, Arc::new(FakeBackend(Arc::clone(&fake)))).await.unwrap();
        Rig { server, fake }
    }

    fn port(&self) -> u16 {
        self.server.local_addr().port()
    }

    /// A driver's connection, whose own task runs until it is dropped.
    async fn connect(&self) -> tokio_postgres::Client {
        let parameters = format!("host=127.0.0.1 port={} user=postgres dbname=postgres", self.port());
        let (client, connection) = tokio_postgres::connect(&parameters, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    async fn waiting(&self, count: usize) {
        eventually("statements wait", || self.fake.waiting.load(Ordering::SeqCst) == count).await;
    }

    async fn sessions(&self, count: usize) {
        eventually("sessions are open", || self.fake.sessions.load(Ordering::SeqCst) == count).await;
    }

    /// Everybody else is undisturbed.
    async fn still_serves(&self) {
        let rows = self.connect().await.query("select 7", &[]).await.unwrap();
        assert_eq!(rows[0].get::<_, i64>(0), 7);
    }
}

/// Polls `condition` until it holds.
async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "not in time: {what}");
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// Runs psql with `arguments`; gives back whether it succeeded, its output and its errors.
async fn psql(port: u16, arguments: &[&str]) -> (bool, String, String) {
    let mut command = std::process::Command::new("psql");
    command.args(["-X", "-A", "-t", "-h", "127.0.0.1", "-p", &port.to_string(), "-U", "postgres"]);
    command.args(["-v", "ON_ERROR_STOP=1"]).args(arguments).env_remove("PGDATABASE").stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}
