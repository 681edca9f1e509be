//! The functions that queries of the catalogs call, for SQLite: PostgreSQL's own, and those that stand for its operators,
//! casts and arrays after [`super::rewrite`].
//!
//! They answer from [`Facts`], collected before the query runs. What PostgreSQL would look up and does not exist here is
//! NULL, as PostgreSQL has it for objects that are gone.

use std::sync::Arc;
use std::time::SystemTime;

use mainstay::server::pg::catalog::model::{Database, Index, Role, Setting, Table};
use mainstay::server::pg::catalog::{self, Schema, definition, type_names};
use mainstay::server::pg::{PgType, timestamp};
use regex::{Regex, RegexBuilder};
use rusqlite::functions::{Aggregate, Context, FunctionFlags};
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, Error, Result};

use super::arrays;
use super::format;
use super::intervals;
use super::times;

/// PostgreSQL's number of the encoding that everything is in.
const UTF8_ENCODING: i64 = 6;
/// A pattern may become so large once it is compiled.
const REGEX_LIMIT_BYTES: usize = 1 << 20;

/// What functions answer from.
#[derive(Clone)]
pub(super) struct Facts {
    pub(super) schema: Arc<Schema>,
    pub(super) schema_name: String,
    pub(super) database: String,
    pub(super) user: String,
    pub(super) process_id: i32,
    pub(super) version: String,
    pub(super) roles: Arc<[Role]>,
    pub(super) databases: Vec<Database>,
    pub(super) settings: Vec<Setting>,
    pub(super) now: SystemTime,
}

/// A function.
pub(super) struct Known {
    name: &'static str,
    pub(super) returns: PgType,
    /// It answers from the schema.
    pub(super) asks_schema: bool,
    run: fn(&Arguments<'_>, &Facts) -> Result<Value>,
}

const fn plain(name: &'static str, returns: PgType, run: fn(&Arguments<'_>, &Facts) -> Result<Value>) -> Known {
    Known { name, returns, asks_schema: false, run }
}

const fn schema(name: &'static str, returns: PgType, run: fn(&Arguments<'_>, &Facts) -> Result<Value>) -> Known {
    Known { name, returns, asks_schema: true, run }
}

const BOOL: PgType = PgType::BOOL;
const INT8: PgType = PgType::INT8;
const TEXT: PgType = PgType::TEXT;

const FUNCTIONS: &[Known] = &[
    // Who and where.
    plain("version", TEXT, |_, facts| Ok(facts.version.clone().into())),
    plain("current_database", PgType::NAME, |_, facts| Ok(facts.database.clone().into())),
    plain("current_catalog", PgType::NAME, |_, facts| Ok(facts.database.clone().into())),
    plain("current_schema", PgType::NAME, |_, facts| Ok(facts.schema_name.clone().into())),
    plain("current_schemas", PgType::NAME_ARRAY, |_, facts| {
        Ok(arrays::array([Some(catalog::PG_CATALOG.to_owned()), Some(facts.schema_name.clone())]).into())
    }),
    plain("current_user", PgType::NAME, |_, facts| Ok(facts.user.clone().into())),
    plain("current_role", PgType::NAME, |_, facts| Ok(facts.user.clone().into())),
    plain("session_user", PgType::NAME, |_, facts| Ok(facts.user.clone().into())),
    plain("user", PgType::NAME, |_, facts| Ok(facts.user.clone().into())),
    plain("pg_backend_pid", PgType::INT4, |_, facts| Ok(i64::from(facts.process_id).into())),
    plain("current_setting", TEXT, current_setting),
    plain("now", PgType::TIMESTAMPTZ, |_, facts| Ok(timestamp(facts.now).into())),
    plain("transaction_timestamp", PgType::TIMESTAMPTZ, |_, facts| Ok(timestamp(facts.now).into())),
    plain("statement_timestamp", PgType::TIMESTAMPTZ, |_, facts| Ok(timestamp(facts.now).into())),
    plain("clock_timestamp", PgType::TIMESTAMPTZ, |_, _| Ok(timestamp(SystemTime::now()).into())),
    // Those whose names SQLite has for something that takes no parentheses.
    plain("pg_current_date", PgType::DATE, |_, facts| Ok(times::part_of_now(facts, 0..10))),
    plain("pg_current_time", PgType::TIME, |_, facts| Ok(times::part_of_now(facts, 11..26))),
    plain("localtimestamp", PgType::TIMESTAMP, |_, facts| Ok(times::part_of_now(facts, 0..26))),
    // Roles and databases.
    plain("pg_get_userbyid", PgType::NAME, |given, facts| {
        let Some(oid) = given.integer(0) else { return Ok(Value::Null) };
        let role = facts.roles.iter().find(|role| i64::from(role.oid) == oid);
        Ok(role.map_or_else(|| format!("unknown (OID={oid})"), |role| role.name.clone()).into())
    }),
    plain("pg_encoding_to_char", PgType::NAME, |_, _| Ok("UTF8".to_owned().into())),
    plain("pg_database_size", INT8, database_size),
    plain("getdatabaseencoding", PgType::NAME, |_, _| Ok("UTF8".to_owned().into())),
    plain("pg_char_to_encoding", PgType::INT4, |given, _| {
        let is_ours =
            given.text(0).is_some_and(|name| ["UTF8", "UTF-8"].iter().any(|own| own.eq_ignore_ascii_case(&name)));
        Ok(Value::Integer(if is_ours { UTF8_ENCODING } else { -1 }))
    }),
    plain("pg_tablespace_size", INT8, nothing),
    plain("pg_tablespace_location", TEXT, |_, _| Ok(String::new().into())),
    plain("pg_size_pretty", TEXT, |given, _| Ok(given.integer(0).map(size_pretty).into())),
    plain("has_table_privilege", BOOL, yes),
    plain("has_any_column_privilege", BOOL, yes),
    plain("has_column_privilege", BOOL, yes),
    plain("has_schema_privilege", BOOL, yes),
    plain("has_database_privilege", BOOL, yes),
    plain("has_sequence_privilege", BOOL, yes),
    plain("has_function_privilege", BOOL, yes),
    plain("pg_has_role", BOOL, yes),
    // Objects.
    plain("format_type", TEXT, |given, _| Ok(given.integer(0).and_then(oid).map(type_names::format_type).into())),
    plain("pg_get_expr", TEXT, |given, _| Ok(given.value(0))),
    schema("pg_get_indexdef", TEXT, |given, facts| {
        let column = given.integer(1).unwrap_or(0);
        let index = given.integer(0).and_then(oid);
        Ok(index.and_then(|oid| definition::index(&facts.schema, &facts.schema_name, oid, column)).into())
    }),
    schema("pg_get_constraintdef", TEXT, |given, facts| {
        Ok(given.integer(0).and_then(oid).and_then(|oid| definition::constraint(&facts.schema, oid)).into())
    }),
    schema("pg_get_viewdef", TEXT, |given, facts| {
        let view = regclass(given, facts)?.and_then(|oid| facts.schema.table(oid)).and_then(|table| table.view.clone());
        Ok(view.into())
    }),
    schema("pg_get_triggerdef", TEXT, |given, facts| {
        let trigger = given.integer(0).and_then(oid);
        let trigger = trigger.and_then(|oid| facts.schema.triggers.iter().find(|trigger| trigger.oid == oid));
        Ok(trigger.map(|trigger| trigger.definition.clone()).into())
    }),
    schema("pg_table_is_visible", BOOL, |given, facts| {
        let Some(oid) = given.integer(0).and_then(oid) else { return Ok(Value::Null) };
        // A temporary table hides another one of its name.
        let is_first = |name: &str| facts.schema.table_named(name).is_some_and(|table| table.oid == oid);
        let own = match facts.schema.table(oid) {
            Some(table) => is_first(&table.name),
            None => facts.schema.index(oid).is_some(),
        };
        let catalogs = || catalog::relations().any(|known| known.schema == catalog::PG_CATALOG && known.oid() == oid);
        Ok(Value::Integer(i64::from(own || catalogs())))
    }),
    plain("pg_type_is_visible", BOOL, yes),
    plain("pg_function_is_visible", BOOL, yes),
    plain("pg_collation_is_visible", BOOL, yes),
    plain("pg_opclass_is_visible", BOOL, yes),
    plain("pg_opfamily_is_visible", BOOL, yes),
    plain("pg_operator_is_visible", BOOL, yes),
    plain("pg_conversion_is_visible", BOOL, yes),
    plain("pg_statistics_obj_is_visible", BOOL, yes),
    plain("pg_ts_config_is_visible", BOOL, yes),
    plain("pg_ts_dict_is_visible", BOOL, yes),
    plain("pg_ts_parser_is_visible", BOOL, yes),
    plain("pg_ts_template_is_visible", BOOL, yes),
    plain("pg_relation_is_publishable", BOOL, |_, _| Ok(Value::Integer(0))),
    plain("pg_partition_ancestors", PgType::REGCLASS, |_, _| Ok(Value::Null)),
    plain("obj_description", TEXT, nothing),
    plain("col_description", TEXT, nothing),
    plain("shobj_description", TEXT, nothing),
    plain("pg_table_size", INT8, nothing),
    plain("pg_relation_size", INT8, nothing),
    plain("pg_indexes_size", INT8, nothing),
    plain("pg_total_relation_size", INT8, nothing),
    plain("pg_get_serial_sequence", TEXT, nothing),
    plain("pg_get_partkeydef", TEXT, nothing),
    plain("pg_get_ruledef", TEXT, nothing),
    plain("pg_get_functiondef", TEXT, nothing),
    plain("pg_get_function_result", TEXT, nothing),
    plain("pg_get_function_sqlbody", TEXT, nothing),
    plain("pg_get_function_arguments", TEXT, nothing),
    plain("pg_get_statisticsobjdef_columns", TEXT, nothing),
    plain("pg_is_in_recovery", BOOL, |_, _| Ok(Value::Integer(0))),
    // Names of objects and their identifiers.
    schema("regclass_in", PgType::REGCLASS, |given, facts| Ok(regclass(given, facts)?.map(i64::from).into())),
    schema("to_regclass", PgType::REGCLASS, |given, facts| {
        Ok(given.text(0).and_then(|name| find_class(&name, facts)).map(i64::from).into())
    }),
    schema("regclass_out", TEXT, |given, facts| Ok(given.integer(0).map(|oid| class_name(oid, facts)).into())),
    plain("regtype_in", PgType::REGTYPE, |given, _| {
        if given.is_number(0) {
            return Ok(given.value(0));
        }
        let Some(name) = given.text(0) else { return Ok(Value::Null) };
        find_type(&name).map(Value::Integer).ok_or_else(|| failed(format!("type \"{name}\" does not exist")))
    }),
    plain("regproc_in", PgType::REGPROC, |given, _| match given.text(0) {
        Some(name) if !given.is_number(0) => Err(failed(format!("function \"{name}\" does not exist"))),
        _ => Ok(given.value(0)),
    }),
    plain("to_regtype", PgType::REGTYPE, |given, _| Ok(given.text(0).and_then(|name| find_type(&name)).into())),
    plain("regtype_out", TEXT, |given, _| Ok(given.integer(0).and_then(oid).map(type_names::format_type).into())),
    plain("regnamespace_in", PgType::REGNAMESPACE, |given, facts| {
        if given.is_number(0) {
            return Ok(given.value(0));
        }
        let Some(name) = given.text(0) else { return Ok(Value::Null) };
        let found = schemas(facts).into_iter().find(|(_, known)| known.eq_ignore_ascii_case(&name));
        let (oid, _) = found.ok_or_else(|| failed(format!("schema \"{name}\" does not exist")))?;
        Ok(i64::from(oid).into())
    }),
    plain("regnamespace_out", TEXT, |given, facts| {
        let Some(oid) = given.integer(0) else { return Ok(Value::Null) };
        let found = schemas(facts).into_iter().find(|(known, _)| i64::from(*known) == oid);
        Ok(found.map_or_else(|| oid.to_string(), |(_, name)| name).into())
    }),
    plain("quote_ident", TEXT, |given, _| Ok(given.text(0).map(|name| definition::quote_ident(&name)).into())),
    plain("format", TEXT, |given, _| Ok(format::formatted(given)?.into())),
    plain("quote_literal", TEXT, |given, _| {
        Ok(given.text(0).map(|text| format!("'{}'", text.replace('\'', "''"))).into())
    }),
    // Operators and casts.
    plain("pg_regex", BOOL, |given, _| given.matches(false)),
    plain("pg_iregex", BOOL, |given, _| given.matches(true)),
    plain("pg_bool", BOOL, |given, _| {
        if given.is_number(0) {
            return Ok(given.integer(0).map(|number| i64::from(number != 0)).into());
        }
        let Some(text) = given.text(0) else { return Ok(Value::Null) };
        match text.trim().to_ascii_lowercase().as_str() {
            "t" | "true" | "y" | "yes" | "on" | "1" => Ok(Value::Integer(1)),
            "f" | "false" | "n" | "no" | "off" | "0" => Ok(Value::Integer(0)),
            _ => Err(failed(format!("invalid input syntax for type boolean: \"{text}\""))),
        }
    }),
    plain("pg_bool_out", TEXT, |given, _| {
        Ok(given.integer(0).map(|number| if number == 0 { "false" } else { "true" }.to_owned()).into())
    }),
    plain("age", PgType::INTERVAL, times::minus),
    plain("timestamp_minus", PgType::INTERVAL, times::minus),
    plain("timestamp_add", PgType::TIMESTAMPTZ, times::add),
    plain("timestamp_in", PgType::TIMESTAMPTZ, times::timestamp_in),
    plain("date_in", PgType::DATE, times::date_in),
    plain("interval_in", PgType::INTERVAL, |given, _| {
        let Some(text) = given.text(0) else { return Ok(Value::Null) };
        let seconds = intervals::parse(&text);
        seconds.map(Value::Real).ok_or_else(|| failed(format!("invalid input syntax for type interval: \"{text}\"")))
    }),
    plain("interval_out", TEXT, |given, _| Ok(given.real(0).map(intervals::write).into())),
    plain("pg_epoch", PgType::FLOAT8, |given, _| {
        if given.is_number(0) {
            return Ok(given.value(0));
        }
        Ok(given.text(0).and_then(|text| intervals::parse_timestamp(&text)).into())
    }),
    // Arrays.
    plain("pg_array", PgType::TEXT_ARRAY, |given, _| {
        Ok(arrays::array((0..given.len()).map(|index| given.text(index))).into())
    }),
    plain("pg_array_or_empty", PgType::TEXT_ARRAY, |given, _| {
        Ok(given.text(0).unwrap_or_else(|| "{}".to_owned()).into())
    }),
    plain("pg_any", BOOL, |given, _| {
        let (Some(value), Some(array)) = (given.text(0), given.text(1)) else { return Ok(Value::Null) };
        Ok(Value::Integer(i64::from(arrays::elements(&array).contains(&Some(value)))))
    }),
    plain("pg_array_get", TEXT, |given, _| {
        let (Some(array), Some(index)) = (given.text(0), given.integer(1)) else { return Ok(Value::Null) };
        // Vectors are counted from 0, arrays from 1.
        let index = if array.starts_with('{') { index - 1 } else { index };
        let elements = arrays::elements(&array);
        Ok(usize::try_from(index).ok().and_then(|index| elements.get(index).cloned()).flatten().into())
    }),
    plain("array_cat", PgType::TEXT_ARRAY, |given, _| match (given.text(0), given.text(1)) {
        (Some(one), Some(other)) => {
            let all = arrays::elements(&one).into_iter().chain(arrays::elements(&other));
            Ok(arrays::array(all).into())
        }
        (one, other) => Ok(one.or(other).into()),
    }),
    plain("array_remove", PgType::TEXT_ARRAY, |given, _| {
        let removed = given.text(1);
        let kept = |array: String| arrays::array(arrays::elements(&array).into_iter().filter(|one| *one != removed));
        Ok(given.text(0).map(kept).into())
    }),
    plain("pg_array_json", TEXT, |given, _| {
        Ok(given.text(0).map_or_else(|| "[]".to_owned(), |array| arrays::json(&arrays::elements(&array))).into())
    }),
    plain("pg_series_json", TEXT, |given, _| Ok(arrays::json(&times::series(given)?).into())),
    plain("pg_series", PgType::INT8_ARRAY, |given, _| Ok(arrays::array(times::series(given)?).into())),
    plain("pg_subscripts", PgType::TEXT_ARRAY, |given, _| {
        let Some(array) = given.text(0).filter(|_| given.integer(1) == Some(1)) else { return Ok(Value::Null) };
        // Vectors are counted from 0, arrays from 1.
        let first = usize::from(array.starts_with('{'));
        let count = arrays::elements(&array).len();
        Ok(arrays::array((first..first + count).map(|number| Some(number.to_string()))).into())
    }),
    plain("pg_rows_json", TEXT, |given, _| {
        let arrays: Vec<_> = (0..given.len())
            .map(|index| given.text(index).map(|array| arrays::elements(&array)).unwrap_or_default())
            .collect();
        let rows = arrays.iter().map(Vec::len).max().unwrap_or(0);
        let row = |row: usize| {
            let row: Vec<_> = arrays.iter().map(|array| array.get(row).cloned().flatten()).collect();
            arrays::json(&row)
        };
        Ok(format!("[{}]", (0..rows).map(row).collect::<Vec<_>>().join(",")).into())
    }),
    plain("array_to_string", TEXT, |given, _| {
        let (Some(array), Some(between)) = (given.text(0), given.text(1)) else { return Ok(Value::Null) };
        let null = given.text(2);
        let elements = arrays::elements(&array).into_iter().filter_map(|element| element.or_else(|| null.clone()));
        Ok(elements.collect::<Vec<_>>().join(&between).into())
    }),
    plain("array_length", INT8, array_length),
    plain("array_upper", INT8, array_length),
    plain("cardinality", INT8, array_length),
    plain("array_lower", INT8, |given, _| Ok(given.text(0).map(|_| 1).into())),
];

/// The function of that name, which is in lower case.
pub(super) fn find(name: &str) -> Option<&'static Known> {
    FUNCTIONS.iter().find(|known| known.name == name)
}

/// Gives a connection all functions.
///
/// # Errors
/// SQLite's.
pub(super) fn register(connection: &Connection, facts: Facts) -> Result<()> {
    let facts = Arc::new(facts);
    for known in FUNCTIONS {
        let facts = Arc::clone(&facts);
        connection.create_scalar_function(known.name, -1, FunctionFlags::SQLITE_UTF8, move |context| {
            (known.run)(&Arguments(context), &facts)
        })?;
    }
    connection.create_aggregate_function("array_agg", 1, FunctionFlags::SQLITE_UTF8, ArrayAggregate(text_of))?;
    connection.create_aggregate_function("pg_bool_array_agg", 1, FunctionFlags::SQLITE_UTF8, ArrayAggregate(truth_of))
}

/// What a function is called with.
pub(super) struct Arguments<'a>(&'a Context<'a>);

impl Arguments<'_> {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn raw(&self, index: usize) -> ValueRef<'_> {
        if index < self.0.len() { self.0.get_raw(index) } else { ValueRef::Null }
    }

    fn value(&self, index: usize) -> Value {
        Value::try_from(self.raw(index)).unwrap_or(Value::Null)
    }

    fn is_number(&self, index: usize) -> bool {
        matches!(self.raw(index), ValueRef::Integer(_) | ValueRef::Real(_))
    }

    /// The argument as text; `None` for NULL and for what is no text.
    pub(super) fn text(&self, index: usize) -> Option<String> {
        text_of(self.raw(index))
    }

    pub(super) fn integer(&self, index: usize) -> Option<i64> {
        match self.raw(index) {
            ValueRef::Integer(value) => Some(value),
            ValueRef::Text(text) => std::str::from_utf8(text).ok()?.trim().parse().ok(),
            _ => None,
        }
    }

    pub(super) fn real(&self, index: usize) -> Option<f64> {
        match self.raw(index) {
            ValueRef::Real(value) => Some(value),
            ValueRef::Integer(value) => Some(value as f64),
            _ => None,
        }
    }

    /// Whether the first argument matches the pattern that is the second.
    fn matches(&self, any_case: bool) -> Result<Value> {
        let (Some(text), Some(_)) = (self.text(0), self.text(1)) else { return Ok(Value::Null) };
        let pattern: Arc<Regex> = self.0.get_or_create_aux(1, |pattern| {
            let pattern = text_of(pattern).unwrap_or_default();
            let regex = RegexBuilder::new(&pattern).case_insensitive(any_case).size_limit(REGEX_LIMIT_BYTES).build();
            regex.map_err(|error| {
                let text = error.to_string();
                format!("invalid regular expression: {}", text.lines().last().unwrap_or_default())
            })
        })?;
        Ok(Value::Integer(i64::from(pattern.is_match(&text))))
    }
}

fn text_of(value: ValueRef<'_>) -> Option<String> {
    match value {
        ValueRef::Text(text) => std::str::from_utf8(text).ok().map(str::to_owned),
        ValueRef::Integer(value) => Some(value.to_string()),
        ValueRef::Real(value) => Some(value.to_string()),
        ValueRef::Null | ValueRef::Blob(_) => None,
    }
}

/// `array_agg`
struct ArrayAggregate(fn(ValueRef<'_>) -> Option<String>);

impl Aggregate<Vec<Option<String>>, Option<String>> for ArrayAggregate {
    fn init(&self, _: &mut Context<'_>) -> Result<Vec<Option<String>>> {
        Ok(Vec::new())
    }

    fn step(&self, context: &mut Context<'_>, elements: &mut Vec<Option<String>>) -> Result<()> {
        elements.push((self.0)(context.get_raw(0)));
        Ok(())
    }

    fn finalize(&self, _: &mut Context<'_>, elements: Option<Vec<Option<String>>>) -> Result<Option<String>> {
        Ok(elements.map(arrays::array))
    }
}

pub(super) fn failed(message: String) -> Error {
    Error::UserFunctionError(message.into())
}

/// A truth as an array has it.
fn truth_of(value: ValueRef<'_>) -> Option<String> {
    match value {
        ValueRef::Integer(number) => Some(if number == 0 { "f" } else { "t" }.to_owned()),
        _ => None,
    }
}

fn yes(_: &Arguments<'_>, _: &Facts) -> Result<Value> {
    Ok(Value::Integer(1))
}

fn nothing(_: &Arguments<'_>, _: &Facts) -> Result<Value> {
    Ok(Value::Null)
}

fn oid(number: i64) -> Option<u32> {
    u32::try_from(number).ok()
}

fn current_setting(given: &Arguments<'_>, facts: &Facts) -> Result<Value> {
    let Some(name) = given.text(0) else { return Ok(Value::Null) };
    let setting = facts.settings.iter().find(|setting| setting.name.eq_ignore_ascii_case(&name));
    match setting {
        Some(setting) => Ok(setting.value.clone().into()),
        None if given.integer(1) == Some(1) => Ok(Value::Null),
        None => Err(failed(format!("unrecognized configuration parameter \"{name}\""))),
    }
}

fn database_size(given: &Arguments<'_>, facts: &Facts) -> Result<Value> {
    let name = given.text(0);
    let is =
        |database: &&Database| Some(&database.name) == name.as_ref() || given.integer(0) == Some(database.oid.into());
    let size = facts.databases.iter().find(is).and_then(|database| database.size_bytes);
    Ok(size.and_then(|size| i64::try_from(size).ok()).into())
}

/// A size as PostgreSQL shows it.
fn size_pretty(bytes: i64) -> String {
    const LIMIT: i64 = 10 * 1024;
    let mut size = bytes;
    for unit in ["bytes", "kB", "MB", "GB"] {
        if size.abs() < LIMIT {
            return format!("{size} {unit}");
        }
        size = (size + size.signum() * 512) / 1024;
    }
    format!("{size} TB")
}

fn array_length(given: &Arguments<'_>, _: &Facts) -> Result<Value> {
    let length = given.text(0).map(|array| arrays::elements(&array).len()).filter(|length| *length > 0);
    Ok(length.and_then(|length| i64::try_from(length).ok()).into())
}

fn schemas(facts: &Facts) -> [(u32, String); 4] {
    [
        (catalog::PG_CATALOG_OID, catalog::PG_CATALOG.to_owned()),
        (catalog::OWN_SCHEMA_OID, facts.schema_name.clone()),
        (catalog::INFORMATION_SCHEMA_OID, catalog::INFORMATION_SCHEMA.to_owned()),
        (catalog::TEMPORARY_SCHEMA_OID, catalog::TEMPORARY_SCHEMA.to_owned()),
    ]
}

/// The relation that the first argument names or numbers.
fn regclass(given: &Arguments<'_>, facts: &Facts) -> Result<Option<u32>> {
    if let Some(number) = given.integer(0) {
        return Ok(oid(number));
    }
    let Some(name) = given.text(0) else { return Ok(None) };
    find_class(&name, facts).map(Some).ok_or_else(|| failed(format!("relation \"{name}\" does not exist")))
}

/// The relation of that name, with or without its schema.
fn find_class(name: &str, facts: &Facts) -> Option<u32> {
    let parts = super::super::lexer::tokens(name).filter_map(|token| token.name()).collect::<Vec<_>>();
    let (schema, name) = match parts.as_slice() {
        [name] => (None, name),
        [schema, name] => (Some(schema.as_str()), name),
        _ => return None,
    };
    let is_there = |temporary: bool| match schema {
        None => true,
        Some(schema) if temporary => schema.eq_ignore_ascii_case(catalog::TEMPORARY_SCHEMA),
        Some(schema) => schema.eq_ignore_ascii_case(&facts.schema_name),
    };
    let table = |table: &&Table| table.name.eq_ignore_ascii_case(name) && is_there(table.temporary);
    let table = facts.schema.tables.iter().find(table).map(|table| table.oid);
    let index =
        |index: &&Index| index.name.eq_ignore_ascii_case(name) && is_there(facts.schema.is_temporary(index.table));
    let index = || facts.schema.indexes.iter().find(index).map(|index| index.oid);
    table.or_else(index).or_else(|| catalog::find(schema, name).map(catalog::Relation::oid))
}

/// A relation as `regclass` shows it.
fn class_name(number: i64, facts: &Facts) -> String {
    let own = oid(number).and_then(|oid| {
        let table = facts.schema.table(oid).map(|table| table.name.as_str());
        table.or_else(|| facts.schema.index(oid).map(|index| index.name.as_str()))
    });
    let catalogs = || catalog::relations().find(|known| i64::from(known.oid()) == number);
    match own {
        Some(name) => definition::quote_ident(name),
        None => catalogs().map_or_else(|| number.to_string(), |known| known.name.to_owned()),
    }
}

fn find_type(name: &str) -> Option<i64> {
    let plain = name.trim().strip_prefix("pg_catalog.").unwrap_or(name.trim());
    type_names::named(plain).map(|known| i64::from(known.pg_type.0))
}
