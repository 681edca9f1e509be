//! `COPY`, with its options as PostgreSQL writes them now (`WITH (FORMAT csv, …)`) and as it did before (`WITH CSV …`).
//!
//! A query in it is SQLite's: its text is taken as it stands, up to the parenthesis that closes it.

use mainstay::server::pg::copy::CopyFormat;
use mainstay::server::pg::{SqlError, SqlState};

use super::super::lexer::Kind;
use super::super::names::quoted;
use super::super::policy;
use super::{Words, boolean};

/// A COPY.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Copy {
    pub(in super::super) source: Source,
    pub(in super::super) direction: Direction,
    pub(in super::super) format: CopyFormat,
}

/// What is copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum Source {
    Table {
        /// Its name alone.
        name: String,
        /// Its name as SQL, with what stands before it.
        sql: String,
        columns: Option<Vec<String>>,
    },
    /// The rows of a query.
    Query(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Direction {
    FromClient,
    ToClient,
}

/// Options as they were given.
#[derive(Default)]
struct Options {
    csv: Option<bool>,
    delimiter: Option<u8>,
    null: Option<String>,
    header: Option<bool>,
    quote: Option<u8>,
    escape: Option<u8>,
}

impl Words<'_> {
    /// What stands behind `COPY`, to the end.
    pub(super) fn copy(&mut self, statement: &str) -> Result<Copy, SqlError> {
        if self.take("BINARY") {
            return Err(binary());
        }
        let source = if self.is_symbol('(') { Source::Query(self.query(statement)?) } else { self.table()? };
        let direction = if self.take("FROM") {
            Direction::FromClient
        } else {
            self.expect("TO")?;
            Direction::ToClient
        };
        match (direction, &source) {
            (Direction::FromClient, Source::Query(_)) => return Err(self.unexpected()),
            (Direction::FromClient, _) if self.take("STDIN") => {}
            (Direction::ToClient, _) if self.take("STDOUT") => {}
            _ => {
                let refusal = policy::refused("COPY from or to a file or program of the server is not supported");
                return Err(
                    refusal.with_hint("Use STDIN or STDOUT; psql's \\copy reads and writes the client's files.")
                );
            }
        }
        let mut options = Options::default();
        self.take("WITH");
        if self.is_symbol('(') {
            self.advance();
            loop {
                self.option(&mut options)?;
                if !self.is_symbol(',') {
                    break;
                }
                self.advance();
            }
            self.symbol(')')?;
        } else {
            while self.next.is_some() {
                self.old_option(&mut options)?;
            }
        }
        if self.next.is_some_and(|token| token.is("WHERE")) {
            return Err(policy::refused("COPY FROM … WHERE is not supported"));
        }
        Ok(Copy { source, direction, format: options.format()? })
    }

    fn is_symbol(&self, symbol: char) -> bool {
        self.next.is_some_and(|token| token.kind == Kind::Symbol(symbol))
    }

    /// The text within parentheses.
    fn query(&mut self, statement: &str) -> Result<String, SqlError> {
        let start = self.next.map(|token| token.range().end).unwrap_or_default();
        let mut depth = 0_usize;
        while let Some(token) = self.next {
            match token.kind {
                Kind::Symbol('(') => depth += 1,
                Kind::Symbol(')') => depth -= 1,
                _ => {}
            }
            self.advance();
            if depth == 0 {
                return Ok(statement.get(start..token.range().start).unwrap_or_default().to_owned());
            }
        }
        Err(self.unexpected())
    }

    fn table(&mut self) -> Result<Source, SqlError> {
        let mut name = self.name()?;
        let mut sql = quoted(&name);
        while self.is_symbol('.') {
            self.advance();
            name = self.name()?;
            sql = format!("{sql}.{}", quoted(&name));
        }
        let mut columns = None;
        if self.is_symbol('(') {
            columns = Some(self.column_names()?);
        }
        Ok(Source::Table { name, sql, columns })
    }

    fn column_names(&mut self) -> Result<Vec<String>, SqlError> {
        let mut columns: Vec<String> = Vec::new();
        loop {
            self.advance();
            let name = self.name()?;
            if columns.iter().any(|column| column.eq_ignore_ascii_case(&name)) {
                let message = format!("column \"{name}\" specified more than once");
                return Err(SqlError::new(SqlState::DUPLICATE_COLUMN, message));
            }
            columns.push(name);
            if !self.is_symbol(',') {
                self.symbol(')')?;
                return Ok(columns);
            }
        }
    }

    /// One of those in parentheses.
    fn option(&mut self, options: &mut Options) -> Result<(), SqlError> {
        let name = self.name()?;
        match name.as_str() {
            "format" => match self.name()?.to_ascii_lowercase().as_str() {
                "text" => options.csv = Some(false),
                "csv" => options.csv = Some(true),
                "binary" => return Err(binary()),
                other => {
                    let message = format!("COPY format \"{other}\" not recognized");
                    return Err(SqlError::new(SqlState("22023"), message));
                }
            },
            // It says how PostgreSQL may store the rows, not what they are.
            "freeze" => drop(self.switch(&name)?),
            "header" => options.header = Some(self.switch(&name)?),
            _ => self.common_option(&name, options)?,
        }
        Ok(())
    }

    fn old_option(&mut self, options: &mut Options) -> Result<(), SqlError> {
        if self.next.is_some_and(|token| token.is("WHERE")) {
            return Err(policy::refused("COPY FROM … WHERE is not supported"));
        }
        let unexpected = self.unexpected();
        let name = self.name()?;
        match name.as_str() {
            "binary" => return Err(binary()),
            "csv" => options.csv = Some(true),
            "header" => options.header = Some(true),
            "freeze" => {}
            "using" if self.next.is_some_and(|token| token.is("DELIMITERS")) => {}
            "delimiters" => options.delimiter = Some(self.byte("delimiter")?),
            "delimiter" | "null" | "quote" | "escape" | "encoding" | "force" => {
                self.take("AS");
                self.common_option(&name, options)?;
            }
            _ => return Err(unexpected),
        }
        Ok(())
    }

    fn common_option(&mut self, name: &str, options: &mut Options) -> Result<(), SqlError> {
        match name {
            "delimiter" => options.delimiter = Some(self.byte(name)?),
            "null" => options.null = Some(self.text()?),
            "quote" => options.quote = Some(self.byte(name)?),
            "escape" => options.escape = Some(self.byte(name)?),
            "encoding" => {
                let encoding = self.text()?;
                if !["utf8", "utf-8", "unicode"].iter().any(|known| known.eq_ignore_ascii_case(&encoding)) {
                    return Err(policy::refused(format!("COPY in the encoding \"{encoding}\" is not supported"))
                        .with_hint("Use UTF8."));
                }
            }
            "force" | "force_quote" | "force_not_null" | "force_null" => {
                return Err(policy::refused("the options FORCE_… of COPY are not supported"));
            }
            _ => {
                let message = format!("option \"{name}\" not recognized");
                return Err(SqlError::new(SqlState::SYNTAX_ERROR, message));
            }
        }
        Ok(())
    }

    /// Whether an option is on, as it is if nothing is said.
    fn switch(&mut self, name: &str) -> Result<bool, SqlError> {
        if self.is_symbol(',') || self.is_symbol(')') {
            return Ok(true);
        }
        if self.next.is_some_and(|token| token.is("MATCH")) {
            return Err(policy::refused("HEADER MATCH is not supported").with_hint("Use HEADER."));
        }
        let value = self.value()?;
        boolean(&value).ok_or_else(|| SqlError::new(SqlState::SYNTAX_ERROR, format!("{name} requires a Boolean value")))
    }

    /// Text in quotes, or in quotes with escapes: `E'\t'`.
    fn text(&mut self) -> Result<String, SqlError> {
        let escapes = self.take("E");
        if self.next.is_none_or(|token| token.kind != Kind::Text) {
            return Err(self.unexpected());
        }
        let text = self.name()?;
        if !escapes {
            return Ok(text);
        }
        let mut unescaped = String::new();
        let mut characters = text.chars();
        while let Some(character) = characters.next() {
            unescaped.push(match character {
                '\\' => match characters.next() {
                    Some('b') => '\u{8}',
                    Some('f') => '\u{c}',
                    Some('n') => '\n',
                    Some('r') => '\r',
                    Some('t') => '\t',
                    Some(other) => other,
                    None => '\\',
                },
                other => other,
            });
        }
        Ok(unescaped)
    }

    fn byte(&mut self, name: &str) -> Result<u8, SqlError> {
        let text = self.text()?;
        match text.as_bytes() {
            [byte] => Ok(*byte),
            _ => Err(policy::refused(format!("COPY {name} must be a single one-byte character"))),
        }
    }
}

impl Options {
    fn format(self) -> Result<CopyFormat, SqlError> {
        let original = if self.csv == Some(true) { CopyFormat::csv() } else { CopyFormat::text() };
        if !original.csv && (self.quote.is_some() || self.escape.is_some()) {
            return Err(policy::refused("COPY quote and escape are available only in CSV mode"));
        }
        let quote = self.quote.unwrap_or(original.quote);
        let format = CopyFormat {
            csv: original.csv,
            delimiter: self.delimiter.unwrap_or(original.delimiter),
            null: self.null.unwrap_or(original.null),
            header: self.header.unwrap_or(false),
            quote,
            escape: self.escape.unwrap_or(quote),
        };
        format.validate()?;
        Ok(format)
    }
}

fn binary() -> SqlError {
    policy::refused("COPY in the format binary is not supported").with_hint("Use the format text or csv.")
}

#[cfg(test)]
mod tests {
    use super::super::{Command, parse};
    use super::*;

    fn copy(sql: &str) -> Copy {
        match parse(sql).unwrap() {
            Some(Command::Copy(copy)) => *copy,
            other => panic!("{sql}: {other:?}"),
        }
    }

    fn table(name: &str, sql: &str, columns: Option<&[&str]>) -> Source {
        let columns = columns.map(|columns| columns.iter().map(|column| (*column).to_owned()).collect());
        Source::Table { name: name.into(), sql: sql.into(), columns }
    }

    #[test]
    fn tables_and_queries_are_copied() {
        use Direction::{FromClient, ToClient};
        for (sql, source, direction) in [
            (
                "copy pgbench_accounts from stdin with (freeze on)",
                table("pgbench_accounts", "\"pgbench_accounts\"", None),
                FromClient,
            ),
            ("COPY main.\"T\" (a, \"B c\") FROM STDIN", table("T", "\"main\".\"T\"", Some(&["a", "B c"])), FromClient),
            ("COPY  t TO STDOUT ", table("t", "\"t\"", None), ToClient),
            ("COPY (SELECT ')', (1) /* ) */) TO STDOUT", Source::Query("SELECT ')', (1) /* ) */".into()), ToClient),
            (
                "COPY ( WITH x AS (SELECT 1) SELECT * FROM x ) TO STDOUT CSV",
                Source::Query(" WITH x AS (SELECT 1) SELECT * FROM x ".into()),
                ToClient,
            ),
        ] {
            let copy = copy(sql);
            assert_eq!((copy.source, copy.direction), (source, direction), "{sql}");
        }
    }

    #[test]
    fn options_are_understood_in_both_ways() {
        let (text, csv) = (CopyFormat::text(), CopyFormat::csv());
        for (options, format) in [
            ("", text.clone()),
            ("(FORMAT text, FREEZE, HEADER off, ENCODING 'UTF8')", text.clone()),
            ("WITH (format 'csv', header true)", CopyFormat { header: true, ..csv.clone() }),
            ("(FORMAT csv, HEADER, NULL 'nil')", CopyFormat { header: true, null: "nil".into(), ..csv.clone() }),
            (
                "(DELIMITER E'\\t', FORMAT CSV, QUOTE '''')",
                CopyFormat { delimiter: b'\t', quote: b'\'', escape: b'\'', ..csv.clone() },
            ),
            ("(FORMAT csv, ESCAPE '\\')", CopyFormat { escape: b'\\', ..csv.clone() }),
            ("CSV HEADER", CopyFormat { header: true, ..csv.clone() }),
            (
                "WITH CSV DELIMITER AS ';' NULL AS 'x' QUOTE '|'",
                CopyFormat { delimiter: b';', null: "x".into(), quote: b'|', escape: b'|', ..csv },
            ),
            ("WITH DELIMITER '|' NULL ''", CopyFormat { delimiter: b'|', null: String::new(), ..text.clone() }),
            ("USING DELIMITERS ','", CopyFormat { delimiter: b',', ..text }),
        ] {
            assert_eq!(copy(&format!("COPY t FROM STDIN {options}")).format, format, "{options}");
        }
    }

    #[test]
    fn what_cannot_be_copied_is_refused() {
        for (sql, state) in [
            ("COPY t FROM STDIN BINARY", "0A000"),
            ("COPY BINARY t FROM STDIN", "0A000"),
            ("COPY t TO STDOUT (FORMAT binary)", "0A000"),
            ("COPY t FROM '/etc/passwd'", "0A000"),
            ("COPY t TO PROGRAM 'cat'", "0A000"),
            ("COPY t FROM STDIN WHERE a > 1", "0A000"),
            ("COPY t FROM STDIN (FORCE_NULL (a))", "0A000"),
            ("COPY t FROM STDIN (DELIMITER 'ab')", "0A000"),
            ("COPY t FROM STDIN (QUOTE '|')", "0A000"),
            ("COPY t FROM STDIN (ENCODING 'LATIN1')", "0A000"),
            ("COPY t FROM STDIN (FORMAT parquet)", "22023"),
            ("COPY t FROM STDIN (FORMAT csv, DELIMITER '\"')", "22023"),
            ("COPY t (a, A) FROM STDIN", "42701"),
            ("COPY t FROM STDIN (HEADER maybe)", "42601"),
            ("COPY t FROM STDIN (SPEED 'high')", "42601"),
            ("COPY t FROM STDIN nonsense", "42601"),
            ("COPY (SELECT 1) FROM STDIN", "42601"),
            ("COPY (SELECT 1 TO STDOUT", "42601"),
            ("COPY t (a FROM STDIN", "42601"),
            ("COPY t", "42601"),
            ("COPY", "42601"),
        ] {
            assert_eq!(parse(sql).unwrap_err().state.0, state, "{sql}");
        }
    }
}
