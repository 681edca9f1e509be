//! `wal dump`, `verify`, `explain` and `stats` on logs with damage in each kind of place.

use std::fs;

use mainstay::engine::Engine;
use serde_json::Value;

use super::support::*;

fn skipped(report: &Value) -> Vec<(u64, u64)> {
    let skipped = report["skipped"].as_array().unwrap();
    skipped.iter().map(|skip| (lsn(&skip["from"]), lsn(&skip["to"]))).collect()
}

fn dump(place: &Place) -> (i32, Vec<Value>, Value) {
    let (code, dump) = place.inspect_json(&["wal", "dump", "--continue"]);
    (code, dump["records"].as_array().unwrap().clone(), dump)
}

fn without(records: &[Value], lost: &[usize]) -> Vec<Value> {
    let kept = records.iter().enumerate().filter(|(index, _)| !lost.contains(index));
    kept.map(|(_, record)| record.clone()).collect()
}

#[test]
fn a_dump_goes_on_at_the_next_whole_record() {
    for inside in [0, 4, 12, 18] {
        let place = Place::killed();
        let records = place.records();
        let (bad, next) = (lsn(&records[2]["start"]), lsn(&records[3]["start"]));
        place.flip(1, bad % MIB + inside);
        let (code, found, document) = dump(&place);
        assert_eq!((code, found), (1, without(&records, &[2])), "byte {inside}");
        assert_eq!(skipped(&document), [(bad, next)]);
        let text = place.inspect(&["wal", "dump", "--continue"]).text;
        assert!(text.contains(&format!("; {} bytes skipped, up to 0/{next:X}\n", next - bad)), "{text}");

        let (code, report) = place.inspect_json(&["wal", "verify", "--continue"]);
        assert_eq!((code, skipped(&report)), (1, vec![(bad, next)]), "{report:#}");
        let count: u64 = report["records"].as_array().unwrap().iter().map(|kind| kind["count"].as_u64().unwrap()).sum();
        assert_eq!(count as usize, records.len() - 1);
        let text = place.inspect(&["wal", "verify", "--continue"]).text;
        assert!(text.contains("\n1 damaged place; the whole records behind were read\n"), "{text}");
    }
}

/// Bytes of a client, or left over from elsewhere: a header that could be one, and a checksum that is not its.
#[test]
fn what_only_looks_like_a_record_is_passed_over() {
    let place = Place::new();
    let node = place.start();
    let timeline = 1u32.to_le_bytes();
    let lookalike = [&[8, 0, 0, 0, 1, 2, 3, 4][..], &timeline, &[1, 0, 0, 0], b"no bytes"].concat();
    for payload in [&b"before"[..], &lookalike, b"behind"] {
        node.engine().write(payload);
    }
    node.engine().demote();
    drop(node);
    let records = place.records();
    let at = records.iter().position(|record| record["payload_bytes"] == 24).unwrap();
    let (bad, next) = (lsn(&records[at]["start"]), lsn(&records[at + 1]["start"]));
    place.flip(1, bad % MIB + 4);
    let (code, found, document) = dump(&place);
    assert_eq!((code, found), (1, without(&records, &[at])));
    assert_eq!(skipped(&document), [(bad, next)]);
    assert_eq!(document["damage"].as_array().unwrap().len(), 1, "{document:#}");
}

#[test]
fn two_damaged_places_in_one_segment_are_both_named() {
    let place = Place::killed();
    let records = place.records();
    let bad = [1, 4].map(|index: usize| lsn(&records[index]["start"]));
    bad.iter().for_each(|bad| place.flip(1, bad % MIB + 5));
    let (code, found, document) = dump(&place);
    assert_eq!((code, found), (1, without(&records, &[1, 4])));
    assert_eq!(document["damage"].as_array().unwrap().len(), 2);
    let report = place.inspect_json(&["wal", "verify", "--continue"]).1;
    let places: Vec<_> = report["damage"].as_array().unwrap().iter().map(|damage| lsn(&damage["lsn"])).collect();
    assert_eq!(places, bad);
}

#[test]
fn records_behind_a_damaged_header_or_a_missing_segment_are_read() {
    let place = Place::killed();
    let records = place.records();
    let across = |number: u64| {
        let ends_in = |record: &&Value| lsn(&record["start"]) / MIB < number && lsn(&record["end"]) > number * MIB;
        records.iter().position(|record| ends_in(&record)).unwrap()
    };
    let lost = across(2);
    place.flip(2, 20);
    let (code, found, document) = dump(&place);
    // What lies across the header cannot be trusted; all others can.
    assert_eq!((code, found), (1, without(&records, &[lost])), "{:#}", document["damage"]);
    assert_eq!(document["damage"][0]["file"], place.segment(2).to_str().unwrap());

    fs::remove_file(place.segment(2)).unwrap();
    let in_it = |record: &&Value| (lsn(&record["end"]) - 1) / MIB >= 2 && lsn(&record["start"]) / MIB <= 2;
    let kept: Vec<_> = records.iter().filter(|record| !in_it(record)).cloned().collect();
    assert!(lsn(&kept.last().unwrap()["start"]) / MIB == 3, "something lies behind the missing segment");
    let (code, found, _) = dump(&place);
    assert_eq!((code, found), (1, kept));
    let (code, report) = place.inspect_json(&["wal", "verify", "--continue"]);
    assert_eq!((code, report["damage"].as_array().unwrap().len()), (1, 1), "{report:#}");
    // The first one of all.
    let place = Place::killed();
    let records = place.records();
    place.flip(1, 20);
    assert_eq!(dump(&place).1, records);
}

#[test]
fn without_damage_going_on_changes_nothing() {
    for place in [Place::clean(), Place::killed()] {
        let records = place.records();
        let (code, found, document) = dump(&place);
        assert_eq!((code, found, &document["stopped_by"]), (0, records, &"end".into()));
        let (code, report) = place.inspect_json(&["wal", "verify", "--continue"]);
        let plain = place.inspect_json(&["wal", "verify"]).1;
        assert_eq!((code, &report["end"], &report["records"]), (0, &plain["end"], &plain["records"]));
        // A bit in the zeros behind the end is a torn tail, not damage.
        let end = lsn(&report["end"]) + 4096;
        place.flip(end / MIB, end % MIB);
        let code = place.inspect_json(&["wal", "verify", "--continue"]).0;
        assert_eq!(code, 0);
    }
}

#[test]
fn a_record_is_explained_with_its_neighbours() {
    let place = Place::clean();
    let records = place.records();
    let explain = |at: u64| place.inspect_json(&["wal", "explain", &format!("0/{at:X}")]);
    let start = lsn(&records[4]["start"]);
    for (inside, meaning) in [(0, "it starts here"), (3, "in its header"), (16, "in its payload")] {
        let (code, found) = explain(start + inside);
        assert_eq!((code, &found["place"]), (0, &"record".into()), "{found:#}");
        assert!(found["meaning"].as_str().unwrap().ends_with(meaning), "{found:#}");
        assert_eq!((&found["record"]["start"], &found["record"]["end"]), (&records[4]["start"], &records[4]["end"]));
        assert_eq!((&found["before"]["start"], &found["after"]["start"]), (&records[3]["start"], &records[5]["start"]));
        assert_eq!(found["offset"], (start + inside) % MIB);
        let part = &found["record"]["parts"][0];
        assert_eq!((&part["crc_ok"], &part["timeline"], &part["kind"]), (&true.into(), &1.into(), &records[4]["kind"]));
        assert_eq!(part["payload_bytes"], records[4]["payload_bytes"]);
    }
    // One that lies across the end of a segment, asked for in its second part.
    let (code, found) = explain(2 * MIB + 200);
    let parts = found["record"]["parts"].as_array().unwrap();
    assert_eq!((code, parts.len()), (0, 2), "{found:#}");
    assert_eq!((&parts[0]["flags"][0], &parts[1]["flags"][0]), (&"continues".into(), &"continued".into()));
    let text = place.inspect(&["wal", "explain", &format!("0/{start:X}")]).text;
    assert!(text.contains(" ok\n") && text.contains("\nbefore    0/"), "{text}");
}

#[test]
fn positions_without_a_record_are_explained() {
    let place = Place::killed();
    let end = lsn(&place.inspect_json(&["wal", "verify"]).1["end"]);
    let explain = |at: u64| place.inspect_json(&["wal", "explain", &format!("{:X}/{:X}", at >> 32, at as u32)]);
    for (at, kind, meaning) in [
        (8, "before-the-log", "the oldest LSN available is 0/100040"),
        (2 * MIB + 8, "header", "which is whole"),
        (end, "past-the-end", "the log ends here"),
        (end + 64, "past-the-end", "past the end of the log"),
        (7 << 32, "past-the-end", "past the end of the log"),
    ] {
        let (code, found) = explain(at);
        assert_eq!((code, &found["place"]), (0, &kind.into()), "{found:#}");
        assert!(found["meaning"].as_str().unwrap().contains(meaning), "{found:#}");
    }
    place.flip(2, 20);
    let (code, found) = explain(2 * MIB + 8);
    assert!(code == 1 && found["meaning"].as_str().unwrap().contains("which is damaged"), "{found:#}");
    let answer = place.inspect(&["wal", "explain", "nonsense"]);
    assert!(answer.code == 2 && answer.error.contains("is not an LSN"), "{}", answer.error);
}

#[test]
fn a_damaged_record_is_explained_with_both_checksums() {
    let place = Place::killed();
    let records = place.records();
    place.flip(1, lsn(&records[2]["start"]) % MIB + 17);
    let at = format!("0/{:X}", lsn(&records[2]["start"]) + 8);
    let (code, found) = place.inspect_json(&["wal", "explain", &at]);
    assert_eq!((code, &found["place"]), (1, &"damaged".into()), "{found:#}");
    let part = &found["record"]["parts"][0];
    assert!(part["crc_ok"] == false && part["crc_computed"] != part["crc_stated"], "{found:#}");
    assert_eq!((&found["before"]["start"], &found["after"]["start"]), (&records[1]["start"], &records[3]["start"]));
    assert!(place.inspect(&["wal", "explain", &at]).text.contains("WRONG: its bytes have "));
}

#[test]
fn statistics_add_up_to_the_segments() {
    let place = Place::clean();
    let records = place.records();
    let sums = |stats: &Value| {
        for segment in stats["segments"].as_array().unwrap() {
            let names = ["payload", "overhead", "header", "filler", "damaged", "unused"];
            let sum: u64 = names.iter().map(|name| segment[format!("{name}_bytes")].as_u64().unwrap()).sum();
            assert_eq!(sum, MIB, "{segment:#}");
        }
    };
    let (code, stats) = place.inspect_json(&["wal", "stats"]);
    sums(&stats);
    assert_eq!((code, &stats["total"]["records"]), (0, &records.len().into()), "{stats:#}");
    for kind in stats["kinds"].as_array().unwrap() {
        let same: Vec<_> = records.iter().filter(|record| record["kind"] == kind["kind"]).collect();
        let payload: u64 = same.iter().map(|record| record["payload_bytes"].as_u64().unwrap()).sum();
        assert_eq!((&kind["count"], &kind["payload_bytes"]), (&same.len().into(), &payload.into()));
    }
    // Behind the last byte of the log there is nothing but the rest of its segment, and segments prepared ahead.
    let end = lsn(&stats["end"]);
    let unused: Vec<_> = stats["segments"].as_array().unwrap().iter().map(|one| one["unused_bytes"].as_u64()).collect();
    assert_eq!(unused[end as usize / MIB as usize - 1], Some(MIB - end % MIB));

    let bad = lsn(&records[2]["start"]);
    place.flip(1, bad % MIB);
    let (code, stats) = place.inspect_json(&["wal", "stats"]);
    sums(&stats);
    assert_eq!((code, &stats["total"]["damaged_bytes"]), (1, &(lsn(&records[3]["start"]) - bad).into()), "{stats:#}");
    assert!(place.inspect(&["wal", "stats"]).text.contains("filler and pad records: "));
}
