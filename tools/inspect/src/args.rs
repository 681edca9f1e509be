//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use mainstay::lsn::Lsn;

/// How many records `wal dump`, or entries `raft log`, shows unless told otherwise.
const DEFAULT_LIMIT: u64 = 1000;

/// Looks into the data directory of a node that is not running. Creates and changes nothing.
#[derive(Debug, Parser)]
#[command(
    name = "mainstay-inspect",
    version,
    after_help = "Exit codes: 0 all is well, 1 damage was found, 2 wrong usage, a node is running, or something cannot be read."
)]
pub struct Args {
    /// The data directory
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,

    /// Write one JSON document instead of text
    #[arg(long, global = true)]
    pub json: bool,

    /// What to look at.
    #[command(subcommand)]
    pub command: Command,
}

/// What to look at.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Whose directory it is, how the last stop was, how far the WAL reaches
    Summary,
    /// The write-ahead log
    Wal {
        /// What of it.
        #[command(subcommand)]
        command: WalCommand,
    },
    /// The Raft groups: their logs, and what is kept beside them
    Raft {
        /// What of them.
        #[command(subcommand)]
        command: RaftCommand,
    },
}

/// What of the write-ahead log to look at.
#[derive(Debug, Subcommand)]
pub enum WalCommand {
    /// The segments: one line each
    List,
    /// The records: one line each
    Dump {
        /// Start at this record, or at the next one if none starts there; without it, at the oldest
        #[arg(long, value_name = "X/Y")]
        from: Option<Lsn>,
        /// Show at most this many records
        #[arg(long, value_name = "N", default_value_t = DEFAULT_LIMIT, value_parser = clap::value_parser!(u64).range(1..))]
        limit: u64,
    },
    /// Read everything from the oldest segment on and check it
    Verify,
}

/// What of the Raft groups to look at.
#[derive(Debug, Subcommand)]
pub enum RaftCommand {
    /// The groups: one line each
    Groups,
    /// All records of a group, or of all of them
    State {
        /// The group's number
        #[arg(value_name = "GROUP")]
        group: Option<u64>,
    },
    /// The entries of a group's log: one line each
    Log {
        /// The group's number
        #[arg(value_name = "GROUP")]
        group: u64,
        /// Start at this entry, or at the next one there is; without it, at the first
        #[arg(long, value_name = "INDEX")]
        from: Option<u64>,
        /// Show at most this many entries
        #[arg(long, value_name = "N", default_value_t = DEFAULT_LIMIT, value_parser = clap::value_parser!(u64).range(1..))]
        limit: u64,
        /// Show what is in them, in hexadecimal. It may be anybody's secret
        #[arg(long)]
        payload: bool,
    },
    /// Which replicas were destroyed here, and may not be made again
    Tombstones,
    /// Read everything and check it
    Verify,
}
