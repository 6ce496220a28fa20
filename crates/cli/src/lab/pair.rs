//! A protected VM on the laboratory's hosts: an arbiter's server, two nodes with TLS between all
//! three, a Redis guest on TAP.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use twinvm_host::ctl_socket::{self, CtlRequest};
use twinvm_protocol::OutputFrom;

use super::LabError;
use super::hosts::{ARBITER, BACK, GUEST, Host, Hosts, TAP, to_end};

/// The nodes' names, by index.
pub(crate) const NAMES: [&str; 2] = ["a", "b"];
/// Where Redis answers in the guest.
pub(crate) const REDIS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(GUEST), 6379);
/// The guest's network card.
const MAC: &str = "52:54:00:12:34:56";
const CHANNEL_PORT: u16 = 7701;
const ARBITER_PORT: u16 = 7790;
/// Where a node finds the other one if there is a delay between them.
const RELAY: &str = "127.0.0.1:7801";
/// What the Redis image says on its console.
pub(crate) const READY: &str = "twinvm: redis ready";
/// How often something that is awaited is looked at.
const LOOK: Duration = Duration::from_millis(10);
/// Bytes at the end of each log that a failure shows.
const TAIL: usize = 2000;

/// What the VM is made of.
#[derive(Debug, Clone)]
pub(crate) struct Parts {
    /// The twinvm program.
    pub(crate) program: PathBuf,
    /// Where everything goes: an empty folder with a short path, since sockets are in it.
    pub(crate) dir: PathBuf,
    pub(crate) kernel: PathBuf,
    pub(crate) initrd: PathBuf,
    pub(crate) cmdline: String,
    /// As in VM.toml.
    pub(crate) memory: String,
    /// Each node has a disk of its own; the first node's is a copy of this one.
    pub(crate) disk: Option<PathBuf>,
    /// What the guest's console says when it is up.
    pub(crate) ready: &'static str,
    /// How much later each byte of the channel arrives than it could, both ways.
    pub(crate) delay: Duration,
    /// Who emits while the VM is protected.
    pub(crate) output: OutputFrom,
    /// Node a is kept on the host's first core, node b on its second.
    pub(crate) pinned: bool,
    /// Silence after which a node is suspected.
    pub(crate) suspect_ms: u64,
}

/// The VM and everything around it. Nothing outlives it.
#[derive(Debug)]
pub(crate) struct Pair {
    parts: Parts,
    /// The processes of those that run.
    pub(crate) nodes: [Option<Child>; 2],
    pub(crate) arbiter: Option<Child>,
    relays: Vec<Child>,
    /// A node that can't answer now: it isn't asked.
    pub(crate) silent: Option<usize>,
    /// Nodes that are started from now on note their marks.
    pub(crate) marks: bool,
    pub(crate) hosts: Hosts,
}

impl Pair {
    /// Makes the hosts, the keys and the VM.toml. Nothing runs yet.
    pub(crate) fn new(parts: Parts) -> Result<Self, LabError> {
        let mut pair = Self {
            hosts: Hosts::start()?,
            nodes: [None, None],
            arbiter: None,
            relays: Vec::new(),
            silent: None,
            marks: false,
            parts,
        };
        let keys = pair.path("keys");
        let folder = keys.display().to_string();
        pair.twinvm(&["keys", "init", "--out", &folder])?;
        for name in NAMES {
            pair.twinvm(&[
                "keys", "issue", "--ca", &folder, "--name", name, "--out", &folder,
            ])?;
        }
        let server = pair.path("keys-arbiter").display().to_string();
        pair.twinvm(&[
            "keys",
            "issue",
            "--ca",
            &folder,
            "--arbiter",
            "--out",
            &server,
        ])?;
        if let Some(disk) = &pair.parts.disk {
            let mut cp = Command::new("cp");
            cp.args(["--sparse=always", "--reflink=auto"]).arg(disk);
            let copy = format!("disk-{}.img", NAMES[0]);
            to_end(cp.arg(pair.path(&copy)), "cp of the disk", "")?;
        }
        for node in 0..2 {
            let path = pair.file(node);
            fs::write(&path, pair.vm_toml(node)).map_err(LabError::of(path.display()))?;
            if !pair.parts.delay.is_zero() {
                pair.start_relay(node)?;
            }
        }
        Ok(pair)
    }

    /// A node's VM.toml: the same for both unless each finds the other in a way of its own.
    fn file(&self, node: usize) -> PathBuf {
        match self.parts.delay.is_zero() {
            true => self.path("VM.toml"),
            false => self.path(&format!("VM-{}.toml", NAMES[node])),
        }
    }

    /// On a node's host: the way to the other one.
    fn start_relay(&mut self, node: usize) -> Result<(), LabError> {
        let program = self.parts.program.display().to_string();
        let to = format!("{}:{CHANNEL_PORT}", BACK[1 - node]);
        let ms = self.parts.delay.as_millis().to_string();
        let words = [&program, "lab-relay", RELAY, &to, &ms];
        let log = self.path("relay.log");
        let relay = self.spawn(&self.hosts.hosts[node], &words, &log)?;
        self.relays.push(relay);
        Ok(())
    }

    fn vm_toml(&self, node: usize) -> String {
        let Parts {
            kernel,
            initrd,
            cmdline,
            memory,
            disk,
            suspect_ms,
            output,
            ..
        } = &self.parts;
        let output = match output {
            OutputFrom::Live => "live",
            OutputFrom::Backup => "backup",
        };
        let mut text = format!(
            "name = \"lab\"\nmemory = {memory:?}\nkernel = {kernel:?}\ninitrd = {initrd:?}\n\
             cmdline = {cmdline:?}\nstate_dir = \"state\"\n\
             arbiter = \"tcp:{}:{ARBITER_PORT}\"\n\
             [protect]\nsuspect_ms = {suspect_ms}\noutput = \"{output}\"\n\
             [[net]]\nmac = \"{MAC}\"\nbackend = \"tap:{TAP}\"\n\
             [tls]\nca = \"keys/ca.crt\"\ncert = \"keys/{{name}}.crt\"\nkey = \"keys/{{name}}.key\"\n",
            BACK[ARBITER]
        );
        if let Some(disk) = disk {
            let bytes = fs::metadata(disk).map_or(0, |found| found.len());
            let _ = write!(
                text,
                "[[disk]]\npath = \"disk-{{name}}.img\"\nsize = \"{bytes}\"\n"
            );
        }
        for (index, (name, address)) in NAMES.into_iter().zip(BACK).enumerate() {
            let channel = match index != node && !self.parts.delay.is_zero() {
                true => RELAY.to_owned(),
                false => format!("{address}:{CHANNEL_PORT}"),
            };
            let _ = write!(
                text,
                "[[node]]\nname = \"{name}\"\nchannel = \"{channel}\"\n"
            );
        }
        text
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.parts.dir.join(name)
    }

    /// The folder of a node's own files.
    pub(crate) fn state(&self, node: usize) -> PathBuf {
        self.path("state").join(NAMES[node])
    }

    /// The folder of the arbiter's records.
    pub(crate) fn records(&self) -> PathBuf {
        self.path("records")
    }

    fn twinvm(&self, words: &[&str]) -> Result<(), LabError> {
        let mut command = Command::new(&self.parts.program);
        to_end(command.args(words), &words.join(" "), "")
    }

    fn spawn(&self, host: &Host, words: &[&str], log: &Path) -> Result<Child, LabError> {
        let file = File::options().create(true).append(true).open(log);
        let file = file.map_err(LabError::of(log.display()))?;
        let second = file.try_clone().map_err(LabError::of(log.display()))?;
        host.command(words[0])
            .args(&words[1..])
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(second)
            .spawn()
            .map_err(LabError::of(words[0]))
    }

    /// Starts the arbiter's server, which must not run.
    pub(crate) fn start_arbiter(&mut self) -> Result<(), LabError> {
        let listen = format!("{}:{ARBITER_PORT}", BACK[ARBITER]);
        let (dir, keys) = (self.records(), self.path("keys-arbiter"));
        let program = self.parts.program.display().to_string();
        let words = [
            &program,
            "arbiter",
            "serve",
            "--listen",
            &listen,
            "--dir",
            &dir.display().to_string(),
            "--keys",
            &keys.display().to_string(),
        ];
        let log = self.path("arbiter.log");
        self.arbiter = Some(self.spawn(&self.hosts.hosts[ARBITER], &words, &log)?);
        self.wait_for("the arbiter listens", Duration::from_secs(20), |pair| {
            let said = fs::read_to_string(pair.path("arbiter.log")).unwrap_or_default();
            Ok(said.contains(&listen).then_some(()))
        })
    }

    /// Starts a node that doesn't run.
    pub(crate) fn start_node(&mut self, node: usize) -> Result<(), LabError> {
        let core = node.to_string();
        match self.parts.pinned {
            true => self.start_node_by(node, &["taskset", "-c", &core]),
            false => self.start_node_by(node, &[]),
        }
    }

    /// The same by a program that becomes the one that the words after its own name.
    pub(crate) fn start_node_by(&mut self, node: usize, way: &[&str]) -> Result<(), LabError> {
        let (program, file) = (self.parts.program.display(), self.file(node));
        let (program, file) = (program.to_string(), file.display().to_string());
        let marks: &[&str] = if self.marks { &["--marks"] } else { &[] };
        let node_words = [&program, "node", &file, "--name", NAMES[node]];
        let words = [way, &node_words, marks].concat();
        let log = self.log(node);
        self.nodes[node] = Some(self.spawn(&self.hosts.hosts[node], &words, &log)?);
        Ok(())
    }

    /// Starts everything and waits until Redis answers and the VM is protected; the live node.
    pub(crate) fn bring_up(&mut self, limit: Duration) -> Result<usize, LabError> {
        self.start_arbiter()?;
        self.start_node(0)?;
        self.start_node(1)?;
        self.await_ready(limit)?;
        self.await_protected(limit)
    }

    /// Waits until the guest says that it is up.
    pub(crate) fn await_ready(&mut self, limit: Duration) -> Result<(), LabError> {
        let ready = self.parts.ready;
        self.wait_for("the guest is up", limit, |pair| {
            let says_ready = |node: usize| {
                let console = fs::read(pair.state(node).join("console.log")).unwrap_or_default();
                String::from_utf8_lossy(&console).contains(ready)
            };
            Ok((says_ready(0) || says_ready(1)).then_some(()))
        })
    }

    /// The process of a node that runs.
    pub(crate) fn pid(&self, node: usize) -> Option<u32> {
        self.nodes[node].as_ref().map(Child::id)
    }

    /// A log file of a node.
    pub(crate) fn log(&self, node: usize) -> PathBuf {
        self.path(&format!("{}.log", NAMES[node]))
    }

    /// Sends a signal to a node's process.
    pub(crate) fn signal(&self, node: usize, signal: Signal) -> Result<(), LabError> {
        let child = self.nodes[node].as_ref();
        let child = child.ok_or_else(|| LabError(format!("node {} doesn't run", NAMES[node])))?;
        kill_process(Pid::from_child(child), signal).map_err(LabError::of("kill"))
    }

    /// SIGKILL, and the process is gone.
    pub(crate) fn kill(&mut self, node: usize) {
        if let Some(mut child) = self.nodes[node].take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// What a node says of itself, or why it says nothing.
    pub(crate) fn status(&self, node: usize) -> Result<Value, String> {
        if self.silent == Some(node) || self.nodes[node].is_none() {
            return Err("it can't answer now".to_owned());
        }
        ctl_socket::request(&self.state(node).join("ctl.sock"), &CtlRequest::Status {})
            .map_err(|error| error.to_string())
    }

    /// The node that is live and protected, if one is.
    pub(crate) fn protected(&self) -> Option<usize> {
        (0..2).find(|&node| {
            self.status(node)
                .is_ok_and(|status| status["role"] == "live" && status["protected"] == true)
        })
    }

    /// Waits until one node is live and protected; which.
    pub(crate) fn await_protected(&mut self, limit: Duration) -> Result<usize, LabError> {
        self.wait_for("the VM is protected", limit, |pair| Ok(pair.protected()))
    }

    /// Waits until `look` finds something.
    pub(crate) fn wait_for<T>(
        &mut self,
        what: &str,
        limit: Duration,
        mut look: impl FnMut(&mut Self) -> Result<Option<T>, LabError>,
    ) -> Result<T, LabError> {
        let until = Instant::now() + limit;
        loop {
            if let Some(found) = look(self)? {
                return Ok(found);
            }
            if Instant::now() > until {
                let logs = self.logs();
                let limit = limit.as_secs();
                return Err(LabError(format!("waited {limit} s until {what}\n{logs}")));
            }
            thread::sleep(LOOK);
        }
    }

    /// The ends of all logs.
    pub(crate) fn logs(&self) -> String {
        let mut text = String::new();
        for name in ["a.log", "b.log", "arbiter.log"] {
            let log = fs::read(self.path(name)).unwrap_or_default();
            let tail = &log[log.len().saturating_sub(TAIL)..];
            let _ = write!(
                text,
                "---- {name} ----\n{}\n",
                String::from_utf8_lossy(tail)
            );
        }
        text
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        if thread::panicking() {
            let _ = writeln!(io::stderr(), "{}", self.logs());
        }
        let nodes = self.nodes.iter_mut().chain([&mut self.arbiter]).flatten();
        for child in nodes.chain(&mut self.relays) {
            // Both do nothing once it has been reaped.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
