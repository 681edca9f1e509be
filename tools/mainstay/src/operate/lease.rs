//! `mainstay kv lease`.

use std::time::Duration;

use clap::{Subcommand, value_parser};
use mainstay::meta::client::Meta;
use mainstay::meta::proto::Lease;
use mainstay::meta::service::MetaError;
use serde_json::{Value, json};

use super::connect::{ConnectArgs, time};
use super::outcome::{EXIT_STATUS, Failed, Outcome};
use super::show::{self, printable};

/// Leases asked for at a time.
const PAGE: usize = 1000;
/// A lease is renewed so many times in its time to live, so that one renewal that fails ends nothing.
const RENEWALS_PER_TTL: u32 = 3;

#[derive(Subcommand)]
pub enum LeaseAction {
    /// Grant a lease, and print its number: keys that are put with it go when nobody keeps it alive.
    #[command(after_help = EXIT_STATUS)]
    Grant {
        #[command(flatten)]
        connect: ConnectArgs,
        /// How long it lasts unless it is kept alive: a number with ms, s or min.
        #[arg(value_name = "TTL", value_parser = time)]
        ttl: Duration,
        /// Print it as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Keep a lease alive until interrupted, or once.
    ///
    /// It is renewed three times in its time to live. While no node can do so, it is tried on; it ends with status 3 once the
    /// lease is gone.
    #[command(after_help = EXIT_STATUS)]
    KeepAlive {
        #[command(flatten)]
        connect: ConnectArgs,
        /// The lease's number.
        #[arg(value_parser = value_parser!(u64).range(1..))]
        lease: u64,
        /// Renew it once, and end.
        #[arg(long)]
        once: bool,
        /// Print each renewal as a line of JSON.
        #[arg(long)]
        json: bool,
    },
    /// End a lease now, and delete the keys that were put with it.
    #[command(after_help = EXIT_STATUS)]
    Revoke {
        #[command(flatten)]
        connect: ConnectArgs,
        /// The lease's number.
        #[arg(value_parser = value_parser!(u64).range(1..))]
        lease: u64,
        /// Print how many keys were deleted as JSON.
        #[arg(long)]
        json: bool,
    },
    /// List leases with their times to live and how many keys each holds.
    #[command(after_help = EXIT_STATUS)]
    List {
        #[command(flatten)]
        connect: ConnectArgs,
        /// What the node that answers has, however old: also without a leader.
        #[arg(long)]
        local: bool,
        /// Print each lease as a line of JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Does it.
pub async fn run(action: &LeaseAction) -> Result<Outcome, Failed> {
    match action {
        LeaseAction::Grant { connect, ttl, json } => {
            let lease = connect.meta(None)?.kv().grant_lease(*ttl).await?;
            match json {
                true => show::json(&object(&lease))?,
                // Alone, so that a script has it.
                false => show::line(lease.id)?,
            }
            Ok(Outcome::Done)
        }
        LeaseAction::KeepAlive { connect, lease, once, json } => {
            keep_alive(&connect.meta(None)?, *lease, *once, *json).await
        }
        LeaseAction::Revoke { connect, lease, json } => {
            let deleted = connect.meta(None)?.kv().revoke_lease(*lease).await?;
            match json {
                true => show::json(&json!({"lease": lease, "deleted": deleted}))?,
                false => show::line(format!("lease {lease} ended, {deleted} deleted"))?,
            }
            Ok(Outcome::Done)
        }
        LeaseAction::List { connect, local, json } => {
            let meta = connect.meta(None)?;
            list(if *local { meta.local() } else { meta }, *json).await
        }
    }
}

fn object(lease: &Lease) -> Value {
    json!({"lease": lease.id, "ttl_ms": lease.ttl_ms, "keys": lease.keys})
}

async fn keep_alive(meta: &Meta, lease: u64, once: bool, json: bool) -> Result<Outcome, Failed> {
    let mut pause = None;
    loop {
        match meta.kv().keep_alive(lease).await {
            Ok(renewed) => {
                match json {
                    true => show::json(&object(&renewed))?,
                    false => show::line(format!("lease {lease} lasts {}ms from now", renewed.ttl_ms))?,
                }
                pause = Some(Duration::from_millis(renewed.ttl_ms) / RENEWALS_PER_TTL);
            }
            // Unless it was renewed once, it is not known how long there is to try.
            Err(error @ (MetaError::Unavailable { .. } | MetaError::Unknown { .. })) if !once && pause.is_some() => {
                eprintln!("mainstay: trying on: {}", printable(error.to_string().as_bytes()));
            }
            Err(error) => return Err(error.into()),
        }
        match pause.filter(|_| !once) {
            Some(pause) => tokio::time::sleep(pause).await,
            None => return Ok(Outcome::Done),
        }
    }
}

async fn list(meta: Meta, json: bool) -> Result<Outcome, Failed> {
    let mut rows = Vec::new();
    let mut from = 0;
    loop {
        let leases = meta.kv().leases(from, PAGE).await?;
        for lease in &leases {
            match json {
                true => show::json(&object(lease))?,
                false => rows.push(vec![lease.id.to_string(), lease.ttl_ms.to_string(), lease.keys.to_string()]),
            }
        }
        match leases.last().filter(|_| leases.len() == PAGE) {
            Some(last) => from = last.id + 1,
            None => break,
        }
    }
    if !json {
        show::line(show::table(&["lease", "ttl ms", "keys"], &[0, 1, 2], rows))?;
    }
    Ok(Outcome::Done)
}
