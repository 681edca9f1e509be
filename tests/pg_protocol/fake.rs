//! An engine of a few words, in memory: enough for every turn that the protocol can take.
//!
//! `select N`, `rows N`, `echo TYPE…` (returns its parameters), `put WORD` (a commit of `refused` fails), `begin`, `start`, `commit`, `rollback`,
//! `take` (puts each piece of a COPY's data, fails at the piece `bad`), `give N` (sends N rows as a COPY),
//! `error CODE`, `sleep` (until interrupted), `deaf` (until released), `notice`, `mismatch`, `panic`.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use mainstay::server::pg::{
    Backend, ClientInfo, Column, CommandTag, Copied, Description, Interrupt, OwnedValue, PgType, Reply, ResultSink,
    Scope, Session, SqlError, SqlState, Started, TransactionStatus, Value,
};

#[derive(Default)]
pub struct Fake {
    /// Sessions that exist.
    pub sessions: AtomicUsize,
    /// Statements that wait in `sleep` or `deaf`.
    pub waiting: AtomicUsize,
    /// Interrupts of any session.
    pub interrupts: Arc<AtomicUsize>,
    /// Rows that were handed to a sink.
    pub rows_sent: AtomicUsize,
    committed: Mutex<Vec<String>>,
    /// What sessions were asked to do, in order.
    log: Mutex<Vec<String>>,
    /// Statements that they were asked to start or run, and `begin` where interrupts before were to be forgotten.
    begun: Mutex<Vec<String>>,
    released: Mutex<bool>,
    release: Condvar,
}

impl Fake {
    pub fn committed(&self) -> Vec<String> {
        self.committed.lock().unwrap().clone()
    }

    pub fn take_log(&self) -> Vec<String> {
        std::mem::take(&mut self.log.lock().unwrap())
    }

    pub fn take_begun(&self) -> Vec<String> {
        std::mem::take(&mut self.begun.lock().unwrap())
    }

    /// Lets `deaf` statements end.
    pub fn release(&self) {
        *self.released.lock().unwrap() = true;
        self.release.notify_all();
    }

    fn note(&self, entry: String) {
        self.log.lock().unwrap().push(entry);
    }
}

pub struct FakeBackend(pub Arc<Fake>);

impl Backend for FakeBackend {
    fn connect(&self, client: &ClientInfo) -> Result<Box<dyn Session>, SqlError> {
        if client.user != "postgres" {
            let message = format!("role \"{}\" does not exist", client.user);
            return Err(SqlError::new(SqlState::INVALID_AUTHORIZATION, message));
        }
        if client.database != "postgres" {
            let message = format!("database \"{}\" does not exist", client.database);
            return Err(SqlError::new(SqlState::INVALID_CATALOG_NAME, message));
        }
        self.0.sessions.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(FakeSession {
            fake: Arc::clone(&self.0),
            interrupt: Arc::new(FakeInterrupt { seen: Arc::clone(&self.0.interrupts), ..FakeInterrupt::default() }),
            status: TransactionStatus::Idle,
            pending: Vec::new(),
        }))
    }
}

/// Whether a statement waits, and whether it was told to stop.
#[derive(Default)]
struct FakeInterrupt {
    state: Mutex<(bool, bool)>,
    changed: Condvar,
    seen: Arc<AtomicUsize>,
}

impl Interrupt for FakeInterrupt {
    fn interrupt(&self) {
        self.seen.fetch_add(1, Ordering::SeqCst);
        let mut state = self.state.lock().unwrap();
        state.1 = state.0;
        self.changed.notify_all();
    }
}

struct FakeSession {
    fake: Arc<Fake>,
    interrupt: Arc<FakeInterrupt>,
    status: TransactionStatus,
    pending: Vec<String>,
}

impl Drop for FakeSession {
    fn drop(&mut self) {
        self.fake.sessions.fetch_sub(1, Ordering::SeqCst);
    }
}

fn column(name: &str, pg_type: PgType) -> Column {
    Column { name: name.to_owned(), pg_type }
}

fn type_of(word: &str) -> PgType {
    match word {
        "bool" => PgType::BOOL,
        "int2" => PgType::INT2,
        "int4" => PgType::INT4,
        "int8" => PgType::INT8,
        "float4" => PgType::FLOAT4,
        "float8" => PgType::FLOAT8,
        "bytea" => PgType::BYTEA,
        "varchar" => PgType::VARCHAR,
        "numeric" => PgType::NUMERIC,
        _ => PgType::TEXT,
    }
}

fn columns(statement: &str) -> Vec<Column> {
    let mut words = statement.split_whitespace();
    match words.next() {
        Some("select") => vec![column("n", PgType::INT8)],
        Some("mismatch") => vec![column("m", PgType::INT8)],
        Some("rows") => vec![column("line", PgType::TEXT)],
        Some("echo") => words.map(|word| column(word, type_of(word))).collect(),
        _ => Vec::new(),
    }
}

fn tag(text: &str) -> Result<CommandTag, SqlError> {
    Ok(CommandTag(text.to_owned()))
}

impl FakeSession {
    fn commit(&mut self) {
        self.fake.committed.lock().unwrap().append(&mut self.pending);
        self.status = TransactionStatus::Idle;
    }

    fn sleep(&self) -> SqlError {
        let mut state = self.interrupt.state.lock().unwrap();
        *state = (true, false);
        self.fake.waiting.fetch_add(1, Ordering::SeqCst);
        while !state.1 {
            state = self.interrupt.changed.wait(state).unwrap();
        }
        *state = (false, false);
        self.fake.waiting.fetch_sub(1, Ordering::SeqCst);
        SqlError::new(SqlState::QUERY_CANCELED, "canceling statement due to user request")
    }

    fn take(&mut self, sink: &mut dyn ResultSink) -> Result<(), SqlError> {
        *self.interrupt.state.lock().unwrap() = (true, false);
        sink.copy_in(2)?;
        let taken = loop {
            match sink.copied(Duration::from_millis(10)) {
                Ok(Copied::Data(data)) if &data[..] == b"bad" => {
                    break Err(SqlError::new(SqlState::BAD_COPY_FILE_FORMAT, "as asked").with_context("here"));
                }
                Ok(Copied::Data(data)) => self.pending.push(String::from_utf8(data.to_vec()).unwrap()),
                Ok(Copied::Nothing) if self.interrupt.state.lock().unwrap().1 => {
                    break Err(SqlError::new(SqlState::QUERY_CANCELED, "canceled"));
                }
                Ok(Copied::Nothing) => {}
                Ok(Copied::End) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        *self.interrupt.state.lock().unwrap() = (false, false);
        if taken.is_err() {
            self.pending.clear();
        }
        taken
    }

    fn deaf(&self) {
        self.fake.waiting.fetch_add(1, Ordering::SeqCst);
        let mut released = self.fake.released.lock().unwrap();
        while !*released {
            released = self.fake.release.wait(released).unwrap();
        }
        self.fake.waiting.fetch_sub(1, Ordering::SeqCst);
    }

    fn run(
        &mut self,
        statement: &str,
        parameters: &[OwnedValue],
        scope: Scope,
        sink: &mut dyn ResultSink,
    ) -> Result<CommandTag, SqlError> {
        let argument = statement.split_whitespace().nth(1).unwrap_or("");
        let number = argument.parse().unwrap_or(0);
        let columns = columns(statement);
        if !columns.is_empty() {
            sink.columns(&columns)?;
        }
        match statement.split_whitespace().next().unwrap_or("") {
            "select" => {
                sink.row(&[Value::Integer(number)])?;
                tag("SELECT 1")
            }
            "mismatch" => {
                sink.row(&[Value::Text("not a number")])?;
                tag("SELECT 1")
            }
            "rows" => {
                let line = "x".repeat(1000);
                for _ in 0..number {
                    sink.row(&[Value::Text(&line)])?;
                    self.fake.rows_sent.fetch_add(1, Ordering::SeqCst);
                }
                tag(&format!("SELECT {number}"))
            }
            "echo" => {
                let values: Vec<_> = parameters.iter().map(value).collect();
                sink.row(&values)?;
                tag("SELECT 1")
            }
            "put" => {
                self.pending.push(argument.to_owned());
                if scope == Scope::Single && self.status == TransactionStatus::Idle {
                    self.commit();
                }
                tag("INSERT 0 1")
            }
            "take" => {
                self.take(sink)?;
                if scope == Scope::Single && self.status == TransactionStatus::Idle {
                    self.commit();
                }
                tag("COPY 1")
            }
            "give" => {
                sink.copy_out(1)?;
                for line in 0..number {
                    sink.copy_data(format!("{line}\n").as_bytes())?;
                }
                sink.copy_done()?;
                tag(&format!("COPY {number}"))
            }
            "begin" | "start" => {
                self.status = TransactionStatus::InTransaction;
                tag("BEGIN")
            }
            "commit" if self.status == TransactionStatus::Failed => self.run("rollback", &[], scope, sink),
            "commit" => {
                self.commit();
                tag("COMMIT")
            }
            "rollback" => {
                self.pending.clear();
                self.status = TransactionStatus::Idle;
                tag("ROLLBACK")
            }
            "notice" => {
                sink.notice(&SqlError::notice("look here"))?;
                tag("NOTICE")
            }
            "sleep" => Err(self.sleep()),
            "deaf" => {
                self.deaf();
                tag("DEAF")
            }
            "panic" => panic!("as the test asked"),
            "error" => Err(SqlError::new(SqlState::UNIQUE_VIOLATION, "as asked").with_detail("a detail")),
            _ => Err(SqlError::new(SqlState::SYNTAX_ERROR, "not a word of ours")),
        }
    }
}

fn value(owned: &OwnedValue) -> Value<'_> {
    match owned {
        OwnedValue::Null => Value::Null,
        OwnedValue::Integer(integer) => Value::Integer(*integer),
        OwnedValue::Real(real) => Value::Real(*real),
        OwnedValue::Text(text) => Value::Text(text),
        OwnedValue::Blob(bytes) => Value::Blob(bytes),
    }
}

impl Session for FakeSession {
    fn split<'a>(&self, sql: &'a str) -> Vec<&'a str> {
        sql.split(';').map(str::trim).filter(|statement| !statement.is_empty()).collect()
    }

    fn describe(&mut self, statement: &str, parameter_types: &[PgType]) -> Result<Description, SqlError> {
        let columns = columns(statement);
        let takes_parameters = statement.starts_with("echo");
        let mut parameters: Vec<PgType> =
            if takes_parameters { columns.iter().map(|column| column.pg_type).collect() } else { Vec::new() };
        for (parameter, declared) in parameters.iter_mut().zip(parameter_types) {
            if *declared != PgType::UNSPECIFIED {
                *parameter = *declared;
            }
        }
        Ok(Description { parameters, columns })
    }

    fn execute(
        &mut self,
        statement: &str,
        parameters: &[OwnedValue],
        scope: Scope,
        sink: &mut dyn ResultSink,
    ) -> Result<CommandTag, SqlError> {
        // Drivers write their transaction commands in capitals.
        let statement = &statement.to_ascii_lowercase();
        self.fake.begun.lock().unwrap().push(format!("run {statement}"));
        self.fake.note(format!("{statement} {scope:?}"));
        let ends = matches!(statement.as_str(), "commit" | "rollback");
        if self.status == TransactionStatus::Failed && !ends {
            let message = "current transaction is aborted, commands ignored until end of transaction block";
            return Err(SqlError::new(SqlState::IN_FAILED_SQL_TRANSACTION, message));
        }
        let result = self.run(statement, parameters, scope, sink);
        if result.is_err() && self.status == TransactionStatus::InTransaction {
            self.status = TransactionStatus::Failed;
        }
        result
    }

    fn start(&mut self, statement: &str, _: &Arc<Vec<OwnedValue>>, _: Scope, reply: Reply) -> Started {
        self.fake.begun.lock().unwrap().push(format!("start {statement}"));
        Started::Blocks(reply)
    }

    fn forget_interrupts(&mut self) {
        self.fake.begun.lock().unwrap().push("begin".to_owned());
    }

    fn rest(&mut self) {}

    fn changed_settings(&mut self) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    fn end_implicit(&mut self, commit: bool) -> Result<(), SqlError> {
        self.fake.note(format!("end {commit}"));
        if self.status != TransactionStatus::Idle {
            return Ok(());
        }
        if !commit {
            self.pending.clear();
        } else if self.pending.iter().any(|word| word == "refused") {
            self.pending.clear();
            return Err(SqlError::new(SqlState::FOREIGN_KEY_VIOLATION, "the commit is refused"));
        } else {
            self.commit();
        }
        Ok(())
    }

    fn fail_transaction(&mut self) {
        if self.status == TransactionStatus::InTransaction {
            self.status = TransactionStatus::Failed;
        }
    }

    fn transaction_status(&self) -> TransactionStatus {
        self.status
    }

    fn interrupter(&self) -> Arc<dyn Interrupt> {
        Arc::clone(&self.interrupt) as Arc<dyn Interrupt>
    }
}
