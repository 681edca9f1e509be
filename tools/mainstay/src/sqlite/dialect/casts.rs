//! Casts.
//!
//! `::` is PostgreSQL's, so it does what PostgreSQL does: what is no value of the type fails. `CAST` is SQLite's too and stays
//! as it is, but for types that SQLite does not have: it would make `2026` of `CAST('2026-01-02' AS date)`. A parameter arrives
//! as a value of its type, by [`super::super::session`]; its cast says what type that is.

use super::{Edits, Statement};
use crate::sqlite::lexer::Kind;

/// The name of a type, with its arguments and time zone, has no more tokens.
const TYPE_TOKENS: usize = 16;

impl Statement<'_> {
    /// Casts written `x::type`.
    pub(super) fn casts(&self, sql: &str, edits: &mut Edits) {
        // Where the last cast ended, and its operand began.
        let mut last = None;
        for at in 1..self.tokens.len() {
            if !(self.symbol(at, ':') && self.symbol(at + 1, ':') && self.adjacent(at, at + 1)) {
                continue;
            }
            let start =
                last.filter(|(end, _)| *end == at).map_or_else(|| self.operand(at - 1), |(_, start)| Some(start));
            let Some((start, (target, end))) = start.zip(self.type_name(at + 2)) else { continue };
            let (Some(first), Some(behind)) = (self.get(start), self.get(end - 1)) else { continue };
            let operand = sql.get(first.range().start..self.get(at).map_or(0, |token| token.range().start));
            let is_parameter = operand.is_some_and(|operand| operand.trim_start().starts_with(['$', '?']));
            let (before, after) = target.around(is_parameter && last.is_none_or(|(end, _)| end != at));
            edits.insert(first.range().start, before);
            edits.replace(self.get(at).map_or(0, |token| token.range().start)..behind.range().end, after);
            last = Some((end, start));
        }
    }

    /// Casts written `CAST(x AS type)` to types that SQLite does not have.
    pub(super) fn strange_casts(&self, edits: &mut Edits) {
        for open in (1..self.tokens.len()).filter(|open| self.symbol(*open, '(') && self.is(open - 1, &["CAST"])) {
            let Some(close) = self.closing(open) else { continue };
            let Some(named) = (open + 1..close).rev().take(TYPE_TOKENS).find(|at| self.is(*at, &["AS"])) else {
                continue;
            };
            let Some((target, _)) = self.type_name(named + 1).filter(|(_, end)| *end == close) else { continue };
            let is_parameter = match self.tokens.get(open + 1..named) {
                Some([name]) => name.text.starts_with(['$', '?']),
                Some([mark, _]) => mark.is_symbol('?'),
                _ => false,
            };
            if !target.is_strange() {
                continue;
            }
            let (Some(cast), Some(opened)) = (self.get(open - 1), self.get(open)) else { continue };
            let (Some(named), Some(closed)) = (self.get(named), self.get(close)) else { continue };
            let (before, after) = target.around(is_parameter);
            edits.replace(cast.range().start..opened.range().end, before);
            edits.replace(named.range().start..closed.range().end, after.trim_start());
        }
    }

    /// The type that is named there, and where the name ends.
    pub(super) fn type_name(&self, mut at: usize) -> Option<(Target, usize)> {
        if self.get(at)?.is("pg_catalog") && self.symbol(at + 1, '.') {
            at += 2;
        }
        let mut name = self.get(at)?.name()?;
        at += 1;
        for second in ["precision", "varying"] {
            if self.get(at).is_some_and(|token| token.is(second)) {
                name = format!("{name} {second}");
                at += 1;
            }
        }
        let mut arguments = Vec::new();
        if self.symbol(at, '(') {
            at += 1;
            while !self.symbol(at, ')') {
                let token = self.get(at)?;
                match token.kind {
                    Kind::Number => arguments.push(token.text.parse().ok()?),
                    Kind::Symbol(',') => {}
                    _ => return None,
                }
                at += 1;
            }
            at += 1;
        }
        let zone = self.is(at, &["WITH", "WITHOUT"]);
        if zone && self.get(at + 1)?.is("TIME") && self.get(at + 2)?.is("ZONE") {
            if self.is(at, &["WITH"]) {
                name.push_str("tz");
            }
            at += 3;
        }
        // An array: to SQLite, the brackets are those of a name.
        if self.get(at).is_some_and(|token| token.text.starts_with('[')) {
            return None;
        }
        Some((Target::of(&name, &arguments)?, at))
    }
}

/// What a cast makes of its operand.
pub(super) enum Target {
    /// SQLite's CAST to a type of this name, of what this function answers.
    Checked {
        function: &'static str,
        name: &'static str,
    },
    /// SQLite's CAST to a text of this name.
    Text(&'static str),
    Boolean,
    /// What this function answers, for a type that SQLite does not have.
    Function(&'static str),
    /// Likewise, with so many digits behind the second.
    Moment(&'static str, u32),
    /// So many characters at most.
    Characters(u32),
    /// So many digits behind the point.
    Digits(u32),
}

impl Target {
    /// `None` for a type that has no counterpart.
    fn of(name: &str, arguments: &[u32]) -> Option<Target> {
        let checked = |function, name| Target::Checked { function, name };
        Some(match (name, arguments) {
            ("smallint" | "int2", []) => checked("int2_in", "int2"),
            ("int" | "integer" | "int4", []) => checked("int4_in", "int4"),
            ("bigint" | "int8", []) => checked("int8_in", "int8"),
            ("real" | "float4", []) => checked("float8_in", "float4"),
            ("float" | "float8" | "double precision", []) => checked("float8_in", "float8"),
            ("numeric" | "decimal", []) => checked("numeric_in", "numeric"),
            ("numeric" | "decimal", [_]) => Target::Digits(0),
            ("numeric" | "decimal", [_, digits]) => Target::Digits(*digits),
            ("bool" | "boolean", []) => Target::Boolean,
            ("varchar" | "character varying", []) => Target::Text("varchar"),
            ("varchar" | "character varying", [length]) => Target::Characters(*length),
            ("bytea", []) => checked("bytea_in", "blob"),
            ("text" | "name" | "bpchar", []) => Target::Text("text"),
            ("uuid", []) => Target::Function("uuid_in"),
            ("json" | "jsonb", []) => Target::Function("json_in"),
            ("date", []) => Target::Function("date_in"),
            ("time", [] | [_]) => Target::Function("time_in"),
            ("timetz", [] | [_]) => Target::Text("text"),
            ("timestamp", []) => Target::Function("timestamp_in"),
            ("timestamp", [digits]) => Target::Moment("timestamp_in", *digits),
            ("timestamptz", []) => Target::Function("timestamptz_in"),
            ("timestamptz", [digits]) => Target::Moment("timestamptz_in", *digits),
            _ => return None,
        })
    }

    /// Whether SQLite, which takes any name for a type, makes a number of a value of this one.
    fn is_strange(&self) -> bool {
        match self {
            Target::Function(_) | Target::Moment(..) | Target::Boolean => true,
            Target::Checked { name, .. } => *name == "blob",
            Target::Text(_) | Target::Characters(_) | Target::Digits(_) => false,
        }
    }

    /// What stands before and behind the operand.
    fn around(&self, is_parameter: bool) -> (String, String) {
        match self {
            Target::Checked { name, .. } if is_parameter => ("CAST(".to_owned(), format!(" AS {name})")),
            Target::Checked { function, name } => (format!("CAST({function}("), format!(") AS {name})")),
            Target::Text(name) => ("CAST(".to_owned(), format!(" AS {name})")),
            // The client's own truth arrives as a number.
            Target::Boolean if is_parameter => ("CAST(".to_owned(), " AS boolean)".to_owned()),
            Target::Boolean => ("bool_in(".to_owned(), ")".to_owned()),
            Target::Function(function) => (format!("{function}("), ")".to_owned()),
            Target::Moment(function, digits) => (format!("{function}("), format!(", {digits})")),
            Target::Characters(length) => ("substr(CAST(".to_owned(), format!(" AS text), 1, {length})")),
            Target::Digits(digits) if is_parameter => ("round(CAST(".to_owned(), format!(" AS numeric), {digits})")),
            Target::Digits(digits) => ("round(CAST(numeric_in(".to_owned(), format!(") AS numeric), {digits})")),
        }
    }
}
