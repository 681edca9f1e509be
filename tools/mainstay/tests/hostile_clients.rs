//! Clients that send garbage, too much, too little, or vanish; and a disk that is full. Everyone else is undisturbed.

mod support;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use support::ledger::Ledger;
use support::programs::program;
use support::raw::{Raw, message, query, sqlstate, startup};
use support::{LIMIT, Random, Running, SMALL, connect, eventually, run, runtime};

const MESSAGE_LIMIT: [&str; 4] = ["--sql-message-limit-bytes", "64KiB", "--sql-startup-timeout-s", "1s"];

/// A client that goes on inserting rows and reading them back while others misbehave.
struct Bystander {
    stop: Arc<AtomicBool>,
    rows: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Bystander {
    fn start(node: &Running) -> Bystander {
        node.rows("CREATE TABLE calm (number int PRIMARY KEY)");
        let (stop, rows) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (address, stopped, count) = (node.address.clone(), stop.clone(), rows.clone());
        let thread = std::thread::spawn(move || {
            runtime().block_on(async {
                let client = connect(&address).await;
                while !stopped.load(Ordering::Relaxed) {
                    let number = count.load(Ordering::Relaxed);
                    let insert = format!("INSERT INTO calm VALUES ({number})");
                    tokio::time::timeout(LIMIT, client.batch_execute(&insert)).await.expect("an insert hangs").unwrap();
                    let found = client.query("SELECT count(*) FROM calm", &[]).await.unwrap();
                    assert_eq!(found[0].get::<_, i64>(0), number as i64 + 1);
                    count.store(number + 1, Ordering::Relaxed);
                }
            });
        });
        Bystander { stop, rows, thread: Some(thread) }
    }

    /// Waits until it has done more work.
    fn gets_on(&self) {
        let target = self.rows.load(Ordering::Relaxed) + 2;
        eventually("others get on", LIMIT, || {
            assert!(!self.thread.as_ref().unwrap().is_finished(), "another client was disturbed");
            self.rows.load(Ordering::Relaxed) >= target
        });
    }

    fn end(mut self, node: &Running) {
        self.gets_on();
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
        let rows = self.rows.load(Ordering::Relaxed);
        assert_eq!(node.rows("SELECT count(*) FROM calm"), [[rows.to_string()]]);
    }
}

#[test]
fn garbage_before_the_startup_packet_disturbs_nobody() {
    let mut random = Random::new("garbage before startup");
    let directory = tempfile::tempdir().unwrap();
    let mut node = Running::start(&directory.path().join("data"), &MESSAGE_LIMIT);
    let bystander = Bystander::start(&node);
    let mut inputs: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        vec![0; 4],
        vec![0; 100_000],
        vec![0xff; 100_000],
        0x7fff_ffff_u32.to_be_bytes().to_vec(),
        [&8_u32.to_be_bytes()[..], &0x0003_0000_u32.to_be_bytes()].concat(),
        [&9_u32.to_be_bytes()[..], &0x0009_0000_u32.to_be_bytes(), b"\0"].concat(),
        // TLS is asked for, and then not spoken.
        [&8_u32.to_be_bytes()[..], &80_877_103_u32.to_be_bytes(), &[0x16, 3, 1, 0xff, 0xff]].concat(),
        // A cancel request for a session that is not there.
        [&16_u32.to_be_bytes()[..], &80_877_102_u32.to_be_bytes(), &[0xab; 8]].concat(),
        startup("postgres")[..20].to_vec(),
        [&startup("postgres")[..], &[0xee; 50]].concat(),
    ];
    inputs.extend((0..40).map(|_| {
        let length = random.below(300) as usize;
        random.bytes(length)
    }));
    for input in inputs {
        let mut raw = Raw::connect(&node.address);
        let _ = raw.send(&input);
        raw.finish();
        raw.until_closed_of_any_form();
        bystander.gets_on();
        assert!(node.is_alive());
    }
    bystander.end(&node);
}

#[test]
fn garbage_after_the_startup_packet_disturbs_nobody() {
    let mut random = Random::new("garbage after startup");
    let directory = tempfile::tempdir().unwrap();
    let mut node = Running::start(&directory.path().join("data"), &MESSAGE_LIMIT);
    let bystander = Bystander::start(&node);
    let mut inputs: Vec<Vec<u8>> = vec![
        vec![0; 1000],
        vec![b'Q', 0, 0, 0, 0],
        vec![b'Q', 0, 0, 0, 3],
        vec![b'Q', 0x80, 0, 0, 0],
        vec![b'Q', 0, 0, 0, 100, b'S'],
        message(b'Q', b"SELECT 1"),
        message(b'Q', b"SELECT '\xff\xfe'\0"),
        message(b'Q', b"SELECT 1\0SELECT 2\0"),
        message(b'Q', b""),
        message(b'P', b"name\0SELECT $1\0\xff\xff"),
        message(b'P', b"name\0SELECT 1\0\x00\x05"),
        message(b'B', b"\0no such statement\0\0\0\0\0\0\0"),
        message(b'B', b"\0\0\xff\xff"),
        message(b'D', b"X\0"),
        message(b'E', b"no such portal\0\0\0\0\0"),
        message(b'C', b"Sname"),
        message(b'p', b"a password that nobody asked for\0"),
        message(b'd', &[7; 1000]),
        message(b'F', &[0; 40]),
        message(0xf0, b"a type that is none"),
    ];
    inputs.extend((0..40).map(|_| {
        let length = random.below(60) as usize;
        let kinds = b"QPBDESHCXFdcfp";
        message(kinds[random.below(kinds.len() as u64) as usize], &random.bytes(length))
    }));
    for input in inputs {
        let mut raw = Raw::login(&node.address);
        let _ = raw.send(&input);
        raw.finish();
        raw.until_closed();
        assert!(node.is_alive());
    }
    bystander.end(&node);
}

#[test]
fn oversized_messages_are_refused_and_cost_no_memory() {
    let directory = tempfile::tempdir().unwrap();
    let mut node = Running::start(&directory.path().join("data"), &MESSAGE_LIMIT);
    let bystander = Bystander::start(&node);
    let sized = |length: u32| [&[b'Q'][..], &length.to_be_bytes()].concat();
    for length in [70_000, 0x4000_0000, 0x7fff_ffff, 0xffff_ffff] {
        let mut raw = Raw::login(&node.address);
        raw.send(&sized(length)).unwrap();
        // As much of it as the server takes.
        while raw.send(&[b'x'; 4096]).is_ok() && !raw.has_answer() {}
        raw.finish();
        let messages = raw.until_closed();
        println!("{length}: {:?}", messages.iter().filter_map(sqlstate).collect::<Vec<_>>());
        bystander.gets_on();
    }
    // The same, and the client stays silent after it: it hears why, and is let go.
    let mut raw = Raw::login(&node.address);
    raw.send(&sized(0x4000_0000)).unwrap();
    let states: Vec<_> = raw.until_closed().iter().filter_map(sqlstate).collect();
    assert_eq!(states.len(), 1, "{states:?}");
    assert!(node.is_alive());
    let status = fs::read_to_string(format!("/proc/{}/status", node.id())).unwrap();
    let peak = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    println!("{peak}");
    let peak_kib: u64 = peak.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(peak_kib < 300 * 1024, "{peak}");
    bystander.end(&node);
}

#[test]
fn a_client_hears_why_its_message_is_not_taken() {
    let directory = tempfile::tempdir().unwrap();
    let node = Running::start(&directory.path().join("data"), &["--sql-message-limit-bytes", "1MiB"]);
    let script = directory.path().join("long.sql");
    // More than the sockets hold, so that it is still being sent when it is refused.
    fs::write(&script, format!("SELECT '{}';", "x".repeat(40 << 20))).unwrap();
    node.rows("CREATE TABLE t (a text)");
    for round in 0..3 {
        let refused = run(program("psql", &node).args(["--no-psqlrc", "-f"]).arg(&script));
        assert!(refused.stderr.contains("FATAL:  message of 41943"), "{round}: {refused:?}");
        assert!(refused.stderr.contains("is larger than the limit of 1048576 bytes"), "{round}: {refused:?}");
    }
    // So does one whose data a COPY does not take.
    let mut raw = Raw::login(&node.address);
    raw.send(&query("COPY t FROM STDIN")).unwrap();
    raw.until(b'G');
    raw.send(&[&[b'd'][..], &(2_u32 << 20).to_be_bytes()].concat()).unwrap();
    for _ in 0..512 {
        raw.send(&[b'x'; 4096]).unwrap();
    }
    let states: Vec<_> = raw.until_closed().iter().filter_map(sqlstate).collect();
    assert_eq!(states, ["54000"]);
    let log = node.stop("TERM").stderr;
    assert_eq!(log.matches("a client sent what is no message").count(), 4, "{log}");
}

#[test]
fn sql_that_is_deep_long_or_wide_gets_an_error_or_an_answer() {
    let directory = tempfile::tempdir().unwrap();
    let mut node = Running::start(&directory.path().join("data"), &[]);
    let bystander = Bystander::start(&node);
    let deep = 100_000;
    for (what, sql) in [
        ("parentheses", format!("SELECT {}1{}", "(".repeat(deep), ")".repeat(deep))),
        ("signs", format!("SELECT {}1", "- ".repeat(deep))),
        ("negations", format!("SELECT {}1", "NOT ".repeat(deep))),
        ("selects", format!("SELECT * FROM {}calm{}", "(SELECT * FROM ".repeat(deep), ")".repeat(deep))),
        ("functions", format!("SELECT {}1{}", "abs(".repeat(deep), ")".repeat(deep))),
        ("cases", format!("SELECT {}1", "CASE WHEN 1 THEN ".repeat(deep))),
        ("sum", format!("SELECT 1{}", "+1".repeat(deep))),
        ("questions", format!("SELECT 1{}", " IS NULL".repeat(2 * deep))),
        ("union", format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(deep))),
        ("unclosed", "(".repeat(deep)),
        ("statements", "SELECT 1;".repeat(20_000)),
        ("semicolons", ";".repeat(1_000_000)),
        ("columns", format!("SELECT 1{}", ", 1".repeat(10_000))),
        ("a name", format!("SELECT * FROM {}", "n".repeat(1_000_000))),
        ("a string", format!("SELECT length('{}')", "s".repeat(10_000_000))),
        ("an open string", format!("SELECT '{}", "s".repeat(1_000_000))),
        ("an open comment", format!("SELECT 1 {}", "/*".repeat(deep))),
        ("a memory bomb", "SELECT zeroblob(900000000) || zeroblob(900000000)".to_owned()),
    ] {
        let mut raw = Raw::login(&node.address);
        let messages = raw.query(&sql);
        let states: Vec<_> = messages.iter().filter_map(sqlstate).collect();
        println!("{what}: {} messages, {states:?}", messages.len());
        assert!(node.is_alive(), "{what}");
        assert_eq!(raw.query("SELECT 1").len(), 4, "{what}: the connection is of no more use");
        bystander.gets_on();
    }
    bystander.end(&node);
}

#[test]
fn statements_that_would_escape_the_wal_are_refused_and_change_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let node = Running::start(&directory.path().join("data"), &[]);
    node.rows("CREATE TABLE parents (id int PRIMARY KEY, name text); INSERT INTO parents VALUES (1, 'first')");
    node.rows("CREATE TABLE children (parent int REFERENCES parents (id))");
    let stray = directory.path().join("stray.sqlite");
    let attach = format!("ATTACH DATABASE '{}' AS stray", stray.display());
    let vacuum = format!("VACUUM INTO '{}'", stray.display());
    for sql in [
        attach.as_str(),
        vacuum.as_str(),
        "VACUUM",
        "PRAGMA journal_mode = DELETE",
        "PRAGMA synchronous = OFF",
        "PRAGMA foreign_keys = OFF",
        "PRAGMA schema_version = 7",
        "PRAGMA writable_schema = ON",
        "PRAGMA wal_checkpoint(TRUNCATE)",
        "DETACH DATABASE main",
        "CREATE VIRTUAL TABLE v USING fts5 (a)",
    ] {
        let code = node.sqlstate(sql);
        println!("{code} {sql}");
        assert!(["0A000", "42501", "42601"].contains(&code.as_str()), "{sql}: {code}");
    }
    assert!(!stray.exists());
    assert_eq!(node.sqlstate("INSERT INTO children VALUES (99)"), "23503");
    assert_eq!(node.rows("SELECT name FROM parents"), [["first"]]);
}

#[test]
fn clients_that_say_nothing_are_let_go_and_those_beyond_the_limit_are_told() {
    let directory = tempfile::tempdir().unwrap();
    let settings = [&MESSAGE_LIMIT[..], &["--sql-connection-limit", "10"]].concat();
    let node = Running::start(&directory.path().join("data"), &settings);
    let bystander = Bystander::start(&node);
    // It is one of the ten.
    bystander.gets_on();
    let silent: Vec<Raw> = (0..30).map(|_| Raw::connect(&node.address)).collect();
    let mut guests = Vec::new();
    let states = loop {
        let mut raw = Raw::connect(&node.address);
        raw.send(&startup("postgres")).unwrap();
        match raw.message().unwrap() {
            (b'R', _) => guests.push(raw),
            error => break sqlstate(&error),
        }
        assert!(guests.len() < 10, "more than the limit are in");
    };
    assert_eq!((states.as_deref(), guests.len()), (Some("53300"), 9));
    bystander.gets_on();
    for mut raw in silent {
        assert_eq!(raw.until_closed().iter().filter_map(sqlstate).collect::<Vec<_>>(), ["08P01"]);
    }
    drop(guests);
    // Those who speak do not wait for those who do not.
    let _silent: Vec<Raw> = (0..200).map(|_| Raw::connect(&node.address)).collect();
    // The guests are gone when the node has noticed.
    eventually("a client that speaks gets in", LIMIT, || {
        let mut raw = Raw::connect(&node.address);
        raw.send(&startup("postgres")).unwrap();
        matches!(raw.message(), Some((b'R', _)))
    });
    bystander.end(&node);
}

#[test]
fn clients_that_keep_the_writer_to_themselves_lose_it() {
    let directory = tempfile::tempdir().unwrap();
    let limits = ["--sql-send-timeout-s", "1s", "--sql-idle-in-transaction-timeout-s", "1s"];
    let node = Running::start(&directory.path().join("data"), &limits);
    node.rows("CREATE TABLE wide (text text); CREATE TABLE calm (number int)");
    let numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 12000)";
    let wide = format!("{numbers} INSERT INTO wide SELECT printf('%.1000c', 'x') FROM n RETURNING *");
    let read = format!("BEGIN IMMEDIATE; {numbers} SELECT printf('%.1000c', 'x') FROM n");
    for (number, unread) in [wide, read].iter().enumerate() {
        let mut deaf = Raw::login(&node.address);
        deaf.send(&query(unread)).unwrap();
        eventually("it has the writer", LIMIT, || deaf.has_answer());
        // Others wait 5 s for the writer, so this one gets it.
        node.rows(&format!("INSERT INTO calm VALUES ({number})"));
    }
    let mut idle = Raw::login(&node.address);
    idle.query("BEGIN; INSERT INTO wide VALUES ('left')");
    node.rows("INSERT INTO calm VALUES (2)");
    assert_eq!(idle.until_closed().iter().filter_map(sqlstate).collect::<Vec<_>>(), ["25P03"]);
    assert_eq!(node.rows("SELECT (SELECT count(*) FROM wide), (SELECT count(*) FROM calm)"), [["0", "3"]]);
}

#[test]
fn clients_that_vanish_leave_nothing_and_block_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    let node = Running::start(&data_dir, &[]);
    node.rows("CREATE TABLE t (a int)");
    let vanishing: [&[&[u8]]; 6] = [
        &[&query("BEGIN"), &query("INSERT INTO t VALUES (1)")],
        &[&query("BEGIN; INSERT INTO t VALUES (2)")],
        &[&query("BEGIN"), &query("CREATE TABLE half (a int)"), &query("INSERT INTO half VALUES (3)")],
        &[&query("BEGIN; INSERT INTO t VALUES (4); SAVEPOINT s; INSERT INTO t VALUES (5)")],
        &[&query("BEGIN; INSERT INTO t VALUES (6); SELECT * FROM nowhere")],
        // With half a message behind it.
        &[&query("BEGIN; INSERT INTO t VALUES (7)"), &query("COMMIT")[..5]],
    ];
    for messages in vanishing {
        let mut raw = Raw::login(&node.address);
        for message in messages {
            raw.send(message).unwrap();
            if message.ends_with(b"\0") {
                raw.until(b'Z');
            }
        }
        drop(raw);
        node.rows("INSERT INTO t VALUES (100)");
    }
    // In the middle of a statement that would run for ever, and of a result that nobody reads.
    for (number, endless) in [(8, "SELECT max(i) FROM n"), (9, "SELECT i FROM n")] {
        let mut raw = Raw::login(&node.address);
        raw.query("BEGIN");
        raw.query(&format!("INSERT INTO t VALUES ({number})"));
        let numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)";
        raw.send(&query(&format!("{numbers} {endless}"))).unwrap();
        if number == 9 {
            raw.until(b'D');
        }
        drop(raw);
        node.rows("INSERT INTO t VALUES (100)");
    }
    assert_eq!(node.rows("SELECT DISTINCT a FROM t"), [["100"]]);
    assert_eq!(node.sqlstate("SELECT * FROM half"), "42P01");
    node.kill();
    let node = Running::start(&data_dir, &[]);
    assert_eq!(node.rows("SELECT DISTINCT a FROM t"), [["100"]]);
    assert_eq!(node.sqlstate("SELECT * FROM half"), "42P01");
}

/// A small file system of its own.
struct Mount(PathBuf);

impl Mount {
    fn new(at: PathBuf, size: &str) -> Option<Mount> {
        fs::create_dir(&at).unwrap();
        let options = format!("size={size}");
        let output = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "mainstay-test"]).arg(&at).output();
        match output {
            Ok(output) if output.status.success() => Some(Mount(at)),
            other => {
                println!("SKIPPED: a full disk needs root and mount: {other:?}");
                None
            }
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// A file that takes all the space that is left but so much.
fn ballast(path: &Path, leave_bytes: u64) {
    let output = Command::new("df").args(["-B1", "--output=avail"]).arg(path.parent().unwrap()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let free: u64 = text.lines().last().unwrap().trim().parse().unwrap();
    let mut file = fs::File::create(path).unwrap();
    let block = vec![1; 64 << 10];
    for _ in 0..free.saturating_sub(leave_bytes) / block.len() as u64 {
        file.write_all(&block).unwrap();
    }
}

const ON_A_SMALL_DISK: [&str; 2] = ["--wal-reserve-bytes", "8MiB"];
const RESUME_LIMIT: Duration = Duration::from_secs(20);

#[test]
fn a_full_disk_refuses_writes_and_lets_reads_go_on_and_writes_resume_by_themselves() {
    let directory = tempfile::tempdir().unwrap();
    let Some(mount) = Mount::new(directory.path().join("disk"), "64m") else { return };
    let data_dir = mount.0.join("data");
    let settings = [&SMALL[..], &ON_A_SMALL_DISK].concat();
    let mut node = Running::start(&data_dir, &settings);
    node.rows("CREATE TABLE t (a int PRIMARY KEY, b text)");
    let insert =
        |node: &Running, a: u64| node.try_rows(&format!("INSERT INTO t VALUES ({a}, '{}')", "x".repeat(20_000)));
    let mut acknowledged = 0;
    for round in 0..3 {
        let file = mount.0.join("ballast");
        if round > 0 {
            // Somebody else fills the disk. In the first round the node does so by itself.
            ballast(&file, 1 << 20);
        }
        let mut refusal = None;
        for _ in 0..10_000 {
            match insert(&node, acknowledged) {
                Ok(_) => acknowledged += 1,
                Err(error) => {
                    refusal = Some(error);
                    break;
                }
            }
        }
        let refusal = refusal.expect("writes were never refused");
        assert_eq!(refusal.code().map(|code| code.code()), Some("53100"), "{refusal:?}");
        println!("round {round}: refused after {acknowledged}: {refusal}");
        assert_eq!(node.rows("SELECT count(*) FROM t"), [[acknowledged.to_string()]]);
        assert_eq!(node.sqlstate("CREATE TABLE another (a int)"), "53100");
        assert_eq!(node.sqlstate("BEGIN; INSERT INTO t VALUES (-1, ''); COMMIT"), "53100");
        if round == 0 {
            // Nothing but more room helps here.
            remount(&mount, "128m");
        } else {
            fs::remove_file(&file).unwrap();
        }
        eventually("writes resume", RESUME_LIMIT, || insert(&node, acknowledged).is_ok());
        acknowledged += 1;
        assert!(node.is_alive());
        assert_eq!(
            node.rows("SELECT count(*), max(a) FROM t"),
            [[acknowledged.to_string(), (acknowledged - 1).to_string()]]
        );
    }
    node.kill();
    let node = Running::start(&data_dir, &settings);
    assert_eq!(node.rows("SELECT count(*), min(a) FROM t"), [[acknowledged.to_string(), "0".to_owned()]]);
}

fn remount(mount: &Mount, size: &str) {
    let options = format!("remount,size={size}");
    assert!(Command::new("mount").args(["-o", &options]).arg(&mount.0).status().unwrap().success());
}

#[test]
fn a_node_that_dies_with_a_full_disk_starts_serves_reads_and_has_lost_nothing() {
    let mut random = Random::new("full disk and kill");
    let directory = tempfile::tempdir().unwrap();
    let Some(mount) = Mount::new(directory.path().join("disk"), "96m") else { return };
    let data_dir = mount.0.join("data");
    let settings = [&SMALL[..], &ON_A_SMALL_DISK].concat();
    let ledger = Ledger::new(10);
    let node = Running::start(&data_dir, &settings);
    ledger.create_tables(&node, 16);
    support::ledger::write(&node, &ledger, 300, &mut random);
    let file = mount.0.join("ballast");
    ballast(&file, 4 << 20);
    let scratch = "CREATE TABLE IF NOT EXISTS scratch (a int); INSERT INTO scratch VALUES (1)";
    eventually("writes are refused", RESUME_LIMIT, || node.try_rows(scratch).is_err());
    node.kill();
    let node = Running::start(&data_dir, &settings);
    ledger.check(&node);
    // A start gives back what the last process had allocated ahead, so the disk has to be filled again.
    let more = mount.0.join("more ballast");
    ballast(&more, 4 << 20);
    eventually("writes are refused again", RESUME_LIMIT, || node.try_rows(scratch).is_err());
    assert_eq!(node.sqlstate("CREATE TABLE another (a int)"), "53100");
    ledger.check(&node);
    fs::remove_file(&file).unwrap();
    fs::remove_file(&more).unwrap();
    eventually("writes resume", RESUME_LIMIT, || node.try_rows("CREATE TABLE another (a int)").is_ok());
    support::ledger::write(&node, &ledger, 100, &mut random);
    node.kill();
    ledger.check(&Running::start(&data_dir, &settings));
}
