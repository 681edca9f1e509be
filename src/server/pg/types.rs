//! Types, columns and values as they cross the seam to an engine.

use super::codec;
use super::error::SqlError;

/// A PostgreSQL type, by its object identifier (`pg_type.oid`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PgType(pub u32);

impl PgType {
    /// Not stated by the client: to be inferred.
    pub const UNSPECIFIED: PgType = PgType(0);
    /// `boolean`
    pub const BOOL: PgType = PgType(16);
    /// `bytea`
    pub const BYTEA: PgType = PgType(17);
    /// `bigint`
    pub const INT8: PgType = PgType(20);
    /// `smallint`
    pub const INT2: PgType = PgType(21);
    /// `integer`
    pub const INT4: PgType = PgType(23);
    /// `text`
    pub const TEXT: PgType = PgType(25);
    /// `real`
    pub const FLOAT4: PgType = PgType(700);
    /// `double precision`
    pub const FLOAT8: PgType = PgType(701);
    /// `unknown`, what PostgreSQL calls a literal without a type
    pub const UNKNOWN: PgType = PgType(705);
    /// `varchar`
    pub const VARCHAR: PgType = PgType(1043);
    /// `json`
    pub const JSON: PgType = PgType(114);
    /// `date`
    pub const DATE: PgType = PgType(1082);
    /// `time without time zone`
    pub const TIME: PgType = PgType(1083);
    /// `timestamp without time zone`
    pub const TIMESTAMP: PgType = PgType(1114);
    /// `timestamp with time zone`
    pub const TIMESTAMPTZ: PgType = PgType(1184);
    /// `uuid`
    pub const UUID: PgType = PgType(2950);
    /// `jsonb`
    pub const JSONB: PgType = PgType(3802);
    /// `numeric`
    pub const NUMERIC: PgType = PgType(1700);
    /// `"char"`, a single byte
    pub const CHAR: PgType = PgType(18);
    /// `name`, as the catalogs' objects are called
    pub const NAME: PgType = PgType(19);
    /// `int2vector`
    pub const INT2_VECTOR: PgType = PgType(22);
    /// `oid`, the identifier of an object in the catalogs
    pub const OID: PgType = PgType(26);
    /// `oidvector`
    pub const OID_VECTOR: PgType = PgType(30);
    /// `inet`
    pub const INET: PgType = PgType(869);
    /// `boolean[]`
    pub const BOOL_ARRAY: PgType = PgType(1000);
    /// `bigint[]`
    pub const INT8_ARRAY: PgType = PgType(1016);
    /// `"char"[]`
    pub const CHAR_ARRAY: PgType = PgType(1002);
    /// `name[]`
    pub const NAME_ARRAY: PgType = PgType(1003);
    /// `smallint[]`
    pub const INT2_ARRAY: PgType = PgType(1005);
    /// `text[]`
    pub const TEXT_ARRAY: PgType = PgType(1009);
    /// `oid[]`
    pub const OID_ARRAY: PgType = PgType(1028);
    /// `aclitem[]`
    pub const ACL_ARRAY: PgType = PgType(1034);
    /// `interval`
    pub const INTERVAL: PgType = PgType(1186);
    /// `regproc`, a function by its name
    pub const REGPROC: PgType = PgType(24);
    /// `regclass`, a relation by its name
    pub const REGCLASS: PgType = PgType(2205);
    /// `regtype`, a type by its name
    pub const REGTYPE: PgType = PgType(2206);
    /// `regnamespace`, a schema by its name
    pub const REGNAMESPACE: PgType = PgType(4089);
}

/// A column of a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// The type that its values are sent as.
    pub pg_type: PgType,
}

/// A value on its way to the client.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// NULL
    Null,
    /// An integer.
    Integer(i64),
    /// A floating point number.
    Real(f64),
    /// Text in UTF-8.
    Text(&'a str),
    /// Bytes.
    Blob(&'a [u8]),
}

/// A value that came from the client.
#[derive(Clone, Debug, PartialEq)]
pub enum OwnedValue {
    /// NULL
    Null,
    /// An integer, or a boolean as 0 or 1; a `numeric` without a fraction too, if it fits.
    Integer(i64),
    /// A floating point number, or another `numeric` of no more than 15 digits.
    Real(f64),
    /// Text, and every type that has no variant of its own, as text; a `numeric` that is none of the above.
    Text(String),
    /// Bytes.
    Blob(Vec<u8>),
}

impl OwnedValue {
    /// The value of a type that `text` stands for.
    ///
    /// # Errors
    /// 22P02 if it stands for none, 22003 for a number out of range.
    pub fn from_text(text: &str, pg_type: PgType) -> Result<OwnedValue, SqlError> {
        codec::decode_text(text, pg_type)
    }

    /// As [`from_text`](OwnedValue::from_text), which keeps what is no date, time, UUID or decimal number as the text that it is:
    /// here that is an error.
    ///
    /// # Errors
    /// As there, and 22007 for what is no date or time.
    pub fn parse(text: &str, pg_type: PgType) -> Result<OwnedValue, SqlError> {
        codec::parse_text(text, pg_type)
    }
}
