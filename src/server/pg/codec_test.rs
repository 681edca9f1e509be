use proptest::prelude::*;

use super::*;

fn encoded(value: Value<'_>, pg_type: PgType, format: Format) -> Result<Vec<u8>, SqlError> {
    let mut out = BytesMut::new();
    encode(value, pg_type, format, &mut out)?;
    let (length, bytes) = out.split_at(4);
    assert_eq!(length, i32::try_from(bytes.len()).unwrap().to_be_bytes());
    Ok(bytes.to_vec())
}

fn text(value: Value<'_>, pg_type: PgType) -> String {
    String::from_utf8(encoded(value, pg_type, Format::Text).unwrap()).unwrap()
}

#[test]
fn null_is_a_length_of_minus_one() {
    let mut out = BytesMut::new();
    encode(Value::Null, PgType::INT8, Format::Binary, &mut out).unwrap();
    assert_eq!(&out[..], b"\xff\xff\xff\xff");
}

#[test]
fn text_is_written_as_postgresql_writes_it() {
    for (value, pg_type, expected) in [
        (Value::Integer(i64::MIN), PgType::INT8, "-9223372036854775808"),
        (Value::Integer(1), PgType::BOOL, "t"),
        (Value::Integer(0), PgType::BOOL, "f"),
        (Value::Integer(2), PgType::BOOL, "2"),
        (Value::Text("not a number"), PgType::INT8, "not a number"),
        (Value::Text("grüße"), PgType::TEXT, "grüße"),
        (Value::Blob(b"\x00\xffa"), PgType::BYTEA, "\\x00ff61"),
        (Value::Text("a"), PgType::BYTEA, "\\x61"),
        (Value::Blob(b"\xff"), PgType::TEXT, "\\xff"),
    ] {
        assert_eq!(text(value, pg_type), expected, "{value:?}");
    }
}

/// Each was printed by PostgreSQL 15 for `select X::float8`.
#[test]
fn doubles_are_written_as_postgresql_writes_them() {
    for (real, expected) in [
        (0.0, "0"),
        (-0.0, "-0"),
        (1.0, "1"),
        (1.5, "1.5"),
        (-123.456, "-123.456"),
        (0.1 + 0.2, "0.30000000000000004"),
        (0.0001, "0.0001"),
        (0.00012, "0.00012"),
        (0.00001, "1e-05"),
        (100_000_000_000_000.0, "100000000000000"),
        (123_456_789_012_345.6, "123456789012345.6"),
        (1e15, "1e+15"),
        (1.25e100, "1.25e+100"),
        (f64::MAX, "1.7976931348623157e+308"),
        (5e-324, "5e-324"),
        (f64::NAN, "NaN"),
        (f64::INFINITY, "Infinity"),
        (f64::NEG_INFINITY, "-Infinity"),
    ] {
        assert_eq!(text(Value::Real(real), PgType::FLOAT8), expected);
    }
}

/// Each was printed by PostgreSQL 15 for `select X::float4`.
#[test]
fn singles_are_written_as_postgresql_writes_them() {
    for (real, expected) in [(0.1, "0.1"), (100_000.0, "100000"), (1e6, "1e+06"), (1.1e-5, "1.1e-05")] {
        assert_eq!(text(Value::Real(real), PgType::FLOAT4), expected);
    }
    assert_eq!(
        encoded(Value::Real(1e300), PgType::FLOAT4, Format::Text).unwrap_err().state,
        SqlState::NUMERIC_VALUE_OUT_OF_RANGE
    );
}

#[test]
fn golden_bytes_of_binary_values() {
    for (value, pg_type, expected) in [
        (Value::Integer(1), PgType::BOOL, &b"\x01"[..]),
        (Value::Integer(-2), PgType::INT2, b"\xff\xfe"),
        (Value::Integer(258), PgType::INT4, b"\0\0\x01\x02"),
        (Value::Integer(-1), PgType::INT8, b"\xff\xff\xff\xff\xff\xff\xff\xff"),
        (Value::Real(1.5), PgType::FLOAT4, b"\x3f\xc0\0\0"),
        (Value::Real(1.5), PgType::FLOAT8, b"\x3f\xf8\0\0\0\0\0\0"),
        (Value::Integer(2), PgType::FLOAT8, b"\x40\0\0\0\0\0\0\0"),
        (Value::Blob(b"\0\xff"), PgType::BYTEA, b"\0\xff"),
        (Value::Text("abc"), PgType::TEXT, b"abc"),
        (Value::Integer(7), PgType::TEXT, b"7"),
    ] {
        assert_eq!(encoded(value, pg_type, Format::Binary).unwrap(), expected, "{value:?}");
    }
}

#[test]
fn binary_refuses_what_would_be_misread() {
    for (value, pg_type, state) in [
        (Value::Integer(40_000), PgType::INT2, SqlState::NUMERIC_VALUE_OUT_OF_RANGE),
        (Value::Integer(1 << 40), PgType::INT4, SqlState::NUMERIC_VALUE_OUT_OF_RANGE),
        (Value::Integer((1 << 53) + 1), PgType::FLOAT8, SqlState::NUMERIC_VALUE_OUT_OF_RANGE),
        (Value::Integer(i64::MAX), PgType::FLOAT8, SqlState::NUMERIC_VALUE_OUT_OF_RANGE),
        (Value::Real(1e300), PgType::FLOAT4, SqlState::NUMERIC_VALUE_OUT_OF_RANGE),
        (Value::Text("1"), PgType::INT8, SqlState::INVALID_TEXT_REPRESENTATION),
        (Value::Real(1.0), PgType::INT8, SqlState::INVALID_TEXT_REPRESENTATION),
        (Value::Integer(2), PgType::BOOL, SqlState::INVALID_TEXT_REPRESENTATION),
        (Value::Text("1"), PgType(600), SqlState::FEATURE_NOT_SUPPORTED),
    ] {
        assert_eq!(encoded(value, pg_type, Format::Binary).unwrap_err().state, state, "{value:?}");
    }
}

#[test]
fn text_parameters_are_read() {
    for (input, pg_type, expected) in [
        ("42", PgType::INT2, OwnedValue::Integer(42)),
        (" -7 ", PgType::INT4, OwnedValue::Integer(-7)),
        ("9223372036854775807", PgType::INT8, OwnedValue::Integer(i64::MAX)),
        ("t", PgType::BOOL, OwnedValue::Integer(1)),
        ("FALSE", PgType::BOOL, OwnedValue::Integer(0)),
        ("of", PgType::BOOL, OwnedValue::Integer(0)),
        ("1e3", PgType::FLOAT8, OwnedValue::Real(1000.0)),
        ("-Infinity", PgType::FLOAT8, OwnedValue::Real(f64::NEG_INFINITY)),
        ("0.5", PgType::FLOAT4, OwnedValue::Real(0.5)),
        ("\\x00fF", PgType::BYTEA, OwnedValue::Blob(vec![0, 255])),
        ("a\\\\b\\001", PgType::BYTEA, OwnedValue::Blob(b"a\\b\x01".to_vec())),
        ("12", PgType::UNSPECIFIED, OwnedValue::Text("12".into())),
        ("1.10", PgType::NUMERIC, OwnedValue::Real(1.1)),
        ("-3", PgType::NUMERIC, OwnedValue::Integer(-3)),
        ("12345678901234567890.5", PgType::NUMERIC, OwnedValue::Text("12345678901234567890.5".into())),
    ] {
        assert_eq!(decode(input.as_bytes(), pg_type, Format::Text).unwrap(), expected, "{input}");
    }
    assert!(matches!(decode(b"nan", PgType::FLOAT8, Format::Text), Ok(OwnedValue::Real(real)) if real.is_nan()));
}

#[test]
fn text_that_must_be_a_value_is_one() {
    let text = |text: &str| OwnedValue::Text(text.to_owned());
    for (input, pg_type, expected) in [
        (" 2024-02-29 ", PgType::DATE, text("2024-02-29")),
        ("2024-02-29 23:59:59", PgType::DATE, text("2024-02-29")),
        ("10:00", PgType::TIME, text("10:00:00")),
        ("2024-02-29", PgType::TIMESTAMP, text("2024-02-29 00:00:00")),
        ("2024-02-29T10:00:00+02:00", PgType::TIMESTAMPTZ, text("2024-02-29 08:00:00")),
        ("-infinity", PgType::TIMESTAMP, text("-infinity")),
        ("{A0EEBC999C0B4EF8BB6D6BB9BD380A11}", PgType::UUID, text("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11")),
        ("1.50", PgType::NUMERIC, OwnedValue::Real(1.5)),
        ("12345678901234567890.5", PgType::NUMERIC, text("12345678901234567890.5")),
        ("NaN", PgType::NUMERIC, text("NaN")),
        ("garbage", PgType::JSON, text("garbage")),
        ("7", PgType::INT8, OwnedValue::Integer(7)),
    ] {
        assert_eq!(OwnedValue::parse(input, pg_type), Ok(expected), "{input}");
    }
    for (input, pg_type, state) in [
        ("garbage", PgType::DATE, "22007"),
        ("2023-02-29", PgType::DATE, "22007"),
        ("infinity", PgType::DATE, "22007"),
        ("", PgType::TIMESTAMP, "22007"),
        ("25:00:00", PgType::TIME, "22007"),
        ("1700000000", PgType::TIMESTAMPTZ, "22007"),
        ("garbage", PgType::UUID, "22P02"),
        ("{a0eebc999c0b4ef8bb6d6bb9bd380a11", PgType::UUID, "22P02"),
        ("garbage", PgType::NUMERIC, "22P02"),
        ("", PgType::NUMERIC, "22P02"),
        ("garbage", PgType::BOOL, "22P02"),
        ("garbage", PgType::INT8, "22P02"),
    ] {
        assert_eq!(OwnedValue::parse(input, pg_type).unwrap_err().state.0, state, "{input}");
        let kept = OwnedValue::from_text(input, pg_type);
        let is_kept = !matches!(pg_type, PgType::BOOL | PgType::INT8);
        assert_eq!(kept.ok(), is_kept.then(|| text(input)), "{input}");
    }
}

#[test]
fn parameters_that_are_no_values_are_refused() {
    use Format::{Binary, Text};
    for (input, pg_type, format, state) in [
        (&b"x"[..], PgType::INT4, Text, SqlState::INVALID_TEXT_REPRESENTATION),
        (b"", PgType::INT4, Text, SqlState::INVALID_TEXT_REPRESENTATION),
        (b"40000", PgType::INT2, Text, SqlState::NUMERIC_VALUE_OUT_OF_RANGE),
        (b"99999999999999999999", PgType::INT8, Text, SqlState::NUMERIC_VALUE_OUT_OF_RANGE),
        (b"1e999", PgType::FLOAT8, Text, SqlState::NUMERIC_VALUE_OUT_OF_RANGE),
        (b"o", PgType::BOOL, Text, SqlState::INVALID_TEXT_REPRESENTATION),
        (b"\\x0", PgType::BYTEA, Text, SqlState::INVALID_TEXT_REPRESENTATION),
        (b"\\9", PgType::BYTEA, Text, SqlState::INVALID_TEXT_REPRESENTATION),
        (b"\xff", PgType::TEXT, Text, SqlState::CHARACTER_NOT_IN_REPERTOIRE),
        (b"\xff", PgType::TEXT, Binary, SqlState::CHARACTER_NOT_IN_REPERTOIRE),
        (b"123", PgType::INT4, Binary, SqlState::INVALID_BINARY_REPRESENTATION),
        (b"", PgType::BOOL, Binary, SqlState::INVALID_BINARY_REPRESENTATION),
        (b"1", PgType(600), Binary, SqlState::FEATURE_NOT_SUPPORTED),
    ] {
        assert_eq!(decode(input, pg_type, format).unwrap_err().state, state, "{input:?} {pg_type:?}");
    }
}

proptest! {
    #[test]
    fn integers_and_doubles_read_back_the_same(integer in any::<i64>(), real in any::<f64>()) {
        for format in [Format::Text, Format::Binary] {
            let bytes = encoded(Value::Integer(integer), PgType::INT8, format).unwrap();
            prop_assert_eq!(decode(&bytes, PgType::INT8, format).unwrap(), OwnedValue::Integer(integer));
            let bytes = encoded(Value::Real(real), PgType::FLOAT8, format).unwrap();
            let OwnedValue::Real(back) = decode(&bytes, PgType::FLOAT8, format).unwrap() else { panic!("not real") };
            prop_assert!(back == real || back.is_nan() && real.is_nan());
        }
    }

    #[test]
    fn bytes_read_back_the_same(blob in proptest::collection::vec(any::<u8>(), 0..64)) {
        for format in [Format::Text, Format::Binary] {
            let bytes = encoded(Value::Blob(&blob), PgType::BYTEA, format).unwrap();
            prop_assert_eq!(decode(&bytes, PgType::BYTEA, format).unwrap(), OwnedValue::Blob(blob.clone()));
        }
    }

    #[test]
    fn random_parameters_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..32), oid in 0..30_u32) {
        for format in [Format::Text, Format::Binary] {
            let others = [
                PgType::FLOAT4,
                PgType::FLOAT8,
                PgType::NUMERIC,
                PgType::DATE,
                PgType::TIME,
                PgType::TIMESTAMPTZ,
                PgType::UUID,
                PgType::JSONB,
            ];
            for pg_type in std::iter::once(PgType(oid)).chain(others) {
                let _ = decode(&bytes, pg_type, format);
            }
        }
    }
}
