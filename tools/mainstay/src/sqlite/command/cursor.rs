//! `DECLARE`, `FETCH`, `MOVE`, `CLOSE` and `DEALLOCATE`, in PostgreSQL's words. What they do is the server's affair.
//!
//! The query of a cursor is SQLite's: its text is taken as it stands.

use mainstay::server::pg::{CursorCommand, SqlError, SqlState, Steps};

use super::super::lexer::Kind;
use super::super::policy;
use super::Words;

/// The statement as one about cursors; `None` if it is none.
///
/// # Errors
/// It begins like one and goes on otherwise, or asks for what is not possible here.
pub(in super::super) fn parse_cursor(statement: &str) -> Result<Option<CursorCommand>, SqlError> {
    let mut words = Words::new(statement);
    let command = if words.take("DECLARE") {
        return words.declare(statement).map(Some);
    } else if words.take("FETCH") {
        let (name, steps) = words.steps()?;
        CursorCommand::Fetch { name, steps }
    } else if words.take("MOVE") {
        let (name, steps) = words.steps()?;
        CursorCommand::Move { name, steps }
    } else if words.take("CLOSE") {
        let all = words.next.is_some_and(|token| token.is("ALL"));
        let name = words.name()?;
        CursorCommand::Close { name: (!all).then_some(name) }
    } else if words.take("DEALLOCATE") {
        words.take("PREPARE");
        let all = words.next.is_some_and(|token| token.is("ALL"));
        let name = words.name()?;
        CursorCommand::Deallocate { name: (!all).then_some(name) }
    } else {
        return Ok(None);
    };
    words.end()?;
    Ok(Some(command))
}

impl Words<'_> {
    fn declare(&mut self, statement: &str) -> Result<CursorCommand, SqlError> {
        let name = self.name()?;
        loop {
            if self.take("BINARY") {
                return Err(policy::refused("binary cursors are not supported")
                    .with_hint("A driver that wants binary values asks for them with each FETCH."));
            } else if self.take("SCROLL") {
                return Err(policy::refused("DECLARE … SCROLL is not supported: cursors go forwards"));
            } else if self.take("NO") {
                self.expect("SCROLL")?;
            } else if !self.take("INSENSITIVE") && !self.take("ASENSITIVE") {
                break;
            }
        }
        self.expect("CURSOR")?;
        let hold = self.take("WITH");
        if hold || self.take("WITHOUT") {
            self.expect("HOLD")?;
        }
        self.expect("FOR")?;
        let first = self.next.filter(|token| {
            token.kind == Kind::Symbol('(') || ["SELECT", "VALUES", "WITH"].iter().any(|word| token.is(word))
        });
        let start = first.ok_or_else(|| self.unexpected())?.range().start;
        Ok(CursorCommand::Declare { name, query: statement.get(start..).unwrap_or_default().to_owned(), hold })
    }

    /// `[direction] [FROM | IN] name`
    fn steps(&mut self) -> Result<(String, Steps), SqlError> {
        let steps = if self.take("NEXT") {
            Steps::Next(1)
        } else if self.take("FIRST") {
            Steps::Absolute(1)
        } else if self.take("LAST") {
            return Err(policy::refused("FETCH LAST and MOVE LAST are not supported: cursors go forwards, once"));
        } else if self.take("PRIOR") || self.take("BACKWARD") {
            return Err(backward());
        } else if self.take("ABSOLUTE") {
            Steps::Absolute(self.count()?)
        } else if self.take("RELATIVE") {
            Steps::Relative(self.count()?)
        } else if self.take("ALL") {
            Steps::All
        } else if self.take("FORWARD") {
            if self.take("ALL") {
                Steps::All
            } else if self.is_count() {
                Steps::Next(self.count()?)
            } else {
                Steps::Next(1)
            }
        } else if self.is_count() {
            Steps::Next(self.count()?)
        } else {
            Steps::Next(1)
        };
        let _ = self.take("FROM") || self.take("IN");
        Ok((self.name()?, steps))
    }

    fn is_count(&self) -> bool {
        self.next.is_some_and(|token| matches!(token.kind, Kind::Number | Kind::Symbol('+' | '-')))
    }

    /// A number of rows, of at least one: no row means the current one, which is gone.
    fn count(&mut self) -> Result<u64, SqlError> {
        if self.next.is_some_and(|token| token.kind == Kind::Symbol('-')) {
            return Err(backward());
        }
        if self.next.is_some_and(|token| token.kind == Kind::Symbol('+')) {
            self.advance();
        }
        let token = self.next.filter(|token| token.kind == Kind::Number).ok_or_else(|| self.unexpected())?;
        let count = token.text.parse().map_err(|_| self.unexpected())?;
        if count == 0 {
            return Err(policy::refused("a cursor's current row cannot be fetched again"));
        }
        self.advance();
        Ok(count)
    }
}

fn backward() -> SqlError {
    SqlError::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, "cursor can only scan forward")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_are_declared_fetched_moved_and_closed() {
        let declare = |name: &str, query: &str, hold| {
            let (name, query) = (name.to_owned(), query.to_owned());
            Some(CursorCommand::Declare { name, query, hold })
        };
        let fetch = |steps| Some(CursorCommand::Fetch { name: "c".into(), steps });
        for (sql, expected) in [
            ("DECLARE c CURSOR FOR SELECT 1", declare("c", "SELECT 1", false)),
            (
                "declare \"A b\" no scroll insensitive cursor with hold for /* x */ WITH x AS (VALUES (1)) TABLE",
                declare("A b", "WITH x AS (VALUES (1)) TABLE", true),
            ),
            ("DECLARE C CURSOR WITHOUT HOLD FOR values ($1)", declare("c", "values ($1)", false)),
            ("FETCH c", fetch(Steps::Next(1))),
            ("fetch next from c", fetch(Steps::Next(1))),
            ("FETCH 10 IN c", fetch(Steps::Next(10))),
            ("FETCH FORWARD FROM c", fetch(Steps::Next(1))),
            ("FETCH FORWARD 100 FROM \"c\"", fetch(Steps::Next(100))),
            ("FETCH FORWARD ALL FROM c", fetch(Steps::All)),
            ("FETCH ALL c", fetch(Steps::All)),
            ("FETCH FIRST FROM c", fetch(Steps::Absolute(1))),
            ("FETCH ABSOLUTE 5 c", fetch(Steps::Absolute(5))),
            ("MOVE RELATIVE +3 FROM c", Some(CursorCommand::Move { name: "c".into(), steps: Steps::Relative(3) })),
            ("CLOSE C", Some(CursorCommand::Close { name: Some("c".into()) })),
            ("CLOSE ALL", Some(CursorCommand::Close { name: None })),
            ("CLOSE \"ALL\"", Some(CursorCommand::Close { name: Some("ALL".into()) })),
            ("deallocate _pg3_0", Some(CursorCommand::Deallocate { name: Some("_pg3_0".into()) })),
            ("DEALLOCATE PREPARE \"A b\"", Some(CursorCommand::Deallocate { name: Some("A b".into()) })),
            ("DEALLOCATE ALL", Some(CursorCommand::Deallocate { name: None })),
            ("SELECT 1", None),
            ("", None),
        ] {
            assert_eq!(parse_cursor(sql).unwrap(), expected, "{sql}");
        }
    }

    #[test]
    fn what_cursors_cannot_do_is_refused() {
        for (sql, state) in [
            ("DECLARE c SCROLL CURSOR FOR SELECT 1", "0A000"),
            ("DECLARE c BINARY CURSOR FOR SELECT 1", "0A000"),
            ("DECLARE c CURSOR FOR DELETE FROM t", "42601"),
            ("DECLARE c CURSOR", "42601"),
            ("DECLARE c CURSOR FOR", "42601"),
            ("DECLARE", "42601"),
            ("FETCH", "42601"),
            ("FETCH 1.5 FROM c", "42601"),
            ("FETCH c d", "42601"),
            ("FETCH -1 FROM c", "55000"),
            ("FETCH BACKWARD ALL FROM c", "55000"),
            ("MOVE PRIOR FROM c", "55000"),
            ("FETCH LAST FROM c", "0A000"),
            ("FETCH 0 FROM c", "0A000"),
            ("CLOSE", "42601"),
            ("CLOSE c, d", "42601"),
            ("DEALLOCATE", "42601"),
        ] {
            assert_eq!(parse_cursor(sql).unwrap_err().state.0, state, "{sql}");
        }
    }
}
