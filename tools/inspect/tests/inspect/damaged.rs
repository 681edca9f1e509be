//! Damage in each part of a directory: exit 1, where it is, and nothing is changed.

use std::fs;

use serde_json::Value;

use super::support::*;

/// The only damage in a report.
fn only(report: &Value) -> &Value {
    let damage = report["damage"].as_array().unwrap();
    assert_eq!(damage.len(), 1, "{report:#}");
    &damage[0]
}

#[test]
fn a_flipped_byte_in_an_old_record_is_found_by_verify() {
    for place in [Place::clean(), Place::killed()] {
        let record = &place.records()[2];
        let offset = lsn(&record["start"]) % MIB;
        place.flip(1, offset + 18);
        let (code, report) = place.inspect_json(&["wal", "verify"]);
        let damage = only(&report);
        assert_eq!(code, 1);
        assert_eq!(damage["file"], place.segment(1).to_str().unwrap());
        assert_eq!((&damage["offset"], &damage["lsn"]), (&offset.into(), &record["start"]));
        assert!(damage["expected"].as_str().unwrap().contains("CRC"));
        assert_eq!(damage["bytes"]["offset"].as_u64().unwrap(), offset / 16 * 16 - 32);
        let file = fs::read(place.segment(1)).unwrap();
        let from = offset as usize / 16 * 16 - 32;
        let hex: String = file[from..from + 96].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(damage["bytes"]["hex"], hex);
        let text = place.inspect(&["wal", "verify"]).text;
        assert!(text.contains(&format!("  offset    {offset} ({offset:#x})")), "{text}");
        assert!(text.contains(&format!("  > {:08x}  ", offset / 16 * 16)), "the line is pointed at: {text}");
        assert!(text.contains("\n1 damaged place; "), "{text}");
        // The records up to there, and why no more.
        let (code, dump) = place.inspect_json(&["wal", "dump"]);
        assert_eq!((code, dump["records"].as_array().unwrap().len(), &dump["stopped_by"]), (1, 2, &"damage".into()));
        assert_eq!(only(&dump)["offset"], offset);
    }
}

#[test]
fn every_damaged_segment_is_named_and_what_lies_behind_can_be_dumped() {
    let place = Place::killed();
    let records = place.records();
    let in_segment = |number: u64| records.iter().find(|record| lsn(&record["start"]) / MIB == number).unwrap();
    let offsets = [1, 2].map(|number| lsn(&in_segment(number)["start"]) % MIB);
    place.flip(1, offsets[0] + 4);
    place.flip(2, offsets[1] + 4);
    let (code, report) = place.inspect_json(&["wal", "verify"]);
    let found: Vec<_> = report["damage"].as_array().unwrap().iter().map(|damage| &damage["offset"]).collect();
    assert_eq!((code, found), (1, vec![&offsets[0].into(), &offsets[1].into()]), "{report:#}");
    assert_eq!(report["end"], Value::Null);

    let behind = in_segment(3);
    let from = behind["start"].as_str().unwrap();
    let (code, dump) = place.inspect_json(&["wal", "dump", "--from", from, "--limit", "1"]);
    assert_eq!((code, &dump["records"][0]), (1, behind));

    for command in [&["summary"][..], &["wal", "list"]] {
        let (code, report) = place.inspect_json(command);
        assert_eq!((code, &only(&report)["offset"]), (1, &offsets[0].into()));
        assert!(place.inspect(command).text.contains("\nDAMAGE\n"));
    }
    let list = place.inspect_json(&["wal", "list"]).1;
    assert_eq!((&list["segments"][0]["state"], &list["segments"][1]["state"]), (&"damaged".into(), &"unknown".into()));
}

#[test]
fn damaged_headers_are_found_behind_the_end_too() {
    let place = Place::clean();
    let list = place.inspect_json(&["wal", "list"]).1;
    let segments = list["segments"].as_array().unwrap();
    let prepared = segments.iter().find(|segment| segment["state"] == "prepared").unwrap()["number"].as_u64().unwrap();
    place.flip(prepared, 20);
    // Nothing was ever written there, and a start removes it.
    for command in ["list", "verify"] {
        let (code, report) = place.inspect_json(&["wal", command]);
        let unused = &report["damaged_and_unused"][0]["file"];
        assert_eq!((code, unused), (0, &place.segment(prepared).to_str().unwrap().into()), "{report:#}");
        let text = place.inspect(&["wal", command]).text;
        assert!(text.contains("the next start removes it") && !text.contains("DAMAGE"), "{text}");
    }
    let list = place.inspect_json(&["wal", "list"]).1;
    assert_eq!(list["segments"][prepared as usize - 1]["state"], "prepared");
    // With anything behind the header, nobody knows what it was.
    place.flip(prepared, 5000);
    for command in ["list", "verify"] {
        let (code, report) = place.inspect_json(&["wal", command]);
        assert_eq!((code, &only(&report)["file"]), (1, &place.segment(prepared).to_str().unwrap().into()));
    }
    let list = place.inspect_json(&["wal", "list"]).1;
    assert_eq!(list["segments"][prepared as usize - 1]["state"], "damaged-header");
    // A whole segment in the middle.
    place.flip(2, 20);
    let (code, report) = place.inspect_json(&["wal", "verify"]);
    let files: Vec<_> = report["damage"].as_array().unwrap().iter().map(|damage| damage["file"].as_str()).collect();
    assert_eq!(
        (code, files),
        (1, [2, prepared].map(|number| place.segment(number)).iter().map(|path| path.to_str()).collect())
    );
}

#[test]
fn a_missing_segment_is_damage_and_what_is_before_it_is_verified() {
    let place = Place::killed();
    fs::remove_file(place.segment(2)).unwrap();
    let (code, report) = place.inspect_json(&["wal", "verify"]);
    let damage = only(&report);
    assert_eq!((code, &damage["file"]), (1, &place.segment(2).to_str().unwrap().into()), "{report:#}");
    assert_eq!((&damage["bytes"], &damage["lsn"]), (&Value::Null, &"0/200000".into()));
    assert!(report["records"][0]["count"].as_u64().unwrap() > 3, "{report:#}");
    for command in [&["summary"][..], &["wal", "list"]] {
        assert_eq!(place.inspect_json(command).0, 1);
    }
    place.flip(1, 100);
    let report = place.inspect_json(&["wal", "verify"]).1;
    assert_eq!(report["damage"].as_array().unwrap().len(), 2, "{report:#}");
    // The oldest one: no checkpoint was made, so nothing may be gone.
    let place = Place::killed();
    fs::remove_file(place.segment(1)).unwrap();
    let (code, report) = place.inspect_json(&["wal", "verify"]);
    assert_eq!((code, &only(&report)["lsn"]), (1, &"0/100000".into()));
}

#[test]
fn a_log_that_ends_before_the_nodes_notes_is_damaged() {
    let place = Place::clean();
    let records = place.records();
    let last = records.last().unwrap();
    place.flip(lsn(&last["start"]) / MIB, lsn(&last["start"]) % MIB);
    let (code, report) = place.inspect_json(&["wal", "verify"]);
    assert_eq!((code, &only(&report)["lsn"]), (1, &last["start"]), "{report:#}");
    assert!(only(&report)["found"].as_str().unwrap().contains("notes say"));
}

#[test]
fn without_rocksdb_the_log_is_judged_by_its_marks() {
    let place = Place::clean();
    let records = place.records();
    fs::remove_dir_all(place.path().join("meta")).unwrap();
    for command in [&["summary"][..], &["wal", "list"], &["wal", "dump"], &["wal", "verify"]] {
        let (code, report) = place.inspect_json(command);
        assert_eq!(code, 1, "{report:#}");
        assert_eq!(only(&report)["file"], place.path().join("meta").to_str().unwrap());
        assert!(report["rocksdb_error"].as_str().unwrap().contains("meta"), "{report:#}");
        assert!(place.inspect(command).text.contains("judged by its own marks alone"));
    }
    assert_eq!(place.records(), records);
    assert_eq!(place.inspect_json(&["wal", "verify"]).1["end"], records.last().unwrap()["end"]);
}

#[test]
fn a_log_that_is_not_there_is_not_one_that_was_never_written() {
    let place = Place::clean();
    fs::remove_dir_all(place.path().join("wal")).unwrap();
    for command in [&["wal", "verify"][..], &["wal", "explain", "0/100040"]] {
        let answer = place.inspect(command);
        assert!(answer.code == 1 && answer.text.contains("the log is not there"), "{}", answer.text);
        assert!(!answer.text.contains("no log yet") && !answer.text.contains("--continue"), "{}", answer.text);
    }
    let place = Place::killed();
    fs::remove_file(place.segment(2)).unwrap();
    let text = place.inspect(&["wal", "verify"]).text;
    assert!(text.ends_with("\n1 damaged place\n"), "there is nothing to go on with: {text}");
}

#[test]
fn a_damaged_identity_hides_the_rest() {
    let place = Place::clean();
    flip(&place.path().join("identity"), 17);
    let (code, report) = place.inspect_json(&["wal", "verify"]);
    assert_eq!((code, &only(&report)["file"]), (1, &place.path().join("identity").to_str().unwrap().into()));
    let answer = place.inspect(&["summary"]);
    assert!(answer.code == 1 && answer.error.contains("identity is damaged"), "{}", answer.error);
}

#[test]
fn of_a_damaged_log_everything_is_kept() {
    let place = Place::killed();
    place.flip(1, lsn(&place.records()[1]["start"]) % MIB + 4);
    let (code, kept) = place.inspect_json(&["wal", "retention"]);
    assert_eq!((code, &kept["end"], &kept["needed_by_nobody_bytes"]), (1, &Value::Null, &0.into()), "{kept:#}");
    only(&kept);
    for segment in kept["segments"].as_array().unwrap() {
        assert_eq!((&segment["kept_by"], &segment["explanation"]), (&Value::Null, &"kept: the log is damaged".into()));
    }
}

/// The file system refuses to open it, whoever asks: a link to itself.
#[test]
fn a_segment_that_cannot_be_opened_ends_no_command() {
    let place = Place::killed();
    let oldest = place.records();
    let (first, last) = (oldest[0]["start"].as_str().unwrap(), oldest[oldest.len() - 1]["start"].as_str().unwrap());
    assert_eq!((lsn(&oldest[0]["start"]) / MIB, lsn(&oldest[oldest.len() - 1]["start"]) / MIB), (1, 3));
    fs::remove_file(place.segment(2)).unwrap();
    std::os::unix::fs::symlink(place.segment(2), place.segment(2)).unwrap();
    assert!(fs::File::open(place.segment(2)).is_err());
    let commands = [
        &["summary"][..],
        &["wal", "list"],
        &["wal", "verify"],
        &["wal", "verify", "--continue"],
        &["wal", "stats"],
        &["wal", "retention"],
        &["wal", "dump"],
        &["wal", "dump", "--continue"],
        &["wal", "explain", first],
        &["wal", "explain", last],
    ];
    for command in commands {
        let Answer { code, text, error } = answer(inspector().arg(place.path()).args(command).output().unwrap());
        assert_eq!((code, error.as_str()), (1, ""), "{command:?}: {text}");
        assert!(text.contains(place.segment(2).to_str().unwrap()), "{command:?}: {text}");
    }
    let output = inspector().arg(place.path()).args(["wal", "dump", "--continue", "--json"]).output().unwrap();
    let dump = answer(output).json();
    let shown = dump["records"].as_array().unwrap();
    assert_eq!((&shown[0], &shown[shown.len() - 1]), (&oldest[0], &oldest[oldest.len() - 1]));
}
