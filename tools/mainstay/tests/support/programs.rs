//! Programs that nobody here wrote, as clients of a node.

use std::path::PathBuf;
use std::process::Command;

use super::{Running, piped, run, settings};

/// One of PostgreSQL's programs, with nothing from the environment of whoever runs the tests.
pub fn program(name: &str, node: &Running) -> Command {
    let mut command = Command::new(name);
    piped(&mut command);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PG") {
            command.env_remove(name);
        }
    }
    command.args(["-h", "127.0.0.1", "-p", &node.port(), "-U", "postgres"]);
    command
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
    let interpreter =
        std::env::var_os("MAINSTAY_TEST_PYTHON").map_or_else(|| cache().join("venv/bin/python3"), PathBuf::from);
    assert!(interpreter.exists(), "{interpreter:?} is missing: tools/bootstrap.sh test");
    let text = format!(
        "import psycopg\nfrom psycopg import errors\ndsn = {:?}\n{program}\nprint('done')\n",
        settings(&node.address)
    );
    let mut command = Command::new(interpreter);
    command.args(["-I", "-c", &text]);
    piped(&mut command);
    let output = run(&mut command);
    assert!(output.code == Some(0) && output.stdout.ends_with("done\n"), "{}\n{}", output.stdout, output.stderr);
}
