//! raft-rs logs through slog: here its words become ours. Below "info" it prints whole entries, which are users' data,
//! so that much is never asked for.

use std::fmt::Write;

use slog::{Drain, KV, Level, Logger, Never, OwnedKVList, Record, Serializer, o};

use crate::ident::ReplicaId;

/// The logger of a replica.
pub(super) fn logger(replica: ReplicaId) -> Logger {
    Logger::root(ToTracing { replica }, o!())
}

struct ToTracing {
    replica: ReplicaId,
}

impl Drain for ToTracing {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, _: &OwnedKVList) -> Result<(), Never> {
        if !self.is_enabled(record.level()) {
            return Ok(());
        }
        let mut line = Line(record.msg().to_string());
        // A value that cannot be written is left out.
        let _ = record.kv().serialize(record, &mut line);
        let replica = self.replica;
        match record.level() {
            Level::Critical | Level::Error => tracing::error!(target: "raft", %replica, "{}", line.0),
            Level::Warning => tracing::warn!(target: "raft", %replica, "{}", line.0),
            _ => tracing::debug!(target: "raft", %replica, "{}", line.0),
        }
        Ok(())
    }

    fn is_enabled(&self, level: Level) -> bool {
        match level {
            Level::Critical | Level::Error => tracing::enabled!(target: "raft", tracing::Level::ERROR),
            Level::Warning => tracing::enabled!(target: "raft", tracing::Level::WARN),
            Level::Info => tracing::enabled!(target: "raft", tracing::Level::DEBUG),
            Level::Debug | Level::Trace => false,
        }
    }
}

struct Line(String);

impl Serializer for Line {
    fn emit_arguments(&mut self, key: slog::Key, value: &std::fmt::Arguments<'_>) -> slog::Result {
        write!(self.0, ", {key}: {value}").map_err(Into::into)
    }
}
