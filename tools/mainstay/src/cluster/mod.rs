//! `mainstay cluster`: what an operator does with whole nodes; and the SQL server of those that hold no rows.

mod referring;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Subcommand, value_parser};
use mainstay::cluster::operator::Operator;
use mainstay::cluster::{Membership, force};
use mainstay::ident::NodeId;
use mainstay::meta::client::DEFAULT_TIMEOUT;
use mainstay::meta::proto::Member;
use mainstay::net::{Address, NetConfig};

use crate::settings;
pub use referring::Referring;

/// A removal waits for leadership to be handed over, and for the group to agree.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(40);

#[derive(Subcommand)]
pub enum ClusterAction {
    /// Form a cluster with a node that waits; it becomes the first member, with what data it has.
    Init(Asked),
    /// Make what lets nodes join.
    #[command(subcommand)]
    Token(TokenAction),
    /// Take a member out for good.
    ///
    /// If it leads, leadership is handed over first. Refused if those that stay would be no majority. Its data directory is
    /// of no use afterwards: to come back, the node joins anew with an empty one.
    Remove(RemoveArgs),
    /// LAST RESORT: make a new cluster of one member, when most others are lost for good.
    ///
    /// Works on the data directory of a node that does not run, and says without --yes what it would do. What the lost
    /// members had acknowledged and this one never heard of is lost. The new cluster has another id and the same system:
    /// members of the old one are refused, and must not be started again where people use them. Afterwards start the node,
    /// and let others join with empty directories. Exit status: 0 done, 1 not done.
    ForceNew(ForceArgs),
}

#[derive(Subcommand)]
pub enum TokenAction {
    /// Make a join token and print it. It lets one node in, once, and nobody can show it again.
    Create(TokenArgs),
}

#[derive(Args)]
pub struct TokenArgs {
    /// How long it is good for, in milliseconds, or with ms, s, min, h, d. [default: the setting token.default_ttl]
    #[arg(long, value_name = "TIME", value_parser = settings::milliseconds)]
    pub ttl: Option<Duration>,
    #[command(flatten)]
    pub asked: Asked,
}

#[derive(Args)]
pub struct RemoveArgs {
    /// The member's number.
    #[arg(value_parser = value_parser!(u64).range(1..))]
    pub node: u64,
    #[command(flatten)]
    pub asked: Asked,
}

#[derive(Args)]
pub struct ForceArgs {
    /// The data directory of the member that goes on alone.
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,
    /// Do it.
    #[arg(long)]
    pub yes: bool,
}

/// Who is asked, and how.
#[derive(Args)]
pub struct Asked {
    /// Where nodes listen for other nodes, with commas between them: any member will do. `init` takes one.
    #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',', default_value = "127.0.0.1:5442")]
    pub addr: Vec<Address>,
    /// A certificate that nodes take, in PEM; with it go --tls-key and --tls-authorities.
    #[arg(long, value_name = "FILE")]
    pub tls_certificate: Option<PathBuf>,
    /// Its key, in PEM.
    #[arg(long, value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// The authorities, in PEM, of which nodes must show a certificate.
    #[arg(long, value_name = "FILE")]
    pub tls_authorities: Option<PathBuf>,
    /// Speak without TLS also to addresses beyond loopback.
    #[arg(long)]
    pub allow_plaintext: bool,
}

impl Asked {
    fn operator(&self, timeout: Duration) -> anyhow::Result<Operator> {
        let tls = settings::tls(&self.tls_certificate, &self.tls_key, &self.tls_authorities);
        let tls = tls.map_err(|problem| anyhow::anyhow!("--{}", problem.replacen('_', "-", 1)))?;
        let net = NetConfig { tls, allow_plaintext: self.allow_plaintext, ..NetConfig::default() };
        Ok(Operator::new(self.addr.clone(), &net, timeout)?)
    }
}

/// Does what is asked, and prints what came of it.
///
/// # Errors
/// Nothing came of it, or nobody knows.
pub fn run(action: &ClusterAction) -> anyhow::Result<()> {
    match action {
        ClusterAction::Init(asked) => ask(init(asked)),
        ClusterAction::Token(TokenAction::Create(args)) => ask(create_token(args)),
        ClusterAction::Remove(args) => ask(remove(args)),
        ClusterAction::ForceNew(args) => force_new(args),
    }
}

/// Waits for what nodes answer, and prints it.
fn ask(question: impl Future<Output = anyhow::Result<String>>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    crate::print(&runtime.block_on(question)?)
}

async fn init(asked: &Asked) -> anyhow::Result<String> {
    let cluster = asked.operator(DEFAULT_TIMEOUT)?.init().await?;
    let address = asked.addr.first().map(ToString::to_string).unwrap_or_default();
    Ok(format!("Formed cluster {:016x}; its first member is node 1, at {address}.\n", cluster.get()))
}

async fn create_token(args: &TokenArgs) -> anyhow::Result<String> {
    let token = args.asked.operator(DEFAULT_TIMEOUT)?.create_token(args.ttl, &actor()).await?;
    // Beside the token, so that a script gets it alone.
    eprintln!("Token {} lets one node in, once, within {} s.", token.id, token.ttl.as_secs());
    Ok(format!("{}\n", token.token))
}

async fn remove(args: &RemoveArgs) -> anyhow::Result<String> {
    let member = args.asked.operator(REMOVE_TIMEOUT)?.remove(NodeId::new(args.node), &actor()).await?;
    Ok(format!("Removed node {} ({}, at {}).\n", member.id, member.name, member.addresses.join(", ")))
}

/// Says what forcing the member means, and does it if that is confirmed.
fn force_new(args: &ForceArgs) -> anyhow::Result<()> {
    let forecast = force::forecast(&args.data_dir)?;
    let Membership { cluster, node, .. } = forecast.membership;
    let mut text =
        format!("THE LAST RESORT: node {node} of cluster {:016x} goes on alone, as a new cluster.\n\n", cluster.get());
    if forecast.is_begun {
        text += "This was begun before and did not come to its end.\n";
    }
    text += "Lost for good, also if they still run somewhere:\n";
    for Member { id, name, addresses, .. } in &forecast.others {
        text += &format!("  node {id} ({name}, at {})\n", addresses.join(", "));
    }
    text += "What they acknowledged and this node never heard of is lost with them.\n";
    if forecast.unsure_entries > 0 {
        text += &format!(
            "{} entries of the log stay of which nobody knows whether they were acknowledged.\n",
            forecast.unsure_entries
        );
    }
    if !forecast.holds_rows {
        text += "THE ROWS OF THE CLUSTER ARE NOT HERE: only its members, settings, keys and events are.\n";
    }
    if !args.yes {
        crate::print(&text)?;
        bail!("nothing was changed; to do this, run it again with --yes");
    }
    let forced = force::force_new(&args.data_dir)?;
    text += &format!(
        "\nDone: the new cluster is {:016x}. RocksDB as it was is kept in\n  {}\nStart the node now.\n",
        forced.cluster.get(),
        forced.copy.display()
    );
    crate::print(&text)
}

/// Who acts, for the event log.
fn actor() -> String {
    match std::env::var("USER") {
        Ok(user) if !user.is_empty() => format!("{user}, mainstay cluster"),
        _ => "mainstay cluster".to_owned(),
    }
}
