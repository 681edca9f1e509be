//! Statements of concurrent clients in one transaction and one record.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use mainstay::server::pg::{Column, Interrupt, Reply, ResultSink, Scope, SqlError, Started, Value};
use mainstay::wal::{AppendError, CommitError};

use super::control::Control;
use super::test_support::{Client, Database, Seen, WRITER_WAIT};
use super::turnstile::Waited;

/// Runs statements of as many clients at the same time: all wait for one that writes, and then run together. Answers what
/// each was told, and how many records they took.
fn together(database: &Database, statements: &[&str]) -> (Vec<String>, usize) {
    let mut holder = database.session();
    holder.ok("BEGIN; DELETE FROM held");
    let mut clients: Vec<Client> = statements.iter().map(|_| database.session()).collect();
    for (client, sql) in clients.iter_mut().zip(statements) {
        client.begin(sql);
    }
    let before = database.records().len();
    holder.ok("COMMIT");
    let told = clients.iter_mut().map(Client::told).collect();
    (told, database.records().len() - before)
}

fn with(sql: &str) -> Database {
    let database = Database::new();
    database.session().ok("CREATE TABLE held (a)");
    database.session().ok(sql);
    database
}

#[test]
fn statements_that_wait_together_share_a_record() {
    let database =
        with("CREATE TABLE t (a INTEGER PRIMARY KEY AUTOINCREMENT, b TEXT); CREATE TABLE k (k TEXT PRIMARY KEY)");
    let statements: Vec<String> = (0..32)
        .map(|number| match number % 4 {
            0 => format!("INSERT INTO t (b) VALUES ('{number}')"),
            1 => format!("INSERT INTO k VALUES ('{number}')"),
            2 => format!("UPDATE t SET b = b || '{number}'"),
            _ => "DELETE FROM k WHERE k = (SELECT min(k) FROM k)".to_owned(),
        })
        .collect();
    let statements: Vec<&str> = statements.iter().map(String::as_str).collect();
    let (told, records) = together(&database, &statements);
    assert_eq!(records, 1);
    assert_eq!(told[..4], ["INSERT 0 1", "INSERT 0 1", "UPDATE 1", "DELETE 1"]);
    let mut client = database.session();
    assert_eq!(client.rows("SELECT count(*), max(a) FROM t"), [["8", "8"]]);
    assert_eq!(client.rows("SELECT count(*) FROM k"), [["0"]]);
    database.assert_replays();
}

#[test]
fn more_than_a_group_takes_are_several() {
    let database = with("CREATE TABLE t (a)");
    let statements = vec!["INSERT INTO t VALUES (1)"; super::turnstile::GROUP_STATEMENTS + 1];
    assert_eq!(together(&database, &statements).1, 2);
    let long = format!("INSERT INTO t VALUES ('{}')", "x".repeat(400_000));
    assert_eq!(together(&database, &[&long, &long, &long, &long, &long]).1, 2);
    database.assert_replays();
}

#[test]
fn a_culprit_fails_alone() {
    let schema = "CREATE TABLE t (a PRIMARY KEY, b CHECK (b > 0)); INSERT INTO t VALUES ('there', 1);
        CREATE TABLE p (id INTEGER PRIMARY KEY);
        CREATE TABLE c (p REFERENCES p DEFERRABLE INITIALLY DEFERRED, n INT);
        CREATE TRIGGER g BEFORE INSERT ON t WHEN NEW.a = 'bad' BEGIN SELECT raise(ROLLBACK, 'no'); END;
        CREATE TRIGGER h BEFORE INSERT ON t WHEN NEW.a = 'worse' BEGIN SELECT raise(FAIL, 'no'); END";
    for (culprit, state) in [
        ("INSERT INTO t VALUES ('there', 1)", "23505"),
        ("INSERT INTO t VALUES ('x', 1), ('first', 1)", "23505"),
        ("INSERT OR ROLLBACK INTO t VALUES ('there', 1)", "23505"),
        ("INSERT OR FAIL INTO t VALUES ('y', 1), ('there', 1)", "23505"),
        ("INSERT INTO t VALUES ('bad', 1)", "P0001"),
        ("INSERT INTO t VALUES ('z', 1), ('worse', 1)", "P0001"),
        ("INSERT INTO t VALUES ('z', 0)", "23514"),
        ("INSERT INTO t VALUES (NULL, 1)", "23502"),
        ("INSERT INTO c VALUES (5, 1)", "23503"),
        ("INSERT INTO missing VALUES (5)", "42P01"),
        ("INSERT INTO t VALUES", "42601"),
    ] {
        let database = with(schema);
        // The last one would make the deferred key of the culprit good, had that not failed before.
        let statements = [
            "INSERT INTO t VALUES ('first', 1)",
            culprit,
            "INSERT INTO t VALUES ('second', 1)",
            culprit,
            "INSERT INTO p VALUES (5)",
        ];
        let (mut told, records) = together(&database, &statements);
        if culprit.starts_with("INSERT INTO c") {
            // By then it is no culprit any more.
            assert_eq!(told.remove(3), state);
        } else {
            assert_eq!(told.remove(3), state, "{culprit}");
        }
        assert_eq!(
            (told, records),
            (vec!["INSERT 0 1".into(), state.into(), "INSERT 0 1".into(), "INSERT 0 1".into()], 1)
        );
        let mut client = database.session();
        assert_eq!(client.rows("SELECT a FROM t ORDER BY a"), [["first"], ["second"], ["there"]], "{culprit}");
        assert_eq!(client.rows("SELECT * FROM c").len(), 0, "{culprit}");
        database.assert_replays();
    }
}

#[test]
fn many_culprits_end_too() {
    let database = with("CREATE TABLE t (a PRIMARY KEY); INSERT INTO t VALUES (0)");
    let statements: Vec<String> = (1..40)
        .flat_map(|number| [format!("INSERT INTO t VALUES ({number})"), "INSERT OR ROLLBACK INTO t VALUES (0)".into()])
        .collect();
    let statements: Vec<&str> = statements.iter().map(String::as_str).collect();
    let (told, _) = together(&database, &statements);
    for pair in told.chunks(2) {
        assert_eq!(pair, ["INSERT 0 1", "23505"]);
    }
    assert_eq!(database.session().rows("SELECT count(*) FROM t"), [["40"]]);
    database.assert_replays();
}

#[test]
fn who_is_cancelled_in_mid_statement_fails_alone() {
    let database = with("CREATE TABLE t (a)");
    let endless = "INSERT INTO t WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n";
    let mut holder = database.session();
    holder.ok("BEGIN; DELETE FROM held");
    let (mut first, mut culprit, mut last) = (database.session(), database.session(), database.session());
    first.begin("INSERT INTO t VALUES (1)");
    culprit.begin(endless);
    last.begin("INSERT INTO t VALUES (2)");
    holder.ok("COMMIT");
    let over = Arc::new(AtomicUsize::new(0));
    let (seen, interrupt) = (Arc::clone(&over), culprit.0.interrupter());
    let canceller = std::thread::spawn(move || {
        // The statement runs from some moment on; whenever it does, it is met.
        while seen.load(Ordering::SeqCst) == 0 {
            interrupt.interrupt();
            std::thread::yield_now();
        }
    });
    let told = [first.told(), culprit.told(), last.told()];
    over.store(1, Ordering::SeqCst);
    canceller.join().unwrap();
    assert_eq!(told, ["INSERT 0 1", "57014", "INSERT 0 1"]);
    assert_eq!(first.rows("SELECT a FROM t ORDER BY a"), [["1"], ["2"]]);
    database.assert_replays();
}

#[test]
fn who_is_cancelled_in_the_queue_hears_at_once() {
    let database = with("CREATE TABLE t (a)");
    let mut holder = database.session();
    holder.ok("BEGIN; INSERT INTO t VALUES (1)");
    let (mut single, mut block) = (database.session(), database.session());
    single.begin("INSERT INTO t VALUES (2)");
    block.ok("BEGIN; SAVEPOINT s");
    block.begin("INSERT INTO t VALUES (3)");
    for client in [&mut single, &mut block] {
        client.0.interrupter().interrupt();
        assert_eq!(client.told(), "57014");
    }
    block.ok("ROLLBACK TO s");
    holder.ok("COMMIT");
    block.ok("INSERT INTO t VALUES (4); COMMIT");
    assert_eq!(single.rows("SELECT a FROM t ORDER BY a"), [["1"], ["4"]]);
}

#[test]
fn who_is_cancelled_before_the_queue_does_not_stay_in_it() {
    let database = with("CREATE TABLE t (a)");
    let turnstile = &database.engine.shared.turnstile;
    let turn = turnstile.acquire(WRITER_WAIT, &AtomicBool::new(false)).unwrap();
    let control = Control::new(Arc::clone(&database.engine.shared));
    control.begin();
    control.interrupt();
    let (tell, told) = std::sync::mpsc::channel();
    let start = Box::new(move |granted| tell.send(granted).unwrap());
    control.queue(|| turnstile.queue_transaction(WRITER_WAIT, start));
    assert_eq!(told.try_recv().unwrap(), Err(Waited::Cancelled));
    turnstile.release(turn);
}

#[test]
fn an_interrupt_meets_a_statement_on_its_way_and_none_of_the_next_query() {
    let database = with("CREATE TABLE t (a)");
    let mut client = database.session();
    let interrupter = client.0.interrupter();
    let execute = |client: &mut Client, sql: &str, scope| {
        client.0.execute(sql, &[], scope, &mut Seen::default()).map(|tag| tag.0).map_err(|error| error.state.0)
    };
    for (sql, tag) in [
        ("SELECT count(*) FROM t", "SELECT 1"),
        ("CREATE TABLE u (a)", "CREATE TABLE"),
        ("WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x", "INSERT 0 1"),
        ("CREATE TEMP TABLE v (a)", "CREATE TABLE"),
    ] {
        client.0.forget_interrupts();
        let started = client.0.start(sql, &Arc::default(), Scope::Single, Reply::default());
        assert!(matches!(started, Started::Blocks(_)), "{sql}");
        interrupter.interrupt();
        assert_eq!(execute(&mut client, sql, Scope::Single), Err("57014"), "{sql}");
        client.0.forget_interrupts();
        assert_eq!(execute(&mut client, sql, Scope::Single), Ok(tag.to_owned()), "{sql}");
    }
    client.0.forget_interrupts();
    execute(&mut client, "INSERT INTO t VALUES (2)", Scope::Implicit).unwrap();
    interrupter.interrupt();
    assert_eq!(execute(&mut client, "INSERT INTO t VALUES (3)", Scope::Implicit), Err("57014"));
    client.0.end_implicit(false).unwrap();
    assert_eq!(client.rows("SELECT a FROM t"), [["1"]]);
}

/// Interrupts a statement that is compiled and has not taken its first step.
struct Interrupting(Arc<dyn Interrupt>);

impl ResultSink for Interrupting {
    fn columns(&mut self, _: &[Column]) -> Result<(), SqlError> {
        self.0.interrupt();
        Ok(())
    }

    fn row(&mut self, _: &[Value<'_>]) -> Result<(), SqlError> {
        Ok(())
    }

    fn notice(&mut self, _: &SqlError) -> Result<(), SqlError> {
        Ok(())
    }
}

#[test]
fn an_interrupt_before_the_first_step_of_a_read_is_not_forgotten() {
    let database = with("CREATE TABLE t (a); INSERT INTO t VALUES (1)");
    let mut client = database.session();
    let long =
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000000) SELECT max(i) FROM n, t";
    let mut sink = Interrupting(client.0.interrupter());
    for modes in ["READ COMMITTED", "SERIALIZABLE"] {
        client.ok(&format!("BEGIN ISOLATION LEVEL {modes}; SELECT a FROM t; SAVEPOINT s"));
        assert_eq!(client.0.execute(long, &[], Scope::Single, &mut sink).unwrap_err().state.0, "57014");
        client.ok("ROLLBACK TO s; UPDATE t SET a = a + 1; COMMIT");
    }
    // What follows is not meant, and the state that was held is left.
    assert_eq!(client.0.execute(long, &[], Scope::Single, &mut sink).unwrap_err().state.0, "57014");
    database.session().ok("UPDATE t SET a = a + 1");
    assert_eq!(client.rows("SELECT a FROM t"), [["4"]]);
}

#[test]
fn waiting_for_the_writer_is_bounded() {
    let database = with("CREATE TABLE t (a)");
    let mut holder = database.session();
    holder.ok("BEGIN; INSERT INTO t VALUES (1)");
    let begun = Instant::now();
    let (mut single, mut block) = (database.session(), database.session());
    single.begin("INSERT INTO t VALUES (2)");
    block.ok("BEGIN");
    block.begin("INSERT INTO t VALUES (3)");
    // Others read meanwhile, and do not wait.
    assert_eq!(database.session().rows("SELECT count(*) FROM t"), [["0"]]);
    assert!(begun.elapsed() < WRITER_WAIT);
    assert_eq!((single.told(), block.told()), ("55P03".into(), "55P03".into()));
    assert!(begun.elapsed() >= WRITER_WAIT);
    holder.ok("COMMIT");
    single.ok("INSERT INTO t VALUES (4)");
    assert_eq!(block.tag("COMMIT"), "ROLLBACK");
    assert_eq!(single.rows("SELECT a FROM t"), [["1"], ["4"]]);
}

#[test]
fn nobody_sees_what_is_not_committed_in_the_log() {
    let database = with("CREATE TABLE t (a)");
    let mut reader = database.session();
    let looks = Arc::new(AtomicUsize::new(0));
    let looked = Arc::clone(&looks);
    let look = move || {
        assert_eq!(reader.rows("SELECT count(*) FROM t"), [["0"]]);
        looked.fetch_add(1, Ordering::SeqCst);
    };
    database.log.0.lock().on_commit = Some(Box::new(look));
    let (told, _) = together(&database, &["INSERT INTO t VALUES (1)", "INSERT INTO t VALUES (2)"]);
    database.log.0.lock().on_commit = None;
    assert_eq!((told, looks.load(Ordering::SeqCst)), (vec!["INSERT 0 1".to_owned(); 2], 1));
    assert_eq!(database.session().rows("SELECT count(*) FROM t"), [["2"]]);
}

#[test]
fn a_log_that_refuses_fails_all_of_a_group_and_leaves_nothing() {
    let database = with("CREATE TABLE t (a)");
    let two = ["INSERT INTO t VALUES (1)", "INSERT INTO t VALUES (2)"];
    database.log.0.lock().append_failures.push(AppendError::DiskFull);
    assert_eq!(together(&database, &two), (vec!["53100".to_owned(); 2], 0));
    // What fits no record together is not refused for that.
    let failure = AppendError::TooLarge { len_bytes: 9, limit_bytes: 8 };
    database.log.0.lock().append_failures.push(failure);
    assert_eq!(together(&database, &two), (vec!["INSERT 0 1".to_owned(); 2], 2));
    database.log.0.lock().commit_failure = Some(CommitError::Fenced);
    assert_eq!(together(&database, &two).0, vec!["08007".to_owned(); 2]);
    assert_eq!(database.session().rows("SELECT count(*) FROM t"), [["2"]]);
    assert_eq!(database.session().fails("INSERT INTO t VALUES (3)"), "58030");
}

#[test]
fn values_that_trade_places_between_statements_replay() {
    let database = with("CREATE TABLE t (id INTEGER PRIMARY KEY, u UNIQUE); INSERT INTO t VALUES (1, 1), (2, 2)");
    let statements = [
        "UPDATE t SET u = 3 WHERE id = 1",
        "UPDATE t SET u = 1 WHERE id = 2",
        "UPDATE t SET u = 2 WHERE id = 1",
        "INSERT INTO t VALUES (5, 5)",
        "DELETE FROM t WHERE id = 5",
        "INSERT INTO t VALUES (6, 5)",
    ];
    assert_eq!(together(&database, &statements).1, 1);
    assert_eq!(database.session().rows("SELECT * FROM t"), [["1", "2"], ["2", "1"], ["6", "5"]]);
    database.assert_replays();
}

#[test]
fn rows_that_are_too_many_for_a_group_come_all_the_same() {
    let database = with("CREATE TABLE t (a INTEGER PRIMARY KEY, b)");
    let many = "INSERT INTO t (b) WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 9000) \
                SELECT i FROM n RETURNING a, b";
    let mut client = database.session();
    client.begin(many);
    let (outcome, reply) = client.finish();
    assert!(outcome.is_err() && reply.is_full());
    assert_eq!(client.rows("SELECT count(*) FROM t"), [["0"]]);
    assert_eq!(client.tag(many), "INSERT 0 9000");
    database.assert_replays();
}

#[test]
fn whoever_is_demoted_ends_groups_too() {
    use mainstay::engine::Engine;
    let database = with("CREATE TABLE t (a)");
    let mut holder = database.session();
    holder.ok("BEGIN; INSERT INTO t VALUES (1)");
    let mut waiting = database.session();
    waiting.begin("INSERT INTO t VALUES (2)");
    database.engine.demote();
    assert_eq!(waiting.told(), "25006");
    assert_eq!(holder.fails("INSERT INTO t VALUES (3)"), "25006");
    assert_eq!(database.session().rows("SELECT count(*) FROM t"), [["0"]]);
}

#[test]
fn only_reads_of_a_moment_run_where_nothing_may_block() {
    let database = with("CREATE TABLE t (a INTEGER PRIMARY KEY, b); CREATE VIEW v AS SELECT count(*) FROM t");
    let numbers = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300) SELECT i, i FROM n";
    let mut client = database.session();
    client.ok(&format!("INSERT INTO t {numbers}"));
    let mut blocks = |sql: &str| match client.0.start(sql, &Arc::default(), Scope::Single, Reply::default()) {
        Started::Blocks(reply) => !reply.is_full(),
        Started::Done(outcome, _) => outcome.map(|_| false).unwrap(),
        Started::Elsewhere => panic!("{sql} went elsewhere"),
    };
    // The connection to read with is opened elsewhere.
    assert!(blocks("SELECT b FROM t WHERE a = 5"));
    client.ok("SELECT b FROM t WHERE a = 5");
    let mut blocks = |sql: &str| match client.0.start(sql, &Arc::default(), Scope::Single, Reply::default()) {
        Started::Blocks(reply) => !reply.is_full(),
        Started::Done(outcome, _) => outcome.map(|_| false).unwrap(),
        Started::Elsewhere => panic!("{sql} went elsewhere"),
    };
    // Also when it comes from the cache.
    for _ in 0..2 {
        assert!(!blocks("SELECT b FROM t WHERE a = 5"));
        assert!(!blocks("VALUES (1)"));
        assert!(!blocks("BEGIN") && !blocks("SELECT a FROM t LIMIT 3") && !blocks("COMMIT"));
        // One call is one step, however long it takes.
        assert!(blocks("SELECT count(*) FROM t"));
        assert!(blocks("SELECT * FROM v"));
        assert!(blocks("SELECT * FROM pragma_table_list"));
        assert!(blocks("PRAGMA integrity_check"));
        // Too many steps.
        assert!(blocks("SELECT x.a FROM t x, t y, t z WHERE x.a + y.a + z.a < 0"));
    }
    assert_eq!(client.rows("SELECT count(*) FROM t"), [["300"]]);
}

#[test]
fn a_read_that_takes_long_holds_no_state() {
    let database = with("CREATE TABLE t (a)");
    let mut client = database.session();
    client.ok("SELECT 1 FROM t");
    let long = "SELECT i FROM (WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000) \
                SELECT i FROM n) WHERE i < 0";
    // SQLite counts the steps of a compiled statement over all its runs, so that the one that ends the transaction comes
    // to a look at the budget after some hundreds.
    for _ in 0..1000 {
        let started = client.0.start(long, &Arc::default(), Scope::Single, Reply::default());
        assert!(matches!(started, Started::Blocks(_)));
    }
    database.session().ok("INSERT INTO t VALUES (1)");
    assert_eq!(client.rows("SELECT count(*) FROM t"), [["1"]]);
}

#[test]
fn errors_that_come_of_what_was_not_committed_are_not_told() {
    let database = with("CREATE TABLE t (a PRIMARY KEY); INSERT INTO t VALUES (0)");
    database.log.0.lock().append_failures.push(AppendError::DiskFull);
    let three = ["INSERT INTO t VALUES (0)", "INSERT INTO t VALUES (1)", "INSERT INTO t VALUES (1)"];
    assert_eq!(together(&database, &three).0, ["23505", "53100", "53100"]);
    // One that ended the transaction of all, and then was not run with them again.
    database.log.0.lock().append_failures.push(AppendError::DiskFull);
    let two = ["INSERT INTO t VALUES (1)", "INSERT OR ROLLBACK INTO t VALUES (1)"];
    assert_eq!(together(&database, &two).0, ["53100", "INSERT 0 1"]);
    assert_eq!(database.session().rows("SELECT a FROM t ORDER BY a"), [["0"], ["1"]]);
    database.assert_replays();
}

#[test]
fn what_one_did_does_not_fail_the_commit_of_others() {
    let database = with("CREATE TABLE t (a INTEGER PRIMARY KEY AUTOINCREMENT); INSERT INTO t VALUES (1)");
    let statements =
        ["INSERT INTO held VALUES (1)", "UPDATE sqlite_sequence SET seq = 'x'", "INSERT INTO held VALUES (2)"];
    assert_eq!(together(&database, &statements).0, ["INSERT 0 1", "XX000", "INSERT 0 1"]);
    assert_eq!(database.session().rows("SELECT a FROM held ORDER BY a"), [["1"], ["2"]]);
    database.assert_replays();
}

#[test]
fn a_group_ends_though_a_demotion_waits_for_who_holds_the_log() {
    use mainstay::engine::Engine;
    let database = with("CREATE TABLE t (a)");
    let mut holder = database.session();
    holder.ok("BEGIN; DELETE FROM held");
    let mut client = database.session();
    client.begin("INSERT INTO t VALUES (1)");
    let log = &database.engine.shared.log;
    std::thread::scope(|scope| {
        // As one does who commits and waits for the writer.
        let held = log.read();
        scope.spawn(|| database.engine.demote());
        while log.try_read().is_some() {
            std::thread::yield_now();
        }
        holder.ok("ROLLBACK");
        assert_eq!(client.told(), "25006");
        drop(held);
    });
    assert_eq!(client.fails("INSERT INTO t VALUES (2)"), "25006");
}
