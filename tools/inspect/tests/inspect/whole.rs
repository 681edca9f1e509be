//! Directories in which nothing is wrong, though a node may have been killed.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::process::Stdio;

use mainstay::engine::Engine;

use super::support::*;

#[test]
fn a_clean_directory_is_summed_up() {
    let place = Place::clean();
    let (code, summary) = place.inspect_json(&["summary"]);
    assert_eq!(code, 0, "{summary:#}");
    assert_eq!((&summary["node_id"], &summary["segment_size_bytes"]), (&1.into(), &MIB.into()));
    assert!(summary["system_id"].as_str().unwrap().parse::<u64>().unwrap() > 0);
    let wal = &summary["wal"];
    assert_eq!(summary["notes"]["clean_end"], wal["end"]);
    assert!(lsn(&summary["notes"]["checkpoint"]) < lsn(&wal["end"]));
    assert_eq!((&wal["oldest"], &wal["reaches_start"]), (&"0/100040".into(), &true.into()));
    assert_eq!(wal["torn_tail_bytes"], 0);
    assert_eq!(wal["segments"].as_u64().unwrap(), summary["size_bytes"]["wal"].as_u64().unwrap() / MIB);
    assert!(
        summary["size_bytes"]["meta"].as_u64().unwrap() > 0 && summary["size_bytes"]["engine"].as_u64().unwrap() > 0
    );
    assert_eq!(summary["damage"].as_array().unwrap().len(), 0);

    let text = place.inspect(&["summary"]);
    assert_eq!((text.code, text.error.as_str()), (0, ""));
    let end = wal["end"].as_str().unwrap();
    for line in [&format!("last stop       clean, at {end}"), &format!("  end           {end}"), "  torn tail     none"]
    {
        assert!(text.text.lines().any(|found| found == line), "{line:?} in\n{}", text.text);
    }
}

#[test]
fn a_killed_directory_is_whole_too() {
    let place = Place::killed();
    let (code, summary) = place.inspect_json(&["summary"]);
    assert_eq!((code, &summary["notes"]["clean_end"]), (0, &serde_json::Value::Null), "{summary:#}");
    assert_eq!(summary["wal"]["torn_tail_bytes"], 0);
    let text = place.inspect(&["summary"]).text;
    assert!(text.contains("last stop       not clean") && text.contains("checkpoint      none yet"), "{text}");
    assert_eq!(place.inspect_json(&["wal", "verify"]).0, 0);
}

#[test]
fn segments_are_listed_with_what_they_hold() {
    let place = Place::killed();
    let (code, list) = place.inspect_json(&["wal", "list"]);
    assert_eq!(code, 0);
    let segments = list["segments"].as_array().unwrap();
    let states: Vec<_> = segments.iter().map(|segment| segment["state"].as_str().unwrap()).collect();
    assert!(states.starts_with(&["full", "full", "current"]), "{states:?}");
    assert!(states[3..].iter().all(|state| *state == "prepared"), "{states:?}");
    assert_eq!((&segments[0]["first_lsn"], &segments[0]["number"]), (&"0/100000".into(), &1.into()));
    assert_eq!(segments[2]["used_bytes"].as_u64().unwrap(), lsn(&list["end"]) % MIB);

    let text = place.inspect(&["wal", "list"]);
    let lines: Vec<_> = text.text.lines().collect();
    assert_eq!(lines.len(), segments.len() + 2, "a title, the segments, their sum");
    let number_ends = lines[0].find("number").unwrap() + "number".len();
    for (line, number) in lines[1..].iter().take(segments.len()).zip(1..) {
        assert!(line.starts_with(&format!("00000001{:08X}{number:08X}", 0)), "{line}");
        assert!(line[..number_ends].ends_with(&format!(" {number}")), "columns are aligned: {line}");
    }
}

#[test]
fn each_segment_says_who_keeps_it() {
    let place = Place::clean();
    let (code, kept) = place.inspect_json(&["wal", "retention", "--keep-bytes", "0"]);
    assert_eq!(code, 0, "{kept:#}");
    let segments = kept["segments"].as_array().unwrap();
    let last = (lsn(&kept["end"]) - 1) / MIB;
    assert!(last >= 3 && lsn(&kept["checkpoint"]) / MIB == last, "{kept:#}");
    for segment in segments {
        let expected: &[&str] =
            if segment["number"].as_u64() < Some(last) { &[] } else { &["the checkpoint", "the writer"] };
        assert_eq!(segment["kept_by"], serde_json::json!(expected), "{segment:#}");
    }
    assert_eq!(kept["needed_by_nobody_bytes"], (last - 1) * MIB);

    // As a node does unless told otherwise.
    let text = place.inspect(&["wal", "retention"]).text;
    assert!(text.contains(&format!("00000001{:08X}{:08X}  kept by keep_bytes\n", 0, 1)), "{text}");
    assert!(
        text.contains("  kept by keep_bytes, the checkpoint, the writer\n")
            && text.contains("0 bytes needed by nobody")
    );
    let killed = Place::killed().inspect(&["wal", "retention", "--keep-bytes", "1"]);
    assert!(killed.code == 0 && killed.text.contains("checkpoint 0/0"), "{}", killed.text);
    assert!(killed.text.contains(&format!("00000001{:08X}{:08X}  kept by the checkpoint\n", 0, 1)), "{}", killed.text);
}

#[test]
fn records_are_dumped_with_what_they_state() {
    let place = Place::clean();
    let (code, dump) = place.inspect_json(&["wal", "dump"]);
    assert_eq!((code, &dump["stopped_by"]), (0, &"end".into()));
    let records = dump["records"].as_array().unwrap();
    let data: Vec<_> = records.iter().filter(|record| record["kind"] == "data").collect();
    assert_eq!((data.len(), &data[1]["payload_bytes"]), (12, &8.into()));
    assert_eq!(data[0]["payload_head_hex"], "7265636f72642030");
    assert_eq!(data[5]["payload_bytes"], LARGE);
    for pair in records.windows(2) {
        assert!(lsn(&pair[0]["end"]) <= lsn(&pair[1]["start"]));
        if pair[1]["kind"] == "mark" {
            // One writer: each record is flushed alone, and the last mark of a clean stop is, too.
            let flushed_alone = if pair[0]["kind"] == "mark" { &pair[0]["end"] } else { &pair[0]["start"] };
            assert_eq!(&pair[1]["durable"], flushed_alone, "{pair:?}");
        }
    }
    assert_eq!(dump["next"], records.last().unwrap()["end"]);

    let text = place.inspect(&["wal", "dump"]).text;
    assert_eq!(text.lines().count(), records.len() + 2);
    assert!(text.contains("|record 1|") && text.contains("durable up to 0/100040"), "{text}");
    assert!(text.contains("|xxxxxxxxxxxxxxxx|…"), "a long payload is cut: {text}");
}

#[test]
fn a_dump_starts_at_a_record_or_the_next_one_and_stops_at_its_limit() {
    let place = Place::clean();
    let records = place.records();
    let at = |index: usize| records[index]["start"].as_str().unwrap();
    let (_, dump) = place.inspect_json(&["wal", "dump", "--from", at(4), "--limit", "2"]);
    assert_eq!(dump["records"].as_array().unwrap()[..], records[4..6]);
    assert_eq!((&dump["stopped_by"], &dump["next"]), (&"limit".into(), &records[6]["start"]));

    let inside = format!("0/{:X}", lsn(&records[4]["start"]) + 8);
    let (_, dump) = place.inspect_json(&["wal", "dump", "--limit", "1", "--from", &inside]);
    assert_eq!((&dump["from"], &dump["start"]), (&inside.as_str().into(), &records[5]["start"]));
    assert_eq!(dump["records"][0], records[5]);
    let text = place.inspect(&["wal", "dump", "--limit", "1", "--from", &inside]).text;
    assert!(text.starts_with(&format!("no record starts at {inside}; the next one is at {}\n", at(5))), "{text}");
    assert!(text.ends_with(&format!("1 record shown; go on with --from {}\n", at(6))), "{text}");

    // Inside a record that goes on in the next segment.
    let across =
        records.iter().position(|record| lsn(&record["start"]) / MIB < (lsn(&record["end"]) - 1) / MIB).unwrap();
    let (_, dump) = place.inspect_json(&["wal", "dump", "--limit", "1", "--from", "0/200040"]);
    assert_eq!(dump["records"][0], records[across + 1]);

    // Before everything, and at the very end.
    let (code, dump) = place.inspect_json(&["wal", "dump", "--limit", "1", "--from", "0/0"]);
    assert_eq!((code, &dump["records"][0]), (0, &records[0]));
    let end = records.last().unwrap()["end"].as_str().unwrap();
    let (code, dump) = place.inspect_json(&["wal", "dump", "--from", end]);
    assert_eq!((code, dump["records"].as_array().unwrap().len(), &dump["stopped_by"]), (0, 0, &"end".into()));
    // Inside the last one there is no next one.
    let inside = format!("0/{:X}", lsn(&records.last().unwrap()["start"]) + 8);
    let text = place.inspect(&["wal", "dump", "--from", &inside]).text;
    let first = format!("no record starts at {inside} or behind it: the log ends at {end}\n");
    assert!(text.starts_with(&first), "{text}");
}

/// A record lies across the end of what was recycled: the log begins behind it.
#[test]
fn all_commands_say_the_same_of_where_the_log_begins() {
    let place = Place::clean();
    let records = place.records();
    let first = records.iter().find(|record| lsn(&record["start"]) > 2 * MIB).unwrap();
    assert!(lsn(&first["start"]) > 2 * MIB + 64, "one lies across");
    std::fs::remove_file(place.segment(1)).unwrap();
    let oldest = first["start"].as_str().unwrap();
    assert_eq!(place.inspect_json(&["summary"]).1["wal"]["oldest"], oldest);
    for command in [&["wal", "verify"][..], &["wal", "explain", oldest]] {
        let (code, report) = place.inspect_json(command);
        assert_eq!((code, &report["oldest"]), (0, &oldest.into()), "{report:#}");
    }
    assert_eq!(place.records()[0], *first);
    let error = place.inspect(&["wal", "repair", "--cut-at", "0/100040"]).error;
    assert!(error.contains(&format!("the log begins at {oldest}")), "{error}");
}

#[test]
fn everything_is_verified_and_counted() {
    let place = Place::clean();
    let records = place.records();
    let (code, verified) = place.inspect_json(&["wal", "verify"]);
    assert_eq!(code, 0, "{verified:#}");
    for tally in verified["records"].as_array().unwrap() {
        let kind: Vec<_> = records.iter().filter(|record| record["kind"] == tally["kind"]).collect();
        let bytes: u64 = kind.iter().map(|record| record["payload_bytes"].as_u64().unwrap()).sum();
        assert_eq!((&tally["count"], &tally["payload_bytes"]), (&kind.len().into(), &bytes.into()));
    }
    assert_eq!(verified["oldest"], records[0]["start"]);
    assert_eq!(verified["end"], records.last().unwrap()["end"]);
    let text = place.inspect(&["wal", "verify"]);
    assert!(text.code == 0 && text.text.ends_with("\nno damage\n"), "{}", text.text);
}

#[test]
fn a_torn_tail_is_named_and_no_damage() {
    let place = Place::killed();
    let end = lsn(&place.inspect_json(&["wal", "verify"]).1["end"]);
    let file = File::options().write(true).open(place.segment(end / MIB)).unwrap();
    file.write_all_at(b"torn", end % MIB + 16).unwrap();
    for command in [&["wal", "verify"][..], &["wal", "dump"]] {
        let (code, report) = place.inspect_json(command);
        assert_eq!((code, &report["torn_tail_bytes"]), (0, &20.into()), "{report:#}");
        let text = place.inspect(command).text;
        assert!(text.contains("torn tail") && text.contains("20 bytes"), "{text}");
    }
    assert_eq!(place.inspect_json(&["summary"]).1["wal"]["torn_tail_bytes"], 20);
    assert!(place.inspect(&["summary"]).text.contains("torn tail     20 bytes, which the next start cuts"));

    // A flip in the very last flush is a tear, too: nothing says that the log was durable behind it.
    let place = Place::killed();
    let records = place.records();
    let last = records.iter().rfind(|record| record["kind"] == "data").unwrap();
    place.flip(lsn(&last["start"]) / MIB, lsn(&last["start"]) % MIB + 20);
    let (code, report) = place.inspect_json(&["wal", "verify"]);
    assert_eq!((code, &report["end"]), (0, &last["start"]), "{report:#}");
    assert!(report["torn_tail_bytes"].as_u64().unwrap() > 0);
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let place = Place::new();
    let node = place.start();
    for _ in 0..2000 {
        node.engine().write(b"many short records, more than a pipe holds");
    }
    node.engine().demote();
    drop(node);
    for json in [&[][..], &["--json"]] {
        let mut child = inspector()
            .arg(place.path())
            .args(["wal", "dump", "--limit", "100000"])
            .args(json)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = child.stdout.take().unwrap();
        out.read_exact(&mut [0; 100]).unwrap();
        drop(out);
        let output = answer(child.wait_with_output().unwrap());
        assert_eq!((output.code, output.error.as_str()), (0, ""));
    }
}
