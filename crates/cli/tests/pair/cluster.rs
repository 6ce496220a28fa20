//! A VM's files, its processes, and what they say. Nothing outlives its value.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Signal, getrlimit, kill_process, prlimit};
use serde_json::Value;
use tempfile::TempDir;

#[path = "../../../replica/tests/pair/guest.rs"]
pub(crate) mod echo;

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_twinvm");
/// Everything that a test waits for comes within seconds, on a very busy host within a minute.
pub(crate) const LIMIT: Duration = Duration::from_secs(180);
/// The nodes, by index.
pub(crate) const NAMES: [&str; 2] = ["a", "b"];
pub(crate) const A: usize = 0;
pub(crate) const B: usize = 1;

/// How often something that is awaited is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// Bytes of each log that a failed test prints.
const LOG_TAIL: usize = 3000;
/// The address of the guest's card.
pub(crate) const GUEST_MAC: &str = "52:54:00:00:00:01";
const REDIS_PORT: u16 = 6379;
const REDIS_READY: &str = "twinvm: redis ready";

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Until it is dropped no other test starts nodes.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until `look` gives something.
#[track_caller]
pub(crate) fn wait_for<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    wait_within(LIMIT, what, look)
}

/// The same for what takes another time.
#[track_caller]
pub(crate) fn wait_within<T>(
    limit: Duration,
    what: &str,
    mut look: impl FnMut() -> Option<T>,
) -> T {
    let until = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "waited in vain for: {what}");
        thread::sleep(LOOK);
    }
}

/// A guest and how much memory it gets.
pub(crate) struct Guest {
    pub(crate) kernel: PathBuf,
    pub(crate) initrd: Option<PathBuf>,
    pub(crate) cmdline: String,
    pub(crate) memory: &'static str,
}

impl Guest {
    /// A small one, its kernel in this folder.
    fn small(folder: &Path, image: &[u8]) -> Self {
        let kernel = folder.join("kernel");
        fs::write(&kernel, image).unwrap();
        Guest {
            kernel,
            initrd: None,
            cmdline: String::new(),
            memory: "8M",
        }
    }

    /// Debian's kernel and Redis.
    fn redis() -> Self {
        let image = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/image/redis");
        let kernel = image.join("kernel");
        let initrd = image.join("initrd.cpio");
        for file in [&kernel, &initrd] {
            assert!(
                file.is_file(),
                "{} is missing: run `make image` first, which makes it",
                file.display()
            );
        }
        Guest {
            kernel: kernel.canonicalize().unwrap(),
            initrd: Some(initrd.canonicalize().unwrap()),
            cmdline: "console=ttyS0 earlycon=sbi panic=-1 ADDR=10.0.2.15/24 GW=10.0.2.2".to_owned(),
            memory: "256M",
        }
    }
}

/// What is in a VM.toml; tests change it before they write it.
#[derive(Clone)]
pub(crate) struct VmFile {
    pub(crate) names: [&'static str; 2],
    pub(crate) channels: [SocketAddr; 2],
    pub(crate) state_dir: PathBuf,
    /// The folder with the VM's records.
    pub(crate) arbiter: PathBuf,
    /// The server that keeps them, if there is one.
    pub(crate) arbiter_server: Option<String>,
    pub(crate) lan: PathBuf,
    /// The folder of the nodes' keys, if the channel has TLS.
    pub(crate) keys: Option<PathBuf>,
    /// Interfaces of the nodes, in place of the switch.
    taps: Option<[&'static str; 2]>,
    pub(crate) memory: String,
    pub(crate) cmdline: String,
    /// Who emits while the VM is protected, if the file says so.
    pub(crate) output: Option<&'static str>,
    kernel: PathBuf,
    pub(crate) initrd: Option<PathBuf>,
    /// More lines of [protect].
    pub(crate) protect: String,
    /// Tables at the end.
    pub(crate) more: String,
}

impl VmFile {
    pub(crate) fn text(&self) -> String {
        let arbiter = match &self.arbiter_server {
            Some(server) => format!("tcp:{server}"),
            None => format!("file:{}", self.arbiter.display()),
        };
        let mut text = format!(
            "name = \"test\"\narbiter = {arbiter:?}\nharts = 1\nmemory = {:?}\ncmdline = {:?}\nkernel = {:?}\n\
             state_dir = {:?}\n",
            self.memory, self.cmdline, self.kernel, self.state_dir
        );
        if let Some(initrd) = &self.initrd {
            let _ = writeln!(text, "initrd = {initrd:?}");
        }
        if let Some(keys) = &self.keys {
            let keys = keys.display();
            let _ = write!(
                text,
                "[tls]\nca = \"{keys}/ca.crt\"\ncert = \"{keys}/{{name}}.crt\"\n\
                 key = \"{keys}/{{name}}.key\"\n"
            );
        }
        // A loaded host must not look like a dead one.
        text.push_str("[protect]\nsuspect_ms = 3000\n");
        text.push_str(&self.protect);
        if let Some(output) = self.output {
            let _ = writeln!(text, "output = {output:?}");
        }
        let backend = match self.taps {
            Some([tap, _]) => format!("tap:{tap}"),
            None => format!("lan:{}", self.lan.display()),
        };
        let _ = write!(
            text,
            "[[net]]\nmac = \"{GUEST_MAC}\"\nbackend = \"{backend}\"\n"
        );
        for node in [A, B] {
            let (name, channel) = (self.names[node], self.channels[node]);
            let _ = write!(text, "[[node]]\nname = {name:?}\nchannel = \"{channel}\"\n");
            if let Some(taps) = self.taps {
                let _ = writeln!(text, "tap = {:?}", taps[node]);
            }
        }
        text.push_str(&self.more);
        text
    }
}

/// A VM on this host: its folder, its switch, its nodes.
pub(crate) struct Cluster {
    nodes: [Option<Child>; 2],
    lan: Option<Child>,
    /// More arguments for nodes that are started.
    pub(crate) more_args: Vec<String>,
    /// Where the guest's Redis is to be reached, or what else it serves.
    pub(crate) redis: Option<SocketAddr>,
    pub(crate) file: VmFile,
    folder: TempDir,
    _alone: MutexGuard<'static, ()>,
}

impl Cluster {
    /// A guest of a few instructions that answers frames; it boots in no time.
    pub(crate) fn echo() -> Self {
        Self::with_kernel(&echo::image())
    }

    /// Another guest that is as small.
    pub(crate) fn with_kernel(image: &[u8]) -> Self {
        let folder = TempDir::new().unwrap();
        let guest = Guest::small(folder.path(), image);
        Self::new(folder, guest)
    }

    /// The same with each node on an interface of its own.
    pub(crate) fn echo_on(taps: [&'static str; 2]) -> Self {
        let folder = TempDir::new().unwrap();
        let guest = Guest::small(folder.path(), &echo::image());
        Self::with(folder, guest, Some(taps))
    }

    /// Debian's kernel and Redis.
    pub(crate) fn redis() -> Self {
        Self::new(TempDir::new().unwrap(), Guest::redis())
    }

    /// The same with each node on an interface of its own.
    pub(crate) fn redis_on(taps: [&'static str; 2]) -> Self {
        Self::with(TempDir::new().unwrap(), Guest::redis(), Some(taps))
    }

    /// Any guest; clients reach this port of it.
    pub(crate) fn of(guest: Guest, port: u16) -> Self {
        let mut cluster = Self::with(TempDir::new().unwrap(), guest, None);
        cluster.start_lan(port);
        cluster
    }

    fn new(folder: TempDir, guest: Guest) -> Self {
        let mut cluster = Self::with(folder, guest, None);
        cluster.start_lan(REDIS_PORT);
        cluster
    }

    fn with(folder: TempDir, guest: Guest, taps: Option<[&'static str; 2]>) -> Self {
        let alone = alone();
        let path = folder.path();
        let file = VmFile {
            names: NAMES,
            channels: free_ports(),
            state_dir: path.join("state"),
            arbiter: path.join("arbiter"),
            arbiter_server: None,
            lan: path.join("lan.sock"),
            keys: None,
            taps,
            memory: guest.memory.to_owned(),
            cmdline: guest.cmdline,
            kernel: guest.kernel,
            initrd: guest.initrd,
            output: None,
            protect: String::new(),
            more: String::new(),
        };
        let cluster = Self {
            nodes: [None, None],
            lan: None,
            more_args: Vec::new(),
            redis: None,
            file,
            folder,
            _alone: alone,
        };
        cluster.write();
        cluster
    }

    /// Writes the VM.toml as it is to be now.
    pub(crate) fn write(&self) {
        fs::write(self.path("VM.toml"), self.file.text()).unwrap();
    }

    pub(crate) fn root(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn spawn(&self, args: &[&str], log: &str) -> Child {
        self.spawn_with(&[&[PROGRAM], args].concat(), log, &[])
    }

    fn spawn_with(&self, words: &[&str], log: &str, variables: &[(&str, &str)]) -> Child {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.path(log))
            .unwrap();
        Command::new(words[0])
            .args(&words[1..])
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap()
    }

    fn start_lan(&mut self, port: u16) {
        let socket = self.file.lan.to_str().unwrap().to_owned();
        let forward = format!("127.0.0.1:0=10.0.2.15:{port}");
        self.lan = Some(self.spawn(
            &["lan", "--listen", &socket, "--forward", &forward],
            "lan.log",
        ));
        self.redis = Some(wait_for("the switch", || {
            let text = fs::read_to_string(self.path("lan.log")).ok()?;
            let (_, forward) = text.split_once("forward ")?;
            forward.split_once('=')?.0.parse().ok()
        }));
    }

    /// Makes keys for both nodes, which use them from their next start on.
    pub(crate) fn with_keys(mut self) -> Self {
        self.file.keys = Some(self.issue("keys", &NAMES));
        self.write();
        self
    }

    /// A new authority in a folder of this name, and keys of these nodes beside it.
    pub(crate) fn issue(&self, folder: &str, names: &[&str]) -> PathBuf {
        let keys = self.path(folder);
        let folder = keys.to_str().unwrap();
        run_to_end(&["keys", "init", "--out", folder]);
        for name in names {
            run_to_end(&[
                "keys", "issue", "--ca", folder, "--name", name, "--out", folder,
            ]);
        }
        keys
    }

    /// The arguments that run a node.
    pub(crate) fn node_args(&self, node: usize) -> [String; 4] {
        let file = self.path("VM.toml").to_str().unwrap().to_owned();
        ["node".into(), file, "--name".into(), NAMES[node].into()]
    }

    pub(crate) fn start(&mut self, node: usize) {
        self.start_with(node, &[], &[]);
    }

    /// The same with more arguments and environment variables.
    pub(crate) fn start_with(&mut self, node: usize, more: &[&str], variables: &[(&str, &str)]) {
        self.start_by(&[], node, more, variables);
    }

    /// The same by a program that becomes the one that the words after its own name.
    pub(crate) fn start_by(
        &mut self,
        way: &[&str],
        node: usize,
        more: &[&str],
        variables: &[(&str, &str)],
    ) {
        assert!(self.nodes[node].is_none(), "it runs already");
        let args = self.node_args(node);
        let args = args.iter().chain(&self.more_args);
        let mut words = [way, &[PROGRAM]].concat();
        words.extend(args.map(String::as_str));
        words.extend(more);
        let log = format!("{}.log", NAMES[node]);
        self.nodes[node] = Some(self.spawn_with(&words, &log, variables));
    }

    /// Starts both and waits until the VM is protected with A live.
    #[track_caller]
    pub(crate) fn start_pair(&mut self) {
        self.start(A);
        self.await_role(A, "live");
        self.start(B);
        self.await_protected(A);
    }

    pub(crate) fn lan_pid(&self) -> u32 {
        self.lan.as_ref().expect("the switch runs").id()
    }

    pub(crate) fn pid(&self, node: usize) -> u32 {
        self.nodes[node].as_ref().expect("the node runs").id()
    }

    /// kill -9.
    pub(crate) fn kill(&mut self, node: usize) {
        let mut child = self.nodes[node].take().expect("the node runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub(crate) fn terminate(&mut self, node: usize) {
        self.signal(node, Signal::TERM);
    }

    /// From now on no file of a node gets longer than this: as on a disk that is full.
    pub(crate) fn limit_files(&self, node: usize, bytes: Option<u64>) {
        let child = self.nodes[node].as_ref().expect("the node runs");
        let pid = Some(Pid::from_child(child));
        let mut limit = getrlimit(Resource::Fsize);
        limit.current = bytes.or(limit.maximum);
        prlimit(pid, Resource::Fsize, limit).unwrap();
    }

    pub(crate) fn signal(&self, node: usize, signal: Signal) {
        let child = self.nodes[node].as_ref().expect("the node runs");
        kill_process(Pid::from_child(child), signal).unwrap();
    }

    /// Waits for a node's end; its exit code.
    #[track_caller]
    pub(crate) fn await_end(&mut self, node: usize) -> Option<i32> {
        let name = NAMES[node];
        let mut child = self.nodes[node].take().expect("the node runs");
        let status: ExitStatus = wait_for(&format!("the end of node {name}"), || {
            child.try_wait().unwrap()
        });
        status.code()
    }

    /// Whether the process is still there.
    pub(crate) fn runs(&mut self, node: usize) -> bool {
        let child = self.nodes[node].as_mut();
        child.is_some_and(|child| child.try_wait().unwrap().is_none())
    }

    pub(crate) fn ctl(&self, node: usize, what: &str) -> Output {
        Command::new(PROGRAM)
            .arg("ctl")
            .arg(self.path("VM.toml"))
            .args(["--name", NAMES[node], what, "--json"])
            .output()
            .unwrap()
    }

    /// A node's status; `None` while nobody answers.
    pub(crate) fn status(&self, node: usize) -> Option<Value> {
        let done = self.ctl(node, "status");
        done.status
            .success()
            .then(|| serde_json::from_slice(&done.stdout).unwrap())
    }

    pub(crate) fn role(&self, node: usize) -> Option<String> {
        Some(self.status(node)?["role"].as_str()?.to_owned())
    }

    #[track_caller]
    pub(crate) fn await_role(&self, node: usize, role: &str) {
        let name = NAMES[node];
        wait_for(&format!("node {name} to be {role}"), || {
            (self.role(node)? == role).then_some(())
        });
    }

    /// Starts both: A is live, Redis answers, and the VM is protected.
    #[track_caller]
    pub(crate) fn bring_up(&mut self) {
        self.start(A);
        self.await_role(A, "live");
        self.start(B);
        self.await_redis(A);
        self.await_protected(A);
    }

    /// Waits until `live` is live and the other its backup, as both say.
    #[track_caller]
    pub(crate) fn await_protected(&self, live: usize) {
        let name = NAMES[live];
        wait_for(&format!("a protected VM, live on {name}"), || {
            let (live, backup) = (self.status(live)?, self.status(1 - live)?);
            (live["role"] == "live"
                && backup["role"] == "backup"
                && live["protected"] == true
                && backup["protected"] == true)
                .then_some(())
        });
    }

    /// Waits until `live` is live and knows that it is alone.
    #[track_caller]
    pub(crate) fn await_solo(&self, live: usize) {
        wait_for(&format!("a solo VM on {}", NAMES[live]), || {
            let status = self.status(live)?;
            (status["role"] == "live" && status["link"] == "solo").then_some(())
        });
    }

    /// Waits until a node says what it waits for in these words.
    #[track_caller]
    pub(crate) fn await_note(&self, node: usize, text: &str) {
        let name = NAMES[node];
        wait_for(&format!("node {name} to say {text:?}"), || {
            let status = self.status(node)?;
            status["waiting_for"].as_str()?.contains(text).then_some(())
        });
    }

    #[track_caller]
    pub(crate) fn await_redis(&self, node: usize) {
        self.await_console(node, REDIS_READY, LIMIT);
    }

    /// Waits until the guest says this on its console.
    #[track_caller]
    pub(crate) fn await_console(&self, node: usize, text: &str, limit: Duration) {
        let console = self.file.state_dir.join(NAMES[node]).join("console.log");
        wait_within(limit, &format!("the guest to say {text:?}"), || {
            let said = fs::read(&console).ok()?;
            String::from_utf8_lossy(&said).contains(text).then_some(())
        });
    }

    pub(crate) fn log(&self, node: usize) -> String {
        fs::read_to_string(self.path(&format!("{}.log", NAMES[node]))).unwrap_or_default()
    }

    /// The generation of the arbiter's record.
    pub(crate) fn generation(&self) -> u64 {
        let names = fs::read_dir(&self.file.arbiter).unwrap();
        let generations = names.filter_map(|entry| {
            let name = entry.unwrap().file_name();
            name.to_str()?.strip_prefix("rec.")?.parse().ok()
        });
        generations.max().unwrap_or(0)
    }

    /// Whether the arbiter's record says that the VM is off.
    pub(crate) fn halted(&self) -> bool {
        let record = self.file.arbiter.join(format!("rec.{}", self.generation()));
        let record = fs::read(record).unwrap();
        twinvm_protocol::codec::decode_record(&record)
            .unwrap()
            .halted
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.nodes.iter_mut().chain([&mut self.lan]).flatten() {
            // Both do nothing once it has been reaped.
            let _ = child.kill();
            let _ = child.wait();
        }
        if thread::panicking() {
            for name in ["a.log", "b.log", "lan.log", "arbiter.log"] {
                // Not every test has an arbiter of its own.
                let Ok(text) = fs::read_to_string(self.path(name)) else {
                    continue;
                };
                let from = text.len().saturating_sub(LOG_TAIL);
                let tail = text.get(from..).unwrap_or(&text);
                eprintln!("---- {name} ----\n{tail}");
            }
        }
    }
}

fn run_to_end(args: &[&str]) {
    let done = Command::new(PROGRAM).args(args).output().unwrap();
    assert!(done.status.success(), "{args:?}: {done:?}");
}

/// The program, ended after [`LIMIT`] (exit code 124): for runs that should be refused.
pub(crate) fn short_run() -> Command {
    let mut command = Command::new("timeout");
    command.arg(LIMIT.as_secs().to_string()).arg(PROGRAM);
    command
}

/// Two free ports, below those that the system gives to outgoing connections (Linux:
/// `ip_local_port_range` begins at 32768). Each call gives others: a test's are free now and then
/// while its processes begin anew.
pub(crate) fn free_ports() -> [SocketAddr; 2] {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    let start = std::process::id() % 10_000 + GIVEN.fetch_add(20, Ordering::Relaxed);
    let mut found: Vec<(SocketAddr, TcpListener)> = Vec::new();
    for offset in 0..10_000 {
        let port = 10_000 + (start + offset) % 10_000;
        let address = SocketAddr::from(([127, 0, 0, 1], port as u16));
        // Both stay bound until both are found.
        if let Ok(listener) = TcpListener::bind(address) {
            found.push((address, listener));
        }
        if let [(a, _), (b, _)] = found[..] {
            return [a, b];
        }
    }
    panic!("no two free ports: {}", io::Error::last_os_error());
}
