//! The data of COPY, in PostgreSQL's formats `text` and `csv`. Nobody else makes or reads these bytes.
//!
//! ```text
//! text   a row a line, fields between delimiters; \N is NULL; \\ \b \f \n \r \t \v, \ooo, \xhh stand for bytes;
//!        a line of \. alone is the end
//! csv    a row a line, but for line ends within quotes; within quotes, the escape stands before a quote or itself;
//!        an empty field without quotes is NULL
//! ```
//!
//! Lines end with a newline, or all with a carriage return and a newline, as the first one does. [`CopyDecoder`] takes the
//! bytes as they come and holds one row and what follows it in the same piece; [`CopyEncoder`] makes one row at a time.

mod decode;
mod encode;

pub use decode::{CopyDecoder, CopyRow};
pub use encode::CopyEncoder;

use super::error::{SqlError, SqlState};

/// How rows are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyFormat {
    /// Whether it is `csv`; else it is `text`.
    pub csv: bool,
    /// What stands between fields: one byte.
    pub delimiter: u8,
    /// What stands for NULL.
    pub null: String,
    /// Whether the first line has the columns' names.
    pub header: bool,
    /// What fields are quoted with, in `csv`: one byte.
    pub quote: u8,
    /// What stands before a quote that belongs to a field, in `csv`: one byte.
    pub escape: u8,
}

impl CopyFormat {
    /// The format `text`, as it is unless options say otherwise.
    pub fn text() -> CopyFormat {
        CopyFormat { csv: false, delimiter: b'\t', null: "\\N".to_owned(), header: false, quote: b'"', escape: b'"' }
    }

    /// The format `csv`, as it is unless options say otherwise.
    pub fn csv() -> CopyFormat {
        CopyFormat { csv: true, delimiter: b',', null: String::new(), ..CopyFormat::text() }
    }

    /// Checks that rows can be told apart from fields, and fields from each other.
    ///
    /// # Errors
    /// 22023, and which option is wrong.
    pub fn validate(&self) -> Result<(), SqlError> {
        let is_line_end = |byte: u8| matches!(byte, b'\r' | b'\n');
        let special = if self.csv { false } else { matches!(self.delimiter, b'\\' | b'.' | b'a'..=b'z' | b'0'..=b'9') };
        let null = self.null.as_bytes();
        let problem = if is_line_end(self.delimiter) {
            "COPY delimiter cannot be newline or carriage return"
        } else if special {
            "COPY delimiter cannot be a lower-case letter, a digit, a point or a backslash"
        } else if null.iter().copied().any(is_line_end) {
            "COPY null representation cannot use newline or carriage return"
        } else if null.contains(&self.delimiter) {
            "COPY delimiter must not appear in the NULL specification"
        } else if self.csv && self.delimiter == self.quote {
            "COPY delimiter and quote must be different"
        } else if self.csv && null.contains(&self.quote) {
            "CSV quote character must not appear in the NULL specification"
        } else if self.csv && (is_line_end(self.quote) || is_line_end(self.escape)) {
            "COPY quote and escape cannot be newline or carriage return"
        } else {
            return Ok(());
        };
        Err(SqlError::new(SqlState("22023"), problem))
    }
}
