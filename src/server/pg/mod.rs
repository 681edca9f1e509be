//! The PostgreSQL protocol, over a small trait that an engine's tool implements.
//!
//! [`PgServer`] listens and talks; a [`Backend`] opens a [`Session`] for each client, which runs its statements. This
//! room knows no engine, no WAL and no node. Its rooms, from the socket inwards:
//!
//! ```text
//! listener    accepts, limits, stops       connection  one client's task: socket, session thread, interrupts
//! workers     the threads of the tasks
//! startup     up to the first answer       wire        the socket, plain or TLS
//! access      who is let in
//! frame       bytes into messages          message     messages into their parts
//! conversation, simple, extended, budget   what messages do to a session, and what is remembered of them
//! quick                                    the same, for what takes no thread of its own
//! work                                     where a batch of messages runs
//! intake                                   the data that a COPY takes from the client
//! timeouts                                 how long things may take
//! spool, cursors                           rows that are fetched in parts
//! outbox, sink, codec, copy                rows and replies into bytes
//! activity, catalog                        what can be seen of connections and objects: `pg_stat_activity`, `pg_class`, …
//! ```
//!
//! - Bytes from the network are checked before they are believed; no input panics or takes memory that it did not fill.
//! - A session's methods run on threads that may block, but for those that promise not to, which run on the connection's
//!   worker; no method of the same session runs twice at once.
//! - Every connection ends with its session dropped, however it ends.

mod access;
mod activity;
mod backend;
mod budget;
mod cancel;
pub mod catalog;
mod codec;
mod connection;
mod conversation;
pub mod copy;
mod cursors;
mod error;
mod extended;
mod frame;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod intake;
mod listener;
mod message;
mod outbox;
mod quick;
mod scroll;
mod simple;
mod sink;
mod slow;
mod spool;
mod startup;
mod timeouts;
mod types;
mod wire;
mod work;
mod workers;

pub use access::{PasswordError, Roles, UsersError, Verifier, users_line};
pub use activity::{Activities, Activity, Seen, timestamp};
pub use backend::{
    Backend, ClientInfo, CommandTag, Copied, Description, Interrupt, ResultSink, Scope, Session, Started,
    TransactionStatus,
};
pub use codec::{stored_text, timestamp_micros, timestamp_text};
pub use cursors::{CursorCommand, Steps};
pub use error::{ErrorObject, Severity, SqlError, SqlState};
pub use listener::{ClientCertificates, PgConfig, PgServer, ServerError};
pub use sink::Reply;
pub use slow::SlowLog;
pub use startup::SERVER_VERSION;
pub use timeouts::Timeouts;
pub use types::{Column, OwnedValue, PgType, Value};
