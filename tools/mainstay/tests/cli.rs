//! The command line as people and scripts meet it: the real binary, its exit status and what it prints.

mod support;

use std::fs;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use support::{Running, mainstay, run};

#[test]
fn wrong_usage_exits_2() {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    let data_dir = data_dir.to_str().unwrap();
    for arguments in [
        vec![],
        vec!["fly"],
        vec!["start"],
        vec!["start", "--data-dir", data_dir, "--no-such-setting", "1"],
        vec!["start", "--data-dir", data_dir, "--data-dir", data_dir],
        vec!["start", "--data-dir", data_dir, "--wal-keep-bytes", "much"],
        vec!["start", "--data-dir", data_dir, "--sql-listen", "nowhere"],
        vec!["config", "check"],
        vec!["demo", "--clients", "0"],
    ] {
        let output = run(mainstay().args(&arguments));
        assert_eq!(output.code, Some(2), "{arguments:?}: {output:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{arguments:?}: {output:?}");
    }
    assert!(!directory.path().join("data").exists(), "wrong usage made a directory");
}

#[test]
fn wrong_settings_in_a_file_or_variable_exit_1_with_one_line_that_names_all() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("node.toml");
    fs::write(&file, "colour = 1\n[wal]\nsegment_size_bytes = \"3MiB\"\n").unwrap();
    let mut command = mainstay();
    command.args(["start", "--data-dir"]).arg(directory.path().join("data")).arg("--config").arg(&file);
    let output = run(command.env("MAINSTAY_LOG_FORMAT", "xml"));
    assert_eq!((output.code, output.stdout.as_str(), output.stderr.lines().count()), (Some(1), "", 1), "{output:?}");
    for part in ["node.toml:1: colour", "node.toml:3: wal.segment_size_bytes", "MAINSTAY_LOG_FORMAT"] {
        assert!(output.stderr.contains(part), "{part}: {output:?}");
    }
}

#[test]
fn config_check_prints_all_problems_or_ok() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("node.toml");
    let check = || run(mainstay().args(["config", "check"]).arg(&file));

    fs::write(&file, "colour = 1\n[wal]\nsegment_size_bytes = 3\n[checkpoint]\ninterval_s = \"2d\"\n").unwrap();
    let bad = check();
    assert_eq!((bad.code, bad.stdout.lines().count(), bad.stderr.as_str()), (Some(1), 3, ""), "{bad:?}");

    // Each is in order; together they are not.
    fs::write(&file, "[cluster]\nlisten = \"127.0.0.1:7003\"\n[sql]\nlisten = \"0.0.0.0:7003\"\n").unwrap();
    let same = check();
    assert!(
        same.code == Some(1) && same.stdout.contains("cluster.listen and sql.listen are the same port"),
        "{same:?}"
    );

    fs::write(&file, run(mainstay().args(["config", "print"])).stdout).unwrap();
    let good = check();
    assert_eq!((good.code, good.stdout.as_str(), good.stderr.as_str()), (Some(0), "ok\n", ""), "{good:?}");

    fs::remove_file(&file).unwrap();
    assert_eq!(check().code, Some(1));
}

#[test]
fn config_print_holds_every_setting_with_its_default_range_and_meaning() {
    let text = run(mainstay().args(["config", "print"])).stdout;
    let settings: Vec<&str> = text.lines().filter(|line| line.contains(" = ")).collect();
    let explained = text.matches("Default: ").count();
    assert!(explained > 10 && settings.len() == explained, "{explained} explained of {settings:?}");
    let help = run(mainstay().args(["start", "--help"])).stdout;
    assert_eq!(help.matches("Default: ").count(), explained, "{help}");
    assert!(text.contains("[wal]") && text.contains("segment_size_bytes = \"64MiB\""), "{text}");
    assert!(text.contains("Default: 64MiB. Range: a power of two from 1MiB to 1GiB."), "{text}");
}

#[test]
fn a_port_in_use_is_said_in_one_line() {
    let directory = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut command = mainstay();
    command
        .args(["start", "--log-level", "off", "--sql-listen", &address, "--data-dir"])
        .arg(directory.path().join("data"));
    let output = run(&mut command);
    assert_eq!((output.code, output.stdout.as_str(), output.stderr.lines().count()), (Some(1), "", 1), "{output:?}");
    assert!(output.stderr.contains(&address), "{output:?}");
}

#[test]
fn a_file_in_place_of_the_directory_is_said_in_one_line() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("data");
    fs::write(&file, "not a directory").unwrap();
    let output =
        run(mainstay().args(["start", "--log-level", "off", "--sql-listen", "127.0.0.1:0", "--data-dir"]).arg(&file));
    assert_eq!((output.code, output.stdout.as_str(), output.stderr.lines().count()), (Some(1), "", 1), "{output:?}");
    assert!(output.stderr.contains(file.to_str().unwrap()), "{output:?}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "not a directory");
}

#[test]
fn a_second_process_on_the_same_directory_is_refused_and_the_first_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    let first = Running::start(&data_dir, &[]);
    let second = run(mainstay()
        .args(["start", "--log-level", "off", "--sql-listen", "127.0.0.1:0", "--data-dir"])
        .arg(&data_dir));
    assert_eq!((second.code, second.stdout.as_str(), second.stderr.lines().count()), (Some(1), "", 1), "{second:?}");
    first.query("SELECT 1");
    assert_eq!(first.stop("TERM").code, Some(0));
}

#[test]
fn the_ready_line_shows_the_real_port_and_both_signals_stop_cleanly() {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    for signal in ["TERM", "INT"] {
        let node = Running::start(&data_dir, &["--log-format", "json"]);
        assert_eq!(node.ready, format!("mainstay ready sql={} data-dir={}\n", node.address, data_dir.display()));
        assert!(!node.address.ends_with(":0"), "{}", node.address);
        node.query("CREATE TABLE IF NOT EXISTS t (a int)");
        let output = node.stop(signal);
        assert_eq!((output.code, output.stdout.as_str()), (Some(0), ""), "{output:?}");
        for line in output.stderr.lines() {
            assert!(line.starts_with('{') && line.ends_with('}'), "not JSON: {line}");
        }
    }
}

#[test]
fn sigterm_stops_within_five_seconds_under_load_and_keeps_every_acknowledged_row() {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    let node = Running::start(&data_dir, &[]);
    node.query("CREATE TABLE t (client int, number int, PRIMARY KEY (client, number))");
    let load = support::load(&node.address, 8);
    load.wait_for_rows(200);
    let begun = Instant::now();
    let output = node.stop("TERM");
    assert!(begun.elapsed() < Duration::from_secs(5), "took {:?}", begun.elapsed());
    assert_eq!(output.code, Some(0), "{output:?}");

    let acknowledged = load.end();
    let node = Running::start(&data_dir, &[]);
    let found = node.query("SELECT client, number FROM t");
    assert!(
        acknowledged.len() >= 200 && acknowledged.is_subset(&found),
        "{} acknowledged, {} found",
        acknowledged.len(),
        found.len()
    );
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let node = Running::start(&directory.path().join("data"), &[]);
    node.query_in_background("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n");
    let output = node.insist("TERM");
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(output.stderr.contains("SIGTERM again"), "{output:?}");
}

#[test]
fn the_demo_loses_nothing_and_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let output = run(mainstay().args(["demo", "--seconds", "2", "--clients", "4"]).env("TMPDIR", directory.path()));
    assert_eq!(output.code, Some(0), "{output:?}");
    for part in [
        "rows acknowledged",
        "rows lost",
        "recovery time",
        "commits/s",
        "writes acknowledged",
        "writes lost",
        "longest gap",
        "led the metadata",
    ] {
        assert!(output.stdout.contains(part), "{part}: {output:?}");
    }
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "the demo left files behind");
}
