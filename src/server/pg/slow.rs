//! Statements as they run: told to [`Activity`] for whoever looks in, and to the log when they took long.
//!
//! What a client bound to parameters is its data: it is logged only if the session asks for it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::activity::{Activity, cut};
use super::backend::TransactionStatus;
use super::types::OwnedValue;

/// So much of a statement's text is logged.
const STATEMENT_LIMIT_BYTES: usize = 4096;
/// So many of its parameters are logged, if any.
const PARAMETER_LIMIT: usize = 64;

/// Which statements are logged for having taken long, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlowLog {
    /// Those that took at least so long.
    pub at_least: Duration,
    /// So many bytes of each parameter's value are logged with them. With 0 no value is.
    pub parameter_bytes: usize,
}

/// The statement that a connection runs.
#[derive(Default)]
pub(super) struct Watch {
    pub(super) activity: Option<Arc<Activity>>,
    begun: Option<Instant>,
    statement: String,
}

impl Watch {
    /// A statement begins.
    pub(super) fn begin(&mut self, statement: &str) {
        if let Some(activity) = &self.activity {
            activity.run(statement);
        }
        self.statement.clear();
        self.statement.push_str(cut(statement, STATEMENT_LIMIT_BYTES));
        self.begun = Some(Instant::now());
    }

    /// The statement is over; it is logged if `log` says so.
    pub(super) fn end(&mut self, log: Option<SlowLog>, parameters: &[OwnedValue]) {
        let Some(took) = self.begun.take().map(|begun| begun.elapsed()) else { return };
        let Some(log) = log.filter(|log| took >= log.at_least) else { return };
        let duration_ms = took.as_micros() as f64 / 1000.0;
        let process_id = self.activity.as_ref().map(|activity| activity.process_id());
        let statement = self.statement.as_str();
        if log.parameter_bytes == 0 || parameters.is_empty() {
            tracing::info!(duration_ms, process_id, statement, "a statement took long");
        } else {
            let parameters = written(parameters, log.parameter_bytes);
            tracing::info!(duration_ms, process_id, statement, parameters, "a statement took long");
        }
    }

    /// The client is to say what comes next.
    pub(super) fn rest(&self, status: TransactionStatus) {
        if let Some(activity) = &self.activity {
            activity.rest(status);
        }
    }
}

/// Parameters as PostgreSQL's log has them: `$1 = 'a', $2 = NULL`.
fn written(parameters: &[OwnedValue], limit_bytes: usize) -> String {
    let one = |value: &OwnedValue| match value {
        OwnedValue::Null => "NULL".to_owned(),
        OwnedValue::Integer(value) => format!("'{value}'"),
        OwnedValue::Real(value) => format!("'{value}'"),
        OwnedValue::Text(text) => {
            let shown = cut(text, limit_bytes);
            format!("'{}{}'", shown.replace('\'', "''"), if shown.len() < text.len() { "..." } else { "" })
        }
        OwnedValue::Blob(bytes) => format!("({} bytes)", bytes.len()),
    };
    let shown =
        (1..).zip(parameters).take(PARAMETER_LIMIT).map(|(number, value)| format!("${number} = {}", one(value)));
    shown.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_written_in_part() {
        let parameters =
            [OwnedValue::Text("it's long".into()), OwnedValue::Null, OwnedValue::Integer(7), OwnedValue::Blob(vec![1])];
        assert_eq!(written(&parameters, 4), "$1 = 'it''s...', $2 = NULL, $3 = '7', $4 = (1 bytes)");
        assert_eq!(written(&vec![OwnedValue::Null; 100], 1).matches('$').count(), PARAMETER_LIMIT);
    }
}
