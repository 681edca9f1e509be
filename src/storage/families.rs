//! Which column family of RocksDB each family lives in, and which of them hold damage.
//!
//! **Damage.** A block of a table file whose checksum is wrong harms whoever reads it, and no more. But a compaction that
//! meets it stops RocksDB for good, and with it all groups of the node: so a family in which damage was found is not
//! compacted any more. The file `meta/damaged` says which, so that the next opening knows before RocksDB begins; it is beside
//! RocksDB because that may take no writes any more. To lose it is to find the damage once more.
//!
//! ```text
//!  offset  bytes
//!       0      8  magic "MAINSTDA"
//!       8      4  families that hold damage, bits in the order of `Family::ALL`
//!      12      4  CRC-32 of bytes 0..12
//! ```
//!
//! All numbers are little-endian.
//!
//! **Homes.** A damaged file goes when all that is still wanted of its family was copied to a column family of its own
//! ([`super::evacuation`]) and the old one is dropped: that reads nothing. The first home of `kv` is `kv`, the next `kv.1`. A
//! note in RocksDB ([`notes::HOMES`](super::notes::HOMES)) says which it is. Others of that name are dropped at the next
//! opening: those that were never finished, and old ones, unless it is noted that somebody may need what can still be read there.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use parking_lot::Mutex;

use super::error::StorageError;
use super::identity::replace_file;
use super::tables::Family;

const FILE: &str = "damaged";
const TEMPORARY_FILE: &str = "damaged.tmp";
const MAGIC: [u8; 8] = *b"MAINSTDA";
const BYTES: usize = 16;
const CRC_OFFSET: usize = 12;

/// Which homes the families have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Homes {
    /// The number of each family's, in the order of [`Family::ALL`].
    pub numbers: [u32; Family::ALL.len()],
    /// Families whose old homes are kept, too.
    pub kept: u32,
}

/// Where the families are.
#[derive(Debug)]
pub(super) struct Families {
    homes: [Home; Family::ALL.len()],
    kept: AtomicU32,
    /// Held while the file is written.
    marking: Mutex<()>,
}

#[derive(Debug)]
struct Home {
    number: u32,
    now: String,
    /// Where it may be moved to.
    next: String,
    has_moved: AtomicBool,
    is_damaged: AtomicBool,
}

impl Families {
    /// As RocksDB's note and the file say.
    pub fn new(Homes { numbers, kept }: Homes, damaged: u32) -> Families {
        let homes = Family::ALL.map(|family| {
            let number = numbers.get(family as usize).copied().unwrap_or_default();
            let is_damaged = AtomicBool::new(damaged & bit(family) != 0);
            let (now, next) = (name(family, number), name(family, number.saturating_add(1)));
            Home { number, now, next, has_moved: AtomicBool::new(false), is_damaged }
        });
        Families { homes, kept: AtomicU32::new(kept), marking: Mutex::new(()) }
    }

    /// The name of the column family that holds a family.
    pub fn name(&self, family: Family) -> &str {
        let home = self.home(family);
        if home.has_moved.load(Ordering::Acquire) { &home.next } else { &home.now }
    }

    /// The name of the one that it may be moved to; `None` if it has moved since the opening.
    pub fn next_name(&self, family: Family) -> Option<&str> {
        let home = self.home(family);
        (!home.has_moved.load(Ordering::Acquire)).then_some(&home.next)
    }

    /// How it is to be noted once a family has moved.
    pub fn homes_with_moved(&self, moved: Family, keeps_old: bool) -> Homes {
        let number =
            |family| if family == moved { self.home(family).number.saturating_add(1) } else { self.number(family) };
        Homes { numbers: Family::ALL.map(number), kept: self.kept() | if keeps_old { bit(moved) } else { 0 } }
    }

    /// How it is to be noted once no old home is kept.
    pub fn homes_without_kept(&self) -> Homes {
        Homes { numbers: Family::ALL.map(|family| self.number(family)), kept: 0 }
    }

    /// Of the home that a family has now.
    fn number(&self, family: Family) -> u32 {
        let Home { number, has_moved, .. } = self.home(family);
        number.saturating_add(u32::from(has_moved.load(Ordering::Acquire)))
    }

    /// A family is in its next home from here on, which holds no damage.
    pub fn moved(&self, meta: &Path, family: Family, keeps_old: bool) -> Result<(), StorageError> {
        let home = self.home(family);
        home.has_moved.store(true, Ordering::Release);
        if keeps_old {
            self.kept.fetch_or(bit(family), Ordering::AcqRel);
        }
        let _marking = self.marking.lock();
        home.is_damaged.store(false, Ordering::Release);
        self.write(meta)
    }

    /// Families whose old homes are kept.
    pub fn kept(&self) -> u32 {
        self.kept.load(Ordering::Acquire)
    }

    /// None is kept from here on.
    pub fn keep_none(&self) {
        self.kept.store(0, Ordering::Release);
    }

    pub fn is_damaged(&self, family: Family) -> bool {
        self.home(family).is_damaged.load(Ordering::Acquire)
    }

    /// Families hold damage, durably. Says which of them were not known to.
    pub fn mark(&self, meta: &Path, families: &[Family]) -> Result<Vec<Family>, StorageError> {
        if families.iter().all(|family| self.is_damaged(*family)) {
            return Ok(Vec::new());
        }
        let _marking = self.marking.lock();
        let new: Vec<Family> = families.iter().copied().filter(|family| !self.is_damaged(*family)).collect();
        new.iter().for_each(|family| self.home(*family).is_damaged.store(true, Ordering::Release));
        if new.is_empty() { Ok(new) } else { self.write(meta).map(|()| new) }
    }

    fn write(&self, meta: &Path) -> Result<(), StorageError> {
        let damaged = Family::ALL.into_iter().filter(|family| self.is_damaged(*family));
        replace_file(meta, TEMPORARY_FILE, FILE, &encode(damaged.fold(0, |all, family| all | bit(family))))
    }

    fn home(&self, family: Family) -> &Home {
        &self.homes[family as usize]
    }

    /// Column families that are there and hold nothing that is wanted; and old homes that are kept.
    ///
    /// # Errors
    /// The one that holds what is wanted is not there, and another of its family is.
    pub fn others(&self, meta: &Path, present: &[String]) -> Result<Others, StorageError> {
        let mut others = Others::default();
        for family in Family::ALL {
            let own = self.home(family).number;
            let homes = present.iter().filter_map(|name| Some((name, number(family, name)?)));
            let found: Vec<(&String, u32)> = homes.collect();
            let is_there = found.iter().any(|(_, number)| *number == own);
            if !is_there && (!found.is_empty() || own > 0) {
                let what = format!("expected a column family {:?}, found {found:?}", self.name(family));
                return Err(StorageError::Damaged { path: meta.to_owned(), what });
            }
            for (name, number) in found.into_iter().filter(|(_, number)| *number != own) {
                // One of a later number was never finished.
                let is_kept = number < own && self.kept() & bit(family) != 0;
                let list = if is_kept { &mut others.kept } else { &mut others.strays };
                list.push(name.clone());
            }
        }
        Ok(others)
    }
}

/// Column families beside those that hold what is wanted.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Others {
    /// They go.
    pub strays: Vec<String>,
    /// They stay for now.
    pub kept: Vec<String>,
}

fn bit(family: Family) -> u32 {
    1 << family as u32
}

fn name(family: Family, number: u32) -> String {
    match number {
        0 => family.name().to_owned(),
        number => format!("{}.{number}", family.name()),
    }
}

/// Which home of a family a column family is; `None` if it is none.
fn number(family: Family, column_family: &str) -> Option<u32> {
    match column_family.strip_prefix(family.name())? {
        "" => Some(0),
        rest => rest.strip_prefix('.')?.parse().ok(),
    }
}

/// The families of a directory `meta` that hold damage. What is no such file says nothing: the damage is found again.
pub(super) fn read_damaged(meta: &Path) -> Result<u32, StorageError> {
    let path = meta.join(FILE);
    match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(StorageError::io("read", &path)(error)),
        Ok(bytes) => Ok(decode(&bytes).unwrap_or_else(|| {
            tracing::warn!(path = %path.display(), "the note of damaged families is damaged itself, and ignored");
            0
        })),
    }
}

fn encode(damaged: u32) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    bytes[0..8].copy_from_slice(&MAGIC);
    bytes[8..CRC_OFFSET].copy_from_slice(&damaged.to_le_bytes());
    let crc = crc32fast::hash(&bytes[..CRC_OFFSET]);
    bytes[CRC_OFFSET..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<u32> {
    let bytes: &[u8; BYTES] = bytes.try_into().ok()?;
    let (body, crc) = bytes.split_at(CRC_OFFSET);
    let is_whole = bytes[0..8] == MAGIC && crc32fast::hash(body).to_le_bytes() == crc;
    let damaged = body.get(8..CRC_OFFSET)?.try_into().ok()?;
    is_whole.then(|| u32::from_le_bytes(damaged))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes() {
        let hex: String = encode(bit(Family::Kv)).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "4d41494e53544441200000009ded7beb");
        for at in 0..BYTES * 8 {
            let mut flipped = encode(3);
            flipped[at / 8] ^= 1 << (at % 8);
            assert_eq!(decode(&flipped), None, "bit {at}");
        }
        assert_eq!(decode(&encode(77)), Some(77));
    }

    #[test]
    fn homes_have_names_and_others_are_told_from_them() {
        let mut homes = Homes::default();
        homes.numbers[Family::Kv as usize] = 2;
        let families = Families::new(homes, bit(Family::Kv));
        let meta = Path::new("meta");
        assert_eq!((families.name(Family::Kv), families.name(Family::Slots)), ("kv.2", "slots"));
        assert_eq!((families.is_damaged(Family::Kv), families.is_damaged(Family::Slots)), (true, false));
        let present = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let all = present(&["default", "local", "kv", "kv.2", "kv.3", "slots", "kvx"]);
        let others = |strays: &[&str], kept: &[&str]| Others { strays: present(strays), kept: present(kept) };
        assert_eq!(families.others(meta, &all).unwrap(), others(&["kv", "kv.3"], &[]));
        let keeping = Families::new(Homes { kept: bit(Family::Kv), ..homes }, 0);
        assert_eq!(keeping.others(meta, &all).unwrap(), others(&["kv.3"], &["kv"]), "what was never finished goes");
        assert!(families.others(meta, &present(&["kv", "kv.3"])).is_err(), "what is wanted is not there");
        assert!(families.others(meta, &present(&["slots"])).is_err(), "nor is anything else");
        let first = Families::new(Homes::default(), 0);
        assert_eq!(first.others(meta, &present(&["default"])).unwrap(), others(&[], &[]), "a first start");
        assert!(first.others(meta, &present(&["kv.1"])).is_err(), "the note is gone");
    }
}
