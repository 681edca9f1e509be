//! What each connection is doing, for whoever looks in: the rows of `pg_stat_activity`.
//!
//! A [`Backend`](super::Backend) that wants to show it keeps [`Activities`]; the server notes in them what happens. Noting
//! costs a lock that nobody else holds for long, and no memory: a query's text goes into the same buffer each time.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use super::backend::{ClientInfo, TransactionStatus};

/// So much of a query's text is kept, as in PostgreSQL.
const QUERY_LIMIT_BYTES: usize = 1024;
/// More than this of a client's own name for itself is not kept, as in PostgreSQL.
const NAME_LIMIT_BYTES: usize = 63;

/// What all connections of a server are doing.
#[derive(Default)]
pub struct Activities(Mutex<BTreeMap<i32, Arc<Activity>>>);

impl Activities {
    /// A connection that was let in, until what is answered is dropped.
    pub(super) fn enter(
        self: &Arc<Self>,
        process_id: i32,
        client: &ClientInfo,
        address: Option<SocketAddr>,
    ) -> Presence {
        let application_name = client.parameters.get("application_name").map_or("", |name| cut(name, NAME_LIMIT_BYTES));
        let now = SystemTime::now();
        let activity = Arc::new(Activity {
            process_id,
            user: client.user.clone(),
            database: client.database.clone(),
            address,
            since: now,
            now: Mutex::new(Now {
                application_name: application_name.to_owned(),
                state: State::Idle,
                state_since: now,
                query: String::new(),
                query_since: None,
                transaction_since: None,
                waits_for_writer: false,
            }),
        });
        self.0.lock().insert(process_id, Arc::clone(&activity));
        Presence { activities: Arc::clone(self), activity }
    }

    /// What they are doing now, by process id.
    pub fn seen(&self) -> Vec<Seen> {
        let activities: Vec<Arc<Activity>> = self.0.lock().values().cloned().collect();
        activities.iter().map(|activity| activity.seen()).collect()
    }
}

/// A connection's place in [`Activities`]; leaves it when dropped.
pub(super) struct Presence {
    activities: Arc<Activities>,
    pub(super) activity: Arc<Activity>,
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.activities.0.lock().remove(&self.activity.process_id);
    }
}

/// What one connection is doing.
pub struct Activity {
    process_id: i32,
    user: String,
    database: String,
    address: Option<SocketAddr>,
    since: SystemTime,
    now: Mutex<Now>,
}

struct Now {
    application_name: String,
    state: State,
    state_since: SystemTime,
    query: String,
    query_since: Option<SystemTime>,
    transaction_since: Option<SystemTime>,
    waits_for_writer: bool,
}

/// What a connection is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Active,
    Idle,
    InTransaction,
    Failed,
}

impl State {
    /// As `pg_stat_activity` says it.
    const fn word(self) -> &'static str {
        match self {
            State::Active => "active",
            State::Idle => "idle",
            State::InTransaction => "idle in transaction",
            State::Failed => "idle in transaction (aborted)",
        }
    }
}

impl Activity {
    /// The number that clients know it by.
    pub fn process_id(&self) -> i32 {
        self.process_id
    }

    /// Its role.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// What its client calls itself from now on.
    pub fn rename(&self, application_name: &str) {
        cut(application_name, NAME_LIMIT_BYTES).clone_into(&mut self.now.lock().application_name);
    }

    /// It waits for its turn to write, or does so no longer.
    pub fn wait_for_writer(&self, waits: bool) {
        self.now.lock().waits_for_writer = waits;
    }

    /// It runs a statement.
    pub(super) fn run(&self, statement: &str) {
        let time = SystemTime::now();
        let mut now = self.now.lock();
        now.query.clear();
        now.query.push_str(cut(statement, QUERY_LIMIT_BYTES));
        now.query_since = Some(time);
        now.transaction_since.get_or_insert(time);
        now.enter(State::Active, time);
    }

    /// It waits for its client to say more.
    pub(super) fn rest(&self, status: TransactionStatus) {
        let mut now = self.now.lock();
        let state = match status {
            TransactionStatus::Idle => State::Idle,
            TransactionStatus::InTransaction => State::InTransaction,
            TransactionStatus::Failed => State::Failed,
        };
        if state == State::Idle {
            now.transaction_since = None;
        }
        now.enter(state, SystemTime::now());
    }

    fn seen(&self) -> Seen {
        let now = self.now.lock();
        let wait = match now.state {
            State::Active => now.waits_for_writer.then_some(("Lock", "Writer")),
            State::Idle | State::InTransaction | State::Failed => Some(("Client", "ClientRead")),
        };
        Seen {
            process_id: self.process_id,
            user: self.user.clone(),
            database: self.database.clone(),
            application_name: now.application_name.clone(),
            address: self.address,
            since: self.since,
            transaction_since: now.transaction_since,
            query_since: now.query_since,
            state_since: now.state_since,
            state: now.state.word(),
            wait,
            query: now.query.clone(),
        }
    }
}

impl Now {
    fn enter(&mut self, state: State, time: SystemTime) {
        self.waits_for_writer = false;
        if self.state != state {
            self.state = state;
            self.state_since = time;
        }
    }
}

/// What a connection was seen doing.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The number that clients know it by.
    pub process_id: i32,
    /// Its role.
    pub user: String,
    /// Its database.
    pub database: String,
    /// What the client calls itself.
    pub application_name: String,
    /// Where the client is.
    pub address: Option<SocketAddr>,
    /// When it was let in.
    pub since: SystemTime,
    /// When its transaction began, if it is in one.
    pub transaction_since: Option<SystemTime>,
    /// When the statement that it runs, or ran last, began.
    pub query_since: Option<SystemTime>,
    /// When it came into its state.
    pub state_since: SystemTime,
    /// What it is about, in PostgreSQL's words.
    pub state: &'static str,
    /// What it waits for, if it waits: the kind, and the thing.
    pub wait: Option<(&'static str, &'static str)>,
    /// The statement that it runs, or ran last; a long one in part.
    pub query: String,
}

/// A time as PostgreSQL writes one in UTC: `2026-01-31 23:59:59.000001+00`.
pub fn timestamp(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let micros = since.subsec_micros();
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{micros:06}+00")
}

/// Year, month and day of a day counted from the first of 1970.
fn civil(days: u64) -> (u64, u64, u64) {
    // Howard Hinnant's `civil_from_days`: years begin in March, in eras of 400 years.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

/// As much of `text` as fits, in whole characters.
pub(super) fn cut(text: &str, limit_bytes: usize) -> &str {
    let end = (0..=limit_bytes.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn client() -> ClientInfo {
        let parameters = [("application_name".to_owned(), "é".repeat(40))].into();
        ClientInfo { user: "u".into(), database: "d".into(), parameters, ..ClientInfo::default() }
    }

    #[test]
    fn a_connection_is_seen_from_its_entry_to_its_end() {
        let activities = Arc::new(Activities::default());
        let presence = activities.enter(7, &client(), None);
        let only = || activities.seen().pop().unwrap();
        assert_eq!((only().state, only().wait.unwrap().1, only().query_since), ("idle", "ClientRead", None));
        assert_eq!(only().application_name, "é".repeat(31));
        presence.activity.rename("psql");
        assert_eq!(only().application_name, "psql");
        presence.activity.run(&"é".repeat(1000));
        assert_eq!((only().state, only().wait, only().query.len()), ("active", None, QUERY_LIMIT_BYTES));
        presence.activity.wait_for_writer(true);
        assert_eq!(only().wait, Some(("Lock", "Writer")));
        presence.activity.rest(TransactionStatus::InTransaction);
        let begun = only().transaction_since.unwrap();
        presence.activity.run("SELECT 1");
        assert_eq!((only().transaction_since, only().wait), (Some(begun), None));
        presence.activity.rest(TransactionStatus::Failed);
        assert_eq!(only().state, "idle in transaction (aborted)");
        presence.activity.rest(TransactionStatus::Idle);
        assert_eq!((only().transaction_since, only().query.as_str()), (None, "SELECT 1"));
        drop(presence);
        assert!(activities.seen().is_empty());
    }

    #[test]
    fn times_are_written_as_postgresql_writes_them() {
        let at = |seconds, micros| timestamp(UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_micros(micros));
        assert_eq!(at(0, 0), "1970-01-01 00:00:00.000000+00");
        assert_eq!(at(951_827_696, 7), "2000-02-29 12:34:56.000007+00");
        assert_eq!(at(4_107_542_399, 999_999), "2100-02-28 23:59:59.999999+00");
        assert_eq!(at(4_107_542_400, 0), "2100-03-01 00:00:00.000000+00");
    }
}
