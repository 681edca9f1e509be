//! What statements are understood as.

use super::*;

#[test]
fn transaction_control_of_both_worlds_is_understood() {
    let begin = |read_only, isolation, at_once| {
        Some(Command::Begin { modes: Asked { read_only, isolation, at_once }, tag: "BEGIN" })
    };
    let cases = [
        ("BEGIN", begin(None, None, false)),
        ("/* x */ begin -- y\n work", begin(None, None, false)),
        ("BEGIN DEFERRED TRANSACTION", begin(None, None, false)),
        ("BEGIN IMMEDIATE", begin(None, None, true)),
        ("BEGIN ISOLATION LEVEL SERIALIZABLE, READ ONLY", begin(Some(true), Some(Isolation::Serializable), false)),
        (
            "BEGIN READ WRITE ISOLATION LEVEL READ COMMITTED NOT DEFERRABLE",
            begin(Some(false), Some(Isolation::ReadCommitted), false),
        ),
        ("BEGIN TRANSACTION read", begin(None, None, false)),
        ("BEGIN EXCLUSIVE TRANSACTION 'a b'", begin(None, None, true)),
        ("BEGIN TRANSACTION READ ONLY", begin(Some(true), None, false)),
        ("BEGIN TRANSACTION DEFERRABLE", begin(None, None, false)),
        ("COMMIT TRANSACTION [x]", Some(Command::Commit { chain: false })),
        ("COMMIT TRANSACTION AND CHAIN", Some(Command::Commit { chain: true })),
        ("ROLLBACK TRANSACTION x", Some(Command::Rollback { chain: false })),
        ("ROLLBACK TRANSACTION x TO SAVEPOINT y", Some(Command::RollbackTo("y".into()))),
        ("END TRANSACTION", Some(Command::Commit { chain: false })),
        ("COMMIT AND CHAIN", Some(Command::Commit { chain: true })),
        ("ABORT AND NO CHAIN", Some(Command::Rollback { chain: false })),
        ("ROLLBACK TRANSACTION TO \"A b\"", Some(Command::RollbackTo("A b".into()))),
        ("rollback to savepoint Ab", Some(Command::RollbackTo("ab".into()))),
        ("RELEASE x", Some(Command::Release("x".into()))),
        ("SHOW TRANSACTION ISOLATION LEVEL", Some(Command::Show("transaction_isolation".into()))),
        ("SET a = b", Some(Command::Set { what: "setting \"a\"".into(), tag: "SET" })),
        ("SELECT 1", None),
        ("\"begin\"", None),
        ("(SELECT 1)", None),
    ];
    for (sql, expected) in cases {
        assert_eq!(parse(sql).unwrap(), expected, "{sql}");
    }
}

#[test]
fn default_modes_are_set_in_many_ways() {
    let defaults =
        |read_only, isolation, tag| Command::SetDefaults { modes: Asked { read_only, isolation, at_once: false }, tag };
    let serializable = Some(Isolation::Serializable);
    for (sql, expected) in [
        ("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", defaults(Some(true), None, "SET")),
        ("SET session default_transaction_read_only = 1", defaults(Some(true), None, "SET")),
        ("SET default_transaction_read_only TO DEFAULT", defaults(Some(false), None, "SET")),
        ("SET Default_Transaction_Isolation TO 'serializable'", defaults(None, serializable, "SET")),
        ("RESET default_transaction_read_only", defaults(Some(false), None, "RESET")),
        ("DISCARD ALL", Command::Discard { all: true }),
        ("discard temporary", Command::Discard { all: false }),
        ("DISCARD PLANS", Command::Set { what: "DISCARD PLANS".into(), tag: "DISCARD" }),
        ("RESET all", Command::ResetAll { tag: "RESET" }),
        (
            "SET LOCAL transaction_isolation = serializable",
            Command::SetTransaction(Asked { isolation: serializable, ..Asked::default() }),
        ),
        ("SET SESSION AUTHORIZATION x", Command::Set { what: "SET SESSION AUTHORIZATION".into(), tag: "SET" }),
        ("RESET search_path", Command::Set { what: "setting \"search_path\"".into(), tag: "RESET" }),
        (
            "SET LOCAL application_name TO 'a b'",
            Command::SetName { value: Some("a b".into()), is_local: true, tag: "SET" },
        ),
        ("set application_name = default", Command::SetName { value: None, is_local: false, tag: "SET" }),
        ("RESET application_name", Command::SetName { value: None, is_local: false, tag: "RESET" }),
    ] {
        assert_eq!(parse(sql).unwrap(), Some(expected), "{sql}");
    }
    for (sql, state) in [
        ("SET default_transaction_isolation = chaos", "22023"),
        ("SET default_transaction_read_only = 'perhaps'", "22023"),
        ("SET LOCAL default_transaction_read_only = on", "0A000"),
        ("SET default_transaction_read_only", "42601"),
        ("SET SESSION CHARACTERISTICS AS TRANSACTION READ", "42601"),
        ("SET transaction_read_only = on off", "42601"),
    ] {
        assert_eq!(parse(sql).unwrap_err().state.0, state, "{sql}");
    }
}

#[test]
fn timeouts_are_set_in_many_ways() {
    let set = |timeout, milliseconds: Option<u64>, is_local, tag| Command::SetTimeout {
        timeout,
        value: milliseconds.map(Duration::from_millis),
        is_local,
        tag,
    };
    for (sql, expected) in [
        ("SET statement_timeout = 5000", set(Timeout::Statement, Some(5000), false, "SET")),
        ("SET SESSION Lock_Timeout TO '2s'", set(Timeout::Lock, Some(2000), false, "SET")),
        ("SET LOCAL idle_session_timeout = 0", set(Timeout::IdleSession, Some(0), true, "SET")),
        ("SET lock_timeout = 1.5", set(Timeout::Lock, Some(2), false, "SET")),
        ("SET LOCAL lock_timeout TO DEFAULT", set(Timeout::Lock, None, true, "SET")),
        ("RESET idle_in_transaction_session_timeout", set(Timeout::IdleInTransaction, None, false, "RESET")),
    ] {
        assert_eq!(parse(sql).unwrap(), Some(expected), "{sql}");
    }
    for (sql, state) in [
        ("SET statement_timeout = soon", "22023"),
        ("SET statement_timeout = -1", "22023"),
        ("SET statement_timeout = 5 s", "42601"),
        ("SET statement_timeout", "42601"),
        ("SET statement_timeout =", "42601"),
    ] {
        assert_eq!(parse(sql).unwrap_err().state.0, state, "{sql}");
    }
}

#[test]
fn what_only_begins_like_a_command_is_refused() {
    for sql in [
        "BEGIN NOW",
        "START",
        "COMMIT 1",
        "SAVEPOINT",
        "ROLLBACK TO",
        "SAVEPOINT 1",
        "SET",
        "SHOW",
        "BEGIN TRANSACTION NOT",
        "COMMIT TRANSACTION x y",
        "COMMIT TRANSACTION x AND CHAIN",
        "COMMIT WORK x",
        "START TRANSACTION x",
        "ROLLBACK TRANSACTION x TO",
        "ROLLBACK WORK TRANSACTION",
    ] {
        assert_eq!(parse(sql).unwrap_err().state, SqlState::SYNTAX_ERROR, "{sql}");
    }
    assert_eq!(parse("/**/VACUUM INTO 'x'").unwrap_err().state, SqlState::FEATURE_NOT_SUPPORTED);
}

#[test]
fn tags_are_the_leading_words() {
    for (sql, tag) in [
        ("create unique index i on t (a)", "CREATE INDEX"),
        ("CREATE TABLE IF NOT EXISTS t (a)", "CREATE TABLE"),
        ("DROP /* a */ TRIGGER x", "DROP TRIGGER"),
        ("alter table t add a", "ALTER TABLE"),
        ("Analyze", "ANALYZE"),
    ] {
        assert_eq!(leading_words(sql), tag);
    }
}

#[test]
fn conflict_clauses_are_seen_in_tokens_only() {
    assert!(has_conflict_clause("CREATE TABLE t (a UNIQUE ON /**/ conflict REPLACE)"));
    assert!(!has_conflict_clause("CREATE TABLE t (a UNIQUE ON CONFLICT ABORT)"));
    assert!(!has_conflict_clause("CREATE TABLE t (a DEFAULT 'ON CONFLICT REPLACE', \"on\" conflict, b)"));
}
