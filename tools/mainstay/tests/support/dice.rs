//! Random SQL for one of several clients, each on rows and tables of its own: few keys and values, so that they meet.
//!
//! No outcome depends on the order in which SQLite visits rows: it is that of rowids, which a table with a declared key does
//! not get back when it is made again from the log.

use super::Random;
use super::model::Step;

/// Tables that all clients share; every row says whose it is.
pub const SHARED: &[&str] =
    &["items", "loose", "sealed", "strict_items", "parents", "children", "later", "derived", "seen"];

/// Numbers from 0 to this one are keys.
const KEYS: u64 = 8;
/// Counters that all clients add to.
pub const COUNTERS: u64 = 3;

pub const SCHEMA: &str = "
    CREATE TABLE items (owner INT NOT NULL, k INT NOT NULL, u INT, v TEXT, n INT CHECK (n < 60),
        PRIMARY KEY (owner, k), UNIQUE (owner, u));
    CREATE UNIQUE INDEX partial ON items (owner, n) WHERE n > 40;
    CREATE INDEX by_expression ON items (owner, abs(n), lower(v));
    CREATE TABLE loose (owner INT, a, b);
    CREATE TABLE sealed (owner INT, k TEXT, v BLOB, PRIMARY KEY (owner, k)) WITHOUT ROWID;
    CREATE TABLE strict_items (owner INT NOT NULL, k INT NOT NULL, v ANY, t TEXT, PRIMARY KEY (owner, k)) STRICT;
    CREATE TABLE parents (owner INT NOT NULL, id INT NOT NULL, PRIMARY KEY (owner, id));
    CREATE TABLE children (owner INT NOT NULL, id INT NOT NULL, parent INT, v, PRIMARY KEY (owner, id),
        FOREIGN KEY (owner, parent) REFERENCES parents ON DELETE CASCADE ON UPDATE CASCADE);
    CREATE TABLE later (owner INT NOT NULL, id INT NOT NULL, parent INT, PRIMARY KEY (owner, id),
        FOREIGN KEY (owner, parent) REFERENCES parents DEFERRABLE INITIALLY DEFERRED);
    CREATE TABLE derived (owner INT NOT NULL, k INT NOT NULL, twice INT AS (k * 2) STORED, s TEXT AS (k || '!'), v,
        PRIMARY KEY (owner, k), UNIQUE (owner, s));
    CREATE TABLE seen (owner INT, what TEXT, k INT);
    CREATE TABLE noise (owner INT, r);
    CREATE TABLE counted (id INTEGER PRIMARY KEY AUTOINCREMENT);
    CREATE TABLE counters (id INT NOT NULL PRIMARY KEY, n INT);
    INSERT INTO counters VALUES (0, 0), (1, 0), (2, 0);
    CREATE VIEW named AS SELECT owner, k, v FROM items;
    CREATE TRIGGER named_new INSTEAD OF INSERT ON named
        BEGIN INSERT OR REPLACE INTO items (owner, k, v) VALUES (new.owner, new.k, new.v); END;
    CREATE TRIGGER named_gone INSTEAD OF DELETE ON named
        BEGIN DELETE FROM items WHERE owner = old.owner AND k = old.k; END;
    CREATE TRIGGER items_new AFTER INSERT ON items WHEN new.k < 6
        BEGIN INSERT INTO seen VALUES (new.owner, 'new', new.k); END;
    CREATE TRIGGER items_moved AFTER UPDATE OF n ON items
        BEGIN INSERT INTO seen VALUES (new.owner, 'moved', new.n);
              UPDATE strict_items SET t = new.v WHERE owner = new.owner AND k = new.k; END;
    CREATE TRIGGER items_gone BEFORE DELETE ON items
        BEGIN DELETE FROM children WHERE owner = old.owner AND v = old.v; END;
    CREATE TRIGGER loose_aborts BEFORE INSERT ON loose WHEN new.a = 'abort' BEGIN SELECT RAISE(ABORT, 'no'); END;
    CREATE TRIGGER loose_fails BEFORE INSERT ON loose WHEN new.a = 'fail' BEGIN SELECT RAISE(FAIL, 'no'); END;
    CREATE TRIGGER loose_ends AFTER INSERT ON loose WHEN new.a = 'end' BEGIN SELECT RAISE(ROLLBACK, 'no'); END;
    CREATE TRIGGER loose_passes BEFORE INSERT ON loose WHEN new.a = 'pass' BEGIN SELECT RAISE(IGNORE); END";

const SAVEPOINTS: [&str; 3] = ["s", "t", "u"];
const TEXTS: [&str; 8] = ["''", "'x'", "'it''s'", "'größer 🦀'", "NULL", "'A'", "'a'", "'12'"];
const VALUES: [&str; 10] =
    ["NULL", "0", "-9223372036854775808", "1.5", "-0.0", "'1'", "x'00ff'", "x''", "1e300", "'end of\nline'"];

/// The choices of one client.
pub struct Dice {
    random: Random,
    pub client: u64,
}

impl Dice {
    pub fn new(random: Random, client: u64) -> Dice {
        Dice { random, client }
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.random.below(bound)
    }

    pub fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    fn of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.below(choices.len() as u64) as usize]
    }

    fn key(&mut self) -> u64 {
        self.below(KEYS)
    }

    /// How a conflict is resolved, mostly by failing.
    fn or(&mut self) -> &'static str {
        self.of(&["", "", "OR REPLACE", "OR REPLACE", "OR IGNORE", "OR FAIL", "OR ABORT", "OR ROLLBACK"])
    }

    /// What the client does until it is outside of a transaction again.
    pub fn transaction(&mut self) -> Vec<Step> {
        match self.below(100) {
            0..=44 => vec![Step::Statement(self.statement())],
            45..=56 => vec![self.script()],
            57..=58 => vec![self.endless()],
            _ => self.block(),
        }
    }

    fn script(&mut self) -> Step {
        let count = 2 + self.below(3);
        Step::Script((0..count).map(|_| self.statement()).collect())
    }

    fn endless(&mut self) -> Step {
        let (client, numbers) = (self.client, "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)");
        match self.below(3) {
            0 => {
                let sql = format!("INSERT INTO loose {numbers} SELECT {client}, 'endless', i FROM n WHERE i < 0");
                Step::Endless { sql, writes: true }
            }
            1 => Step::Endless { sql: format!("{numbers} SELECT count(*) FROM n"), writes: false },
            _ => Step::Endless { sql: format!("SELECT count(*) FROM ({numbers} SELECT i FROM n)"), writes: false },
        }
    }

    fn block(&mut self) -> Vec<Step> {
        let (sql, read_only) = match self.below(12) {
            0 => ("BEGIN ISOLATION LEVEL SERIALIZABLE", false),
            1 => ("BEGIN IMMEDIATE", false),
            2 => ("START TRANSACTION READ ONLY", true),
            3 => ("BEGIN ISOLATION LEVEL REPEATABLE READ", false),
            _ => ("BEGIN", false),
        };
        let mut steps = vec![Step::Begin { sql, read_only }];
        let mut set: Vec<&'static str> = Vec::new();
        for _ in 0..1 + self.below(9) {
            steps.push(match self.below(40) {
                0..=4 => {
                    set.push(self.savepoint());
                    Step::Savepoint(set[set.len() - 1])
                }
                5..=8 => Step::RollbackTo(self.savepoint_of(&set)),
                9..=10 => Step::Release(self.savepoint_of(&set)),
                11..=12 => self.script(),
                13 => {
                    // What was lost with a cancelled write depends on how far it got.
                    steps.push(self.endless());
                    steps.push(Step::Rollback);
                    return steps;
                }
                _ => Step::Statement(self.statement()),
            });
        }
        steps.push(if self.below(5) == 0 { Step::Rollback } else { Step::Commit });
        steps
    }

    fn savepoint(&mut self) -> &'static str {
        SAVEPOINTS[self.below(SAVEPOINTS.len() as u64) as usize]
    }

    /// One of those, mostly; it may have been released since.
    fn savepoint_of(&mut self, set: &[&'static str]) -> &'static str {
        if set.is_empty() || self.one_in(10) { self.savepoint() } else { set[self.below(set.len() as u64) as usize] }
    }

    /// A statement.
    pub fn statement(&mut self) -> String {
        match self.below(100) {
            0..=19 => self.items(),
            20..=29 => self.family(),
            30..=44 => self.others(),
            45..=64 => self.select(),
            65..=84 => self.own(),
            85..=93 => {
                let (counter, by) = (self.below(COUNTERS), self.below(10));
                format!("UPDATE counters SET n = n + {by} WHERE id = {counter}")
            }
            94..=96 => format!("INSERT INTO noise VALUES ({}, random()), ({0}, randomblob(9))", self.client),
            _ => self
                .of(&["SELEKT 1", "SELECT missing FROM items", "INSERT INTO nowhere VALUES (1)", "DROP TABLE nowhere"])
                .to_owned(),
        }
    }

    fn items(&mut self) -> String {
        let (c, or, k, u) = (self.client, self.or(), self.key(), self.key());
        let (v, n) = (self.of(&TEXTS), self.below(62));
        match self.below(10) {
            0..=2 => format!("INSERT {or} INTO items VALUES ({c}, {k}, {u}, {v}, {n})"),
            3 => format!(
                "INSERT {or} INTO items VALUES ({c}, {k}, {u}, {v}, {n}), ({c}, {u}, {k}, {v}, 50) RETURNING k, u, n"
            ),
            4 => format!(
                "INSERT INTO items VALUES ({c}, {k}, {u}, {v}, 1) ON CONFLICT (owner, k) DO UPDATE SET n = n + 1, v = excluded.v"
            ),
            5 => format!("UPDATE {or} items SET k = k + 1, u = {u} WHERE owner = {c} AND k = {k}"),
            6 => format!("UPDATE {or} items SET n = {n}, v = {v} WHERE owner = {c} AND k = {k} RETURNING *"),
            7 => format!(
                "WITH doomed AS (SELECT {k} AS k) DELETE FROM items WHERE owner = {c} AND k IN (SELECT k FROM doomed)"
            ),
            8 => format!("UPDATE items SET v = {v}, n = NULL WHERE owner = {c} AND k >= {k}"),
            _ => format!("DELETE FROM named WHERE owner = {c} AND k > {k}"),
        }
    }

    fn family(&mut self) -> String {
        let (c, or, id, parent) = (self.client, self.or(), self.key(), self.key());
        let v = self.of(&TEXTS);
        match self.below(7) {
            0 => format!("INSERT {or} INTO parents VALUES ({c}, {id}), ({c}, {parent})"),
            1 => format!("INSERT {or} INTO children VALUES ({c}, {id}, {parent}, {v})"),
            2 => format!("INSERT {or} INTO later VALUES ({c}, {id}, {parent})"),
            3 => format!("DELETE FROM parents WHERE owner = {c} AND id = {id}"),
            4 => format!("UPDATE {or} parents SET id = {parent} WHERE owner = {c} AND id = {id}"),
            5 => format!("UPDATE children SET parent = NULL, v = {v} WHERE owner = {c} AND id = {id}"),
            _ => format!("DELETE FROM later WHERE owner = {c} AND id <= {id}"),
        }
    }

    fn others(&mut self) -> String {
        let (c, or, k, v) = (self.client, self.or(), self.key(), self.of(&VALUES));
        let text = self.of(&TEXTS);
        match self.below(10) {
            0 => format!("INSERT INTO loose VALUES ({c}, {v}, {k}), ({c}, {v}, {k})"),
            1 => {
                let word = self.of(&["'abort'", "'fail'", "'end'", "'pass'"]);
                format!("INSERT INTO loose VALUES ({c}, 'before', {k}), ({c}, {word}, {k}), ({c}, 'behind', {k})")
            }
            2 => format!("UPDATE loose SET a = {v} WHERE owner = {c} AND b = {k}"),
            3 => format!("DELETE FROM loose WHERE owner = {c} AND b >= {k}"),
            4 => format!("INSERT {or} INTO sealed VALUES ({c}, '{k}', {v})"),
            5 => format!("UPDATE {or} sealed SET k = '{k}' WHERE owner = {c} AND v IS {v}"),
            6 => format!("INSERT {or} INTO strict_items VALUES ({c}, {k}, {v}, {text})"),
            7 => {
                // A key that is not there is refused: often enough that some run into it.
                let key = if self.one_in(3) { "NULL" } else { v };
                format!("UPDATE {or} strict_items SET k = {key}, v = k WHERE owner = {c} AND k = {k}")
            }
            8 => format!(
                "INSERT {or} INTO derived (owner, k, v) SELECT {c}, k, v FROM items WHERE owner = {c} AND k < {k}"
            ),
            _ => format!("INSERT INTO named VALUES ({c}, {k}, {text})"),
        }
    }

    fn select(&mut self) -> String {
        let (c, k) = (self.client, self.key());
        match self.below(6) {
            0 | 1 => {
                // Numbers that are no integers would be written in two ways.
                let table = self.of(SHARED);
                let columns = match table {
                    "loose" => "typeof(a), quote(a), quote(b)",
                    "sealed" => "k, quote(v)",
                    "strict_items" => "k, quote(v), t",
                    "derived" => "k, twice, s, quote(v)",
                    _ => "*",
                };
                format!("SELECT {columns} FROM {table} WHERE owner = {c}")
            }
            2 => format!("SELECT count(*), sum(n), max(v) FROM items WHERE owner = {c} AND k >= {k}"),
            3 => format!(
                "SELECT p.id, c.id FROM parents p LEFT JOIN children c ON c.owner = p.owner AND c.parent = p.id WHERE p.owner = {c}"
            ),
            4 => format!(
                "WITH w AS (SELECT k, n FROM items WHERE owner = {c}) SELECT k, n, (SELECT count(*) FROM w) FROM w"
            ),
            _ => format!("VALUES ({c}, {k})"),
        }
    }

    /// Something with a table that only this client knows.
    fn own(&mut self) -> String {
        let (c, table, other) = (self.client, self.below(3), self.below(3));
        let (name, k) = (format!("own{c}_{table}"), self.key());
        let v = self.of(&VALUES);
        match self.below(16) {
            0 => format!("CREATE TABLE {name} (id INTEGER PRIMARY KEY AUTOINCREMENT, v)"),
            1 => format!("CREATE TABLE IF NOT EXISTS {name} (id INTEGER PRIMARY KEY, v UNIQUE)"),
            2 => format!(
                "CREATE TABLE {name} AS SELECT k AS id, v, n + 0.5 AS half, {v} AS \"odd name\" FROM items WHERE owner = {c} ORDER BY k"
            ),
            3 => format!(
                "CREATE TABLE IF NOT EXISTS noise{c}_{table} AS SELECT random() AS r, randomblob(4) AS b, {k} AS k"
            ),
            4 => format!("INSERT OR IGNORE INTO {name} (v) VALUES ({v}), ({k})"),
            5 => format!("INSERT INTO {name} (id, v) VALUES ({k}, {v}) RETURNING id"),
            6 => format!("UPDATE {name} SET v = {v} WHERE id = {k}"),
            7 => format!("DELETE FROM {name} WHERE id >= {k}"),
            8 => format!("DELETE FROM {name}"),
            9 => format!("SELECT id, quote(v) FROM {name}"),
            10 => format!("ALTER TABLE {name} ADD COLUMN added INT DEFAULT {k}"),
            11 => format!("ALTER TABLE {name} DROP COLUMN added"),
            12 => format!("ALTER TABLE {name} RENAME TO own{c}_{other}"),
            13 => format!("CREATE INDEX IF NOT EXISTS own{c}_index ON {name} (v)"),
            14 => format!("INSERT INTO {name} (v) SELECT id FROM own{c}_{other} WHERE id < {k}"),
            _ => format!("DROP TABLE {name}"),
        }
    }
}
