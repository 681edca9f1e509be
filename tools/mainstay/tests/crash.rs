//! A node that dies at any moment keeps what it acknowledged, whole transactions, and nothing that was taken back.

mod support;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fs, io};

use parking_lot::Mutex;
use support::ledger::{Clients, Found, Ledger, moment, went_away, write};
use support::{LIMIT, Random, Running, SMALL, Starting, connect, eventually, runtime};
use tokio_postgres::error::SqlState;

const CLIENTS: u64 = 16;
const KILLS: usize = 20;

/// Kills a node with SIGKILL under load, and answers the ledger's word on what the next one holds.
fn kill_under_load(data_dir: &Path, ledger: &Ledger, random: &mut Random, settings: [&[&str]; 2], more: u64) -> Found {
    let node = Running::start(data_dir, settings[0]);
    let clients = Clients::start(&node, ledger, CLIENTS, random);
    ledger.wait_for_more(1 + random.below(more) as usize);
    std::thread::sleep(moment(random, Duration::from_millis(5)));
    node.kill();
    clients.end();
    let node = Running::start(data_dir, settings[1]);
    let found = ledger.check(&node);
    node.kill();
    found
}

#[test]
fn twenty_kills_under_sixteen_clients_lose_nothing_and_leave_no_half_transaction() {
    kill_again_and_again(KILLS);
}

#[test]
#[ignore = "soak: half an hour of kills"]
fn a_thousand_kills_under_sixteen_clients_lose_nothing_and_leave_no_half_transaction() {
    kill_again_and_again(50 * KILLS);
}

fn kill_again_and_again(kills: usize) {
    let mut random = Random::new("kills");
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    let ledger = Ledger::new(100);
    let node = Running::start(&data_dir, &SMALL);
    ledger.create_tables(&node, CLIENTS);
    node.kill();
    let (mut found, mut unknown, mut unknown_present) = (Found::default(), 0, 0);
    for round in 0..kills {
        // Now with checkpoints all the time, now with none: then recovery replays everything since the last one.
        let settings: [&str; 2] = if random.below(2) == 0 { ["1MiB", "1s"] } else { ["1GiB", "1d"] };
        let settings = ["--checkpoint-wal-bytes", settings[0], "--checkpoint-interval-s", settings[1]];
        let settings = [&settings[..], &SMALL[..2]].concat();
        found = kill_under_load(&data_dir, &ledger, &mut random, [&settings, &settings], 400);
        println!("kill {round}: {found:?}");
        unknown += found.unknown;
        unknown_present += found.unknown_present;
    }
    println!("{kills} kills: {unknown} transactions without an answer, {unknown_present} of them there; {found:?}");
    assert!(found.acknowledged >= kills && found.rolled_back > 0, "{found:?}");
    assert!(unknown >= kills, "the kills met no transaction in flight: {unknown}");
    assert!(found.present >= found.acknowledged);
}

#[test]
fn kills_during_checkpoints_and_recycling_lose_nothing() {
    let mut random = Random::new("checkpoints");
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    let settings = [&SMALL[..], &["--wal-keep-bytes", "0"]].concat();
    let ledger = Ledger::new(3);
    let node = Running::start(&data_dir, &settings);
    ledger.create_tables(&node, CLIENTS);
    let first_segment = data_dir.join("wal/000000010000000000000001");
    assert!(first_segment.exists());
    // Every row that is long fills a hundredth of a segment: a checkpoint is under way nearly always.
    write(&node, &ledger, 600, &mut random);
    eventually("segments behind a checkpoint go", LIMIT, || !first_segment.exists());
    node.kill();
    for round in 0..8 {
        let found = kill_under_load(&data_dir, &ledger, &mut random, [&settings, &settings], 300);
        println!("kill {round}: {found:?}");
    }
}

#[test]
fn a_node_killed_while_it_starts_for_the_first_time_starts_again() {
    let mut random = Random::new("first start");
    let directory = tempfile::tempdir().unwrap();
    let begun = Instant::now();
    Running::start(&directory.path().join("measured"), &SMALL).kill();
    let limit = begun.elapsed();
    let mut early = 0;
    for round in 0..12 {
        let data_dir = directory.path().join(round.to_string());
        early += usize::from(Starting::launch(&data_dir, &SMALL).kill_after(moment(&mut random, limit)));
        let node = Running::start(&data_dir, &SMALL);
        node.rows("CREATE TABLE t (a int); INSERT INTO t VALUES (1)");
        node.kill();
        let node = Running::start(&data_dir, &SMALL);
        assert_eq!(node.rows("SELECT a FROM t"), [["1"]]);
    }
    println!("{early} of 12 were killed before they were ready");
    assert!(early > 0);
}

#[test]
fn a_node_killed_right_after_it_is_ready_has_lost_nothing() {
    let mut random = Random::new("right after start");
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    let ledger = Ledger::new(50);
    let node = Running::start(&data_dir, &[]);
    ledger.create_tables(&node, CLIENTS);
    write(&node, &ledger, 200, &mut random);
    node.kill();
    for _ in 0..5 {
        Running::start(&data_dir, &[]).kill();
    }
    ledger.check(&Running::start(&data_dir, &[]));
}

#[test]
fn kills_during_recovery_lose_nothing() {
    let mut random = Random::new("recovery");
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    let settings = ["--wal-segment-size-bytes", "1MiB", "--checkpoint-wal-bytes", "1GiB"];
    let ledger = Ledger::new(10);
    let node = Running::start(&data_dir, &settings);
    ledger.create_tables(&node, CLIENTS);
    let clients = Clients::start(&node, &ledger, CLIENTS, &mut random);
    ledger.wait_for_more(2000);
    node.kill();
    clients.end();

    // The engine's files go, so that recovery is the longest there is; then they stay as the kills leave them.
    // A node that was killed early enough has not made them again.
    let forget = || match fs::remove_dir_all(data_dir.join("engine")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        removed => removed.unwrap(),
    };
    forget();
    let begun = Instant::now();
    let node = Running::start(&data_dir, &settings);
    let whole = begun.elapsed();
    node.kill();
    let (mut early, mut rounds) = (0, 0);
    while early < 6 {
        assert!(rounds < 100, "only {early} of {rounds} kills came before the node was ready, which takes {whole:?}");
        if rounds % 4 == 0 {
            forget();
        }
        early += u32::from(Starting::launch(&data_dir, &settings).kill_after(moment(&mut random, whole)));
        rounds += 1;
    }
    println!("{early} of {rounds} were killed before they were ready");
    let found = ledger.check(&Running::start(&data_dir, &settings));
    println!("{found:?}");
}

#[test]
fn without_its_engine_files_a_node_rebuilds_every_row_from_the_wal() {
    let mut random = Random::new("rebuild");
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    let ledger = Ledger::new(50);
    let node = Running::start(&data_dir, &SMALL);
    ledger.create_tables(&node, CLIENTS);
    node.kill();
    for after_kill in [true, false] {
        let node = Running::start(&data_dir, &SMALL);
        let clients = Clients::start(&node, &ledger, CLIENTS, &mut random);
        ledger.wait_for_more(800);
        if after_kill {
            node.kill();
        } else {
            assert_eq!(node.stop("TERM").code, Some(0));
        }
        clients.end();
        fs::remove_dir_all(data_dir.join("engine")).unwrap();
        let found = ledger.check(&Running::start(&data_dir, &SMALL));
        println!("{found:?}");
    }
    // An empty folder is as good as none.
    fs::remove_dir_all(data_dir.join("engine")).unwrap();
    fs::create_dir(data_dir.join("engine")).unwrap();
    ledger.check(&Running::start(&data_dir, &SMALL));
}

#[test]
fn without_its_engine_files_a_node_whose_wal_no_longer_reaches_back_refuses_to_start() {
    let mut random = Random::new("no rebuild");
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    let settings = [&SMALL[..], &["--wal-keep-bytes", "0"]].concat();
    let ledger = Ledger::new(3);
    let node = Running::start(&data_dir, &settings);
    ledger.create_tables(&node, CLIENTS);
    let first_segment = data_dir.join("wal/000000010000000000000001");
    let clients = Clients::start(&node, &ledger, CLIENTS, &mut random);
    eventually("segments behind a checkpoint go", LIMIT, || !first_segment.exists());
    node.kill();
    clients.end();
    let engine = support::set_aside(&data_dir.join("engine"));
    let line = support::refused(&data_dir, &settings);
    let names =
        fs::read_dir(data_dir.join("wal")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    // Beside the segments lie files that wait to become one.
    let is_segment = |name: &String| name.len() == 24 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    let oldest = names.filter(is_segment).min().unwrap();
    let number = u64::from_str_radix(&oldest[16..], 16).unwrap();
    assert!(line.contains(&format!("0/{number:X}000")), "{oldest:?} is the oldest and not named: {line}");
    let _ = fs::remove_dir_all(data_dir.join("engine"));
    fs::rename(engine, data_dir.join("engine")).unwrap();
    ledger.check(&Running::start(&data_dir, &settings));
}

#[test]
fn sigterm_under_sixteen_clients_is_quick_loses_nothing_and_the_next_start_is_clean() {
    let mut random = Random::new("sigterm");
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    let ledger = Ledger::new(50);
    let mut node = Running::start(&data_dir, &[]);
    ledger.create_tables(&node, CLIENTS);
    for _ in 0..4 {
        let clients = Clients::start(&node, &ledger, CLIENTS, &mut random);
        ledger.wait_for_more(1 + random.below(500) as usize);
        let begun = Instant::now();
        let output = node.stop("TERM");
        let took = begun.elapsed();
        println!("stopped in {took:?}");
        assert!(output.code == Some(0) && took < Duration::from_secs(5), "{took:?} {output:?}");
        clients.end();
        node = Running::start(&data_dir, &["--log-level", "warn"]);
        ledger.check(&node);
        let output = node.stop("TERM");
        assert_eq!((output.code, output.stderr.as_str()), (Some(0), ""), "a clean start has nothing to warn of");
        node = Running::start(&data_dir, &[]);
    }
}

#[test]
fn a_transaction_over_many_segments_is_there_as_a_whole_or_not_at_all() {
    const ROWS: usize = 300;
    let mut random = Random::new("large transactions");
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    Running::start(&data_dir, &SMALL).rows("CREATE TABLE large (number int, part int, body text)");
    let mut acknowledged = BTreeSet::new();
    let (mut next, mut unanswered) = (0, 0);
    for round in 0..8 {
        let node = Running::start(&data_dir, &SMALL);
        let address = node.address.clone();
        let (sender, answers) = std::sync::mpsc::channel();
        let first = next;
        let load = std::thread::spawn(move || {
            runtime().block_on(async {
                let client = connect(&address).await;
                let body = "y".repeat(10_000);
                for number in first.. {
                    let rows: Vec<_> = (0..ROWS).map(|part| format!("({number}, {part}, '{body}')")).collect();
                    if client.batch_execute(&format!("INSERT INTO large VALUES {}", rows.join(", "))).await.is_err() {
                        return number + 1;
                    }
                    sender.send(number).unwrap();
                }
                unreachable!("there are numbers left")
            })
        });
        acknowledged.insert(answers.recv_timeout(LIMIT).unwrap());
        std::thread::sleep(moment(&mut random, Duration::from_millis(400)));
        node.kill();
        next = load.join().unwrap();
        acknowledged.extend(answers.iter());
        if round % 3 == 2 {
            fs::remove_dir_all(data_dir.join("engine")).unwrap();
        }
        let node = Running::start(&data_dir, &SMALL);
        let mut found = BTreeSet::new();
        for row in
            node.rows("SELECT number, count(*), count(DISTINCT part), min(length(body)) FROM large GROUP BY number")
        {
            assert_eq!(row[1..], [ROWS.to_string(), ROWS.to_string(), "10000".to_owned()], "half of {}", row[0]);
            found.insert(row[0].parse::<u64>().unwrap());
        }
        let lost: Vec<_> = acknowledged.difference(&found).collect();
        assert!(lost.is_empty(), "lost: {lost:?}");
        assert!(found.iter().all(|number| *number < next), "nobody wrote the last of {found:?}");
        unanswered += found.len() - acknowledged.len();
        acknowledged = found;
    }
    println!("{} transactions are there, {unanswered} of them were not answered", acknowledged.len());
}

/// The tables of `CREATE TABLE` transactions: what was acknowledged, and what was asked for.
#[derive(Clone, Default)]
struct Tables {
    acknowledged: Arc<Mutex<BTreeSet<u64>>>,
    asked: Arc<Mutex<BTreeSet<u64>>>,
    begun: Arc<Mutex<u64>>,
}

impl Tables {
    async fn client(self, address: String) {
        let connection = connect(&address).await;
        loop {
            let table = {
                let mut begun = self.begun.lock();
                *begun += 1;
                *begun
            };
            // A third of them end in ROLLBACK.
            let commits = table % 3 != 0;
            let statements = [
                "BEGIN".to_owned(),
                format!("CREATE TABLE made_{table} (a int PRIMARY KEY, b text)"),
                format!("INSERT INTO made_{table} VALUES (1, 'one')"),
                format!("ALTER TABLE made_{table} ADD COLUMN c int DEFAULT 7"),
                format!("INSERT INTO made_{table} VALUES (2, 'two', 2)"),
                format!("CREATE INDEX made_{table}_b ON made_{table} (b)"),
                format!("INSERT INTO made_{table} VALUES (3, 'three', 3)"),
                (if commits { "COMMIT" } else { "ROLLBACK" }).to_owned(),
            ];
            for statement in &statements {
                if statement == "COMMIT" {
                    self.asked.lock().insert(table);
                }
                if let Err(error) = connection.simple_query(statement).await {
                    assert!(went_away(&error), "{statement}: {error:?}");
                    return;
                }
            }
            if commits {
                self.acknowledged.lock().insert(table);
            }
        }
    }

    /// Checks every table, and drops what was not asked for from the books.
    fn check(&self, node: &Running) {
        let begun = *self.begun.lock();
        runtime().block_on(async {
            let connection = connect(&node.address).await;
            for table in 1..=begun {
                let rows = connection.simple_query(&format!("SELECT a, b, c FROM made_{table} ORDER BY a")).await;
                let acknowledged = self.acknowledged.lock().contains(&table);
                match rows {
                    Ok(messages) => {
                        let rows: Vec<_> = messages.into_iter().filter_map(support::row).collect();
                        assert_eq!(rows, [["1", "one", "7"], ["2", "two", "2"], ["3", "three", "3"]], "made_{table}");
                        assert!(self.asked.lock().contains(&table), "made_{table} was never committed");
                        self.acknowledged.lock().insert(table);
                    }
                    Err(error) => {
                        assert_eq!(error.code(), Some(&SqlState::UNDEFINED_TABLE), "made_{table}: {error:?}");
                        assert!(!acknowledged, "made_{table} was acknowledged and is gone");
                        self.asked.lock().remove(&table);
                    }
                }
            }
        });
    }
}

#[test]
fn a_table_made_in_a_transaction_is_there_exactly_when_its_rows_are() {
    let mut random = Random::new("tables");
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    let tables = Tables::default();
    for round in 0..6 {
        let node = Running::start(&data_dir, &SMALL);
        let (address, clients) = (node.address.clone(), tables.clone());
        let load = std::thread::spawn(move || {
            runtime().block_on(async {
                let tasks: Vec<_> = (0..8).map(|_| tokio::spawn(clients.clone().client(address.clone()))).collect();
                for task in tasks {
                    task.await.unwrap();
                }
            });
        });
        let target = tables.acknowledged.lock().len() + 1 + random.below(30) as usize;
        eventually("tables are made", LIMIT, || {
            assert!(!load.is_finished(), "the clients have given up");
            tables.acknowledged.lock().len() >= target
        });
        std::thread::sleep(moment(&mut random, Duration::from_millis(5)));
        node.kill();
        load.join().unwrap();
        if round % 3 == 2 {
            fs::remove_dir_all(data_dir.join("engine")).unwrap();
        }
        tables.check(&Running::start(&data_dir, &SMALL));
    }
    println!("{} of {} tables are there", tables.acknowledged.lock().len(), tables.begun.lock());
}
