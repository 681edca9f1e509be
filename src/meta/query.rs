//! Pure: questions of the tables, and what is found. The typed client asks with it, here or of another node.

use super::apply;
use super::limits::{MAX_ANSWER_BYTES, MAX_ANSWER_PAIRS};
use super::proto::{KeyRange, Refusal, Refused, Setting};
use super::read;
use super::service::MetaError;
use super::settings;
use super::stored;
use super::view::View;
use super::watch::{self, WatchError};
use crate::ident::NodeId;

/// The messages of `proto/meta_query.proto`.
#[allow(missing_docs, clippy::all, reason = "generated; the proto file says what each is")]
pub mod proto {
    tonic::include_proto!("mainstay.meta.query.v1");
}

use proto::found::Kind as Answer;
use proto::query::Kind;
use proto::{
    ChangesFound, Definition, EventsFound, Found, LeaseFound, LeasesFound, MemberFound, MembersFound, PairFound, Query,
    RangeFound, SettingFound, SettingsFound, TokensFound,
};

/// How often a range is read again when what it read was compacted meanwhile.
const MAX_READS: usize = 4;

/// What the tables say.
///
/// # Errors
/// The store failed, or the question cannot be answered.
pub fn answer(view: &dyn View, query: Query) -> Result<Found, MetaError> {
    let kind = match query.kind {
        None => return Err(refused(Refusal::Invalid, "nothing is asked, or what this version does not know", 0)),
        Some(Kind::Get(get)) => Answer::Get(PairFound { pair: read::latest(view, &get.key)? }),
        Some(Kind::Range(asked)) => Answer::Range(range(view, asked)?),
        Some(Kind::Lease(lease)) => Answer::Lease(LeaseFound { lease: stored::lease(view, lease.number)? }),
        Some(Kind::Cluster(_)) => Answer::Cluster(stored::cluster(view)?),
        Some(Kind::Member(member)) => {
            Answer::Member(MemberFound { member: stored::member(view, NodeId::new(member.number))? })
        }
        Some(Kind::Members(_)) => Answer::Members(MembersFound { members: stored::members(view)? }),
        Some(Kind::Tokens(_)) => Answer::Tokens(TokensFound { tokens: stored::tokens(view)? }),
        Some(Kind::Setting(named)) => Answer::Setting(setting(view, &named.name)?),
        Some(Kind::Settings(_)) => {
            let settings = stored::settings(view)?.into_iter().map(found_setting).collect();
            Answer::Settings(SettingsFound { settings })
        }
        Some(Kind::SettingHistory(named)) => {
            setting(view, &named.name)?;
            Answer::SettingHistory(ChangesFound { changes: stored::setting_history(view, &named.name)? })
        }
        Some(Kind::Events(asked)) => {
            let from = if asked.from == 0 { apply::reached(view)?.first_event } else { asked.from };
            Answer::Events(EventsFound { events: watch::events(view, from, bound(asked.limit))? })
        }
        Some(Kind::Leases(asked)) => {
            Answer::Leases(LeasesFound { leases: stored::leases(view, asked.from, bound(asked.limit))? })
        }
        Some(Kind::Kv(_)) => Answer::Kv(stored::kv(view)?),
    };
    Ok(Found { kind: Some(kind) })
}

/// How many of something there may be in an answer.
fn bound(limit: u32) -> usize {
    match usize::try_from(limit) {
        Ok(limit @ 1..) => limit.min(MAX_ANSWER_PAIRS),
        _ => MAX_ANSWER_PAIRS,
    }
}

fn range(view: &dyn View, asked: proto::Range) -> Result<RangeFound, MetaError> {
    let Some(range) = asked.range else { return Err(refused(Refusal::Invalid, "no range is given", 0)) };
    let mut oldest = 0;
    for _ in 0..MAX_READS {
        let last = apply::reached(view)?.revision;
        if asked.revision > last {
            let message = format!("revision {} is not there yet: {last} is", asked.revision);
            return Err(refused(Refusal::FutureRevision, &message, last));
        }
        let at = if asked.revision == 0 { last } else { asked.revision };
        let (pairs, more) = read::range(view, &range, at, bound(asked.limit), MAX_ANSWER_BYTES)?;
        // What was compacted while it was read may be missing.
        oldest = apply::reached(view)?.compacted;
        if oldest <= at {
            return Ok(RangeFound { pairs, more, revision: at });
        }
        if asked.revision != 0 {
            break;
        }
    }
    Err(WatchError::Compacted { oldest }.into())
}

fn setting(view: &dyn View, name: &str) -> Result<SettingFound, MetaError> {
    let found = |setting| settings::find(name, u32::MAX).map(|definition| found_setting((setting, definition)));
    let no_such = || refused(Refusal::NoSuchSetting, &format!("there is no setting {name:.63?}"), 0);
    stored::setting(view, name)?.and_then(found).ok_or_else(no_such)
}

fn found_setting((setting, definition): (Setting, &settings::Definition)) -> SettingFound {
    let definition = Definition {
        name: definition.name.to_owned(),
        unit: definition.unit.to_string(),
        default: definition.display(definition.default),
        min: definition.display(definition.min),
        max: definition.display(definition.max),
        description: definition.description.to_owned(),
    };
    SettingFound { setting: Some(setting), definition: Some(definition) }
}

fn refused(why: Refusal, message: &str, number: u64) -> MetaError {
    MetaError::Refused(Refused { why: why.into(), message: message.to_owned(), number, ..Refused::default() })
}

/// A range to ask for.
pub fn range_query(range: KeyRange, limit: usize, revision: u64) -> Kind {
    let limit = u32::try_from(limit).unwrap_or(u32::MAX);
    Kind::Range(proto::Range { range: Some(range), limit, revision })
}
