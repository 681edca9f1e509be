//! Nodes join and leave.
//!
//! A node that joins is started with `--join yes` and an empty directory: it makes a replica that knows nothing. The
//! others are told where it is, then the leader adds it: it gets a snapshot, catches up, and becomes a voter. A replica has
//! the number of its node here, and no number of a replica is used twice: a node whose disk was lost comes back under a
//! new one.

use std::error::Error;
use std::time::Duration;

use mainstay::ident::{NodeId, ReplicaId};
use mainstay::raftstore::group::MembershipChange;
use mainstay::raftstore::store::ChangeError;
use tonic::{Code, Response, Status};

use crate::args::Args;
use crate::proto::kv_client::KvClient;
use crate::proto::member_request::Action;
use crate::proto::{MemberRequest, MemberResponse};
use crate::{Service, ask};

/// How long a change may take; then the caller is told that nobody knows.
const PATIENCE: Duration = Duration::from_secs(30);

impl Service {
    pub async fn change(&self, request: MemberRequest) -> Result<Response<MemberResponse>, Status> {
        let (node, replica) = (NodeId::new(request.node), ReplicaId::new(request.node));
        let changed = match request.action() {
            Action::Introduce => {
                let address = request.address.parse().map_err(|error| Status::invalid_argument(format!("{error}")))?;
                let known = self.transport.set_peer(node, vec![address]);
                known.map_err(|error| Status::invalid_argument(error.to_string()))?;
                Ok(self.group.view().status.membership)
            }
            Action::Add => self.group.add_voter(replica, node, PATIENCE).await,
            Action::Remove => {
                let change = MembershipChange { remove: vec![replica], ..MembershipChange::default() };
                self.group.change_membership(change, PATIENCE).await
            }
        };
        let membership = changed.map_err(|error| {
            let code = match error {
                ChangeError::NotLeader { .. } | ChangeError::Busy => Code::Unavailable,
                ChangeError::Refused(_) => Code::FailedPrecondition,
                ChangeError::Unknown { .. } => Code::DeadlineExceeded,
                _ => Code::Internal,
            };
            Status::new(code, error.to_string())
        })?;
        let voters = membership.voters.iter().map(|voter| voter.get()).collect();
        Ok(Response::new(MemberResponse { voters }))
    }
}

/// `raft_kv member add NODE ADDRESS` and `raft_kv member remove NODE`.
pub async fn member(args: &Args) -> Result<(), Box<dyn Error>> {
    let node = args.word(2)?.parse()?;
    let action = match args.word(1)? {
        "add" => Action::Add,
        "remove" => Action::Remove,
        other => return Err(format!("member add or member remove, not {other}").into()),
    };
    let mut request = MemberRequest { action: action.into(), node, address: String::new() };
    if action == Action::Add {
        request.address = args.word(3)?.to_owned();
        let introduced = MemberRequest { action: Action::Introduce.into(), ..request.clone() };
        call_each(args, |mut client| {
            let introduced = introduced.clone();
            async move { client.member(introduced).await }
        })
        .await?;
    }
    let response = ask(args, |mut client| {
        let request = request.clone();
        async move { client.member(request).await }
    });
    println!("voters: {:?}", response.await?.voters);
    Ok(())
}

/// Asks every node that answers.
async fn call_each<T, F: Future<Output = Result<Response<T>, Status>>>(
    args: &Args,
    call: impl Fn(KvClient<tonic::transport::Channel>) -> F,
) -> Result<(), Box<dyn Error>> {
    for address in args.required("addr")?.split(',') {
        match KvClient::connect(format!("http://{address}")).await {
            Err(error) => println!("{address}: {error}"),
            Ok(client) => drop(call(client).await?),
        }
    }
    Ok(())
}
