//! What a connection's threads read from and write to: a socket, or TLS on one.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};

use crate::tls::{TlsReader, TlsStream, TlsWriter, send_now};

/// A connection that is open.
#[derive(Debug)]
pub(crate) enum Wire {
    /// As it is: on loopback.
    Plain(TcpStream),
    /// Its two ends have verified each other.
    Tls(TlsStream),
}

/// For the thread that reads.
#[derive(Debug)]
pub(crate) enum Reading {
    Plain(TcpStream),
    Tls(TlsReader),
}

/// For the thread that writes.
#[derive(Debug)]
pub(crate) enum Writing {
    Plain(TcpStream),
    Tls(TlsWriter),
}

impl Wire {
    /// The socket below.
    pub(crate) fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(stream) => stream.tcp(),
        }
    }

    pub(crate) fn split(self) -> io::Result<(Reading, Writing)> {
        Ok(match self {
            Self::Plain(tcp) => (Reading::Plain(tcp.try_clone()?), Writing::Plain(tcp)),
            Self::Tls(stream) => {
                let (reader, writer) = stream.split();
                (Reading::Tls(reader), Writing::Tls(writer))
            }
        })
    }
}

impl Read for Reading {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.read(out),
            Self::Tls(reader) => reader.read(out).map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => io::Error::new(
                    io::ErrorKind::ConnectionAborted,
                    "the peer ended without saying so",
                ),
                _ => error,
            }),
        }
    }
}

impl Writing {
    /// Takes as many bytes as it can without waiting: how many, and whether they have all been
    /// given to the socket. What is wrong with the socket the next write says.
    pub(crate) fn write_now(&mut self, bytes: &[u8]) -> (usize, bool) {
        match self {
            Self::Plain(tcp) => (send_now(tcp, bytes), true),
            Self::Tls(writer) => writer.write_now(bytes),
        }
    }

    /// Ends our direction in order. What is still to be said for it may take as long as a write.
    pub(crate) fn close(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(tcp) => tcp.shutdown(Shutdown::Write),
            Self::Tls(writer) => writer.close(),
        }
    }
}

impl Write for Writing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.write(bytes),
            Self::Tls(writer) => writer.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(tcp) => tcp.flush(),
            Self::Tls(writer) => writer.flush(),
        }
    }
}
