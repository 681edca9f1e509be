//! What a transaction did is bounded as a whole, however it was cut.

use rusqlite::types::ValueRef;

use super::test_support::{Client, Database, Seen, WRITER_WAIT};
use super::writer::Writer;

const LIMIT_BYTES: usize = 20_000;
const ROW: &str = "INSERT INTO t (v) VALUES (zeroblob(1000))";
/// So many such rows fit.
const ROWS: std::ops::Range<usize> = 15..20;

/// Does something with the writer of a database.
fn on_writer(database: &Database, work: impl FnOnce(&mut Writer)) {
    let turnstile = &database.engine.shared.turnstile;
    let turn = turnstile.acquire(WRITER_WAIT, &false.into()).unwrap();
    work(&mut turnstile.writer(turn).unwrap());
    turnstile.release(turn);
}

fn small() -> (Database, Client) {
    let database = Database::new();
    on_writer(&database, |writer| writer.limit_to(LIMIT_BYTES));
    let mut client = database.session();
    client.ok("CREATE TABLE t (k INTEGER PRIMARY KEY, v)");
    (database, client)
}

/// Runs what `next` answers until that fails; answers how often it did not, and with what.
fn until_refused(client: &mut Client, next: impl Fn(usize) -> String) -> (usize, &'static str) {
    for done in 0..1000 {
        if let Err(error) = client.run(&next(done)) {
            return (done, error.state.0);
        }
    }
    panic!("nothing was refused");
}

#[test]
fn savepoints_make_no_room_but_rolling_back_to_them_does() {
    let (database, mut client) = small();
    client.ok("BEGIN");
    let (done, state) = until_refused(&mut client, |number| format!("SAVEPOINT s{number}; {ROW}"));
    assert_eq!(state, "54000");
    assert!(ROWS.contains(&done), "{done}");
    assert_eq!(client.fails(ROW), "25P02");
    client.ok(&format!("ROLLBACK TO s{done}"));
    assert_eq!(client.fails(ROW), "54000");
    let kept = done - 5;
    client.ok(&format!("ROLLBACK TO s{kept}; {ROW}; {ROW}; SAVEPOINT again; {ROW}; {ROW}; COMMIT"));
    assert_eq!(client.rows("SELECT count(*) FROM t"), [[(kept + 4).to_string()]]);
    assert!(database.records().last().unwrap().payload.len() <= LIMIT_BYTES);
    database.assert_replays();
}

#[test]
fn what_is_released_or_followed_by_ddl_still_counts() {
    for cut in ["SAVEPOINT s; RELEASE s", "CREATE TABLE u (a); DROP TABLE u"] {
        let (database, mut client) = small();
        client.ok("BEGIN");
        let (done, state) = until_refused(&mut client, |_| format!("{ROW}; {cut}"));
        assert_eq!(state, "54000", "{cut}");
        assert!(ROWS.contains(&done), "{cut}: {done}");
        client.ok("ROLLBACK");
        // The next transaction has all of it again.
        client.ok(&format!("BEGIN; {ROW}; SAVEPOINT s; {ROW}; COMMIT"));
        assert_eq!(client.rows("SELECT count(*) FROM t"), [["2"]], "{cut}");
        database.assert_replays();
    }
}

#[test]
fn texts_of_ddl_count() {
    let (database, mut client) = small();
    let column = "c".repeat(1000);
    client.ok("BEGIN");
    let (done, state) = until_refused(&mut client, |number| format!("CREATE TABLE u{number} ({column})"));
    assert_eq!((state, ROWS.contains(&done)), ("54000", true), "{done}");
    client.ok("ROLLBACK");
    assert_eq!(client.rows("SELECT name FROM sqlite_schema WHERE name LIKE 'u%'"), [[""; 0]; 0]);
    database.assert_replays();
}

#[test]
fn rows_of_copy_count_beside_what_was_before_them() {
    let (database, _) = small();
    let columns = ["k".to_owned(), "v".to_owned()];
    on_writer(&database, |writer| {
        writer.begin().unwrap();
        for _ in 0..10 {
            writer.execute(ROW, &[], &mut Seen::default()).unwrap();
            writer.savepoint("s").unwrap();
        }
        writer.begin_rows("t", &columns).unwrap();
        let mut key = 100;
        let copied = writer.insert_rows("INSERT INTO t (k, v) VALUES (?1, ?2)", |_, parameters| {
            key += 1;
            parameters.put(ValueRef::Integer(key))?;
            parameters.put(ValueRef::Blob(&[0; 1000]))?;
            Ok(key < 200)
        });
        assert_eq!((copied.unwrap_err().state.0, (105..111).contains(&key)), ("54000", true), "{key}");
        writer.rollback_to("s").unwrap();
        writer.execute(ROW, &[], &mut Seen::default()).unwrap();
        writer.commit(&database.log).unwrap();
    });
    assert_eq!(database.session().rows("SELECT count(*) FROM t"), [["11"]]);
    database.assert_replays();
}

#[test]
fn savepoints_are_not_without_number() {
    let (_database, mut client) = small();
    client.ok("BEGIN");
    client.ok("SAVEPOINT first");
    let refused = (1..70_000).find_map(|standing| Some((standing, client.run("SAVEPOINT s").err()?.state.0)));
    assert_eq!(refused, Some((65_536, "54000")));
    client.ok(&format!("ROLLBACK TO first; SAVEPOINT s; {ROW}; COMMIT"));
}
