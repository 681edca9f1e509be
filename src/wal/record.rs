//! Records.

use crate::lsn::Lsn;

/// A record of the log, as a reader hands it out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where it starts.
    pub start: Lsn,
    /// Where it ends: replay continues here once it is applied.
    pub end: Lsn,
    /// The bytes that were appended.
    pub payload: Vec<u8>,
}
