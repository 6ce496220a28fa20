//! Hosts as network namespaces: two for the nodes, one for the arbiter, one with the switches
//! between them. The process itself is the client's host.
//!
//! ```text
//!  client ──────── front ┌────────┐ front ── br0 ── guest0 (TAP)   host a
//!  10.0.2.2       (guest)│ switch │ front ── br0 ── guest0 (TAP)   host b
//!                        │        │ back  ── 10.9.0.1, 10.9.0.2    hosts a and b
//!                        └────────┘ back  ── 10.9.0.3              arbiter
//! ```
//!
//! Guests' frames go over one network, channel and arbiter over another. The switch drops what it
//! is told to: that is how hosts are cut off from each other, one way or both, or lose a part of
//! what they send.
//!
//! All of it has to be in a namespace for processes of its own: with the first process in it
//! ([`ENTER`]) everything ends, however that comes.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::LabError;

/// What `unshare` is asked for, behind the way to the right to ask for it.
pub(crate) const ENTER: [&str; 6] = [
    "--net",
    "--mount",
    "--pid",
    "--fork",
    "--kill-child",
    "--mount-proc",
];
/// The TAP interface on both nodes' hosts.
pub(crate) const TAP: &str = "guest0";
/// The guest, as its image configures it.
pub(crate) const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
/// The hosts' addresses on the network of channel and arbiter.
pub(crate) const BACK: [Ipv4Addr; 3] = [
    Ipv4Addr::new(10, 9, 0, 1),
    Ipv4Addr::new(10, 9, 0, 2),
    Ipv4Addr::new(10, 9, 0, 3),
];
/// The hosts of the nodes, and of the arbiter, by index.
pub(crate) const A: usize = 0;
pub(crate) const B: usize = 1;
pub(crate) const ARBITER: usize = 2;

/// Making a namespace takes no time.
const LIMIT: Duration = Duration::from_secs(20);

/// A namespace, held by a process that does nothing.
#[derive(Debug)]
pub(crate) struct Host {
    holder: Child,
}

impl Host {
    fn start() -> Result<Self, LabError> {
        let own = fs::read_link("/proc/self/ns/net").map_err(LabError::of("namespaces"))?;
        let mut command = Command::new("unshare");
        command.args(["--net", "sleep", "infinity"]);
        let command = command.stdin(Stdio::null()).stdout(Stdio::null());
        let holder = command.spawn().map_err(LabError::of("unshare"))?;
        let host = Self { holder };
        let link = format!("/proc/{}/ns/net", host.holder.id());
        let until = Instant::now() + LIMIT;
        while fs::read_link(&link).is_ok_and(|its| its == own) {
            if Instant::now() > until {
                return Err(LabError("no namespace came of unshare --net".to_owned()));
            }
            thread::sleep(Duration::from_millis(5));
        }
        host.run("ip link set lo up")?;
        Ok(host)
    }

    /// A command on this host.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        let net = format!("--net=/proc/{}/ns/net", self.holder.id());
        command.arg(net).arg("--").arg(program);
        command
    }

    /// Runs a line of words to its end, which must be a good one.
    pub(crate) fn run(&self, line: &str) -> Result<(), LabError> {
        let mut words = line.split(' ');
        let mut command = self.command(words.next().unwrap_or_default());
        to_end(command.args(words), line, "")
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// Runs a command that reads `input`, and says what is wrong if it fails.
pub(crate) fn to_end(command: &mut Command, what: &str, input: &str) -> Result<(), LabError> {
    command.stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = command
        .stderr(Stdio::piped())
        .spawn()
        .map_err(LabError::of(what))?;
    if let Some(mut stdin) = child.stdin.take() {
        // What it doesn't read it doesn't need; its exit code says the rest.
        let _ = stdin.write_all(input.as_bytes());
    }
    let done = child.wait_with_output().map_err(LabError::of(what))?;
    match done.status.success() {
        true => Ok(()),
        false => Err(LabError(format!(
            "{what}: {}: {}",
            done.status,
            String::from_utf8_lossy(&done.stderr).trim()
        ))),
    }
}

/// All hosts, connected.
#[derive(Debug)]
pub(crate) struct Hosts {
    /// Nodes a and b, and the arbiter.
    pub(crate) hosts: [Host; 3],
    pub(crate) switch: Host,
}

impl Hosts {
    /// Makes them. To be called once, in a namespace of its own.
    pub(crate) fn start() -> Result<Self, LabError> {
        let hosts = Self {
            hosts: [Host::start()?, Host::start()?, Host::start()?],
            switch: Host::start()?,
        };
        for bridge in ["front", "back"] {
            let line = format!("ip link add {bridge} type bridge");
            hosts.switch.run(&line)?;
            hosts.switch.run(&format!("ip link set {bridge} up"))?;
        }
        for (index, name) in ["a", "b", "r"].into_iter().enumerate() {
            let host = &hosts.hosts[index];
            hosts.connect("back", name, host.holder.id())?;
            let address = BACK[index];
            host.run(&format!("ip address add {address}/24 dev back0"))?;
            host.run("ip link set back0 up")?;
        }
        for (index, name) in [(A, "a"), (B, "b")] {
            let host = &hosts.hosts[index];
            hosts.connect("front", name, host.holder.id())?;
            for line in [
                "ip link add br0 type bridge",
                "ip link set br0 up",
                &format!("ip tuntap add dev {TAP} mode tap"),
                &format!("ip link set {TAP} master br0"),
                &format!("ip link set {TAP} up"),
                "ip link set front0 master br0",
                "ip link set front0 up",
            ] {
                host.run(line)?;
            }
        }
        hosts.connect("front", "c", std::process::id())?;
        for line in [
            "ip link set lo up",
            "ip address add 10.0.2.2/24 dev front0",
            "ip link set front0 up",
        ] {
            let mut command = Command::new("ip");
            to_end(command.args(line.split(' ').skip(1)), line, "")?;
        }
        hosts.nft("add table bridge lab")?;
        hosts.nft("add chain bridge lab pass { type filter hook forward priority 0; }")?;
        Ok(hosts)
    }

    /// Lays a cable from a switch to a host.
    fn connect(&self, bridge: &str, name: &str, pid: u32) -> Result<(), LabError> {
        let port = format!("{bridge}-{name}");
        self.switch.run(&format!(
            "ip link add {port} type veth peer name {bridge}0 netns {pid}"
        ))?;
        self.switch
            .run(&format!("ip link set {port} master {bridge}"))?;
        self.switch.run(&format!("ip link set {port} up"))
    }

    /// Gives nftables at the switches a script.
    pub(crate) fn nft(&self, script: &str) -> Result<(), LabError> {
        let mut command = self.switch.command("nft");
        to_end(command.args(["-f", "-"]), script, script)
    }
}
