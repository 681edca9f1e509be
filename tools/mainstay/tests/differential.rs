//! Random SQL of eight clients at once, on a node and on plain SQLite: each client sees the same answers and errors, and in
//! the end both hold the same; so does the node when its engine was deleted and made again from the log, in between and at
//! the end.
//!
//! The clients share tables and indexes, triggers, groups of commits and the writer, but no rows, so what each has to see
//! does not depend on what the others do. What they do change together, counters, must come to the sum of what was
//! committed. `TEST_SEED` runs the same statements again; how they meet is up to the machine.

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::thread::spawn;
use std::time::Duration;

use support::contents::{Contents, contents, rows, tables};
use support::dice::{COUNTERS, Dice, SCHEMA, SHARED};
use support::model::{Answer, Model, Outcome, Step};
use support::{LIMIT, Random, Running, connect, row, runtime};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

const CLIENTS: u64 = 8;
/// Transactions of each client before the engine is made again, and after.
const TRANSACTIONS: u64 = 400;
/// Seeds of the long test.
const SEEDS: u64 = 40;
/// How long a statement may run that has to be cancelled.
const PATIENCE: Duration = Duration::from_millis(15);
/// After so long without an answer, it is cancelled once more: the first may have come before the statement.
const AGAIN: Duration = Duration::from_millis(500);
/// What a transaction ends with that sees one state and would write when others have: which one that is, is up to the machine.
const OVERTAKEN: &str = "40001";

#[test]
fn eight_clients_see_what_plain_sqlite_says_and_the_log_holds_it_all() {
    compare(&mut Random::new("differential"));
}

#[test]
#[ignore = "soak: many seeds"]
fn many_seeds_of_eight_clients() {
    let mut random = Random::new("differential");
    for seed in 0..SEEDS {
        println!("seed {seed} of {SEEDS}");
        compare(&mut random);
    }
}

/// One client: where it is, and what it has to see.
struct Player {
    dice: Dice,
    model: Model,
    done: Vec<String>,
}

fn compare(random: &mut Random) {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let node = Running::start(&data, &[]);
    node.rows(SCHEMA);
    let mut player =
        |client| Player { dice: Dice::new(random.split(), client), model: Model::new(SCHEMA), done: Vec::new() };
    let players: Vec<Player> = (0..CLIENTS).map(&mut player).collect();
    let players = play(&node, players);
    node.kill();
    let node = made_again(&data, directory.path(), &players, "first");
    let players = play(&node, players);
    assert_eq!(node.stop("TERM").code, Some(0));
    made_again(&data, directory.path(), &players, "second").kill();
    report(&players);
}

/// Says how often each outcome was seen, and fails if the dice missed one of those that matter.
fn report(players: &[Player]) {
    let mut seen = BTreeMap::new();
    for outcome in players.iter().flat_map(|player| &player.done) {
        let code = outcome.rsplit_once(" -- ").map_or("", |(_, code)| code);
        *seen.entry(code).or_insert(0_u64) += 1;
    }
    println!("outcomes: {seen:?}");
    let matter = [
        "", "22P02", "23502", "23503", "23505", "23514", "25006", "25P02", "3B001", OVERTAKEN, "42P01", "57014",
        "P0001",
    ];
    for code in matter {
        assert!(seen.contains_key(code), "none of them ended with {code}");
    }
}

/// Lets the clients run at once.
fn play(node: &Running, players: Vec<Player>) -> Vec<Player> {
    let threads: Vec<_> = players
        .into_iter()
        .map(|mut player| {
            let address = node.address.clone();
            spawn(move || {
                runtime().block_on(async {
                    let client = connect(&address).await;
                    for _ in 0..TRANSACTIONS {
                        for step in player.dice.transaction() {
                            // What a failed block answers is soon known.
                            let sql = matches!(step, Step::Statement(_) | Step::Script(_) | Step::Savepoint(_));
                            if !(sql && player.model.is_failed()) || player.dice.one_in(4) {
                                player.step(&client, &step).await;
                            }
                        }
                    }
                });
                player
            })
        })
        .collect();
    threads.into_iter().map(|thread| thread.join().expect("a client saw what it should not")).collect()
}

impl Player {
    async fn step(&mut self, client: &Client, step: &Step) {
        let mut expected = self.model.run(step);
        let single = matches!(step, Step::Statement(sql) if !sql.contains("RETURNING"));
        let found = match step {
            Step::Endless { sql, .. } => cancelled(client, sql).await,
            // What is told of a statement that returns rows is told as text in the simple protocol only.
            Step::Statement(sql) if single && self.dice.one_in(3) && !reads(sql) => prepared(client, sql).await,
            _ => simple(client, step).await,
        };
        if found.as_ref().is_err_and(|state| state == OVERTAKEN)
            && let Some(overtaken) = self.model.overtake()
        {
            expected = overtaken;
        }
        self.done.push(format!("{} -- {}", step.sql(), found.as_ref().err().map_or("", String::as_str)));
        let last = self.done.len().saturating_sub(30);
        assert!(
            same(&found, &expected),
            "client {}, after {} steps, the last of them:\n{}\nthe node says {found:?}\n SQLite says {expected:?}",
            self.dice.client,
            self.done.len(),
            self.done[last..].join("\n"),
        );
    }
}

/// Of mistakes in a statement, only their class is compared: SQLite has no codes for them.
fn same(found: &Outcome, expected: &Outcome) -> bool {
    match (found, expected) {
        (Err(found), Err(expected)) => found == expected || (expected == "42" && found.starts_with("42")),
        _ => found == expected,
    }
}

fn reads(sql: &str) -> bool {
    ["SELECT", "VALUES", "WITH w "].iter().any(|start| sql.starts_with(start))
}

fn state(error: &tokio_postgres::Error) -> String {
    error.code().unwrap_or_else(|| panic!("{error:?}")).code().to_owned()
}

async fn simple(client: &Client, step: &Step) -> Outcome {
    let answered = tokio::time::timeout(LIMIT, client.simple_query(&step.sql())).await.expect("no answer");
    answers(answered, &step.statements())
}

fn answers(answered: Result<Vec<SimpleQueryMessage>, tokio_postgres::Error>, statements: &[String]) -> Outcome {
    let messages = answered.map_err(|error| state(&error))?;
    let (mut answers, mut found) = (Vec::new(), Vec::new());
    for message in messages {
        if let SimpleQueryMessage::CommandComplete(count) = message {
            answers.push(Answer::of(&statements[answers.len()], std::mem::take(&mut found), count));
        } else {
            found.extend(row(message));
        }
    }
    assert_eq!(answers.len(), statements.len());
    Ok(answers)
}

async fn prepared(client: &Client, sql: &str) -> Outcome {
    let count = tokio::time::timeout(LIMIT, client.execute(sql, &[])).await.expect("no answer");
    count.map(|count| vec![Answer::of(sql, Vec::new(), count)]).map_err(|error| state(&error))
}

/// Runs a statement that ends by being cancelled.
async fn cancelled(client: &Client, sql: &str) -> Outcome {
    let cancel = client.cancel_token();
    let mut patience = PATIENCE;
    let query = client.simple_query(sql);
    tokio::pin!(query);
    for _ in 0..20 {
        match tokio::time::timeout(patience, &mut query).await {
            Ok(answered) => return answers(answered, &[sql.to_owned()]),
            Err(_) => cancel.cancel_query(NoTls).await.unwrap(),
        }
        patience = AGAIN;
    }
    panic!("it cannot be cancelled: {sql}");
}

/// Compares a stopped node with plain SQLite, deletes its engine, starts it, which makes it again from the log, and compares
/// with what was there. The node runs again afterwards.
fn made_again(data: &Path, aside: &Path, players: &[Player], round: &str) -> Running {
    let (engine, old) = (data.join("engine"), aside.join(round));
    std::fs::rename(&engine, &old).unwrap();
    // With SQLite's own WAL file, whatever of it is in the database file.
    let before = contents(&old);
    compare_with_models(&before, &old, players);
    let node = Running::start(data, &[]);
    assert_eq!(node.stop("TERM").code, Some(0));
    let after = contents(&engine);
    for (table, rows) in &before {
        assert_eq!(Some(rows), after.get(table), "{table}, made again from the log");
    }
    assert_eq!(before.len(), after.len());
    Running::start(data, &[])
}

fn compare_with_models(found: &Contents, engine: &Path, players: &[Player]) {
    let node = rusqlite::Connection::open(engine.join("main.sqlite")).unwrap();
    for player in players {
        let (client, model) = (player.dice.client, &player.model.connection);
        for table in SHARED {
            let sql = format!("SELECT * FROM {table} WHERE owner = {client}");
            assert_eq!(rows(&node, &sql), rows(model, &sql), "{table} of client {client}");
        }
        let prefix = format!("own{client}_");
        let own: Vec<String> = tables(model).into_iter().filter(|table| table.starts_with(&prefix)).collect();
        for table in &own {
            assert_eq!(found.get(table), Some(&rows(model, &format!("SELECT * FROM {table}"))), "{table}");
        }
        let of_client =
            format!("(tbl_name LIKE 'own{client}\\_%' ESCAPE '\\' OR tbl_name LIKE 'noise{client}\\_%' ESCAPE '\\')");
        for sql in [
            format!("SELECT name, seq FROM sqlite_sequence WHERE name LIKE 'own{client}\\_%' ESCAPE '\\'"),
            // Of tables made of rows, the node keeps more of the types than SQLite does, so their definitions differ; all that
            // clients write has a blank before the columns.
            format!(
                "SELECT type, name, tbl_name, iif(sql LIKE 'CREATE TABLE ' || name || '(%' \
                 OR sql LIKE 'CREATE TABLE \"' || name || '\"(%', 'made of rows', sql) \
                 FROM sqlite_schema WHERE {of_client}"
            ),
            format!(
                "SELECT made.name, cid, columns.name, \"notnull\", dflt_value, pk, hidden \
                 FROM sqlite_schema AS made, pragma_table_xinfo(made.name) AS columns WHERE {of_client}"
            ),
        ] {
            assert_eq!(rows(&node, &sql), rows(model, &sql), "{sql}");
        }
    }
    for counter in 0..COUNTERS {
        let sql = format!("SELECT n FROM counters WHERE id = {counter}");
        let of =
            |connection: &rusqlite::Connection| connection.query_row(&sql, [], |row| row.get::<_, i64>(0)).unwrap();
        let sum: i64 = players.iter().map(|player| of(&player.model.connection)).sum();
        assert_eq!(of(&node), sum, "counter {counter}");
    }
}
