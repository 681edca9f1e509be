//! `make bench BENCH=sql`: the binary `mainstay` against PostgreSQL, both by `pgbench` over TCP.
//!
//! Both make each commit durable before they answer, on the same disk; and against dqlite, if its package go-dqlite is
//! installed. `SQL_ROUNDS` (5) and `SQL_SECONDS` (5) make a run
//! longer or shorter; `SQL_ONLY=insert` runs the measures whose names contain that, and `SQL_COPY_ROWS` (1 000 000) says how
//! many rows a COPY brings. The files are made in `TMPDIR`.

use std::env;
use std::fs;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context as _;
use mainstay_benches::raw::RawFile;
use mainstay_benches::{Goal, Row, add, median, number, print_head, write};

#[path = "sql/dqlite.rs"]
mod dqlite;
#[path = "sql/servers.rs"]
mod servers;

use servers::Server;

/// Rows that are selected and updated.
const ROWS: u64 = 100_000;
/// Rows per statement while they are filled in.
const FILL_ROWS: u64 = 500;
const DQLITE_MEASURE: &str = "sql.insert.16.dqlite";

/// What clients do: its name, its script, whether it is prepared, and for how many clients it has which goal.
struct Load {
    name: &'static str,
    script: String,
    mode: &'static str,
    goals: &'static [(usize, f64)],
}

fn loads() -> [Load; 3] {
    let value = "v".repeat(100);
    [
        Load {
            name: "insert",
            script: format!(
                "\\set a random(1000000000, 9999999999)\n\\set b random(1000000000, 9999999999)\n\
                 INSERT INTO pairs VALUES (':a:b', '{value}');\n"
            ),
            mode: "simple",
            goals: &[(1, 0.9), (16, 1.5), (64, 1.5)],
        },
        Load {
            name: "select",
            script: format!("\\set a random(1, {ROWS})\nSELECT v FROM points WHERE id = :a;\n"),
            mode: "prepared",
            goals: &[(1, 1.0), (16, 1.0), (64, 1.0)],
        },
        Load {
            name: "read_write",
            script: format!(
                "\\set a random(1, {ROWS})\n\\set d random(-100, 100)\nBEGIN;\n\
                 SELECT balance FROM accounts WHERE id = :a;\n\
                 UPDATE accounts SET balance = balance + :d WHERE id = :a;\n\
                 INSERT INTO history VALUES (:a, :d);\nCOMMIT;\n"
            ),
            mode: "simple",
            goals: &[(16, 1.0)],
        },
    ]
}

/// The tables, filled.
fn schema() -> String {
    let mut sql = String::from(
        "CREATE TABLE pairs (k text PRIMARY KEY, v text);\n\
         CREATE TABLE points (id bigint PRIMARY KEY, v text);\n\
         CREATE TABLE accounts (id bigint PRIMARY KEY, balance bigint);\n\
         CREATE TABLE history (id bigint, delta bigint);\nBEGIN;\n",
    );
    let value = "v".repeat(100);
    for first in (1..=ROWS).step_by(FILL_ROWS as usize) {
        let rows = |row: &dyn Fn(u64) -> String| (first..first + FILL_ROWS).map(row).collect::<Vec<_>>().join(",");
        let points = rows(&|id| format!("({id},'{value}')"));
        let accounts = rows(&|id| format!("({id},0)"));
        sql += &format!("INSERT INTO points VALUES {points};\nINSERT INTO accounts VALUES {accounts};\n");
    }
    sql + "COMMIT;\n"
}

fn main() -> anyhow::Result<()> {
    let (rounds, seconds) = (number("SQL_ROUNDS", 5), number("SQL_SECONDS", 5));
    let only = env::var("SQL_ONLY").unwrap_or_default();
    let directory = tempfile::tempdir()?;
    let script = |name: &str, text: &str| -> anyhow::Result<PathBuf> {
        let path = directory.path().join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    };
    let schema = script("schema.sql", &schema())?;
    // Only one of them is loaded at a time; an idle one costs next to nothing.
    let ours = Server::mainstay(&directory.path().join("ours"))?;
    let peer = Server::postgresql(&directory.path().join("peer"))?;
    for server in [&ours, &peer] {
        server.run(&schema)?;
    }
    let mut rows = Vec::new();
    print_head();
    for load in loads() {
        let path = script(load.name, &load.script)?;
        for (clients, goal) in load.goals {
            let measure = format!("sql.{}.{clients}", load.name);
            if !measure.contains(&only) {
                continue;
            }
            let mut row = Row::against(&measure, "tps", "PostgreSQL 15", Goal::AtLeast(*goal));
            for _ in 0..rounds {
                for server in [&ours, &peer] {
                    let rate = server.rate(&path, load.mode, *clients, seconds)?;
                    row.push(std::ptr::eq(server, &ours), rate);
                }
            }
            add(&mut rows, row);
        }
    }
    if DQLITE_MEASURE.contains(&only) {
        add(&mut rows, beside_dqlite(directory.path(), &ours, rounds, seconds)?);
    }
    if "sql.copy.rows".contains(&only) {
        add(&mut rows, copied(directory.path(), [&ours, &peer], rounds)?);
    }
    write("sql", directory.path(), sync_us(directory.path())?, &rows)
}

/// Single inserts of 16 clients, by pgbench into ours and by dqlite's own benchmark into dqlite.
fn beside_dqlite(directory: &Path, ours: &Server, rounds: u64, seconds: u64) -> anyhow::Result<Row> {
    const CLIENTS: usize = 16;
    let mut row = Row::against(DQLITE_MEASURE, "tps", "dqlite", Goal::AtLeast(5.0));
    if !dqlite::is_installed() {
        println!("{DQLITE_MEASURE} is left out: the package go-dqlite is not installed");
        return Ok(row);
    }
    let [insert, ..] = loads();
    let script = directory.join("insert_beside_dqlite");
    fs::write(&script, &insert.script)?;
    for _ in 0..rounds {
        row.push(true, ours.rate(&script, insert.mode, CLIENTS, seconds)?);
        row.push(false, dqlite::insert_rate(&directory.join("dqlite"), CLIENTS, seconds)?);
    }
    Ok(row)
}

/// COPY FROM STDIN of many rows, by psql, into a table with a key.
fn copied(directory: &Path, [ours, peer]: [&Server; 2], rounds: u64) -> anyhow::Result<Row> {
    let count = number("SQL_COPY_ROWS", 1_000_000);
    let data = directory.join("copied.txt");
    let mut file = BufWriter::new(fs::File::create(&data)?);
    let value = "v".repeat(100);
    for id in 1..=count {
        writeln!(file, "{id}\t{value}")?;
    }
    file.into_inner()?.sync_all()?;
    let (clear, load) = (directory.join("clear.sql"), directory.join("load.sql"));
    fs::write(&clear, "DROP TABLE IF EXISTS copied;\nCREATE TABLE copied (id bigint PRIMARY KEY, v text);\n")?;
    fs::write(&load, format!("\\copy copied from '{}'\n", data.display()))?;
    let mut row = Row::against("sql.copy.rows", "rows/s", "PostgreSQL 15", Goal::AtLeast(1.0));
    for _ in 0..rounds {
        for server in [ours, peer] {
            server.run(&clear)?;
            let began = Instant::now();
            server.run(&load)?;
            row.push(std::ptr::eq(server, ours), count as f64 / began.elapsed().as_secs_f64());
        }
    }
    Ok(row)
}

fn sync_us(directory: &Path) -> anyhow::Result<f64> {
    Ok(median(&RawFile::new(&directory.join("raw"), 1 << 20)?.latencies(&[7; 4096], 200)?))
}
