use super::*;

fn words(sql: &str) -> String {
    rewrite(sql).unwrap_or_else(|| panic!("not of the catalogs: {sql}")).sql
}

#[test]
fn what_sqlite_does_not_have_becomes_calls() {
    for (sql, expected) in [
        (
            "SELECT 1 FROM pg_class c WHERE c.relname OPERATOR(pg_catalog.~) '^(c)$' COLLATE pg_catalog.default",
            "SELECT 1 AS \"?column?\" FROM pg_class c WHERE pg_regex(c.relname, '^(c)$')",
        ),
        (
            "SELECT nspname !~ '^pg_' FROM pg_catalog.pg_namespace",
            "SELECT NOT pg_regex(nspname, '^pg_') AS \"?column?\" FROM pg_catalog.pg_namespace",
        ),
        (
            "SELECT conrelid::pg_catalog.regclass AS ontable FROM pg_constraint",
            "SELECT regclass_out(regclass_in(conrelid)) AS ontable FROM pg_constraint",
        ),
        (
            "SELECT 1 a FROM pg_class WHERE oid = 't'::regclass AND oid::regclass::text = 't'",
            "SELECT 1 AS a FROM pg_class WHERE oid = regclass_in('t') AND regclass_out(regclass_in(oid)) = 't'",
        ),
        (
            "SELECT oid FROM pg_roles WHERE oid = any (ARRAY[1, 2]) AND E'\\n' <> ALL ('{}')",
            "SELECT oid FROM pg_roles WHERE pg_any(oid, pg_array(1, 2)) AND NOT pg_any('\n', '{}')",
        ),
        ("SELECT pg_catalog.version()", "SELECT version() AS \"version\""),
        (
            "SELECT trim(trailing ';' from rulename) AS r FROM pg_rewrite",
            "SELECT rtrim(rulename, ';') AS r FROM pg_rewrite",
        ),
        ("SELECT current_user", "SELECT current_user() AS \"current_user\""),
        (
            "SELECT now() - query_start AS runs FROM pg_stat_activity WHERE now() - query_start > interval '1 min'",
            "SELECT interval_out(timestamp_minus(now(), query_start)) AS runs FROM pg_stat_activity \
             WHERE timestamp_minus(now(), query_start) > interval_in('1 min')",
        ),
        (
            "SELECT 1 a FROM pg_catalog.generate_series(0, 2) AS s, unnest('{1}') WITH ORDINALITY AS u(x, n), pg_class",
            "SELECT 1 AS a FROM (SELECT CAST(value AS INTEGER) AS \"s\" FROM json_each(pg_series_json(0, 2))) AS \"s\", \
             (SELECT value AS \"x\", CAST(key + 1 AS INTEGER) AS \"n\" FROM json_each(pg_array_json('{1}'))) AS \"u\", pg_class",
        ),
        (
            "SELECT 1 a FROM pg_stat_activity WHERE query_start < now() - interval '1 hour' AND interval '2' DAY + now() > \
             query_start",
            "SELECT 1 AS a FROM pg_stat_activity WHERE query_start < timestamp_add(now(), -(interval_in('1 hour'))) AND \
             timestamp_add(now(), interval_in('2' || ' DAY')) > query_start",
        ),
        (
            "SELECT current_date, current_user FROM (VALUES (1, 2)) s(a, \"B\")",
            "SELECT pg_current_date() AS \"current_date\", current_user() AS \"current_user\" FROM \
             (WITH s (a, \"B\") AS (VALUES (1, 2)) SELECT * FROM s) s",
        ),
        (
            "SELECT ARRAY(SELECT rolname FROM pg_roles ORDER BY 1) AS a",
            "SELECT pg_array_or_empty((WITH pg_array_rows (element) AS (SELECT rolname FROM pg_roles ORDER BY 1) \
             SELECT array_agg(element) FROM pg_array_rows)) AS a",
        ),
    ] {
        assert_eq!(words(sql), expected, "{sql}");
    }
}

#[test]
fn only_queries_that_name_something_of_the_catalogs_are_taken() {
    for sql in [
        "SELECT 1",
        "SELECT * FROM t",
        "SELECT pg_backend_pid() FROM t",
        "SELECT 'pg_class'",
        "SELECT pg_nothing()",
        "INSERT INTO pg_class VALUES (1)",
        "SELECT 1 FROM pg_catalog.nothing",
        "SELECT 1 FROM pg_class; SELECT 1 FROM pg_class",
        "SELECT FROM WHERE pg_class",
    ] {
        assert!(rewrite(sql).is_none(), "{sql}");
    }
}

#[test]
fn types_of_columns_and_parameters_are_found() {
    let rewritten = rewrite(
        "SELECT NOT relispartition, count(*), format_type(1, 2), CASE WHEN true THEN oid END, relname || 'x', $3::int \
         FROM pg_class WHERE oid = $1 AND relname IN ($2)",
    )
    .unwrap();
    let types = rewritten.types.unwrap();
    let text = Some(PgType::TEXT);
    let (int8, oid) = (Some(PgType::INT8), Some(PgType::OID));
    assert_eq!(types, [Some(PgType::BOOL), int8, text, oid, text, int8]);
    let parameters: Vec<_> = rewritten.parameters.into_iter().collect();
    assert_eq!(parameters, [(1, PgType::OID), (2, PgType::NAME), (3, PgType::INT4)]);
    let all = rewrite("SELECT * FROM pg_class, generate_series(1, 2) g, generate_series(now(), now(), '1s'::interval)");
    let all = all.unwrap().types.unwrap();
    assert!(all.len() > 30 && all.iter().rev().skip(2).all(Option::is_none), "{all:?}");
    assert_eq!(all[all.len() - 2..], [int8, Some(PgType::TIMESTAMPTZ)]);
    assert_eq!(rewrite("SELECT * FROM pg_class JOIN pg_type USING (oid)").unwrap().types, None);
}

#[test]
fn only_what_needs_the_schema_asks_for_it() {
    for (sql, needs) in [
        ("SELECT * FROM pg_stat_activity", false),
        ("SELECT pg_backend_pid()", false),
        ("SELECT * FROM pg_class", true),
        ("SELECT 't'::regclass FROM pg_settings", true),
        ("SELECT pg_get_viewdef('v') FROM pg_settings", true),
    ] {
        assert_eq!(rewrite(sql).unwrap().needs_schema, needs, "{sql}");
    }
}

/// Half of the stack that the runtime gives the threads that sessions run on.
const STACK_BYTES: usize = 1024 * 1024;

#[test]
fn no_query_takes_more_stack_than_a_session_has() {
    let shapes = [
        ("SELECT 1", " IS NULL", " FROM pg_class"),
        ("SELECT 1", "+1", " FROM pg_class"),
        ("SELECT oid", "::text", " FROM pg_class"),
        ("SELECT oid", "::regclass", " FROM pg_class"),
        ("SELECT oid", "||oid", " FROM pg_class"),
        ("SELECT oid", " AND oid", " FROM pg_class"),
        ("SELECT oid", "[1]", " FROM pg_class"),
        ("SELECT oid", " COLLATE b", " FROM pg_class"),
        ("SELECT oid", " ~ oid", " FROM pg_class"),
        ("SELECT 1 FROM pg_class", " UNION SELECT 1", ""),
        ("SELECT 1 FROM pg_class", " JOIN pg_class", ""),
        ("SELECT ", "- ", "1 FROM pg_class"),
        ("SELECT ", "NOT ", "1 FROM pg_class"),
        ("SELECT ", "(", "1 FROM pg_class"),
        ("SELECT ", "ARRAY(SELECT ", "1 FROM pg_class"),
        ("SELECT 1 FROM ", "(SELECT 1 FROM ", "pg_class"),
    ];
    let rewrites = move || {
        for (head, part, tail) in shapes {
            let count = (STATEMENT_LIMIT_BYTES - head.len() - tail.len()) / part.len();
            rewrite(&format!("{head}{}{tail}", part.repeat(count)));
            rewrite(&format!("{head}{}{tail}", part.repeat(100 * count)));
        }
    };
    std::thread::Builder::new().stack_size(STACK_BYTES).spawn(rewrites).unwrap().join().unwrap();
}
