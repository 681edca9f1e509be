//! `mainstay kv`.

use std::io::{self, IsTerminal, Read, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use mainstay::meta::client::{Keys, Meta};
use mainstay::meta::proto::KeyValue;
use mainstay::meta::service::KvUpdates;
use mainstay::meta::watch::{KvChange, KvUpdate, WatchError};
use serde_json::{Map, Value, json};

use super::connect::{ConnectArgs, time};
use super::lease::{self, LeaseAction};
use super::outcome::{EXIT_STATUS, Failed, Outcome};
use super::show::{self, printable, put_bytes, shortened};
use super::txn;

/// Characters of a key or value in a table.
const SHOWN_CHARACTERS: usize = 60;
/// Pairs asked for at a time.
const PAGE: usize = 1000;
/// Nothing larger than a command can be put.
const INPUT_LIMIT_BYTES: u64 = (4 << 20) + 1;
/// How often a watch hears that nothing changed.
const NOTICE_EVERY: Duration = Duration::from_secs(10);

#[derive(Subcommand)]
pub enum KvAction {
    /// Print the value of a key.
    ///
    /// On a terminal, bytes that are no text are shown as escapes. Elsewhere the value is printed as it is, and a line end.
    #[command(after_help = EXIT_STATUS)]
    Get {
        #[command(flatten)]
        connect: ConnectArgs,
        #[command(flatten)]
        read: ReadArgs,
        /// The key.
        key: String,
        /// Print the bytes of the value and nothing else, also on a terminal.
        #[arg(long, conflicts_with = "json")]
        raw: bool,
        /// Print key, value and revisions as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Set a key.
    #[command(after_help = EXIT_STATUS)]
    Put {
        #[command(flatten)]
        connect: ConnectArgs,
        /// The key.
        key: String,
        /// Its value; without one, all of standard input.
        value: Option<String>,
        /// The lease that it goes with.
        #[arg(long, value_name = "LEASE", default_value_t = 0)]
        lease: u64,
        /// Print the revision as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Delete a key, or all that begin so.
    #[command(after_help = EXIT_STATUS)]
    Delete {
        #[command(flatten)]
        connect: ConnectArgs,
        /// The key, or what the keys begin with.
        key: String,
        /// Delete all keys that begin with it.
        #[arg(long)]
        prefix: bool,
        /// Print how many there were as JSON.
        #[arg(long)]
        json: bool,
    },
    /// List keys in order, with their values.
    #[command(after_help = EXIT_STATUS)]
    List {
        #[command(flatten)]
        connect: ConnectArgs,
        #[command(flatten)]
        read: ReadArgs,
        /// Only keys that begin with it.
        #[arg(default_value = "")]
        prefix: String,
        /// So many at most.
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
        /// Print the keys alone, each on a line.
        #[arg(long, conflicts_with = "json")]
        keys: bool,
        /// Print each pair as a line of JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print changes as they happen, until interrupted.
    ///
    /// When the node that is asked dies, it goes on at another one, without a gap.
    #[command(after_help = EXIT_STATUS)]
    Watch {
        #[command(flatten)]
        connect: ConnectArgs,
        /// The key, or what the keys begin with.
        key: String,
        /// Watch all keys that begin with it.
        #[arg(long)]
        prefix: bool,
        /// Begin with this revision instead of now.
        #[arg(long, value_name = "REVISION", default_value_t = 0)]
        from: u64,
        /// Print also how far the watch is when nothing has changed for so long.
        #[arg(long, value_name = "TIME", value_parser = time)]
        progress: Option<Duration>,
        /// End after so many changes.
        #[arg(long, value_name = "N")]
        limit: Option<u64>,
        /// Print each change as a line of JSON.
        #[arg(long)]
        json: bool,
    },
    /// Grant leases, which hold keys for as long as somebody keeps them alive.
    #[command(subcommand)]
    Lease(LeaseAction),
    /// Compare, and do one thing or another, at once.
    #[command(long_about = txn::HELP, after_help = EXIT_STATUS)]
    Txn {
        #[command(flatten)]
        connect: ConnectArgs,
        /// A file with the transaction; without one, standard input.
        file: Option<PathBuf>,
        /// Print what it came to as JSON.
        #[arg(long)]
        json: bool,
    },
}

/// What is read.
#[derive(Args)]
pub struct ReadArgs {
    /// As of this revision.
    #[arg(long, value_name = "N", default_value_t = 0)]
    revision: u64,
    /// What the node that answers has, however old: also without a leader.
    #[arg(long)]
    local: bool,
}

impl ReadArgs {
    fn meta(&self, connect: &ConnectArgs) -> Result<Meta, Failed> {
        let meta = connect.meta(None)?;
        Ok(if self.local { meta.local() } else { meta })
    }
}

/// Does it.
pub async fn run(action: &KvAction) -> Result<Outcome, Failed> {
    match action {
        KvAction::Get { connect, read, key, raw, json } => {
            get(read.meta(connect)?, read.revision, key, *raw, *json).await
        }
        KvAction::Put { connect, key, value, lease, json } => {
            let value = match value {
                Some(value) => value.clone().into_bytes(),
                None => input(io::stdin().lock())?,
            };
            let revision = connect.meta(None)?.kv().put_leased(key.as_str(), value, *lease).await?;
            counted(*json, "revision", revision, &format!("revision {revision}"))?;
            Ok(Outcome::Done)
        }
        KvAction::Delete { connect, key, prefix, json } => {
            let deleted = connect.meta(None)?.kv().delete(keys(key, *prefix)).await?;
            counted(*json, "deleted", deleted, &format!("{deleted} deleted"))?;
            Ok(if deleted == 0 { Outcome::NotFound } else { Outcome::Done })
        }
        KvAction::List { connect, read, prefix, limit, keys, json } => {
            let form = match (keys, json) {
                (true, _) => Form::Keys,
                (_, true) => Form::Json,
                _ => Form::Table,
            };
            list(read.meta(connect)?, read.revision, prefix, limit.unwrap_or(usize::MAX), form).await
        }
        KvAction::Watch { connect, key, prefix, from, progress, limit, json } => {
            let notice_every = progress.unwrap_or(NOTICE_EVERY);
            let watch = connect.meta(None)?.kv().watch_noticed(keys(key, *prefix), *from, notice_every);
            print_changes(watch, progress.is_some(), *limit, *json).await
        }
        KvAction::Lease(action) => lease::run(action).await,
        KvAction::Txn { connect, file, json } => {
            let text = match file {
                Some(path) => input(std::fs::File::open(path)?)?,
                None => input(io::stdin().lock())?,
            };
            let text = String::from_utf8(text).map_err(|_| Failed::Usage("the transaction is not UTF-8".to_owned()))?;
            let txn = txn::parse(&text).map_err(Failed::Usage)?;
            txn::show(&connect.meta(None)?.kv().txn(txn).await?, *json)
        }
    }
}

fn keys(key: &str, is_prefix: bool) -> Keys {
    let key = key.as_bytes().to_vec();
    if is_prefix { Keys::Prefix(key) } else { Keys::One(key) }
}

/// All there is to read, up to what could be used.
fn input(from: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(INPUT_LIMIT_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn counted(json: bool, name: &str, number: u64, text: &str) -> io::Result<()> {
    match json {
        true => show::json(&Value::Object(Map::from_iter([(name.to_owned(), number.into())]))),
        false => show::line(text),
    }
}

async fn get(meta: Meta, revision: u64, key: &str, raw: bool, json: bool) -> Result<Outcome, Failed> {
    let pair = match revision {
        0 => meta.kv().get(key).await?,
        revision => meta.kv().range_at(key, 1, revision).await?.pairs.into_iter().next(),
    };
    let Some(pair) = pair else {
        eprintln!("mainstay: there is no key {}", printable(key.as_bytes()));
        return Ok(Outcome::NotFound);
    };
    if json {
        show::json(&object(&pair))?;
        return Ok(Outcome::Done);
    }
    let mut out = io::stdout().lock();
    match (raw, out.is_terminal()) {
        (true, _) => out.write_all(&pair.value)?,
        (false, true) => writeln!(out, "{}", printable(&pair.value))?,
        (false, false) => {
            out.write_all(&pair.value)?;
            out.write_all(b"\n")?;
        }
    }
    out.flush()?;
    Ok(Outcome::Done)
}

#[derive(Clone, Copy)]
enum Form {
    Keys,
    Json,
    Table,
}

/// As of one revision, however many answers that takes.
async fn list(meta: Meta, revision: u64, prefix: &str, limit: usize, form: Form) -> Result<Outcome, Failed> {
    let mut left = limit;
    let mut at = revision;
    let mut from = prefix.as_bytes().to_vec();
    let mut rows = Vec::new();
    while left > 0 {
        let range = mainstay::meta::proto::KeyRange::from(Keys::Prefix(prefix.as_bytes().to_vec()));
        let keys = if range.end == [0] { Keys::From(from.clone()) } else { Keys::Between(from.clone(), range.end) };
        let found = meta.kv().range_at(keys, left.min(PAGE), at).await?;
        at = found.revision;
        left -= found.pairs.len().min(left);
        if let Some(last) = found.pairs.last() {
            // The least key behind it.
            from = [&last.key[..], &[0]].concat();
        }
        for pair in &found.pairs {
            match form {
                Form::Keys => show::line(printable(&pair.key))?,
                Form::Json => show::json(&object(pair))?,
                Form::Table => rows.push(row(pair)),
            }
        }
        if !found.more || found.pairs.is_empty() {
            break;
        }
    }
    if let Form::Table = form {
        let count = rows.len();
        show::line(show::table(&["key", "value", "revision", "version", "lease"], &[2, 3], rows))?;
        show::line(format!("\n{count} key{} at revision {at}", if count == 1 { "" } else { "s" }))?;
    }
    Ok(Outcome::Done)
}

fn row(pair: &KeyValue) -> Vec<String> {
    vec![
        shortened(&pair.key, SHOWN_CHARACTERS),
        shortened(&pair.value, SHOWN_CHARACTERS),
        pair.mod_revision.to_string(),
        pair.version.to_string(),
        if pair.lease == 0 { "-".to_owned() } else { pair.lease.to_string() },
    ]
}

pub(super) fn object(pair: &KeyValue) -> Value {
    let mut object = Map::new();
    put_bytes(&mut object, "key", &pair.key);
    put_bytes(&mut object, "value", &pair.value);
    object.insert("create_revision".to_owned(), pair.create_revision.into());
    object.insert("mod_revision".to_owned(), pair.mod_revision.into());
    object.insert("version".to_owned(), pair.version.into());
    object.insert("lease".to_owned(), pair.lease.into());
    Value::Object(object)
}

async fn print_changes(
    mut watch: Box<dyn KvUpdates>,
    progress: bool,
    limit: Option<u64>,
    json: bool,
) -> Result<Outcome, Failed> {
    let mut left = limit.unwrap_or(u64::MAX);
    while left > 0 {
        let (revision, changes) = match watch.next().await {
            Ok(KvUpdate::Changes { revision, changes }) => (revision, changes),
            Ok(KvUpdate::Progress { revision }) => {
                match (progress, json) {
                    (false, _) => {}
                    (true, true) => show::json(&json!({"revision": revision, "type": "progress"}))?,
                    (true, false) => show::line(format!("{revision}  progress"))?,
                }
                continue;
            }
            Err(WatchError::Unreachable { why }) => {
                eprintln!("mainstay: trying on: no node can be watched: {}", printable(why.as_bytes()));
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        for change in changes {
            if left == 0 {
                break;
            }
            left -= 1;
            match json {
                true => show::json(&change_object(revision, &change))?,
                false => show::line(match &change {
                    KvChange::Put(pair) => {
                        format!(
                            "{revision}  put  {}  {}",
                            printable(&pair.key),
                            shortened(&pair.value, SHOWN_CHARACTERS)
                        )
                    }
                    KvChange::Deleted { key } => format!("{revision}  delete  {}", printable(key)),
                })?,
            }
        }
    }
    Ok(Outcome::Done)
}

fn change_object(revision: u64, change: &KvChange) -> Value {
    let mut members = Map::new();
    members.insert("revision".to_owned(), revision.into());
    match change {
        KvChange::Put(pair) => {
            members.insert("type".to_owned(), "put".into());
            if let Value::Object(pair) = object(pair) {
                members.extend(pair);
            }
        }
        KvChange::Deleted { key } => {
            members.insert("type".to_owned(), "delete".into());
            put_bytes(&mut members, "key", key);
        }
    }
    Value::Object(members)
}
