//! `members`, `settings`, `kv`, `events`, `tokens`: what the metadata group of the directory holds, up to what its
//! replica here had applied. Hashes of secrets are not shown, and values of keys only where they are asked for.

use std::io::{self, Write};

use mainstay::meta::METADATA_GROUP;
use mainstay::meta::proto::{Attribute, KeyRange};
use mainstay::meta::view::{OfflineView, View};
use mainstay::meta::{read, stored};
use mainstay::raftstore::log_store::StoreError;
use serde::Serialize;

use super::{Exit, Findings, Report, text};
use crate::directory::DataDirectory;

/// Most bytes of values that are held at once.
const PAGE_BYTES: usize = 4 << 20;

/// What one of the commands shows.
#[derive(Debug, Serialize)]
pub struct Listing<R> {
    /// Up to which entry of the group's log; absent if there is no such group here.
    applied: Option<u64>,
    rows: Vec<R>,
    #[serde(flatten)]
    findings: Findings,
}

/// A line of a listing.
pub trait Row: Serialize {
    /// What it is called.
    const NAME: &'static str;
    /// The heads of its columns, and how wide they are at least.
    const COLUMNS: &'static [(&'static str, usize)];
    /// Its cells, in their order.
    fn cells(&self) -> Vec<String>;
}

/// Which keys to show, and how.
#[derive(Clone, Debug)]
pub struct KvWanted {
    /// Those that begin so.
    pub prefix: String,
    /// At most this many.
    pub limit: usize,
    /// Show values, too.
    pub values: bool,
}

fn list<R>(
    directory: &DataDirectory,
    rows: impl FnOnce(&dyn View) -> Result<Vec<R>, StoreError>,
) -> anyhow::Result<Listing<R>> {
    let mut listing = Listing { applied: None, rows: Vec::new(), findings: Findings::of(directory) };
    let Some(raft) = &directory.raft else { return Ok(listing) };
    let looked = raft.load(METADATA_GROUP).and_then(|found| match found {
        Some(found) => Ok((Some(found.applied.get()), rows(&OfflineView { store: raft, group: METADATA_GROUP })?)),
        None => Ok((None, Vec::new())),
    });
    match looked {
        Ok((applied, rows)) => (listing.applied, listing.rows) = (applied, rows),
        Err(error) => listing.findings.add_stored(error)?,
    }
    Ok(listing)
}

impl<R: Row> Report for Listing<R> {
    fn exit(&self) -> Exit {
        self.findings.exit()
    }

    fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        let rows: Vec<_> = self.rows.iter().map(Row::cells).collect();
        let width = |column: usize| {
            let cells = rows.iter().filter_map(|cells| cells.get(column));
            let widest = cells.map(|cell| cell.chars().count()).max().unwrap_or(0);
            R::COLUMNS.get(column).map_or(0, |(head, least)| widest.max(head.len()).max(*least))
        };
        let widths: Vec<_> = (0..R::COLUMNS.len()).map(width).collect();
        let heads = R::COLUMNS.iter().map(|(head, _)| (*head).to_owned()).collect();
        for cells in std::iter::once(heads).chain(rows) {
            let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
            writeln!(out, "{}", padded.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        writeln!(out, "{}", text::count(self.rows.len() as u64, R::NAME))?;
        match self.applied {
            Some(applied) => writeln!(out, "as of entry {applied} of group {METADATA_GROUP}")?,
            None if self.findings.exit() == Exit::Clean => writeln!(out, "no metadata group was made here")?,
            None => {}
        }
        self.findings.write_damage(out)?;
        match &self.findings.rocksdb_error {
            Some(error) => writeln!(out, "\nRocksDB cannot be read: {error}\nNothing is known of the cluster."),
            None => Ok(()),
        }
    }
}

/// A member.
#[derive(Debug, Serialize)]
pub struct Member {
    id: u64,
    name: String,
    state: String,
    vote: bool,
    incarnation: u64,
    version: u32,
    addresses: Vec<String>,
    attributes: Vec<String>,
    locality: Vec<String>,
    added: u64,
    changed: u64,
}

/// Lists the members.
pub fn members(directory: &DataDirectory) -> anyhow::Result<Listing<Member>> {
    let pairs = |list: Vec<Attribute>| list.into_iter().map(|pair| format!("{}={}", pair.key, pair.value)).collect();
    list(directory, |view| {
        let members = stored::members(view)?.into_iter().map(|member| Member {
            state: word(member.state().as_str_name(), "MEMBER_STATE_"),
            id: member.id,
            name: member.name,
            vote: !member.non_voting,
            incarnation: member.incarnation,
            version: member.version,
            addresses: member.addresses,
            attributes: pairs(member.attributes),
            locality: pairs(member.locality),
            added: member.added,
            changed: member.changed,
        });
        Ok(members.collect())
    })
}

impl Row for Member {
    const NAME: &'static str = "member";
    const COLUMNS: &'static [(&'static str, usize)] = &[
        ("id", 4),
        ("name", 8),
        ("state", 14),
        ("vote", 0),
        ("incarnation", 0),
        ("version", 0),
        ("addresses", 0),
        ("locality", 0),
        ("attributes", 0),
    ];

    fn cells(&self) -> Vec<String> {
        let join = |list: &[String]| if list.is_empty() { "-".to_owned() } else { list.join(",") };
        vec![
            self.id.to_string(),
            self.name.clone(),
            self.state.clone(),
            if self.vote { "yes" } else { "no" }.to_owned(),
            self.incarnation.to_string(),
            self.version.to_string(),
            join(&self.addresses),
            join(&self.locality),
            join(&self.attributes),
        ]
    }
}

/// A setting.
#[derive(Debug, Serialize)]
pub struct Setting {
    name: String,
    value: String,
    number: u64,
    unit: String,
    is_default: bool,
    changed: Option<u64>,
    description: &'static str,
}

/// Lists the settings.
pub fn settings(directory: &DataDirectory) -> anyhow::Result<Listing<Setting>> {
    list(directory, |view| {
        let settings = stored::settings(view)?.into_iter().map(|(setting, definition)| Setting {
            name: setting.name,
            value: setting.value,
            number: setting.number,
            unit: definition.unit.to_string(),
            is_default: setting.is_default,
            changed: (setting.changed != 0).then_some(setting.changed),
            description: definition.description,
        });
        Ok(settings.collect())
    })
}

impl Row for Setting {
    const NAME: &'static str = "setting";
    const COLUMNS: &'static [(&'static str, usize)] = &[("name", 20), ("value", 10), ("changed by entry", 0)];

    fn cells(&self) -> Vec<String> {
        let changed = self.changed.map_or("-".to_owned(), |index| index.to_string());
        vec![self.name.clone(), self.value.clone(), changed]
    }
}

/// A key.
#[derive(Debug, Serialize)]
pub struct Pair {
    key: String,
    key_hex: String,
    value_bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_hex: Option<String>,
    #[serde(skip)]
    value: Option<String>,
    create_revision: u64,
    mod_revision: u64,
    version: u64,
    lease: Option<u64>,
}

/// Lists keys.
pub fn kv(directory: &DataDirectory, wanted: &KvWanted) -> anyhow::Result<Listing<Pair>> {
    list(directory, |view| {
        let mut pairs = Vec::new();
        let mut from = wanted.prefix.clone().into_bytes();
        while pairs.len() < wanted.limit {
            let range = KeyRange { key: from, end: vec![0] };
            let (page, more) = read::range(view, &range, u64::MAX, wanted.limit - pairs.len(), PAGE_BYTES)?;
            from = page.last().map(|pair| [&pair.key[..], &[0]].concat()).unwrap_or_default();
            let found = page.len();
            pairs.extend(page.into_iter().take_while(|pair| pair.key.starts_with(wanted.prefix.as_bytes())).map(
                |pair| Pair {
                    key: text::ascii(&pair.key),
                    key_hex: text::hex(&pair.key),
                    value_bytes: pair.value.len(),
                    value_hex: wanted.values.then(|| text::hex(&pair.value)),
                    value: wanted.values.then(|| text::ascii(&pair.value)),
                    create_revision: pair.create_revision,
                    mod_revision: pair.mod_revision,
                    version: pair.version,
                    lease: (pair.lease != 0).then_some(pair.lease),
                },
            ));
            if !more || found == 0 || !from.starts_with(wanted.prefix.as_bytes()) {
                break;
            }
        }
        Ok(pairs)
    })
}

impl Row for Pair {
    const NAME: &'static str = "key";
    const COLUMNS: &'static [(&'static str, usize)] = &[
        ("created", 0),
        ("modified", 0),
        ("version", 0),
        ("lease", 0),
        ("bytes", 0),
        ("key", 0),
        ("value, if asked for", 0),
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.create_revision.to_string(),
            self.mod_revision.to_string(),
            self.version.to_string(),
            self.lease.map_or("-".to_owned(), |lease| lease.to_string()),
            self.value_bytes.to_string(),
            self.key.clone(),
            self.value.clone().unwrap_or_default(),
        ]
    }
}

/// An event.
#[derive(Debug, Serialize)]
pub struct Event {
    sequence: u64,
    index: u64,
    unix_ms: u64,
    kind: String,
    subject: String,
    detail: String,
    actor: String,
    reason: String,
}

/// Lists the event log, the last `limit` of it.
pub fn events(directory: &DataDirectory, limit: usize) -> anyhow::Result<Listing<Event>> {
    list(directory, |view| {
        let header = stored::cluster(view)?;
        let from = header.next_event.saturating_sub(limit as u64).max(header.first_event);
        let events = stored::events(view, from, limit)?.into_iter().map(|event| Event {
            kind: word(event.kind().as_str_name(), "EVENT_KIND_"),
            sequence: event.sequence,
            index: event.index,
            unix_ms: event.unix_ms,
            subject: event.subject,
            detail: event.detail,
            actor: event.actor,
            reason: event.reason,
        });
        Ok(events.collect())
    })
}

impl Row for Event {
    const NAME: &'static str = "event";
    const COLUMNS: &'static [(&'static str, usize)] = &[
        ("number", 0),
        ("entry", 0),
        ("unix ms", 13),
        ("kind", 0),
        ("of", 0),
        ("detail", 0),
        ("actor", 0),
        ("reason", 0),
    ];

    fn cells(&self) -> Vec<String> {
        let text = |text: &str| text::printable(text);
        vec![
            self.sequence.to_string(),
            self.index.to_string(),
            self.unix_ms.to_string(),
            self.kind.clone(),
            text(&self.subject),
            text(&self.detail),
            text(&self.actor),
            text(&self.reason),
        ]
    }
}

/// A join token.
#[derive(Debug, Serialize)]
pub struct Token {
    id: u64,
    state: String,
    ttl_ms: u64,
    created: u64,
    created_by: String,
    ended: Option<u64>,
    member: Option<u64>,
}

/// Lists the join tokens that are remembered.
pub fn tokens(directory: &DataDirectory) -> anyhow::Result<Listing<Token>> {
    list(directory, |view| {
        let some = |number: u64| (number != 0).then_some(number);
        let tokens = stored::tokens(view)?.into_iter().map(|token| Token {
            state: word(token.state().as_str_name(), "TOKEN_STATE_"),
            id: token.id,
            ttl_ms: token.ttl_ms,
            created: token.created,
            created_by: token.created_by,
            ended: some(token.ended),
            member: some(token.member),
        });
        Ok(tokens.collect())
    })
}

impl Row for Token {
    const NAME: &'static str = "token";
    const COLUMNS: &'static [(&'static str, usize)] = &[
        ("id", 4),
        ("state", 8),
        ("ttl ms", 8),
        ("made by entry", 0),
        ("ended by entry", 0),
        ("member", 0),
        ("made by", 0),
    ];

    fn cells(&self) -> Vec<String> {
        let or_dash = |number: Option<u64>| number.map_or("-".to_owned(), |number| number.to_string());
        vec![
            self.id.to_string(),
            self.state.clone(),
            self.ttl_ms.to_string(),
            self.created.to_string(),
            or_dash(self.ended),
            or_dash(self.member),
            text::printable(&self.created_by),
        ]
    }
}

/// The name of an enumeration's value without the name of the enumeration.
fn word(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_lowercase()
}
