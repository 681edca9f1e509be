use super::*;

type Rows = Vec<Vec<Option<String>>>;

/// The rows of `data`, cut into pieces of `piece` bytes.
fn rows(format: &CopyFormat, columns: usize, data: &[u8], piece: usize) -> Result<Rows, SqlError> {
    let names = (0..columns).map(|column| format!("c{column}")).collect();
    let mut decoder = CopyDecoder::new(format.clone(), "t", names);
    let mut rows = Vec::new();
    let mut take = |decoder: &mut CopyDecoder| {
        while let Some(row) = decoder.next_row()? {
            let fields = (0..columns).map(|column| Ok(row.field(column)?.map(str::to_owned)));
            rows.push(fields.collect::<Result<Vec<_>, SqlError>>()?);
        }
        Ok(())
    };
    for piece in data.chunks(piece) {
        decoder.push(piece);
        take(&mut decoder)?;
    }
    decoder.finish();
    take(&mut decoder)?;
    Ok(rows)
}

/// The same rows however the data is cut.
fn all(format: &CopyFormat, columns: usize, data: &str) -> Rows {
    let whole = rows(format, columns, data.as_bytes(), usize::MAX).unwrap();
    for piece in 1..data.len().min(9) {
        assert_eq!(rows(format, columns, data.as_bytes(), piece).unwrap(), whole, "{data:?} in pieces of {piece}");
    }
    whole
}

fn row(fields: &[&str]) -> Vec<Option<String>> {
    fields.iter().map(|field| (*field != "NULL").then(|| (*field).to_owned())).collect()
}

fn error(format: &CopyFormat, columns: usize, data: &[u8]) -> (SqlState, String, String) {
    let error = rows(format, columns, data, 3).unwrap_err();
    (error.state, error.message, error.context.unwrap_or_default().into_string())
}

#[test]
fn text_has_escapes_and_nulls() {
    let text = CopyFormat::text();
    assert_eq!(all(&text, 2, "1\ta b\n2\t\\N\n\t\n"), [row(&["1", "a b"]), row(&["2", "NULL"]), row(&["", ""])]);
    let escaped = "\\\\N\t\\b\\f\\n\\r\\t\\v\\\\\n\\101\\x41\\x4g\\xg\\q\t\\\n\\\t\n";
    assert_eq!(all(&text, 2, escaped), [row(&["\\N", "\u{8}\u{c}\n\r\t\u{b}\\"]), row(&["AA\u{4}gxgq", "\n\t"])]);
    assert_eq!(all(&text, 1, "\\1011\\x411\n"), [row(&["A1A1"])], "three digits at most, and two");
    assert_eq!(all(&text, 1, "ein Häuschen\nno newline"), [row(&["ein Häuschen"]), row(&["no newline"])]);
    assert_eq!(all(&text, 1, "a\r\nb\r\n"), [row(&["a"]), row(&["b"])]);
    assert_eq!(all(&text, 1, "a\n\\.\nnot\tseen\n"), [row(&["a"])]);
    assert_eq!(all(&text, 1, ""), Rows::new());
    assert_eq!(all(&CopyFormat { header: true, ..text.clone() }, 1, "a\nb\n"), [row(&["b"])]);
    let own = CopyFormat { delimiter: b'|', null: String::new(), ..text };
    assert_eq!(all(&own, 3, "a||\\|\\N\n"), [row(&["a", "NULL", "|N"])]);
}

#[test]
fn csv_has_quotes() {
    let csv = CopyFormat::csv();
    assert_eq!(
        all(&csv, 3, "1,,\"\"\n\"a\"\"b\",\"c,d\",e\"f\"g\n"),
        [row(&["1", "NULL", ""]), row(&["a\"b", "c,d", "efg"])]
    );
    assert_eq!(all(&csv, 2, "\"a\nb\r\n\",c\\n\nd,\\N\n"), [row(&["a\nb\r\n", "c\\n"]), row(&["d", "\\N"])]);
    assert_eq!(all(&csv, 1, "\"x\"\r\n\"y\nz\"\r\n\\.\r\nno\r\n"), [row(&["x"]), row(&["y\nz"])]);
    let own = CopyFormat { quote: b'\'', escape: b'\\', delimiter: b';', null: "nil".into(), ..csv };
    let data = "'it\\'s \\\\ \\n';'nil'\nnil;\\'a\n;'\n";
    assert_eq!(all(&own, 2, data), [row(&["it's \\ \\n", "nil"]), row(&["NULL", "\\a\n;"])]);
}

#[test]
fn what_is_no_row_is_named_by_its_line() {
    let (text, csv) = (CopyFormat::text(), CopyFormat::csv());
    let bad = SqlState::BAD_COPY_FILE_FORMAT;
    let cases = [
        (&text, &b"1\t2\n1\n"[..], bad, "missing data for column \"c1\"", "COPY t, line 2: \"1\""),
        (&text, b"1\t2\t3\n", bad, "extra data after last expected column", "COPY t, line 1: \"1\t2\t3\""),
        (&text, b"1\t2\n\n", bad, "missing data for column \"c1\"", "COPY t, line 2: \"\""),
        (&text, b"a\t\r\rb\nc\td\n", bad, "literal carriage return found in data", "COPY t, line 1: \"a\t\r\rb\""),
        (&text, b"a\tb\r\nc\td\n", bad, "literal newline found in data", "COPY t, line 2"),
        (&csv, b"\"a\nb\",2\n1,\"2\n", bad, "unterminated CSV quoted field", "COPY t, line 4: \"1,\"2\n\""),
        (&csv, b"a,b\nc\rd,e\n", bad, "unquoted carriage return found in data", "COPY t, line 2: \"c\rd,e\""),
    ];
    for (format, data, state, message, context) in cases {
        assert_eq!(error(format, 2, data), (state, message.into(), context.into()), "{data:?}");
    }
    for data in [&b"\xff\n"[..], b"\\xc3\n", b"\\000\n"] {
        let (state, _, context) = error(&text, 1, data);
        assert_eq!((state, context.as_str()), (SqlState::CHARACTER_NOT_IN_REPERTOIRE, "COPY t, line 1"), "{data:?}");
    }
    // Each half of a character is no text.
    assert_eq!(error(&text, 2, b"\xc3\t\xa4\n").0, SqlState::CHARACTER_NOT_IN_REPERTOIRE);
}

#[test]
fn formats_that_cannot_be_read_back_are_refused() {
    let (text, csv) = (CopyFormat::text(), CopyFormat::csv());
    for wrong in [
        CopyFormat { delimiter: b'\n', ..text.clone() },
        CopyFormat { delimiter: b'n', ..text.clone() },
        CopyFormat { delimiter: b'\\', ..text.clone() },
        CopyFormat { null: "\n".into(), ..text.clone() },
        CopyFormat { null: "a,b".into(), ..csv.clone() },
        CopyFormat { quote: b',', ..csv.clone() },
        CopyFormat { null: "\"".into(), ..csv.clone() },
    ] {
        assert_eq!(wrong.validate().unwrap_err().state, SqlState("22023"), "{wrong:?}");
    }
    assert!(text.validate().is_ok() && csv.validate().is_ok());
}
