//! Statements of PostgreSQL's that mean something here and that SQLite has no words for, or several statements: TRUNCATE,
//! the upkeep that VACUUM is there, DROP of many things at once, keys that are added later.
//!
//! Nothing that SQLite accepts is taken from it. What would have to be done otherwise than it is asked for is refused.

use mainstay::server::pg::{SqlError, SqlState};
use sqlparser::ast::{CascadeOption, ObjectName, Truncate, TruncateIdentityOption};

use super::super::lexer::{Kind, Token, tokens};
use super::super::names::quoted;
use super::super::{dialect, policy};
use super::{Words, parsed};

/// A statement in SQLite's words. All of it takes effect, or nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Translated {
    pub(in super::super) statements: Vec<String>,
    pub(in super::super) tag: &'static str,
    /// What of it has no meaning here.
    pub(in super::super) notice: Option<&'static str>,
    /// Columns that must not be able to hold NULL, of this table.
    pub(in super::super) key: Option<(String, Vec<String>)>,
    /// Tables whose AUTOINCREMENT counters begin anew, as far as they have any.
    pub(in super::super) restarted: Vec<String>,
}

const NO_VACUUM: &str = "there is nothing to clean up: SQLite uses free pages again by itself";
const NO_STORAGE: &str = "storage parameters have no meaning here";
const IDLE_SERIAL: &str =
    "a SERIAL column that is not the primary key does not count: it is NULL where no value is given";
const KEY_AS_INDEX: &str = "a key that is added to a table is kept as a unique index";

/// How SQLite's statements differ from PostgreSQL's of the same first words.
const DROPPED: &[&str] = &["TABLE", "VIEW", "INDEX"];

impl Words<'_> {
    /// PostgreSQL's VACUUM. SQLite's, of the whole database or into a file, is refused.
    pub(super) fn vacuum(&mut self) -> Result<Translated, SqlError> {
        self.advance();
        let refused = || policy::refused("VACUUM is not supported: it rewrites the database behind the WAL");
        let is = |token: Option<Token<'_>>, words: &[&str]| {
            token.is_some_and(|token| words.iter().any(|word| token.is(word)))
        };
        if self.next.is_none() || is(self.next, &["INTO", "FULL", "MAIN", "TEMP"]) {
            return Err(refused());
        }
        let mut analyze = false;
        if self.next.is_some_and(|token| token.kind == Kind::Symbol('(')) {
            while !self.next.is_some_and(|token| token.kind == Kind::Symbol(')')) {
                self.advance();
                let Some(option) = self.next else { return Err(self.unexpected()) };
                analyze |= option.is("ANALYZE");
                if option.is("FULL") {
                    return Err(refused());
                }
            }
            self.advance();
        }
        while is(self.next, &["FREEZE", "VERBOSE", "ANALYZE", "ANALYSE"]) {
            analyze |= is(self.next, &["ANALYZE", "ANALYSE"]);
            self.advance();
        }
        let tables = if self.next.is_some() { self.tables()? } else { Vec::new() };
        self.end()?;
        let mut statements: Vec<String> =
            tables.iter().map(|table| format!("SELECT 1 FROM {} WHERE FALSE", quoted(table))).collect();
        if analyze && tables.is_empty() {
            statements.push("ANALYZE".to_owned());
        } else if analyze {
            statements.extend(tables.iter().map(|table| format!("ANALYZE {}", quoted(table))));
        }
        Ok(Translated { statements, tag: "VACUUM", notice: Some(NO_VACUUM), ..Translated::default() })
    }

    /// Many tables, views or indexes at once; `None` if SQLite has words for it.
    pub(super) fn drop_many(&mut self) -> Result<Option<Translated>, SqlError> {
        self.advance();
        let Some(what) = DROPPED.iter().find(|what| self.take(what)) else { return Ok(None) };
        let if_exists = if self.take("IF") { " IF EXISTS" } else { "" };
        if !if_exists.is_empty() && !self.take("EXISTS") {
            return Ok(None);
        }
        // What is no list of names is left to SQLite, which has the words for what is wrong with it.
        let Ok(names) = self.tables() else { return Ok(None) };
        if names.len() == 1 && self.next.is_none() {
            return Ok(None);
        }
        if self.take("CASCADE") {
            return Err(cascade_refused("DROP"));
        }
        self.take("RESTRICT");
        self.end()?;
        let tag = match *what {
            "TABLE" => "DROP TABLE",
            "VIEW" => "DROP VIEW",
            _ => "DROP INDEX",
        };
        let statements = names.iter().map(|name| format!("{tag}{if_exists} {}", quoted(name))).collect();
        Ok(Some(Translated { statements, tag, ..Translated::default() }))
    }

    /// `ALTER TABLE t ADD [CONSTRAINT c] PRIMARY KEY | UNIQUE (…)`; `None` if it is something else, such as a CHECK.
    pub(super) fn add_constraint(&mut self) -> Result<Option<Translated>, SqlError> {
        self.advance();
        if !self.take("TABLE") {
            return Ok(None);
        }
        self.take("ONLY");
        let Ok(table) = self.table_name() else { return Ok(None) };
        if !self.take("ADD") {
            return Ok(None);
        }
        let name = if self.take("CONSTRAINT") { Some(self.name()?) } else { None };
        if self.take("CHECK") {
            // SQLite has words for it.
            return Ok(None);
        }
        if self.take("FOREIGN") {
            return Err(policy::refused("a constraint of this kind cannot be added to a table")
                .with_hint("Declare it in CREATE TABLE."));
        }
        let is_key = self.take("PRIMARY");
        if is_key {
            self.expect("KEY")?;
        } else if !self.take("UNIQUE") {
            return Ok(None);
        }
        self.symbol('(')?;
        let columns = self.tables()?;
        self.symbol(')')?;
        self.end()?;
        let name = name.unwrap_or_else(|| match is_key {
            true => format!("{table}_pkey"),
            false => format!("{table}_{}_key", columns.join("_")),
        });
        let list: Vec<String> = columns.iter().map(|column| quoted(column)).collect();
        Ok(Some(Translated {
            statements: vec![format!(
                "CREATE UNIQUE INDEX {} ON {} ({})",
                quoted(&name),
                quoted(&table),
                list.join(", ")
            )],
            tag: "ALTER TABLE",
            notice: Some(KEY_AS_INDEX),
            key: is_key.then_some((table, columns)),
            ..Translated::default()
        }))
    }

    /// Names with commas between them. Of a qualified one, the last part counts: there is one schema.
    fn tables(&mut self) -> Result<Vec<String>, SqlError> {
        let mut tables = Vec::new();
        loop {
            self.take("ONLY");
            tables.push(self.table_name()?);
            if !self.next.is_some_and(|token| token.kind == Kind::Symbol(',')) {
                return Ok(tables);
            }
            self.advance();
        }
    }

    fn table_name(&mut self) -> Result<String, SqlError> {
        let mut name = self.name()?;
        while self.next.is_some_and(|token| token.kind == Kind::Symbol('.')) {
            self.advance();
            refuse_other_schema(&name)?;
            name = self.name()?;
        }
        Ok(name)
    }
}

fn refuse_other_schema(schema: &str) -> Result<(), SqlError> {
    if ["main", "public"].iter().any(|ours| ours.eq_ignore_ascii_case(schema)) {
        return Ok(());
    }
    Err(SqlError::new(SqlState("3F000"), format!("schema \"{schema}\" does not exist")))
}

fn cascade_refused(what: &str) -> SqlError {
    policy::refused(format!("{what} … CASCADE is not supported"))
        .with_hint("Name what is to go in the order in which it can.")
}

/// `TRUNCATE [TABLE] t, … [RESTART IDENTITY | CONTINUE IDENTITY] [RESTRICT]`: triggers see each row go.
pub(super) fn truncate(truncate: &Truncate) -> Result<Translated, SqlError> {
    if truncate.if_exists || truncate.partitions.is_some() || truncate.on_cluster.is_some() {
        // Words of other databases.
        return Err(parsed::syntax_error(&"TRUNCATE with IF EXISTS, PARTITION or ON CLUSTER"));
    }
    let tables = truncate.table_names.iter().map(|target| unqualified(&target.name)).collect::<Result<Vec<_>, _>>()?;
    if truncate.cascade == Some(CascadeOption::Cascade) {
        return Err(cascade_refused("TRUNCATE"));
    }
    Ok(Translated {
        statements: tables.iter().map(|table| format!("DELETE FROM {}", quoted(table))).collect(),
        tag: "TRUNCATE TABLE",
        restarted: if truncate.identity == Some(TruncateIdentityOption::Restart) { tables } else { Vec::new() },
        ..Translated::default()
    })
}

/// The last part of a name, which is one of ours.
fn unqualified(name: &ObjectName) -> Result<String, SqlError> {
    let parts = name.0.iter().map(|part| part.as_ident().map(parsed::folded));
    let mut parts = parts.collect::<Option<Vec<String>>>().unwrap_or_default();
    let last = parts.pop().ok_or_else(|| parsed::syntax_error(name))?;
    parts.iter().try_for_each(|schema| refuse_other_schema(schema))?;
    Ok(last)
}

/// A CREATE TABLE without the storage parameters at its end; `None` if it has none.
pub(super) fn without_storage(statement: &str) -> Option<Translated> {
    let mut words = tokens(statement);
    if !(words.next()?.is("CREATE") && words.next()?.is("TABLE")) {
        return None;
    }
    let (mut depth, mut closed, mut end) = (0_usize, false, None);
    for token in words {
        match token.kind {
            Kind::Symbol('(') => depth += 1,
            Kind::Symbol(')') => {
                depth = depth.checked_sub(1)?;
                closed = depth == 0;
                continue;
            }
            // Only behind the columns; SQLite knows WITHOUT there, and not WITH.
            _ if depth == 0 && closed && end.is_none() && token.is("WITH") => end = Some(token.range().start),
            // Something else is behind the columns, or behind the parameters.
            _ if depth == 0 && (closed || end.is_some()) => return None,
            _ => {}
        }
        closed = false;
    }
    let kept = statement.get(..end.filter(|_| depth == 0 && closed)?)?;
    let statements = vec![kept.to_owned()];
    Some(Translated { statements, tag: "CREATE TABLE", notice: Some(NO_STORAGE), ..Translated::default() })
}

/// A CREATE TABLE with a SERIAL column that does not count; `None` if it has none.
pub(super) fn idle_serial(statement: &str) -> Option<Translated> {
    let mut words = tokens(statement);
    // What is temporary is told nothing.
    let is_table = words.next()?.is("CREATE") && words.next()?.is("TABLE");
    (is_table && dialect::has_idle_serial(statement)).then(|| Translated {
        statements: vec![statement.to_owned()],
        tag: "CREATE TABLE",
        notice: Some(IDLE_SERIAL),
        ..Translated::default()
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Command, parse};

    #[test]
    fn postgresqls_statements_become_sqlites() {
        for (sql, statements) in [
            ("truncate table a, b", vec!["DELETE FROM \"a\"", "DELETE FROM \"b\""]),
            ("TRUNCATE public.a RESTART IDENTITY RESTRICT", vec!["DELETE FROM \"a\""]),
            ("TRUNCATE ONLY MAIN.a *, [B c] CONTINUE IDENTITY", vec!["DELETE FROM \"a\"", "DELETE FROM \"B c\""]),
            (
                "drop table if exists a, \"B\", c",
                vec!["DROP TABLE IF EXISTS \"a\"", "DROP TABLE IF EXISTS \"B\"", "DROP TABLE IF EXISTS \"c\""],
            ),
            ("DROP VIEW v RESTRICT", vec!["DROP VIEW \"v\""]),
            ("vacuum analyze t", vec!["SELECT 1 FROM \"t\" WHERE FALSE", "ANALYZE \"t\""]),
            ("VACUUM t", vec!["SELECT 1 FROM \"t\" WHERE FALSE"]),
            ("VACUUM (VERBOSE, ANALYZE)", vec!["ANALYZE"]),
            ("alter table t add primary key (a, b)", vec!["CREATE UNIQUE INDEX \"t_pkey\" ON \"t\" (\"a\", \"b\")"]),
            ("ALTER TABLE ONLY t ADD CONSTRAINT c UNIQUE (a)", vec!["CREATE UNIQUE INDEX \"c\" ON \"t\" (\"a\")"]),
            (
                "create table t(a int not null,f char(84) default ')') with (fillfactor=100)",
                vec!["create table t(a int not null,f char(84) default ')') "],
            ),
        ] {
            match parse(sql).unwrap() {
                Some(Command::Translated(translated)) => assert_eq!(translated.statements, statements, "{sql}"),
                other => panic!("{sql}: {other:?}"),
            }
        }
    }

    #[test]
    fn what_sqlite_has_words_for_is_left_to_it() {
        for sql in [
            "DROP TABLE a",
            "DROP TABLE IF EXISTS main.a",
            "DROP TRIGGER a",
            "DROP TABLE",
            "DROP INDEX 7",
            "ALTER TABLE a ADD b INT",
            "ALTER TABLE a ADD COLUMN b UNIQUE",
            "ALTER TABLE a RENAME TO b",
            "ALTER TABLE a ADD CONSTRAINT c CHECK (b > 0)",
            "ALTER TABLE a ADD CHECK (b > 0)",
            "ALTER TABLE",
            "CREATE TABLE t (a) WITHOUT ROWID",
            "CREATE TABLE t (a) STRICT",
            "CREATE TABLE t (a, with_ INT)",
            "CREATE TABLE t AS WITH x AS (SELECT (1)) SELECT * FROM x",
            "CREATE TABLE with (with)",
            "CREATE VIEW v (a) AS SELECT 1",
        ] {
            assert_eq!(parse(sql).unwrap(), None, "{sql}");
        }
    }

    #[test]
    fn what_cannot_be_done_as_asked_is_refused() {
        for (sql, state) in [
            ("VACUUM", "0A000"),
            ("VACUUM FULL t", "0A000"),
            ("VACUUM (FULL) t", "0A000"),
            ("VACUUM main INTO 'x'", "0A000"),
            ("VACUUM (t", "42601"),
            ("TRUNCATE a CASCADE", "0A000"),
            ("TRUNCATE", "42601"),
            ("TRUNCATE a b", "42601"),
            ("TRUNCATE other.a", "3F000"),
            ("DROP TABLE a, b CASCADE", "0A000"),
            ("DROP TABLE a b", "42601"),
            ("ALTER TABLE a ADD FOREIGN KEY (b) REFERENCES c", "0A000"),
            ("ALTER TABLE a ADD PRIMARY KEY b", "42601"),
        ] {
            assert_eq!(parse(sql).unwrap_err().state.0, state, "{sql}");
        }
    }
}
