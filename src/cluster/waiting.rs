//! What a node answers on the port for others while it is no member: that it waits, and who may form a cluster with it.
//!
//! Whoever asks for what only a member has hears that, and not that it is unknown here: another node of his list may do.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

use super::config::ClusterConfig;
use super::entrance::Phase;
use super::error::ClusterError;
use super::proto;
use super::proto::formation_server::{Formation, FormationServer};
use super::proto::{
    CheckRequest, CheckResponse, CreateTokenRequest, CreateTokenResponse, DescribeRequest, Description, InitRequest,
    JoinRequest, JoinResponse, RemoveRequest, RemoveResponse, SetVoteRequest, SetVoteResponse,
};
use super::rpc::batch::BatchRequest;
use super::rpc::proto::metadata_server::{Metadata, MetadataServer};
use super::rpc::proto::{
    BatchResponse, ExecuteRequest, ExecuteResponse, FollowRequest, FollowResponse, ReadRequest, ReadResponse,
    StatusRequest, StatusResponse, WatchRequest, WatchResponse,
};
use crate::net::connection::Holder;
use crate::net::listener::Listener;
use crate::net::tls::Tls;
use crate::net::{Address, NetConfig};

/// Those who were answered get this long to hear it before the port is handed over.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// Somebody asks to form a cluster, and waits for word of it.
pub(super) struct InitCall(pub(super) oneshot::Sender<Result<Description, Status>>);

/// Whether this node may form a cluster.
#[derive(Clone)]
pub(super) enum InitRule {
    Yes,
    /// This one of the list is to.
    Only(Address),
}

impl InitRule {
    /// Of nodes that were all given the same list, only the first one forms a cluster, whoever is asked.
    pub(super) fn of(config: &ClusterConfig, own: &str) -> InitRule {
        match config.join.first() {
            Some(first) if first.as_str() != own => InitRule::Only(first.clone()),
            _ => InitRule::Yes,
        }
    }
}

/// What a node answers that is no member yet.
#[derive(Clone)]
pub(super) struct WaitingService {
    pub(super) asked: mpsc::Sender<InitCall>,
    pub(super) phase: watch::Receiver<Phase>,
    pub(super) rule: InitRule,
}

impl WaitingService {
    fn not_yet<T>(&self) -> Result<T, Status> {
        Err(Status::unavailable(format!(
            "it is no member of a cluster itself ({})",
            match &*self.phase.borrow() {
                Phase::Waiting { .. } => "waiting",
                Phase::Joining { .. } => "joining",
                Phase::Starting => "starting",
            }
        )))
    }
}

#[tonic::async_trait]
impl Formation for WaitingService {
    async fn describe(&self, _: Request<DescribeRequest>) -> Result<Response<Description>, Status> {
        let phase = match &*self.phase.borrow() {
            Phase::Waiting { .. } => proto::Phase::Waiting,
            Phase::Joining { .. } => proto::Phase::Joining,
            // Of which cluster, the answer to the next question says.
            Phase::Starting => return Err(Status::unavailable("the node starts as a member")),
        };
        Ok(Response::new(Description { phase: phase.into(), ..Description::default() }))
    }

    async fn init(&self, _: Request<InitRequest>) -> Result<Response<Description>, Status> {
        if let InitRule::Only(first) = &self.rule {
            return Err(Status::failed_precondition(format!(
                "this node was told to join others, the first of which is {first}: a cluster can be formed there alone"
            )));
        }
        let (answer, answered) = oneshot::channel();
        self.asked.try_send(InitCall(answer)).map_err(|_| Status::unavailable("the node is busy"))?;
        answered
            .await
            .unwrap_or_else(|_| Err(Status::unavailable("the node stopped, or became a member")))
            .map(Response::new)
    }

    async fn join(&self, _: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        self.not_yet()
    }

    async fn create_token(&self, _: Request<CreateTokenRequest>) -> Result<Response<CreateTokenResponse>, Status> {
        self.not_yet()
    }

    async fn remove(&self, _: Request<RemoveRequest>) -> Result<Response<RemoveResponse>, Status> {
        self.not_yet()
    }

    async fn set_vote(&self, _: Request<SetVoteRequest>) -> Result<Response<SetVoteResponse>, Status> {
        self.not_yet()
    }

    async fn check(&self, _: Request<CheckRequest>) -> Result<Response<CheckResponse>, Status> {
        self.not_yet()
    }
}

#[tonic::async_trait]
impl Metadata for WaitingService {
    type BatchStream = Nothing<BatchResponse>;
    type WatchStream = Nothing<WatchResponse>;
    type FollowStream = Nothing<FollowResponse>;

    async fn execute(&self, _: Request<ExecuteRequest>) -> Result<Response<ExecuteResponse>, Status> {
        self.not_yet()
    }

    async fn read(&self, _: Request<ReadRequest>) -> Result<Response<ReadResponse>, Status> {
        self.not_yet()
    }

    async fn batch(&self, _: Request<Streaming<BatchRequest>>) -> Result<Response<Self::BatchStream>, Status> {
        self.not_yet()
    }

    async fn watch(&self, _: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        self.not_yet()
    }

    async fn follow(&self, _: Request<FollowRequest>) -> Result<Response<Self::FollowStream>, Status> {
        self.not_yet()
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        self.not_yet()
    }
}

/// A stream that never comes about.
type Nothing<T> = tokio_stream::Empty<Result<T, Status>>;

/// Answers on the port until the node is a member.
pub(super) struct WaitingServer {
    holder: Arc<Holder>,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

impl WaitingServer {
    pub(super) fn start(
        socket: &std::net::TcpListener,
        net: &NetConfig,
        tls: Option<Arc<Tls>>,
        service: WaitingService,
    ) -> Result<WaitingServer, ClusterError> {
        let socket = socket.try_clone().map_err(|source| ClusterError::Io { doing: "share the port", source })?;
        let holder = Arc::new(Holder::new());
        let listener = Listener::on(socket, net, tls, &holder)?;
        let (stop, stopped) = oneshot::channel();
        let metadata = MetadataServer::new(service.clone());
        let routes = Routes::new(FormationServer::new(service)).add_service(metadata);
        let serving = Server::builder()
            .max_concurrent_streams(net.max_calls_per_connection)
            .http2_keepalive_interval(Some(net.keepalive_interval))
            .http2_keepalive_timeout(Some(net.keepalive_timeout))
            .add_routes(routes)
            .serve_with_incoming_shutdown(listener, async {
                let _ = stopped.await;
            });
        let server = tokio::spawn(async {
            if let Err(error) = serving.await {
                tracing::error!(%error, "answering while no member ended");
            }
        });
        tracing::info!(address = %net.listen, "listening for whoever forms a cluster");
        Ok(WaitingServer { holder, stop, server })
    }

    /// Lets those who were answered hear it, and cuts the rest.
    pub(super) async fn stop(self) {
        let WaitingServer { holder, stop, mut server } = self;
        drop(stop);
        if timeout(ANSWER_TIMEOUT, &mut server).await.is_err() {
            drop(holder);
            server.abort();
            let _ = server.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_those_with_the_same_list_only_the_first_forms_a_cluster() {
        let join: Vec<Address> = ["a:1", "b:1"].map(|text| text.parse().unwrap()).into();
        let config = ClusterConfig { join, ..ClusterConfig::default() };
        assert!(matches!(InitRule::of(&config, "a:1"), InitRule::Yes));
        assert!(matches!(InitRule::of(&config, "b:1"), InitRule::Only(first) if first.as_str() == "a:1"));
        assert!(matches!(InitRule::of(&ClusterConfig::default(), "b:1"), InitRule::Yes));
    }
}
