//! Nodes join and leave, group by group.
//!
//! A node that joins is started with `--join yes` and an empty directory: it makes a replica of each group that knows
//! nothing. The others are told where it is, then the leader of each group adds its replica: it gets a snapshot, catches
//! up, and becomes a voter. No number of a replica is used twice in its group. At first a replica has the number of its
//! node; so a node whose disk was lost comes back under a new one, and one that left a group and returns has to make a
//! replica with a number that the group gives out, `next_replica`.

use std::time::Duration;

use mainstay::ident::{GroupId, NodeId, ReplicaId};
use mainstay::raftstore::entry::Membership;
use mainstay::raftstore::group::MembershipChange;
use mainstay::raftstore::store::ChangeError;
use tonic::{Code, Response, Status};

use crate::args::Args;
use crate::groups::Failure;
use crate::proto::kv_client::KvClient;
use crate::proto::member_request::Action;
use crate::proto::{MemberRequest, MemberResponse, Replica, StatusRequest, StatusResponse};
use crate::{Service, ask};

/// How long a change may take; then the caller is told that nobody knows.
const PATIENCE: Duration = Duration::from_secs(30);

impl Service {
    pub async fn change(&self, request: MemberRequest) -> Result<Response<MemberResponse>, Status> {
        let (node, group) = (NodeId::new(request.node), GroupId::new(request.group.max(1)));
        let replica = ReplicaId::new(if request.replica == 0 { request.node } else { request.replica });
        let changed = match request.action() {
            Action::Introduce => {
                let address = request.address.parse().map_err(|error| Status::invalid_argument(format!("{error}")))?;
                let known = self.transport.set_peer(node, vec![address]);
                known.map_err(|error| Status::invalid_argument(error.to_string()))?;
                Ok(Membership::default())
            }
            Action::Join if node != self.node => {
                return Err(Status::invalid_argument(format!("this is node {}", self.node)));
            }
            Action::Join => {
                let joined = self.groups.join(group, replica).await;
                let joined = joined.map_err(|error| Status::failed_precondition(error.to_string()))?;
                return Ok(Response::new(MemberResponse { voters: Vec::new(), replica: joined.get() }));
            }
            Action::Add => self.groups.get(group)?.add_voter(replica, node, PATIENCE).await,
            Action::Remove => {
                let change = MembershipChange { remove: vec![replica], ..MembershipChange::default() };
                self.groups.get(group)?.change_membership(change, PATIENCE).await
            }
        };
        let membership = changed.map_err(|error| {
            let code = match error {
                ChangeError::NotLeader { .. } | ChangeError::Busy | ChangeError::Stopped(_) => Code::Unavailable,
                ChangeError::Refused(_) => Code::FailedPrecondition,
                ChangeError::Unknown { .. } => Code::DeadlineExceeded,
                _ => Code::Internal,
            };
            Status::new(code, error.to_string())
        })?;
        let voters = membership.voters.iter().map(|voter| voter.get()).collect();
        Ok(Response::new(MemberResponse { voters, replica: replica.get() }))
    }
}

/// All replicas, and where they are.
pub fn of(membership: &Membership) -> Vec<Replica> {
    let members = membership.nodes.iter();
    members.map(|(replica, node)| Replica { replica: replica.get(), node: node.get() }).collect()
}

/// `raft_kv member add NODE ADDRESS` and `raft_kv member remove NODE`, of all groups or of `--group G`. `raft_kv member
/// join NODE --group G --replica R`, asked of the node itself, comes before `member add … --replica R`.
pub async fn member(args: &Args) -> Result<(), Failure> {
    let node = args.word(2)?.parse()?;
    let action = match args.word(1)? {
        "add" => Action::Add,
        "remove" => Action::Remove,
        "join" => Action::Join,
        other => return Err(format!("member add, member remove or member join, not {other}").into()),
    };
    let replica = args.number("replica")?.map_or(0, |replica| replica.get());
    let mut request = MemberRequest { action: action.into(), node, replica, ..MemberRequest::default() };
    if action == Action::Add {
        request.address = args.word(3)?.to_owned();
        let introduced = MemberRequest { action: Action::Introduce.into(), ..request.clone() };
        call_each(args, |mut client| {
            let introduced = introduced.clone();
            async move { client.member(introduced).await }
        })
        .await?;
    }
    let groups = match args.number("group")? {
        Some(group) => group.get()..=group.get(),
        None => 1..=ask(args, |mut client| async move { client.status(StatusRequest::default()).await }).await?.groups,
    };
    for group in groups {
        request.group = group;
        if action != Action::Join {
            let status = leader(args, group).await?;
            let here = status.members.iter().find(|member| member.node == node).map(|member| member.replica);
            // What was begun, or done, may be asked for again.
            let is_done = match (action, here) {
                (Action::Add, Some(here)) => status.voters.contains(&here),
                (action, here) => action == Action::Remove && here.is_none(),
            };
            if is_done {
                continue;
            }
            request.replica = here.unwrap_or(replica);
        }
        let response = ask(args, |mut client| {
            let request = request.clone();
            async move { client.member(request).await }
        });
        let MemberResponse { voters, replica } = response.await?;
        match action {
            Action::Join => println!("group {group}: replica {replica} waits to be added"),
            _ => println!("group {group}: voters {voters:?}"),
        }
    }
    Ok(())
}

/// How the leader of a group stands.
async fn leader(args: &Args, group: u64) -> Result<StatusResponse, Failure> {
    for address in args.required("addr")?.split(',') {
        let Ok(mut client) = KvClient::connect(format!("http://{address}")).await else { continue };
        match client.status(StatusRequest { group }).await {
            Ok(status) if status.get_ref().leader == status.get_ref().node => return Ok(status.into_inner()),
            _ => {}
        }
    }
    Err(format!("nobody leads group {group} now, as far as these nodes know").into())
}

/// Asks every node that answers.
async fn call_each<T, F: Future<Output = Result<Response<T>, Status>>>(
    args: &Args,
    call: impl Fn(KvClient<tonic::transport::Channel>) -> F,
) -> Result<(), Failure> {
    for address in args.required("addr")?.split(',') {
        match KvClient::connect(format!("http://{address}")).await {
            Err(error) => println!("{address}: {error}"),
            Ok(client) => drop(call(client).await?),
        }
    }
    Ok(())
}
