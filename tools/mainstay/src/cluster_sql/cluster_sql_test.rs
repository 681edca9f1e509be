//! Statements about the cluster, in front of an engine and without one.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use mainstay::cluster::rpc::proto::{RaftGroup, Replica};
use mainstay::ident::{ClusterId, SystemId};
use mainstay::meta::memory::MemoryMetadata;
use mainstay::meta::proto::MemberSpec;
use mainstay::server::pg::{Column, Value};
use parking_lot::Mutex;

use super::*;

/// A cluster of one member whose metadata is in memory.
struct Face {
    meta: Meta,
    asked: Mutex<Vec<String>>,
}

#[tonic::async_trait]
impl ClusterFace for Face {
    fn meta(&self) -> Meta {
        self.meta.clone()
    }

    fn status(&self) -> StatusResponse {
        let replica = |node| Replica { replica: node + 10, node, matched: Some(5), ..Replica::default() };
        let (leader, term) = (1, 7);
        let group = RaftGroup { leader, term, replicas: vec![replica(1), replica(2)], ..RaftGroup::default() };
        StatusResponse { node: 1, groups: vec![group], ..StatusResponse::default() }
    }

    fn primary(&self) -> Option<String> {
        Some("10.0.0.1:5432".to_owned())
    }

    async fn set_vote(
        &self,
        group: GroupId,
        node: NodeId,
        votes: bool,
        actor: &str,
    ) -> Result<Option<String>, Refused> {
        if !votes {
            return Err(SqlError::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, format!("{node} of {group} stays")));
        }
        self.asked.lock().push(format!("{actor} adds {node} to {group}"));
        Ok((node.get() == 3).then(|| "later".to_owned()))
    }

    async fn remove_node(&self, node: NodeId, actor: &str) -> Result<(), Refused> {
        self.asked.lock().push(format!("{actor} removes {node}"));
        Ok(())
    }
}

/// An engine that answers everything with its own name.
struct Engine(Arc<Mutex<TransactionStatus>>, Arc<AtomicBool>);

impl Backend for Engine {
    fn connect(&self, _: &ClientInfo) -> Result<Box<dyn Session>, SqlError> {
        Ok(Box::new(EngineSession(Arc::clone(&self.0), Arc::clone(&self.1))))
    }
}

/// Where it stands, and whether it rests, until it is to forget interrupts.
struct EngineSession(Arc<Mutex<TransactionStatus>>, Arc<AtomicBool>);

struct Never;

impl Interrupt for Never {
    fn interrupt(&self) {}
}

impl Session for EngineSession {
    fn split<'a>(&self, sql: &'a str) -> Vec<&'a str> {
        vec![sql]
    }

    fn describe(&mut self, _: &str, _: &[PgType]) -> Result<Description, SqlError> {
        Ok(Description::default())
    }

    fn execute(&mut self, _: &str, _: &[OwnedValue], _: Scope, _: &mut dyn ResultSink) -> Result<CommandTag, SqlError> {
        Ok(CommandTag("ENGINE".to_owned()))
    }

    fn rest(&mut self) {
        self.1.store(true, Ordering::SeqCst);
    }

    fn forget_interrupts(&mut self) {
        self.1.store(false, Ordering::SeqCst);
    }

    fn changed_settings(&mut self) -> Vec<(&'static str, String)> {
        vec![("application_name", "engine".to_owned())]
    }

    fn end_implicit(&mut self, _: bool) -> Result<(), SqlError> {
        Ok(())
    }

    fn fail_transaction(&mut self) {
        let mut status = self.0.lock();
        if *status == TransactionStatus::InTransaction {
            *status = TransactionStatus::Failed;
        }
    }

    fn transaction_status(&self) -> TransactionStatus {
        *self.0.lock()
    }

    fn interrupter(&self) -> Arc<dyn Interrupt> {
        Arc::new(Never)
    }
}

/// What was sent, as text.
#[derive(Default)]
struct Sent {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
    notices: Vec<String>,
}

impl ResultSink for Sent {
    fn columns(&mut self, columns: &[Column]) -> Result<(), SqlError> {
        self.columns = columns.to_vec();
        Ok(())
    }

    fn row(&mut self, values: &[Value<'_>]) -> Result<(), SqlError> {
        assert_eq!(values.len(), self.columns.len());
        self.rows.push(
            values
                .iter()
                .map(|value| match value {
                    Value::Text(text) => (*text).to_owned(),
                    Value::Integer(number) => number.to_string(),
                    _ => "NULL".to_owned(),
                })
                .collect(),
        );
        Ok(())
    }

    fn notice(&mut self, notice: &SqlError) -> Result<(), SqlError> {
        self.notices.push(notice.message.clone());
        Ok(())
    }
}

struct Test {
    runtime: tokio::runtime::Runtime,
    face: Arc<Face>,
    status: Arc<Mutex<TransactionStatus>>,
    rests: Arc<AtomicBool>,
}

impl Test {
    fn new() -> Test {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let meta = Meta::new(Arc::new(MemoryMetadata::new()), "a test");
        let first = MemberSpec {
            name: "north".into(),
            addresses: vec!["10.0.0.1:7000".into()],
            secret_hash: vec![1; 32],
            version: 1,
            ..MemberSpec::default()
        };
        runtime.block_on(meta.members().form(ClusterId::new(0xc0ffee), SystemId::new(8), first)).unwrap();
        let status = Arc::new(Mutex::new(TransactionStatus::Idle));
        Test { runtime, face: Arc::new(Face { meta, asked: Mutex::default() }), status, rests: Arc::default() }
    }

    fn session(&self, is_superuser: bool, has_engine: bool) -> Box<dyn Session> {
        let _entered = self.runtime.enter();
        let engine =
            has_engine.then(|| Arc::new(Engine(Arc::clone(&self.status), Arc::clone(&self.rests))) as Arc<dyn Backend>);
        let backend = ClusterBackend::new(Arc::clone(&self.face) as _, engine);
        backend.connect(&ClientInfo { user: "ann".into(), is_superuser, ..ClientInfo::default() }).unwrap()
    }
}

fn run(session: &mut Box<dyn Session>, sql: &str) -> Result<(String, Vec<Vec<String>>), SqlError> {
    let mut sent = Sent::default();
    let tag = session.execute(sql, &[], Scope::Single, &mut sent)?;
    let described = session.describe(sql, &[])?.columns;
    assert_eq!(described, sent.columns, "{sql}");
    Ok((tag.0, sent.rows))
}

fn state(session: &mut Box<dyn Session>, sql: &str) -> &'static str {
    run(session, sql).unwrap_err().state.0
}

#[test]
fn the_cluster_is_shown_on_every_node() {
    let test = Test::new();
    for has_engine in [true, false] {
        let mut session = test.session(false, has_engine);
        let session = &mut session;
        let (tag, rows) = run(session, "SHOW CLUSTER").unwrap();
        assert_eq!(tag, "SHOW");
        assert_eq!(rows[0][..6], ["0000000000c0ffee", "0000000000000008", "1", "1", "1", "7"]);
        let (_, rows) = run(session, "show nodes").unwrap();
        assert_eq!(rows[0][..6], ["1", "north", "10.0.0.1:7000", "active", "leader", "1"]);
        assert_eq!(run(session, "SHOW NODE 1").unwrap().1, rows);
        assert_eq!(state(session, "SHOW NODE 9"), "42704");
        assert_eq!(run(session, "SHOW SETTINGS").unwrap().1.len(), 8);
        assert_eq!(run(session, "SHOW EVENTS").unwrap().1[0][2], "cluster formed");
        assert_eq!(run(session, "SHOW RAFT GROUPS").unwrap().1[0][7], "1,2");
        let replicas = run(session, "SHOW RAFT GROUP 0").unwrap().1;
        assert_eq!(replicas[1], ["12", "2", "voter", "5", "NULL"]);
        assert_eq!(state(session, "SHOW RAFT GROUP 5"), "42704");
        assert_eq!(state(session, "SHOW NODE x"), "42601");
    }
}

#[test]
fn everything_else_is_the_engines_or_is_refused_with_the_primary() {
    let test = Test::new();
    assert_eq!(run(&mut test.session(false, true), "SELECT 1").unwrap().0, "ENGINE");
    let mut without = test.session(false, false);
    for sql in ["SELECT 1", "BEGIN", "SHOW wal"] {
        let error = run(&mut without, sql).unwrap_err();
        assert_eq!(error.state.0, "25006", "{sql}");
        assert!(error.hint.is_some_and(|hint| hint.contains("10.0.0.1:5432")));
    }
    assert_eq!(without.split("SHOW NODES; SELECT ';'").len(), 2);
}

#[test]
fn what_the_server_asks_of_a_session_beside_statements_is_the_engines() {
    let test = Test::new();
    let mut session = test.session(false, true);
    assert_eq!(session.changed_settings(), [("application_name", "engine".to_owned())]);
    assert!(!test.rests.load(Ordering::SeqCst));
    session.rest();
    assert!(test.rests.load(Ordering::SeqCst));
    session.forget_interrupts();
    assert!(!test.rests.load(Ordering::SeqCst));
    let mut without = test.session(false, false);
    without.rest();
    without.forget_interrupts();
    assert!(without.changed_settings().is_empty());
}

#[test]
fn superusers_change_it_and_nobody_else() {
    let test = Test::new();
    let mut anybody = test.session(false, true);
    for sql in
        ["ALTER SYSTEM SET kv.max_leases = 7", "ALTER SYSTEM RESET a", "REMOVE NODE 1", "ALTER RAFT GROUP 0 ADD NODE 2"]
    {
        assert_eq!(state(&mut anybody, sql), "42501", "{sql}");
    }
    let mut session = test.session(true, true);
    let session = &mut session;
    assert_eq!(run(session, "ALTER SYSTEM SET kv.max_leases = 7").unwrap().0, "ALTER SYSTEM");
    let settings = run(session, "SHOW SETTINGS").unwrap().1;
    let leases = settings.iter().find(|row| row[0] == "kv.max_leases").unwrap();
    assert_eq!(leases[1..3], ["7", "1"]);
    let events = run(session, "SHOW EVENTS").unwrap().1;
    assert_eq!(events.last().unwrap()[2..], ["setting set", "kv.max_leases", "100000 → 7", "ann", "SQL"]);
    run(session, "ALTER SYSTEM RESET kv.max_leases").unwrap();
    let error = run(session, "ALTER SYSTEM SET kv.quota_bytes = '9 GiB'").unwrap_err();
    assert_eq!(error.state.0, "22023");
    assert!(error.message.contains("1 MiB to 8 GiB"), "{}", error.message);
    assert_eq!(state(session, "ALTER SYSTEM SET no.such = 1"), "42704");
    for (sql, notices) in [("ALTER RAFT GROUP 0 ADD NODE 2", &[][..]), ("ALTER RAFT GROUP 0 ADD NODE 3", &["later"])] {
        let mut sent = Sent::default();
        assert_eq!(session.execute(sql, &[], Scope::Single, &mut sent).unwrap().0, "ALTER RAFT GROUP");
        assert_eq!(sent.notices, notices);
    }
    assert_eq!(state(session, "ALTER RAFT GROUP 0 REMOVE NODE 2"), "55000");
    assert_eq!(run(session, "REMOVE NODE 2").unwrap().0, "REMOVE NODE");
    assert_eq!(*test.face.asked.lock(), ["ann adds 2 to 0", "ann adds 3 to 0", "ann removes 2"]);

    *test.status.lock() = TransactionStatus::InTransaction;
    run(session, "SHOW NODES").unwrap();
    assert_eq!(state(session, "ALTER SYSTEM RESET kv.max_leases"), "25001");
    // As any error of a statement it failed the transaction.
    assert_eq!(*test.status.lock(), TransactionStatus::Failed);
    assert_eq!(state(session, "SHOW NODES"), "25P02");
}

#[test]
fn who_waits_for_a_leader_can_be_cancelled() {
    /// It never has a leader.
    struct Nobody(MemoryMetadata);

    #[tonic::async_trait]
    impl mainstay::meta::service::Metadata for Nobody {
        async fn execute(
            &self,
            _: mainstay::meta::proto::Command,
            _: Instant,
        ) -> Result<mainstay::meta::proto::Done, mainstay::meta::service::MetaError> {
            std::future::pending().await
        }

        async fn execute_named(
            &self,
            _: mainstay::raftstore::context::Attempt,
            _: mainstay::meta::proto::Command,
            _: Instant,
        ) -> Result<mainstay::meta::proto::Done, mainstay::meta::service::MetaError> {
            std::future::pending().await
        }

        async fn barrier(&self, _: Instant) -> Result<(), mainstay::meta::service::MetaError> {
            std::future::pending().await
        }

        fn view(&self) -> Arc<dyn mainstay::meta::view::View> {
            self.0.view()
        }

        fn progress(&self) -> tokio::sync::watch::Receiver<mainstay::meta::apply::Reached> {
            self.0.progress()
        }
    }

    let mut test = Test::new();
    let meta = Meta::new(Arc::new(Nobody(MemoryMetadata::new())), "a test");
    test.face = Arc::new(Face { meta, asked: Mutex::default() });
    let mut session = test.session(false, false);
    let interrupter = session.interrupter();
    let ended = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let canceller = std::thread::spawn({
        let ended = Arc::clone(&ended);
        // Until it is heard: it may not wait yet.
        move || {
            while !ended.load(std::sync::atomic::Ordering::SeqCst) {
                interrupter.interrupt();
                std::thread::yield_now();
            }
        }
    });
    assert_eq!(state(&mut session, "SHOW NODES"), "57014");
    ended.store(true, std::sync::atomic::Ordering::SeqCst);
    canceller.join().unwrap();
}
