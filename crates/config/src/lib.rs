//! VM.toml: one file that describes a VM, the same on both hosts.
//!
//! Parsing gives values that can't be wrong: sizes in range, addresses that are addresses,
//! paths resolved against the file's directory. Every error names the file, the line, what
//! was expected and what was found.

mod error;
mod operation;
mod protect;
mod table;
mod values;

use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use twinvm_host::arbiter::{EXPECTED, KeyKinds};
use twinvm_host::fence;
use twinvm_host::hooks::HookCommand;
use twinvm_host::node::{Flush, Reads};
use twinvm_host::port::PortAddress;
use twinvm_host::tls::TlsFiles;
use twinvm_machine::{MAX_HARTS, OnReset};
use twinvm_nbd::address::{self, Address};
use twinvm_protocol::{Config as Protect, OutputFrom};

use table::{Document, Table};

pub use error::{Problem, VmTomlError};
pub use twinvm_host::arbiter::ArbiterAddress as Arbiter;
pub use values::{Channel, MEMORY_EXPECTED, MacAddr, NAME_EXPECTED, is_name, memory_bytes};

/// The longest file that is read: thousands of lines more than any VM needs.
const MAX_FILE_BYTES: usize = 1 << 20;
/// Slots for network cards and disks on the board.
pub const MAX_DEVICES: usize = 8;
/// Memory of a VM that doesn't say how much.
const DEFAULT_MEMORY_BYTES: u64 = 512 << 20;

const ROOT_KEYS: &[&str] = &[
    "name",
    "memory",
    "harts",
    "on_reset",
    "state_dir",
    "kernel",
    "initrd",
    "cmdline",
    "firmware",
    "dtb",
    "console",
    "arbiter",
    "arbiter_tls",
    "net",
    "disk",
    "node",
    "tls",
    "protect",
    "hooks",
    "metrics",
];
const NET_KEYS: &[&str] = &["mac", "backend"];
const DISK_KEYS: &[&str] = &[
    "path",
    "size",
    "readonly",
    "nbd",
    "fence",
    "fence_timeout_s",
    "reads",
];
const NODE_KEYS: &[&str] = &["name", "channel", "tap", "path"];
const TLS_KEYS: &[&str] = &["ca", "cert", "key"];
/// Stands for the node's name in the paths of `[[disk]]`, `[tls]` and `[arbiter_tls]`.
const NAME_PLACE: &str = "{name}";

/// A whole VM.toml.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmConfig {
    /// The VM's name; a label, and part of paths.
    pub name: String,
    /// Size of RAM in bytes, whole pages.
    pub memory_bytes: u64,
    /// Number of harts.
    pub harts: u32,
    /// What a guest's reset does.
    pub on_reset: OnReset,
    /// Where nodes keep their state.
    pub state_dir: PathBuf,
    /// Linux Image, ELF file or raw binary.
    pub kernel: Option<PathBuf>,
    /// Initial RAM disk.
    pub initrd: Option<PathBuf>,
    /// Command line of the kernel.
    pub cmdline: String,
    /// Machine-mode firmware in place of the built-in SBI, or a program for a bare machine.
    pub firmware: Option<PathBuf>,
    /// A device tree in place of the machine's own.
    pub dtb: Option<PathBuf>,
    /// Where the terminal's keys go.
    pub console: ConsoleKind,
    /// Who decides which node is live.
    pub arbiter: Option<Arbiter>,
    /// Network cards, in the order of their slots.
    pub nets: Vec<Net>,
    /// Disks, in the order of their slots.
    pub disks: Vec<Disk>,
    /// The two nodes; none in a file for `twinvm run` alone.
    pub nodes: Vec<Node>,
    /// Keys of the channel, with `{name}` where a node's name goes.
    pub tls: Option<TlsFiles>,
    /// Keys for the way to etcd.
    pub arbiter_tls: Option<TlsFiles>,
    /// Limits of the protocol.
    pub protect: Protect,
    /// When a guest's flush of a disk counts as done.
    pub flush: Flush,
    /// Most MiB per second of disks that a live node sends to a joining one.
    pub sync_mib_s: Option<u64>,
    /// A command that hears when protection is lost or regained.
    pub hooks: Option<HookCommand>,
    /// Where a node's figures can be read over HTTP.
    pub metrics: Option<Channel>,
    file: PathBuf,
}

/// Which of the guest's consoles gets the terminal's keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConsoleKind {
    /// The serial port.
    Uart,
    /// A virtio console, which is on the board only then.
    Virtio,
}

/// A network card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Net {
    /// Its address, the same on both nodes.
    pub mac: MacAddr,
    /// What it is plugged into.
    pub backend: PortAddress,
}

/// A disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Disk {
    /// A file of each node's own.
    File {
        /// The file.
        path: PathBuf,
        /// Its size, if the file says it: a node that has none yet makes it when it joins.
        bytes: Option<u64>,
        /// The guest can only read.
        read_only: bool,
    },
    /// An export of an NBD server, which both nodes reach.
    Nbd {
        /// Where it is.
        address: Address,
        /// The guest can only read.
        read_only: bool,
        /// What keeps a former live node off, where the server can't.
        fence: Option<HookCommand>,
        /// How a backup learns what the guest has read.
        reads: Reads,
    },
}

/// One of the two nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// A label for `--name`.
    pub name: String,
    /// Where this node listens for the other.
    pub channel: Channel,
    /// This node's TAP interface in place of the first network card's.
    pub tap: Option<String>,
    /// This node's disk file in place of the first disk's.
    pub path: Option<PathBuf>,
}

impl VmConfig {
    /// Reads and parses the file at `path`.
    ///
    /// # Errors
    /// [`VmTomlError`], for a file that can't be read too.
    pub fn load(path: &Path) -> Result<Self, VmTomlError> {
        let unreadable = |what: String| VmTomlError {
            file: path.to_path_buf(),
            line: None,
            problem: Problem::Unreadable(what),
        };
        let size = fs::metadata(path)
            .map_err(|error| match error.kind() {
                ErrorKind::NotFound => {
                    unreadable("there is none: give the path of a VM's file".to_owned())
                }
                _ => unreadable(error.to_string()),
            })?
            .len();
        if size > MAX_FILE_BYTES as u64 {
            return Err(unreadable(format!(
                "{size} bytes, allowed are {MAX_FILE_BYTES}"
            )));
        }
        let text = fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?;
        Self::parse(path, &text)
    }

    /// Parses `text`, the content of the file at `path`.
    ///
    /// # Errors
    /// [`VmTomlError`], at the first thing that is wrong.
    pub fn parse(path: &Path, text: &str) -> Result<Self, VmTomlError> {
        let document = Document::new(path, text);
        let parsed = document.syntax()?;
        let root = document.root(&parsed, ROOT_KEYS)?;

        let name = root
            .name("name")?
            .ok_or_else(|| root.missing("name"))?
            .value;
        let memory_bytes = root.memory("memory")?.unwrap_or(DEFAULT_MEMORY_BYTES);
        let harts = root.integer("harts", 1, MAX_HARTS as u64)?;
        let on_reset = root.choice(
            "on_reset",
            [("restart", OnReset::Restart), ("exit", OnReset::Exit)],
        )?;
        let console = root.choice(
            "console",
            [("uart", ConsoleKind::Uart), ("virtio", ConsoleKind::Virtio)],
        )?;
        let nets = parse_nets(&document, &root)?;
        let tls = parse_tls(&document, &root, "tls")?;
        let arbiter_tls = parse_tls(&document, &root, "arbiter_tls")?;
        let keys = KeyKinds {
            cluster: tls.is_some(),
            etcd: arbiter_tls.is_some(),
        };
        let disk_tables = document.tables(&root, "disk", DISK_KEYS)?;
        let disks = parse_disks(&disk_tables)?;
        let has_file = matches!(disks.first(), Some(Disk::File { .. }));
        if nets.len() + disks.len() > MAX_DEVICES {
            let problem = format!(
                "{} network cards and {} disks, the board has {MAX_DEVICES} slots",
                nets.len(),
                disks.len()
            );
            return Err(root.conflict(root.line_of("disk").or(root.line_of("net")), problem));
        }
        let protection = protect::parse(&document, &root)?;
        Ok(Self {
            name: name.to_owned(),
            memory_bytes,
            harts: harts.map_or(1, |harts| harts.value as u32),
            on_reset,
            state_dir: root
                .path("state_dir")?
                .map_or(root.relative("state"), |path| path.value),
            kernel: root.path("kernel")?.map(|path| path.value),
            initrd: root.path("initrd")?.map(|path| path.value),
            cmdline: root
                .string("cmdline")?
                .map_or("", |text| text.value)
                .to_owned(),
            firmware: root.path("firmware")?.map(|path| path.value),
            dtb: root.path("dtb")?.map(|path| path.value),
            console,
            arbiter: parse_arbiter(&root, keys)?,
            nets,
            disks,
            nodes: parse_nodes(&document, &root, tls.is_some(), has_file)?,
            tls,
            arbiter_tls,
            protect: protection.limits,
            flush: protection.flush,
            sync_mib_s: protection.sync_mib_s,
            hooks: operation::parse_hooks(&document, &root)?,
            metrics: operation::parse_metrics(&document, &root)?,
            file: path.to_path_buf(),
        })
    }

    /// The files of `[tls]` for the node called `name`, or for `"arbiter"`.
    pub fn tls_of(&self, name: &str) -> Option<TlsFiles> {
        self.tls.as_ref().map(|files| files_of_node(files, name))
    }

    /// The files of `[arbiter_tls]` for the node called `name`.
    pub fn arbiter_tls_of(&self, name: &str) -> Option<TlsFiles> {
        self.arbiter_tls
            .as_ref()
            .map(|files| files_of_node(files, name))
    }

    /// The disks as this node has them: its own file in place of the first disk's, its name in
    /// place of `{name}` in the others' paths.
    pub fn disks_of(&self, node: &Node) -> Vec<Disk> {
        let mut disks = self.disks.clone();
        for disk in &mut disks {
            if let Disk::File { path, .. } = disk {
                *path = of_node(path, &node.name);
            }
        }
        if let (Some(own), Some(Disk::File { path, .. })) = (&node.path, disks.first_mut()) {
            own.clone_into(path);
        }
        disks
    }

    /// Checks that the file describes a pair, as `twinvm node` needs it, and finds the node
    /// called `name` and its peer.
    ///
    /// # Errors
    /// [`VmTomlError`] without a line: something is missing.
    pub fn pair(&self, name: &str) -> Result<(&Node, &Node), VmTomlError> {
        let lacking = |what: String| VmTomlError {
            file: self.file.clone(),
            line: None,
            problem: Problem::Conflict(what),
        };
        let shared = |disk: &Disk| matches!(disk, Disk::Nbd { .. });
        if self.protect.output == OutputFrom::Backup && self.disks.iter().any(shared) {
            return Err(lacking(
                "output = \"backup\" and [[disk]] nbd: only the live node writes to a disk that \
                 both reach: leave output out, or give each node a file of its own by path"
                    .to_owned(),
            ));
        }
        let [a, b] = &self.nodes[..] else {
            return Err(lacking(
                "no [[node]]: a protected VM needs exactly two".to_owned(),
            ));
        };
        if self.arbiter.is_none() {
            return Err(lacking(
                "no arbiter: a protected VM needs one, for instance arbiter = \"file:DIR\" with \
                 DIR on storage that both hosts see"
                    .to_owned(),
            ));
        }
        match name {
            _ if name == a.name => Ok((a, b)),
            _ if name == b.name => Ok((b, a)),
            _ => Err(lacking(format!(
                "no node is named {name}: the nodes are {} and {}",
                a.name, b.name
            ))),
        }
    }
}

fn parse_arbiter(root: &Table<'_, '_>, keys: KeyKinds) -> Result<Option<Arbiter>, VmTomlError> {
    let Some(text) = root.string("arbiter")? else {
        return Ok(None);
    };
    let arbiter = Arbiter::parse(text.value, |folder| root.relative(folder))
        .map_err(|_| root.value_at(text.line, "arbiter", text.value, EXPECTED))?;
    match arbiter.validate_supported(keys) {
        Ok(()) => Ok(Some(arbiter)),
        Err(error) => Err(root.conflict(Some(text.line), error.to_string())),
    }
}

fn parse_nets(document: &Document<'_>, root: &Table<'_, '_>) -> Result<Vec<Net>, VmTomlError> {
    let mut nets: Vec<Net> = Vec::new();
    for table in document.tables(root, "net", NET_KEYS)? {
        let text = table.string("mac")?.ok_or_else(|| table.missing("mac"))?;
        let mac = MacAddr::parse(text.value).ok_or_else(|| {
            let expected = "a unicast address such as \"52:54:00:12:34:56\"";
            table.value_at(text.line, "mac", text.value, expected)
        })?;
        if nets.iter().any(|net| net.mac == mac) {
            let problem = format!("two network cards have the address {mac}");
            return Err(table.conflict(Some(text.line), problem));
        }
        let text = table
            .string("backend")?
            .ok_or_else(|| table.missing("backend"))?;
        let backend = match text.value.split_once(':') {
            Some(("lan", socket)) if !socket.is_empty() => PortAddress::Lan(table.relative(socket)),
            Some(("tap", name)) if values::is_interface(name) => PortAddress::Tap(name.to_owned()),
            _ => {
                let expected = "\"lan:SOCKET\" or \"tap:NAME\" (an interface, 1 to 15 characters)";
                return Err(table.value_at(text.line, "backend", text.value, expected));
            }
        };
        nets.push(Net { mac, backend });
    }
    Ok(nets)
}

fn parse_disks(tables: &[Table<'_, '_>]) -> Result<Vec<Disk>, VmTomlError> {
    let mut disks = Vec::new();
    for table in tables {
        let read_only = table.boolean("readonly")?.unwrap_or(false);
        let keys = ("fence", "fence_timeout_s");
        let fence = operation::parse_command(table, keys, fence::DEFAULT_TIMEOUT)?;
        if let (Some(line), None) = (table.line_of("fence"), table.string("nbd")?) {
            let problem =
                "fence is for a disk that both nodes reach, by nbd: leave it out".to_owned();
            return Err(table.conflict(Some(line), problem));
        }
        let reads = match table.string("reads")? {
            None => Reads::Log,
            Some(text) => {
                if table.string("nbd")?.is_none() {
                    let problem = "reads is for a disk that both nodes reach, by nbd: leave it out";
                    return Err(table.conflict(Some(text.line), problem.to_owned()));
                }
                match text.value {
                    "log" => Reads::Log,
                    "own" => Reads::Own,
                    other => {
                        let expected = "\"log\" or \"own\"";
                        return Err(table.value_at(text.line, "reads", other, expected));
                    }
                }
            }
        };
        disks.push(match (table.path("path")?, table.string("nbd")?) {
            (Some(path), None) => Disk::File {
                path: path.value,
                bytes: table.disk_size("size")?,
                read_only,
            },
            (None, Some(nbd)) => Disk::Nbd {
                address: Address::parse(nbd.value)
                    .map_err(|_| table.value_at(nbd.line, "nbd", nbd.value, address::EXPECTED))?,
                read_only,
                fence,
                reads,
            },
            (None, None) => return Err(table.missing("path")),
            (Some(_), Some(nbd)) => {
                let problem = "a disk has either path or nbd, not both".to_owned();
                return Err(table.conflict(Some(nbd.line), problem));
            }
        });
    }
    Ok(disks)
}

fn parse_nodes(
    document: &Document<'_>,
    root: &Table<'_, '_>,
    tls: bool,
    has_file: bool,
) -> Result<Vec<Node>, VmTomlError> {
    let mut nodes: Vec<Node> = Vec::new();
    let tables = document.tables(root, "node", NODE_KEYS)?;
    for table in &tables {
        let name = table.name("name")?.ok_or_else(|| table.missing("name"))?;
        if nodes.iter().any(|node| node.name == name.value) {
            let problem = format!(
                "both nodes are named {}: give each its own name",
                name.value
            );
            return Err(table.conflict(Some(name.line), problem));
        }
        let text = table
            .string("channel")?
            .ok_or_else(|| table.missing("channel"))?;
        let channel = Channel::parse(text.value).ok_or_else(|| {
            let expected = "\"HOST:PORT\" with a port from 1 to 65535";
            table.value_at(text.line, "channel", text.value, expected)
        })?;
        if nodes.iter().any(|node| node.channel == channel) {
            let problem = format!("both nodes have the channel {channel}: give each its own");
            return Err(table.conflict(Some(text.line), problem));
        }
        if !tls && !is_loopback(&channel.host) {
            let problem = format!(
                "channel = \"{channel}\": without [tls] it must be a loopback address such as \
                 127.0.0.1: make keys as twinvm keys --help shows, and add [tls]"
            );
            return Err(table.conflict(Some(text.line), problem));
        }
        let tap = table.string("tap")?;
        if let Some(tap) = &tap
            && !values::is_interface(tap.value)
        {
            let expected = "the name of an interface, 1 to 15 characters";
            return Err(table.value_at(tap.line, "tap", tap.value, expected));
        }
        let path = table.path("path")?;
        if let (Some(path), false) = (&path, has_file) {
            let problem =
                "path of a node: the VM's first disk has no file, or there is no [[disk]]";
            return Err(table.conflict(Some(path.line), problem.to_owned()));
        }
        nodes.push(Node {
            name: name.value.to_owned(),
            channel,
            tap: tap.map(|tap| tap.value.to_owned()),
            path: path.map(|path| path.value),
        });
    }
    if !matches!(nodes.len(), 0 | 2) {
        let problem = format!(
            "{} [[node]], expected exactly two (or none, for twinvm run)",
            nodes.len()
        );
        return Err(root.conflict(tables.last().map(|table| table.line), problem));
    }
    Ok(nodes)
}

fn parse_tls(
    document: &Document<'_>,
    root: &Table<'_, '_>,
    name: &'static str,
) -> Result<Option<TlsFiles>, VmTomlError> {
    let Some(table) = document.table(root, name, TLS_KEYS)? else {
        return Ok(None);
    };
    let path = |key| -> Result<PathBuf, VmTomlError> {
        Ok(table.path(key)?.ok_or_else(|| table.missing(key))?.value)
    };
    Ok(Some(TlsFiles {
        ca: path("ca")?,
        cert: path("cert")?,
        key: path("key")?,
    }))
}

/// The paths for one node.
fn files_of_node(files: &TlsFiles, name: &str) -> TlsFiles {
    TlsFiles {
        ca: of_node(&files.ca, name),
        cert: of_node(&files.cert, name),
        key: of_node(&files.key, name),
    }
}

/// A path for one node.
fn of_node(path: &Path, name: &str) -> PathBuf {
    match path.to_str() {
        Some(text) => PathBuf::from(text.replace(NAME_PLACE, name)),
        None => path.to_owned(),
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests;
