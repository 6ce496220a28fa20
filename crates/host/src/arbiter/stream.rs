//! Bytes to and from a server, each step with a time by which it must be done.
//!
//! [`dial`] and [`accept`] are the only places that know what kind of stream one of twinvm's own is:
//! TLS if there are keys.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use twinvm_protocol::arbiter::wire;

use crate::tls::{self, Credentials, HandshakeError, TlsStream, WebStream};

/// A two-way stream of bytes whose waits can be bounded.
pub(super) trait Stream: Read + Write + Send {
    /// The longest that one read or write may wait from now on; more than nothing.
    fn set_wait(&self, wait: Duration) -> io::Result<()>;
}

impl Stream for TcpStream {
    fn set_wait(&self, wait: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(wait))?;
        self.set_write_timeout(Some(wait))
    }
}

impl Stream for TlsStream {
    fn set_wait(&self, wait: Duration) -> io::Result<()> {
        self.tcp().set_wait(wait)
    }
}

impl Stream for WebStream {
    fn set_wait(&self, wait: Duration) -> io::Result<()> {
        WebStream::set_wait(self, wait);
        Ok(())
    }
}

/// A connection to a server.
pub(super) fn connect(to: SocketAddr, until: Instant) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, left(until)?)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A stream to a server of twinvm's own.
pub(super) fn dial(
    to: SocketAddr,
    keys: Option<&Credentials>,
    until: Instant,
) -> io::Result<Box<dyn Stream>> {
    let stream = connect(to, until)?;
    let Some(keys) = keys else {
        return Ok(Box::new(stream));
    };
    match tls::connect(stream, keys, until) {
        Ok(stream) => Ok(Box::new(stream)),
        Err(HandshakeError::Timeout) => Err(io::Error::new(
            ErrorKind::TimedOut,
            "no TLS handshake in time",
        )),
        Err(HandshakeError::HungUp) => Err(io::Error::other(
            "hung up in the TLS handshake: it needs --keys, or its log says why",
        )),
        Err(error) => Err(io::Error::other(error)),
    }
}

/// A stream from a client, which must be who it should be by `until`.
pub(super) fn accept(
    stream: TcpStream,
    keys: Option<&Credentials>,
    until: Instant,
) -> Result<Box<dyn Stream>, HandshakeError> {
    stream.set_nodelay(true)?;
    match keys {
        None => Ok(Box::new(stream)),
        Some(keys) => Ok(Box::new(tls::accept(stream, keys, until)?)),
    }
}

/// The time that is left, which is more than nothing.
pub(super) fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    match left.is_zero() {
        true => Err(late()),
        false => Ok(left),
    }
}

fn late() -> io::Error {
    io::Error::new(ErrorKind::TimedOut, "no answer in time")
}

/// Reads some bytes; none is the end.
pub(super) fn read_some(
    stream: &mut dyn Stream,
    bytes: &mut [u8],
    until: Instant,
) -> io::Result<usize> {
    loop {
        stream.set_wait(left(until)?)?;
        match stream.read(bytes) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // What Linux says when the wait was too long.
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(late()),
            done => return done,
        }
    }
}

/// Fills `bytes`.
pub(super) fn read_all(
    stream: &mut dyn Stream,
    bytes: &mut [u8],
    until: Instant,
) -> io::Result<()> {
    let mut filled = 0;
    while filled < bytes.len() {
        match read_some(stream, &mut bytes[filled..], until)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            count => filled += count,
        }
    }
    Ok(())
}

/// Writes all of `bytes`.
pub(super) fn write_all(
    stream: &mut dyn Stream,
    mut bytes: &[u8],
    until: Instant,
) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.set_wait(left(until)?)?;
        match stream.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(late()),
            Err(error) => return Err(error),
        }
    }
    stream.flush()
}

/// The body of a frame whose first byte may take until `first` to come, and the rest `whole`
/// more.
pub(super) fn read_frame(
    stream: &mut dyn Stream,
    first: Instant,
    whole: Duration,
) -> io::Result<Vec<u8>> {
    let mut head = [0; 4];
    if read_some(stream, &mut head[..1], first)? == 0 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    let until = Instant::now() + whole;
    read_all(stream, &mut head[1..], until)?;
    let len = wire::body_len(head).map_err(|e| io::Error::new(ErrorKind::InvalidData, e))?;
    let mut body = vec![0; len];
    read_all(stream, &mut body, until)?;
    Ok(body)
}
