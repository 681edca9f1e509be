//! The bundled engine: SQLite whose durability comes from Mainstay's WAL.
//!
//! One SQLite transaction is one WAL record ([`payload`]): what was [captured], and the text of DDL. It is committed in
//! the WAL first, in SQLite second, and answered third ([`writer`]), so SQLite's files are never ahead of the WAL and
//! anything missing in them is [applied](apply) from it. What would change the database without being captured is refused
//! ([`policy`]).
//!
//! What replay does not bring back: rowids of tables with a declared key other than `INTEGER PRIMARY KEY` (their rows are told
//! apart by the key), and the statistics of ANALYZE to the letter (it runs again).
//!
//! Statements are SQLite's. Those that this program answers itself are read in [`command`]; what PostgreSQL's drivers write
//! otherwise, and mean the same by, is rewritten in [`dialect`], functions that SQLite lacks are in [`functions`]; literals of plain INSERTs become parameters ([`literals`]). Temporary tables are on a connection of the session that has
//! them, and in no record; what changes the database by what it reads of them gets copies ([`writer`]).
//!
//! One connection writes and sessions queue for it ([`turnstile`]); those that ask at the same time share a transaction
//! ([`clerk`]). Each session reads on a connection of its own ([`session`]). What SQLite does not take and names PostgreSQL's
//! catalogs is answered from there ([`catalog`]). `unsafe` is in [`ffi`] alone.

mod apply;
mod captured;
mod catalog;
mod changeset;
mod clerk;
mod command;
mod control;
mod copier;
mod dialect;
mod engine;
mod errors;
mod ffi;
mod functions;
mod health;
mod infer;
mod lexer;
mod literals;
mod log;
mod measures;
mod memory;
mod names;
mod payload;
mod policy;
mod schema;
mod sequences;
mod session;
mod turnstile;
mod values;
mod writer;

#[cfg(test)]
mod capture_test;
#[cfg(test)]
mod copied_test;
#[cfg(test)]
mod escape_test;
#[cfg(test)]
mod group_test;
#[cfg(test)]
mod limit_test;
#[cfg(test)]
mod node_test;
#[cfg(test)]
mod postgresql_test;
#[cfg(test)]
mod random_test;
#[cfg(test)]
mod replay_test;
#[cfg(test)]
mod session_test;
#[cfg(test)]
mod temporary_test;
#[cfg(test)]
mod test_support;
#[cfg(test)]
mod waiting_test;
#[cfg(test)]
mod writer_test;

use mainstay::ident::DatabaseId;

pub use engine::SqliteEngine;
pub use ffi::spare_memory;
pub use lexer::split;
pub use session::SlowLog;

/// The database that payloads name.
const DATABASE: DatabaseId = DatabaseId::new(1);
/// Names that clients can neither create nor change.
const RESERVED_PREFIX: &str = "mainstay_";
/// Where SQLite's file keeps up to which LSN the WAL is in it, and of which system. One row; in no payload.
const STATE_TABLE: &str = "mainstay_state";
