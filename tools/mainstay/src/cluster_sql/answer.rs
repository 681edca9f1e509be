//! What statements about the cluster come to.

use mainstay::cluster::rpc::proto::{RaftGroup, StatusResponse};
use mainstay::ident::GroupId;
use mainstay::meta::METADATA_GROUP;
use mainstay::meta::client::Meta;
use mainstay::meta::proto::{Attribute, Member, Refusal};
use mainstay::meta::service::MetaError;
use mainstay::server::pg::{Column, CommandTag, PgType, ResultSink, SqlError, SqlState, Value, timestamp};

use super::ClusterFace;
use super::grammar::{Change, Shown, Statement};

/// Who asks may not do it.
pub const INSUFFICIENT_PRIVILEGE: SqlState = SqlState("42501");
/// There is nothing of that name or number.
const UNDEFINED_OBJECT: SqlState = SqlState("42704");
/// Nobody knows whether it took effect.
const COMPLETION_UNKNOWN: SqlState = SqlState("40003");
/// The events that are shown: the last so many.
const EVENTS: u64 = 1000;

/// What a statement came to.
pub enum Answer {
    /// It is done, and calls itself so; perhaps there is more to say.
    Done {
        tag: &'static str,
        notice: Option<String>,
    },
    Rows(Rows),
}

/// What a statement shows.
pub struct Rows {
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
}

enum Cell {
    Text(String),
    Number(u64),
    Bool(bool),
    Null,
}

impl Rows {
    /// Sends them, and says what the statement calls itself.
    ///
    /// # Errors
    /// The client is gone.
    pub fn send(&self, sink: &mut dyn ResultSink) -> Result<CommandTag, SqlError> {
        sink.columns(&self.columns)?;
        for row in &self.rows {
            let values: Vec<_> = row.iter().map(Cell::value).collect();
            sink.row(&values)?;
        }
        Ok(CommandTag("SHOW".to_owned()))
    }
}

impl Cell {
    fn value(&self) -> Value<'_> {
        match self {
            Cell::Text(text) => Value::Text(text),
            Cell::Number(number) => i64::try_from(*number).map_or(Value::Null, Value::Integer),
            Cell::Bool(is) => Value::Integer(i64::from(*is)),
            Cell::Null => Value::Null,
        }
    }
}

fn text(text: impl Into<String>) -> Cell {
    Cell::Text(text.into())
}

/// A number, where 0 stands for none.
fn unless_zero(number: u64) -> Cell {
    if number == 0 { Cell::Null } else { Cell::Number(number) }
}

/// The columns that are shown.
pub fn columns(shown: Shown) -> Vec<Column> {
    use PgType as T;
    let columns: &[(&str, PgType)] = match shown {
        Shown::Cluster => &[
            ("cluster_id", T::TEXT),
            ("system_id", T::TEXT),
            ("version", T::INT8),
            ("members", T::INT8),
            ("leader", T::INT8),
            ("term", T::INT8),
            ("keys", T::INT8),
            ("key_bytes", T::INT8),
            ("revision", T::INT8),
        ],
        Shown::Nodes | Shown::Node(_) => &[
            ("node", T::INT8),
            ("name", T::TEXT),
            ("addresses", T::TEXT),
            ("state", T::TEXT),
            ("role", T::TEXT),
            ("vote", T::BOOL),
            ("incarnation", T::INT8),
            ("version", T::INT8),
            ("locality", T::TEXT),
            ("attributes", T::TEXT),
        ],
        Shown::Settings => &[
            ("name", T::TEXT),
            ("value", T::TEXT),
            ("changed", T::BOOL),
            ("default", T::TEXT),
            ("min", T::TEXT),
            ("max", T::TEXT),
            ("description", T::TEXT),
        ],
        Shown::Events => &[
            ("event", T::INT8),
            ("time", T::TEXT),
            ("kind", T::TEXT),
            ("subject", T::TEXT),
            ("detail", T::TEXT),
            ("actor", T::TEXT),
            ("reason", T::TEXT),
        ],
        Shown::RaftGroups => &[
            ("group", T::INT8),
            ("leader", T::INT8),
            ("term", T::INT8),
            ("role", T::TEXT),
            ("last", T::INT8),
            ("committed", T::INT8),
            ("applied", T::INT8),
            ("voters", T::TEXT),
            ("learners", T::TEXT),
        ],
        Shown::RaftGroup(_) => {
            &[("replica", T::INT8), ("node", T::INT8), ("role", T::TEXT), ("match", T::INT8), ("heard", T::BOOL)]
        }
    };
    columns.iter().map(|(name, pg_type)| Column { name: (*name).to_owned(), pg_type: *pg_type }).collect()
}

/// What a change calls itself.
pub fn tag(change: &Change) -> &'static str {
    match change {
        Change::Set { .. } | Change::Reset { .. } => "ALTER SYSTEM",
        Change::SetVote { .. } => "ALTER RAFT GROUP",
        Change::RemoveNode(_) => "REMOVE NODE",
    }
}

/// Answers a statement, or does what it says.
///
/// # Errors
/// What the client is to hear.
pub async fn answer(face: &dyn ClusterFace, meta: &Meta, statement: Statement, user: &str) -> Result<Answer, SqlError> {
    let shown = match statement {
        Statement::Show(shown) => shown,
        Statement::Change(change) => {
            let (tag, mut notice) = (tag(&change), None);
            match change {
                Change::Set { name, value } => {
                    meta.settings().set(&name, &value).await.map_err(|error| sql_error(&error))?;
                }
                Change::Reset { name } => {
                    meta.settings().reset(&name).await.map_err(|error| sql_error(&error))?;
                }
                Change::SetVote { group, node, votes } => notice = face.set_vote(group, node, votes, user).await?,
                Change::RemoveNode(node) => face.remove_node(node, user).await?,
            }
            return Ok(Answer::Done { tag, notice });
        }
    };
    let rows = match shown {
        Shown::RaftGroups => face.status().groups.iter().map(group_row).collect(),
        Shown::RaftGroup(group) => replica_rows(&face.status(), group)?,
        Shown::Cluster => vec![cluster_row(&face.status(), meta).await.map_err(|error| sql_error(&error))?],
        Shown::Nodes => {
            let members = meta.members().list().await.map_err(|error| sql_error(&error))?;
            members.iter().map(|member| member_row(&face.status(), member)).collect()
        }
        Shown::Node(node) => {
            let member = meta.members().get(node).await.map_err(|error| sql_error(&error))?;
            let none = || SqlError::new(UNDEFINED_OBJECT, format!("node {node} does not exist"));
            vec![member_row(&face.status(), &member.ok_or_else(none)?)]
        }
        Shown::Settings => setting_rows(meta).await.map_err(|error| sql_error(&error))?,
        Shown::Events => event_rows(meta).await.map_err(|error| sql_error(&error))?,
    };
    Ok(Answer::Rows(Rows { columns: columns(shown), rows }))
}

fn metadata(status: &StatusResponse) -> Option<&RaftGroup> {
    status.groups.iter().find(|group| group.group == METADATA_GROUP.get())
}

async fn cluster_row(status: &StatusResponse, meta: &Meta) -> Result<Vec<Cell>, MetaError> {
    let (cluster, kv) = (meta.members().cluster().await?, meta.kv().size().await?);
    let group = metadata(status);
    Ok(vec![
        text(format!("{:016x}", cluster.cluster_id)),
        text(format!("{:016x}", cluster.system_id)),
        Cell::Number(cluster.version.into()),
        Cell::Number(cluster.members),
        group.map_or(Cell::Null, |group| unless_zero(group.leader)),
        group.map_or(Cell::Null, |group| Cell::Number(group.term)),
        Cell::Number(kv.keys),
        Cell::Number(kv.live_bytes),
        Cell::Number(kv.revision),
    ])
}

fn member_row(status: &StatusResponse, member: &Member) -> Vec<Cell> {
    let state = member.state().as_str_name();
    let group = metadata(status);
    let replica = group.and_then(|group| group.replicas.iter().find(|replica| replica.node == member.id));
    let role = match (group, replica) {
        (Some(group), Some(_)) if group.leader == member.id => text("leader"),
        (_, Some(replica)) if replica.is_learner => text("learner"),
        (_, Some(_)) => text("voter"),
        (_, None) => Cell::Null,
    };
    let pairs = |pairs: &[Attribute]| {
        let pairs: Vec<_> = pairs.iter().map(|pair| format!("{}={}", pair.key, pair.value)).collect();
        text(pairs.join(","))
    };
    vec![
        Cell::Number(member.id),
        text(member.name.as_str()),
        text(member.addresses.join(",")),
        text(state.strip_prefix("MEMBER_STATE_").unwrap_or(state).to_lowercase()),
        role,
        Cell::Bool(!member.non_voting),
        Cell::Number(member.incarnation),
        Cell::Number(member.version.into()),
        pairs(&member.locality),
        pairs(&member.attributes),
    ]
}

async fn setting_rows(meta: &Meta) -> Result<Vec<Vec<Cell>>, MetaError> {
    let settings = meta.settings().list().await?;
    let row = |(setting, definition): (mainstay::meta::proto::Setting, mainstay::meta::query::proto::Definition)| {
        vec![
            text(setting.name),
            text(setting.value),
            Cell::Bool(!setting.is_default),
            text(definition.default),
            text(definition.min),
            text(definition.max),
            text(definition.description),
        ]
    };
    Ok(settings.into_iter().map(row).collect())
}

async fn event_rows(meta: &Meta) -> Result<Vec<Vec<Cell>>, MetaError> {
    let cluster = meta.members().cluster().await?;
    let from = cluster.next_event.saturating_sub(EVENTS).max(cluster.first_event);
    let events = meta.events().list(from, usize::try_from(EVENTS).unwrap_or_default()).await?;
    let row = |event: mainstay::meta::proto::Event| {
        let kind = event.kind().as_str_name();
        vec![
            Cell::Number(event.sequence),
            text(date(event.unix_ms)),
            text(kind.strip_prefix("EVENT_KIND_").unwrap_or(kind).to_lowercase().replace('_', " ")),
            text(event.subject),
            text(event.detail),
            text(event.actor),
            text(event.reason),
        ]
    };
    Ok(events.into_iter().map(row).collect())
}

fn date(unix_ms: u64) -> String {
    timestamp(std::time::UNIX_EPOCH + std::time::Duration::from_millis(unix_ms))
}

fn group_row(group: &RaftGroup) -> Vec<Cell> {
    let nodes = |are_learners| {
        let replicas = group.replicas.iter().filter(|replica| replica.is_learner == are_learners);
        text(replicas.map(|replica| replica.node.to_string()).collect::<Vec<_>>().join(","))
    };
    vec![
        Cell::Number(group.group),
        unless_zero(group.leader),
        Cell::Number(group.term),
        text(group.role.as_str()),
        Cell::Number(group.last),
        Cell::Number(group.committed),
        Cell::Number(group.applied),
        nodes(false),
        nodes(true),
    ]
}

fn replica_rows(status: &StatusResponse, group: GroupId) -> Result<Vec<Vec<Cell>>, SqlError> {
    let found = status.groups.iter().find(|found| found.group == group.get());
    let none = || SqlError::new(UNDEFINED_OBJECT, format!("this node has no replica of group {group}"));
    let found = found.ok_or_else(none)?;
    let row = |replica: &mainstay::cluster::rpc::proto::Replica| {
        vec![
            Cell::Number(replica.replica),
            Cell::Number(replica.node),
            text(match (replica.node == found.leader, replica.is_learner) {
                (true, _) => "leader",
                (_, true) => "learner",
                _ => "voter",
            }),
            replica.matched.map_or(Cell::Null, Cell::Number),
            replica.is_heard.map_or(Cell::Null, Cell::Bool),
        ]
    };
    Ok(found.replicas.iter().map(row).collect())
}

/// An error of the metadata as SQL has it.
pub fn sql_error(error: &MetaError) -> SqlError {
    let state = match error {
        MetaError::Refused(refused) => match refused.why() {
            Refusal::OutOfRange | Refusal::Invalid => SqlState::INVALID_PARAMETER_VALUE,
            Refusal::NoSuchSetting | Refusal::NoSuchMember => UNDEFINED_OBJECT,
            _ => SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        },
        MetaError::TooLarge { .. } => SqlState::PROGRAM_LIMIT_EXCEEDED,
        MetaError::Unavailable { .. } => SqlState::LOCK_NOT_AVAILABLE,
        MetaError::Unknown { .. } | MetaError::AnswerLost => COMPLETION_UNKNOWN,
        _ => SqlState::INTERNAL_ERROR,
    };
    SqlError::new(state, error.to_string())
}
