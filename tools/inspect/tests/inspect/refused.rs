//! What cannot be looked at: exit 2 and one line that says why.

use std::fs;
use std::path::Path;

use mainstay::storage::DirectoryLock;

use super::support::*;

fn refusal(directory: &Path, arguments: &[&str]) -> String {
    let answer = answer(inspector().arg(directory).args(arguments).output().unwrap());
    assert_eq!((answer.code, answer.text.as_str()), (2, ""), "{}", answer.error);
    assert_eq!(answer.error.lines().count(), 1, "{}", answer.error);
    answer.error
}

#[test]
fn a_running_node_is_left_alone() {
    let place = Place::new();
    let node = place.start();
    for command in [&["summary"][..], &["wal", "list"], &["wal", "dump"], &["wal", "verify"]] {
        let error = refusal(place.path(), command);
        assert!(error.contains("a node runs on") && error.contains(&std::process::id().to_string()), "{error}");
    }
    let (code, document) = place.inspect_json(&["summary"]);
    assert!(code == 2 && document["error"].as_str().unwrap().contains("a node runs on"), "{document}");
    drop(node);
    assert_eq!(place.inspect(&["summary"]).code, 0);
}

#[test]
fn who_only_reads_is_not_taken_for_a_node() {
    let place = Place::clean();
    let reader = DirectoryLock::take_shared(place.path()).unwrap();
    let error = place.try_start().err().unwrap();
    assert!(error.contains("another process, which reads it") && !error.contains("the last node"), "{error}");
    let at = place.records()[2]["start"].as_str().unwrap().to_owned();
    let error = refusal_of_repair(&place, &at);
    assert!(error.contains("nothing was changed") && error.contains("which reads it"), "{error}");
    drop(reader);
    drop(place.start());
}

fn refusal_of_repair(place: &Place, at: &str) -> String {
    refusal(place.path(), &["wal", "repair", "--yes", "--cut-at", at])
}

#[test]
fn what_is_no_data_directory_is_named() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("file");
    fs::write(&file, "x").unwrap();
    assert!(refusal(&place.path().join("nowhere"), &["summary"]).contains("No such file"));
    assert!(refusal(&file, &["summary"]).contains("is not a directory"));
    assert!(refusal(place.path(), &["wal", "list"]).contains("is not a Mainstay data directory"));
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
}

#[test]
fn parts_of_two_nodes_are_not_read_as_one() {
    let (one, other) = (Place::clean(), Place::clean());
    fs::remove_dir_all(one.path().join("wal")).unwrap();
    fs::rename(other.path().join("wal"), one.path().join("wal")).unwrap();
    for command in ["list", "dump", "verify"] {
        assert!(refusal(one.path(), &["wal", command]).contains("belongs to system"));
    }
    fs::remove_dir_all(one.path().join("meta")).unwrap();
    fs::rename(other.path().join("meta"), one.path().join("meta")).unwrap();
    assert!(refusal(one.path(), &["summary"]).contains("were they mixed up?"));
}

#[test]
fn wrong_usage_is_explained() {
    let place = Place::clean();
    let run = |arguments: &[&str]| place.inspect(&[&["wal", "dump"], arguments].concat());
    for (arguments, explained) in [
        (["--from", "12"], "is not an LSN"),
        (["--from", "x/y"], "is not an LSN"),
        (["--limit", "0"], "0 is not in 1.."),
        (["--limit", "all"], "invalid digit"),
    ] {
        let answer = run(&arguments);
        assert_eq!((answer.code, answer.text.as_str()), (2, ""));
        assert!(answer.error.contains(explained), "{}", answer.error);
    }
    let help = place.inspect(&["wal", "verify", "--help"]).text;
    assert!(help.contains("Usage: mainstay-inspect <DIR> wal verify [OPTIONS]"), "{help}");
    let error = run(&["--nonsense"]).error;
    assert!(error.contains("Usage: mainstay-inspect <DIR> wal dump [OPTIONS]"), "{error}");
    let answer = run(&["--from", "7/0"]);
    assert!(answer.code == 2 && answer.error.contains("the log ends at"), "{}", answer.error);
    assert_eq!(place.inspect(&["wal"]).code, 2);
    assert_eq!(place.inspect(&[]).code, 2);
}
