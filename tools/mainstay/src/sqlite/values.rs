//! Values, parameters and columns between PostgreSQL's protocol and SQLite.

use std::num::NonZero;

use mainstay::server::pg::{Column, OwnedValue, PgType, ResultSink, SqlError, SqlState, Value};
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, Statement, ToSql};

use super::errors::from_sqlite;
use super::{infer, lexer};

/// As many parameters as the protocol can carry.
const MAX_PARAMETERS: usize = 65_535;

/// Which of the client's parameters (from 1) each of SQLite's is, in SQLite's order.
///
/// SQLite numbers parameters by their first appearance, so `$2` may be its first: the name says which one is meant. A
/// plain `?` has no name and is the one at its own position.
///
/// # Errors
/// A parameter has a name instead of a number, or both kinds of numbers are used: SQLite would take `?1` for whatever
/// `$…` came first.
pub(super) fn parameter_numbers(statement: &Statement<'_>, sql: &str) -> Result<Vec<usize>, SqlError> {
    let dollar = |index: usize| statement.parameter_name(index).is_some_and(|name| name.starts_with('$'));
    let mixed = sql.contains('?')
        && (1..=statement.parameter_count()).any(dollar)
        && lexer::tokens(sql).any(|token| token.kind == lexer::Kind::Symbol('?'));
    if mixed {
        let message = "parameters are written either as $1 or as ?1 in one statement, not both";
        return Err(SqlError::new(SqlState::UNDEFINED_PARAMETER, message));
    }
    (1..=statement.parameter_count()).map(|index| parameter_number(statement, index)).collect()
}

fn parameter_number(statement: &Statement<'_>, index: usize) -> Result<usize, SqlError> {
    let Some(name) = statement.parameter_name(index) else { return Ok(index) };
    let number = name.strip_prefix(['$', '?']).and_then(|digits| digits.parse::<NonZero<usize>>().ok());
    number.map(NonZero::get).filter(|number| *number <= MAX_PARAMETERS).ok_or_else(|| {
        let message = format!("there is no parameter {name}");
        SqlError::new(SqlState::UNDEFINED_PARAMETER, message).with_hint("Parameters are written $1, $2, …")
    })
}

/// Binds the client's parameters.
///
/// # Errors
/// One is missing, or is not valid here.
pub(super) fn bind(statement: &mut Statement<'_>, sql: &str, parameters: &[OwnedValue]) -> Result<(), SqlError> {
    for (position, number) in parameter_numbers(statement, sql)?.into_iter().enumerate() {
        let value = parameters
            .get(number - 1)
            .ok_or_else(|| SqlError::new(SqlState::UNDEFINED_PARAMETER, format!("there is no parameter ${number}")))?;
        let stored = ToSqlOutput::Borrowed(storable(value)?);
        statement.raw_bind_parameter(position + 1, stored).map_err(|error| from_sqlite(&error))?;
    }
    Ok(())
}

/// A value of the client on its way into SQLite.
pub(super) struct Parameter<'a>(pub(super) &'a OwnedValue);

impl ToSql for Parameter<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(as_stored(self.0)))
    }
}

/// A value in SQLite's words.
pub(super) fn as_stored(value: &OwnedValue) -> ValueRef<'_> {
    match value {
        OwnedValue::Null => ValueRef::Null,
        OwnedValue::Integer(value) => ValueRef::Integer(*value),
        OwnedValue::Real(value) => ValueRef::Real(*value),
        OwnedValue::Text(value) => ValueRef::Text(value.as_bytes()),
        OwnedValue::Blob(value) => ValueRef::Blob(value),
    }
}

/// A client's value in SQLite's words.
///
/// # Errors
/// 0A000: it is NaN, of which SQLite would make NULL.
pub(super) fn storable(value: &OwnedValue) -> Result<ValueRef<'_>, SqlError> {
    match value {
        OwnedValue::Real(real) if real.is_nan() => {
            let message = "NaN is not supported: SQLite has no such value";
            Err(SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, message))
        }
        other => Ok(as_stored(other)),
    }
}

/// The columns of a statement's rows, as they are announced to the client; empty if it returns none.
pub(super) fn columns(connection: &Connection, statement: &Statement<'_>, sql: &str) -> Vec<Column> {
    let mut inferred: Option<Vec<Option<PgType>>> = None;
    let count = statement.column_count();
    if count > 0 && lexer::tokens(sql).next().is_some_and(|token| token.is("ALTER")) {
        // What SQLite makes of it looks for rows that do not comply.
        return Vec::new();
    }
    let mut columns = Vec::with_capacity(count);
    for (position, (column, origin)) in statement.columns().zip(statement.columns_with_metadata()).enumerate() {
        // Only a column of a table has a declared type; the rest is an expression.
        let declared = origin.origin_name().and(column.decl_type()).map(declared_type);
        let pg_type = declared.unwrap_or_else(|| {
            let types = inferred.get_or_insert_with(|| infer::expression_types(connection, sql, count));
            types.get(position).copied().flatten().unwrap_or(PgType::TEXT)
        });
        columns.push(Column { name: column.name().to_owned(), pg_type });
    }
    columns
}

/// The type that values of a column of this declared type are sent as. SQLite keeps to it by affinity only, and to dates,
/// UUIDs and JSON not at all: they are text to it.
pub(super) fn declared_type(declared: &str) -> PgType {
    let declared = declared.to_ascii_lowercase();
    let has = |part: &str| declared.contains(part);
    if declared.starts_with("bool") {
        PgType::BOOL
    } else if has("int") && !has("point") && !has("interval") {
        PgType::INT8
    } else if has("real") || has("floa") || has("doub") {
        PgType::FLOAT8
    } else if has("blob") || declared == "bytea" {
        PgType::BYTEA
    } else {
        other_type(&declared)
    }
}

fn other_type(declared: &str) -> PgType {
    let name = declared.split('(').next().unwrap_or_default().trim();
    match name {
        "numeric" | "decimal" => PgType::NUMERIC,
        "date" => PgType::DATE,
        "time" | "time without time zone" => PgType::TIME,
        "datetime" => PgType::TIMESTAMP,
        "timestamptz" => PgType::TIMESTAMPTZ,
        // timestamp(3) with time zone
        "timestamp" | "timestamp with time zone" | "timestamp without time zone" => {
            if declared.ends_with("with time zone") { PgType::TIMESTAMPTZ } else { PgType::TIMESTAMP }
        }
        "uuid" => PgType::UUID,
        "json" | "jsonb" => PgType::JSON,
        _ => PgType::TEXT,
    }
}

/// Whether a column may be a view's own, of which SQLite knows no more than how it would compare it.
pub(super) fn is_undeclared(declared: &str) -> bool {
    ["", "ANY", "NUM"].contains(&declared)
}

/// The type of a parameter that is cast to a type of this name: PostgreSQL takes it as what it is cast to.
pub(super) fn parameter_type(name: &str) -> PgType {
    let types = [
        ("int2", PgType::INT2),
        ("int4", PgType::INT4),
        ("int8", PgType::INT8),
        ("float4", PgType::FLOAT4),
        ("float8", PgType::FLOAT8),
        ("boolean", PgType::BOOL),
        ("blob", PgType::BYTEA),
        ("varchar", PgType::VARCHAR),
    ];
    let known = types.iter().find(|(known, _)| name.eq_ignore_ascii_case(known)).map(|(_, pg_type)| *pg_type);
    known.unwrap_or_else(|| declared_type(name))
}

/// Runs a statement whose parameters are bound, to its end, and sends its rows; answers how many.
///
/// # Errors
/// The statement failed, with what `told` makes of it, or the client is gone.
pub(super) fn run(
    statement: &mut Statement<'_>,
    columns: &[Column],
    sink: &mut dyn ResultSink,
    told: impl Fn(&rusqlite::Error) -> SqlError,
) -> Result<u64, SqlError> {
    if !columns.is_empty() {
        sink.columns(columns)?;
    }
    let mut count = 0;
    let mut rows = statement.raw_query();
    while let Some(row) = rows.next().map_err(|error| told(&error))? {
        if columns.is_empty() {
            continue;
        }
        let mut values = Vec::with_capacity(columns.len());
        for position in 0..columns.len() {
            values.push(to_client(row.get_ref(position).map_err(|error| from_sqlite(&error))?)?);
        }
        sink.row(&values)?;
        count += 1;
    }
    Ok(count)
}

fn to_client(value: ValueRef<'_>) -> Result<Value<'_>, SqlError> {
    Ok(match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(value) => Value::Integer(value),
        ValueRef::Real(value) => Value::Real(value),
        ValueRef::Text(bytes) => Value::Text(
            std::str::from_utf8(bytes)
                .map_err(|_| SqlError::new(SqlState::CHARACTER_NOT_IN_REPERTOIRE, "stored text is not valid UTF-8"))?,
        ),
        ValueRef::Blob(bytes) => Value::Blob(bytes),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_go_by_their_numbers() {
        let connection = Connection::open_in_memory().unwrap();
        let sql = "SELECT $2, $1, $2 || $1";
        let mut statement = connection.prepare(sql).unwrap();
        bind(&mut statement, sql, &[OwnedValue::Text("a".into()), OwnedValue::Integer(5)]).unwrap();
        let mut rows = statement.raw_query();
        let row = rows.next().unwrap().unwrap();
        let got: (i64, String, String) = (row.get(0).unwrap(), row.get(1).unwrap(), row.get(2).unwrap());
        assert_eq!(got, (5, "a".into(), "5a".into()));
    }

    #[test]
    fn parameters_without_a_number_or_value_are_refused() {
        let connection = Connection::open_in_memory().unwrap();
        for sql in ["SELECT :a", "SELECT $a", "SELECT $0", "SELECT $1", "SELECT $2, ?1", "SELECT $99999999"] {
            let mut statement = connection.prepare(sql).unwrap();
            assert_eq!(bind(&mut statement, sql, &[]).unwrap_err().state, SqlState::UNDEFINED_PARAMETER, "{sql}");
        }
    }

    #[test]
    fn no_number_is_refused_and_infinity_is_one() {
        let connection = Connection::open_in_memory().unwrap();
        let sql = "SELECT typeof($1)";
        let mut statement = connection.prepare(sql).unwrap();
        let refused = bind(&mut statement, sql, &[OwnedValue::Real(f64::NAN)]).unwrap_err();
        assert_eq!(refused.state, SqlState::FEATURE_NOT_SUPPORTED);
        bind(&mut statement, sql, &[OwnedValue::Real(f64::NEG_INFINITY)]).unwrap();
        let mut rows = statement.raw_query();
        assert_eq!(rows.next().unwrap().unwrap().get::<_, String>(0).unwrap(), "real");
    }

    #[test]
    fn dates_numbers_and_the_like_are_told_by_their_names() {
        for (declared, pg_type) in [
            ("DATE", PgType::DATE),
            ("TIMESTAMP WITHOUT TIME ZONE", PgType::TIMESTAMP),
            ("timestamp(3) with time zone", PgType::TIMESTAMPTZ),
            ("timestamptz(0)", PgType::TIMESTAMPTZ),
            ("datetime", PgType::TIMESTAMP),
            ("Decimal(10, 2)", PgType::NUMERIC),
            ("uuid", PgType::UUID),
            ("jsonb", PgType::JSON),
            ("character varying(3)", PgType::TEXT),
            ("interval", PgType::TEXT),
            ("", PgType::TEXT),
        ] {
            assert_eq!(declared_type(declared), pg_type, "{declared}");
        }
    }

    #[test]
    fn columns_have_the_types_they_declare() {
        let connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch(
                "CREATE TABLE t (a INTEGER, b BOOLEAN, c DOUBLE PRECISION, d BYTEA, e NUMERIC(4,2), f, g POINT)",
            )
            .unwrap();
        let sql = "SELECT *, count(*), a + 1, 'x' FROM t";
        let types: Vec<_> =
            columns(&connection, &connection.prepare(sql).unwrap(), sql).iter().map(|column| column.pg_type).collect();
        let text = PgType::TEXT;
        let numeric = PgType::NUMERIC;
        assert_eq!(types[..7], [PgType::INT8, PgType::BOOL, PgType::FLOAT8, PgType::BYTEA, numeric, text, text]);
        let sql = "SELECT count(*), 1, 2.5, 'x', length(f) FROM t";
        let types: Vec<_> =
            columns(&connection, &connection.prepare(sql).unwrap(), sql).iter().map(|column| column.pg_type).collect();
        assert_eq!(types, [PgType::INT8, PgType::INT8, PgType::FLOAT8, text, PgType::INT8]);
    }
}
