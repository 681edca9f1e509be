//! What the fuzzer runs on bytes of its choosing, see `fuzz/`. Each target states what must hold for any input; ordinary
//! tests run them on the committed corpora.

use bytes::BytesMut;

use super::codec::{self, Format};
use super::copy::{CopyDecoder, CopyEncoder, CopyFormat};
use super::error::{SqlError, SqlState};
use super::frame::{self, Frame, Kind};
use super::message::{self, Message};
use super::types::{Column, OwnedValue, PgType, Value};

/// Small, so that inputs of a few bytes reach it.
const LIMIT_BYTES: usize = 512;
const TYPES: [PgType; 19] = [
    PgType::UNSPECIFIED,
    PgType::BOOL,
    PgType::BYTEA,
    PgType::INT8,
    PgType::INT2,
    PgType::INT4,
    PgType::TEXT,
    PgType::FLOAT4,
    PgType::FLOAT8,
    PgType::UNKNOWN,
    PgType::VARCHAR,
    PgType::NUMERIC,
    PgType::DATE,
    PgType::TIME,
    PgType::TIMESTAMP,
    PgType::TIMESTAMPTZ,
    PgType::UUID,
    PgType::JSON,
    PgType::JSONB,
];

/// What a client sends: `control | bytes`. The lowest bit of `control` says whether it begins with a startup packet, the
/// others in pieces of how many bytes it comes.
pub fn messages(data: &[u8]) {
    let Some((control, bytes)) = data.split_first() else { return };
    let mut rest = BytesMut::from(bytes);
    if control & 1 == 1 {
        match frame::take_startup(&mut rest) {
            Ok(Some(body)) => {
                assert!(body.len() <= frame::STARTUP_LIMIT_BYTES);
                let _ = message::read_startup(body);
            }
            Ok(None) => return,
            Err(error) => return assert_eq!(error.severity, super::Severity::Fatal),
        }
    }
    let whole = frames(&rest, usize::MAX);
    for frame in whole.0.iter().cloned() {
        let kind = frame.kind;
        if kind == Kind::CopyFail {
            let _ = message::copy_failure(frame.clone());
        }
        match message::read(frame) {
            Ok(Message::Bind(bind)) => read_parameters(&bind),
            Ok(Message::Copy) => assert!(matches!(kind, Kind::CopyData | Kind::CopyDone | Kind::CopyFail)),
            _ => {}
        }
    }
    let piece = usize::from(control >> 1).max(1);
    assert_eq!(frames(&rest, piece), whole, "however the bytes are cut, they mean the same");
}

/// What the bytes, when they come in pieces, are cut into, and whether something that is no frame ends it.
fn frames(bytes: &[u8], piece: usize) -> (Vec<Frame>, bool) {
    let (mut input, mut frames) = (BytesMut::new(), Vec::new());
    for piece in bytes.chunks(piece) {
        input.extend_from_slice(piece);
        loop {
            let is_decided = frame::is_decided(&input, LIMIT_BYTES);
            let batch = frame::take_batch(&mut input, LIMIT_BYTES);
            assert_eq!(is_decided, !batch.is_empty());
            let is_empty = batch.frames.is_empty();
            frames.extend(batch.frames);
            if batch.fault.is_some() {
                return (frames, true);
            }
            if is_empty {
                break;
            }
        }
    }
    (frames, false)
}

fn read_parameters(bind: &message::Bind) {
    for (index, bytes) in bind.parameters.iter().enumerate() {
        let format = Format::of_item(&bind.parameter_formats, index);
        let (Some(bytes), Ok(format)) = (bytes, format) else { continue };
        for pg_type in TYPES {
            let _ = codec::decode(bytes, pg_type, format);
        }
    }
}

/// A value: `type | format | bytes`. What is read can be written, and is then read as the same.
pub fn values(data: &[u8]) {
    let Some(([pg_type, format], bytes)) = data.split_first_chunk() else { return };
    let pg_type = TYPES[usize::from(*pg_type) % TYPES.len()];
    let format = if format & 1 == 0 { Format::Text } else { Format::Binary };
    let Ok(value) = codec::decode(bytes, pg_type, format) else { return };
    for format in [Format::Text, Format::Binary] {
        let mut out = BytesMut::new();
        if let Err(error) = codec::encode(borrowed(&value), pg_type, format, &mut out) {
            // Only binary is refused: as a whole type, or of a text that is kept though it is no value of the type.
            let refused = codec::check_format(pg_type, format).err();
            let is_kept_text =
                matches!(value, OwnedValue::Text(_)) && error.state == SqlState::INVALID_TEXT_REPRESENTATION;
            assert!(format == Format::Binary && (refused.as_ref() == Some(&error) || is_kept_text), "{error}");
            continue;
        }
        let (length, bytes) = out.split_at(4);
        assert_eq!(length, (bytes.len() as u32).to_be_bytes());
        let again = codec::decode(bytes, pg_type, format);
        match (&value, &again) {
            (OwnedValue::Real(real), Ok(OwnedValue::Real(again))) if real.is_nan() => assert!(again.is_nan()),
            _ => assert_eq!(again.as_ref(), Ok(&value), "{pg_type:?} {format:?}"),
        }
    }
}

fn borrowed(value: &OwnedValue) -> Value<'_> {
    match value {
        OwnedValue::Null => Value::Null,
        OwnedValue::Integer(integer) => Value::Integer(*integer),
        OwnedValue::Real(real) => Value::Real(*real),
        OwnedValue::Text(text) => Value::Text(text),
        OwnedValue::Blob(bytes) => Value::Blob(bytes),
    }
}

/// The data of a COPY: `control | columns | piece | delimiter | quote | escape | bytes`. The bits of `control` say which
/// format it is, whether it has a header, and whether the next three bytes count.
pub fn copy(data: &[u8]) {
    let Some(([control, columns, piece, delimiter, quote, escape], data)) = data.split_first_chunk() else { return };
    let usual = if control & 1 == 0 { CopyFormat::text() } else { CopyFormat::csv() };
    let usual = CopyFormat { header: control & 2 == 2, ..usual };
    let is_usual = control & 4 == 0;
    let own = CopyFormat { delimiter: *delimiter, quote: *quote, escape: *escape, ..usual.clone() };
    let format = if is_usual { usual } else { own };
    if format.validate().is_err() {
        return;
    }
    let columns = usize::from(columns % 4) + 1;
    let whole = rows(&format, columns, data, usize::MAX);
    let pieces = rows(&format, columns, data, usize::from(*piece).max(1));
    assert_eq!(pieces, whole, "however the data is cut, it means the same");
    if is_usual && whole.1.is_none() {
        let written = write_rows(&format, columns, &whole.0);
        assert_eq!(rows(&format, columns, &written, usize::MAX), whole, "what was written is read as the same");
    }
}

type Rows = Vec<Vec<Option<String>>>;

/// The rows of `data`, which comes in pieces, and why there are no more.
fn rows(format: &CopyFormat, columns: usize, data: &[u8], piece: usize) -> (Rows, Option<SqlError>) {
    let names = (0..columns).map(|column| format!("c{column}")).collect();
    let mut decoder = CopyDecoder::new(format.clone(), "t", names);
    let mut rows = Rows::new();
    let mut take = |decoder: &mut CopyDecoder| {
        while let Some(row) = decoder.next_row()? {
            let fields = (0..columns).map(|column| Ok(row.field(column)?.map(str::to_owned)));
            rows.push(fields.collect::<Result<Vec<_>, SqlError>>()?);
        }
        Ok(())
    };
    let mut taken = Ok(());
    for piece in data.chunks(piece) {
        decoder.push(piece);
        taken = taken.and_then(|()| take(&mut decoder));
    }
    decoder.finish();
    let fault = taken.and_then(|()| take(&mut decoder)).err();
    (rows, fault)
}

fn write_rows(format: &CopyFormat, columns: usize, rows: &Rows) -> Vec<u8> {
    let columns: Vec<_> =
        (0..columns).map(|column| Column { name: format!("c{column}"), pg_type: PgType::TEXT }).collect();
    let mut encoder = CopyEncoder::new(format.clone(), &columns);
    let mut written = encoder.header(&columns).unwrap_or_default().to_vec();
    for row in rows {
        let values: Vec<_> = row.iter().map(|field| field.as_deref().map_or(Value::Null, Value::Text)).collect();
        match encoder.row(&values) {
            Ok(line) => written.extend_from_slice(line),
            Err(error) => unreachable!("text fits a column of text: {error}"),
        }
    }
    written
}
