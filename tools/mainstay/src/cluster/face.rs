//! What SQL on a member asks of the cluster, and where the members serve SQL.
//!
//! Each member says its own address for SQL as an attribute of itself, so that the others can send clients to the primary.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mainstay::cluster::operator::{OperatorError, Vote};
use mainstay::cluster::rpc::proto::StatusResponse;
use mainstay::cluster::{FIRST_MEMBER, MemberHandle};
use mainstay::ident::{GroupId, NodeId};
use mainstay::meta::client::Meta;
use mainstay::meta::proto::{Attribute, Attributes, Member, UpdateMember};
use mainstay::meta::service::MetaError;
use mainstay::server::pg::{SqlError, SqlState};
use tokio::task::JoinHandle;

use super::vote;
use crate::cluster_sql::{ClusterFace, Refused};

/// The attribute that holds the address.
const SQL_ATTRIBUTE: &str = "sql";
/// What is waited before the address is said again to a cluster that did not take it.
const PUBLISH_PAUSE: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Clone)]
pub struct Face(MemberHandle);

/// The task that says where this member serves SQL. Dropped, it stops.
pub struct Published(JoinHandle<()>);

impl Drop for Published {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Face {
    /// That of this member.
    pub fn new(member: MemberHandle) -> Face {
        Face(member)
    }

    /// For those that answer SQL.
    pub fn shared(&self) -> Arc<dyn ClusterFace> {
        Arc::new(self.clone())
    }

    /// Says where this member serves SQL, as soon as the cluster takes it.
    pub fn publish(self, sql: SocketAddr) -> Published {
        Published(tokio::spawn(async move {
            while let Err(error) = self.say(sql).await {
                tracing::debug!(%error, "the cluster does not know yet where this node serves SQL");
                tokio::time::sleep(PUBLISH_PAUSE).await;
            }
        }))
    }

    async fn say(&self, sql: SocketAddr) -> Result<(), MetaError> {
        let (node, meta) = (self.0.membership().node, self.0.meta().acting("mainstay", "it serves SQL there"));
        let Some(own) = meta.members().get(node).await? else { return Ok(()) };
        let value = reachable(sql, &own);
        if sql_address(&own) == Some(&value) {
            return Ok(());
        }
        let mut values: Vec<Attribute> = own.attributes;
        values.retain(|attribute| attribute.key != SQL_ATTRIBUTE);
        values.push(Attribute { key: SQL_ATTRIBUTE.to_owned(), value });
        let update =
            UpdateMember { id: node.get(), attributes: Some(Attributes { values }), ..UpdateMember::default() };
        meta.members().update(update).await.map(drop)
    }
}

fn sql_address(member: &Member) -> Option<&String> {
    member.attributes.iter().find(|attribute| attribute.key == SQL_ATTRIBUTE).map(|attribute| &attribute.value)
}

/// Who listens on all addresses is reached where other nodes reach him.
fn reachable(sql: SocketAddr, own: &Member) -> String {
    let host = own.addresses.first().and_then(|address| address.rsplit_once(':')).map(|(host, _)| host);
    match host {
        Some(host) if sql.ip().is_unspecified() => format!("{host}:{}", sql.port()),
        _ => sql.to_string(),
    }
}

fn refused(error: &OperatorError) -> SqlError {
    let state = match error {
        OperatorError::NotFound(_) => SqlState("42704"),
        OperatorError::Unavailable(_) => SqlState("55P03"),
        OperatorError::Unknown(_) => SqlState("40003"),
        _ => SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
    };
    SqlError::new(state, error.to_string())
}

#[tonic::async_trait]
impl ClusterFace for Face {
    fn meta(&self) -> Meta {
        self.0.meta()
    }

    fn status(&self) -> StatusResponse {
        self.0.status()
    }

    fn primary(&self) -> Option<String> {
        let members = self.0.members().ok()?;
        let first = members.iter().find(|member| member.id == FIRST_MEMBER.get())?;
        sql_address(first).cloned()
    }

    async fn set_vote(
        &self,
        group: GroupId,
        node: NodeId,
        votes: bool,
        actor: &str,
    ) -> Result<Option<String>, Refused> {
        let set = self.0.set_vote(group, node, votes, actor, "SQL").await.map_err(|error| refused(&error))?;
        // What is done as it was said needs no words.
        let Vote { was_so, is_done, .. } = set;
        Ok((was_so || !is_done).then(|| vote::said(&set)))
    }

    async fn remove_node(&self, node: NodeId, actor: &str) -> Result<(), Refused> {
        self.0.remove(node, actor).await.map(drop).map_err(|error| refused(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_listens_everywhere_is_reached_where_other_nodes_reach_him() {
        let own = Member { addresses: vec!["db1.example.com:5442".to_owned()], ..Member::default() };
        assert_eq!(reachable("0.0.0.0:5440".parse().unwrap(), &own), "db1.example.com:5440");
        assert_eq!(reachable("[::]:5440".parse().unwrap(), &own), "db1.example.com:5440");
        assert_eq!(reachable("127.0.0.1:5440".parse().unwrap(), &own), "127.0.0.1:5440");
    }
}
