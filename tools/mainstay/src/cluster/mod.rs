//! `mainstay cluster`: what an operator does with whole nodes; and what SQL asks of a cluster.

mod check;
mod face;
mod vote;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use clap::{Args, Subcommand, value_parser};
use mainstay::cluster::force::{Forced, Forecast};
use mainstay::cluster::operator::{NewToken, Operator, OperatorError};
use mainstay::cluster::{FIRST_MEMBER, Membership, force};
use mainstay::ident::NodeId;
use mainstay::meta::proto::{Member, Refusal};
use mainstay::meta::service::MetaError;
use serde_json::{Value, json};

use crate::operate::{
    ActorArgs, ConnectArgs, EXIT_FAILED, EXIT_NOT_FOUND, EXIT_REFUSED, EXIT_STATUS, EXIT_UNKNOWN, EXIT_USAGE, Failed,
    printable,
};
use crate::settings;
pub use face::Face;

#[derive(Subcommand)]
pub enum ClusterAction {
    /// Form a cluster with a node that waits; it becomes the first member, with what data it has.
    #[command(after_help = EXIT_STATUS)]
    Init(InitArgs),
    /// Make what lets nodes join.
    #[command(subcommand, after_help = EXIT_STATUS)]
    Token(TokenAction),
    /// Take a member out for good.
    ///
    /// If it leads, leadership is handed over first. Refused if those that stay would be no majority. Its data directory is
    /// of no use afterwards: to come back, the node joins anew with an empty one.
    #[command(after_help = EXIT_STATUS)]
    Remove(MemberArgs),
    /// Compare what all members hold of the metadata, as of one entry of its log, while everything goes on.
    ///
    /// A member that differs from the majority does not lead until a snapshot has replaced what it holds, which it gets by
    /// itself. A member that cannot be reached is shown as such. Nodes check each other once a day anyway.
    #[command(after_help = check::EXIT_STATUS)]
    Check(check::CheckArgs),
    /// Have a member lead nothing and be sent no new clients, for example before it is stopped.
    ///
    /// Its /readyz answers 503 from then on, and leadership goes to an active member. It goes on to take part in decisions, and
    /// clients that are connected stay. Draining ends when the node starts again, or with `undrain`.
    #[command(after_help = EXIT_STATUS)]
    Drain(MemberArgs),
    /// End draining: the member may lead again, and be sent clients.
    #[command(after_help = EXIT_STATUS)]
    Undrain(MemberArgs),
    /// Say which members vote in the metadata group. The others follow it, and serve all the same.
    ///
    /// With seven members or fewer all vote, if nothing is said. `mainstay status` shows who does.
    #[command(subcommand, after_help = EXIT_STATUS)]
    Voter(vote::VoterAction),
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
pub struct InitArgs {
    #[command(flatten)]
    pub connect: ConnectArgs,
    /// Print cluster_id, node and address as JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct TokenArgs {
    /// How long it is good for, in milliseconds, or with ms, s, min, h, d. [default: the setting token.default_ttl]
    #[arg(long, value_name = "TIME", value_parser = settings::milliseconds)]
    pub ttl: Option<Duration>,
    #[command(flatten)]
    pub connect: ConnectArgs,
    #[command(flatten)]
    pub actor: ActorArgs,
    /// Print token, id and ttl_ms as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Which member is meant, and how it is asked.
#[derive(Args)]
pub struct MemberArgs {
    /// The member's number.
    #[arg(value_parser = value_parser!(u64).range(1..))]
    pub node: u64,
    #[command(flatten)]
    pub connect: ConnectArgs,
    #[command(flatten)]
    pub actor: ActorArgs,
    /// Print node, name, addresses and what became of it as JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct ForceArgs {
    /// The data directory of the member that goes on alone.
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,
    /// Do it.
    #[arg(long)]
    pub yes: bool,
    /// Print what it means, and whether it was done, as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Does what is asked, and prints what came of it.
pub fn run(action: &ClusterAction) -> ExitCode {
    match action {
        ClusterAction::Init(args) => ask(init(args)),
        ClusterAction::Token(TokenAction::Create(args)) => ask(create_token(args)),
        ClusterAction::Remove(args) => ask(remove(args)),
        ClusterAction::Check(args) => check::run(args),
        ClusterAction::Drain(args) => ask(drain(args, true)),
        ClusterAction::Undrain(args) => ask(drain(args, false)),
        ClusterAction::Voter(action) => ask(vote::run(action)),
        ClusterAction::ForceNew(args) => crate::finish(force_new(args)),
    }
}

/// Waits for what nodes answer, and prints it.
fn ask(question: impl Future<Output = Result<String, OperatorError>>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return crate::finish(Err(error.into())),
    };
    let error = match runtime.block_on(question) {
        Ok(text) => return crate::finish(crate::print(&text)),
        Err(error) => error,
    };
    eprintln!("mainstay: {}", error.to_string().replace('\n', " "));
    ExitCode::from(match error {
        OperatorError::Settings(_) => EXIT_USAGE,
        OperatorError::Refused(_) => EXIT_REFUSED,
        OperatorError::NotFound(_) => EXIT_NOT_FOUND,
        OperatorError::Unknown(_) => EXIT_UNKNOWN,
        _ => EXIT_FAILED,
    })
}

fn operator(connect: &ConnectArgs) -> Result<Operator, OperatorError> {
    let operator = Operator::new(connect.addr.clone(), &connect.net(), connect.timeout);
    operator.map_err(|error| OperatorError::Settings(error.to_string()))
}

async fn init(args: &InitArgs) -> Result<String, OperatorError> {
    let cluster = operator(&args.connect)?.init().await?.get();
    let address = args.connect.addr.first().map(ToString::to_string).unwrap_or_default();
    Ok(match args.json {
        true => line(&json!({"cluster_id": hexadecimal(cluster), "node": FIRST_MEMBER.get(), "address": address})),
        false => format!("Formed cluster {cluster:016x}; its first member is node {FIRST_MEMBER}, at {address}.\n"),
    })
}

async fn create_token(args: &TokenArgs) -> Result<String, OperatorError> {
    let NewToken { token, id, ttl } = operator(&args.connect)?.create_token(args.ttl, &args.actor.actor).await?;
    if args.json {
        return Ok(line(&json!({"token": token, "id": id, "ttl_ms": u64::try_from(ttl.as_millis()).ok()})));
    }
    // Beside the token, so that a script gets it alone.
    eprintln!("Token {id} lets one node in, once, within {} s.", ttl.as_secs());
    Ok(format!("{token}\n"))
}

async fn remove(args: &MemberArgs) -> Result<String, OperatorError> {
    let member = operator(&args.connect)?.remove(NodeId::new(args.node), &args.actor.actor).await?;
    Ok(match args.json {
        true => line(&named(&member)),
        false => format!("Removed node {} ({}, at {}).\n", member.id, member.name, member.addresses.join(", ")),
    })
}

async fn drain(args: &MemberArgs, drains: bool) -> Result<String, OperatorError> {
    let failed = |error: Failed| OperatorError::Settings(error.to_string());
    let meta = args.connect.meta(Some(&args.actor)).map_err(failed)?;
    let (members, node) = (meta.members(), NodeId::new(args.node));
    let changed = if drains { members.drain(node).await } else { members.undrain(node).await };
    let member = changed.map_err(of_metadata)?;
    if args.json {
        let mut object = named(&member);
        object["state"] = if drains { "draining" } else { "active" }.into();
        return Ok(line(&object));
    }
    let what = if drains { "drains" } else { "is active" };
    Ok(format!("Node {} ({}) {what}.\n", member.id, printable(member.name.as_bytes())))
}

fn of_metadata(error: MetaError) -> OperatorError {
    match &error {
        MetaError::Refused(refused) if refused.why() == Refusal::NoSuchMember => {
            OperatorError::NotFound(error.to_string())
        }
        MetaError::Refused(_) => OperatorError::Refused(error.to_string()),
        MetaError::Unknown { .. } | MetaError::AnswerLost => OperatorError::Unknown(error.to_string()),
        _ => OperatorError::Unavailable(error.to_string()),
    }
}

fn named(member: &Member) -> Value {
    json!({"node": member.id, "name": member.name, "addresses": member.addresses})
}

/// As everywhere in JSON: large numbers lose digits there.
fn hexadecimal(id: u64) -> String {
    format!("{id:016x}")
}

fn line(value: &Value) -> String {
    format!("{value}\n")
}

/// Says what forcing the member means, and does it if that is confirmed.
fn force_new(args: &ForceArgs) -> anyhow::Result<()> {
    let forecast = force::forecast(&args.data_dir)?;
    if !args.yes {
        crate::print(&if args.json { line(&forecast_json(&forecast, None)) } else { forecast_text(&forecast) })?;
        bail!("nothing was changed; to do this, run it again with --yes");
    }
    let forced = force::force_new(&args.data_dir)?;
    if args.json {
        return crate::print(&line(&forecast_json(&forecast, Some(&forced))));
    }
    crate::print(&format!(
        "{}\nDone: the new cluster is {:016x}. RocksDB as it was is kept in\n  {}\nStart the node now.\n",
        forecast_text(&forecast),
        forced.cluster.get(),
        forced.copy.display()
    ))
}

fn forecast_json(forecast: &Forecast, forced: Option<&Forced>) -> Value {
    let Membership { cluster, node, .. } = forecast.membership;
    json!({
        "done": forced.is_some(), "node": node.get(), "previous_cluster_id": hexadecimal(cluster.get()),
        "cluster_id": forced.map(|forced| hexadecimal(forced.cluster.get())),
        "lost_members": forecast.others.iter().map(named).collect::<Vec<_>>(),
        "unsure_entries": forecast.unsure_entries, "holds_rows": forecast.holds_rows, "was_begun": forecast.is_begun,
        "backup": forced.map(|forced| forced.copy.to_string_lossy()),
    })
}

fn forecast_text(forecast: &Forecast) -> String {
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
    text
}
