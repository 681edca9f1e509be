//! The PostgreSQL protocol.

mod backend;
mod error;
mod types;

pub use backend::{
    Backend, ClientInfo, CommandTag, Description, Interrupt, ResultSink, Scope, Session, TransactionStatus,
};
pub use error::{Severity, SqlError, SqlState};
pub use types::{Column, OwnedValue, PgType, Value};
