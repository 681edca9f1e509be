//! One damaged place, with the bytes around it.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use serde::Serialize;

use super::text;

/// Bytes in one line of a hex dump.
const LINE_BYTES: u64 = 16;
/// Lines shown before the one with the first bad byte.
const LINES_BEFORE: u64 = 2;
/// Lines shown in all.
const LINES: u64 = 6;

/// One damaged place.
#[derive(Debug, Serialize)]
pub struct Damage {
    file: String,
    /// The first bad byte.
    offset: Option<u64>,
    lsn: Option<String>,
    expected: Option<String>,
    found: String,
    bytes: Option<Window>,
}

/// What stands around it.
#[derive(Debug, Serialize)]
struct Window {
    /// Offset of the first byte shown.
    offset: u64,
    hex: String,
    #[serde(skip)]
    bytes: Vec<u8>,
}

impl Damage {
    /// Damage in the log. The bytes around it are read from the file, if it is there and can be read.
    pub fn read(damage: &mainstay::wal::Damage) -> Damage {
        Damage {
            file: damage.path.display().to_string(),
            offset: Some(damage.offset),
            lsn: Some(damage.lsn.to_string()),
            expected: Some(damage.expected.clone()),
            found: damage.found.clone(),
            bytes: Window::read(&damage.path, damage.offset).ok(),
        }
    }

    /// Damage of a whole file or directory.
    pub fn of_file(path: &Path, what: &str) -> Damage {
        let (file, found) = (path.display().to_string(), what.replace('\n', " "));
        Damage { file, offset: None, lsn: None, expected: None, found, bytes: None }
    }

    /// Damage of something that RocksDB holds. Several bytes of several files may make it up: it has a place, but no
    /// offset.
    pub fn of_stored(place: String, expected: Option<String>, found: &str) -> Damage {
        Damage { file: place, offset: None, lsn: None, expected, found: found.replace('\n', " "), bytes: None }
    }

    /// Whether it is the same place.
    pub fn is_at(&self, damage: &mainstay::wal::Damage) -> bool {
        self.offset == Some(damage.offset) && self.file == damage.path.display().to_string()
    }

    /// Writes it for people.
    pub fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "DAMAGE")?;
        self.write_place(out)?;
        match (&self.bytes, self.offset) {
            (Some(window), Some(offset)) => window.write_text(out, offset),
            _ => Ok(()),
        }
    }

    /// The same without a title and the bytes around it.
    pub fn write_place(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "  file      {}", self.file)?;
        if let Some(offset) = self.offset {
            writeln!(out, "  offset    {offset} ({offset:#x})")?;
        }
        if let Some(lsn) = &self.lsn {
            writeln!(out, "  LSN       {lsn}")?;
        }
        if let Some(expected) = &self.expected {
            writeln!(out, "  expected  {expected}")?;
        }
        writeln!(out, "  found     {}", self.found)
    }
}

impl Window {
    fn read(path: &Path, offset: u64) -> io::Result<Window> {
        let start = (offset / LINE_BYTES).saturating_sub(LINES_BEFORE) * LINE_BYTES;
        let mut bytes = vec![0; (LINES * LINE_BYTES) as usize];
        let count = File::open(path)?.read_at(&mut bytes, start)?;
        bytes.truncate(count);
        Ok(Window { offset: start, hex: text::hex(&bytes), bytes })
    }

    /// The line with the first bad byte is pointed at.
    fn write_text(&self, out: &mut dyn Write, bad: u64) -> io::Result<()> {
        for (line, at) in self.bytes.chunks(LINE_BYTES as usize).zip((self.offset..).step_by(LINE_BYTES as usize)) {
            let pointer = if (at..at + LINE_BYTES).contains(&bad) { '>' } else { ' ' };
            let mut columns = String::new();
            for (index, byte) in line.iter().enumerate() {
                columns += if index == 8 { "  " } else { " " };
                columns += &text::hex(&[*byte]);
            }
            writeln!(out, "  {pointer} {at:08x} {columns:<49}  |{}|", text::ascii(line))?;
        }
        Ok(())
    }
}
