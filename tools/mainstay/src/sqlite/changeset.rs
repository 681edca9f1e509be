//! The bytes of a changeset, as SQLite's session extension has them. Nobody else writes these bytes; SQLite reads and applies
//! them ([`super::apply`]).
//!
//! ```text
//!  a changeset: tables, each followed by its changes
//!
//!  table
//!  +--------+--------------+-----------------------------------+----------+
//!  | 'T' u8 | columns      | place in the primary key, from 1, | name,    |
//!  |        | varint       | or 0: one u8 for each column      | UTF-8, 0 |
//!  +--------+--------------+-----------------------------------+----------+
//!
//!  change
//!  +----------------------+-------------+--------------------------+-----------------------+
//!  | operation u8         | indirect u8 | old values, by columns   | new values            |
//!  |  18 INSERT           | 0: by the   |                          | all                   |
//!  |   9 DELETE           | statement   | all                      |                       |
//!  |  23 UPDATE           | 1: by a     | the key, and those       | those that changed;   |
//!  |                      | trigger     | that changed             | the key never does    |
//!  +----------------------+-------------+--------------------------+-----------------------+
//!
//!  value: kind u8 | body
//!   0 left out         in an UPDATE
//!   1 integer          i64, the highest byte first
//!   2 floating point   the bits of an f64, the highest byte first
//!   3 text, 4 blob     length varint | bytes
//!   5 NULL
//! ```
//!
//! A varint has seven bits in a byte, the highest first, all but the last with the top bit set. A table without a declared key
//! has its rowid for a first column, which is the key.

use rusqlite::types::ValueRef;

const TABLE: u8 = b'T';

const LEFT_OUT: u8 = 0;
const INTEGER: u8 = 1;
const REAL: u8 = 2;
const TEXT: u8 = 3;
const BLOB: u8 = 4;
const NULL: u8 = 5;

/// What is done to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Operation {
    Delete = 9,
    Insert = 18,
    Update = 23,
}

/// Who does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum By {
    Statement = 0,
    /// Or the action of a foreign key.
    Trigger = 1,
}

/// The table that changes follow of; `keys` are the places of its columns in the primary key.
pub(super) fn table(name: &str, keys: &[u8]) -> Vec<u8> {
    let mut out = vec![TABLE];
    put_varint(&mut out, keys.len());
    out.extend_from_slice(keys);
    out.extend_from_slice(name.as_bytes());
    out.push(0);
    out
}

/// A change begins.
pub(super) fn put_change(out: &mut Vec<u8>, operation: Operation, by: By) {
    out.extend_from_slice(&[operation as u8, by as u8]);
}

/// The next value of a change.
pub(super) fn put_value(out: &mut Vec<u8>, value: ValueRef<'_>) {
    match value {
        ValueRef::Null => out.push(NULL),
        ValueRef::Integer(value) => {
            out.push(INTEGER);
            out.extend_from_slice(&value.to_be_bytes());
        }
        ValueRef::Real(value) => {
            out.push(REAL);
            out.extend_from_slice(&value.to_be_bytes());
        }
        ValueRef::Text(text) => put_bytes(out, TEXT, text),
        ValueRef::Blob(bytes) => put_bytes(out, BLOB, bytes),
    }
}

/// In the place of a value that an UPDATE says nothing of.
pub(super) fn leave_out(out: &mut Vec<u8>) {
    out.push(LEFT_OUT);
}

fn put_bytes(out: &mut Vec<u8>, kind: u8, bytes: &[u8]) {
    out.push(kind);
    put_varint(out, bytes.len());
    out.extend_from_slice(bytes);
}

fn put_varint(out: &mut Vec<u8>, number: usize) {
    let bits = usize::BITS - number.leading_zeros();
    for group in (1..bits.div_ceil(7)).rev() {
        out.push(0x80 | ((number >> (7 * group)) & 0x7F) as u8);
    }
    out.push((number & 0x7F) as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::Connection;
    use rusqlite::session::Session;

    fn sample() -> Vec<u8> {
        let mut out = table("tß", &[2, 0, 1]);
        put_change(&mut out, Operation::Insert, By::Statement);
        put_value(&mut out, ValueRef::Text(b"ab"));
        put_value(&mut out, ValueRef::Null);
        put_value(&mut out, ValueRef::Integer(-2));
        put_change(&mut out, Operation::Update, By::Trigger);
        put_value(&mut out, ValueRef::Text(b""));
        put_value(&mut out, ValueRef::Real(1.5));
        put_value(&mut out, ValueRef::Integer(1));
        leave_out(&mut out);
        put_value(&mut out, ValueRef::Blob(&[0, 255]));
        leave_out(&mut out);
        put_change(&mut out, Operation::Delete, By::Statement);
        out
    }

    #[test]
    fn golden_bytes() {
        let golden: &[&[u8]] = &[
            &[b'T', 3, 2, 0, 1, b't', 0xC3, 0x9F, 0],
            &[18, 0, 3, 2, b'a', b'b', 5, 1, 255, 255, 255, 255, 255, 255, 255, 254],
            &[23, 1, 3, 0, 2, 0x3F, 0xF8, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1],
            &[0, 4, 2, 0, 255, 0],
            &[9, 0],
        ];
        assert_eq!(sample(), golden.concat());
    }

    #[test]
    fn lengths_take_as_few_bytes_as_they_can() {
        for (number, bytes) in [
            (0, &[0_u8][..]),
            (127, &[127]),
            (128, &[0x81, 0]),
            (20_000, &[0x81, 0x9C, 0x20]),
            (1 << 30, &[0x84, 0x80, 0x80, 0x80, 0]),
        ] {
            let mut out = Vec::new();
            put_varint(&mut out, number);
            assert_eq!(out, bytes, "{number}");
        }
    }

    /// What the extension itself writes.
    fn of_session(before: &str, sql: &str) -> Vec<u8> {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(before).unwrap();
        let mut session = Session::new(&connection).unwrap();
        session.attach(None::<&str>).unwrap();
        connection.execute_batch(sql).unwrap();
        let mut out = Vec::new();
        session.changeset_strm(&mut out).unwrap();
        out
    }

    #[test]
    fn it_is_what_sqlites_session_writes() {
        let schema = "CREATE TABLE \"tß\" (a TEXT, b, c INT, PRIMARY KEY (c, a))";
        let long = "x".repeat(20_000);
        let mut expected = table("tß", &[2, 0, 1]);
        put_change(&mut expected, Operation::Insert, By::Statement);
        put_value(&mut expected, ValueRef::Text(long.as_bytes()));
        put_value(&mut expected, ValueRef::Real(-1.5));
        put_value(&mut expected, ValueRef::Integer(7));
        assert_eq!(of_session(schema, &format!("INSERT INTO \"tß\" VALUES ('{long}', -1.5, 7)")), expected);

        let filled = format!("{schema}; INSERT INTO \"tß\" VALUES ('k', 1, 2)");
        let mut expected = table("tß", &[2, 0, 1]);
        put_change(&mut expected, Operation::Update, By::Statement);
        put_value(&mut expected, ValueRef::Text(b"k"));
        put_value(&mut expected, ValueRef::Integer(1));
        put_value(&mut expected, ValueRef::Integer(2));
        leave_out(&mut expected);
        put_value(&mut expected, ValueRef::Null);
        leave_out(&mut expected);
        assert_eq!(of_session(&filled, "UPDATE \"tß\" SET b = NULL"), expected);

        let trigger = "CREATE TABLE u (a); CREATE TRIGGER g AFTER INSERT ON u BEGIN DELETE FROM \"tß\"; END";
        let mut expected = table("tß", &[2, 0, 1]);
        put_change(&mut expected, Operation::Delete, By::Trigger);
        put_value(&mut expected, ValueRef::Text(b"k"));
        put_value(&mut expected, ValueRef::Integer(1));
        put_value(&mut expected, ValueRef::Integer(2));
        assert_eq!(of_session(&format!("{filled}; {trigger}"), "INSERT INTO u VALUES (1)"), expected);
    }
}
