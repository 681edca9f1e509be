//! The binary `mainstay-inspect`: a look into the data directory of a node that is not running.
//!
//! | file | what it holds |
//! |---|---|
//! | `args` | the command line |
//! | `directory` | the data directory as its files say, opened without changing one |
//! | `walk` | the records one after another, also behind damage |
//! | `report` | what each command finds, and how it is written for people and as JSON |
//!
//! It creates and changes nothing, and holds the directory's lock in common with other readers, so that no node starts
//! meanwhile. Only `wal repair --yes` and `raft unsafe-recover --yes` write; they take the lock as a node does. No format is parsed here: records,
//! segments and notes are read by [`mainstay::wal`], [`mainstay::storage`] and [`mainstay::raftstore`]; where the log
//! ends, and what must hold for a Raft group, is decided by the rules that a starting node uses.
//!
//! **When RocksDB cannot be read**, the `wal` commands go on with what the file `identity` says and judge the log by
//! its own marks; they say so, and do not exit with 0. The `raft` commands, and those of the cluster's metadata, then show
//! nothing but that.
//!
//! **Exit codes**: 0 all is well, 1 damage was found, 2 wrong usage, a node is running, or something cannot be read.
//! Damage goes before what cannot be read. With `--json`, standard output holds exactly one document in each case but
//! wrong usage.

mod args;
mod directory;
mod report;
mod walk;

#[cfg(test)]
mod unreadable_test;

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use mainstay::ident::{GroupId, LogIndex};
use mainstay::storage::StorageError;

use args::{Args, Command, RaftCommand, WalCommand};
use directory::DataDirectory;
use report::{Damage, DumpWanted, Exit, KvWanted, LogWanted, RepairWanted, Report};

fn main() -> ExitCode {
    let args = Args::read();
    let mut out = BufWriter::new(io::stdout().lock());
    let exit = run(&args, &mut out).and_then(|exit| unless_gone(out.flush().map_err(Into::into), exit));
    let exit = match exit {
        Ok(exit) => exit,
        Err(error) => fail(&args, &mut out, &error),
    };
    ExitCode::from(exit.code())
}

fn run(args: &Args, out: &mut dyn Write) -> anyhow::Result<Exit> {
    let directory = DataDirectory::open(&args.directory)?;
    match &args.command {
        Command::Summary => finish(args, out, &report::summary(&directory)?),
        Command::Wal { command } => run_wal(args, command, directory, out),
        Command::Members => finish(args, out, &report::members(&directory)?),
        Command::Settings => finish(args, out, &report::settings(&directory)?),
        Command::Kv { prefix, limit, values } => {
            let wanted = KvWanted { prefix: prefix.clone(), limit: to_usize(*limit), values: *values };
            finish(args, out, &report::kv(&directory, &wanted)?)
        }
        Command::Events { limit } => finish(args, out, &report::events(&directory, to_usize(*limit))?),
        Command::Tokens => finish(args, out, &report::tokens(&directory)?),
        Command::Raft { command: RaftCommand::Groups { sort, limit } } => {
            finish(args, out, &report::raft_groups(&directory, *sort, *limit)?)
        }
        Command::Raft { command: RaftCommand::Group { group } } => {
            finish(args, out, &report::raft_group(&directory, GroupId::new(*group))?)
        }
        Command::Raft { command: RaftCommand::State { group } } => {
            finish(args, out, &report::raft_state(&directory, group.map(GroupId::new))?)
        }
        Command::Raft { command: RaftCommand::Log { group, from, limit, payload } } => {
            let wanted = LogWanted {
                group: GroupId::new(*group),
                from: from.map(LogIndex::new),
                limit: *limit,
                payload: *payload,
            };
            while_read(report::raft_log(&directory, &wanted, args.json, out))
        }
        Command::Raft { command: RaftCommand::Snapshots } => finish(args, out, &report::raft_snapshots(&directory)?),
        Command::Raft { command: RaftCommand::Tombstones } => finish(args, out, &report::raft_tombstones(&directory)?),
        Command::Raft { command: RaftCommand::UnsafeRecover { group, yes } } => {
            finish(args, out, &report::raft_unsafe_recover(directory, GroupId::new(*group), *yes)?)
        }
        Command::Raft { command: RaftCommand::Verify } => finish(args, out, &report::raft_verify(&directory)?),
    }
}

fn to_usize(limit: u64) -> usize {
    usize::try_from(limit).unwrap_or(usize::MAX)
}

fn run_wal(args: &Args, command: &WalCommand, directory: DataDirectory, out: &mut dyn Write) -> anyhow::Result<Exit> {
    match command {
        WalCommand::List => finish(args, out, &report::list(&directory)?),
        WalCommand::Verify { go_on } => finish(args, out, &report::verify(&directory, *go_on)?),
        WalCommand::Dump { from, limit, go_on } => {
            let wanted = DumpWanted { from: *from, limit: *limit, go_on: *go_on };
            while_read(report::dump(&directory, &wanted, args.json, out))
        }
        WalCommand::Explain { lsn } => finish(args, out, &report::explain(&directory, *lsn)?),
        WalCommand::Stats => finish(args, out, &report::stats(&directory)?),
        WalCommand::Retention { keep_bytes } => finish(args, out, &report::retention(&directory, *keep_bytes)?),
        WalCommand::Repair { cut_at, yes } => {
            let wanted = RepairWanted { cut_at: *cut_at, is_confirmed: *yes };
            report::repair(directory, wanted, args.json, out)
        }
    }
}

fn finish<R: Report>(args: &Args, out: &mut dyn Write, report: &R) -> anyhow::Result<Exit> {
    unless_gone(write(args, out, report), report.exit())
}

fn write<R: Report>(args: &Args, out: &mut dyn Write, report: &R) -> anyhow::Result<()> {
    if args.json {
        serde_json::to_writer_pretty(&mut *out, report)?;
        Ok(writeln!(out)?)
    } else {
        Ok(report.write_text(out)?)
    }
}

/// How a dump ended, if not because whoever reads it has seen enough.
fn while_read(dumped: anyhow::Result<Exit>) -> anyhow::Result<Exit> {
    match dumped {
        Err(error) if is_broken_pipe(&error) => Ok(Exit::Clean),
        other => other,
    }
}

/// `exit`, if the output was written or whoever reads it has seen enough.
fn unless_gone(written: anyhow::Result<()>, exit: Exit) -> anyhow::Result<Exit> {
    match written {
        Err(error) if !is_broken_pipe(&error) => Err(error),
        _ => Ok(exit),
    }
}

/// What stopped us before there was anything to report: damage that hides everything else, or an error.
fn fail(args: &Args, out: &mut dyn Write, error: &anyhow::Error) -> Exit {
    let line = one_line(error);
    eprintln!("mainstay-inspect: {line}");
    let damage = match error.downcast_ref::<StorageError>() {
        Some(StorageError::Damaged { path, what }) => vec![Damage::of_file(path, what)],
        _ => Vec::new(),
    };
    if args.json {
        let document = serde_json::json!({ "error": line, "damage": damage });
        // Best effort: the same is on standard error.
        let _ = writeln!(out, "{document:#}").and_then(|()| out.flush());
    }
    if damage.is_empty() { Exit::Unreadable } else { Exit::Damage }
}

/// The error and those of its causes that it does not repeat already, joined by colons.
fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let text = cause.to_string().replace('\n', " ");
        if line.is_empty() {
            line = text;
        } else if !line.contains(&text) {
            line = format!("{line}: {text}");
        }
    }
    line
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let direct = cause.downcast_ref::<io::Error>().map(io::Error::kind);
        let json = cause.downcast_ref::<serde_json::Error>().and_then(serde_json::Error::io_error_kind);
        direct.or(json) == Some(io::ErrorKind::BrokenPipe)
    })
}
