//! The pair on this host: its files, its VM.toml, its processes and what they say.

use std::fs::{self, File, TryLockError};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use twinvm_host::ctl_socket::{self, CtlRequest};
use twinvm_image::BuiltImage;

use super::error::DemoError;
use super::processes::{Process, read_end};
use super::status::Status;

/// The VM's name.
const VM_NAME: &str = "demo";
/// The nodes' names.
pub(crate) const NODES: [&str; 2] = ["a", "b"];
/// The guest's Redis, as the switch sees it.
pub(crate) const GUEST: &str = "10.0.2.15:6379";
/// The Debian guest's services, likewise.
pub(crate) const POSTGRES: &str = "10.0.2.15:5432";
pub(crate) const WEB: &str = "10.0.2.15:80";
pub(crate) const SSH: &str = "10.0.2.15:22";
/// What the guest prints once Redis answers.
pub(crate) const READY: &str = "twinvm: redis ready";
/// What the Debian guest prints when all services are up.
pub(crate) const UP: &str = "twinvm: guest is up";
/// Where a node's disk is, with what a VM.toml has in place of its name.
const DISK: &str = "disk-{name}.img";
const NAME_PLACE: &str = "{name}";
/// Bytes at the end of a console that are searched for it.
pub(crate) const CONSOLE_BYTES: u64 = 64 << 10;
/// Longest path of a Unix socket in bytes (unix(7): `sun_path` has 108 with its final zero).
const MAX_SOCKET_PATH_BYTES: usize = 107;
/// How long a node may take to answer a question.
const STATUS_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a process may take to end in good order.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// How long it may take after SIGTERM, before SIGKILL.
const TERMINATE_TIMEOUT: Duration = Duration::from_secs(3);

/// What the VM is made of.
#[derive(Debug, Clone)]
pub(crate) struct Parts {
    pub(crate) kernel: PathBuf,
    pub(crate) initrd: PathBuf,
    pub(crate) cmdline: String,
    /// As in VM.toml.
    pub(crate) memory: &'static str,
    /// So large a disk each node has; the first to start has a copy of the image's.
    pub(crate) disk_bytes: Option<u64>,
    /// What clients reach of the guest.
    pub(crate) forwards: &'static [&'static str],
    /// What its console says when it is up.
    pub(crate) ready: &'static str,
}

impl Parts {
    /// The Redis image, all in memory.
    pub(crate) fn redis(image: &BuiltImage) -> Self {
        Self {
            kernel: image.kernel.clone(),
            initrd: image.initrd.clone(),
            cmdline: image.cmdline.clone(),
            memory: "256M",
            disk_bytes: None,
            forwards: &[GUEST],
            ready: READY,
        }
    }

    /// The Debian image. Whoever has that key, in base64, may log in.
    pub(crate) fn debian(image: &BuiltImage, key: &str, disk_bytes: u64) -> Self {
        Self {
            kernel: image.kernel.clone(),
            initrd: image.initrd.clone(),
            // systemd.system-credentials(7)
            cmdline: format!(
                "{} systemd.set_credential_binary=ssh.authorized_keys.root:{key}",
                image.cmdline
            ),
            memory: "512M",
            disk_bytes: Some(disk_bytes),
            forwards: &[POSTGRES, WEB, SSH],
            ready: UP,
        }
    }
}

/// Where everything is. Paths are absolute.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    out: PathBuf,
}

impl Files {
    /// Makes the folder if need be and checks that it can be used.
    pub(crate) fn new(out: &Path) -> Result<Self, DemoError> {
        let unusable = |error: io::Error| {
            DemoError::Input(format!(
                "--out {}: {error}: choose a folder that can be written",
                out.display()
            ))
        };
        fs::create_dir_all(out).map_err(unusable)?;
        let out = out.canonicalize().map_err(unusable)?;
        if out.to_str().is_none() {
            return Err(DemoError::Input(format!(
                "--out {}: a VM.toml is UTF-8, so the path must be too",
                out.display()
            )));
        }
        let files = Self { out };
        let socket = files.ctl_socket(0);
        let length = socket.as_os_str().as_bytes().len();
        if length > MAX_SOCKET_PATH_BYTES {
            return Err(DemoError::Input(format!(
                "--out is too long: the socket {} would have {length} bytes, at most \
                 {MAX_SOCKET_PATH_BYTES} are possible: choose a shorter path",
                socket.display()
            )));
        }
        Ok(files)
    }

    /// Takes the folder for this run alone and removes what an earlier run has left. The lock
    /// ends with the file that is returned.
    pub(crate) fn claim(&self) -> Result<File, DemoError> {
        let path = self.out.join("lock");
        let lock = File::create(&path).map_err(DemoError::io(&path))?;
        take_lock(&lock, &path, || {
            DemoError::Input(format!(
                "--out {}: another demo is using it: choose another folder",
                self.out.display()
            ))
        })?;
        for name in NODES {
            self.refuse_running_node(name)?;
        }
        for folder in [self.state(), self.arbiter()] {
            remove(fs::remove_dir_all(&folder), &folder)?;
        }
        let files = [
            self.lan_socket(),
            self.lan_log(),
            self.node_log(0),
            self.node_log(1),
            self.disk(0),
            self.disk(1),
            self.report_json(),
            self.report_svg(),
        ];
        for file in files {
            remove(fs::remove_file(&file), &file)?;
        }
        let arbiter = self.arbiter();
        fs::create_dir_all(&arbiter).map_err(DemoError::io(&arbiter))?;
        Ok(lock)
    }

    /// A demo that was killed may have left its nodes running: their files aren't ours to
    /// remove.
    fn refuse_running_node(&self, name: &str) -> Result<(), DemoError> {
        let path = self.state().join(name).join("lock");
        let Ok(lock) = File::open(&path) else {
            return Ok(());
        };
        take_lock(&lock, &path, || {
            let holder = read_end(&path, 32).unwrap_or_default();
            DemoError::Input(format!(
                "--out {}: node {name} of an earlier demo is still running (process {}): end it, \
                 or choose another folder",
                self.out.display(),
                holder.trim()
            ))
        })
    }

    fn state(&self) -> PathBuf {
        self.out.join("state")
    }

    fn arbiter(&self) -> PathBuf {
        self.out.join("arbiter")
    }

    fn vm_toml(&self) -> PathBuf {
        self.out.join("VM.toml")
    }

    fn lan_socket(&self) -> PathBuf {
        self.out.join("lan.sock")
    }

    pub(crate) fn lan_log(&self) -> PathBuf {
        self.out.join("lan.log")
    }

    pub(crate) fn node_log(&self, node: usize) -> PathBuf {
        self.out.join(format!("{}.log", NODES[node]))
    }

    pub(crate) fn console(&self, node: usize) -> PathBuf {
        self.state().join(NODES[node]).join("console.log")
    }

    fn ctl_socket(&self, node: usize) -> PathBuf {
        self.state().join(NODES[node]).join("ctl.sock")
    }

    /// A node's disk.
    pub(crate) fn disk(&self, node: usize) -> PathBuf {
        self.path(&DISK.replace(NAME_PLACE, NODES[node]))
    }

    /// A file of a client.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.out.join(name)
    }

    pub(crate) fn report_json(&self) -> PathBuf {
        self.out.join("report.json")
    }

    pub(crate) fn report_svg(&self) -> PathBuf {
        self.out.join("report.svg")
    }
}

/// Takes a lock, or gives the error `taken` if another process holds it.
fn take_lock(file: &File, path: &Path, taken: impl FnOnce() -> DemoError) -> Result<(), DemoError> {
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => taken(),
        TryLockError::Error(error) => DemoError::io(path)(error),
    })
}

fn remove(outcome: io::Result<()>, path: &Path) -> Result<(), DemoError> {
    match outcome {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(DemoError::io(path)(error)),
        _ => Ok(()),
    }
}

/// The VM.toml of the demonstration.
pub(crate) fn vm_toml(
    files: &Files,
    parts: &Parts,
    channels: [SocketAddr; 2],
) -> Result<String, DemoError> {
    let kernel = absolute(&parts.kernel)?;
    let initrd = absolute(&parts.initrd)?;
    let arbiter = format!("file:{}", files.arbiter().display());
    let lan = format!("lan:{}", files.lan_socket().display());
    let mut text = format!(
        "# Written by `twinvm demo`.\n\
         name = {name}\n\
         memory = {memory}\n\
         harts = 1\n\
         state_dir = {state}\n\
         kernel = {kernel}\n\
         initrd = {initrd}\n\
         cmdline = {cmdline}\n\
         arbiter = {arbiter}\n\
         \n\
         [[net]]\n\
         mac = \"52:54:00:12:34:56\"\n\
         backend = {lan}\n",
        name = quoted(VM_NAME),
        memory = quoted(parts.memory),
        state = quoted(&files.state().to_string_lossy()),
        kernel = quoted(&kernel),
        initrd = quoted(&initrd),
        cmdline = quoted(&parts.cmdline),
        arbiter = quoted(&arbiter),
        lan = quoted(&lan),
    );
    if let Some(bytes) = parts.disk_bytes {
        let path = files.path(DISK);
        let path = quoted(&path.to_string_lossy());
        text.push_str(&format!("\n[[disk]]\npath = {path}\nsize = \"{bytes}\"\n"));
    }
    for (name, channel) in NODES.into_iter().zip(channels) {
        text.push_str(&format!(
            "\n[[node]]\nname = {}\nchannel = {}\n",
            quoted(name),
            quoted(&channel.to_string())
        ));
    }
    Ok(text)
}

/// A string as TOML writes it.
pub(crate) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// An absolute path that can stand in a VM.toml.
pub(crate) fn absolute(path: &Path) -> Result<String, DemoError> {
    let path = path.canonicalize().map_err(DemoError::io(path))?;
    match path.into_os_string().into_string() {
        Ok(path) => Ok(path),
        Err(path) => Err(DemoError::Input(format!(
            "--image {}: a VM.toml is UTF-8, so the path must be too",
            path.display()
        ))),
    }
}

/// Two free ports below those that the system gives to outgoing connections (Linux:
/// `ip_local_port_range` begins at 32768), so that no connection takes the port of a node
/// that is down.
pub(crate) fn free_channels() -> Result<[SocketAddr; 2], DemoError> {
    const FIRST: u32 = 21_000;
    const COUNT: u32 = 11_000;
    let start = std::process::id().wrapping_mul(2) % COUNT;
    let mut found = Vec::new();
    for offset in 0..COUNT {
        let port = (FIRST + (start + offset) % COUNT) as u16;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        // Both stay bound until both are found.
        if let Ok(listener) = TcpListener::bind(address) {
            found.push((address, listener));
        }
        if let [(a, _), (b, _)] = found[..] {
            return Ok([a, b]);
        }
    }
    Err(DemoError::failed(format!(
        "no two free ports from {FIRST} to {} on 127.0.0.1",
        FIRST + COUNT - 1
    )))
}

/// The pair and its switch.
#[derive(Debug)]
pub(crate) struct Vm {
    pub(crate) files: Files,
    program: PathBuf,
    /// Ends after the nodes, so that they can still speak.
    nodes: [Option<Process>; 2],
    lan: Process,
    ready: &'static str,
}

impl Vm {
    /// Writes the VM.toml and starts the switch. No node runs yet.
    pub(crate) fn start(files: Files, parts: &Parts) -> Result<Self, DemoError> {
        let program = std::env::current_exe()
            .map_err(|error| DemoError::failed(format!("this program's own path: {error}")))?;
        let text = vm_toml(&files, parts, free_channels()?)?;
        let path = files.vm_toml();
        fs::write(&path, text).map_err(DemoError::io(&path))?;
        let mut command = Command::new(&program);
        command.arg("lan").arg("--listen").arg(files.lan_socket());
        for guest in parts.forwards {
            command.arg("--forward").arg(format!("127.0.0.1:0={guest}"));
        }
        let lan = Process::start("the switch (twinvm lan)", &mut command, &files.lan_log())?;
        Ok(Self {
            files,
            program,
            nodes: [None, None],
            lan,
            ready: parts.ready,
        })
    }

    /// Starts a node that isn't running.
    pub(crate) fn start_node(&mut self, node: usize) -> Result<u32, DemoError> {
        let mut command = Command::new(&self.program);
        command
            .arg("node")
            .arg(self.files.vm_toml())
            .arg("--name")
            .arg(NODES[node]);
        let what = format!("node {}", NODES[node]);
        let process = Process::start(what, &mut command, &self.files.node_log(node))?;
        let pid = process.pid();
        self.nodes[node] = Some(process);
        Ok(pid)
    }

    /// Kills a node with SIGKILL and waits until the system has taken it away.
    pub(crate) fn kill_node(&mut self, node: usize) {
        if let Some(process) = self.nodes[node].take() {
            process.kill();
        }
    }

    pub(crate) fn pid(&self, node: usize) -> Option<u32> {
        self.nodes[node].as_ref().map(Process::pid)
    }

    /// An error if one of the processes has ended by itself.
    pub(crate) fn check(&mut self) -> Result<(), DemoError> {
        self.lan.check()?;
        self.nodes.iter_mut().flatten().try_for_each(Process::check)
    }

    /// The host's side of the port forward to `guest`, once the switch has told it.
    pub(crate) fn forward(&self, guest: &str) -> Option<SocketAddr> {
        let log = read_end(self.lan.log(), CONSOLE_BYTES).ok()?;
        parse_forward(&log, guest)
    }

    /// The guest has said on its console that it is up.
    pub(crate) fn says_ready(&self) -> bool {
        (0..NODES.len()).any(|node| {
            read_end(&self.files.console(node), CONSOLE_BYTES)
                .is_ok_and(|console| console.contains(self.ready))
        })
    }

    /// Asks a node for its status.
    ///
    /// # Errors
    /// Why it gave none, in words: a node that has just been started has no socket yet.
    pub(crate) fn status(&self, node: usize) -> Result<Status, String> {
        let answer = self.ask(node, CtlRequest::Status {})?;
        Status::parse(&answer.to_string())
    }

    /// Asks a node in a thread of its own, so that one that hangs doesn't hang us.
    fn ask(&self, node: usize, request: CtlRequest) -> Result<serde_json::Value, String> {
        let socket = self.files.ctl_socket(node);
        let (sender, receiver) = mpsc::sync_channel(1);
        thread::spawn(move || {
            // Nobody waits any more once the time is over.
            let _ = sender.send(ctl_socket::request(&socket, &request));
        });
        match receiver.recv_timeout(STATUS_TIMEOUT) {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!(
                "node {} doesn't answer for {} s",
                NODES[node],
                STATUS_TIMEOUT.as_secs()
            )),
        }
    }

    /// The node that is live, and its status.
    pub(crate) fn live(&self) -> Option<(usize, Status)> {
        (0..NODES.len())
            .filter(|&node| self.nodes[node].is_some())
            .find_map(|node| {
                let status = self.status(node).ok()?;
                status.is_live().then_some((node, status))
            })
    }

    /// Ends everything in good order: the VM first, if `orderly`, then what is left by
    /// SIGTERM, and what is left then by SIGKILL.
    pub(crate) fn stop(mut self, orderly: bool) {
        if orderly
            && let Some((node, _)) = self.live()
            && self.ask(node, CtlRequest::Stop {}).is_ok()
        {
            let deadline = Instant::now() + STOP_TIMEOUT;
            for process in self.nodes.iter_mut().flatten() {
                process.wait(deadline);
            }
        }
        for process in self.nodes.iter_mut().flatten() {
            process.terminate();
        }
        let deadline = Instant::now() + TERMINATE_TIMEOUT;
        for process in self.nodes.iter_mut().flatten() {
            process.wait(deadline);
        }
        self.nodes = [None, None];
        self.lan.terminate();
        self.lan.wait(Instant::now() + TERMINATE_TIMEOUT);
    }
}

/// Finds `ADDRESS=GUEST`, the forward as the switch prints it.
pub(crate) fn parse_forward(log: &str, guest: &str) -> Option<SocketAddr> {
    log.split_whitespace().find_map(|word| {
        let word = word.trim_end_matches([',', ';', '.']);
        let address: SocketAddr = word.strip_suffix(guest)?.strip_suffix('=')?.parse().ok()?;
        (address.port() != 0).then_some(address)
    })
}

#[cfg(test)]
mod tests;
