//! The two servers, each in a directory of its own, stopped when they are dropped; and their client.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use anyhow::{Context as _, bail, ensure};

/// The user that PostgreSQL runs as where we are the superuser, which it refuses.
const POSTGRES_USER: &str = "postgres";

/// A server that runs.
pub struct Server {
    port: u16,
    process: Process,
}

enum Process {
    Mainstay(Child),
    PostgreSql { data: PathBuf },
}

impl Drop for Server {
    fn drop(&mut self) {
        match &mut self.process {
            Process::Mainstay(child) => {
                let _ = child.kill();
                let _ = child.wait();
            }
            Process::PostgreSql { data } => {
                let _ = postgres("pg_ctl")
                    .map(|mut stop| stop.args(["-m", "immediate", "stop", "-D"]).arg(&*data).output());
            }
        }
    }
}

impl Server {
    /// Starts the binary of this build.
    pub fn mainstay(directory: &Path) -> anyhow::Result<Server> {
        let target = std::env::var("CARGO_TARGET_DIR").unwrap_or_else(|_| "target".to_owned());
        let binary = Path::new(&target).join("release/mainstay");
        let mut command = Command::new(&binary);
        command.args(["start", "--sql-listen", "127.0.0.1:0", "--log-level", "warn", "--data-dir"]).arg(directory);
        let mut child = command
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {}; make build makes it", binary.display()))?;
        let mut line = String::new();
        if let Some(output) = child.stdout.take() {
            BufReader::new(output).read_line(&mut line)?;
        }
        let port = line.split_whitespace().find_map(|word| word.strip_prefix("sql=127.0.0.1:")?.parse().ok());
        let server = Server { port: port.unwrap_or(0), process: Process::Mainstay(child) };
        ensure!(server.port != 0, "mainstay did not say that it is ready: {line}");
        Ok(server)
    }

    /// Starts PostgreSQL with its defaults, which make each commit durable.
    pub fn postgresql(directory: &Path) -> anyhow::Result<Server> {
        fs::create_dir_all(directory)?;
        // Its user must get there, and own it.
        for parent in directory.ancestors().take(2) {
            fs::set_permissions(parent, fs::Permissions::from_mode(0o755))?;
        }
        if is_superuser()? {
            succeed(Command::new("chown").arg(POSTGRES_USER).arg(directory))?;
        }
        let data = directory.join("data");
        succeed(postgres("initdb")?.args(["-A", "trust", "-U", POSTGRES_USER, "-D"]).arg(&data))?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let options = format!(
            "-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={} -c synchronous_commit=on",
            directory.display()
        );
        let mut start = postgres("pg_ctl")?;
        start.args(["-w", "start", "-o", &options, "-l"]).arg(directory.join("log")).arg("-D").arg(&data);
        let server = Server { port, process: Process::PostgreSql { data } };
        // Its children would keep a pipe open.
        let status = start.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
        ensure!(status.success(), "PostgreSQL did not start");
        Ok(server)
    }

    fn client(&self, program: &str) -> anyhow::Result<Command> {
        let mut command = Command::new(installed(program)?);
        command.args(["-h", "127.0.0.1", "-U", POSTGRES_USER, "-p", &self.port.to_string()]);
        Ok(command)
    }

    /// Runs a file of statements.
    pub fn run(&self, script: &Path) -> anyhow::Result<()> {
        succeed(self.client("psql")?.args(["-q", "-v", "ON_ERROR_STOP=1", "-f"]).arg(script).arg("postgres")).map(drop)
    }

    /// Transactions per second under a load.
    pub fn rate(&self, script: &Path, mode: &str, clients: usize, seconds: u64) -> anyhow::Result<f64> {
        let mut load = self.client("pgbench")?;
        load.args(["-n", "-j", "1", "-M", mode, "-c", &clients.to_string(), "-T", &seconds.to_string(), "-f"]);
        let output = succeed(load.arg(script).arg("postgres"))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let failed = text.lines().find_map(|line| line.strip_prefix("number of failed transactions: "));
        ensure!(failed.is_none_or(|failed| failed.starts_with("0 ")), "transactions failed: {text}");
        let rate = text.lines().find_map(|line| line.strip_prefix("tps = ")?.split_whitespace().next()?.parse().ok());
        rate.with_context(|| format!("pgbench gave no rate: {text}"))
    }
}

fn is_superuser() -> anyhow::Result<bool> {
    Ok(fs::metadata("/proc/self")?.uid() == 0)
}

/// A program of PostgreSQL's server, as a user that it accepts.
fn postgres(program: &str) -> anyhow::Result<Command> {
    let program = installed(program)?;
    if !is_superuser()? {
        return Ok(Command::new(program));
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid", POSTGRES_USER, "--regid", POSTGRES_USER, "--clear-groups"]).arg(program);
    Ok(command)
}

/// Where a program of PostgreSQL 15 is.
fn installed(program: &str) -> anyhow::Result<PathBuf> {
    let path = Path::new("/usr/lib/postgresql/15/bin").join(program);
    ensure!(path.exists(), "PostgreSQL 15 is not installed: there is no {}", path.display());
    Ok(path)
}

fn succeed(command: &mut Command) -> anyhow::Result<Output> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?} failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(output)
}
