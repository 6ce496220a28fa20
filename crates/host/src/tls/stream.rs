//! The handshake, and the connection after it.
//!
//! The library's connection is one value for both directions, and knows no socket. It stands under
//! a lock that is held while bytes are encrypted or decrypted, a record (16 KiB) at a time, and
//! never while a socket is waited for: who reads does not keep who writes from writing.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::net::{SendFlags, send};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, Connection, ServerConnection};

use super::explain::explain;
use super::{Credentials, Subject, verify};

/// Ciphertext read from the socket at one time.
const READ_BYTES: usize = 64 << 10;
/// Ciphertext that is put together before it is written to the socket.
const WRITE_BYTES: usize = 64 << 10;
/// Plaintext encrypted while the lock is held: a whole record (RFC 8446 section 5.1).
const RECORD_BYTES: usize = 16 << 10;
/// What the side that listens says first, when it has let the other one in. Without it, who dials
/// would take a connection for open that is about to be refused: in TLS 1.3 a client's part ends
/// before its certificate has been looked at.
const WELCOME: u8 = 1;
/// How long the reason of a refusal may take to leave.
const ALERT_TIME: Duration = Duration::from_millis(100);

/// A handshake came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// It took too long.
    #[error(
        "it did not finish the TLS handshake in time: it is stopped or busy, or its VM.toml has no [tls]"
    )]
    Timeout,
    /// The peer hung up.
    #[error("it hung up in the TLS handshake: it is busy, or its log says why")]
    HungUp,
    /// One of the two refuses the other, or speaks something else.
    #[error("{}", explain(.0))]
    Tls(#[from] rustls::Error),
    /// The socket.
    #[error("{0}")]
    Io(io::Error),
}

impl HandshakeError {
    /// Whether a person may have to mend something: the peer is there and does not agree.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Tls(_) | Self::Timeout)
    }
}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::Timeout,
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe => Self::HungUp,
            _ => Self::Io(error),
        }
    }
}

/// Makes the side of the one that has dialled. When this returns, each side has verified the other.
///
/// # Errors
/// [`HandshakeError`], at `deadline` at the latest. The connection is closed then.
pub fn connect(
    tcp: TcpStream,
    credentials: &Credentials,
    deadline: Instant,
) -> Result<TlsStream, HandshakeError> {
    let config = credentials.fresh().client;
    let role = ServerName::try_from(credentials.expect().role_name())
        .map_err(|_| rustls::Error::General("a role is no name".to_owned()))?;
    let session = ClientConnection::new(config, role)?;
    let stream = handshake(tcp, session.into(), deadline)?;
    stream.without_timeouts()
}

/// Makes the side of the one that listens. When this returns, each side has verified the other.
///
/// # Errors
/// [`HandshakeError`], at `deadline` at the latest. The connection is closed then.
pub fn accept(
    tcp: TcpStream,
    credentials: &Credentials,
    deadline: Instant,
) -> Result<TlsStream, HandshakeError> {
    let session = ServerConnection::new(credentials.fresh().server)?;
    let mut stream = handshake(tcp, session.into(), deadline)?;
    stream.write_all(&[WELCOME])?;
    stream.flush()?;
    stream.without_timeouts()
}

fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    match left.is_zero() {
        true => Err(io::ErrorKind::TimedOut.into()),
        false => Ok(left),
    }
}

fn handshake(
    tcp: TcpStream,
    mut session: Connection,
    deadline: Instant,
) -> Result<TlsStream, HandshakeError> {
    tcp.set_nodelay(true)?;
    loop {
        while session.wants_write() {
            tcp.set_write_timeout(Some(left(deadline)?))?;
            uninterrupted(|| session.write_tls(&mut &tcp))?;
        }
        if !session.is_handshaking() && is_welcome(&mut session)? {
            break;
        }
        tcp.set_read_timeout(Some(left(deadline)?))?;
        if uninterrupted(|| session.read_tls(&mut &tcp))? == 0 {
            return Err(HandshakeError::HungUp);
        }
        if let Err(error) = session.process_new_packets() {
            // Says why, if the peer takes it.
            let _ = tcp.set_write_timeout(Some(ALERT_TIME));
            let _ = session.write_tls(&mut &tcp);
            let _ = tcp.shutdown(Shutdown::Write);
            return Err(error.into());
        }
    }
    let shown = session.peer_certificates().and_then(<[_]>::first);
    let peer = shown
        .and_then(|certificate| verify::subject(certificate).ok())
        .ok_or(rustls::Error::NoCertificatesPresented)?;
    let reading = tcp.try_clone()?;
    let session = Arc::new(Mutex::new(session));
    Ok(TlsStream {
        reader: TlsReader {
            session: Arc::clone(&session),
            tcp: reading,
            bytes: vec![0; READ_BYTES].into_boxed_slice(),
            unread: 0..0,
        },
        writer: TlsWriter {
            session,
            tcp,
            bytes: Vec::new(),
            sent: 0,
        },
        peer,
    })
}

/// Whether the handshake has nothing more to wait for.
fn is_welcome(session: &mut Connection) -> Result<bool, HandshakeError> {
    if matches!(session, Connection::Server(_)) {
        return Ok(true);
    }
    let mut welcome = [0];
    match session.reader().read(&mut welcome) {
        Ok(0) => Err(HandshakeError::HungUp),
        Ok(_) if welcome == [WELCOME] => Ok(true),
        Ok(_) => Err(rustls::Error::General("the peer says no welcome".to_owned()).into()),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn uninterrupted(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

fn lock(session: &Mutex<Connection>) -> MutexGuard<'_, Connection> {
    session.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A connection between two who have verified each other: blocking, for one thread.
///
/// Reading returns 0 after the peer's orderly end (`close_notify`). A connection that ends without
/// it, because the peer died or somebody cut it, is an error of kind `UnexpectedEof`; what was
/// read before is whole and the peer's.
#[derive(Debug)]
pub struct TlsStream {
    reader: TlsReader,
    writer: TlsWriter,
    peer: Subject,
}

impl TlsStream {
    /// Who is at the other end.
    pub fn peer(&self) -> &Subject {
        &self.peer
    }

    /// The socket below: for its addresses, its timeouts, and to shut it down. A timeout makes
    /// reading and writing fail with `WouldBlock`, and both may be tried again.
    pub fn tcp(&self) -> &TcpStream {
        &self.writer.tcp
    }

    /// A half for each of two threads.
    pub fn split(self) -> (TlsReader, TlsWriter) {
        (self.reader, self.writer)
    }

    /// Tells the peer that nothing more comes.
    ///
    /// # Errors
    /// The socket's.
    pub fn close(&mut self) -> io::Result<()> {
        self.writer.close()
    }

    #[cfg(test)]
    pub(super) fn describe<T>(&self, look: impl Fn(&mut Connection) -> T) -> T {
        look(&mut lock(&self.reader.session))
    }

    fn without_timeouts(self) -> Result<Self, HandshakeError> {
        self.tcp().set_read_timeout(None)?;
        self.tcp().set_write_timeout(None)?;
        Ok(self)
    }
}

impl Read for TlsStream {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.reader.read(out)
    }
}

impl Write for TlsStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// The half that reads.
pub struct TlsReader {
    session: Arc<Mutex<Connection>>,
    tcp: TcpStream,
    /// Ciphertext.
    bytes: Box<[u8]>,
    /// Which part of it the session has not taken yet.
    unread: std::ops::Range<usize>,
}

impl Read for TlsReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        loop {
            if let Some(count) = self.decrypt(out)? {
                return Ok(count);
            }
            // The lock is not held.
            let count = self.tcp.read(&mut self.bytes)?;
            self.unread = 0..count;
            if count == 0 {
                // Lets the session know, which then tells an orderly end from a cut.
                lock(&self.session).read_tls(&mut io::empty())?;
                return lock(&self.session).reader().read(out);
            }
        }
    }
}

impl TlsReader {
    /// Plaintext from what has been read, a record at most; `None` if more is needed.
    fn decrypt(&mut self, out: &mut [u8]) -> io::Result<Option<usize>> {
        let mut session = lock(&self.session);
        loop {
            match session.reader().read(out) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result.map(Some),
            }
            if self.unread.is_empty() {
                return Ok(None);
            }
            let taken = session.read_tls(&mut &self.bytes[self.unread.clone()])?;
            self.unread.start += taken;
            session
                .process_new_packets()
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        }
    }
}

/// The half that writes.
pub struct TlsWriter {
    session: Arc<Mutex<Connection>>,
    tcp: TcpStream,
    /// Ciphertext.
    bytes: Vec<u8>,
    /// How much of it is out.
    sent: usize,
}

impl TlsWriter {
    /// The socket below.
    pub fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// Takes as many bytes as it can without waiting for the socket: how many, and whether nothing
    /// of them waits for the next call. What is wrong with the socket that one says.
    pub fn write_now(&mut self, bytes: &[u8]) -> (usize, bool) {
        let taken = match self.flush_now() {
            true => self.encrypt(bytes).unwrap_or(0),
            false => 0,
        };
        (taken, self.flush_now())
    }

    /// Whether the socket has taken everything.
    fn flush_now(&mut self) -> bool {
        self.sent += send_now(&self.tcp, &self.bytes[self.sent..]);
        if self.sent < self.bytes.len() {
            return false;
        }
        self.bytes.clear();
        self.sent = 0;
        true
    }

    /// As many bytes as fit; what of them the socket has taken is another question.
    fn encrypt(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut taken = 0;
        while taken < bytes.len() && self.bytes.len() < WRITE_BYTES {
            let mut session = lock(&self.session);
            let end = bytes.len().min(taken + RECORD_BYTES);
            let count = session.writer().write(&bytes[taken..end])?;
            drain(&mut session, &mut self.bytes)?;
            if count == 0 {
                break;
            }
            taken += count;
        }
        Ok(taken)
    }

    /// Tells the peer that nothing more comes (`close_notify`), and that the socket's writing side
    /// is at its end.
    ///
    /// # Errors
    /// The socket's.
    pub fn close(&mut self) -> io::Result<()> {
        {
            let mut session = lock(&self.session);
            session.send_close_notify();
            drain(&mut session, &mut self.bytes)?;
        }
        self.flush()?;
        self.tcp.shutdown(Shutdown::Write)
    }
}

/// Gives the socket what it takes without waiting; how much that is.
pub(crate) fn send_now(tcp: &TcpStream, bytes: &[u8]) -> usize {
    if bytes.is_empty() {
        return 0;
    }
    send(tcp, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL).unwrap_or(0)
}

fn drain(session: &mut Connection, bytes: &mut Vec<u8>) -> io::Result<()> {
    while session.wants_write() {
        session.write_tls(bytes)?;
    }
    Ok(())
}

impl Write for TlsWriter {
    /// Takes bytes and writes what the socket takes of them; what it doesn't take yet waits for
    /// the next call, at most [`WRITE_BYTES`] and a record.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.flush()?;
        let taken = self.encrypt(bytes)?;
        match self.flush() {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(taken),
        }
    }

    /// Waits until the socket has taken everything.
    fn flush(&mut self) -> io::Result<()> {
        while self.sent < self.bytes.len() {
            match self.tcp.write(&self.bytes[self.sent..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.bytes.clear();
        self.sent = 0;
        Ok(())
    }
}

impl fmt::Debug for TlsReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TlsReader").field(&self.tcp).finish()
    }
}

impl fmt::Debug for TlsWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TlsWriter").field(&self.tcp).finish()
    }
}
