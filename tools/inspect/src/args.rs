//! The command line.

use std::path::PathBuf;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use mainstay::config::WalConfig;
use mainstay::lsn::Lsn;

/// How many records `wal dump`, or entries `raft log`, shows unless told otherwise.
const DEFAULT_LIMIT: u64 = 1000;

/// Looks into the data directory of a node that is not running. Creates and changes nothing, but for `wal repair --yes`
/// and `raft unsafe-recover --yes`.
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

impl Args {
    /// Reads the command line. Ends the process where it is wrong, or asks for help.
    pub fn read() -> Args {
        let command = Args::command();
        let name = format!("{} <DIR>", command.get_name());
        let mut command = with_directory_in_usage(command, &name);
        let matches = command.get_matches_mut();
        Args::from_arg_matches(&matches).unwrap_or_else(|error| error.format(&mut command).exit())
    }
}

/// Puts what stands before a subcommand, which includes the directory, into the usage that its help shows.
fn with_directory_in_usage(command: clap::Command, before: &str) -> clap::Command {
    command.mut_subcommands(|command| {
        let name = format!("{before} {}", command.get_name());
        let usage = command.clone().disable_help_subcommand(true).bin_name(&name).render_usage().to_string();
        let usage = usage.trim_start_matches("Usage:").trim().to_owned();
        with_directory_in_usage(command.override_usage(usage), &name)
    })
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
    /// The members of the cluster, as far as this node had applied
    Members,
    /// The settings of the cluster
    Settings,
    /// The keys of the cluster's small KV; values only with --values
    Kv {
        /// Those that begin so
        #[arg(long, default_value = "")]
        prefix: String,
        /// Show at most this many
        #[arg(long, value_name = "N", default_value_t = DEFAULT_LIMIT, value_parser = clap::value_parser!(u64).range(1..))]
        limit: u64,
        /// Show values, too: they may be secret
        #[arg(long)]
        values: bool,
    },
    /// The log of what happened to the cluster
    Events {
        /// Show the last this many
        #[arg(long, value_name = "N", default_value_t = DEFAULT_LIMIT, value_parser = clap::value_parser!(u64).range(1..))]
        limit: u64,
    },
    /// The join tokens that are remembered; never the tokens themselves
    Tokens,
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
        /// Go on behind damage, at the next whole record
        #[arg(long = "continue")]
        go_on: bool,
    },
    /// Read everything from the oldest segment on and check it
    Verify {
        /// Go on behind damage in the same segment, at the next whole record
        #[arg(long = "continue")]
        go_on: bool,
    },
    /// What stands at a position: segment, offset, record, its neighbours
    Explain {
        /// The position
        #[arg(value_name = "X/Y")]
        lsn: Lsn,
    },
    /// How many records of each kind, and what the bytes of each segment are used for
    Stats,
    /// Which segments are kept, and by whom, as far as the files alone can tell
    Retention {
        /// The node's setting wal.keep_bytes, which is not in the directory
        #[arg(long, value_name = "BYTES", default_value_t = WalConfig::default().keep_bytes)]
        keep_bytes: u64,
    },
    /// Cut the log at a record boundary: the last resort
    #[command(after_help = REPAIR_HELP)]
    Repair {
        /// Where the log shall end: where a record starts or ends
        #[arg(long, value_name = "X/Y")]
        cut_at: Lsn,
        /// Do it. Without this, only say what would be lost, and exit with 2
        #[arg(long)]
        yes: bool,
    },
}

const REPAIR_HELP: &str = "\
Everything behind the cut is lost to the node: the rest of its segment is erased, later segments are taken out. Before
anything is changed, it is copied to files ending in .broken in the same directory, which nothing overwrites or reads;
remove them when you are sure. What the node noted about the log beyond the cut (a clean stop, a checkpoint) is taken
back. The engine's own files are never touched: if they reach beyond the cut, the node will not start on them, and this
command says what to do. If it is interrupted, run it again.

A log that merely ends in a torn tail needs no repair: a starting node cuts it.";

/// By what groups are ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum GroupsBy {
    /// Their numbers
    Group,
    /// How many entries their logs hold
    Entries,
    /// How many bytes: reads all logs, and adds a column
    Bytes,
    /// How many entries are committed and not applied
    Unapplied,
    /// How many entries are not known to be committed
    Uncommitted,
    /// Their last entry: how much was ever written
    Last,
    /// Their terms: how often a leader was elected
    Term,
}

/// What of the Raft groups to look at.
#[derive(Debug, Subcommand)]
pub enum RaftCommand {
    /// The groups: one line each
    Groups {
        /// By what to order them. All but the group's number put the largest first
        #[arg(long, value_enum, value_name = "KEY", default_value_t = GroupsBy::Group)]
        sort: GroupsBy,
        /// Show at most this many
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        limit: Option<u64>,
    },
    /// Everything that is stored of a group: records, log, snapshot, sessions, tombstone
    Group {
        /// The group's number
        #[arg(value_name = "GROUP")]
        group: u64,
    },
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
    /// Which snapshots were being filled when the node stopped, and into which tables. The next start removes them
    Snapshots,
    /// Which replicas were destroyed here, and may not be made again
    Tombstones,
    /// Let the replica here go on alone: the last resort for a group that lost its majority for good
    #[command(after_help = RECOVER_HELP)]
    UnsafeRecover {
        /// The group's number
        #[arg(value_name = "GROUP")]
        group: u64,
        /// Do it. Without this, only say what it means, and exit with 2
        #[arg(long)]
        yes: bool,
    },
    /// Read everything and check it
    Verify,
}

const RECOVER_HELP: &str = "\
Afterwards the replica is the only voter of its group, in a new term, with its whole log; all others count as removed and
are not listened to. New replicas can be added as soon as the node runs. What the others acknowledged without this replica
is lost. Before anything is changed, RocksDB is copied beside meta/, to a directory ending in .broken, which nothing
overwrites or reads; remove it when you are sure. Other groups are not touched.";
