//! Bytes to and from a server.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::net::{self, sockopt};
use twinvm_nbd::address::Server;

use crate::tls::{self, Credentials, HandshakeError, TlsStream};

/// A host that has lost its power is noticed after this long: silence, and then so many questions
/// so far apart.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(5);
const KEEPALIVE_EACH: Duration = Duration::from_secs(3);
const KEEPALIVE_COUNT: u32 = 3;
/// Bytes that nobody acknowledges for this long end a connection.
const UNACKED_MS: u32 = 15_000;

/// A connection, whatever it travels on.
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(TlsStream),
}

/// A connection's socket, to set its times and to end it from another thread.
pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    pub(crate) fn shut(&self) {
        let _ = match self {
            Self::Tcp(socket) => socket.shutdown(Shutdown::Both),
            Self::Unix(socket) => socket.shutdown(Shutdown::Both),
        };
    }

    fn set_times(&self, read: Option<Duration>, write: Option<Duration>) -> io::Result<()> {
        match self {
            Self::Tcp(socket) => {
                socket.set_read_timeout(read)?;
                socket.set_write_timeout(write)
            }
            Self::Unix(socket) => {
                socket.set_read_timeout(read)?;
                socket.set_write_timeout(write)
            }
        }
    }
}

/// A connection's two directions, and its socket.
pub(crate) struct Halves {
    pub(crate) reader: Box<dyn Read + Send>,
    pub(crate) writer: Box<dyn Write + Send>,
    pub(crate) socket: Socket,
}

impl Stream {
    fn socket(&self) -> io::Result<Socket> {
        Ok(match self {
            Self::Tcp(socket) => Socket::Tcp(socket.try_clone()?),
            Self::Unix(socket) => Socket::Unix(socket.try_clone()?),
            Self::Tls(stream) => Socket::Tcp(stream.tcp().try_clone()?),
        })
    }

    /// Makes it TLS.
    pub(crate) fn secure(self, keys: &Credentials, until: Instant) -> Result<Self, HandshakeError> {
        match self {
            Self::Tcp(socket) => tls::connect(socket, keys, until).map(Self::Tls),
            other => Ok(other),
        }
    }

    /// Makes it TLS, as the side that listens.
    pub(crate) fn admit(self, keys: &Credentials, until: Instant) -> Result<Self, HandshakeError> {
        match self {
            Self::Tcp(socket) => tls::accept(socket, keys, until).map(Self::Tls),
            other => Ok(other),
        }
    }

    /// A half for each of two threads. Reading takes as long as it takes; writing fails with
    /// `WouldBlock` after `write_wait` and may then be gone on with.
    pub(crate) fn split(self, write_wait: Duration) -> io::Result<Halves> {
        let socket = self.socket()?;
        socket.set_times(None, Some(write_wait))?;
        let (reader, writer): (Box<dyn Read + Send>, Box<dyn Write + Send>) = match self {
            Self::Tcp(stream) => (Box::new(stream.try_clone()?), Box::new(stream)),
            Self::Unix(stream) => (Box::new(stream.try_clone()?), Box::new(stream)),
            Self::Tls(stream) => {
                let (reader, writer) = stream.split();
                (Box::new(reader), Box::new(writer))
            }
        };
        Ok(Halves {
            reader,
            writer,
            socket,
        })
    }
}

/// Connects to a server.
pub(crate) fn dial(server: &Server, until: Instant) -> io::Result<Stream> {
    match server {
        Server::Unix(path) => dial_unix(path, left(until)?).map(Stream::Unix),
        Server::Tcp { host, port, .. } => {
            let mut failed = io::Error::new(ErrorKind::NotFound, "it has no address");
            for address in (host.as_str(), *port).to_socket_addrs()? {
                match TcpStream::connect_timeout(&address, left(until)?) {
                    Ok(socket) => {
                        socket.set_nodelay(true)?;
                        watch(&socket)?;
                        return Ok(Stream::Tcp(socket));
                    }
                    Err(error) => failed = error,
                }
            }
            Err(failed)
        }
    }
}

/// Connects to a socket in the file system. A server that hangs has a queue that is full at some
/// time; the limit for sending is that for connecting, too (unix(7), socket(7): `SO_SNDTIMEO`).
fn dial_unix(path: &Path, limit: Duration) -> io::Result<UnixStream> {
    let flags = net::SocketFlags::CLOEXEC;
    let socket = net::socket_with(
        net::AddressFamily::UNIX,
        net::SocketType::STREAM,
        flags,
        None,
    )?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(limit))?;
    net::connect(&socket, &net::SocketAddrUnix::new(path)?)?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, None)?;
    Ok(UnixStream::from(socket))
}

/// Has the kernel notice a host that is gone.
pub(crate) fn watch(socket: &TcpStream) -> io::Result<()> {
    sockopt::set_socket_keepalive(socket, true)?;
    sockopt::set_tcp_keepidle(socket, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(socket, KEEPALIVE_EACH)?;
    sockopt::set_tcp_keepcnt(socket, KEEPALIVE_COUNT)?;
    sockopt::set_tcp_user_timeout(socket, UNACKED_MS)?;
    Ok(())
}

fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    match left.is_zero() {
        true => Err(ErrorKind::TimedOut.into()),
        false => Ok(left),
    }
}

/// A connection all of whose steps must be done by one moment.
pub(crate) struct Timed {
    stream: Stream,
    until: Instant,
}

impl Timed {
    pub(crate) fn new(stream: Stream, until: Instant) -> Self {
        Self { stream, until }
    }

    pub(crate) fn into_inner(self) -> Stream {
        self.stream
    }

    fn set_times(&self) -> io::Result<()> {
        let left = Some(left(self.until)?);
        match &self.stream {
            Stream::Tcp(socket) => {
                socket.set_read_timeout(left)?;
                socket.set_write_timeout(left)
            }
            Stream::Unix(socket) => {
                socket.set_read_timeout(left)?;
                socket.set_write_timeout(left)
            }
            Stream::Tls(stream) => {
                stream.tcp().set_read_timeout(left)?;
                stream.tcp().set_write_timeout(left)
            }
        }
    }
}

impl Read for Timed {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.set_times()?;
        match &mut self.stream {
            Stream::Tcp(stream) => stream.read(bytes),
            Stream::Unix(stream) => stream.read(bytes),
            Stream::Tls(stream) => stream.read(bytes),
        }
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.set_times()?;
        match &mut self.stream {
            Stream::Tcp(stream) => stream.write(bytes),
            Stream::Unix(stream) => stream.write(bytes),
            Stream::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.set_times()?;
        match &mut self.stream {
            Stream::Tcp(stream) => stream.flush(),
            Stream::Unix(stream) => stream.flush(),
            Stream::Tls(stream) => stream.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One that never accepts: the kernel takes a few connections for it, and then none.
    #[test]
    fn a_server_that_hangs_is_not_waited_for_without_an_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let hung = rustix::net::socket(net::AddressFamily::UNIX, net::SocketType::STREAM, None);
        let hung = hung.unwrap();
        net::bind(&hung, &net::SocketAddrUnix::new(&path).unwrap()).unwrap();
        net::listen(&hung, 0).unwrap();
        let server = Server::Unix(path);
        let mut taken = Vec::new();
        let error = loop {
            match dial(&server, Instant::now() + Duration::from_millis(50)) {
                Ok(stream) => taken.push(stream),
                Err(error) => break error,
            }
        };
        assert!(
            matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
            "{error}"
        );
        assert!(!taken.is_empty());
    }
}
