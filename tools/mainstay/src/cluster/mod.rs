//! `mainstay cluster`: what an operator does with whole nodes; and the SQL server of those that hold no rows.

mod referring;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand, value_parser};
use mainstay::cluster::operator::Operator;
use mainstay::ident::NodeId;
use mainstay::meta::client::DEFAULT_TIMEOUT;
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
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    let text = runtime.block_on(async {
        match action {
            ClusterAction::Init(asked) => init(asked).await,
            ClusterAction::Token(TokenAction::Create(args)) => create_token(args).await,
            ClusterAction::Remove(args) => remove(args).await,
        }
    })?;
    crate::print(&text)
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

/// Who acts, for the event log.
fn actor() -> String {
    match std::env::var("USER") {
        Ok(user) if !user.is_empty() => format!("{user}, mainstay cluster"),
        _ => "mainstay cluster".to_owned(),
    }
}
