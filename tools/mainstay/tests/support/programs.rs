//! Programs that nobody here wrote, as clients of a node.

use std::path::PathBuf;
use std::process::Command;

use super::{Output, Running, piped, run, settings};

/// One of PostgreSQL's programs, with nothing from the environment of whoever runs the tests.
pub fn program(name: &str, node: &Running) -> Command {
    let mut command = unsettled(name);
    command.args(["-h", "127.0.0.1", "-p", &node.port(), "-U", "postgres"]);
    command
}

/// A program to be run, with nothing in its environment that PostgreSQL's library would look at.
fn unsettled(name: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(name);
    piped(&mut command);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PG") {
            command.env_remove(name);
        }
    }
    command
}

/// Runs SQL with psql, which is told where to connect in its own words, and what password it has.
pub fn psql_at(connection: &str, password: Option<&str>, sql: &str) -> Output {
    let mut command = unsettled("psql");
    // Not the certificates of whoever runs the tests.
    command.env("HOME", "/nonexistent").env("PGCONNECT_TIMEOUT", "20");
    if let Some(password) = password {
        command.env("PGPASSWORD", password);
    }
    run(command.args(["-X", "-A", "-t", "-w", "-v", "VERBOSITY=verbose", "-c", sql, connection]))
}

/// What Mainstay's tools keep for one user of a machine.
fn cache() -> PathBuf {
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    std::env::var_os("XDG_CACHE_HOME").map_or_else(|| home.join(".cache"), PathBuf::from).join("mainstay")
}

/// Where node finds its package `pg`; none if either is not there.
pub fn node_modules() -> Option<PathBuf> {
    let modules = cache().join("node/node_modules");
    let node = Command::new("node").arg("--version").output().is_ok_and(|output| output.status.success());
    (node && modules.join("pg").exists()).then_some(modules)
}

/// Runs a Python program that uses psycopg 3; `dsn` is defined in it. It must print `done` at its end.
pub fn python(node: &Running, program: &str) {
    python_with(&settings(&node.address), program);
}

/// The same, with a `dsn` of the caller's.
pub fn python_with(dsn: &str, program: &str) {
    let interpreter =
        std::env::var_os("MAINSTAY_TEST_PYTHON").map_or_else(|| cache().join("venv/bin/python3"), PathBuf::from);
    assert!(interpreter.exists(), "{interpreter:?} is missing: tools/bootstrap.sh test");
    let text = format!("import psycopg\nfrom psycopg import errors\ndsn = {dsn:?}\n{program}\nprint('done')\n");
    let mut command = unsettled(interpreter);
    command.args(["-I", "-c", &text]);
    let output = run(&mut command);
    assert!(output.code == Some(0) && output.stdout.ends_with("done\n"), "{}\n{}", output.stdout, output.stderr);
}
