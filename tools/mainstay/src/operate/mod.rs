//! What an operator does with a cluster from outside: look at it, change settings and keys, follow what happens.
//!
//! It knows no node's inside: it speaks to any member over gRPC, as every other process does.
//!
//! | file | what it holds |
//! |---|---|
//! | `connect` | which nodes, and how they are spoken to |
//! | `outcome` | what a command came to, and its exit status |
//! | `show` | tables, times, and bytes that do a terminal no harm |
//! | `status` | `mainstay status` |
//! | `kv`, `lease`, `txn` | `mainstay kv` |
//! | `settings` | `mainstay settings` |
//! | `events` | `mainstay events` |

mod connect;
mod events;
mod kv;
mod lease;
mod outcome;
mod settings;
mod show;
mod status;
mod txn;

use std::process::ExitCode;

use clap::{Args, Subcommand};

pub use connect::{ActorArgs, ConnectArgs};
use outcome::Outcome;
pub use outcome::{EXIT_FAILED, EXIT_NOT_FOUND, EXIT_REFUSED, EXIT_STATUS, EXIT_UNKNOWN, EXIT_USAGE};

pub use events::events_json;
pub use outcome::Failed;
pub use show::{printable, table};
pub use status::cluster_json;

#[derive(Subcommand)]
pub enum Operation {
    /// Show the members of a cluster: who leads, how far each is, since when it runs.
    ///
    /// The list of members is read from any node; each member is then asked itself. Without a leader the list is what the
    /// node that answers has known last, and the exit status is 1.
    #[command(after_help = EXIT_STATUS)]
    Status(StatusArgs),
    /// Read, write and watch the small key-value store of a cluster.
    #[command(subcommand, after_help = EXIT_STATUS)]
    Kv(kv::KvAction),
    /// Look at and change the settings of a cluster.
    #[command(subcommand, after_help = EXIT_STATUS)]
    Settings(settings::SettingsAction),
    /// Show what changed in a cluster, who did it, and why.
    #[command(after_help = EXIT_STATUS)]
    Events(events::EventsArgs),
}

#[derive(Args)]
pub struct StatusArgs {
    #[command(flatten)]
    connect: ConnectArgs,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
    /// Show it again and again, until interrupted.
    #[arg(long)]
    watch: bool,
    /// How long to wait between two looks with --watch.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = connect::time, requires = "watch")]
    interval: std::time::Duration,
}

/// Does it, and says how it went.
pub fn run(operation: &Operation) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return crate::finish(Err(error.into())),
    };
    let ended = runtime.block_on(async {
        let done = async {
            match operation {
                Operation::Status(args) => status::run(args).await,
                Operation::Kv(action) => kv::run(action).await,
                Operation::Settings(action) => settings::run(action).await,
                Operation::Events(args) => events::run(args).await,
            }
        };
        tokio::select! {
            ended = done => ended,
            _ = tokio::signal::ctrl_c() => Ok(Outcome::Done),
        }
    });
    // A connection may still wait for an answer; nothing of it is needed any more.
    runtime.shutdown_background();
    outcome::exit(ended)
}
