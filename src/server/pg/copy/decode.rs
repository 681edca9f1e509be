//! Bytes into rows.

use std::ops::Range;

use super::super::error::{SqlError, SqlState};
use super::super::outbox::{ROW_LIMIT_BYTES, row_too_large};
use super::CopyFormat;

/// More of a bad line is not repeated to the client.
const SHOWN_CHARACTERS: usize = 100;

/// Takes the data of a COPY piece by piece and answers its rows.
pub struct CopyDecoder {
    format: CopyFormat,
    table: String,
    columns: Vec<String>,
    buffer: Vec<u8>,
    /// Where the next line begins.
    start: usize,
    scan: Scan,
    /// The line that was read last, from 1.
    line: u64,
    /// Whether lines end with a carriage return too; not known before the first.
    returns: Option<bool>,
    header_left: bool,
    /// Nothing follows what is in the buffer.
    finished: bool,
    /// The end was marked in the data.
    ended: bool,
    text: Vec<u8>,
    fields: Vec<Option<Range<usize>>>,
}

/// How far the search for the end of the line came, and what it remembers.
#[derive(Clone, Copy, Default)]
struct Scan {
    at: usize,
    in_quotes: bool,
    escaped: bool,
    lines_within: u64,
}

/// A row, its fields freed of quotes and escapes.
pub struct CopyRow<'a> {
    text: &'a str,
    fields: &'a [Option<Range<usize>>],
}

impl<'a> CopyRow<'a> {
    /// The field of a column, counted from 0; nothing for NULL.
    ///
    /// # Errors
    /// 22021: it is no text by itself.
    pub fn field(&self, column: usize) -> Result<Option<&'a str>, SqlError> {
        match self.fields.get(column) {
            Some(Some(range)) => self.text.get(range.clone()).map(Some).ok_or_else(not_utf8),
            _ => Ok(None),
        }
    }
}

impl CopyDecoder {
    /// A decoder of data for these columns. The table's name only serves messages.
    pub fn new(format: CopyFormat, table: impl Into<String>, columns: Vec<String>) -> CopyDecoder {
        let header_left = format.header;
        CopyDecoder {
            format,
            table: table.into(),
            columns,
            buffer: Vec::new(),
            start: 0,
            scan: Scan::default(),
            line: 0,
            returns: None,
            header_left,
            finished: false,
            ended: false,
            text: Vec::new(),
            fields: Vec::new(),
        }
    }

    /// Takes the next piece of the data, cut anywhere.
    pub fn push(&mut self, data: &[u8]) {
        if self.ended {
            return;
        }
        self.buffer.drain(..self.start);
        self.scan.at -= self.start;
        self.start = 0;
        self.buffer.extend_from_slice(data);
    }

    /// There is no more data.
    pub fn finish(&mut self) {
        self.finished = true;
    }

    /// Where an error of the current row happened, in PostgreSQL's words; in this column, counted from 0.
    pub fn context(&self, column: Option<usize>) -> String {
        let column = column.and_then(|column| self.columns.get(column));
        let column = column.map(|name| format!(", column {name}")).unwrap_or_default();
        format!("COPY {}, line {}{column}", self.table, self.line)
    }

    /// The next row, if it is there.
    ///
    /// # Errors
    /// 22P04 for what is no row of these columns, 22021 for text that is not UTF-8, 54000 for a row that is too long; with
    /// the line as context.
    pub fn next_row(&mut self) -> Result<Option<CopyRow<'_>>, SqlError> {
        let line = loop {
            let Some(line) = self.next_line()? else { return Ok(None) };
            if !std::mem::take(&mut self.header_left) {
                break line;
            }
        };
        if let Err(error) = self.split(line.clone()) {
            let shown = String::from_utf8_lossy(self.buffer.get(line).unwrap_or_default());
            let shown: String = shown.chars().take(SHOWN_CHARACTERS).collect();
            return Err(error.with_context(format!("{}: \"{shown}\"", self.context(None))));
        }
        self.row().map(Some)
    }

    /// The row that was read last.
    ///
    /// # Errors
    /// 22021: it is no text in UTF-8.
    pub fn row(&self) -> Result<CopyRow<'_>, SqlError> {
        match std::str::from_utf8(&self.text) {
            Ok(text) if !self.text.contains(&0) => Ok(CopyRow { text, fields: &self.fields }),
            _ => Err(not_utf8().with_context(self.context(None))),
        }
    }

    /// The next line without its end, if it is there, as a range of the buffer.
    fn next_line(&mut self) -> Result<Option<Range<usize>>, SqlError> {
        if self.ended {
            return Ok(None);
        }
        let (start, found) = (self.start, self.find_line_end());
        let mut end = match found {
            Some(end) => end,
            None if self.buffer.len() - start > ROW_LIMIT_BYTES => {
                self.line += 1;
                return Err(row_too_large().with_context(self.context(None)));
            }
            None if self.finished && start < self.buffer.len() => self.buffer.len(),
            None => return Ok(None),
        };
        self.line += 1 + self.scan.lines_within;
        self.start = if found.is_some() { end + 1 } else { end };
        self.scan = Scan { at: self.start, ..Scan::default() };
        let has_return = end > start && self.buffer.get(end - 1) == Some(&b'\r');
        if *self.returns.get_or_insert(has_return) {
            if has_return {
                end -= 1;
            } else if found.is_some() {
                let error = SqlError::new(SqlState::BAD_COPY_FILE_FORMAT, "literal newline found in data");
                return Err(error.with_context(self.context(None)));
            }
        }
        if self.buffer.get(start..end) == Some(b"\\.") {
            self.ended = true;
            return Ok(None);
        }
        Ok(Some(start..end))
    }

    /// Looks for the end of the line from where it stopped the last time.
    fn find_line_end(&mut self) -> Option<usize> {
        if self.format.csv { self.find_csv_end() } else { self.find_text_end() }
    }

    /// A newline behind a backslash belongs to the row, unless the backslash is itself behind one.
    fn find_text_end(&mut self) -> Option<usize> {
        loop {
            let rest = self.buffer.get(self.scan.at..).unwrap_or_default();
            let Some(offset) = rest.iter().position(|byte| *byte == b'\n') else {
                self.scan.at = self.buffer.len();
                return None;
            };
            let end = self.scan.at + offset;
            let before = self.buffer.get(self.start..end).unwrap_or_default();
            let backslashes = before.iter().rev().take_while(|byte| **byte == b'\\').count();
            if backslashes % 2 == 0 {
                return Some(end);
            }
            self.scan.at = end + 1;
        }
    }

    /// A newline within quotes belongs to the row. A quote that is its own escape needs no thought: two of them end the
    /// quotes and begin them again.
    fn find_csv_end(&mut self) -> Option<usize> {
        let CopyFormat { quote, escape, .. } = self.format;
        let mut scan = self.scan;
        for (offset, byte) in self.buffer.get(scan.at..).unwrap_or_default().iter().copied().enumerate() {
            if std::mem::take(&mut scan.escaped) && (byte == quote || byte == escape) {
                continue;
            }
            if byte == quote {
                scan.in_quotes = !scan.in_quotes;
            } else if byte == escape && scan.in_quotes {
                scan.escaped = true;
            } else if byte == b'\n' {
                if !scan.in_quotes {
                    self.scan = scan;
                    return Some(self.scan.at + offset);
                }
                scan.lines_within += 1;
            }
        }
        scan.at = self.buffer.len();
        self.scan = scan;
        None
    }

    /// Cuts a line into fields.
    fn split(&mut self, line: Range<usize>) -> Result<(), SqlError> {
        self.text.clear();
        self.fields.clear();
        let line = self.buffer.get(line).unwrap_or_default();
        let mut fields = Fields {
            format: &self.format,
            line,
            at: 0,
            text: &mut self.text,
            fields: &mut self.fields,
            limit: self.columns.len(),
        };
        if self.format.csv {
            fields.split_csv()?
        } else {
            fields.split_text()?
        }
        if let Some(missing) = self.columns.get(self.fields.len()) {
            return Err(bad(format!("missing data for column \"{missing}\"")));
        }
        Ok(())
    }
}

/// A line that is being cut.
struct Fields<'a> {
    format: &'a CopyFormat,
    line: &'a [u8],
    at: usize,
    text: &'a mut Vec<u8>,
    fields: &'a mut Vec<Option<Range<usize>>>,
    limit: usize,
}

impl Fields<'_> {
    fn split_text(&mut self) -> Result<(), SqlError> {
        let delimiter = self.format.delimiter;
        let (mut raw_start, mut text_start) = (0, 0);
        loop {
            match self.copy_until(|byte| byte == delimiter || byte == b'\\' || byte == b'\r') {
                Some(b'\\') => self.unescape(),
                Some(byte) if byte == delimiter => {
                    self.end_field(raw_start, text_start, false)?;
                    self.at += 1;
                    (raw_start, text_start) = (self.at, self.text.len());
                }
                Some(_) => return Err(bad("literal carriage return found in data").with_hint("Use \"\\r\" for it.")),
                None => return self.end_field(raw_start, text_start, false),
            }
        }
    }

    fn split_csv(&mut self) -> Result<(), SqlError> {
        let CopyFormat { delimiter, quote, .. } = *self.format;
        let (mut raw_start, mut text_start, mut quoted) = (0, 0, false);
        loop {
            match self.copy_until(|byte| byte == delimiter || byte == quote || byte == b'\r') {
                Some(byte) if byte == delimiter => {
                    self.end_field(raw_start, text_start, quoted)?;
                    self.at += 1;
                    (raw_start, text_start, quoted) = (self.at, self.text.len(), false);
                }
                Some(byte) if byte == quote => {
                    quoted = true;
                    self.at += 1;
                    self.copy_quoted()?;
                }
                Some(_) => return Err(bad("unquoted carriage return found in data").with_hint("Quote the field.")),
                None => return self.end_field(raw_start, text_start, quoted),
            }
        }
    }

    /// Takes what stands within quotes, and the closing one.
    fn copy_quoted(&mut self) -> Result<(), SqlError> {
        let CopyFormat { quote, escape, .. } = *self.format;
        loop {
            let Some(byte) = self.copy_until(|byte| byte == quote || byte == escape) else {
                return Err(bad("unterminated CSV quoted field"));
            };
            let next = self.line.get(self.at + 1).copied().filter(|next| *next == quote || *next == escape);
            if let Some(next) = next.filter(|_| byte == escape) {
                self.text.push(next);
                self.at += 2;
            } else if byte == quote {
                self.at += 1;
                return Ok(());
            } else {
                self.text.push(byte);
                self.at += 1;
            }
        }
    }

    /// Takes bytes up to one that `stops`, which is answered; or all.
    fn copy_until(&mut self, stops: impl Fn(u8) -> bool) -> Option<u8> {
        let rest = self.line.get(self.at..).unwrap_or_default();
        let length = rest.iter().position(|byte| stops(*byte)).unwrap_or(rest.len());
        let (plain, rest) = rest.split_at(length);
        self.text.extend_from_slice(plain);
        self.at += length;
        rest.first().copied()
    }

    /// Takes a backslash and what it stands before.
    fn unescape(&mut self) {
        let rest = self.line.get(self.at + 1..).unwrap_or_default();
        let digits = |from: usize, most: usize, radix: u32| {
            let digit = |byte: &u8| char::from(*byte).to_digit(radix);
            let digits = rest.iter().skip(from).take(most).map_while(digit);
            digits.fold((0_u32, 0), |(value, count), digit| (value * radix + digit, count + 1))
        };
        let (byte, length) = match rest.first() {
            None => (b'\\', 0),
            Some(b'b') => (8, 1),
            Some(b'f') => (12, 1),
            Some(b'n') => (b'\n', 1),
            Some(b'r') => (b'\r', 1),
            Some(b't') => (b'\t', 1),
            Some(b'v') => (11, 1),
            Some(b'0'..=b'7') => {
                let (value, count) = digits(0, 3, 8);
                // Only the lower eight bits count, as in PostgreSQL.
                ((value & 0xff) as u8, count)
            }
            Some(b'x') => match digits(1, 2, 16) {
                (_, 0) => (b'x', 1),
                (value, count) => ((value & 0xff) as u8, 1 + count),
            },
            Some(other) => (*other, 1),
        };
        self.text.push(byte);
        self.at += 1 + length;
    }

    fn end_field(&mut self, raw_start: usize, text_start: usize, quoted: bool) -> Result<(), SqlError> {
        if self.fields.len() == self.limit {
            return Err(bad("extra data after last expected column"));
        }
        let raw = self.line.get(raw_start..self.at).unwrap_or_default();
        if !quoted && raw == self.format.null.as_bytes() {
            self.text.truncate(text_start);
            self.fields.push(None);
        } else {
            self.fields.push(Some(text_start..self.text.len()));
        }
        Ok(())
    }
}

fn bad(message: impl Into<String>) -> SqlError {
    SqlError::new(SqlState::BAD_COPY_FILE_FORMAT, message)
}

fn not_utf8() -> SqlError {
    SqlError::new(SqlState::CHARACTER_NOT_IN_REPERTOIRE, "invalid byte sequence for encoding \"UTF8\"")
}

#[cfg(test)]
#[path = "decode_test.rs"]
mod tests;
