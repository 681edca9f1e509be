//! Clients that write unique rows one by one, remember which were acknowledged, and count them again.
//!
//! A row whose answer did not arrive is *unknown*: it may be there or not, but whole if it is. Unknown is never
//! success, and never counted as lost.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::task::JoinHandle;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, NoTls};

const CREATE: &str = "CREATE TABLE demo (client bigint NOT NULL, number bigint NOT NULL, body text NOT NULL, PRIMARY KEY (client, number))";
const INSERT: &str = "INSERT INTO demo (client, number, body) VALUES ($1, $2, $3)";
const SELECT: &str = "SELECT number, body FROM demo WHERE client = $1";

/// How long clients may take to notice that the node is gone, or to end their last statement.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// What was acknowledged so far, of all clients.
#[derive(Clone, Default)]
pub struct Counter(Arc<AtomicU64>);

impl Counter {
    /// The count.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// One more.
    pub fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// What one client wrote: numbers from 0 to `next`, all acknowledged but the unknown ones.
#[derive(Default)]
struct Written {
    next: i64,
    unknown: BTreeSet<i64>,
}

struct Writer {
    id: i64,
    client: Client,
    written: Written,
}

/// All clients. Each is either here or in a running task.
pub struct Clients {
    idle: Vec<Writer>,
    running: Vec<JoinHandle<(Writer, Option<tokio_postgres::Error>)>>,
    stop: Arc<AtomicBool>,
    acknowledged: Counter,
}

/// What was found of what was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Rows acknowledged.
    pub acknowledged: u64,
    /// Of these, rows found with the right content.
    pub found: u64,
    /// Of these, rows missing.
    pub lost: u64,
    /// Rows with wrong content, or that nobody wrote.
    pub wrong: u64,
    /// Rows whose answer never came.
    pub unknown: u64,
    /// Of these, rows found.
    pub unknown_found: u64,
}

impl Clients {
    /// Connects that many clients.
    ///
    /// # Errors
    /// The node refused one.
    pub async fn connect(address: &str, count: u64) -> anyhow::Result<Clients> {
        let mut idle = Vec::new();
        for id in 0..count as i64 {
            idle.push(Writer { id, client: connect(address).await?, written: Written::default() });
        }
        Ok(Clients { idle, running: Vec::new(), stop: Arc::default(), acknowledged: Counter::default() })
    }

    /// Makes the table that all write to.
    ///
    /// # Errors
    /// The node refused.
    pub async fn create_table(&self) -> anyhow::Result<()> {
        let writer = self.idle.first().context("no client")?;
        Ok(writer.client.batch_execute(CREATE).await?)
    }

    /// Lets all clients write until they are stopped or the node is gone.
    pub fn start(&mut self) -> Counter {
        self.stop = Arc::default();
        for writer in self.idle.drain(..) {
            self.running.push(tokio::spawn(write(writer, self.stop.clone(), self.acknowledged.clone())));
        }
        self.acknowledged.clone()
    }

    /// Makes sure that no client has ended by itself.
    ///
    /// # Errors
    /// One has, so what follows would prove little.
    pub async fn still_writing(&mut self) -> anyhow::Result<()> {
        if !self.running.iter().any(JoinHandle::is_finished) {
            return Ok(());
        }
        self.stop().await?;
        bail!("a client stopped by itself")
    }

    /// Waits until all clients have noticed that the node is gone.
    ///
    /// # Errors
    /// One did not, or was told something else.
    pub async fn broken(&mut self) -> anyhow::Result<()> {
        for error in self.join().await? {
            match error {
                Some(error) if error.is_closed() || error.code().is_none() => {}
                Some(error) => return Err(error).context("a client was refused"),
                None => bail!("a client went on after the node was killed"),
            }
        }
        Ok(())
    }

    /// Lets each client finish its statement and stop.
    ///
    /// # Errors
    /// One of them had failed.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        match self.join().await?.into_iter().flatten().next() {
            Some(error) => Err(error).context("a client failed"),
            None => Ok(()),
        }
    }

    async fn join(&mut self) -> anyhow::Result<Vec<Option<tokio_postgres::Error>>> {
        let mut errors = Vec::new();
        for task in self.running.drain(..) {
            let Ok(ended) = tokio::time::timeout(STOP_LIMIT, task).await else {
                bail!("a client was still waiting after {} s", STOP_LIMIT.as_secs());
            };
            let (writer, error) = ended?;
            self.idle.push(writer);
            errors.push(error);
        }
        Ok(errors)
    }

    /// Connects all clients again and has the first answer of the node before it returns.
    ///
    /// # Errors
    /// The node refused one.
    pub async fn reconnect(&mut self, address: &str) -> anyhow::Result<()> {
        for (index, writer) in self.idle.iter_mut().enumerate() {
            writer.client = connect(address).await?;
            if index == 0 {
                writer.client.simple_query("SELECT 1").await?;
            }
        }
        Ok(())
    }

    /// Reads every row and compares it with what was acknowledged.
    ///
    /// # Errors
    /// The rows could not be read.
    pub async fn check(&self) -> anyhow::Result<Findings> {
        let mut findings = Findings::default();
        for writer in &self.idle {
            let select = writer.client.prepare_typed(SELECT, &[Type::INT8]).await?;
            let mut rows = Vec::new();
            for row in writer.client.query(&select, &[&writer.id]).await? {
                rows.push((row.try_get::<_, i64>(0)?, row.try_get::<_, String>(1)?));
            }
            count(writer.id, &writer.written, &rows, &mut findings);
        }
        Ok(findings)
    }
}

/// Adds one client's rows to the findings.
fn count(client: i64, written: &Written, rows: &[(i64, String)], findings: &mut Findings) {
    let mut numbers = BTreeSet::new();
    for (number, text) in rows {
        let expected = (0..written.next).contains(number) && *text == body(client, *number);
        if expected && numbers.insert(*number) {
            continue;
        }
        findings.wrong += 1;
    }
    let unknown_found = written.unknown.intersection(&numbers).count() as u64;
    let acknowledged = written.next as u64 - written.unknown.len() as u64;
    let found = numbers.len() as u64 - unknown_found;
    findings.acknowledged += acknowledged;
    findings.found += found;
    findings.lost += acknowledged - found;
    findings.unknown += written.unknown.len() as u64;
    findings.unknown_found += unknown_found;
}

fn body(client: i64, number: i64) -> String {
    format!("row {number} of client {client}")
}

async fn connect(address: &str) -> anyhow::Result<Client> {
    let (host, port) = address.rsplit_once(':').context("the address has no port")?;
    let mut config = tokio_postgres::Config::new();
    config.host(host.trim_matches(['[', ']'])).port(port.parse()?).user("postgres").dbname("postgres");
    let (client, connection) = config.connect(NoTls).await.context("cannot connect to the node")?;
    // Its errors reach whoever waits for an answer.
    tokio::spawn(connection);
    Ok(client)
}

/// Writes rows until told to stop or the first error. The number of a row without an answer is never used again.
async fn write(
    mut writer: Writer,
    stop: Arc<AtomicBool>,
    acknowledged: Counter,
) -> (Writer, Option<tokio_postgres::Error>) {
    let insert = match writer.client.prepare_typed(INSERT, &[Type::INT8, Type::INT8, Type::TEXT]).await {
        Ok(insert) => insert,
        Err(error) => return (writer, Some(error)),
    };
    while !stop.load(Ordering::Relaxed) {
        let number = writer.written.next;
        writer.written.next += 1;
        let text = body(writer.id, number);
        if let Err(error) = writer.client.execute(&insert, &[&writer.id, &number, &text]).await {
            writer.written.unknown.insert(number);
            return (writer, Some(error));
        }
        acknowledged.add();
    }
    (writer, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(rows: &[(i64, &str)]) -> Findings {
        let written = Written { next: 4, unknown: BTreeSet::from([2]) };
        let rows: Vec<(i64, String)> = rows.iter().map(|(number, text)| (*number, (*text).to_owned())).collect();
        let mut findings = Findings::default();
        count(7, &written, &rows, &mut findings);
        findings
    }

    #[test]
    fn a_row_without_an_answer_may_be_there_or_not() {
        let all =
            [(0, "row 0 of client 7"), (1, "row 1 of client 7"), (3, "row 3 of client 7"), (2, "row 2 of client 7")];
        let good = Findings { acknowledged: 3, found: 3, unknown: 1, ..Findings::default() };
        assert_eq!(counted(&all), Findings { unknown_found: 1, ..good });
        assert_eq!(counted(&all[..3]), good);
    }

    #[test]
    fn missing_changed_and_foreign_rows_are_seen() {
        let rows =
            [(0, "row 0 of client 7"), (1, "row 1 of client 8"), (9, "row 9 of client 7"), (0, "row 0 of client 7")];
        let expected = Findings { acknowledged: 3, found: 1, lost: 2, wrong: 3, unknown: 1, unknown_found: 0 };
        assert_eq!(counted(&rows), expected);
    }
}
