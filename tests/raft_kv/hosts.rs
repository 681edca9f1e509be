//! Hosts of our own: network namespaces on a bridge, in a range that is set aside for tests of networks (RFC 2544).
//! Making them takes rights that not every machine gives.

use std::process::{Command, Stdio};

/// Hosts that are made.
pub const HOSTS: usize = 3;

pub struct Hosts {
    /// Part of each name, so that two tests do not meet.
    tag: String,
}

/// The address of a host.
pub fn address(host: usize) -> String {
    format!("198.18.77.{}", host + 1)
}

impl Hosts {
    pub fn make() -> Result<Hosts, String> {
        let hosts = Hosts { tag: format!("mk{}", std::process::id()) };
        let Hosts { tag } = &hosts;
        let hub = format!("{tag}h");
        run(&format!("netns add {hub}"))?;
        run(&format!("-n {hub} link add bridge type bridge"))?;
        run(&format!("-n {hub} link set bridge up"))?;
        for host in 0..HOSTS {
            run(&format!("netns add {tag}{host}"))?;
            run(&format!("link add eth0 netns {tag}{host} type veth peer name v{host} netns {hub}"))?;
            run(&format!("-n {tag}{host} addr add {}/24 dev eth0", address(host)))?;
            run(&format!("-n {tag}{host} link set eth0 up"))?;
            run(&format!("-n {tag}{host} link set lo up"))?;
            run(&format!("-n {hub} link set v{host} master bridge up"))?;
        }
        // And us.
        run(&format!("link add {tag} type veth peer name us netns {hub}"))?;
        run(&format!("-n {hub} link set us master bridge up"))?;
        run(&format!("addr add 198.18.77.254/24 dev {tag}"))?;
        run(&format!("link set {tag} up"))?;
        Ok(hosts)
    }

    /// A command that runs on a host.
    pub fn command(&self, host: usize) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &format!("{}{host}", self.tag)]);
        command
    }

    /// What `from` sends does not reach `to` any more.
    pub fn cut(&self, from: usize, to: usize) {
        run(&format!("-n {}{from} route add blackhole {}/32", self.tag, address(to))).unwrap();
    }

    /// It does again.
    pub fn mend(&self, from: usize, to: usize) {
        run(&format!("-n {}{from} route del blackhole {}/32", self.tag, address(to))).unwrap();
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        let names = (0..HOSTS).map(|host| host.to_string()).chain(["h".to_owned()]);
        for name in names {
            // What was not made cannot be removed.
            let _ = run(&format!("netns del {}{name}", self.tag));
        }
        let _ = run(&format!("link del {}", self.tag));
    }
}

fn run(arguments: &str) -> Result<(), String> {
    let command = Command::new("ip").args(arguments.split(' ')).stdin(Stdio::null()).output();
    let output = command.map_err(|error| format!("ip: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("ip {arguments}: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}
