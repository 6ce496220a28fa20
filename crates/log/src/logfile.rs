//! One forwarded connection: a client's TCP socket on the host and a TCP socket
//! of the gateway, and the bytes between them.
//!
//! ```text
//!               guest answers                both sides closed,
//! connecting ─────────────────▶ established ───────────────────▶ closed
//!     │                           │      │     acknowledged
//!     │ guest refuses, or is      │      │ client resets
//!     │ silent for 10 s           │      ▼
//!     │              guest resets │   guest is reset
//!     ▼                           ▼
//!  client is reset ◀──────────────┘
//! ```
//!
//! Each direction closes by itself (half-close). Nothing ever reconnects: what a
//! server held for a connection is gone with it, and a client has to know.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp;

/// How long a guest may take to answer before the client is told that it won't.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a guest may take to acknowledge the end of a connection of which
/// both sides are already closed.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(60);

/// What became of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It goes on.
    Open {
        /// Bytes or a close moved: the stack has something to do.
        moved: bool,
    },
    /// Both sides closed in order.
    Closed,
    /// The guest's side ended by reset or never came: reset the client.
    GuestGone,
    /// The client's side ended by reset: the guest's socket has been aborted.
    ClientGone,
}

/// A client's connection on its way through the gateway.
pub(crate) struct Connection {
    stream: TcpStream,
    /// The gateway's side.
    pub(crate) socket: SocketHandle,
    readable: bool,
    writable: bool,
    client_failed: bool,
    /// The client sent its end, and the guest was told.
    client_done: bool,
    /// The guest sent its end, and the client was told.
    guest_done: bool,
    established: bool,
    /// When to give up, while connecting or closing.
    pub(crate) deadline: Option<Instant>,
}

impl Connection {
    pub(crate) fn new(stream: TcpStream, socket: SocketHandle, now: Instant) -> Connection {
        Connection {
            stream,
            socket,
            // Unknown until tried.
            readable: true,
            writable: true,
            client_failed: false,
            client_done: false,
            guest_done: false,
            established: false,
            deadline: Some(now + CONNECT_TIMEOUT),
        }
    }

    /// The client's socket, to take it out of the poll.
    pub(crate) fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Notes what the host says about the client's socket.
    pub(crate) fn host_event(&mut self, event: &mio::event::Event) {
        self.readable |= event.is_readable() || event.is_read_closed();
        self.writable |= event.is_writable();
        let broken = event.is_error() || (event.is_write_closed() && !self.guest_done);
        if broken && !matches!(self.stream.take_error(), Ok(None)) {
            self.client_failed = true;
        }
    }

    /// Moves what can be moved between the client and `socket`, its socket in the
    /// gateway's stack.
    pub(crate) fn pump(&mut self, socket: &mut tcp::Socket<'_>, now: Instant) -> Fate {
        let mut moved = false;
        if !self.established && socket.may_send() {
            self.established = true;
            self.deadline = None;
        }
        if self.established {
            moved |= self.client_to_guest(socket);
            moved |= self.guest_to_client(socket);
        }
        if self.client_failed {
            socket.abort();
            return Fate::ClientGone;
        }
        if let Some(ended) = self.ended(socket) {
            return ended;
        }
        if self.client_done && self.guest_done && self.deadline.is_none() {
            self.deadline = Some(now + CLOSE_TIMEOUT);
        }
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            socket.abort();
            return Fate::GuestGone;
        }
        Fate::Open { moved }
    }

    fn ended(&self, socket: &tcp::Socket<'_>) -> Option<Fate> {
        let both_done = self.client_done && self.guest_done;
        match socket.state() {
            // The stack would hold the buffers for its whole TIME-WAIT; the last
            // acknowledgement has left in the poll that brought the state.
            tcp::State::TimeWait | tcp::State::Closed if both_done => Some(Fate::Closed),
            // The guest ended in order, and the client has yet to take the rest.
            tcp::State::Closed if self.client_done && socket.can_recv() => None,
            tcp::State::Closed => Some(Fate::GuestGone),
            _ => None,
        }
    }

    fn client_to_guest(&mut self, socket: &mut tcp::Socket<'_>) -> bool {
        let mut moved = false;
        while self.readable && !self.client_done && socket.can_send() {
            let stream = &mut self.stream;
            let read = socket.send(|room| {
                let read = if room.is_empty() {
                    Err(io::ErrorKind::WouldBlock.into())
                } else {
                    stream.read(room)
                };
                (*read.as_ref().unwrap_or(&0), read)
            });
            match read {
                Ok(Ok(0)) => {
                    socket.close();
                    self.client_done = true;
                    moved = true;
                }
                Ok(Ok(_)) => moved = true,
                Ok(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.readable = false
                }
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(_)) => {
                    self.client_failed = true;
                    break;
                }
                Err(_) => break,
            }
        }
        moved
    }

    fn guest_to_client(&mut self, socket: &mut tcp::Socket<'_>) -> bool {
        let mut moved = false;
        while self.writable && socket.can_recv() {
            let stream = &mut self.stream;
            let written = socket.recv(|bytes| {
                let written = stream.write(bytes);
                (*written.as_ref().unwrap_or(&0), written)
            });
            match written {
                Ok(Ok(count)) if count > 0 => moved = true,
                Ok(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.writable = false
                }
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(_) => {
                    self.client_failed = true;
                    break;
                }
                Err(_) => break,
            }
        }
        if !self.guest_done
            && !socket.can_recv()
            && socket.recv(|_| (0, ())) == Err(tcp::RecvError::Finished)
        {
            // An error means that the client is gone, which the next event tells.
            let _ = self.stream.shutdown(Shutdown::Write);
            self.guest_done = true;
            moved = true;
        }
        moved
    }

    /// Ends the client's side by reset instead of an orderly close.
    pub(crate) fn reset_client(self) {
        // If the option can't be set the client sees a plain close.
        let _ = rustix::net::sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO));
    }
}
