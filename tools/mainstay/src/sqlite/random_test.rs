//! Random transactions over few tables, keys and values, so that they meet: a database made from the log holds the same.

use proptest::prelude::*;

use super::test_support::Database;

/// Cases, unless `PROPTEST_CASES` says another number.
const CASES: u32 = 48;

/// Tables with columns `k`, `u` and `v`, and any of their names after a rename.
const TABLES: &[&str] = &["keyed", "loose", "sealed", "strict", "renamed"];
/// Tables whose rows refer to `keyed`; `k` refers to it in all.
const CHILDREN: &[&str] = &["cascades", "nulls", "defaults", "null_keys", "default_keys"];

const SCHEMA: &str = "
    CREATE TABLE keyed (k INTEGER PRIMARY KEY, u UNIQUE, v);
    CREATE TABLE loose (k, u, v);
    CREATE TABLE sealed (k TEXT PRIMARY KEY, u UNIQUE, v) WITHOUT ROWID;
    CREATE TABLE strict (k ANY PRIMARY KEY, u ANY UNIQUE, v INT) STRICT;
    CREATE TABLE counted (k INTEGER PRIMARY KEY AUTOINCREMENT, v);
    CREATE TABLE cascades (k REFERENCES keyed ON DELETE CASCADE ON UPDATE CASCADE);
    CREATE TABLE nulls (k REFERENCES keyed ON DELETE SET NULL ON UPDATE SET NULL, v);
    CREATE TABLE defaults (k DEFAULT 1 REFERENCES keyed ON DELETE SET DEFAULT ON UPDATE SET DEFAULT, v);
    CREATE TABLE null_keys (k INT PRIMARY KEY REFERENCES keyed ON DELETE SET NULL ON UPDATE CASCADE, v);
    CREATE TABLE default_keys (k INT DEFAULT 0 REFERENCES keyed ON DELETE SET DEFAULT, v, PRIMARY KEY (k, v));
    CREATE TRIGGER t AFTER INSERT ON keyed BEGIN INSERT INTO cascades VALUES (new.k); END";

fn rows() -> impl Strategy<Value = String> {
    let number = || 0..6_i32;
    let table = || proptest::sample::select(TABLES);
    let child = || proptest::sample::select(CHILDREN);
    prop_oneof![
        6 => (table(), number(), number(), number())
            .prop_map(|(table, k, u, v)| format!("INSERT OR REPLACE INTO {table} (k, u, v) VALUES ({k}, {u}, {v})")),
        2 => (number(), number()).prop_map(|(u, v)| {
            format!("INSERT INTO keyed (k, u, v) VALUES ({v}, {u}, 7) ON CONFLICT DO UPDATE SET v = v + 1 WHERE v < 50")
        }),
        3 => (table(), number(), number())
            .prop_map(|(table, from, to)| format!("UPDATE OR REPLACE {table} SET k = {to}, v = v + 1 WHERE k = {from}")),
        1 => (table(), number()).prop_map(|(table, k)| format!("UPDATE {table} SET k = k * 1.0, u = u * 1.0 WHERE k = {k}")),
        2 => number().prop_map(|k| format!("UPDATE OR IGNORE keyed SET u = (u + 1) % 6 WHERE k <= {k}")),
        3 => (table(), number()).prop_map(|(table, k)| format!("DELETE FROM {table} WHERE k = {k}")),
        1 => Just("DELETE FROM loose".to_owned()),
        2 => table().prop_map(|table| format!("UPDATE {table} SET v = v, k = k")),
        4 => (child(), number()).prop_map(|(child, k)| format!("INSERT OR IGNORE INTO {child} (k) VALUES ({k})")),
        2 => (child(), number(), number())
            .prop_map(|(child, k, v)| format!("INSERT OR REPLACE INTO {child} (k, v) VALUES ({k}, {v})")),
        1 => (child(), number()).prop_map(|(child, k)| format!("UPDATE OR REPLACE {child} SET k = {k}")),
    ]
}

fn counters() -> impl Strategy<Value = String> {
    let id = || 0..40_i32;
    prop_oneof![
        3 => Just("INSERT INTO counted DEFAULT VALUES".to_owned()),
        2 => (id(), id()).prop_map(|(from, to)| format!("UPDATE OR IGNORE counted SET k = {to} WHERE k <= {from}")),
        1 => id().prop_map(|id| format!("INSERT OR IGNORE INTO counted VALUES ({id}, 1)")),
        1 => Just("DELETE FROM counted".to_owned()),
        1 => id().prop_map(|id| format!("UPDATE sqlite_sequence SET seq = {id}")),
        1 => Just("DELETE FROM sqlite_sequence".to_owned()),
        1 => Just("ALTER TABLE counted RENAME TO renamed_counter".to_owned()),
        1 => Just("ALTER TABLE renamed_counter RENAME TO counted".to_owned()),
        1 => Just("CREATE TABLE IF NOT EXISTS counted (k INTEGER PRIMARY KEY AUTOINCREMENT, v)".to_owned()),
        1 => Just("DROP TABLE counted".to_owned()),
    ]
}

fn schema() -> impl Strategy<Value = String> {
    let table = || proptest::sample::select(TABLES);
    let child = || proptest::sample::select(CHILDREN);
    prop_oneof![
        1 => (table(), 0..1000_u32).prop_map(|(table, n)| format!("ALTER TABLE {table} ADD COLUMN x{n} INT DEFAULT 3")),
        1 => (0..1000_u32).prop_map(|n| format!("CREATE TABLE y{n} (a)")),
        2 => table().prop_map(|table| format!("DROP TABLE {table}")),
        1 => Just("CREATE TABLE IF NOT EXISTS keyed (k INTEGER PRIMARY KEY, u UNIQUE, v)".to_owned()),
        1 => child().prop_map(|child| format!("DROP TABLE {child}")),
        1 => child().prop_map(|child| format!("CREATE TABLE IF NOT EXISTS {child} (k REFERENCES keyed ON DELETE CASCADE, v)")),
        1 => table().prop_map(|table| format!("ALTER TABLE {table} RENAME TO renamed")),
        1 => table().prop_map(|table| format!("ALTER TABLE renamed RENAME TO {table}")),
        1 => table().prop_map(|table| format!("ALTER TABLE {table} RENAME COLUMN v TO w")),
        1 => table().prop_map(|table| format!("ALTER TABLE {table} RENAME COLUMN w TO v")),
        1 => table().prop_map(|table| format!("CREATE INDEX IF NOT EXISTS i ON {table} (v, u)")),
    ]
}

/// One statement of a random transaction.
fn statement() -> impl Strategy<Value = String> {
    prop_oneof![
        16 => rows(),
        3 => counters(),
        3 => schema(),
        2 => Just("SAVEPOINT s".to_owned()),
        2 => Just("ROLLBACK TO s".to_owned()),
        1 => Just("RELEASE s".to_owned()),
    ]
}

fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").map_or(CASES, |cases| cases.parse().unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn random_transactions_replay(
        transactions in proptest::collection::vec((proptest::collection::vec(statement(), 1..12), any::<bool>()), 1..6)
    ) {
        let database = Database::new();
        let mut client = database.session();
        client.ok(SCHEMA);
        client.ok("INSERT INTO keyed VALUES (0, 0, 0), (1, 1, 1), (2, 2, 2); INSERT INTO counted DEFAULT VALUES");
        for (statements, commit) in transactions {
            client.ok("BEGIN; SAVEPOINT s");
            for sql in statements {
                // What fails, such as a name used twice, fails the block; a savepoint may save it.
                match client.run(&sql) {
                    Err(error) => {
                        assert_ne!(&error.state.0[..2], "XX", "{sql}: {error}");
                        let _ = client.run("ROLLBACK TO s");
                    }
                    // What failed later takes only itself back.
                    Ok(_) => {
                        let _ = client.run("RELEASE s; SAVEPOINT s");
                    }
                }
            }
            // A deferred or lost block cannot commit, which is an end as well.
            let _ = client.run(if commit { "COMMIT" } else { "ROLLBACK" });
            let _ = client.run("ROLLBACK");
        }
        database.assert_replays();
    }
}
