//! A replicated map: what an embedder of the raftstore copies. `examples/raft_kv/README.md` explains it step by step.
//!
//! ```text
//! raft_kv serve --node 1 --data /tmp/kv1 --raft 127.0.0.1:7101 --clients 127.0.0.1:7201 \
//!     --peer 1=127.0.0.1:7101 --peer 2=127.0.0.1:7102 --peer 3=127.0.0.1:7103
//! raft_kv put KEY VALUE --addr 127.0.0.1:7201,127.0.0.1:7202,127.0.0.1:7203
//! raft_kv get KEY --addr …      raft_kv status [--group G] --addr …
//! raft_kv member add NODE RAFT-ADDRESS --addr …      raft_kv member remove NODE --addr …
//! ```
//! `serve --groups N` cuts the map into N groups; `--log-entries N` keeps their logs short.

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use bytes::Bytes;
use mainstay::config::WalConfig;
use mainstay::ident::{ClusterId, GroupId, NodeId};
use mainstay::net::NetConfig;
use mainstay::net::identity::Identity;
use mainstay::raftstore::context::Attempt;
use mainstay::raftstore::log_store::Table;
use mainstay::raftstore::rocks::RocksStore;
use mainstay::raftstore::state_machine::{ApplyBatch, ApplyError, Command, StateMachine};
use mainstay::raftstore::store::{ProposeError, RaftStore, StoreConfig};
use mainstay::raftstore::transport::GrpcTransport;
use mainstay::storage::Storage;
use tonic::{Code, Request, Response, Status};

mod args;
mod groups;
mod members;
use args::Args;
use groups::{Failure, Founding, Groups};

mod proto {
    #![allow(missing_docs, reason = "generated")]
    tonic::include_proto!("raft_kv");
}
use proto::kv_client::KvClient;
use proto::kv_server::{Kv, KvServer};
use proto::{GetRequest, GetResponse, PutManyRequest, PutManyResponse, PutOutcome, PutRequest, PutResponse};
use proto::{MemberRequest, MemberResponse, StatusRequest, StatusResponse};

/// Keeps nodes of different clusters apart. A real program draws one when it forms the cluster.
const CLUSTER: ClusterId = ClusterId::new(0x6b76);

/// The replicated state machine: its whole state is in the table, so a position of its own is not needed. A command is
/// the key's length, the key and the value.
struct Map;

impl StateMachine for Map {
    fn apply(&mut self, commands: &[Command<'_>], batch: &mut ApplyBatch<'_>) -> Result<Vec<Bytes>, ApplyError> {
        let mut responses = Vec::with_capacity(commands.len());
        for command in commands {
            let (key, value) = decode(command.data)
                .ok_or_else(|| ApplyError::Machine(format!("command {} is of a newer version", command.index)))?;
            batch.put(Table::Kv, key, value);
            responses.push(Bytes::copy_from_slice(&command.index.get().to_le_bytes()));
        }
        Ok(responses)
    }
}

fn encode(key: &[u8], value: &[u8]) -> Vec<u8> {
    [&(key.len() as u32).to_le_bytes(), key, value].concat()
}

fn decode(command: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = command.split_first_chunk::<4>()?;
    rest.split_at_checked(u32::from_le_bytes(*length) as usize)
}

/// What clients talk to.
struct Service {
    node: NodeId,
    groups: Arc<Groups>,
    raft: Arc<RaftStore>,
    transport: Arc<GrpcTransport>,
}

impl Service {
    /// One outcome for each put: those of one group, that one client asks in one request, become one batch of its log.
    async fn set(&self, puts: Vec<PutRequest>) -> Vec<PutOutcome> {
        let mut outcomes = vec![PutOutcome::default(); puts.len()];
        for (group, puts) in self.groups.by_group(puts) {
            let commands = puts.iter().map(|(_, put)| {
                let attempt = Attempt { client: put.client, sequence: put.sequence };
                (encode(&put.key, &put.value), (put.client != 0).then_some(attempt))
            });
            let answers: Vec<_> = match self.groups.get(group) {
                Err(status) => puts.iter().map(|_| Err(status.clone())).collect(),
                Ok(handle) => handle.propose_many(commands).await.into_iter().map(|it| it.map_err(refused)).collect(),
            };
            for ((place, _), answer) in puts.iter().zip(answers) {
                outcomes[*place] = match answer {
                    Ok(response) => {
                        let index = response.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
                        PutOutcome { index, group: group.get(), ..PutOutcome::default() }
                    }
                    Err(why) => {
                        let (code, message) = (why.code() as i32, why.message().to_owned());
                        PutOutcome { index: 0, code, message, group: group.get() }
                    }
                };
            }
        }
        outcomes
    }
}

#[tonic::async_trait]
impl Kv for Service {
    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let PutOutcome { index, code, message, group } =
            self.set(vec![request.into_inner()]).await.pop().unwrap_or_default();
        if code == 0 { Ok(Response::new(PutResponse { index, group })) } else { Err(Status::new(code.into(), message)) }
    }

    async fn put_many(&self, request: Request<PutManyRequest>) -> Result<Response<PutManyResponse>, Status> {
        Ok(Response::new(PutManyResponse { outcomes: self.set(request.into_inner().puts).await }))
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        let value = self.groups.read(&request.into_inner().key).await?;
        Ok(Response::new(GetResponse { found: value.is_some(), value: value.unwrap_or_default() }))
    }

    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let group = GroupId::new(request.into_inner().group.max(1));
        let (view, written) = (self.groups.get(group)?.view(), self.raft.written());
        Ok(Response::new(StatusResponse {
            node: self.node.get(),
            leader: view.leader_node().map_or(0, NodeId::get),
            term: view.status.positions.term.get(),
            applied: view.status.positions.applied.get(),
            last: view.status.positions.last.get(),
            syncs: written.syncs,
            entries_written: written.entries,
            voters: view.status.membership.voters.iter().map(|voter| voter.get()).collect(),
            learners: view.status.membership.learners.iter().map(|learner| learner.get()).collect(),
            groups: self.groups.count(),
            first: view.status.positions.first.get(),
            members: members::of(&view.status.membership),
            next_replica: view.status.membership.highest.get() + 1,
        }))
    }

    async fn member(&self, request: Request<MemberRequest>) -> Result<Response<MemberResponse>, Status> {
        self.change(request.into_inner()).await
    }
}

/// What the caller may do next is in the code: `unavailable` had no effect and may be tried elsewhere or again, after
/// `deadline_exceeded` nobody knows.
fn refused(error: ProposeError) -> Status {
    let code = match error {
        // One group that stopped here, such as a replica that was removed, goes on elsewhere.
        ProposeError::NotLeader { .. } | ProposeError::Busy | ProposeError::Stopped(_) => Code::Unavailable,
        ProposeError::TooLarge { .. } | ProposeError::Empty => Code::InvalidArgument,
        ProposeError::Unknown { .. } => Code::DeadlineExceeded,
        _ => Code::Internal,
    };
    Status::new(code, error.to_string())
}

async fn serve(args: &Args) -> Result<(), Failure> {
    let node = NodeId::new(args.required("node")?.parse()?);
    let peers = args.peers("peer")?;
    let directory = PathBuf::from(args.required("data")?);
    let log_entries = args.number("log-entries")?.map(NonZeroU64::get);

    // 1. The store. Opening it checks that it holds what it is known to have held.
    let storage = Arc::new(Storage::open(&directory, WalConfig::default().segment_size_bytes)?);
    // Durable before anybody hears of it: of two processes with copies of one directory, only one is listened to.
    let incarnation = storage.raise_incarnation()?;
    let store = Arc::new(RocksStore::open(storage)?);

    // 2. The transport, which proves who we are, and the driver, which uses it.
    let identity = Identity { cluster: CLUSTER, node, incarnation };
    let listen = args.required("raft")?.parse()?;
    // Beyond loopback it takes certificates, or saying that it does not.
    let allow_plaintext = args.required("allow-plaintext").is_ok_and(|answer| answer == "yes");
    let net = NetConfig { listen, allow_plaintext, ..NetConfig::default() };
    let transport = GrpcTransport::start(net, identity, None).await?;
    for (peer, address) in peers.iter().chain(&args.peers("known")?).filter(|(peer, _)| *peer != node) {
        transport.set_peer(*peer, vec![address.parse()?])?;
    }
    let transport = Arc::new(transport);
    let raft =
        Arc::new(RaftStore::start(StoreConfig::default(), Arc::clone(&store) as _, Arc::clone(&transport) as _)?);

    // 3. The groups: each made once by its founding members, with the same members, then opened at every start.
    let groups =
        Groups::new((args.number("groups")?.unwrap_or(NonZeroU64::MIN), log_entries), store, Arc::clone(&raft));
    let founding = match args.required("join").is_ok_and(|answer| answer == "yes") {
        true => Founding::Join,
        false => Founding::Members(peers.into_iter().map(|(peer, _)| peer).collect()),
    };
    groups.open_all(node, &founding)?;
    transport.receive_into(raft.inbox());

    // 4. Clients, until we are told to stop or cannot go on.
    let clients: SocketAddr = args.required("clients")?.parse()?;
    let service =
        Service { node, groups: Arc::clone(&groups), raft: Arc::clone(&raft), transport: Arc::clone(&transport) };
    println!("node {node} serves clients on {clients}");
    let server = tonic::transport::Server::builder().add_service(KvServer::new(service)).serve(clients);
    let failure = tokio::select! {
        served = server => served.err().map(|error| error.to_string()),
        failure = raft.failed() => Some(failure.to_string()),
        failure = groups.failed() => Some(failure),
        _ = tokio::signal::ctrl_c() => None,
    };
    transport.shutdown().await;
    tokio::task::spawn_blocking(move || raft.shutdown()).await?;
    failure.map_or(Ok(()), |failure| Err(failure.into()))
}

/// Asks one node after the other until one answers.
async fn ask<T, F: Future<Output = Result<Response<T>, Status>>>(
    args: &Args,
    call: impl Fn(KvClient<tonic::transport::Channel>) -> F,
) -> Result<T, Failure> {
    let mut last = "no address was given".to_owned();
    for address in args.required("addr")?.split(',') {
        match KvClient::connect(format!("http://{address}")).await {
            Err(error) => last = format!("{address}: {error}"),
            Ok(client) => match call(client).await {
                Ok(response) => return Ok(response.into_inner()),
                Err(status) if status.code() == Code::Unavailable => last = format!("{address}: {}", status.message()),
                Err(status) => return Err(format!("{address}: {}", status.message()).into()),
            },
        }
    }
    Err(last.into())
}

async fn put(args: &Args) -> Result<(), Failure> {
    let (key, value) = (args.word(1)?.into(), args.word(2)?.into());
    let request = PutRequest { key, value, client: 0, sequence: 0 };
    let response = ask(args, |mut client| {
        let request = request.clone();
        async move { client.put(request).await }
    });
    let PutResponse { index, group } = response.await?;
    println!("put as entry {index} of group {group}");
    Ok(())
}

async fn get(args: &Args) -> Result<(), Failure> {
    let request = GetRequest { key: args.word(1)?.into() };
    let response = ask(args, |mut client| {
        let request = request.clone();
        async move { client.get(request).await }
    });
    match response.await? {
        GetResponse { found: true, value } => println!("{}", String::from_utf8_lossy(&value)),
        _ => return Err("not found".into()),
    }
    Ok(())
}

async fn status(args: &Args) -> Result<(), Failure> {
    let group = args.number("group")?.map_or(1, NonZeroU64::get);
    for address in args.required("addr")?.split(',') {
        match KvClient::connect(format!("http://{address}")).await {
            Err(error) => println!("{address}: {error}"),
            Ok(mut client) => println!("{address}: {:?}", client.status(StatusRequest { group }).await?.into_inner()),
        }
    }
    Ok(())
}

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("raft_kv: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Failure> {
    let args = Args::parse(std::env::args().skip(1))?;
    match args.word(0)? {
        "serve" => serve(&args).await,
        "put" => put(&args).await,
        "get" => get(&args).await,
        "status" => status(&args).await,
        "member" => members::member(&args).await,
        other => Err(format!("there is no command {other}; see the top of main.rs").into()),
    }
}
