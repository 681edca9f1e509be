//! Clients that write down what they sent and what they were told, so that a test can tell what a database must hold.
//!
//! The unit of the ledger is a transaction with a number that is never used again. A *single* is one row in `first`. A
//! *triple* is a row in `first` and two in `second`, which has no primary key, and counts in its client's row of
//! `counters`; triples are also rolled back, or left open when the node dies.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::{LIMIT, Random, Running, eventually, runtime, try_connect};

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS first (unit bigint PRIMARY KEY, client int NOT NULL, body text NOT NULL);
    CREATE TABLE IF NOT EXISTS second (unit bigint NOT NULL, part int NOT NULL, body text NOT NULL);
    CREATE TABLE IF NOT EXISTS counters (client int PRIMARY KEY, triples bigint NOT NULL);";

/// What the database must hold of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Rolled back, or its end was never asked for: nothing, ever.
    Absent,
    /// Its end was asked for and not answered: everything or nothing.
    Unknown,
    /// Acknowledged, or found once: everything, for ever.
    Present,
}

#[derive(Clone, Copy, Debug)]
struct Unit {
    client: u64,
    triple: bool,
    fate: Fate,
}

#[derive(Default)]
struct Book {
    units: BTreeMap<u64, Unit>,
    next: u64,
    acknowledged: usize,
    rolled_back: usize,
    /// Answers that no healthy node gives.
    complaints: Vec<String>,
}

/// What was sent and what was answered.
#[derive(Clone, Default)]
pub struct Ledger {
    book: Arc<Mutex<Book>>,
    /// The body of every n-th transaction is long.
    long_every: u64,
}

/// What a check has found.
#[derive(Clone, Copy, Debug, Default)]
pub struct Found {
    pub acknowledged: usize,
    pub present: usize,
    /// Transactions whose answer was missing, and of those the ones that are there.
    pub unknown: usize,
    pub unknown_present: usize,
    pub rolled_back: usize,
}

impl Ledger {
    /// A ledger of which every n-th transaction writes long rows.
    pub fn new(long_every: u64) -> Ledger {
        Ledger { book: Arc::default(), long_every }
    }

    /// Makes the tables, and the counters of that many clients.
    pub fn create_tables(&self, node: &Running, clients: u64) {
        node.rows(TABLES);
        for client in 0..clients {
            node.rows(&format!("INSERT INTO counters VALUES ({client}, 0)"));
        }
    }

    /// How many transactions were acknowledged.
    pub fn acknowledged(&self) -> usize {
        self.book.lock().acknowledged
    }

    /// Waits until that many more transactions were acknowledged.
    pub fn wait_for_more(&self, count: usize) {
        let target = self.acknowledged() + count;
        eventually("the clients get on", LIMIT, || {
            let book = self.book.lock();
            assert!(book.complaints.is_empty(), "{:?}", book.complaints);
            book.acknowledged >= target
        });
    }

    fn begin(&self, client: u64, triple: bool) -> u64 {
        let mut book = self.book.lock();
        let unit = book.next;
        book.next += 1;
        book.units.insert(unit, Unit { client, triple, fate: Fate::Absent });
        unit
    }

    /// To be called before the message that may commit the transaction is sent.
    fn asked(&self, unit: u64) {
        self.book.lock().units.get_mut(&unit).unwrap().fate = Fate::Unknown;
    }

    fn answered(&self, unit: u64) {
        let mut book = self.book.lock();
        book.units.get_mut(&unit).unwrap().fate = Fate::Present;
        book.acknowledged += 1;
    }

    fn complain(&self, complaint: String) {
        self.book.lock().complaints.push(complaint);
    }

    fn body(&self, unit: u64, part: u64) -> String {
        let long = unit.is_multiple_of(self.long_every);
        let length = if long { 10_000 + unit % 20_000 } else { unit * 7 % 90 };
        format!("{unit}/{part}/{}", "x".repeat(length as usize))
    }

    /// Compares a node with the ledger, and writes down what became of the unknown.
    pub fn check(&self, node: &Running) -> Found {
        let mut parts: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        let mut book = self.book.lock();
        assert!(book.complaints.is_empty(), "{:?}", book.complaints);
        for row in
            node.rows("SELECT unit, 0, body, client FROM first UNION ALL SELECT unit, part, body, -1 FROM second")
        {
            let (unit, part): (u64, u64) = (row[0].parse().unwrap(), row[1].parse().unwrap());
            assert_eq!(row[2], self.body(unit, part), "the content of part {part} of transaction {unit}");
            let known = book.units.get(&unit).unwrap_or_else(|| panic!("nobody wrote {unit}"));
            assert!(part > 0 || row[3] == known.client.to_string(), "{row:?} was written by {known:?}");
            parts.entry(unit).or_default().push(part);
        }
        let mut found = Found { acknowledged: book.acknowledged, rolled_back: book.rolled_back, ..Found::default() };
        let mut triples: BTreeMap<u64, u64> = BTreeMap::new();
        for (number, unit) in &mut book.units {
            let mut there = parts.remove(number).unwrap_or_default();
            there.sort_unstable();
            let whole: &[u64] = if unit.triple { &[0, 1, 2] } else { &[0] };
            assert!(there.is_empty() || there == whole, "a half transaction: of {number}, {unit:?}, parts {there:?}");
            let present = !there.is_empty();
            match unit.fate {
                Fate::Present => assert!(present, "lost: transaction {number}, {unit:?}"),
                Fate::Absent => assert!(!present, "never committed and yet there: transaction {number}, {unit:?}"),
                Fate::Unknown => {
                    found.unknown += 1;
                    found.unknown_present += usize::from(present);
                    unit.fate = if present { Fate::Present } else { Fate::Absent };
                }
            }
            found.present += usize::from(present);
            *triples.entry(unit.client).or_default() += u64::from(present && unit.triple);
        }
        for row in node.rows("SELECT client, triples FROM counters") {
            let expected = triples.get(&row[0].parse().unwrap()).copied().unwrap_or(0);
            assert_eq!(row[1], expected.to_string(), "the counter of client {}", row[0]);
        }
        found
    }
}

/// Clients at work, each on its connection, until their node goes away or the load is stopped.
pub struct Clients {
    stop: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Clients {
    /// Starts that many clients on a few threads.
    pub fn start(node: &Running, ledger: &Ledger, clients: u64, random: &mut Random) -> Clients {
        let stop = Arc::new(AtomicBool::new(false));
        let (address, ledger, work_stop) = (node.address.clone(), ledger.clone(), stop.clone());
        let randoms: Vec<Random> = (0..clients).map(|_| random.split()).collect();
        let thread = std::thread::spawn(move || {
            runtime().block_on(async {
                let mut tasks = tokio::task::JoinSet::new();
                for (client, random) in randoms.into_iter().enumerate() {
                    let worker = Worker { client: client as u64, ledger: ledger.clone(), random };
                    tasks.spawn(worker.run(address.clone(), work_stop.clone()));
                }
                tasks.join_all().await;
            });
        });
        Clients { stop, threads: vec![thread] }
    }

    /// Waits until all clients have seen their node go away.
    pub fn end(self) {
        for thread in self.threads {
            thread.join().unwrap();
        }
    }

    /// Lets every client finish its transaction and leave.
    pub fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.end();
    }
}

struct Worker {
    client: u64,
    ledger: Ledger,
    random: Random,
}

impl Worker {
    async fn run(mut self, address: String, stop: Arc<AtomicBool>) {
        let Ok(connection) = try_connect(&address).await else { return };
        while !stop.load(Ordering::Relaxed) {
            let done = match self.random.below(6) {
                0 | 1 => self.single(&connection).await,
                2 | 3 => self.triple(&connection, true).await,
                4 => self.triple(&connection, false).await,
                _ => self.triple_in_one_string(&connection).await,
            };
            let Err(error) = done else { continue };
            if !went_away(&error) {
                self.ledger.complain(format!("{error:?}"));
            }
            return;
        }
    }

    async fn single(&mut self, connection: &Client) -> Result<(), tokio_postgres::Error> {
        let unit = self.ledger.begin(self.client, false);
        self.ledger.asked(unit);
        run(connection, &self.insert_first(unit)).await?;
        self.ledger.answered(unit);
        Ok(())
    }

    async fn triple(&mut self, connection: &Client, commit: bool) -> Result<(), tokio_postgres::Error> {
        let unit = self.ledger.begin(self.client, true);
        run(connection, "BEGIN").await?;
        run(connection, &self.insert_first(unit)).await?;
        run(connection, &self.insert_second(unit, 1)).await?;
        run(connection, &self.insert_second(unit, 2)).await?;
        run(connection, &self.count()).await?;
        if commit {
            self.ledger.asked(unit);
            run(connection, "COMMIT").await?;
            self.ledger.answered(unit);
        } else {
            run(connection, "ROLLBACK").await?;
            self.ledger.book.lock().rolled_back += 1;
        }
        Ok(())
    }

    async fn triple_in_one_string(&mut self, connection: &Client) -> Result<(), tokio_postgres::Error> {
        let unit = self.ledger.begin(self.client, true);
        let statements =
            [self.insert_second(unit, 1), self.insert_first(unit), self.insert_second(unit, 2), self.count()];
        self.ledger.asked(unit);
        run(connection, &statements.join("; ")).await?;
        self.ledger.answered(unit);
        Ok(())
    }

    fn insert_first(&self, unit: u64) -> String {
        format!("INSERT INTO first VALUES ({unit}, {}, '{}')", self.client, self.ledger.body(unit, 0))
    }

    fn insert_second(&self, unit: u64, part: u64) -> String {
        format!("INSERT INTO second VALUES ({unit}, {part}, '{}')", self.ledger.body(unit, part))
    }

    fn count(&self) -> String {
        format!("UPDATE counters SET triples = triples + 1 WHERE client = {}", self.client)
    }
}

async fn run(connection: &Client, sql: &str) -> Result<(), tokio_postgres::Error> {
    tokio::time::timeout(LIMIT, connection.simple_query(sql)).await.expect("a statement got no answer").map(drop)
}

/// Whether an error says that the node is gone or going, which leaves open what became of the statement.
pub fn went_away(error: &tokio_postgres::Error) -> bool {
    match error.code() {
        None => true,
        Some(code) => [SqlState::ADMIN_SHUTDOWN, SqlState::CANNOT_CONNECT_NOW].contains(code),
    }
}

/// Runs a load until that many transactions were acknowledged, and lets it finish.
pub fn write(node: &Running, ledger: &Ledger, count: usize, random: &mut Random) {
    let clients = Clients::start(node, ledger, 16, random);
    ledger.wait_for_more(count);
    clients.stop();
}

/// A random time of at most that long.
pub fn moment(random: &mut Random, limit: Duration) -> Duration {
    Duration::from_micros(random.below(limit.as_micros().max(1) as u64))
}
