//! Floor 2: the write-ahead log.

mod errors;
mod record;

pub use errors::{AppendError, CommitError};
pub use record::Record;
