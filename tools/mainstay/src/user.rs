//! `mainstay user`: a line for the users file, from a password that only its user sees.

use std::io::{self, BufRead, IsTerminal, Write};

use anyhow::{Context, bail};
use mainstay::server::pg::{Verifier, users_line};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::cli::UserArgs;

/// Nobody types more, and a password has its own limit.
const LINE_LIMIT_BYTES: u64 = 64 * 1024;
/// The longest name, as in PostgreSQL.
const NAME_LIMIT_BYTES: usize = 63;

/// The line, with its end.
///
/// # Errors
/// There is no password, or none that can be used.
pub fn line(args: &UserArgs) -> anyhow::Result<String> {
    if !(1..=NAME_LIMIT_BYTES).contains(&args.name.len()) || args.name.contains(char::is_control) {
        bail!("the name is empty, longer than {NAME_LIMIT_BYTES} bytes, or holds control characters");
    }
    let password = if io::stdin().is_terminal() { typed()? } else { read()? };
    let verifier = Verifier::new(&password)?;
    Ok(format!("{}\n", users_line(&args.name, &verifier, args.superuser)))
}

/// The first line of standard input.
fn read() -> anyhow::Result<String> {
    let mut line = String::new();
    let mut input = io::Read::take(io::stdin().lock(), LINE_LIMIT_BYTES);
    input.read_line(&mut line).context("the password cannot be read from standard input")?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// A password typed twice at a terminal that does not show it.
fn typed() -> anyhow::Result<String> {
    let _hidden = Hidden::start().context("the terminal cannot be told not to show the password")?;
    let ask = |what: &str| {
        eprint!("{what}");
        io::stderr().flush()?;
        let answer = read();
        eprintln!();
        answer
    };
    let password = ask("Password: ")?;
    if ask("Again: ")? != password {
        bail!("these were two different passwords");
    }
    Ok(password)
}

/// A terminal that does not show what is typed, until it is dropped.
struct Hidden(Termios);

impl Hidden {
    fn start() -> rustix::io::Result<Hidden> {
        let before = tcgetattr(io::stdin())?;
        let mut modes = before.clone();
        modes.local_modes.remove(LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Flush, &modes)?;
        Ok(Hidden(before))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // The terminal may be gone.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}
