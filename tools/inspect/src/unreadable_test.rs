//! A sector that cannot be read, a segment that cannot be opened or asked for its length, which no test can make on a real
//! disk: every command names it and goes on.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mainstay::config::WalConfig;
use mainstay::disk::{Access, Directory, Disk, File, RealDisk};
use mainstay::lsn::Lsn;
use mainstay::storage::Storage;
use mainstay::wal::{self, Evidence, SegmentDirectory, SegmentNumber, Wal};
use tempfile::TempDir;

use crate::directory::DataDirectory;
use crate::report::{self, DumpWanted, Exit, RepairWanted, Report};

const MIB: u64 = 1 << 20;
const SECTOR_BYTES: u64 = 512;
/// Of the first segment.
const BAD_OFFSET: u64 = 1536;

/// What of a file answers an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bad {
    Sector,
    Opening,
    Length,
}

/// The real one, but for one file.
#[derive(Debug)]
struct BadDisk {
    path: PathBuf,
    bad: Bad,
}

struct BadFile(Arc<dyn File>, Bad);

fn input_output_error<T>() -> io::Result<T> {
    Err(io::Error::from_raw_os_error(5))
}

impl Disk for BadDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        RealDisk.create(path)
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn File>> {
        let file = RealDisk.open(path, access)?;
        match (path == self.path, self.bad) {
            (false, _) => Ok(file),
            (true, Bad::Opening) => input_output_error(),
            (true, bad) => Ok(Arc::new(BadFile(file, bad))),
        }
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        RealDisk.list(directory)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.create_dir(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }

    fn open_dir(&self, directory: &Path) -> io::Result<Arc<dyn Directory>> {
        RealDisk.open_dir(directory)
    }

    fn free_bytes(&self, directory: &Path) -> io::Result<u64> {
        RealDisk.free_bytes(directory)
    }
}

impl File for BadFile {
    fn len_bytes(&self) -> io::Result<u64> {
        if self.1 == Bad::Length { input_output_error() } else { self.0.len_bytes() }
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        if offset < BAD_OFFSET + SECTOR_BYTES && offset + buffer.len() as u64 > BAD_OFFSET {
            return input_output_error();
        }
        self.0.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_at(bytes, offset)
    }

    fn write_vectored_at(&self, parts: &mut [io::IoSlice<'_>], offset: u64) -> io::Result<()> {
        self.0.write_vectored_at(parts, offset)
    }

    fn zero_fill(&self, offset: u64, end: u64) -> io::Result<()> {
        self.0.zero_fill(offset, end)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }
}

/// A directory left by a crash, with a bad sector among its records; and where they end.
fn damaged() -> (TempDir, DataDirectory, Vec<Lsn>) {
    written(&[100; 40], SegmentNumber::FIRST, Bad::Sector)
}

/// A directory left by a crash, with records of these lengths, of which one segment is bad; and where they end.
fn written(lens: &[usize], number: SegmentNumber, bad: Bad) -> (TempDir, DataDirectory, Vec<Lsn>) {
    let place = tempfile::tempdir().unwrap();
    let storage = Storage::open(place.path(), MIB).unwrap();
    let segments = DataDirectory::of(place.path(), &storage).unwrap().segments;
    let config = WalConfig { segment_size_bytes: MIB, reserve_bytes: MIB, ..WalConfig::default() };
    let log = Wal::open(wal::scan(segments.clone(), Evidence::default()).unwrap(), config).unwrap();
    let written = |(number, len): (usize, &usize)| {
        log.room_blocking(*len).unwrap();
        let end = log.append(&vec![number as u8; *len]).unwrap();
        log.sync().unwrap();
        end
    };
    let ends = lens.iter().enumerate().map(written).collect();
    drop((log, storage));
    let mut directory = DataDirectory::open(place.path()).unwrap();
    let disk = BadDisk { path: segments.segment_path(number), bad };
    let (layout, system) = (segments.layout(), directory.identity.system);
    let path = segments.path().to_owned();
    directory.segments = SegmentDirectory::new(Arc::new(disk), path, layout, system, segments.timeline());
    (place, directory, ends)
}

fn text(report: &impl Report) -> String {
    assert_eq!(report.exit(), Exit::Damage);
    let mut text = Vec::new();
    report.write_text(&mut text).unwrap();
    String::from_utf8(text).unwrap()
}

#[test]
fn every_command_names_it_and_says_what_it_can() {
    let (_place, directory, ends) = damaged();
    let bad = MIB + BAD_OFFSET;
    let first = ends[0].get() - 64;
    let mut texts = vec![
        text(&report::summary(&directory).unwrap()),
        text(&report::list(&directory).unwrap()),
        text(&report::verify(&directory, false).unwrap()),
        text(&report::verify(&directory, true).unwrap()),
        text(&report::stats(&directory).unwrap()),
        text(&report::retention(&directory, 0).unwrap()),
        text(&report::explain(&directory, Lsn::new(first)).unwrap()),
        text(&report::explain(&directory, Lsn::new(bad + 8)).unwrap()),
    ];
    for go_on in [false, true] {
        let mut out = Vec::new();
        let wanted = DumpWanted { from: None, limit: 1000, go_on };
        assert_eq!(report::dump(&directory, &wanted, false, &mut out).unwrap(), Exit::Damage);
        texts.push(String::from_utf8(out).unwrap());
    }
    for text in &texts {
        let place = format!("  offset    {BAD_OFFSET} (0x600)\n  LSN       0/{bad:X}\n");
        assert!(text.contains(&place) && text.contains("expected  bytes that can be read\n"), "{text}");
        assert!(text.contains("found     Input/output error"), "{text}");
    }
    assert!(texts[2].contains("--continue reads them"), "{}", texts[2]);
    // All data records but those that the sector is a part of.
    let is_readable = |end: &&Lsn| end.get() <= bad || end.get() - 120 >= bad + SECTOR_BYTES;
    let before = ends.iter().filter(|end| end.get() <= bad).count();
    let readable = ends.iter().filter(is_readable).count();
    assert!(before > 8 && readable > before + 10 && readable < 40);
    for (text, count) in [(&texts[2], before), (&texts[3], readable)] {
        let line = text.lines().find(|line| line.starts_with("data ")).unwrap();
        assert_eq!(line.split_whitespace().nth(1), Some(count.to_string().as_str()), "{text}");
    }
    for (text, count) in [(&texts[8], before), (&texts[9], readable)] {
        assert_eq!(text.lines().filter(|line| line.contains("  data  ")).count(), count, "{text}");
    }
}

#[test]
fn a_cut_before_it_can_be_planned() {
    let (_place, directory, ends) = damaged();
    let wanted = RepairWanted { cut_at: ends[3], is_confirmed: false };
    let mut out = Vec::new();
    assert_eq!(report::repair(directory, wanted, false, &mut out).unwrap(), Exit::Unreadable);
    let text = String::from_utf8(out).unwrap();
    assert!(
        text.contains("1 damaged place between them") && text.contains("ACKNOWLEDGED DATA WOULD BE LOST"),
        "{text}"
    );
}

/// In the middle of the log, and where it ends.
#[test]
fn a_segment_that_cannot_be_opened_is_damage_and_the_rest_is_shown() {
    const LARGE: usize = 300_000;
    for (number, bad) in [2, 4].into_iter().flat_map(|number| [(number, Bad::Opening), (number, Bad::Length)]) {
        let (_place, directory, ends) = written(&[LARGE; 11], SegmentNumber(number), bad);
        let segment_of = |lsn: u64| lsn / MIB;
        assert_eq!(segment_of(ends[10].get()), 4);
        // Those with no part in it, and of them those before it.
        let starts = [MIB].into_iter().chain(ends.iter().map(|end| end.get()));
        let parts: Vec<_> =
            starts.zip(&ends).map(|(start, end)| (segment_of(start), segment_of(end.get() - 1))).collect();
        let readable = parts.iter().filter(|(first, last)| *last < number || *first > number).count();
        let before = parts.iter().filter(|(_, last)| *last < number).count();
        let (within, behind) = (Lsn::new(number * MIB + 5000), Lsn::new(3 * MIB + 500_000));
        let mut texts = vec![
            text(&report::summary(&directory).unwrap()),
            text(&report::list(&directory).unwrap()),
            text(&report::verify(&directory, false).unwrap()),
            text(&report::verify(&directory, true).unwrap()),
            text(&report::stats(&directory).unwrap()),
            text(&report::retention(&directory, 0).unwrap()),
            text(&report::explain(&directory, within).unwrap()),
            text(&report::explain(&directory, behind).unwrap()),
        ];
        for go_on in [false, true] {
            let mut out = Vec::new();
            let wanted = DumpWanted { from: None, limit: 1000, go_on };
            assert_eq!(report::dump(&directory, &wanted, false, &mut out).unwrap(), Exit::Damage);
            texts.push(String::from_utf8(out).unwrap());
        }
        for text in &texts {
            let place = format!("  offset    0 (0x0)\n  LSN       0/{:X}\n", number * MIB);
            assert!(text.contains(&place) && text.contains("expected  bytes that can be read\n"), "{bad:?}: {text}");
            assert!(text.contains("found     Input/output error"), "{bad:?}: {text}");
            assert_eq!(text.matches("DAMAGE").count(), 1, "{bad:?}: {text}");
        }
        let listed: Vec<_> = texts[1].lines().filter(|line| line.starts_with("00000001")).collect();
        assert!(listed.len() >= 4 && listed[number as usize - 1].contains(" unreadable "), "{bad:?}: {}", texts[1]);
        let count = |text: &str| {
            let line = text.lines().find(|line| line.starts_with("data ")).unwrap();
            line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap()
        };
        assert_eq!([count(&texts[3]), count(&texts[4])], [readable; 2], "{bad:?}");
        assert!(texts[7].contains("a data record of 300000 bytes") || number == 3, "{bad:?}: {}", texts[7]);
        for (text, count) in [(&texts[8], before), (&texts[9], readable)] {
            assert_eq!(text.lines().filter(|line| line.contains("  data  ")).count(), count, "{bad:?}: {text}");
        }
        let wanted = RepairWanted { cut_at: ends[before - 1], is_confirmed: false };
        let mut out = Vec::new();
        assert_eq!(report::repair(directory, wanted, false, &mut out).unwrap(), Exit::Unreadable);
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("ACKNOWLEDGED DATA WOULD BE LOST") || number == 4, "{bad:?}: {text}");
    }
}
