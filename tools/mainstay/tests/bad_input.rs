//! Directories, settings and permissions that are wrong: a clear line for whoever caused it, and nothing is harmed.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::ledger::{Clients, Ledger, write};
use support::{Random, Running, SMALL, exchange, mainstay, one_clear_line, refused, run};

/// Makes a node that holds one row, and stops it.
fn made(data_dir: &Path, value: &str) {
    let node = Running::start(data_dir, &SMALL);
    node.rows(&format!("CREATE TABLE t (a text); INSERT INTO t VALUES ('{value}')"));
    assert_eq!(node.stop("TERM").code, Some(0));
}

/// The node starts and holds that row and no other.
fn holds(data_dir: &Path, value: &str) {
    let node = Running::start(data_dir, &SMALL);
    assert_eq!(node.rows("SELECT a FROM t"), [[value]]);
    assert_eq!(node.stop("TERM").code, Some(0));
}

/// Every file below a folder with its content, except RocksDB's: opening it for reading writes to its log.
fn snapshot(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![directory.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                if !entry.ends_with("meta") {
                    folders.push(entry);
                }
            } else {
                files.insert(entry.clone(), fs::read(&entry).unwrap());
            }
        }
    }
    files
}

/// The start is refused, and no file is changed by it. SQLite's own files around its database may come and go.
fn refused_unchanged(data_dir: &Path) -> String {
    let keep = |files: &mut BTreeMap<PathBuf, Vec<u8>>| {
        files.retain(|path, _| !path.to_string_lossy().contains("main.sqlite-") && !path.ends_with("mainstay.lock"));
    };
    let mut before = snapshot(data_dir);
    let line = refused(data_dir, &SMALL);
    let mut after = snapshot(data_dir);
    keep(&mut before);
    keep(&mut after);
    let changed: Vec<_> =
        before.iter().filter(|(path, bytes)| after.get(*path) != Some(bytes)).map(|it| it.0).collect();
    let new: Vec<_> = after.keys().filter(|path| !before.contains_key(*path)).collect();
    assert!(changed.is_empty() && new.is_empty(), "changed {changed:?}, new {new:?} by a start that said: {line}");
    line
}

/// CRC-32 as in zlib.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc: u32, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}

#[test]
fn a_second_process_on_a_directory_under_load_is_refused_and_disturbs_nobody() {
    let mut random = Random::new("second process");
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    let ledger = Ledger::new(50);
    let node = Running::start(&data_dir, &SMALL);
    ledger.create_tables(&node, 16);
    let clients = Clients::start(&node, &ledger, 16, &mut random);
    for _ in 0..3 {
        let line = refused(&data_dir, &SMALL);
        assert!(line.contains(data_dir.to_str().unwrap()), "{line}");
        ledger.wait_for_more(50);
    }
    clients.stop();
    ledger.check(&node);
    node.kill();
    ledger.check(&Running::start(&data_dir, &SMALL));
}

#[test]
fn a_flipped_byte_in_the_identity_is_damage_and_a_newer_version_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    made(&data_dir, "mine");
    let identity = data_dir.join("identity");
    let good = fs::read(&identity).unwrap();

    for (what, position) in [("magic", 0), ("version", 8), ("system id", 17), ("checksum", 62)] {
        let mut bytes = good.clone();
        bytes[position] ^= 0x40;
        fs::write(&identity, &bytes).unwrap();
        let line = refused_unchanged(&data_dir);
        assert!(line.contains("identity"), "{what}: {line}");
    }
    for length in [0, 1, 63] {
        fs::write(&identity, &good[..length]).unwrap();
        let line = refused_unchanged(&data_dir);
        assert!(line.contains("identity"), "{length} bytes: {line}");
    }
    let mut newer = good.clone();
    newer[8] += 1;
    let checksum = crc32(&newer[..60]).to_le_bytes();
    newer[60..64].copy_from_slice(&checksum);
    fs::write(&identity, &newer).unwrap();
    let line = refused_unchanged(&data_dir).to_lowercase();
    assert!(line.contains("version") && line.contains(&newer[8].to_string()), "{line}");
    assert!(!line.contains("damage") && !line.contains("corrupt"), "a newer version is no damage: {line}");

    fs::write(&identity, &good).unwrap();
    holds(&data_dir, "mine");
}

#[test]
fn parts_of_another_node_are_refused_and_going_back_heals() {
    let directory = tempfile::tempdir().unwrap();
    let (one, other) = (directory.path().join("one"), directory.path().join("other"));
    made(&one, "one");
    made(&other, "other");
    for part in ["meta", "wal", "identity"] {
        exchange(&one.join(part), &other.join(part));
        for data_dir in [&one, &other] {
            println!("{part} of another node");
            refused_unchanged(data_dir);
        }
        exchange(&one.join(part), &other.join(part));
        holds(&one, "one");
        holds(&other, "other");
    }
}

#[test]
fn engine_files_of_another_node_are_refused_and_never_served() {
    let directory = tempfile::tempdir().unwrap();
    let (one, other) = (directory.path().join("one"), directory.path().join("other"));
    // The same LSNs, then different ones: the engine's position is in the log of the other, or in a record's middle.
    for (value, other_value) in [("one", "two"), ("one", "a longer one")] {
        made(&one, value);
        made(&other, other_value);
        exchange(&one.join("engine"), &other.join("engine"));
        for data_dir in [&one, &other] {
            let line = refused(data_dir, &SMALL);
            assert!(line.contains("engine") && !line.contains("wal/"), "it is not the WAL that is wrong: {line}");
        }
        exchange(&one.join("engine"), &other.join("engine"));
        holds(&one, value);
        holds(&other, other_value);
        fs::remove_dir_all(&one).unwrap();
        fs::remove_dir_all(&other).unwrap();
    }
}

#[test]
fn parts_that_are_missing_are_never_replaced_by_empty_ones() {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    made(&data_dir, "mine");
    for part in ["meta", "wal", "identity", "wal/000000010000000000000001"] {
        println!("{part} is missing");
        let aside = support::set_aside(&data_dir.join(part));
        refused_unchanged(&data_dir);
        fs::rename(aside, data_dir.join(part)).unwrap();
        holds(&data_dir, "mine");
    }
}

#[test]
fn a_folder_with_other_things_in_it_is_not_taken_for_a_data_directory() {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("postgres");
    fs::create_dir_all(data_dir.join("base")).unwrap();
    fs::write(data_dir.join("PG_VERSION"), "15\n").unwrap();
    let line = refused_unchanged(&data_dir);
    assert!(line.contains(data_dir.to_str().unwrap()), "{line}");
    // An empty folder is fine.
    let empty = directory.path().join("empty");
    fs::create_dir(&empty).unwrap();
    made(&empty, "mine");
    // The folder above must be there.
    let line = refused(&directory.path().join("no/such/folder"), &SMALL);
    assert!(line.contains("no/such"), "{line}");
}

#[test]
fn a_flipped_byte_in_the_middle_of_the_wal_is_refused_with_its_place_and_nothing_is_cut() {
    let mut random = Random::new("flip");
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    let ledger = Ledger::new(5);
    let settings = ["--wal-segment-size-bytes", "1MiB"];
    let node = Running::start(&data_dir, &settings);
    ledger.create_tables(&node, 16);
    write(&node, &ledger, 600, &mut random);
    node.kill();
    let segment = data_dir.join("wal/000000010000000000000001");
    let good = fs::read(&segment).unwrap();
    assert!(data_dir.join("wal/000000010000000000000002").exists(), "too little was written");
    for _ in 0..4 {
        // Behind the tables, which the first bytes hold: the record is one of many, and others follow.
        let position = 10_000 + random.below(good.len() as u64 - 20_000) as usize;
        let mut bytes = good.clone();
        bytes[position] ^= 1 << random.below(8);
        println!("flipped at {position}");
        fs::write(&segment, &bytes).unwrap();
        let line = refused_unchanged(&data_dir);
        assert!(line.contains("000000010000000000000001"), "{line}");
    }
    fs::write(&segment, &good).unwrap();
    ledger.check(&Running::start(&data_dir, &settings));
}

#[test]
fn a_wal_that_ends_before_its_engine_is_refused_and_not_gone_on_with() {
    let mut random = Random::new("short wal");
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    let settings = ["--wal-segment-size-bytes", "1MiB"];
    let ledger = Ledger::new(1000);
    let node = Running::start(&data_dir, &settings);
    ledger.create_tables(&node, 16);
    write(&node, &ledger, 100, &mut random);
    node.kill();
    let segment = data_dir.join("wal/000000010000000000000001");
    let good = fs::read(&segment).unwrap();
    let end = good.iter().rposition(|byte| *byte != 0).unwrap();
    for cut in [100, 2_000 + random.below(5_000) as usize] {
        let mut bytes = good.clone();
        bytes[end - cut..].fill(0);
        fs::write(&segment, &bytes).unwrap();
        let line = refused(&data_dir, &settings);
        assert!(line.contains("000000010000000000000001"), "{line}");
        assert!(fs::read(&segment).unwrap() == bytes, "the log was cut by a start that said: {line}");
    }
    fs::write(&segment, &good).unwrap();
    ledger.check(&Running::start(&data_dir, &settings));
}

#[test]
fn a_file_or_a_broken_link_where_a_folder_should_be_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    std::os::unix::fs::symlink("nowhere/at/all", &data_dir).unwrap();
    refused(&data_dir, &SMALL);
    fs::remove_file(&data_dir).unwrap();
    made(&data_dir, "mine");
    for part in ["wal", "meta", "engine"] {
        let aside = support::set_aside(&data_dir.join(part));
        fs::write(data_dir.join(part), "a file").unwrap();
        let line = refused_unchanged(&data_dir);
        assert!(line.contains(part), "{part}: {line}");
        fs::remove_file(data_dir.join(part)).unwrap();
        fs::rename(aside, data_dir.join(part)).unwrap();
    }
    holds(&data_dir, "mine");
}

/// The binary as a user without rights: root becomes `nobody`, with a copy of the binary that `nobody` can reach.
fn without_rights(directory: &Path) -> Command {
    if is_root() {
        let binary = directory.join("mainstay");
        if !binary.exists() {
            fs::copy(env!("CARGO_BIN_EXE_mainstay"), &binary).unwrap();
        }
        fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).unwrap();
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(binary);
        support::piped(&mut command);
        command
    } else {
        mainstay()
    }
}

fn is_root() -> bool {
    String::from_utf8(Command::new("id").arg("-u").output().unwrap().stdout).unwrap().trim() == "0"
}

#[test]
fn no_permission_is_said_with_the_path_and_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let start = |data_dir: &Path| {
        let mut command = without_rights(directory.path());
        command.args(["start", "--log-level", "off", "--sql-listen", "127.0.0.1:0", "--data-dir"]).arg(data_dir);
        let line = one_clear_line(&run(&mut command));
        assert!(line.to_lowercase().contains("permission denied"), "{line}");
        assert!(line.contains(data_dir.file_name().unwrap().to_str().unwrap()), "{line}");
    };
    // It may not be made there.
    let locked = directory.path().join("locked");
    fs::create_dir(&locked).unwrap();
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o555)).unwrap();
    start(&locked.join("data"));
    assert_eq!(fs::read_dir(&locked).unwrap().count(), 0);
    // It is there, and may not be looked into, or not be written to.
    let data_dir = directory.path().join("data");
    made(&data_dir, "mine");
    let mode = fs::metadata(&data_dir).unwrap().permissions().mode();
    for wrong in [0o000, 0o555] {
        fs::set_permissions(&data_dir, fs::Permissions::from_mode(wrong)).unwrap();
        start(&data_dir);
    }
    fs::set_permissions(&data_dir, fs::Permissions::from_mode(mode)).unwrap();
    holds(&data_dir, "mine");
    // Not even root may make a folder here.
    refused(Path::new("/proc/mainstay"), &SMALL);
}

#[test]
fn a_data_directory_is_for_its_owner_only() {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    made(&data_dir, "mine");
    let mode = fs::metadata(&data_dir).unwrap().permissions().mode();
    assert_eq!(mode & 0o007, 0, "everyone may read the rows: {mode:o}");
}

/// A file-size limit in place of a full disk: it stops SQLite's files, which grow, and no segment or file of RocksDB.
#[test]
fn a_node_whose_engine_cannot_take_what_is_durable_stops_and_the_next_one_has_it() {
    const LIMIT_BYTES: u64 = 12 << 20;
    const ROW_BYTES: usize = 600_000;
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    made(&data_dir, "mine");

    let mut command = Command::new("sh");
    let start = format!("trap '' XFSZ; ulimit -f {}; exec \"$@\"", LIMIT_BYTES / 512);
    let arguments = ["start", "--sql-listen", "127.0.0.1:0", "--log-level", "off", "--data-dir"];
    command.args(["-c", &start, "sh"]).arg(mainstay().get_program()).args(arguments).arg(&data_dir).args(SMALL);
    support::piped(&mut command);
    let mut process = command.spawn().unwrap();
    let mut ready = String::new();
    BufReader::new(process.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    let address = ready.strip_prefix("mainstay ready sql=").unwrap().split_whitespace().next().unwrap().to_owned();
    let acknowledged = support::runtime().block_on(async {
        let client = support::connect(&address).await;
        let sql = format!("INSERT INTO t SELECT printf('%0{ROW_BYTES}d', count(*)) FROM t");
        let mut acknowledged = 1;
        while client.simple_query(&sql).await.is_ok() {
            acknowledged += 1;
            assert!(acknowledged < 200, "SQLite's file never reached the limit");
        }
        acknowledged
    });
    let output = process.wait_with_output().unwrap();
    let line = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), line.lines().count()), (Some(1), 1), "{line}");
    assert!(line.contains("could not be put into SQLite"), "{line}");

    let node = Running::start(&data_dir, &SMALL);
    let found: usize = node.rows("SELECT count(*) FROM t")[0][0].parse().unwrap();
    assert!(found >= acknowledged, "{found} of {acknowledged} rows");
    assert_eq!(node.stop("TERM").code, Some(0));
}

#[test]
fn settings_that_contradict_the_directory_or_each_other_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    made(&data_dir, "mine");
    let line = refused(&data_dir, &["--wal-segment-size-bytes", "2MiB"]);
    assert!(line.contains("1 MiB") || line.contains("1MiB") || line.contains("1048576"), "{line}");
    holds(&data_dir, "mine");

    let file = directory.path().join("node.toml");
    for (text, words) in [
        ("[wal]\nno_such_setting = 1\n", vec!["no_such_setting"]),
        ("[walls]\nkeep_bytes = \"1GiB\"\n", vec!["walls"]),
        ("[wal]\nkeep_bytes = \"1GiB\"\nkeep_bytes = \"2GiB\"\n", vec!["node.toml:3"]),
        ("[wal\n", vec!["node.toml"]),
        ("[checkpoint]\ninterval_s = -1\n[sql]\nconnection_limit = 100000\n", vec!["interval_s", "connection_limit"]),
        ("[wal]\nsegment_size_bytes = 18446744073709551616\n", vec!["segment_size_bytes"]),
        ("[sql]\nlisten = \"127.0.0.1\"\n", vec!["listen"]),
    ] {
        fs::write(&file, text).unwrap();
        let line = refused(&data_dir, &["--config", file.to_str().unwrap()]);
        assert!(words.iter().all(|word| line.contains(word)), "{words:?} {line}");
        let check = run(mainstay().args(["config", "check"]).arg(&file));
        assert_eq!(check.code, Some(1), "{check:?}");
        assert!(words.iter().all(|word| check.stdout.contains(word)), "{words:?} {check:?}");
    }
    fs::write(&file, [0xff, 0xfe, 0x00, 0x80]).unwrap();
    refused(&data_dir, &["--config", file.to_str().unwrap()]);
    refused(&data_dir, &["--config", directory.path().to_str().unwrap()]);
    refused(&data_dir, &["--config", "/no/such/file.toml"]);
    holds(&data_dir, "mine");
}

#[test]
fn a_port_in_use_leaves_the_directory_usable() {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    made(&data_dir, "mine");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut command = mainstay();
    command.args(["start", "--log-level", "off", "--sql-listen", &address, "--data-dir"]).arg(&data_dir).args(SMALL);
    let line = one_clear_line(&run(&mut command));
    assert!(line.contains(&address), "{line}");
    drop(taken);
    holds(&data_dir, "mine");
}
