//! `wal repair`: what it refuses, what it says, and that a node goes on behind it.

use std::fs;
use std::path::PathBuf;

use mainstay::engine::Engine;
use serde_json::Value;

use super::support::*;

/// Runs it for real.
fn repair(place: &Place, at: &str) -> Answer {
    answer(inspector().arg(place.path()).args(["wal", "repair", "--yes", "--json", "--cut-at", at]).output().unwrap())
}

fn copies(place: &Place) -> Vec<PathBuf> {
    let names = fs::read_dir(place.path().join("wal")).unwrap().map(|entry| entry.unwrap().path());
    let mut copies: Vec<_> = names.filter(|path| path.extension().is_some_and(|ending| ending == "broken")).collect();
    copies.sort();
    copies
}

fn starts_of_data(place: &Place) -> Vec<Value> {
    let records = place.inspect_json(&["wal", "dump", "--continue"]).1["records"].as_array().unwrap().clone();
    records.into_iter().filter(|record| record["kind"] == "data").map(|record| record["start"].clone()).collect()
}

/// Starts a node, appends, stops, and says which data records there are.
fn go_on(place: &Place) -> Vec<Value> {
    let node = place.start();
    node.engine().write(b"behind the cut");
    node.engine().demote();
    drop(node);
    assert_eq!(place.inspect(&["wal", "verify"]).code, 0);
    starts_of_data(place)
}

#[test]
fn without_yes_nothing_is_changed_and_what_would_be_lost_is_said() {
    let place = Place::killed();
    let records = place.records();
    let at = records[3]["end"].as_str().unwrap();
    let files_before = files(place.path());
    let (code, plan) = place.inspect_json(&["wal", "repair", "--cut-at", at]);
    assert!(files(place.path()) == files_before);
    let lost = &records[4..];
    let data: Vec<_> = lost.iter().filter(|record| record["kind"] == "data").collect();
    assert_eq!((code, &plan["done"], &plan["cut_at"]), (2, &false.into(), &at.into()), "{plan:#}");
    assert_eq!((&plan["lost"]["records"], &plan["lost"]["data_records"]), (&lost.len().into(), &data.len().into()));
    let marks = lost.iter().filter(|record| record["kind"] == "mark");
    let highest = marks.map(|mark| lsn(&mark["durable"])).max().unwrap();
    assert_eq!(lsn(&plan["known_durable"]["lsn"]), highest, "{plan:#}");
    let text = place.inspect(&["wal", "repair", "--cut-at", at]).text;
    assert!(text.contains("ACKNOWLEDGED DATA WOULD BE LOST") && text.contains("Nothing was changed."), "{text}");
}

#[test]
fn a_node_goes_on_behind_a_cut_before_the_damage() {
    let place = Place::killed();
    let records = place.records();
    let data = starts_of_data(&place);
    let (kept, bad) = (&records[3], &records[4]);
    place.flip(1, lsn(&bad["start"]) % MIB + 4);
    let segments = [1, 2, 3].map(|number| fs::read(place.segment(number)).unwrap());
    let answer = repair(&place, bad["start"].as_str().unwrap());
    assert_eq!(answer.code, 0, "{}{}", answer.text, answer.error);
    let done = answer.json();
    assert_eq!((&done["done"], lsn(&done["cut_at"])), (&true.into(), lsn(&kept["end"])), "{done:#}");
    // Everything that was changed is still there.
    let kept_bytes: Vec<_> = copies(&place).iter().map(|path| fs::read(path).unwrap()).collect();
    assert_eq!(done["copies"].as_array().unwrap().len(), kept_bytes.len());
    assert!(segments.iter().all(|segment| kept_bytes.contains(segment)));
    assert_eq!(place.inspect_json(&["wal", "verify"]).1["end"], kept["end"]);

    let before = data.iter().filter(|start| lsn(start) < lsn(&bad["start"])).count();
    let found = go_on(&place);
    assert_eq!((found.len(), &found[..before]), (before + 1, &data[..before]));
    // A second repair leaves the copies of the first alone.
    let first = copies(&place);
    let contents = first.iter().map(|path| fs::read(path).unwrap()).collect::<Vec<_>>();
    assert_eq!(repair(&place, found[before].as_str().unwrap()).code, 0);
    assert!(copies(&place).len() > first.len());
    assert!(first.iter().zip(&contents).all(|(path, bytes)| fs::read(path).unwrap() == *bytes));
}

#[test]
fn a_missing_segment_in_the_middle_can_be_cut_at() {
    let place = Place::killed();
    let records = place.records();
    fs::remove_file(place.segment(2)).unwrap();
    let whole = records.iter().rfind(|record| lsn(&record["end"]) <= 2 * MIB).unwrap();
    assert_eq!(repair(&place, whole["end"].as_str().unwrap()).code, 0);
    assert!(!place.segment(3).exists());
    let before = records.iter().filter(|record| record["kind"] == "data" && lsn(&record["end"]) <= 2 * MIB).count();
    assert_eq!(go_on(&place).len(), before + 1);
}

#[test]
fn after_a_clean_stop_the_notes_are_taken_back_and_the_engine_is_spoken_of() {
    let place = Place::clean();
    let records = place.records();
    let at = records[3]["end"].as_str().unwrap();
    let plan = place.inspect_json(&["wal", "repair", "--cut-at", at]).1;
    let summary = place.inspect_json(&["summary"]).1;
    assert_eq!(plan["notes"], summary["notes"], "{plan:#}");
    assert_eq!((&plan["engine"]["is_beyond_the_cut"], &plan["engine"]["can_be_rebuilt"]), (&true.into(), &true.into()));
    let engine = place.path().join("engine");
    let text = place.inspect(&["wal", "repair", "--cut-at", at]).text;
    assert!(text.contains(&format!("move {} away", engine.display())), "{text}");
    assert_eq!(repair(&place, at).code, 0);
    assert!(place.try_start().err().unwrap().contains("the engine's files"));
    fs::rename(&engine, place.path().join("engine.old")).unwrap();
    let before = records[..4].iter().filter(|record| record["kind"] == "data").count();
    assert_eq!(go_on(&place).len(), before + 1);
}

#[test]
fn what_is_no_record_boundary_is_refused() {
    let place = Place::killed();
    let records = place.records();
    let (start, end) = (lsn(&records[3]["start"]), lsn(&records[3]["end"]));
    let before = files(place.path());
    let inside = format!("0/{:X}", start + 8);
    let refused = repair(&place, &inside);
    let nearest = format!("the nearest ones are 0/{start:X} and 0/{end:X}");
    assert!(refused.code == 2 && refused.error.contains(&nearest), "{}", refused.error);
    for (at, explained) in [("0/8", "the log begins at 0/100040"), ("7/0", "the last position to cut it at is 0/")] {
        let refused = repair(&place, at);
        assert!(refused.code == 2 && refused.error.contains(explained), "{}", refused.error);
    }
    assert!(files(place.path()) == before);
    // Behind damage.
    place.flip(1, start % MIB);
    let before = files(place.path());
    let refused = repair(&place, records[5]["start"].as_str().unwrap());
    assert!(refused.code == 2 && refused.error.contains("whole only up to"), "{}", refused.error);
    for wrong in [&["--cut-at", "x"][..], &[], &["--yes"]] {
        assert_eq!(place.inspect(&[&["wal", "repair"], wrong].concat()).code, 2);
    }
    assert!(files(place.path()) == before);
}

#[test]
fn what_will_be_lost_is_said_before_anything_is_changed() {
    let place = Place::killed();
    let records = place.records();
    let at = records[3]["end"].as_str().unwrap();
    // In the way of the copies, so that it ends before the first change.
    fs::create_dir(place.path().join("wal/repair.tmp")).unwrap();
    let segment = fs::read(place.segment(1)).unwrap();
    let run = |json: &[&str]| {
        let command = [&["wal", "repair", "--yes", "--cut-at", at][..], json].concat();
        answer(inspector().arg(place.path()).args(command).output().unwrap())
    };
    let text = run(&[]);
    assert!(text.code == 2 && text.error.contains("the log is as it was"), "{}", text.error);
    for line in ["The log will end at ", "\nWhat will be lost\n", "\nACKNOWLEDGED DATA WILL BE LOST\n"] {
        assert!(text.text.contains(line), "{line:?} in {}", text.text);
    }
    assert!(!text.text.contains("Done"), "{}", text.text);
    let json = run(&["--json"]);
    let document = json.json();
    assert_eq!((json.code, &document["done"], &document["cut_at"]), (2, &false.into(), &at.into()));
    assert!(document["error"].as_str().unwrap().contains("the log is as it was"), "{document:#}");
    assert_eq!(fs::read(place.segment(1)).unwrap(), segment);
    fs::remove_dir(place.path().join("wal/repair.tmp")).unwrap();
    let text = run(&[]).text;
    assert!(text.contains("\nWhat will be lost\n"), "{text}");
    assert!(text.contains(&format!("\nDone: the log ends at {at}. What was changed is kept in\n")), "{text}");
}

#[test]
fn what_the_choice_of_the_place_loses_is_said() {
    let place = Place::killed();
    let records = place.records();
    place.flip(2, 20);
    let across = |record: &&Value| lsn(&record["start"]) < 2 * MIB && lsn(&record["end"]) > 2 * MIB;
    let at = records.iter().position(|record| across(&record)).unwrap();
    let error = place.inspect(&["wal", "repair", "--cut-at", records[at + 2]["end"].as_str().unwrap()]).error;
    let behind = format!("{} whole records behind it would be lost", records.len() - at - 1);
    assert!(error.contains(&behind) && error.contains(place.segment(2).to_str().unwrap()), "{error}");
    let text = place.inspect(&["wal", "repair", "--cut-at", records[at]["start"].as_str().unwrap()]).text;
    let inside = records.iter().filter(|record| lsn(&record["start"]) / MIB == 2).count();
    let line =
        format!("{} is damaged; {inside} whole records start behind it, and no cut keeps them\n", segment_name(2));
    assert!(text.contains(&line), "{line} in {text}");

    // Behind the end, a segment of anything.
    let place = Place::killed();
    let end = place.inspect_json(&["wal", "verify"]).1["end"].as_str().unwrap().to_owned();
    fs::write(place.segment(4), vec![b'?'; MIB as usize]).unwrap();
    let text = place.inspect(&["wal", "repair", "--cut-at", &end]).text;
    assert!(
        text.contains(&format!("bytes that are something else, or cannot be read, in\n  {}\n", segment_name(4))),
        "{text}"
    );
    assert!(!text.contains("Nothing that was acknowledged"), "{text}");
}

fn segment_name(number: u64) -> String {
    format!("00000001{:08X}{number:08X}", 0)
}

#[test]
fn a_running_node_is_not_repaired() {
    let place = Place::new();
    let node = place.start();
    node.engine().write(b"alive");
    let segment = fs::read(place.segment(1)).unwrap();
    let refused = repair(&place, "0/100040");
    assert!(refused.code == 2 && refused.error.contains("a node runs on"), "{}", refused.error);
    assert!(copies(&place).is_empty() && fs::read(place.segment(1)).unwrap() == segment);
    node.engine().demote();
}

#[test]
fn without_rocksdb_nothing_is_repaired() {
    let place = Place::clean();
    let at = place.records()[2]["start"].as_str().unwrap().to_owned();
    fs::remove_dir_all(place.path().join("meta")).unwrap();
    let before = files(place.path());
    let refused = repair(&place, &at);
    assert!(refused.code == 2 && refused.error.contains("RocksDB cannot be read"), "{}", refused.error);
    assert!(files(place.path()) == before);
}
