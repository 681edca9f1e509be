//! Rows into bytes.

use bytes::BytesMut;

use super::super::codec;
use super::super::error::SqlError;
use super::super::types::{Column, PgType, Value};
use super::CopyFormat;

/// Writes the rows of a COPY.
pub struct CopyEncoder {
    format: CopyFormat,
    types: Vec<PgType>,
    line: Vec<u8>,
    value: BytesMut,
}

impl CopyEncoder {
    /// An encoder of rows of these columns.
    pub fn new(format: CopyFormat, columns: &[Column]) -> CopyEncoder {
        let types = columns.iter().map(|column| column.pg_type).collect();
        CopyEncoder { format, types, line: Vec::new(), value: BytesMut::new() }
    }

    /// The first line, if the format has one with the columns' names.
    pub fn header(&mut self, columns: &[Column]) -> Option<&[u8]> {
        if !self.format.header {
            return None;
        }
        self.line.clear();
        for (position, column) in columns.iter().enumerate() {
            put_field(&self.format, position, columns.len() == 1, column.name.as_bytes(), &mut self.line);
        }
        self.line.push(b'\n');
        Some(&self.line)
    }

    /// A row, with its line end.
    ///
    /// # Errors
    /// A value does not fit its column.
    pub fn row(&mut self, values: &[Value<'_>]) -> Result<&[u8], SqlError> {
        self.line.clear();
        let alone = values.len() == 1;
        for (position, (value, pg_type)) in values.iter().zip(&self.types).enumerate() {
            match value {
                Value::Null => {
                    if position > 0 {
                        self.line.push(self.format.delimiter);
                    }
                    self.line.extend_from_slice(self.format.null.as_bytes());
                }
                Value::Text(text) if *pg_type == PgType::TEXT => {
                    put_field(&self.format, position, alone, text.as_bytes(), &mut self.line);
                }
                value => {
                    self.value.clear();
                    codec::encode_text(*value, *pg_type, &mut self.value)?;
                    put_field(&self.format, position, alone, &self.value, &mut self.line);
                }
            }
        }
        self.line.push(b'\n');
        Ok(&self.line)
    }
}

fn put_field(format: &CopyFormat, position: usize, alone: bool, field: &[u8], line: &mut Vec<u8>) {
    if position > 0 {
        line.push(format.delimiter);
    }
    if !format.csv {
        return put_escaped(format.delimiter, field, line);
    }
    let special = |byte: &u8| *byte == format.delimiter || *byte == format.quote || matches!(byte, b'\r' | b'\n');
    // What would be read as NULL or as the end needs quotes too.
    let needs_quotes = field == format.null.as_bytes() || (alone && field == b"\\.") || field.iter().any(special);
    if !needs_quotes {
        return line.extend_from_slice(field);
    }
    line.push(format.quote);
    for byte in field.iter().copied() {
        if byte == format.quote || byte == format.escape {
            line.push(format.escape);
        }
        line.push(byte);
    }
    line.push(format.quote);
}

fn put_escaped(delimiter: u8, mut field: &[u8], line: &mut Vec<u8>) {
    let special = |byte: &u8| *byte == delimiter || *byte == b'\\' || matches!(byte, 8..=13);
    while let Some(length) = field.iter().position(special) {
        let (plain, rest) = field.split_at(length);
        line.extend_from_slice(plain);
        let Some((byte, rest)) = rest.split_first() else { return };
        line.push(b'\\');
        line.push(match byte {
            8 => b'b',
            9 => b't',
            10 => b'n',
            11 => b'v',
            12 => b'f',
            13 => b'r',
            other => *other,
        });
        field = rest;
    }
    line.extend_from_slice(field);
}

#[cfg(test)]
mod tests {
    use super::super::CopyDecoder;
    use super::*;

    const TEXTS: [&str; 12] =
        ["", "\\N", "a\tb", "a,b", "\"", "\\", "\\.", "a\nb\r\n", "\u{8}\u{b}\u{c}", "grüße", "'x' ; |", "nil"];

    fn columns(count: usize) -> Vec<Column> {
        (0..count).map(|column| Column { name: format!("c,{column}"), pg_type: PgType::TEXT }).collect()
    }

    #[test]
    fn rows_are_as_postgresql_writes_them() {
        let columns = [PgType::INT8, PgType::FLOAT8, PgType::BOOL, PgType::BYTEA, PgType::TEXT, PgType::TEXT]
            .map(|pg_type| Column { name: "a\"b".to_owned(), pg_type });
        let values = [
            Value::Integer(-1),
            Value::Real(1e20),
            Value::Integer(1),
            Value::Blob(&[0, 255]),
            Value::Null,
            Value::Text("a\tb\\\n"),
        ];
        let mut text = CopyEncoder::new(CopyFormat::text(), &columns);
        assert_eq!(text.row(&values).unwrap(), b"-1\t1e+20\tt\t\\\\x00ff\t\\N\ta\\tb\\\\\\n\n");
        assert_eq!(text.header(&columns), None);
        let mut csv = CopyEncoder::new(CopyFormat { header: true, ..CopyFormat::csv() }, &columns);
        assert_eq!(csv.row(&values).unwrap(), b"-1,1e+20,t,\\x00ff,,\"a\tb\\\n\"\n");
        assert_eq!(csv.header(&columns[..2]).unwrap(), b"\"a\"\"b\",\"a\"\"b\"\n");
    }

    #[test]
    fn what_was_written_is_read_back() {
        let formats = [
            CopyFormat::text(),
            CopyFormat::csv(),
            CopyFormat { delimiter: b'|', null: "nil".into(), header: true, ..CopyFormat::text() },
            CopyFormat {
                delimiter: b';',
                quote: b'\'',
                escape: b'\\',
                null: "nil".into(),
                header: true,
                ..CopyFormat::csv()
            },
        ];
        for format in formats {
            for width in [1, 2] {
                let columns = columns(width);
                let mut encoder = CopyEncoder::new(format.clone(), &columns);
                let mut data = encoder.header(&columns).unwrap_or_default().to_vec();
                let mut written = Vec::new();
                // The format text cannot tell what looks like its NULL from NULL; PostgreSQL's cannot either.
                for one in TEXTS.into_iter().filter(|one| format.csv || *one != format.null) {
                    for value in [Value::Text(one), Value::Null] {
                        let values = vec![value; width];
                        data.extend_from_slice(encoder.row(&values).unwrap());
                        written.push(values);
                    }
                }
                let names = columns.into_iter().map(|column| column.name).collect();
                let mut decoder = CopyDecoder::new(format.clone(), "t", names);
                decoder.push(&data);
                decoder.finish();
                for values in written {
                    let row = decoder.next_row().unwrap().unwrap();
                    for (column, value) in values.into_iter().enumerate() {
                        let read = row.field(column).unwrap().map_or(Value::Null, Value::Text);
                        assert_eq!(read, value, "{format:?}");
                    }
                }
                assert!(decoder.next_row().unwrap().is_none());
            }
        }
    }
}
