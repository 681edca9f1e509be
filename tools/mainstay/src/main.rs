//! The binary `mainstay`: a SQLite database that speaks the PostgreSQL protocol and whose durability comes from
//! Mainstay's WAL, and the operator's command line.

mod cli;
mod cluster;
mod cluster_sql;
mod demo;
mod logging;
mod operate;
mod probe;
mod settings;
mod sqlite;
mod start;
mod user;

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use cli::{Action, Cli, ConfigAction, StartArgs};
use settings::{Origin, Problem};

/// It could not run, or found something wrong.
const EXIT_FAILED: u8 = 1;
/// It was called wrongly.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    match Cli::parse().command {
        Action::Start(args) => start(&args),
        Action::Demo(args) => finish(demo::run(&args)),
        Action::Cluster(action) => cluster::run(&action),
        Action::User(args) => finish(user::line(&args).and_then(|line| print(&line))),
        Action::Config(ConfigAction::Check { file }) => check(&file),
        Action::Config(ConfigAction::Print) => finish(print(&settings::print_defaults())),
        Action::Operate(operation) => operate::run(&operation),
        Action::Completions { shell } => finish(completions(shell)),
    }
}

fn start(args: &StartArgs) -> ExitCode {
    match args.settings() {
        Ok(settings) if settings.data_dir.is_some() => finish(start::run(&settings)),
        Ok(_) => {
            eprintln!("mainstay: no data directory: give --data-dir, MAINSTAY_DATA_DIR, or data_dir in the file");
            ExitCode::from(EXIT_USAGE)
        }
        Err(problems) => {
            let all: Vec<String> = problems.iter().map(Problem::to_string).collect();
            eprintln!("mainstay: wrong settings: {}", all.join("; "));
            let usage = problems.iter().any(|problem| matches!(problem.origin, Origin::Flag(_)));
            ExitCode::from(if usage { EXIT_USAGE } else { EXIT_FAILED })
        }
    }
}

fn check(file: &Path) -> ExitCode {
    let (text, code) = match settings::check_file(file) {
        Ok(()) => ("ok\n".to_owned(), ExitCode::SUCCESS),
        Err(problems) => (problems.iter().map(|problem| format!("{problem}\n")).collect(), ExitCode::from(EXIT_FAILED)),
    };
    match print(&text) {
        Ok(()) => code,
        Err(error) => finish(Err(error)),
    }
}

/// The words of this program, as a shell wants to be told them.
fn completions(shell: clap_complete::Shell) -> anyhow::Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "mainstay", &mut text);
    print(&String::from_utf8(text)?)
}

/// Writes a result to standard output, where whoever reads it may have gone.
fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    Ok(out.write_all(text.as_bytes()).and_then(|()| out.flush())?)
}

/// One line on standard error for what went wrong, with its causes.
fn finish(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mainstay: {}", one_line(&error));
            ExitCode::from(EXIT_FAILED)
        }
    }
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
