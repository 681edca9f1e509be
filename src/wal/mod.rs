//! Floor 2: the write-ahead log.
//!
//! One writer at a time appends records, opaque bytes of the engine; each has a position, its [`Lsn`](crate::lsn::Lsn).
//! [`scan`] finds where a log ends and refuses a damaged one, [`Wal::open`] makes that end final, [`Wal::append`] and
//! [`Wal::make_durable`] extend it, [`Wal::reader`] follows it, [`Wal::recycle`] drops what nobody needs.
//!
//! The room touches the disk through [`crate::disk`] only, so that its crash tests run on a lossy one. It knows
//! neither RocksDB nor Raft nor engines.
//!
//! | file | what it holds |
//! |---|---|
//! | `layout` | positions, segments, file names: arithmetic |
//! | `segment`, `record` | the two formats, byte by byte |
//! | `directory` | making, opening, removing segments, with their directory syncs |
//! | `cursor`, `resync` | reading records, whatever the bytes; finding the next one behind damage |
//! | `recovery` | where the log ends: torn or damaged |
//! | `repair` | cutting a log where an operator says |
//! | `reservation`, `buffer`, `tail` | space for records, filled by many threads at once |
//! | `log`, `flush`, `waiters`, `prepare` | the open log: append, sync, who waits and who is woken, segments ahead |
//! | `watchdog`, `scrub` | a device that hangs; old segments that rot |
//! | `status`, `measures` | where the log stands, and what it measures |
//! | `reader`, `search` | following the live end; finding the record at or before a position |
//! | [`retention`], `holders` | what is kept, and for whom: the decision, and doing as it says |
//! | `fault`, `fuzz` | known bugs, put in by tests of the tests; what the fuzzer runs |
//!
//! **A crash leaves** any subset of what the last flush was writing, in any order, and nothing else: everything before
//! the durable LSN stays. See `recovery` for how the end is found again.

mod buffer;
mod cursor;
mod directory;
mod errors;
mod fault;
mod flush;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod holders;
mod layout;
mod log;
mod measures;
mod prepare;
mod primitives;
mod reader;
mod record;
mod recovery;
mod repair;
mod reservation;
mod resync;
pub mod retention;
mod scrub;
mod search;
mod segment;
mod status;
mod tail;
mod waiters;
mod watchdog;

pub use cursor::{AnyRecord, Cursor, Gap, Part, Step};
pub use directory::SegmentDirectory;
pub use errors::{AppendError, CommitError, Damage, Failure, WalError};
pub use holders::Hold;
pub use layout::{Fragment, Layout, SegmentNumber};
pub use log::Wal;
pub use reader::Reader;
pub use record::{Flags, Kind, Record, decode_mark};
pub use recovery::{Evidence, Scan, scan, scan_with};
pub use repair::{Cut, CutError, ErasedCut, Kept, KeptCut};
pub use search::record_at_or_before;
pub use status::WalStatus;
pub use watchdog::Health;

#[cfg(test)]
mod buffer_test;
#[cfg(test)]
mod concurrent_crash_test;
#[cfg(test)]
mod crash_test;
#[cfg(test)]
mod device_test;
#[cfg(test)]
mod fault_test;
#[cfg(test)]
mod full_disk_test;
#[cfg(test)]
mod holders_test;
#[cfg(test)]
mod log_test;
#[cfg(test)]
mod prepare_test;
#[cfg(test)]
mod repair_test;
#[cfg(test)]
mod tail_test;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod unreadable_test;
