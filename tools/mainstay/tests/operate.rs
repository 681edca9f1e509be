//! The operator's commands as a person and a script use them: real processes against nodes that serve metadata.

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use mainstay::cluster::rpc::proto::{RaftGroup, Replica, StatusResponse};
use mainstay::cluster::rpc::service::{MetadataService, Observed};
use mainstay::ident::{ClusterId, Incarnation, NodeId, SystemId};
use mainstay::meta::apply::Reached;
use mainstay::meta::client::Meta;
use mainstay::meta::memory::MemoryMetadata;
use mainstay::meta::proto::{Command as Proposed, Done, MemberSpec, MemberState};
use mainstay::meta::service::{MetaError, Metadata};
use mainstay::meta::view::View;
use mainstay::net::NetConfig;
use mainstay::net::identity::Identity;
use mainstay::raftstore::context::Attempt;
use mainstay::raftstore::transport::GrpcTransport;
use serde_json::Value;
use support::{LIMIT, Output, mainstay, run};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tonic::service::Routes;

/// One metadata group in memory, served by several nodes, the first of which says that it leads.
struct Cluster {
    runtime: Runtime,
    group: Arc<Group>,
    nodes: Vec<(SocketAddr, Option<GrpcTransport>)>,
}

/// A group that can lose its leader.
#[derive(Default)]
struct Group {
    memory: MemoryMetadata,
    is_lost: AtomicBool,
}

impl Group {
    async fn lead(&self, deadline: Instant) -> Result<(), MetaError> {
        if !self.is_lost.load(Ordering::SeqCst) {
            return Ok(());
        }
        tokio::time::sleep_until(deadline.into()).await;
        Err(MetaError::Unavailable { leader: None, why: "nobody leads".into() })
    }
}

#[tonic::async_trait]
impl Metadata for Group {
    async fn execute(&self, command: Proposed, deadline: Instant) -> Result<Done, MetaError> {
        self.lead(deadline).await?;
        self.memory.execute(command, deadline).await
    }

    async fn execute_named(&self, attempt: Attempt, command: Proposed, deadline: Instant) -> Result<Done, MetaError> {
        self.lead(deadline).await?;
        self.memory.execute_named(attempt, command, deadline).await
    }

    async fn barrier(&self, deadline: Instant) -> Result<(), MetaError> {
        self.lead(deadline).await
    }

    fn view(&self) -> Arc<dyn View> {
        self.memory.view()
    }

    fn progress(&self) -> watch::Receiver<Reached> {
        self.memory.progress()
    }
}

/// What a node says of itself.
struct Stands(u64);

impl Observed for Stands {
    fn status(&self) -> StatusResponse {
        let replica = |node| Replica { replica: node + 10, node, matched: Some(90 + node), ..Replica::default() };
        let group = RaftGroup {
            leader: 1,
            term: 5,
            role: if self.0 == 1 { "leader" } else { "follower" }.into(),
            last: 100,
            committed: 100,
            applied: if self.0 == 1 { 100 } else { 93 },
            replicas: (1..=3).map(replica).collect(),
            ..RaftGroup::default()
        };
        let (version, uptime_ms) = ("0.1.0".to_owned(), 3_725_000);
        StatusResponse { node: self.0, version, uptime_ms, groups: vec![group], ..StatusResponse::default() }
    }
}

impl Cluster {
    fn start() -> Cluster {
        let runtime = Runtime::new().unwrap();
        let group = Arc::new(Group::default());
        let mut cluster = Cluster { runtime, group, nodes: Vec::new() };
        for place in 0..3 {
            cluster.nodes.push((SocketAddr::from(([127, 0, 0, 1], 0)), None));
            cluster.serve(place);
        }
        let meta = cluster.meta();
        let spec = |place: usize, name: &str| MemberSpec {
            name: name.into(),
            addresses: vec![cluster.nodes[place].0.to_string()],
            secret_hash: vec![place as u8; 32],
            incarnation: 1,
            version: 1,
            ..MemberSpec::default()
        };
        cluster.runtime.block_on(async {
            meta.members().form(ClusterId::new(0xc0ffee), SystemId::new(8), spec(0, "north")).await.unwrap();
            for (place, name) in [(1, "east"), (2, "south")] {
                let (token, _) = meta.tokens().create(0).await.unwrap();
                meta.members().join(spec(place, name), &token).await.unwrap();
            }
            let (two, joining) = (NodeId::new(2), MemberState::Joining);
            meta.members().set_state(two, joining, MemberState::Active).await.unwrap();
        });
        cluster
    }

    fn meta(&self) -> Meta {
        Meta::new(Arc::clone(&self.group) as _, "beside the network")
    }

    fn serve(&mut self, place: usize) {
        let node = NodeId::new(place as u64 + 1);
        let identity = Identity { cluster: ClusterId::new(0xc0ffee), node, incarnation: Incarnation::new(1) };
        let net = NetConfig { listen: self.nodes[place].0, ..NetConfig::default() };
        let service = MetadataService::new(Arc::clone(&self.group) as _, Arc::new(Stands(node.get())));
        let routes = Some(Routes::new(service.into_server()));
        let transport = self.runtime.block_on(GrpcTransport::start(net, identity, routes)).unwrap();
        self.nodes[place] = (transport.local_addr(), Some(transport));
    }

    fn stop(&mut self, place: usize) {
        let transport = self.nodes[place].1.take().unwrap();
        self.runtime.block_on(transport.shutdown());
    }

    fn addresses(&self) -> String {
        self.nodes.iter().map(|(address, _)| address.to_string()).collect::<Vec<_>>().join(",")
    }

    /// A command, with the addresses in the environment.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = mainstay();
        command
            .args(arguments)
            .env("MAINSTAY_ADDR", self.addresses())
            .env("USER", "ann")
            .env_remove("MAINSTAY_TIMEOUT");
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        run(&mut self.command(arguments))
    }

    /// What it prints; it ends well.
    fn good(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!((output.code, output.stderr.as_str()), (Some(0), ""), "{arguments:?}: {output:?}");
        output.stdout
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.good(arguments)).unwrap()
    }

    /// How it ends, and what it says of it on one line.
    fn bad(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.run(arguments);
        assert_eq!((output.stdout.as_str(), output.stderr.lines().count()), ("", 1), "{arguments:?}: {output:?}");
        (output.code.unwrap(), output.stderr)
    }
}

/// A command that goes on until it is killed.
struct Following {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Following {
    fn start(mut command: Command) -> Following {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Following { child, lines }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn status_shows_who_leads_and_how_far_each_is() {
    let mut cluster = Cluster::start();
    cluster.stop(2);
    let text = cluster.good(&["status"]);
    println!("{text}");
    assert!(
        text.starts_with("cluster 0000000000c0ffee  system 0000000000000008  version 1\nleader node 1 in term 5\n")
    );
    let row = |node: &str| {
        let row = text.lines().find(|line| line.trim_start().starts_with(node)).unwrap();
        row.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let [one, two, three] = ["1 ", "2 ", "3 "].map(row);
    assert_eq!(one[1], "north");
    assert_eq!(one[3..], ["active", "leader", "yes", "0", "0.1.0", "1h02m"]);
    assert_eq!(two[3..], ["active", "follower", "yes", "7", "0.1.0", "1h02m"]);
    // It does not answer: the leader says how far it is.
    assert_eq!(three[3..7], ["joining", "voter", "yes", "7"]);
    assert!(text.contains("not reached: ") && text.contains("refused"), "{text}");
    assert!(!text.contains('\u{1b}'), "{text:?}");

    let status = cluster.json(&["status", "--json"]);
    assert_eq!(status["leader"], 1);
    assert_eq!(status["cluster_id"], "0000000000c0ffee");
    assert_eq!(status["members"][1]["lag"], 7);
    assert_eq!(status["members"][1]["vote"], true);
    assert_eq!(status["members"][2]["is_reached"], false);

    let mut watching = Following::start(cluster.command(&["status", "--json", "--watch", "--interval", "50ms"]));
    for _ in 0..3 {
        let again: Value = serde_json::from_str(&watching.line()).unwrap();
        assert_eq!(again["leader"], 1);
    }
}

#[test]
fn without_a_leader_status_shows_what_was_known_and_says_so() {
    let cluster = Cluster::start();
    cluster.group.is_lost.store(true, Ordering::SeqCst);
    let output = cluster.run(&["status", "--timeout", "1s"]);
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(output.stdout.contains("NO LEADER") && output.stdout.contains("north"), "{output:?}");
    let (code, said) = cluster.bad(&["kv", "put", "a", "1", "--timeout", "1s"]);
    assert!(code == 1 && said.contains("nobody leads"), "{code} {said}");
    let read = cluster.run(&["kv", "list", "--local"]);
    assert_eq!(read.code, Some(0), "{read:?}");
}

#[test]
fn keys_are_put_read_listed_and_deleted() {
    let cluster = Cluster::start();
    assert_eq!(cluster.good(&["kv", "put", "a/1", "one"]), "revision 1\n");
    assert_eq!(cluster.good(&["kv", "put", "a/2", "two words"]), "revision 2\n");
    assert_eq!(cluster.json(&["kv", "put", "--json", "b", "--", "-x"])["revision"], 3);
    assert_eq!(cluster.good(&["kv", "get", "a/2"]), "two words\n");
    assert_eq!(cluster.good(&["kv", "get", "b"]), "-x\n");
    assert_eq!(cluster.json(&["kv", "get", "--json", "a/1"])["value"], "one");
    cluster.good(&["kv", "put", "a/1", "uno"]);
    assert_eq!(cluster.good(&["kv", "get", "a/1", "--revision", "3"]), "one\n");

    let table = cluster.good(&["kv", "list", "a/"]);
    println!("{table}");
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["KEY", "VALUE", "REVISION", "VERSION", "LEASE"]);
    assert_eq!(lines[1], ["a/1", "uno", "4", "2", "-"]);
    assert!(table.ends_with("\n2 keys at revision 4\n"), "{table}");
    assert_eq!(cluster.good(&["kv", "list", "--keys"]), "a/1\na/2\nb\n");
    assert_eq!(cluster.good(&["kv", "list", "--keys", "--limit", "1"]), "a/1\n");
    assert_eq!(cluster.good(&["kv", "list", "--json"]).lines().count(), 3);

    assert_eq!(cluster.good(&["kv", "delete", "--prefix", "a/"]), "2 deleted\n");
    let (code, said) = cluster.bad(&["kv", "get", "a/1"]);
    assert_eq!((code, said.as_str()), (3, "mainstay: there is no key a/1\n"));
    assert_eq!(cluster.run(&["kv", "delete", "a/1"]).code, Some(3));
}

#[test]
fn a_list_goes_over_all_pages_as_of_one_revision() {
    let cluster = Cluster::start();
    let meta = cluster.meta();
    cluster.runtime.block_on(async {
        for number in 0..2500 {
            meta.kv().put(format!("k{number:05}"), "v").await.unwrap();
        }
    });
    let keys = cluster.good(&["kv", "list", "k", "--keys"]);
    assert!(keys.lines().eq((0..2500).map(|number| format!("k{number:05}"))), "{} lines", keys.lines().count());
    assert_eq!(cluster.good(&["kv", "list", "k", "--keys", "--limit", "1500"]).lines().count(), 1500);
}

/// Runs a command with this on its standard input, and answers what it prints as bytes.
fn feed(mut command: Command, input: &[u8]) -> (Option<i32>, Vec<u8>, String) {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it does not start");
    // It need not read all of what is too large.
    let _ = child.stdin.take().unwrap().write_all(input);
    let output = child.wait_with_output().unwrap();
    (output.status.code(), output.stdout, String::from_utf8(output.stderr).unwrap())
}

#[test]
fn values_are_any_bytes_and_do_a_terminal_no_harm() {
    let cluster = Cluster::start();
    let value = b"\x00\xff\x1b[2J\nend";
    let (code, out, _) = feed(cluster.command(&["kv", "put", "blob"]), value);
    assert_eq!((code, out.as_slice()), (Some(0), b"revision 1\n".as_slice()));
    let (code, out, _) = feed(cluster.command(&["kv", "get", "--raw", "blob"]), b"");
    assert_eq!((code, out.as_slice()), (Some(0), value.as_slice()));
    let table = cluster.good(&["kv", "list"]);
    assert!(table.contains("\\u{0}\\xff\\u{1b}[2J\\nend"), "{table}");
    assert_eq!(cluster.json(&["kv", "get", "--json", "blob"])["value_base64"], "AP8bWzJKCmVuZA==");

    let (code, _, said) = feed(cluster.command(&["kv", "put", "large"]), &vec![b'x'; (1 << 20) + 1]);
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("1048576") || said.contains("1 MiB"), "{said}");
    let (code, _, said) = feed(cluster.command(&["kv", "put", "larger"]), &vec![b'x'; 5 << 20]);
    assert!(code == Some(4) && said.contains("4194304"), "{code:?} {said}");
}

#[test]
fn a_transaction_compares_and_does_one_thing_or_the_other() {
    let cluster = Cluster::start();
    let lock = "# who is first\nif lock version = 0\nthen put lock \"mine alone\"\nelse get lock\n";
    let (code, out, _) = feed(cluster.command(&["kv", "txn"]), lock.as_bytes());
    assert_eq!((code, out.as_slice()), (Some(0), b"then\nput: revision 1\n".as_slice()));
    let (code, out, _) = feed(cluster.command(&["kv", "txn"]), lock.as_bytes());
    assert_eq!((code, String::from_utf8(out).unwrap().as_str()), (Some(3), "else\nget: lock = mine alone\n"));
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(&file, "then delete lock\nthen put a b\n").unwrap();
    let done = cluster.json(&["kv", "txn", "--json", file.path().to_str().unwrap()]);
    assert_eq!((&done["succeeded"], &done["steps"][0]["delete"]["deleted"]), (&true.into(), &1.into()));
    let (code, _, said) = feed(cluster.command(&["kv", "txn"]), b"if lock version = x\n");
    assert_eq!((code, said.as_str()), (Some(2), "mainstay: line 1: x is no number\n"));
}

#[test]
fn a_watch_goes_on_when_its_node_dies() {
    const COUNT: usize = 60;
    let mut cluster = Cluster::start();
    let meta = cluster.meta();
    let put = |cluster: &Cluster, number: usize| {
        cluster.runtime.block_on(async { meta.kv().put("w/x", number.to_string()).await.unwrap() });
    };
    put(&cluster, 0);
    let mut watch =
        Following::start(cluster.command(&["kv", "watch", "--prefix", "w/", "--from", "1", "--limit", "60"]));
    assert_eq!(watch.line(), "1  put  w/x  0");
    for number in 1..COUNT {
        put(&cluster, number);
        if number % 20 == 0 {
            let place = number / 20 % 2;
            cluster.stop(place);
            cluster.serve(place);
        }
    }
    for number in 1..COUNT {
        assert_eq!(watch.line(), format!("{}  put  w/x  {number}", number + 1));
    }
    assert_eq!(watch.line(), "");
    assert_eq!(watch.child.wait().unwrap().code(), Some(0));

    let deleted = Following::start(cluster.command(&["kv", "watch", "w/x", "--from", "60", "--limit", "2", "--json"]));
    cluster.good(&["kv", "delete", "w/x"]);
    let lines: Vec<Value> = deleted_lines(deleted);
    assert_eq!((&lines[0]["type"], &lines[1]["type"]), (&"put".into(), &"delete".into()));
    cluster.runtime.block_on(async { meta.kv().compact(50).await.unwrap() });
    let (code, said) = cluster.bad(&["kv", "watch", "w/x", "--from", "1"]);
    assert!(code == 4 && said.contains("the history begins at 51"), "{code} {said}");
}

fn deleted_lines(mut watch: Following) -> Vec<Value> {
    (0..2).map(|_| serde_json::from_str(&watch.line()).unwrap()).collect()
}

#[test]
fn leases_are_granted_kept_alive_listed_and_revoked() {
    let cluster = Cluster::start();
    let lease = cluster.good(&["kv", "lease", "grant", "1min"]);
    let lease = lease.trim();
    assert_eq!(cluster.good(&["kv", "put", "a", "1", "--lease", lease]), "revision 1\n");
    assert_eq!(cluster.json(&["kv", "get", "a", "--json"])["lease"].to_string(), lease);
    assert_eq!(
        cluster.good(&["kv", "lease", "keep-alive", lease, "--once"]),
        format!("lease {lease} lasts 60000ms from now\n")
    );
    let other = cluster.json(&["kv", "lease", "grant", "5s", "--json"]);
    assert_eq!((&other["ttl_ms"], &other["keys"]), (&5000.into(), &0.into()));
    let table = cluster.good(&["kv", "lease", "list"]);
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!((rows.len(), &rows[1][..]), (3, &[lease, "60000", "1"][..]), "{table}");
    let lines = cluster.good(&["kv", "lease", "list", "--json"]);
    let listed: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert_eq!((listed["lease"].to_string().as_str(), &listed["keys"]), (lease, &1.into()));

    // It renews until the lease is gone.
    let mut keeper =
        Following::start(cluster.command(&["kv", "lease", "keep-alive", "--json", &other["lease"].to_string()]));
    let renewed: Value = serde_json::from_str(&keeper.line()).unwrap();
    assert_eq!(renewed["ttl_ms"], 5000);
    assert_eq!(cluster.json(&["kv", "lease", "revoke", &other["lease"].to_string(), "--json"])["deleted"], 0);
    assert_eq!(keeper.child.wait().unwrap().code(), Some(3));

    assert_eq!(cluster.good(&["kv", "lease", "revoke", lease]), format!("lease {lease} ended, 1 deleted\n"));
    assert_eq!(cluster.bad(&["kv", "get", "a"]).0, 3);
    let (code, said) = cluster.bad(&["kv", "lease", "keep-alive", lease]);
    assert!(code == 3 && said.contains(&format!("there is no lease {lease}")), "{code} {said}");
    assert_eq!(cluster.bad(&["kv", "put", "a", "1", "--lease", lease]).0, 3);
    assert_eq!(cluster.bad(&["kv", "lease", "grant", "1ms"]).0, 4, "shorter than a lease may be");
    assert_eq!(cluster.good(&["kv", "lease", "list"]).lines().count(), 1);
}

#[test]
fn a_watch_says_how_far_it_is_if_it_is_asked_to() {
    let cluster = Cluster::start();
    cluster.good(&["kv", "put", "a", "1"]);
    let mut watch = Following::start(cluster.command(&["kv", "watch", "b", "--from", "1", "--progress", "200ms"]));
    assert_eq!(watch.line(), "1  progress");
    let mut watch =
        Following::start(cluster.command(&["kv", "watch", "b", "--from", "1", "--progress", "200ms", "--json"]));
    let progress: Value = serde_json::from_str(&watch.line()).unwrap();
    assert_eq!((&progress["type"], &progress["revision"]), (&"progress".into(), &1.into()));
}

#[test]
fn settings_are_listed_changed_and_reset_with_their_history() {
    let cluster = Cluster::start();
    let list = cluster.good(&["settings", "list"]);
    println!("{list}");
    for word in ["kv.quota_bytes", "256 MiB", "1 MiB to 8 GiB", "puts are refused until"] {
        assert!(list.contains(word), "{word}: {list}");
    }
    assert_eq!(cluster.good(&["settings", "get", "kv.quota_bytes"]), "256 MiB\n");
    let set = ["settings", "set", "kv.quota_bytes", "512 MiB", "--reason", "more room"];
    assert_eq!(cluster.good(&set), "kv.quota_bytes = 512 MiB\n");
    assert!(cluster.good(&["settings", "list"]).contains("512 MiB *"));
    let setting = cluster.json(&["settings", "get", "--json", "kv.quota_bytes"]);
    assert_eq!((&setting["number"], &setting["is_default"]), (&(512 << 20).into(), &false.into()));
    assert_eq!(
        cluster.good(&["settings", "reset", "kv.quota_bytes", "--actor", "bob"]),
        "kv.quota_bytes = 256 MiB (default)\n"
    );
    let history = cluster.good(&["settings", "get", "--history", "kv.quota_bytes"]);
    println!("{history}");
    let rows: Vec<&str> = history.lines().skip(1).collect();
    assert!(rows[0].contains("512 MiB") && rows[0].contains("ann") && rows[0].ends_with("more room"), "{history}");
    assert!(rows[1].contains("(default)") && rows[1].ends_with("bob"), "{history}");

    let (code, said) = cluster.bad(&["settings", "set", "kv.quota_bytes", "9 GiB"]);
    assert!(code == 4 && said.contains("1 MiB to 8 GiB"), "{code} {said}");
    let (code, said) = cluster.bad(&["settings", "get", "no.such"]);
    assert!(code == 3 && said.contains("no.such"), "{code} {said}");
    assert_eq!(cluster.bad(&["settings", "set", "no.such", "1"]).0, 3);
}

#[test]
fn events_are_shown_and_followed() {
    let cluster = Cluster::start();
    let text = cluster.good(&["events"]);
    println!("{text}");
    assert!(
        text.lines().count() > 4 && text.contains("cluster formed") && text.contains("beside the network"),
        "{text}"
    );
    assert_eq!(cluster.good(&["events", "--from", "2", "--limit", "1", "--json"]).lines().count(), 1);
    let mut follow = Following::start(cluster.command(&["events", "--from", "1", "--follow", "--json"]));
    let first: Value = serde_json::from_str(&follow.line()).unwrap();
    assert_eq!((&first["event"], &first["kind"]), (&1.into(), &"cluster formed".into()));
    cluster.good(&["settings", "set", "kv.max_leases", "7", "--reason", "why not"]);
    let set = loop {
        let event: Value = serde_json::from_str(&follow.line()).unwrap();
        if event["kind"] == "setting set" {
            break event;
        }
    };
    assert_eq!(
        (&set["subject"], &set["actor"], &set["reason"]),
        (&"kv.max_leases".into(), &"ann".into(), &"why not".into())
    );
}

#[test]
fn what_cannot_be_reached_or_used_is_said_in_one_line_and_in_time() {
    let cluster = Cluster::start();
    let begun = Instant::now();
    let (code, said) = cluster.bad(&["kv", "get", "a", "--addr", "127.0.0.1:1", "--timeout", "500ms"]);
    assert!(code == 1 && said.contains("127.0.0.1:1"), "{code} {said}");
    assert!(begun.elapsed() < LIMIT / 2);
    let (code, said) = cluster.bad(&["status", "--addr", "10.0.0.1:5442"]);
    assert!(code == 1 && said.contains("TLS"), "{code} {said}");
    for wrong in [
        ["kv", "get", "a", "--addr", "nowhere"],
        ["kv", "get", "a", "--timeout", "2h"],
        ["kv", "get", "a", "--tls-certificate", "file"],
        ["kv", "get", "a", "--json", "--raw"],
    ] {
        assert_eq!(cluster.run(&wrong).code, Some(2), "{wrong:?}");
    }
    let files = ["--tls-certificate", "/no", "--tls-key", "/such", "--tls-authorities", "/file"];
    let (code, said) = cluster.bad(&[&["kv", "get", "a"][..], &files].concat());
    assert!(code == 1 && said.contains("/no"), "{code} {said}");
    // The first nodes of a list may be anything.
    let addresses = format!("127.0.0.1:1,{}", cluster.nodes[2].0);
    assert_eq!(cluster.good(&["kv", "put", "a", "1", "--addr", &addresses]), "revision 1\n");
}

#[test]
fn shells_are_told_the_words() {
    for (shell, word) in [("bash", "complete -F"), ("zsh", "#compdef mainstay"), ("fish", "complete -c mainstay")] {
        let text = run(mainstay().args(["completions", shell])).stdout;
        assert!(text.contains(word) && text.contains("settings"), "{shell}");
    }
    let help = run(mainstay().args(["kv", "get", "--help"])).stdout;
    assert!(help.contains("Exit status: 0 done") && help.contains("MAINSTAY_ADDR"), "{help}");
}
