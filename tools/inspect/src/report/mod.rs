//! What each command finds. A report is a plain structure: its JSON form is derived, its text is written by hand.

mod damage;
mod dump;
mod explain;
mod list;
mod meta;
mod raft;
mod repair;
mod retention;
mod stats;
mod summary;
mod text;
mod verify;

use std::io::{self, Write};

use mainstay::lsn::Lsn;
use mainstay::raftstore::log_store::StoreError;
use mainstay::storage::StorageError;
use mainstay::wal::{SegmentNumber, WalError};
use serde::Serialize;

use crate::directory::{DataDirectory, Survey};
use crate::walk::{Met, Walk};
pub use damage::Damage;
pub use dump::{DumpWanted, dump};
pub use explain::explain;
pub use list::list;
pub use meta::{KvWanted, events, kv, members, settings, tokens};
pub use raft::{
    LogWanted, raft_group, raft_groups, raft_log, raft_snapshots, raft_state, raft_tombstones, raft_unsafe_recover,
    raft_verify,
};
pub use repair::{RepairWanted, repair};
pub use retention::retention;
pub use stats::stats;
pub use summary::summary;
pub use verify::verify;

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// All is well.
    Clean,
    /// Damage was found.
    Damage,
    /// Something cannot be read, or was asked for wrongly.
    Unreadable,
}

impl Exit {
    /// The number of it.
    pub fn code(self) -> u8 {
        match self {
            Exit::Clean => 0,
            Exit::Damage => 1,
            Exit::Unreadable => 2,
        }
    }
}

/// What a command found.
pub trait Report: Serialize {
    /// Writes it for people.
    fn write_text(&self, out: &mut dyn Write) -> io::Result<()>;

    /// How the program ends because of it.
    fn exit(&self) -> Exit;
}

/// What is wrong, whatever was looked at.
#[derive(Debug, Default, Serialize)]
pub struct Findings {
    /// Bytes that are not what must be there.
    damage: Vec<Damage>,
    /// Segments with a header that is not what must be there, in which nothing was ever written: the log ends before
    /// them, and the next start removes them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    damaged_and_unused: Vec<Damage>,
    /// Why RocksDB cannot be read; the log was then judged by its own marks.
    rocksdb_error: Option<String>,
}

impl Findings {
    /// What opening the directory showed.
    fn of(directory: &DataDirectory) -> Findings {
        let error = directory.notes.as_ref().err();
        let damage = match error {
            Some(StorageError::Damaged { path, what }) => vec![Damage::of_file(path, what)],
            _ => Vec::new(),
        };
        let damaged_and_unused = Vec::new();
        Findings { damage, damaged_and_unused, rocksdb_error: error.map(|error| error.to_string().replace('\n', " ")) }
    }

    /// Adds damage, unless the same place is known already.
    fn add(&mut self, damage: &mainstay::wal::Damage) {
        if !self.damage.iter().any(|known| known.is_at(damage)) {
            self.damage.push(Damage::read(damage));
        }
    }

    /// Adds what is wrong with the header of a segment. `end` is where the log ends, if that is known. Answers whether
    /// the segment is merely one that was prepared.
    fn add_of_header(
        &mut self,
        directory: &DataDirectory,
        end: Option<Lsn>,
        number: SegmentNumber,
        damage: &mainstay::wal::Damage,
    ) -> bool {
        let is_behind = end.is_some_and(|end| directory.layout().segment_start(number) >= end);
        let is_unused = is_behind && directory.segments.is_blank(number).unwrap_or(false);
        match is_unused {
            true => self.damaged_and_unused.push(Damage::read(damage)),
            false => self.add(damage),
        }
        is_unused
    }

    /// Reads the whole log, also behind damage, and adds the damage that it meets. Shows all that it meets to `visit`.
    fn add_of_whole_log(
        &mut self,
        directory: &DataDirectory,
        survey: &Survey,
        visit: &mut dyn FnMut(&Met),
    ) -> Result<(), WalError> {
        let segments = directory.segments.list()?;
        // That a segment is missing is known already.
        let is_there = |damage: &mainstay::wal::Damage| segments.contains(&directory.layout().segment_of(damage.lsn));
        let Some(mut walk) = Walk::whole_log(directory, survey)? else { return Ok(()) };
        loop {
            let met = walk.next()?;
            visit(&met);
            match met {
                Met::Record(_) => {}
                Met::End => break,
                Met::Gap(gap) => {
                    let is_last = gap.to.is_none();
                    if is_there(&gap.damage) && !survey.leaves_open(&gap) {
                        self.add(&survey.explained(gap.damage));
                    }
                    if is_last {
                        break;
                    }
                }
            }
        }
        if let Survey::Damaged(damage) = survey
            && is_there(damage)
        {
            self.add(damage);
        }
        Ok(())
    }

    fn exit(&self) -> Exit {
        match (self.damage.is_empty(), &self.rocksdb_error) {
            (false, _) => Exit::Damage,
            (true, Some(_)) => Exit::Unreadable,
            (true, None) => Exit::Clean,
        }
    }

    /// Adds damage in RocksDB. Any other failure is an error.
    fn add_stored(&mut self, error: StoreError) -> anyhow::Result<()> {
        match error {
            StoreError::Damaged { place, what } => self.damage.push(Damage::of_stored(place, None, &what)),
            other => return Err(other.into()),
        }
        Ok(())
    }

    fn write_damage(&self, out: &mut dyn Write) -> io::Result<()> {
        for damage in &self.damage {
            writeln!(out)?;
            damage.write_text(out)?;
        }
        Ok(())
    }

    fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        self.write_damage(out)?;
        for damage in &self.damaged_and_unused {
            writeln!(out, "\nprepared and never used, but with a damaged header; the next start removes it")?;
            damage.write_place(out)?;
        }
        if let Some(error) = &self.rocksdb_error {
            writeln!(out, "\nRocksDB cannot be read: {error}")?;
            writeln!(out, "Its notes (checkpoint, clean stop) are unknown; the WAL is judged by its own marks alone.")?;
        }
        Ok(())
    }
}
