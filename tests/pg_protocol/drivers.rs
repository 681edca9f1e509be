//! What psql and tokio-postgres see.

use std::sync::atomic::Ordering;

use mainstay::server::pg::{PgConfig, PgServer, ServerError};
use tokio_postgres::error::SqlState;
use tokio_postgres::{NoTls, SimpleQueryMessage};

use crate::raw::{Socket, bind, execute, message, parse, sync};
use crate::{Rig, eventually, fake, psql};

#[tokio::test(flavor = "multi_thread")]
async fn psql_runs_statements_and_sees_rows_notices_and_errors() {
    let rig = Rig::start().await;
    assert_eq!(psql(rig.port(), &["-c", "select 42"]).await, (true, "42\n".into(), String::new()));
    let (ok, _, errors) = psql(rig.port(), &["-v", "VERBOSITY=verbose", "-c", "error 23505"]).await;
    assert!(!ok);
    assert_eq!(errors, "ERROR:  23505: as asked\nDETAIL:  a detail\n");
    let (ok, _, notices) = psql(rig.port(), &["-c", "notice"]).await;
    assert!(ok);
    assert_eq!(notices, "NOTICE:  look here\n");
    assert!(psql(rig.port(), &["-c", ";"]).await.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn server_introduces_itself_as_postgresql_15() {
    let rig = Rig::start().await;
    let script = r"\echo :SERVER_VERSION_NAME :SERVER_VERSION_NUM :ENCODING";
    let (ok, output, errors) = psql(rig.port(), &["-c", script]).await;
    assert!(ok, "{errors}");
    assert!(output.starts_with("15.0 (Mainstay "), "{output}");
    assert!(output.ends_with(" 150000 UTF8\n"), "{output}");
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_role_and_database_are_refused_by_the_backend() {
    let rig = Rig::start().await;
    let (ok, _, errors) = psql(rig.port(), &["-d", "elsewhere", "-c", "select 1"]).await;
    assert!(!ok);
    assert!(errors.contains("FATAL:  database \"elsewhere\" does not exist"), "{errors}");
    let (ok, _, errors) = psql(rig.port(), &["-U", "nobody", "-d", "postgres", "-c", "select 1"]).await;
    assert!(!ok);
    assert!(errors.contains("FATAL:  role \"nobody\" does not exist"), "{errors}");
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_of_one_string_succeed_or_fail_together() {
    let rig = Rig::start().await;
    let client = rig.connect().await;
    client.batch_execute("put a; put b").await.unwrap();
    assert_eq!(rig.fake.committed(), ["a", "b"]);
    assert_eq!(rig.fake.take_log(), ["put a Implicit", "put b Implicit", "end true"]);
    let error = client.batch_execute("put c; error 23505; put d").await.unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::UNIQUE_VIOLATION));
    assert_eq!(rig.fake.take_log(), ["put c Implicit", "error 23505 Implicit", "end false"]);
    assert_eq!(rig.fake.committed(), ["a", "b"]);
    client.batch_execute("put e").await.unwrap();
    assert_eq!(rig.fake.take_log(), ["put e Single"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_transaction_is_refused_until_it_ends() {
    let rig = Rig::start().await;
    let mut client = rig.connect().await;
    let transaction = client.transaction().await.unwrap();
    transaction.batch_execute("put a").await.unwrap();
    assert!(transaction.batch_execute("error 23505").await.is_err());
    let error = transaction.query("select 1", &[]).await.unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::IN_FAILED_SQL_TRANSACTION));
    drop(transaction);
    client.batch_execute("rollback").await.unwrap();
    assert!(rig.fake.committed().is_empty());
    assert_eq!(client.query("select 1", &[]).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_and_rows_travel_in_binary() {
    let rig = Rig::start().await;
    let client = rig.connect().await;
    let statement = client.prepare("echo bool int2 int4 int8 float4 float8 text bytea").await.unwrap();
    let (text, bytes) = ("grüße".to_owned(), vec![0_u8, 255]);
    let row = client
        .query_one(&statement, &[&true, &-2_i16, &3_i32, &i64::MIN, &0.5_f32, &f64::MAX, &text, &bytes])
        .await
        .unwrap();
    assert!(row.get::<_, bool>(0));
    assert_eq!((row.get::<_, i16>(1), row.get::<_, i32>(2), row.get::<_, i64>(3)), (-2, 3, i64::MIN));
    assert_eq!((row.get::<_, f32>(4), row.get::<_, f64>(5)), (0.5, f64::MAX));
    assert_eq!((row.get::<_, String>(6), row.get::<_, Vec<u8>>(7)), (text, bytes));
    let row = client.query_one("echo int8", &[&None::<i64>]).await.unwrap();
    assert_eq!(row.get::<_, Option<i64>>(0), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn lone_execute_commits_by_itself() {
    let rig = Rig::start().await;
    let client = rig.connect().await;
    client.execute("put a", &[]).await.unwrap();
    assert_eq!(rig.fake.take_log(), ["put a Single"]);
    assert_eq!(rig.fake.committed(), ["a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn value_that_does_not_fit_its_column_fails_in_binary_and_passes_in_text() {
    let rig = Rig::start().await;
    let client = rig.connect().await;
    let error = client.query("mismatch", &[]).await.unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::INVALID_TEXT_REPRESENTATION));
    let messages = client.simple_query("mismatch").await.unwrap();
    let row = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    assert_eq!(row, Some("not a number"));
    let error = client.query("echo numeric", &[]).await;
    assert!(error.is_err());
    rig.still_serves().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_rows_stream_through() {
    let rig = Rig::start().await;
    let client = rig.connect().await;
    assert_eq!(client.query("rows 20000", &[]).await.unwrap().len(), 20_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_a_portal_come_in_parts() {
    let rig = Rig::start().await;
    let mut client = rig.connect().await;
    let transaction = client.transaction().await.unwrap();
    let portal = transaction.bind("rows 2000", &[]).await.unwrap();
    let other = transaction.bind("rows 3", &[]).await.unwrap();
    let mut counts = Vec::new();
    for limit in [2, 998, 900, 0, 5] {
        counts.push(transaction.query_portal(&portal, limit).await.unwrap().len());
        // Others are undisturbed, and so are other statements.
        counts.push(transaction.query_portal(&other, 2).await.unwrap().len());
        assert_eq!(transaction.query("select 1", &[]).await.unwrap().len(), 1);
    }
    assert_eq!(counts, [2, 2, 998, 1, 900, 0, 100, 0, 0, 0]);
    let empty = transaction.bind("rows 0", &[]).await.unwrap();
    assert!(transaction.query_portal(&empty, 1).await.unwrap().is_empty());
    transaction.commit().await.unwrap();
    // The statement itself ran once.
    let runs = rig.fake.take_log().iter().filter(|entry| entry.starts_with("rows 2000")).count();
    assert_eq!((runs, rig.fake.rows_sent.load(Ordering::SeqCst)), (1, 2003));
}

#[tokio::test(flavor = "multi_thread")]
async fn portal_is_suspended_until_its_rows_are_fetched_or_its_transaction_ends() {
    let rig = Rig::start().await;
    let mut socket = Socket::connected(rig.port()).await;
    let fetch = |rows: u8| message(b'E', &[b'p', 0, 0, 0, 0, rows]);
    let open = [parse("s", "rows 5"), bind("p", "s")].concat();
    socket.query("begin").await;
    assert_eq!(socket.read_until_ready_or_end().await.status(), Some('T'));
    socket.send(&[open.clone(), fetch(2), fetch(2), sync()].concat()).await;
    assert_eq!(socket.read_until_ready_or_end().await.types(), "12DDsDDsZ");
    socket.send(&[fetch(2), sync()].concat()).await;
    let replies = socket.read_until_ready_or_end().await;
    assert!(replies.types() == "DCZ" && replies.has_tag("SELECT 1"), "{replies:?}");
    // As many as there are: only the next part says that it was the last.
    socket
        .send(&[bind("q", "s"), message(b'E', b"q\0\0\0\0\x05"), message(b'E', b"q\0\0\0\0\x05"), sync()].concat())
        .await;
    let replies = socket.read_until_ready_or_end().await;
    assert!(replies.types() == "2DDDDDsCZ" && replies.has_tag("SELECT 0"), "{replies:?}");
    socket.send(&[message(b'C', b"Pp\0"), fetch(1), sync()].concat()).await;
    let replies = socket.read_until_ready_or_end().await;
    assert!(replies.types() == "3EZ" && replies.has_error("34000"), "{replies:?}");
    socket.query("rollback").await;
    assert_eq!(socket.read_until_ready_or_end().await.status(), Some('I'));
    // Outside a block, the transaction ends with the Sync, and the portal with it.
    socket.send(&[bind("p", "s"), fetch(2), sync()].concat()).await;
    assert_eq!(socket.read_until_ready_or_end().await.types(), "2DDsZ");
    socket.send(&[fetch(2), sync()].concat()).await;
    assert!(socket.read_until_ready_or_end().await.has_error("34000"));
}

#[tokio::test(flavor = "multi_thread")]
async fn cancel_request_stops_the_statement_and_only_it() {
    let rig = Rig::start().await;
    let client = rig.connect().await;
    let other = rig.connect().await;
    let (token, other_token) = (client.cancel_token(), other.cancel_token());
    let sleeping = tokio::spawn(async move { (client.batch_execute("sleep").await, client) });
    let other = tokio::spawn(async move { other.batch_execute("sleep").await });
    rig.waiting(2).await;
    token.cancel_query(NoTls).await.unwrap();
    let (result, client) = sleeping.await.unwrap();
    assert_eq!(result.unwrap_err().code(), Some(&SqlState::QUERY_CANCELED));
    assert_eq!(client.query("select 1", &[]).await.unwrap().len(), 1);
    assert_eq!(rig.fake.waiting.load(Ordering::SeqCst), 1);
    other_token.cancel_query(NoTls).await.unwrap();
    assert!(other.await.unwrap().is_err());
}

/// To look through a long statement takes a while, in which other connections of the same thread would wait.
#[tokio::test]
async fn long_statements_are_not_begun_where_others_wait() {
    let rig = Rig::start().await;
    let mut socket = Socket::connected(rig.port()).await;
    let long = format!("select{}1", " ".repeat(70_000));
    let query = message(b'Q', format!("{long}\0").as_bytes());
    let prepared = [parse("s", &long), bind("", "s"), execute(""), sync()].concat();
    for bytes in [query, prepared, [bind("", "s"), execute(""), sync()].concat()] {
        rig.fake.take_begun();
        socket.send(&bytes).await;
        socket.read_until_ready_or_end().await;
        let begun = rig.fake.take_begun();
        assert!(begun.iter().any(|what| what.starts_with("run select")), "{begun:.60?}");
        assert!(!begun.iter().any(|what| what.starts_with("start")), "{begun:.60?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn interrupts_are_forgotten_when_a_query_begins_and_not_in_the_middle_of_one() {
    let rig = Rig::start().await;
    let mut socket = Socket::connected(rig.port()).await;
    socket.send(&[parse("s", "select 1"), sync()].concat()).await;
    socket.read_until_ready_or_end().await;
    assert_eq!(rig.fake.take_begun(), ["begin"]);
    let prepared = bind("", "s");
    let fetch = message(b'E', b"\0\0\0\0\x05");
    let run = |messages: &[Vec<u8>]| messages.concat();
    for (bytes, expected) in [
        // To another thread.
        (message(b'Q', b"select 1\0"), &["begin", "start select 1", "run select 1"][..]),
        (run(&[prepared.clone(), execute(""), sync()]), &["begin", "start select 1", "run select 1"]),
        (run(&[prepared.clone(), fetch, sync()]), &["begin", "run select 1"]),
        // Together.
        (message(b'Q', b"select 1; select 2\0"), &["begin", "run select 1", "run select 2"]),
        (
            run(&[prepared.clone(), execute(""), prepared.clone(), execute(""), sync()]),
            &["begin", "run select 1", "run select 1"],
        ),
        (
            run(&[prepared.clone(), execute(""), message(b'Q', b"select 2\0")]),
            &["begin", "run select 1", "run select 2"],
        ),
        // In a block, statements are started that are not alone.
        (message(b'Q', b"begin\0"), &["begin", "start begin", "run begin"]),
        (
            run(&[prepared.clone(), execute(""), prepared.clone(), execute(""), sync()]),
            &["begin", "start select 1", "run select 1", "run select 1"],
        ),
        // One behind the other.
        (message(b'Q', b"error 1\0"), &["begin", "start error 1", "run error 1"]),
        (message(b'Q', b"rollback\0"), &["begin", "start rollback", "run rollback"]),
        (
            run(&[prepared.clone(), execute(""), sync(), prepared.clone(), execute(""), sync()]),
            &["begin", "start select 1", "run select 1", "begin", "start select 1", "run select 1"],
        ),
    ] {
        let syncs = bytes.windows(5).filter(|bytes| bytes == b"S\0\0\0\x04").count().max(1);
        socket.send(&bytes).await;
        for _ in 0..syncs {
            socket.read_until_ready_or_end().await;
        }
        assert_eq!(rig.fake.take_begun(), expected);
    }
    // The client is waited for in the middle of what belongs together.
    socket.send(&[prepared.clone(), execute(""), message(b'H', b"")].concat()).await;
    while socket.read_message().await.unwrap().0 != b'C' {}
    socket.send(&[prepared.clone(), execute(""), sync()].concat()).await;
    socket.read_until_ready_or_end().await;
    assert_eq!(rig.fake.take_begun(), ["begin", "run select 1", "begin", "run select 1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn timeout_of_a_statement_that_ended_nevertheless_is_not_that_of_the_next() {
    let statement_timeout = std::time::Duration::from_millis(50);
    let rig = Rig::with(PgConfig { statement_timeout, ..PgConfig::default() }).await;
    let mut socket = Socket::connected(rig.port()).await;
    socket.query("deaf; select 1").await;
    eventually("its time runs out", || rig.fake.interrupts.load(Ordering::SeqCst) > 0).await;
    rig.fake.release();
    assert!(socket.read_until_ready_or_end().await.has_tag("SELECT 1"));
    assert_eq!(rig.fake.take_begun(), ["begin", "run deaf", "begin", "run select 1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn panic_in_a_session_ends_its_connection_only() {
    let rig = Rig::start().await;
    let client = rig.connect().await;
    let error = client.batch_execute("panic").await.unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::INTERNAL_ERROR));
    rig.sessions(0).await;
    assert!(client.batch_execute("select 1").await.is_err());
    rig.still_serves().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_more_than_the_limit_is_refused() {
    let rig = Rig::with(PgConfig { connection_limit: 2, ..PgConfig::default() }).await;
    let (_one, two) = (rig.connect().await, rig.connect().await);
    let (ok, _, errors) = psql(rig.port(), &["-c", "select 1"]).await;
    assert!(!ok);
    assert!(errors.contains("FATAL:  sorry, too many clients already"), "{errors}");
    drop(two);
    rig.sessions(1).await;
    rig.still_serves().await;
}

#[tokio::test]
async fn addresses_that_cannot_be_used_are_named() {
    let rig = Rig::start().await;
    let start = |listen| {
        let backend = std::sync::Arc::new(fake::FakeBackend(rig.fake.clone()));
        PgServer::start(PgConfig { listen, ..PgConfig::default() }, backend)
    };
    let taken = rig.server.local_addr();
    let error = start(taken).await.err().unwrap();
    assert!(matches!(error, ServerError::AddressInUse(address) if address == taken));
    assert_eq!(error.to_string(), format!("address {taken} for SQL clients is already in use"));
    let error = start("0.0.0.0:0".parse().unwrap()).await.err().unwrap();
    let message = error.to_string();
    assert!(matches!(error, ServerError::Open { .. }) && message.contains("passwords") && message.contains("TLS"));
}

#[test]
fn settings_out_of_range_are_all_named() {
    let config = PgConfig {
        connection_limit: 0,
        startup_timeout: std::time::Duration::ZERO,
        message_limit_bytes: usize::MAX,
        send_timeout: std::time::Duration::ZERO,
        idle_in_transaction_timeout: std::time::Duration::ZERO,
        ..PgConfig::default()
    };
    let message = config.validate().unwrap_err().to_string();
    for name in
        ["connection_limit", "startup_timeout", "message_limit_bytes", " send_timeout", "idle_in_transaction_timeout"]
    {
        assert!(message.contains(name), "{message}");
    }
    assert!(PgConfig::default().validate().is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn pgbench_runs_in_each_of_its_protocols() {
    let rig = Rig::start().await;
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("script.sql");
    std::fs::write(&script, "select 1;\nput a;\n").unwrap();
    for (round, protocol) in ["simple", "extended", "prepared"].into_iter().enumerate() {
        let mut command = std::process::Command::new("pgbench");
        command.args(["-n", "-c", "4", "-t", "50", "-M", protocol, "-h", "127.0.0.1", "-U", "postgres"]);
        command.args(["-p", &rig.port().to_string(), "-f"]).arg(&script).arg("postgres");
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        assert!(output.status.success(), "{protocol}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(rig.fake.committed().len(), 200 * (round + 1));
    }
}
