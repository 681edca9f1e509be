//! The command line: what there is to type, and what its help says.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Arg, ArgMatches, Args, Command, CommandFactory, FromArgMatches, Parser, Subcommand, value_parser};
use clap_complete::Shell;

use crate::cluster::ClusterAction;
use crate::operate::Operation;
use crate::settings::{self, Problem, Setting, Settings, Sources, TABLE};

/// The variable that names the configuration file.
pub const CONFIG_VARIABLE: &str = "MAINSTAY_CONFIG";

/// A SQLite database that speaks the PostgreSQL protocol and loses nothing that it acknowledged.
#[derive(Parser)]
#[command(name = "mainstay", version, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Action,
}

/// Whether something that is given to this program can come from that variable.
pub fn reads_variable(name: &str) -> bool {
    fn reads(command: &Command, name: &str) -> bool {
        command.get_arguments().any(|argument| argument.get_env().is_some_and(|variable| variable == name))
            || command.get_subcommands().any(|command| reads(command, name))
    }
    name == CONFIG_VARIABLE || reads(&Cli::command(), name)
}

#[derive(Subcommand)]
pub enum Action {
    /// Run a node until SIGTERM or SIGINT.
    ///
    /// When it takes connections it prints one line to standard output: mainstay ready sql=ADDRESS [http=ADDRESS]
    /// [cluster=ADDRESS] data-dir=DIR. A node that is to be a member of a cluster and is none yet prints one before, and
    /// waits: mainstay waiting [http=ADDRESS] cluster=ADDRESS data-dir=DIR. Logs go to standard error. A flag beats a
    /// variable, a variable beats the file, the file beats the default. Exit status: 0 stopped cleanly, 1 could not run, 2
    /// wrong usage.
    Start(StartArgs),
    /// Kill nodes under load and count what was lost: a node with rows, then the leader of a cluster of three.
    Demo(DemoArgs),
    /// Form a cluster, let nodes in, and take them out.
    #[command(subcommand)]
    Cluster(ClusterAction),
    /// Make a line for the users file, from a password on standard input.
    ///
    /// The line goes to standard output; append it to the file that sql.users_file names. A running node sees it within a
    /// second. On a terminal the password is asked for twice and not shown. It cannot be given as an argument, where others
    /// would see it.
    User(UserArgs),
    /// Look at settings of a node's configuration.
    #[command(subcommand)]
    Config(ConfigAction),
    #[command(flatten)]
    Operate(Operation),
    /// Print what makes a shell complete the words of this program.
    ///
    /// For example: mainstay completions bash > /etc/bash_completion.d/mainstay
    Completions {
        /// Which shell.
        shell: Shell,
    },
}

#[derive(Args)]
pub struct DemoArgs {
    /// How long to write in each act, in seconds; the kill comes half way.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = value_parser!(u64).range(2..=3600))]
    pub seconds: u64,
    /// How many clients write at once.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = value_parser!(u64).range(1..=64))]
    pub clients: u64,
}

#[derive(Args)]
pub struct UserArgs {
    /// The user's name.
    pub name: String,
    /// The user may have the connections that are kept for superusers.
    #[arg(long)]
    pub superuser: bool,
}

#[derive(Subcommand)]
pub enum ConfigAction {
    /// Check a configuration file and print all its problems. Exit status: 0 ok, 1 there are problems.
    Check {
        /// The file.
        file: PathBuf,
    },
    /// Print every setting with its default, unit, range and meaning, as a valid configuration file.
    Print,
}

/// The flags of `start`, one per row of the table of settings.
pub struct StartArgs {
    config: Option<PathBuf>,
    flags: Vec<(&'static Setting, String)>,
}

impl StartArgs {
    /// Puts flags, environment and file together.
    ///
    /// # Errors
    /// Every problem of each of them.
    pub fn settings(&self) -> Result<Settings, Vec<Problem>> {
        let variable = |name: &str| std::env::var_os(name);
        let config = self.config.clone().or_else(|| std::env::var_os(CONFIG_VARIABLE).map(PathBuf::from));
        let flags = self.flags.clone();
        settings::gather(&Sources { flags, variable: &variable, file: config.as_deref() })
    }
}

impl Args for StartArgs {
    fn augment_args(command: Command) -> Command {
        let config = Arg::new("config")
            .long("config")
            .value_name("FILE")
            .value_parser(value_parser!(PathBuf))
            .help(format!("A configuration file; `mainstay config print` shows one. [env: {CONFIG_VARIABLE}]"));
        TABLE.iter().fold(command.arg(config), |command, setting| {
            command.arg(
                Arg::new(setting.key())
                    .long(setting.flag())
                    .value_name(setting.value_name())
                    .value_parser(value_parser!(OsString))
                    .help(settings::describe(setting)),
            )
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for StartArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<StartArgs, clap::Error> {
        let mut flags = Vec::new();
        for setting in TABLE {
            let Some(value) = matches.get_one::<OsString>(&setting.key()) else { continue };
            let Some(value) = value.to_str() else {
                let message = format!("--{} is not valid UTF-8\n", setting.flag());
                return Err(clap::Error::raw(ErrorKind::InvalidUtf8, message));
            };
            flags.push((setting, value.to_owned()));
        }
        Ok(StartArgs { config: matches.get_one::<PathBuf>("config").cloned(), flags })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_setting_has_its_flag() {
        for setting in TABLE {
            let flag = format!("--{}=17", setting.flag());
            let cli = Cli::try_parse_from(["mainstay", "start", &flag]).unwrap();
            let Action::Start(args) = cli.command else { panic!("start expected") };
            let [(found, value)] = args.flags.as_slice() else { panic!("one flag expected") };
            assert_eq!((found.key(), value.as_str()), (setting.key(), "17"));
        }
    }
}
