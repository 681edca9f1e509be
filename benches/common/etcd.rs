//! Etcd from the platform's package: how it is started, and what its clients say.

use std::path::Path;
use std::process::Command;

/// Its API (v3), as much as the benchmarks need.
pub mod proto {
    #![allow(missing_docs, clippy::all, reason = "generated")]
    tonic::include_proto!("etcdserverpb");
}

/// What starts one of several members. `peers` and `clients` are the addresses of all.
pub fn command(directory: &Path, node: usize, peers: &[String], clients: &[String]) -> Command {
    let url = |address: &String| format!("http://{address}");
    let cluster: Vec<String> =
        peers.iter().enumerate().map(|(peer, address)| format!("n{peer}={}", url(address))).collect();
    let mut command = Command::new("etcd");
    command.args(["--name", &format!("n{node}"), "--data-dir"]).arg(directory.join(node.to_string()));
    command.args(["--listen-peer-urls", &url(&peers[node])]);
    command.args(["--initial-advertise-peer-urls", &url(&peers[node])]);
    command.args(["--listen-client-urls", &url(&clients[node])]);
    command.args(["--advertise-client-urls", &url(&clients[node])]);
    command.args(["--initial-cluster", &cluster.join(","), "--log-level", "error"]);
    command
}

/// Whether the member that serves clients there leads.
///
/// # Errors
/// There is no etcdctl.
pub async fn leads(client_address: &str) -> anyhow::Result<bool> {
    let mut command = Command::new("etcdctl");
    command.env("ETCDCTL_API", "3");
    command.args(["--endpoints", client_address, "endpoint", "status", "--write-out", "json"]);
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let status = &status[0]["Status"];
    Ok(status["leader"].is_u64() && status["leader"] == status["header"]["member_id"])
}
