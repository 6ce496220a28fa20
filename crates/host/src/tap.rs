//! A TAP interface of this host as the guest's wire: bridged, routed, or the host's own.
//!
//! Frames pass with their virtio header, so checksums and segmentation are the kernel's or the
//! guest's work, and one system call carries up to 64 KiB. A reader thread takes what comes from
//! the kernel; when the guest has no room it stops reading, and the interface's own queue drops
//! what is too much, as a network card does. [`TapPort::send`] writes at once and never waits.
//!
//! When the interface goes away the VM goes on without it, and the port attaches itself again when
//! it is back.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded, select};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, netdevice, socket};
use twinvm_machine::{MAX_PACKET_BYTES, NET_HEADER_BYTES, NetHeader, NetOffloads};

use crate::port::{Counters, PortCounts, PortEvent};

mod ioctl;
#[cfg(test)]
mod tests;

const TUN: &str = "/dev/net/tun";
/// How often the port looks whether a removed interface is back: 0.5 s.
const RETRY_NS: i64 = 500_000_000;

/// The interface can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// No interface can have this name.
    #[error("tap:{0}: an interface's name has 1 to 15 bytes: choose another")]
    Name(String),
    /// The kernel has no TAP interfaces, or this process may not have them.
    #[error("tap:{name}: {TUN}: {source}: {}", mend(.source))]
    NoTun {
        /// The interface.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// No such interface.
    #[error(
        "tap:{0}: there is no such interface: make it with `ip tuntap add dev {0} mode tap user $USER` and `ip link set {0} up`"
    )]
    NoInterface(String),
    /// It belongs to someone else.
    #[error(
        "tap:{0}: this user has no right to it: make it anew with `ip tuntap add dev {0} mode tap user $USER`"
    )]
    Right(String),
    /// Another process has it.
    #[error(
        "tap:{0}: another process uses it: end that one, or give this VM an interface of its own"
    )]
    Busy(String),
    /// It is an interface of another kind.
    #[error(
        "tap:{0}: it is no TAP interface with one queue: make one with `ip tuntap add dev {0} mode tap user $USER`"
    )]
    Kind(String),
    /// Something that always works does not.
    #[error("tap:{name}: {what}: {source}")]
    System {
        /// The interface.
        name: String,
        /// What was asked for.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// What to do where the device can't be opened.
fn mend(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "let this user open it (`chmod 0666 /dev/net/tun`; the interface's own user decides \
             who may have it), or run as root"
        }
        _ => "load the kernel's module `tun`, and give this process the device",
    }
}

/// The guest's end of a TAP interface. Dropping it detaches.
#[derive(Debug)]
pub struct TapPort {
    shared: Arc<Shared>,
    /// Dropped with the port: ends a wait for room.
    _alive: Sender<()>,
}

#[derive(Debug)]
struct Shared {
    name: String,
    out: Mutex<Out>,
    counters: Counters,
    ended: AtomicBool,
    /// Told when the port ends.
    wake: OwnedFd,
}

/// The way to the kernel.
#[derive(Debug)]
struct Out {
    /// `None` while the interface is gone.
    tun: Option<Arc<OwnedFd>>,
    offloads: NetOffloads,
}

impl TapPort {
    /// Attaches to the interface, which must be there. What comes from it goes to `events`, which
    /// should be bounded: while it is full nothing is read.
    pub fn open(name: &str, events: Sender<PortEvent>) -> Result<Self, TapError> {
        let tun = Arc::new(attach(name)?);
        let system = |what, source| TapError::System {
            name: name.to_owned(),
            what,
            source,
        };
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|error| system("making an event descriptor", error.into()))?;
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            out: Mutex::new(Out {
                tun: Some(Arc::clone(&tun)),
                offloads: NetOffloads::default(),
            }),
            counters: Counters::default(),
            ended: AtomicBool::new(false),
            wake,
        });
        let (alive, ended) = bounded(0);
        let port = Self {
            shared: Arc::clone(&shared),
            _alive: alive,
        };
        thread::Builder::new()
            .name("tap in".to_owned())
            .spawn(move || {
                Reader {
                    shared,
                    events,
                    ended,
                }
                .run(tun)
            })
            .map_err(|error| system("starting the reader's thread", error))?;
        Ok(port)
    }

    /// Sends a packet of the guest and returns at once; false if it is dropped, because the
    /// interface is gone, down or full, or the kernel finds the packet unfit. The next hop is the
    /// kernel's network.
    pub fn send(&self, packet: &[u8]) -> bool {
        let out = self.shared.lock();
        let Some(tun) = &out.tun else {
            self.shared.counters.lost(1);
            return false;
        };
        let written = loop {
            match rustix::io::write(tun, packet) {
                Err(Errno::INTR) => {}
                result => break result,
            }
        };
        let sent = written == Ok(packet.len());
        if sent {
            self.shared.counters.sent(packet);
        } else {
            self.shared.counters.lost(1);
        }
        sent
    }

    /// From now on the kernel may leave this much of its work to the guest.
    pub fn set_offloads(&self, offloads: NetOffloads) {
        let mut out = self.shared.lock();
        out.offloads = offloads;
        if let Some(tun) = &out.tun {
            // It fails only for an interface that is being removed.
            let _ = ioctl::set_offloads(tun, offloads);
        }
    }

    /// What went through it so far.
    pub fn counts(&self) -> PortCounts {
        self.shared.counters.counts()
    }
}

impl Drop for TapPort {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        self.shared.lock().tun = None;
        let _ = rustix::io::write(&self.shared.wake, &1u64.to_ne_bytes());
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Out> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// A line for the journal if the interface is down.
    fn down_note(&self) -> Option<PortEvent> {
        let socket = socket(AddressFamily::INET, SocketType::DGRAM, None).ok()?;
        let up = ioctl::is_up(&socket, &self.name).ok()?;
        let name = &self.name;
        (!up).then(|| PortEvent::Note {
            text: format!(
                "tap:{name}: the interface is down, no frame will pass until `ip link set {name} up`"
            ),
        })
    }
}

/// Opens `/dev/net/tun` and attaches it to an interface that is there.
fn attach(name: &str) -> Result<OwnedFd, TapError> {
    if !ioctl::is_name(name) {
        return Err(TapError::Name(name.to_owned()));
    }
    let system = |what, source: Errno| TapError::System {
        name: name.to_owned(),
        what,
        source: source.into(),
    };
    let tun = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32)
        .open(TUN)
        .map_err(|source| TapError::NoTun {
            name: name.to_owned(),
            source,
        })?;
    let any = socket(AddressFamily::INET, SocketType::DGRAM, None)
        .map_err(|error| system("making a socket", error))?;
    // Attaching to a name that isn't there would make an interface without address or bridge.
    match netdevice::name_to_index(&any, name) {
        Ok(_) => {}
        Err(Errno::NODEV) => return Err(TapError::NoInterface(name.to_owned())),
        Err(error) => return Err(system("looking for the interface", error)),
    }
    match ioctl::attach(&tun, name) {
        Ok(()) => Ok(tun.into()),
        Err(Errno::PERM | Errno::ACCESS) => Err(TapError::Right(name.to_owned())),
        Err(Errno::BUSY) => Err(TapError::Busy(name.to_owned())),
        Err(Errno::INVAL) => Err(TapError::Kind(name.to_owned())),
        Err(error) => Err(system("attaching", error)),
    }
}

/// The reader thread.
struct Reader {
    shared: Arc<Shared>,
    events: Sender<PortEvent>,
    ended: Receiver<()>,
}

/// The port has ended, or nobody takes its events.
struct Ended;

impl Reader {
    fn run(self, tun: Arc<OwnedFd>) {
        let mut tun = tun;
        let Err(Ended) = self.follow(&mut tun);
    }

    /// Reads while the interface is there, and looks for it while it is not.
    fn follow(&self, tun: &mut Arc<OwnedFd>) -> Result<std::convert::Infallible, Ended> {
        loop {
            if let Some(note) = self.shared.down_note() {
                self.tell(note)?;
            }
            let error = self.read_all(tun)?;
            self.shared.lock().tun = None;
            let name = &self.shared.name;
            let why = format!(
                "tap:{name}: the interface has gone ({error}); the VM goes on without it until it is back"
            );
            self.tell(PortEvent::Lost { why })?;
            *tun = self.attach_again()?;
            self.tell(PortEvent::Reconnected)?;
        }
    }

    /// Hands an event on, however long that takes.
    fn tell(&self, event: PortEvent) -> Result<(), Ended> {
        select! {
            send(self.events, event) -> result => result.map_err(|_| Ended),
            recv(self.ended) -> _ => Err(Ended),
        }
    }

    /// Reads packets until that fails.
    fn read_all(&self, tun: &OwnedFd) -> Result<Errno, Ended> {
        let mut buffer = vec![0; MAX_PACKET_BYTES];
        loop {
            match rustix::io::read(tun, &mut buffer[..]) {
                Ok(bytes) => match proper(&buffer[..bytes.min(MAX_PACKET_BYTES)]) {
                    Some(packet) => {
                        self.shared.counters.received(&packet);
                        self.tell(PortEvent::Frame(packet))?;
                    }
                    None => self.shared.counters.refused(),
                },
                Err(Errno::AGAIN) => {
                    let ready = PollFlags::IN;
                    let mut wait = [
                        PollFd::new(tun, ready),
                        PollFd::new(&self.shared.wake, ready),
                    ];
                    let _ = poll(&mut wait, None);
                }
                Err(Errno::INTR) => {}
                Err(error) => return Ok(error),
            }
            if self.shared.has_ended() {
                return Err(Ended);
            }
        }
    }

    /// Waits until the interface is there again, and attaches to it.
    fn attach_again(&self) -> Result<Arc<OwnedFd>, Ended> {
        let pause = Timespec {
            tv_sec: 0,
            tv_nsec: RETRY_NS,
        };
        loop {
            let mut wait = [PollFd::new(&self.shared.wake, PollFlags::IN)];
            let _ = poll(&mut wait, Some(&pause));
            if self.shared.has_ended() {
                return Err(Ended);
            }
            let Ok(tun) = attach(&self.shared.name).map(Arc::new) else {
                continue;
            };
            let mut out = self.shared.lock();
            let _ = ioctl::set_offloads(&tun, out.offloads);
            if !self.shared.has_ended() {
                out.tun = Some(Arc::clone(&tun));
            }
            return Ok(tun);
        }
    }
}

/// A packet as the kernel gave it, its header in the one form; the kernel leaves the last field of
/// it as it was. `None` if it is no packet that a guest could take.
fn proper(bytes: &[u8]) -> Option<Vec<u8>> {
    let header = NetHeader::of_packet(bytes)?.to_bytes();
    let mut packet = bytes.to_vec();
    packet[..NET_HEADER_BYTES].copy_from_slice(&header);
    Some(packet)
}
