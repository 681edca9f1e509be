//! What a PostgreSQL user writes without thinking: the time, casts, settings, constraints; and that it replays.

use mainstay::server::pg::PgType;

use super::test_support::{Client, Database};

fn with(sql: &str) -> (Database, Client) {
    let database = Database::new();
    let mut client = database.session();
    client.ok(sql);
    (database, client)
}

#[test]
fn the_time_is_told_in_every_statement_and_stays_what_it_was() {
    let (database, mut client) = with(
        "CREATE TABLE ev (id INTEGER PRIMARY KEY, at timestamptz DEFAULT now() NOT NULL, day date DEFAULT now()::date,
                          u uuid DEFAULT gen_random_uuid(), local timestamp DEFAULT LOCALTIMESTAMP,
                          hour timestamp GENERATED ALWAYS AS (date_trunc('hour', at)) STORED, CHECK (floor(id) > 0));
         CREATE INDEX days ON ev (date_trunc('day', at));
         CREATE VIEW latest AS SELECT * FROM ev WHERE at >= now()",
    );
    client.ok("INSERT INTO ev (id) VALUES (1)");
    client.ok("INSERT INTO ev (id, at) VALUES (2, now()), (3, transaction_timestamp()), (4, pg_catalog.now())");
    client.ok("BEGIN; UPDATE ev SET at = statement_timestamp() WHERE id = 4 RETURNING now(); COMMIT");
    client.ok("CREATE TABLE copied AS SELECT id, now() AS at, at::date AS day FROM ev");
    client.ok("ALTER TABLE copied ADD CHECK (id::int >= 1)");
    let sane = "SELECT count(*) FROM ev WHERE at <= now() AND at > '2026' AND day = at::date AND local <= now() \
                AND hour = date_trunc('hour', at)";
    assert_eq!(client.rows(sane), [["4"]]);
    assert_eq!(client.fails("INSERT INTO copied (id) VALUES (0)"), "23514");
    assert_eq!(client.fails("INSERT INTO ev (id) VALUES (0)"), "23514");
    for sql in ["CREATE TABLE x (w timestamptz DEFAULT now)", "CREATE TABLE x (w text DEFAULT current_user)"] {
        assert_eq!(client.fails(sql), "0A000", "{sql}");
    }
    let replayed = database.assert_replays();
    let mut client = replayed.session();
    assert_eq!(client.rows(sane), [["4"]]);
    assert_eq!(client.rows("SELECT count(DISTINCT u) FROM ev"), [["4"]]);
}

#[test]
fn the_user_is_named_unless_a_column_is_called_so() {
    let (database, mut client) =
        with("CREATE TABLE t (id INTEGER PRIMARY KEY, u TEXT); CREATE TABLE c (current_user TEXT)");
    client.ok("INSERT INTO t (u) VALUES (current_user), (SESSION_USER); INSERT INTO c (current_user) VALUES ('me')");
    assert_eq!(client.rows("SELECT count(*) FROM t WHERE u = current_user AND u = 'postgres'"), [["2"]]);
    assert_eq!(client.rows("SELECT current_user FROM c"), [["me"]]);
    client.ok("BEGIN; CREATE TABLE v (u TEXT); INSERT INTO v VALUES (current_user); COMMIT");
    assert_eq!(client.rows("SELECT u FROM v"), [["postgres"]]);
    assert_eq!(client.rows("SELECT current_user"), [["postgres"]]);
    database.assert_replays();
}

#[test]
fn casts_have_the_types_that_they_are_to() {
    let (_database, mut client) = with(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, ts timestamptz, u uuid, b boolean);
         INSERT INTO t VALUES (1, '2026-01-01 10:00:00', '00112233-4455-6677-8899-aabbccddeeff', true),
                              (2, '2026-01-01 11:30:00', NULL, false), (3, '2026-01-02 00:00:00', NULL, NULL)",
    );
    assert_eq!(
        client.rows("SELECT ts::date, count(*) FROM t GROUP BY ts::date ORDER BY 1"),
        [["2026-01-01", "2"], ["2026-01-02", "1"]]
    );
    let seen = client.with(
        "SELECT CAST(ts AS date), ts::time, ts::timestamp, '2026-01-01'::timestamptz, cast(u AS uuid), '1'::bool, '{}'::jsonb,
                id::int, '1.5'::float8, floor(1.5), greatest(id, 2), date_trunc('day', ts), left('ab', 1) FROM t WHERE id = 1",
        &[],
    );
    let types: Vec<PgType> = seen.columns.iter().map(|column| column.pg_type).collect();
    let (moment, zoned) = (PgType::TIMESTAMP, PgType::TIMESTAMPTZ);
    assert_eq!(types[..6], [PgType::DATE, PgType::TIME, moment, zoned, PgType::UUID, PgType::BOOL]);
    assert_eq!(types[6..11], [PgType::JSON, PgType::INT8, PgType::FLOAT8, PgType::FLOAT8, PgType::INT8]);
    assert_eq!(types[11..], [zoned, PgType::TEXT]);
    let day = "2026-01-01 00:00:00";
    let uuid = "00112233-4455-6677-8899-aabbccddeeff";
    let expected =
        ["2026-01-01", "10:00:00", "2026-01-01 10:00:00", day, uuid, "1", "{}", "1", "1.5", "1.0", "2", day, "a"];
    assert_eq!(seen.rows, [expected]);
    for (sql, state) in [
        ("SELECT 'garbage'::bool", "22P02"),
        ("SELECT 'abc'::int FROM t", "22P02"),
        ("INSERT INTO t (id) VALUES ('99999999999'::int)", "22003"),
        ("UPDATE t SET ts = CAST('yesterday' AS timestamp)", "22007"),
        ("SELECT CAST('x' AS uuid)", "22P02"),
    ] {
        assert_eq!(client.fails(sql), state, "{sql}");
    }
    let described = client.0.describe("SELECT * FROM t WHERE ts >= $1::date AND u = $2::uuid", &[]).unwrap();
    assert_eq!(described.parameters, [PgType::DATE, PgType::UUID]);
}

#[test]
fn tables_of_rows_keep_the_types_of_their_columns() {
    let (database, mut client) = with(
        "CREATE TABLE t (id bigint, b boolean, d date, n numeric(10, 2), ts timestamptz, u uuid, s text, f real);
         INSERT INTO t VALUES (1, true, '2026-01-01', 1.5, '2026-01-01 00:00:00', NULL, '007', 2)",
    );
    let types = |client: &mut Client, table: &str| -> Vec<PgType> {
        let seen = client.with(&format!("SELECT * FROM {table}"), &[]);
        seen.columns.iter().map(|column| column.pg_type).collect()
    };
    let expected = types(&mut client, "t");
    client.ok("CREATE TABLE u AS SELECT * FROM t");
    assert_eq!(types(&mut client, "u"), expected);
    assert_eq!(client.rows("SELECT * FROM u"), client.rows("SELECT * FROM t"));
    client.ok("DROP TABLE u");
    client.ok("CREATE TABLE w AS SELECT count(*) AS n, id > 0 AS p, max(s) AS s, ts::date AS d FROM t");
    assert_eq!(types(&mut client, "w"), [PgType::INT8, PgType::BOOL, PgType::TEXT, PgType::DATE]);
    assert_eq!(client.rows("SELECT n, p, s, d FROM w"), [["1", "1", "007", "2026-01-01"]]);
    client.ok("DROP TABLE w");
    client.ok("CREATE TABLE kept AS SELECT b, n, s FROM t");
    database.assert_replays();
}

#[test]
fn constraints_are_added_and_nothing_is_returned() {
    let (database, mut client) = with("CREATE TABLE t (a INT, b INT); INSERT INTO t VALUES (1, 2)");
    for sql in [
        "ALTER TABLE t ADD CONSTRAINT positive CHECK (a > 0)",
        "ALTER TABLE t ADD CHECK (b > a)",
        "ALTER TABLE t ALTER COLUMN a SET NOT NULL",
    ] {
        assert!(client.0.describe(sql, &[]).unwrap().columns.is_empty(), "{sql}");
        let seen = client.with(sql, &[]);
        assert!(seen.columns.is_empty() && seen.rows.is_empty(), "{sql}: {seen:?}");
    }
    assert_eq!(client.fails("INSERT INTO t VALUES (0, 1)"), "23514");
    assert_eq!(client.fails("INSERT INTO t VALUES (1, 1)"), "23514");
    assert_eq!(client.fails("INSERT INTO t VALUES (NULL, 1)"), "23502");
    assert!(client.run("ALTER TABLE t ADD CHECK (a > 1)").is_err());
    client.ok("ALTER TABLE t DROP CONSTRAINT positive");
    database.assert_replays();
}

#[test]
fn what_has_no_effect_is_named() {
    let (_database, mut client) = with("SELECT 1");
    for (sql, notice) in [
        ("SET work_mem = '4MB'", "setting \"work_mem\" has no effect here"),
        ("SET ROLE postgres", "SET ROLE has no effect here"),
        ("SET CONSTRAINTS ALL DEFERRED", "SET CONSTRAINTS has no effect here"),
        ("DISCARD PLANS", "DISCARD PLANS has no effect here"),
    ] {
        assert_eq!(client.with(sql, &[]).notices[0].message, notice);
    }
    let seen = client.with("CREATE TABLE t (id INTEGER PRIMARY KEY, n serial)", &[]);
    assert!(seen.notices[0].message.contains("does not count"), "{seen:?}");
    assert!(client.with("CREATE TABLE u (id serial primary key)", &[]).notices.is_empty());
}

#[test]
fn a_client_names_itself_and_transactions_take_that_back() {
    let (_database, mut client) = with("SELECT 1");
    let told =
        |client: &mut Client| client.0.changed_settings().into_iter().map(|(_, value)| value).collect::<Vec<_>>();
    let shown = |client: &mut Client| client.rows("SHOW application_name")[0][0].clone();
    client.ok("SET application_name = 'one'");
    assert_eq!((told(&mut client), shown(&mut client)), (vec!["one".to_owned()], "one".to_owned()));
    assert_eq!(told(&mut client), Vec::<String>::new());
    client.ok("BEGIN; SET application_name TO two");
    assert_eq!(told(&mut client), ["two"]);
    client.ok("ROLLBACK");
    assert_eq!(told(&mut client), ["one"]);
    client.ok("BEGIN; SET LOCAL application_name = 'three'");
    assert_eq!(shown(&mut client), "three");
    client.ok("COMMIT");
    assert_eq!((told(&mut client), shown(&mut client)), (Vec::new(), "one".to_owned()));
    client.ok("BEGIN; SAVEPOINT s; SET application_name = 'four'; ROLLBACK TO s; COMMIT");
    assert_eq!(shown(&mut client), "one");
    client.ok(&format!("SET application_name = '{}'", "é".repeat(40)));
    assert_eq!(shown(&mut client), "é".repeat(31));
    client.ok("RESET application_name");
    assert_eq!(shown(&mut client), "");
}

#[test]
fn usual_settings_are_shown() {
    let (_database, mut client) = with("SELECT 1");
    assert_eq!(client.rows("SHOW server_version_num"), [["150000"]]);
    assert_eq!(client.rows("SELECT current_setting('server_version_num')::int / 10000"), [["15"]]);
    let all = client.rows("SHOW ALL");
    let names: Vec<&str> = all.iter().map(|row| row[0].as_str()).collect();
    for name in ["application_name", "max_connections", "server_version", "timezone", "search_path"] {
        assert!(names.contains(&name), "{names:?}");
    }
    assert!(names.is_sorted(), "{names:?}");
    assert_eq!(client.0.describe("SHOW ALL", &[]).unwrap().columns.len(), 3);
}
