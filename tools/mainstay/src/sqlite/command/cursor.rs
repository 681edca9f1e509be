//! `DECLARE`, `FETCH`, `MOVE`, `CLOSE` and `DEALLOCATE`, in PostgreSQL's words. What they do is the server's affair.
//!
//! The query of a cursor is SQLite's: its text is taken as it stands.

use mainstay::server::pg::{CursorCommand, SqlError, Steps};

use super::super::lexer::Kind;
use super::super::policy;
use super::{Words, parsed};

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
    } else if words.next.is_some_and(|token| token.is("CLOSE") || token.is("DEALLOCATE")) {
        return parsed::cursor_command(statement).map(Some);
    } else {
        return Ok(None);
    };
    words.end()?;
    Ok(Some(command))
}

impl Words<'_> {
    fn declare(&mut self, statement: &str) -> Result<CursorCommand, SqlError> {
        let name = self.name()?;
        let mut forwards_only = false;
        loop {
            if self.take("BINARY") {
                return Err(policy::refused("binary cursors are not supported")
                    .with_hint("A driver that wants binary values asks for them with each FETCH."));
            } else if self.take("NO") {
                self.expect("SCROLL")?;
                forwards_only = true;
            } else if !self.take("SCROLL") && !self.take("INSENSITIVE") && !self.take("ASENSITIVE") {
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
        let query = statement.get(start..).unwrap_or_default().to_owned();
        Ok(CursorCommand::Declare { name, query, hold, forwards_only })
    }

    /// `[direction] [FROM | IN] name`
    fn steps(&mut self) -> Result<(String, Steps), SqlError> {
        let steps = if self.take("FIRST") {
            Steps::Absolute(1)
        } else if self.take("LAST") {
            Steps::Absolute(-1)
        } else if self.take("ABSOLUTE") {
            Steps::Absolute(self.count()?)
        } else if self.take("RELATIVE") {
            Steps::Relative(self.count()?)
        } else if self.take("PRIOR") {
            Steps::Prior(1)
        } else if self.take("BACKWARD") {
            self.many()?.map_or(Steps::AllPrior, |count| towards(count.saturating_neg()))
        } else {
            let _ = self.take("NEXT") || self.take("FORWARD");
            self.many()?.map_or(Steps::All, towards)
        };
        let _ = self.take("FROM") || self.take("IN");
        Ok((self.name()?, steps))
    }

    /// `ALL`, which is `None`, or a number of rows, which is 1 if there is none.
    fn many(&mut self) -> Result<Option<i64>, SqlError> {
        if self.take("ALL") {
            return Ok(None);
        }
        let is_count = self.next.is_some_and(|token| matches!(token.kind, Kind::Number | Kind::Symbol('+' | '-')));
        if is_count { self.count().map(Some) } else { Ok(Some(1)) }
    }

    /// A number with or without a sign.
    fn count(&mut self) -> Result<i64, SqlError> {
        let sign = self.next.filter(|token| matches!(token.kind, Kind::Symbol('+' | '-')));
        if sign.is_some() {
            self.advance();
        }
        let token = self.next.filter(|token| token.kind == Kind::Number).ok_or_else(|| self.unexpected())?;
        let count: i64 = token.text.parse().map_err(|_| self.unexpected())?;
        self.advance();
        Ok(if sign.is_some_and(|sign| sign.text == "-") { -count } else { count })
    }
}

/// So many rows further, or back.
fn towards(count: i64) -> Steps {
    if count < 0 { Steps::Prior(count.unsigned_abs()) } else { Steps::Next(count.unsigned_abs()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_are_declared_fetched_moved_and_closed() {
        let declare = |name: &str, query: &str, hold, forwards_only| {
            let (name, query) = (name.to_owned(), query.to_owned());
            Some(CursorCommand::Declare { name, query, hold, forwards_only })
        };
        let fetch = |steps| Some(CursorCommand::Fetch { name: "c".into(), steps });
        for (sql, expected) in [
            ("DECLARE c CURSOR FOR SELECT 1", declare("c", "SELECT 1", false, false)),
            (
                "declare \"A b\" no scroll insensitive cursor with hold for /* x */ WITH x AS (VALUES (1)) TABLE",
                declare("A b", "WITH x AS (VALUES (1)) TABLE", true, true),
            ),
            ("DECLARE C CURSOR WITHOUT HOLD FOR values ($1)", declare("c", "values ($1)", false, false)),
            ("DECLARE c INSENSITIVE SCROLL CURSOR FOR SELECT 1", declare("c", "SELECT 1", false, false)),
            ("FETCH c", fetch(Steps::Next(1))),
            ("FETCH -3 FROM c", fetch(Steps::Prior(3))),
            ("FETCH 0 c", fetch(Steps::Next(0))),
            ("FETCH FORWARD -1 c", fetch(Steps::Prior(1))),
            ("FETCH BACKWARD c", fetch(Steps::Prior(1))),
            ("FETCH BACKWARD 7 IN c", fetch(Steps::Prior(7))),
            ("FETCH BACKWARD -7 IN c", fetch(Steps::Next(7))),
            ("FETCH BACKWARD ALL FROM c", fetch(Steps::AllPrior)),
            ("FETCH PRIOR FROM c", fetch(Steps::Prior(1))),
            ("FETCH LAST FROM c", fetch(Steps::Absolute(-1))),
            ("FETCH ABSOLUTE -2 FROM c", fetch(Steps::Absolute(-2))),
            ("FETCH RELATIVE -2 FROM c", fetch(Steps::Relative(-2))),
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
            ("DECLARE c BINARY CURSOR FOR SELECT 1", "0A000"),
            ("DECLARE c CURSOR FOR DELETE FROM t", "42601"),
            ("DECLARE c CURSOR", "42601"),
            ("DECLARE c CURSOR FOR", "42601"),
            ("DECLARE", "42601"),
            ("FETCH", "42601"),
            ("FETCH 1.5 FROM c", "42601"),
            ("FETCH - FROM c", "42601"),
            ("FETCH ABSOLUTE c", "42601"),
            ("FETCH 9223372036854775808 c", "42601"),
            ("FETCH c d", "42601"),
            ("CLOSE", "42601"),
            ("CLOSE c, d", "42601"),
            ("DEALLOCATE", "42601"),
        ] {
            assert_eq!(parse_cursor(sql).unwrap_err().state.0, state, "{sql}");
        }
    }
}
