//! The disk that forgets, on its own.

use std::path::{Path, PathBuf};

use super::lossy::*;
use super::unsynced::{PAGE_SECTORS, SECTOR_BYTES};
use super::*;

fn path(name: &str) -> PathBuf {
    Path::new("/d").join(name)
}

#[test]
fn only_what_was_synced_is_sure_to_survive() {
    let disk = LossyDisk::new(Faults::default());
    disk.create_dir(Path::new("/d")).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    let file = disk.create(&path("a")).unwrap();
    file.write_at(&[1; 1024], 0).unwrap();
    file.sync().unwrap();
    disk.sync_dir(Path::new("/d")).unwrap();
    file.write_at(&[2; 512], 512).unwrap();
    disk.create(&path("b")).unwrap();

    let lost = disk.crash(Loss::Everything, Faults::default());
    assert_eq!(lost.list(Path::new("/d")).unwrap(), ["a"]);
    assert_eq!(lost.contents(&path("a")), [1; 1024]);
    let kept = disk.crash(Loss::Nothing, Faults::default());
    assert_eq!(kept.list(Path::new("/d")).unwrap(), ["a", "b"]);
    assert_eq!(kept.contents(&path("a"))[512..], [2; 512]);
}

#[test]
fn pages_are_lost_or_kept_as_a_whole() {
    let disk = LossyDisk::new(Faults::default());
    disk.create_dir(Path::new("/d")).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    let file = disk.create(&path("a")).unwrap();
    file.write_at(&[0; 4096], 0).unwrap();
    file.sync().unwrap();
    disk.sync_dir(Path::new("/d")).unwrap();
    file.write_at(&[1; 4096], 0).unwrap();
    let page_bytes = PAGE_SECTORS * SECTOR_BYTES;
    let mut mixed = 0;
    for seed in 0..32 {
        let contents = disk.crash(Loss::Pages(seed), Faults::default()).contents(&path("a"));
        let pages: Vec<_> = contents.chunks(page_bytes).collect();
        assert!(pages.iter().all(|page| page.iter().all(|byte| *byte == page[0])), "seed {seed}");
        mixed += usize::from(pages.iter().any(|page| *page != pages[0]));
    }
    assert!(mixed > 16, "{mixed}");
}

#[test]
fn a_failed_sync_loses_its_data_though_a_later_one_succeeds() {
    let disk = LossyDisk::new(Faults { fail_sync: Some(1), ..Faults::default() });
    disk.create_dir(Path::new("/d")).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    let file = disk.create(&path("a")).unwrap();
    disk.sync_dir(Path::new("/d")).unwrap();
    file.write_at(b"x", 0).unwrap();
    assert!(file.sync().is_err());
    file.sync().unwrap();
    assert_eq!(disk.contents(&path("a")), b"x");
    assert_eq!(disk.crash(Loss::Everything, Faults::default()).contents(&path("a")), b"");
}

#[test]
fn a_failed_sync_of_a_directory_loses_its_names_though_a_later_one_succeeds() {
    let disk = LossyDisk::new(Faults { fail_sync_dir: Some(2), ..Faults::default() });
    disk.create_dir(Path::new("/d")).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    disk.create(&path("a")).unwrap();
    assert!(disk.sync_dir(Path::new("/d")).is_err());
    disk.create(&path("b")).unwrap();
    disk.sync_dir(Path::new("/d")).unwrap();
    assert_eq!(disk.list(Path::new("/d")).unwrap(), ["a", "b"]);
    assert_eq!(disk.crash(Loss::Nothing, Faults::default()).list(Path::new("/d")).unwrap(), ["b"]);
}

#[test]
fn a_dead_machine_does_nothing_more() {
    let disk = LossyDisk::new(Faults { die_at: Some(2), ..Faults::default() });
    disk.create_dir(Path::new("/d")).unwrap();
    assert!(disk.create(&path("a")).is_err());
    assert!(disk.create_dir(Path::new("/e")).is_err());
    assert_eq!(disk.operations(), 2);
}
