//! A segment of another system, or of a later version, among those of this one: everything else can be looked at.

use std::fs;
use std::os::unix::fs::FileExt;

use serde_json::Value;

use super::support::*;

/// The second segment belongs to another system, or has a header of a later format.
fn damaged(is_foreign: bool) -> (Place, Vec<Value>) {
    let place = Place::killed();
    let records = place.records();
    if is_foreign {
        fs::copy(Place::killed().segment(2), place.segment(2)).unwrap();
    } else {
        let file = fs::File::options().read(true).write(true).open(place.segment(2)).unwrap();
        let mut header = [0; 64];
        file.read_exact_at(&mut header, 0).unwrap();
        header[8] = 2;
        let crc = crc32(&header[..60]).to_le_bytes();
        header[60..].copy_from_slice(&crc);
        file.write_all_at(&header, 0).unwrap();
    }
    (place, records)
}

/// The checksum of a header, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 };
    !bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

fn outside(records: &[Value]) -> Vec<Value> {
    let touches = |record: &&Value| lsn(&record["start"]) < 3 * MIB && lsn(&record["end"]) > 2 * MIB;
    records.iter().filter(|record| !touches(record)).cloned().collect()
}

#[test]
fn every_command_names_it_and_says_what_it_can() {
    for (is_foreign, state) in [(true, "foreign"), (false, "newer")] {
        let (place, records) = damaged(is_foreign);
        let position = records[1]["start"].as_str().unwrap();
        for command in [
            &["summary"][..],
            &["wal", "list"],
            &["wal", "verify"],
            &["wal", "verify", "--continue"],
            &["wal", "dump"],
            &["wal", "dump", "--continue"],
            &["wal", "stats"],
            &["wal", "retention"],
            &["wal", "explain", position],
            &["wal", "explain", "0/200100"],
        ] {
            let (code, report) = place.inspect_json(command);
            assert_eq!(code, 1, "{command:?}: {report:#}");
            let damage = report["damage"].as_array().unwrap();
            let is_named = |damage: &Value| damage["file"] == place.segment(2).to_str().unwrap();
            assert!(damage.len() == 1 && is_named(&damage[0]), "{command:?}: {report:#}");
            assert_eq!((&damage[0]["lsn"], &damage[0]["offset"]), (&"0/200000".into(), &0.into()));
            let text = place.inspect(command).text;
            assert!(text.contains(if is_foreign { "one of system " } else { "segment format 2, of a later version" }));
        }
        let list = place.inspect_json(&["wal", "list"]).1;
        assert_eq!(list["segments"][1]["state"], state);
        let dump = place.inspect_json(&["wal", "dump", "--continue"]).1;
        assert_eq!(dump["records"].as_array().unwrap()[..], outside(&records));
        for command in [&["wal", "verify"][..], &["wal", "verify", "--continue"]] {
            let report = place.inspect_json(command).1;
            let counts = report["records"].as_array().unwrap().iter().map(|kind| kind["count"].as_u64().unwrap());
            assert_eq!(counts.sum::<u64>() as usize, outside(&records).len(), "{report:#}");
        }
        let explained = place.inspect_json(&["wal", "explain", position]).1;
        assert_eq!((&explained["place"], &explained["record"]["start"]), (&"record".into(), &position.into()));
    }
}

#[test]
fn the_log_can_be_cut_before_it() {
    for is_foreign in [true, false] {
        let (place, records) = damaged(is_foreign);
        let at = records[3]["end"].as_str().unwrap();
        let bytes = fs::read(place.segment(2)).unwrap();
        let command = ["wal", "repair", "--yes", "--json", "--cut-at", at];
        let done = answer(inspector().arg(place.path()).args(command).output().unwrap());
        assert_eq!(done.code, 0, "{}{}", done.text, done.error);
        let copies = done.json()["copies"].as_array().unwrap().clone();
        assert!(copies.iter().any(|copy| fs::read(copy["path"].as_str().unwrap()).unwrap() == bytes), "it is kept");
        let (code, report) = place.inspect_json(&["wal", "verify"]);
        assert_eq!((code, &report["end"]), (0, &at.into()), "{report:#}");
        drop(place.start());
    }
}
