//! What the switch tells: where it listens, what happens, what it did, why it can't.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::config::{ConfigError, Forward};
use crate::ethernet::MacAddr;
use crate::listen::ListenError;

/// Log lines in one second; a peer that connects and breaks in a loop can't fill
/// a disk.
const LINES_PER_SECOND: u32 = 50;

/// Where the switch listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoundAddrs {
    /// The Unix socket for nodes.
    pub listen: PathBuf,
    /// The forwards in the order of the configuration, with the ports they got.
    pub forwards: Vec<Forward>,
}

/// What a switch did, told when it ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LanStats {
    /// Nodes that connected.
    pub ports: u64,
    /// Ports closed because their peer broke the protocol.
    pub ports_broken: u64,
    /// Frames taken from ports.
    pub frames_in: u64,
    /// Frames queued for ports.
    pub frames_out: u64,
    /// Frames dropped because a port's queue was full.
    pub frames_dropped: u64,
    /// Frames that an impaired wire has lost.
    pub frames_lost: u64,
    /// Most bytes that ever waited for one port.
    pub peak_queue_bytes: u64,
    /// Connections accepted by forwards.
    pub connections: u64,
    /// Of these: ended because the guest reset them or never answered.
    pub connections_reset_by_guest: u64,
    /// Stations that announced themselves or moved to another port.
    pub stations_arrived: u64,
    /// Frames the gateway repeated for them.
    pub frames_repeated: u64,
    /// Turns of the event loop: stands still when nothing happens.
    pub turns: u64,
}

/// Something worth a line in a log.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LanEvent {
    /// A node connected.
    PortJoined {
        /// The port's number.
        port: usize,
    },
    /// A port ended.
    PortLeft {
        /// The port's number.
        port: usize,
        /// Why.
        reason: String,
    },
    /// A connection was refused because all ports are taken.
    PortRefused,
    /// A station announced itself or moved.
    StationArrived {
        /// Its address.
        mac: MacAddr,
        /// The port it is reached through.
        port: usize,
    },
    /// Lines are left out for a while, because there are too many.
    LinesLeftOut,
    /// A forward can't accept at the moment.
    AcceptFailed {
        /// The forward's address on the host.
        listen: SocketAddr,
        /// What the system said.
        reason: String,
    },
}

impl std::fmt::Display for LanEvent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LanEvent::PortJoined { port } => write!(f, "port {port}: connected"),
            LanEvent::PortLeft { port, reason } => write!(f, "port {port}: {reason}"),
            LanEvent::PortRefused => {
                write!(f, "a connection was refused: all ports are in use")
            }
            LanEvent::StationArrived { mac, port } => {
                write!(f, "port {port}: {mac} is here now")
            }
            LanEvent::LinesLeftOut => {
                write!(
                    f,
                    "more than {LINES_PER_SECOND} lines in a second: leaving out the rest"
                )
            }
            LanEvent::AcceptFailed { listen, reason } => {
                write!(
                    f,
                    "{listen}: can't accept connections at the moment: {reason}"
                )
            }
        }
    }
}

/// The switch can't start or go on.
#[derive(Debug, thiserror::Error)]
pub enum LanError {
    /// A setting that can't be.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The Unix socket can't be had.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A forward's port is taken.
    #[error("forward {0}: {addr} is in use by another program: stop it, or choose another port (0 takes a free one)", addr = .0.listen)]
    ForwardInUse(Forward),
    /// A forward's address can't be had for another reason.
    #[error("forward {forward}: can't listen on {addr}: {source}", addr = forward.listen)]
    Forward {
        /// The forward.
        forward: Forward,
        /// What the system said.
        source: io::Error,
    },
    /// The system failed the event loop.
    #[error("the switch's event loop failed: {0}")]
    Poll(#[from] io::Error),
}

/// The log, bounded in lines a second.
pub(crate) struct Log<'a> {
    sink: &'a mut dyn FnMut(&LanEvent),
    second: Instant,
    lines: u32,
}

impl<'a> Log<'a> {
    pub(crate) fn new(sink: &'a mut dyn FnMut(&LanEvent)) -> Log<'a> {
        Log {
            sink,
            second: Instant::now(),
            lines: 0,
        }
    }

    pub(crate) fn line(&mut self, event: &LanEvent) {
        let now = Instant::now();
        if now - self.second >= Duration::from_secs(1) {
            self.second = now;
            self.lines = 0;
        }
        self.lines = self.lines.saturating_add(1);
        if self.lines <= LINES_PER_SECOND {
            (self.sink)(event);
        } else if self.lines == LINES_PER_SECOND + 1 {
            (self.sink)(&LanEvent::LinesLeftOut);
        }
    }
}
