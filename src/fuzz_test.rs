//! What the fuzzer found worth keeping, run again: see `fuzz/` and `make fuzz`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

type Target = (&'static str, fn(&[u8]));

fn targets() -> Vec<Target> {
    let mut targets: Vec<Target> = vec![
        ("wal_fragment", crate::wal::fuzz::fragment),
        ("wal_segment_header", crate::wal::fuzz::segment_header),
        ("wal_end_of_log", crate::wal::fuzz::end_of_log),
    ];
    #[cfg(feature = "pg")]
    targets.extend([
        ("pg_messages", crate::server::pg::fuzz::messages as fn(&[u8])),
        ("pg_values", crate::server::pg::fuzz::values),
        ("pg_copy", crate::server::pg::fuzz::copy),
    ]);
    targets
}

fn names(directory: &Path) -> BTreeSet<String> {
    let name = |path: PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
    fs::read_dir(directory).unwrap().map(|entry| name(entry.unwrap().path())).collect()
}

#[test]
fn the_corpora_hold_for_every_target() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    for (name, target) in targets() {
        let mut count = 0;
        for entry in fs::read_dir(fuzz.join("corpus").join(name)).unwrap() {
            let path = entry.unwrap().path();
            println!("{}", path.display());
            target(&fs::read(path).unwrap());
            count += 1;
        }
        assert!(count > 10, "{name}: a corpus of {count}");
    }
}

#[test]
#[cfg(feature = "pg")]
fn every_target_has_a_corpus() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let known: BTreeSet<_> = targets().iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names(&fuzz.join("targets")), known);
    assert_eq!(names(&fuzz.join("corpus")), known);
}
