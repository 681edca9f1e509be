use super::*;

/// The statements that psql 15 sends for `\d` and its like, one after another, separated by lines of dashes.
const PSQL: &str = include_str!("psql.sql");

fn view(connection: &Connection) -> View {
    View {
        user: "postgres".into(),
        database: "postgres".into(),
        version: "PostgreSQL 15".into(),
        process_id: 7,
        databases: vec![Database { oid: 5, name: "postgres".into(), size_bytes: Some(8192) }],
        roles: Arc::new([Role { oid: 10, name: "postgres".into(), superuser: true, can_login: true }]),
        settings: vec![Setting { name: "timezone".into(), value: "UTC".into(), meaning: "".into(), settable: false }],
        activity: Vec::new(),
        schema: Arc::new(read_schema(connection).unwrap()),
    }
}

fn database() -> Connection {
    let connection = Connection::open_in_memory().unwrap();
    connection
        .execute_batch(
            "CREATE TABLE p (id INTEGER PRIMARY KEY, \"N n\" TEXT NOT NULL DEFAULT 'x', g INT AS (id + 1) STORED);
             CREATE TABLE c (id INT PRIMARY KEY, p INT REFERENCES p ON DELETE CASCADE, u TEXT UNIQUE, CHECK (id > 0));
             CREATE INDEX ci ON c (p DESC, lower(u)) WHERE p > 1;
             CREATE VIEW v AS SELECT id, \"N n\" AS n FROM p;
             CREATE TABLE w (a TEXT, b TEXT, PRIMARY KEY (b, a)) WITHOUT ROWID;
             CREATE TRIGGER t AFTER INSERT ON p BEGIN SELECT 1; END;
             CREATE TABLE gone (a); CREATE VIEW broken AS SELECT a FROM gone; DROP TABLE gone;
             CREATE TABLE mainstay_state (one);
             CREATE TABLE auto (id INTEGER PRIMARY KEY AUTOINCREMENT);",
        )
        .unwrap();
    connection
}

/// The rows of a query, values as text with bars between.
fn rows(connection: &Connection, sql: &str) -> Vec<String> {
    rows_with(connection, sql, &[])
}

fn rows_with(connection: &Connection, sql: &str, parameters: &[OwnedValue]) -> Vec<String> {
    let query = understand(sql).unwrap_or_else(|| panic!("not of the catalogs: {sql}"));
    let view = view(connection);
    let loaded = query.load(&view, None).unwrap();
    let mut statement = loaded.prepare(&query.0.sql).unwrap_or_else(|error| panic!("{error}: {}", query.0.sql));
    values::bind(&mut statement, &query.0.sql, parameters).unwrap();
    let columns = statement.column_count();
    let mut rows = statement.raw_query();
    let mut all = Vec::new();
    while let Some(row) = rows.next().unwrap_or_else(|error| panic!("{error}: {sql}")) {
        let text = |index| match row.get_ref(index).unwrap() {
            rusqlite::types::ValueRef::Null => String::new(),
            rusqlite::types::ValueRef::Integer(value) => value.to_string(),
            rusqlite::types::ValueRef::Real(value) => value.to_string(),
            rusqlite::types::ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
            rusqlite::types::ValueRef::Blob(_) => panic!("a blob"),
        };
        all.push((0..columns).map(text).collect::<Vec<_>>().join("|"));
    }
    all
}

#[test]
fn everything_that_psql_sends_is_understood() {
    let connection = database();
    let statements: Vec<&str> = PSQL.split("----").map(str::trim).filter(|sql| !sql.is_empty()).collect();
    assert!(statements.len() > 60, "{}", statements.len());
    for sql in statements {
        rows(&connection, sql);
        let query = understand(sql).unwrap();
        query.describe(&view(&connection), None, &[]).unwrap_or_else(|error| panic!("{error}: {sql}"));
    }
}

#[test]
fn tables_and_their_parts_are_told() {
    let connection = database();
    assert_eq!(
        rows(
            &connection,
            "SELECT relname, relkind FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
             WHERE nspname = 'main' ORDER BY relkind, relname"
        ),
        [
            "auto_pkey|i",
            "c_pkey|i",
            "c_u_key|i",
            "ci|i",
            "p_pkey|i",
            "w_pkey|i",
            "auto|r",
            "c|r",
            "p|r",
            "w|r",
            "broken|v",
            "v|v"
        ]
    );
    assert_eq!(
        rows(
            &connection,
            "SELECT attname, format_type(atttypid, atttypmod), attnotnull, \
             (SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef WHERE adrelid = attrelid AND adnum = attnum), attgenerated \
             FROM pg_attribute WHERE attrelid = 'p'::regclass ORDER BY attnum"
        ),
        ["id|bigint|1||", "N n|text|1|'x'|", "g|bigint|0|id + 1|s"]
    );
    // A key that is no rowid takes no NULL either.
    assert_eq!(
        rows(
            &connection,
            "SELECT attname, attnotnull FROM pg_attribute WHERE attrelid = 'c'::regclass ORDER BY attnum"
        ),
        ["id|1", "p|0", "u|0"]
    );
    assert_eq!(
        rows(
            &connection,
            "SELECT conname, contype, pg_get_constraintdef(oid), conrelid::regclass, conkey FROM pg_constraint ORDER BY 4, 2, 1"
        ),
        [
            "auto_pkey|p|PRIMARY KEY (id)|auto|{1}",
            "c_check|c|CHECK (id > 0)|c|",
            "c_p_fkey|f|FOREIGN KEY (p) REFERENCES p(id) ON DELETE CASCADE|c|{2}",
            "c_pkey|p|PRIMARY KEY (id)|c|{1}",
            "c_u_key|u|UNIQUE (u)|c|{3}",
            "p_pkey|p|PRIMARY KEY (id)|p|{1}",
            "w_pkey|p|PRIMARY KEY (b, a)|w|{2,1}",
        ]
    );
    assert_eq!(
        rows(&connection, "SELECT pg_get_indexdef('ci'::regclass), pg_get_viewdef('main.v'), pg_table_is_visible('v'::regclass)"),
        ["CREATE INDEX ci ON main.c USING btree (p DESC, (lower(u)) DESC) WHERE p > 1| SELECT id, \"N n\" AS n FROM p;|1"]
            .map(|row| row.replace("(lower(u)) DESC", "(lower(u))"))
    );
    assert_eq!(
        rows(&connection, "SELECT 'main.p'::regclass, 'int4'::regtype, 'c'::regclass::oid > 0"),
        ["p|integer|1"]
    );
    assert_eq!(rows(&connection, "SELECT tgname, tgrelid::regclass FROM pg_trigger"), ["t|p"]);
}

#[test]
fn the_standard_views_are_there() {
    let connection = database();
    assert_eq!(
        rows(
            &connection,
            "SELECT column_name, data_type, is_nullable FROM information_schema.columns \
             WHERE table_schema = current_schema() AND table_name = 'v' ORDER BY ordinal_position"
        ),
        ["id|bigint|YES", "n|text|YES"]
    );
    assert_eq!(
        rows(
            &connection,
            "SELECT k.column_name FROM information_schema.table_constraints t \
             JOIN information_schema.key_column_usage k USING (constraint_schema, constraint_name) \
             WHERE t.table_name = 'w' AND t.constraint_type = 'PRIMARY KEY' ORDER BY k.ordinal_position"
        ),
        ["b", "a"]
    );
    assert_eq!(
        rows(
            &connection,
            "SELECT constraint_name, unique_constraint_name, delete_rule FROM information_schema.referential_constraints"
        ),
        ["c_p_fkey|p_pkey|CASCADE"]
    );
}

#[test]
fn parameters_and_arrays_work() {
    let connection = database();
    let name = [OwnedValue::Text("p".into())];
    assert_eq!(rows_with(&connection, "SELECT relname FROM pg_class WHERE relname = $1", &name), ["p"]);
    let described = understand("SELECT oid, relname, relhasindex FROM pg_class WHERE oid = $1")
        .unwrap()
        .describe(&view(&connection), None, &[PgType::UNSPECIFIED])
        .unwrap();
    assert_eq!(described.parameters, [PgType::OID]);
    let types: Vec<_> = described.columns.iter().map(|column| column.pg_type).collect();
    assert_eq!(types, [PgType::OID, PgType::NAME, PgType::BOOL]);
    assert_eq!(
        rows(
            &connection,
            "SELECT ARRAY(SELECT nspname FROM pg_namespace WHERE oid = any('{11,2200}') ORDER BY 1 DESC), array_to_string(ARRAY['a', NULL, 'b'], '-')"
        ),
        ["{pg_catalog,main}|a-b"]
    );
    assert_eq!(rows(&connection, "SELECT ARRAY(SELECT 1 FROM pg_policy)"), ["{}"]);
    assert_eq!(
        rows(
            &connection,
            "SELECT a.x, a.n FROM unnest('{q,\"r s\"}'::text[]) WITH ORDINALITY AS a(x, n), pg_am WHERE amname = 'heap'"
        ),
        ["q|1", "r s|2"]
    );
    assert_eq!(
        rows(&connection, "SELECT s FROM pg_catalog.generate_series(2, 4) s, pg_am WHERE amname LIKE 'h%'"),
        ["2", "3", "4"]
    );
}

#[test]
fn times_are_moved_by_intervals_and_compared() {
    let connection = database();
    for (sql, expected) in [
        (
            "SELECT now() > now() - interval '1 hour', now() + '1 day'::interval < now(), '1s'::interval + now() > now()",
            "1|0|1",
        ),
        ("SELECT '2026-03-01T00:30:00+01'::timestamptz - interval '1 day'", "2026-02-27 23:30:00.000000+00"),
        ("SELECT now() - interval '3000 weeks' < '1970-01-01 00:00'::timestamptz", "1"),
        (
            "SELECT interval '1' hour + interval '30 minutes', interval '1 min' * 3, now() - now()",
            "01:30:00|00:03:00|00:00:00",
        ),
        (
            "SELECT now()::date = current_date, length(localtimestamp), age(now(), now() - interval '1 day')",
            "1|26|1 day 00:00:00",
        ),
        ("SELECT 1 WHERE now() >= current_date", "1"),
    ] {
        assert_eq!(rows(&connection, sql), [expected], "{sql}");
    }
    let described = understand("SELECT now() - interval '1 day' AS t, current_date d, now() - now() i").unwrap();
    let described = described.describe(&view(&connection), None, &[]).unwrap();
    let types: Vec<_> = described.columns.iter().map(|column| column.pg_type).collect();
    // Intervals leave as they are shown.
    assert_eq!(types, [PgType::TIMESTAMPTZ, PgType::DATE, PgType::TEXT]);
    let fails = |sql: &str| {
        let query = understand(sql).unwrap();
        let loaded = query.load(&view(&connection), None).unwrap();
        let mut statement = loaded.prepare(&query.0.sql).unwrap();
        statement.raw_query().next().map(drop).unwrap_err().to_string()
    };
    assert!(fails("SELECT 'soon'::timestamptz, now()").contains("invalid input syntax"));
    assert!(fails("SELECT now() + interval '1000000 weeks'").contains("out of range"));
}

#[test]
fn relations_have_numbers_and_names_are_formatted() {
    let connection = database();
    for (sql, expected) in [
        ("SELECT c.tableoid::regclass, tableoid = c.tableoid FROM pg_class c WHERE relname = 'ci'", "pg_class|1"),
        (
            "SELECT tableoid = 'pg_am'::regclass, (SELECT t.tableoid::regclass FROM pg_type t LIMIT 1) FROM pg_am LIMIT 1",
            "1|pg_type",
        ),
        (
            "SELECT format('%I.%I = %L%%', 'a b', 'c', 'it''s'), format('%s', NULL), pg_backend_pid()",
            "\"a b\".c = 'it''s'%||7",
        ),
        ("SELECT pg_char_to_encoding(getdatabaseencoding())", "6"),
        (
            "SELECT s.n FROM pg_am, LATERAL (SELECT count(*) AS n FROM pg_partition_tree(1) p WHERE p.isleaf) s LIMIT 1",
            "0",
        ),
    ] {
        assert_eq!(rows(&connection, sql), [expected], "{sql}");
    }
    let query = understand("SELECT tableoid FROM pg_class").unwrap();
    let columns = query.describe(&view(&connection), None, &[]).unwrap().columns;
    assert_eq!(columns[0].name, "tableoid");
}

#[test]
fn series_go_up_and_down_in_steps() {
    let connection = database();
    for (sql, expected) in [
        ("SELECT * FROM generate_series(1, 3)", &["1", "2", "3"][..]),
        ("SELECT g + 1 FROM generate_series(1, 10, 4) AS g", &["2", "6", "10"]),
        ("SELECT n FROM generate_series(5, 1, -2) AS g(n)", &["5", "3", "1"]),
        ("SELECT generate_series(1, 4, 2)", &["1", "3"]),
        ("SELECT * FROM generate_series(1, 2, -1)", &[]),
        ("SELECT * FROM generate_series(5, 4, 2)", &[]),
        ("SELECT * FROM generate_series(1, NULL)", &[]),
        (
            "SELECT * FROM generate_series(9223372036854775806, 9223372036854775807)",
            &["9223372036854775806", "9223372036854775807"],
        ),
        (
            "SELECT t::date FROM generate_series('2026-02-28'::date, '2026-03-02'::date, interval '1 day') t",
            &["2026-02-28", "2026-03-01", "2026-03-02"],
        ),
        ("SELECT a, b FROM (VALUES (1, 'x'), (2, 'y')) s(a, b), pg_am WHERE amname = 'heap'", &["1|x", "2|y"]),
        ("SELECT u FROM unnest('{a,b}'::text[]) u", &["a", "b"]),
        (
            "SELECT name AS \"Column\", pg_catalog.format_type(tp, tpm) AS \"Type\" FROM (VALUES ('a', '20'::pg_catalog.oid, -1), \
             ('b', '25'::pg_catalog.oid, -1)) s(name, tp, tpm)",
            &["a|bigint", "b|text"],
        ),
    ] {
        assert_eq!(rows(&connection, sql), expected, "{sql}");
    }
    let described =
        understand("SELECT * FROM generate_series(1, 3) g").unwrap().describe(&view(&connection), None, &[]);
    let columns = described.unwrap().columns;
    assert_eq!((columns.len(), columns[0].name.as_str(), columns[0].pg_type), (1, "g", PgType::INT8));
    for sql in [
        "SELECT * FROM generate_series(1, 2, 0)",
        "SELECT * FROM generate_series(1, 2000000)",
        "SELECT * FROM generate_series('a', 'b', 1)",
    ] {
        let query = understand(sql).unwrap();
        let loaded = query.load(&view(&connection), None).unwrap();
        assert!(loaded.prepare(&query.0.sql).unwrap().raw_query().next().is_err(), "{sql}");
    }
}

#[test]
fn a_query_can_do_nothing_but_read_what_is_there() {
    let connection = database();
    let refused = |sql: &str| {
        let query = understand(sql).unwrap();
        let loaded = query.load(&view(&connection), None).unwrap();
        loaded.prepare(&query.0.sql).unwrap_err()
    };
    let error = refused("SELECT * FROM pg_class JOIN c ON true");
    assert_eq!((error.state, error.hint.is_some()), (SqlState::UNDEFINED_TABLE, true));
    assert_eq!(refused("SELECT nope FROM pg_class").state, SqlState::UNDEFINED_COLUMN);
    assert_eq!(refused("SELECT nope(1) FROM pg_class").state, SqlState::UNDEFINED_FUNCTION);
    let loaded = understand("SELECT 1 FROM pg_class").unwrap().load(&view(&connection), None).unwrap();
    for sql in ["ATTACH 'x' AS x", "DELETE FROM pg_class", "PRAGMA page_size", "CREATE TABLE t (a)"] {
        assert!(loaded.prepare(sql).is_err(), "{sql}");
    }
}
