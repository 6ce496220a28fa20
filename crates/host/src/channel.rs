//! The logging channel's connections: bytes and threads, no decisions.
//!
//! A [`ChannelHub`] listens, dials when it is told to, and gives each connection a name and
//! two threads: a reader that cuts and decodes frames, and a writer with a queue. A small frame
//! with nothing before it is written by who sends it, which saves waking the writer. Nothing
//! here ever makes the guest's thread wait: [`ChannelHub::send`] queues or refuses.
//!
//! ```text
//! dial() / accept ──> Up ──> Received… ──> Down
//! ```
//!
//! With [`Credentials`] each connection begins with a handshake of TLS 1.3, in a thread of its own
//! and for [`HANDSHAKE_TIMEOUT`] at most, and is only told when both sides have verified each
//! other: whoever is no member of the cluster is nobody to the caller but a line in the journal
//! ([`ChannelEvent::Refused`]). Without, only loopback can be had.
//!
//! Every connection that was told `Up` is told `Down` exactly once, last, whoever ended it.
//! After [`ChannelHub::close`] no new frame is read, but frames that already wait in the
//! event channel still come.
//!
//! Backpressure: a reader that finds the event channel full waits, and then the peer does.
//! Towards the peer, the caller paces itself by [`ChannelHub::queued_bytes`] (snapshot
//! chunks are made only while little waits) and stalls the guest on a full log; a queue
//! beyond [`MAX_QUEUE_BYTES`] means that it did neither, and ends the connection.

mod beside;
mod connection;
mod half_open;
mod listener;
mod trouble;
mod wire;

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use twinvm_protocol::config::MAX_CONNS;
use twinvm_protocol::{ConnId, Message};

use crate::intake::Intake;
use crate::marks::Marks;
use crate::random::random_u128;
use crate::tls::{self, Credentials, HandshakeError};
use connection::Connection;
use half_open::HalfOpen;
use trouble::Trouble;
use wire::Wire;

/// Bytes that may wait for one connection: a log buffer's worth of full batches beside a
/// few snapshot chunks. Reached only by a caller that paces nothing.
pub const MAX_QUEUE_BYTES: usize = 64 << 20;
/// Accepted connections that live at one time, closing ones included. The protocol refuses
/// in order beyond its own bound; only what is beyond this is cut off without a word.
pub const MAX_ACCEPTED: usize = 2 * MAX_CONNS;
/// Dials at one time. The protocol has one, and one it has given up may still hang.
pub const MAX_DIALS: usize = 4;
/// A dial that takes longer fails, its handshake included. Less than the protocol waits for an
/// answer.
pub const DIAL_TIMEOUT: Duration = Duration::from_millis(2000);
/// An accepted connection whose handshake takes longer is cut off.
pub const HANDSHAKE_TIMEOUT: Duration = DIAL_TIMEOUT;
/// How long a closed connection may take to send what is queued and hear the peer's end.
pub const LINGER: Duration = Duration::from_millis(1000);

/// The channel can't be had.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// Only loopback may go without encryption.
    #[error(
        "channel address {0}: without TLS only loopback addresses (127.0.0.1) can be used: make keys as twinvm keys --help shows, and add [tls] to VM.toml"
    )]
    NotLoopback(SocketAddr),
    /// Another process listens there.
    #[error("channel port {} at {}: in use by another process: stop it, or change `channel` of this [[node]]", .0.port(), .0.ip())]
    InUse(SocketAddr),
    /// The system said no.
    #[error("channel address {address}: can't listen there: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

/// Why a frame was not queued. The connection is over or about to be; its end is told as
/// [`ChannelEvent::Down`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// It has ended, or is being closed.
    #[error("the connection has ended")]
    Gone,
    /// More than [`MAX_QUEUE_BYTES`] would wait. It was cut off.
    #[error("the peer reads too slowly: more than {MAX_QUEUE_BYTES} bytes wait for it")]
    Overflow,
}

/// What happens on the channel.
#[derive(Debug)]
pub enum ChannelEvent {
    /// A connection is open.
    Up {
        /// Its name, fresh.
        conn: ConnId,
        /// Whether [`ChannelHub::dial`] made it.
        dialed: bool,
        /// A fresh random number.
        nonce: u128,
        /// Who is at the other end.
        peer: SocketAddr,
    },
    /// A dial came to nothing.
    DialFailed {
        /// The peer's address and what went wrong.
        why: String,
    },
    /// Somebody was not let in, or would not let us in; for the journal, and no more of them than
    /// a journal should have.
    Refused {
        /// Whom it is about, what is wrong and what to do.
        why: String,
    },
    /// A frame has arrived. The next hop is the protocol's `Event::Received`.
    Received {
        /// The connection.
        conn: ConnId,
        /// The frame.
        message: Message,
    },
    /// Batches of the log were stored and acked beside the loop, which has to take them
    /// before anything that comes after this. The next hop is the replica's `Event::Stored`.
    Stored {
        /// The connection.
        conn: ConnId,
        /// Which ones.
        number: u64,
    },
    /// A connection has ended.
    Down {
        /// The connection.
        conn: ConnId,
        /// Why, for the journal.
        why: String,
    },
}

/// All connections of a node. Dropping it cuts them off and frees the port.
#[derive(Debug)]
pub struct ChannelHub {
    shared: Arc<Shared>,
    listener: Option<listener::Listener>,
    address: SocketAddr,
}

/// What the hub shares with its threads.
#[derive(Debug)]
pub(crate) struct Shared {
    events: Sender<ChannelEvent>,
    peer: SocketAddr,
    tls: Option<Credentials>,
    half_open: HalfOpen,
    /// Of those who come. A flood of them hides nothing of the other.
    callers: Mutex<Trouble>,
    /// Of the one who is dialled.
    dialled: Mutex<Trouble>,
    connections: Mutex<BTreeMap<ConnId, Arc<Connection>>>,
    intake: Arc<Intake>,
    marks: Marks,
    last_conn: AtomicU64,
    /// Threads of accepted connections that live.
    accepted: AtomicUsize,
    dials: AtomicUsize,
    refused: AtomicU64,
    ended: AtomicBool,
}

impl ChannelHub {
    /// Listens at `listen` and tells what happens to `events`. Port 0 takes any free one. Without
    /// `tls` both addresses must be loopback. `marks` is where its readers note what passes.
    ///
    /// Give `events` a small bound (a frame may have 8 MiB): it is where the readers wait.
    /// Threads that wait there end when its receiver is dropped.
    pub fn start(
        listen: SocketAddr,
        peer: SocketAddr,
        tls: Option<Credentials>,
        events: Sender<ChannelEvent>,
        marks: Marks,
    ) -> Result<ChannelHub, ChannelError> {
        for address in [listen, peer] {
            if tls.is_none() && !address.ip().is_loopback() {
                return Err(ChannelError::NotLoopback(address));
            }
        }
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => ChannelError::InUse(listen),
            _ => ChannelError::Listen {
                address: listen,
                source,
            },
        };
        // Sets SO_REUSEADDR: connections of a dead process that linger don't hold the port.
        let socket = TcpListener::bind(listen).map_err(failed)?;
        let address = socket.local_addr().map_err(failed)?;
        let shared = Arc::new(Shared {
            events,
            peer,
            tls,
            half_open: HalfOpen::default(),
            callers: Mutex::new(Trouble::new(Instant::now())),
            dialled: Mutex::new(Trouble::new(Instant::now())),
            connections: Mutex::default(),
            intake: Arc::default(),
            marks,
            last_conn: AtomicU64::new(0),
            accepted: AtomicUsize::new(0),
            dials: AtomicUsize::new(0),
            refused: AtomicU64::new(0),
            ended: AtomicBool::new(false),
        });
        let listener = listener::Listener::start(socket, Arc::clone(&shared)).map_err(failed)?;
        Ok(ChannelHub {
            shared,
            listener: Some(listener),
            address,
        })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Where its readers store a session's log, once the loop lets them.
    pub(crate) fn intake(&self) -> Arc<Intake> {
        Arc::clone(&self.shared.intake)
    }

    /// Connections cut off without a word because too many were there.
    pub fn refused(&self) -> u64 {
        self.shared.refused.load(Ordering::Relaxed)
    }

    /// Starts to connect to the peer; the answer is an [`ChannelEvent::Up`] with `dialed`,
    /// or [`ChannelEvent::DialFailed`]. An error here is the answer itself: no event follows.
    pub fn dial(&self) -> io::Result<()> {
        let slot = Slot::take(&self.shared, |shared| &shared.dials, MAX_DIALS)
            .ok_or_else(|| io::Error::other("earlier attempts to connect still hang"))?;
        let shared = Arc::clone(&self.shared);
        thread::Builder::new()
            .name("channel dial".to_owned())
            .spawn(move || {
                let dialled = dial(&shared);
                drop(slot);
                if let Err(why) = dialled {
                    let why = format!("{}: {why}", shared.peer);
                    let _ = shared.events.send(ChannelEvent::DialFailed { why });
                }
            })?;
        Ok(())
    }

    /// Writes a frame or queues it, and returns at once. The next hop is the peer's
    /// [`ChannelEvent::Received`].
    pub fn send(&self, conn: ConnId, message: Message) -> Result<(), SendError> {
        let connection = self.shared.find(conn).ok_or(SendError::Gone)?;
        connection.send(message)
    }

    /// Bytes that wait to be handed to the connection's socket; 0 if it has ended.
    pub fn queued_bytes(&self, conn: ConnId) -> usize {
        self.shared.find(conn).map_or(0, |c| c.queued_bytes())
    }

    /// Lets queued frames leave for at most [`LINGER`], then ends the connection. Returns at
    /// once; [`ChannelEvent::Down`] tells when it is over, after at most twice that time. A
    /// process that said something last waits for it before it ends.
    pub fn close(&self, conn: ConnId) {
        if let Some(connection) = self.shared.lock().remove(&conn) {
            connection.close();
        }
    }
}

impl Drop for ChannelHub {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        drop(self.listener.take());
        self.shared.half_open.cut();
        for connection in std::mem::take(&mut *self.shared.lock()).into_values() {
            connection.cut();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<ConnId, Arc<Connection>>> {
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// For the journal, if it is not too much for it.
    fn tell(&self, trouble: &Mutex<Trouble>, why: String) {
        let mut trouble = trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(why) = trouble.tell(Instant::now(), why) {
            // What a stranger does never waits for the guest, nor the guest for it.
            let _ = self.events.try_send(ChannelEvent::Refused { why });
        }
    }

    fn find(&self, conn: ConnId) -> Option<Arc<Connection>> {
        self.lock().get(&conn).cloned()
    }
}

/// One of a bounded number of places, given back when dropped.
pub(crate) struct Slot {
    shared: Arc<Shared>,
    counter: fn(&Shared) -> &AtomicUsize,
}

impl Slot {
    fn take(
        shared: &Arc<Shared>,
        counter: fn(&Shared) -> &AtomicUsize,
        max: usize,
    ) -> Option<Slot> {
        let slot = Slot {
            shared: Arc::clone(shared),
            counter,
        };
        // A slot beyond the bound is given back right here.
        let before = counter(shared).fetch_add(1, Ordering::Relaxed);
        (before < max).then_some(slot)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        (self.counter)(&self.shared).fetch_sub(1, Ordering::Relaxed);
    }
}

/// Connects to the peer; why not, if not.
fn dial(shared: &Arc<Shared>) -> Result<(), String> {
    let deadline = Instant::now() + DIAL_TIMEOUT;
    let stream = connect(shared.peer).map_err(|error| error.to_string())?;
    let wire = match &shared.tls {
        None => Wire::Plain(stream),
        Some(credentials) => {
            let made = tls::connect(stream, credentials, deadline).inspect_err(|error| {
                if error.is_refusal() {
                    shared.tell(&shared.dialled, describe(shared.peer, credentials, error));
                }
            });
            Wire::Tls(made.map_err(|error| error.to_string())?)
        }
    };
    open(shared, wire, None).map_err(|error| error.to_string())
}

fn connect(peer: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&peer, DIAL_TIMEOUT)?;
    // A dial to a port of the ephemeral range on which nobody listens can draw that very
    // port as its own and meet itself (RFC 9293, simultaneous open).
    if stream.local_addr()? == stream.peer_addr()? {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    Ok(stream)
}

/// Lets an accepted connection in, or not; the listener goes on meanwhile.
fn admit(shared: &Arc<Shared>, stream: TcpStream, from: SocketAddr) {
    let refused = || {
        shared.refused.fetch_add(1, Ordering::Relaxed);
    };
    let Some(credentials) = shared.tls.clone() else {
        return match Slot::take(shared, |shared| &shared.accepted, MAX_ACCEPTED) {
            // A connection that ended before it began is nobody's business.
            Some(slot) => drop(open(shared, Wire::Plain(stream), Some(slot))),
            None => refused(),
        };
    };
    let Some(number) = shared.half_open.take(&stream, from.ip(), shared.peer.ip()) else {
        return refused();
    };
    let held = Arc::clone(shared);
    let spawned = thread::Builder::new()
        .name("channel handshake".to_owned())
        .spawn(move || {
            let deadline = Instant::now() + HANDSHAKE_TIMEOUT;
            let made = tls::accept(stream, &credentials, deadline);
            held.half_open.give_back(number);
            match made {
                Err(error) => held.tell(&held.callers, describe(from, &credentials, &error)),
                Ok(made) => match Slot::take(&held, |shared| &shared.accepted, MAX_ACCEPTED) {
                    Some(slot) => drop(open(&held, Wire::Tls(made), Some(slot))),
                    None => drop(held.refused.fetch_add(1, Ordering::Relaxed)),
                },
            }
        });
    if spawned.is_err() {
        shared.half_open.give_back(number);
        refused();
    }
}

fn describe(address: SocketAddr, credentials: &Credentials, error: &HandshakeError) -> String {
    let expected = credentials.expect();
    format!("channel: {address} is not taken for {expected}: {error}")
}

/// Names a connection and starts its threads. `slot` is given for accepted ones.
fn open(shared: &Arc<Shared>, wire: Wire, slot: Option<Slot>) -> io::Result<()> {
    let conn = ConnId(shared.last_conn.fetch_add(1, Ordering::Relaxed) + 1);
    let up = ChannelEvent::Up {
        conn,
        dialed: slot.is_none(),
        nonce: random_u128()?,
        peer: wire.tcp().peer_addr()?,
    };
    let (connection, threads) = Connection::new(conn, wire)?;
    let connection = Arc::new(connection);
    shared.lock().insert(conn, Arc::clone(&connection));
    if shared.ended.load(Ordering::Relaxed) {
        // The hub may have been dropped before it could see this one.
        connection.cut();
    }
    let started = threads.start(shared, connection, up, slot);
    if started.is_err() {
        shared.lock().remove(&conn);
    }
    started
}

#[cfg(test)]
mod tests;
