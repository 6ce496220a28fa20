//! What a node is told, and why it may not start.

use std::net::SocketAddr;
use std::path::PathBuf;

use twinvm_machine::{EngineKind, MachineConfig};
use twinvm_protocol::Config;
use twinvm_protocol::config::IdentityError;
use twinvm_replica::Flush;

use super::SharedDisk;
use super::force::ForcedStart;
use crate::arbiter::{ArbiterAddress, OpenError};
use crate::channel::ChannelError;
use crate::ctl_socket::CtlServerError;
use crate::disk::{DiskSpec, SetError};
use crate::hooks::Hooks;
use crate::journal::LogFormat;
use crate::metrics::MetricsError;
use crate::port::{PortAddress, PortError};
use crate::sandbox::{Confinement, OwnFolder, SandboxError};
use crate::store::StoreError;
use crate::tls::{TlsError, TlsFiles};

/// One network device and what it is plugged into.
#[derive(Debug, Clone)]
pub struct Wire {
    /// Virtio slot.
    pub device: u8,
    /// Where it leads.
    pub address: PortAddress,
}

/// What a node needs to know.
pub struct NodeOptions {
    /// Name of the VM.
    pub vm: String,
    /// Name of this node.
    pub name: String,
    /// Name of the other one.
    pub peer_name: String,
    /// Folder under which each node has its own.
    pub state_dir: PathBuf,
    /// Address this node listens on for its peer.
    pub listen: SocketAddr,
    /// The peer's address.
    pub peer: SocketAddr,
    /// Keys of the cluster; without them both addresses must be loopback.
    pub tls: Option<TlsFiles>,
    /// Where the arbiter's record is.
    pub arbiter: ArbiterAddress,
    /// Keys for the way to etcd.
    pub arbiter_tls: Option<TlsFiles>,
    /// The machine.
    pub machine: MachineConfig,
    /// What executes the guest on this node; `None`: the fastest that there is.
    pub engine: Option<EngineKind>,
    /// Network devices.
    pub wires: Vec<Wire>,
    /// This node's copies of the machine's disks, in the order of their slots.
    pub disks: Vec<DiskSpec>,
    /// Disks that both nodes reach.
    pub shared: Vec<SharedDisk>,
    /// When a guest's flush counts as done.
    pub flush: Flush,
    /// Most bytes per second of disks that are sent to a joining node.
    pub sync_bytes_s: Option<u64>,
    /// Timers.
    pub protect: Config,
    /// How it is watched from outside.
    pub operation: Operation,
    /// Start from this node's disks whatever the record names: a person asks for it.
    pub forced: Option<ForcedStart>,
    /// What the process gives up before anything of this is opened.
    pub confinement: Confinement,
}

impl NodeOptions {
    /// Gives up what is to be given up; a line for the journal.
    pub(super) fn confine(&self) -> Result<Option<String>, SandboxError> {
        let mut folders = vec![OwnFolder::private(&self.state_dir.join(&self.name))];
        if let ArbiterAddress::File(folder) = &self.arbiter {
            folders.push(OwnFolder::shared(folder));
        }
        self.confinement.enter(&folders)
    }
}

/// What a node shows of itself, and to whom. Nothing of it changes what the node does.
#[derive(Debug, Default)]
pub struct Operation {
    /// How lines on standard error look.
    pub log_format: LogFormat,
    /// A command that hears of what matters; started before anything else.
    pub hooks: Option<Hooks>,
    /// Where the figures can be read over HTTP.
    pub metrics: Option<SocketAddr>,
    /// Whether it notes when outputs pass the places on their way ([`crate::marks`]).
    pub marks: bool,
}

/// Why a node did not start, or ended badly.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// What it is called or made of doesn't fit into the channel's first message.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// What is to be given up.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// The node's folder.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The arbiter.
    #[error(transparent)]
    Arbiter(#[from] OpenError),
    /// The channel.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// The keys.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The disks.
    #[error(transparent)]
    Disks(#[from] SetError),
    /// A network port.
    #[error(transparent)]
    Port(#[from] PortError),
    /// The socket for requests.
    #[error(transparent)]
    Ctl(#[from] CtlServerError),
    /// The port for monitoring.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// The host refuses something that a process always gets.
    #[error("{what}: {source}")]
    Host {
        /// What was asked for.
        what: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// A forced start is refused, or not meant yet.
    #[error("not started by force. {prospect}\n{why}")]
    NotForced {
        /// What it would do.
        prospect: String,
        /// Why not.
        why: String,
    },
    /// A fault of our own. The guest, if it was live here, lives on at the backup.
    #[error("internal fault, this node has stopped: {0}")]
    Fault(String),
}

impl NodeError {
    /// Whether nothing ran: the mend is in the input or the surroundings.
    pub fn is_bad_input(&self) -> bool {
        !matches!(self, Self::Fault(_))
    }
}
