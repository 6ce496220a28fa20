//! As much of PostgreSQL's protocol as a client with simple queries needs (PostgreSQL
//! documentation, chapter "Frontend/Backend Protocol", version 3.0): no passwords, no TLS, values
//! as text.

use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::patience;

/// Longest message that is read: a whole result is as long as its rows, a row never this long.
const MAX_MESSAGE_BYTES: usize = 1 << 20;
/// Most rows of one answer.
const MAX_ROWS: usize = 1 << 22;
/// Protocol 3.0.
const VERSION: u32 = 196_608;
/// How long connecting may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// How often a client that waits looks whether it may go on waiting.
const LOOK: Duration = Duration::from_millis(100);

/// One row: a value for each column, none for NULL.
pub(crate) type Values = Vec<Option<String>>;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PgError {
    /// The connection has ended, or nobody wants to wait any longer.
    #[error("{0}")]
    Connection(#[from] io::Error),
    /// The server refused; the connection goes on.
    #[error("the server says {code}: {message}")]
    Refused {
        /// SQLSTATE, five letters.
        code: String,
        /// For a person.
        message: String,
    },
    /// What came isn't the protocol.
    #[error("not PostgreSQL's protocol: {0}")]
    Protocol(String),
}

/// What the server sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Message {
    /// `R`: 0 is "come in", everything else asks for something that we don't have.
    Authentication(u32),
    /// `D`
    Row(Values),
    /// `E`: SQLSTATE and text.
    Error(String, String),
    /// `Z`: it waits for the next query; inside a transaction, or inside one that has failed.
    Ready(u8),
    /// `C`
    Complete,
    /// Parameters, notices, names of columns: nothing that we look at.
    Other(u8),
}

/// Cuts the first message out of `bytes`: the message and its length, or `None` if it isn't whole
/// yet.
pub(crate) fn parse(bytes: &[u8]) -> Result<Option<(Message, usize)>, PgError> {
    let Some((&[kind, a, b, c, d], rest)) = bytes.split_first_chunk::<5>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if !(4..=MAX_MESSAGE_BYTES).contains(&length) {
        return Err(bad(format!(
            "a message {:?} of {length} bytes",
            char::from(kind)
        )));
    }
    let Some(body) = rest.get(..length - 4) else {
        return Ok(None);
    };
    let message = match kind {
        b'R' => Message::Authentication(Cursor(body).u32()?),
        b'D' => Message::Row(row(body)?),
        b'E' => error(body)?,
        b'Z' => Message::Ready(*body.first().ok_or_else(|| bad("an empty Z"))?),
        b'C' => Message::Complete,
        b'S' | b'K' | b'N' | b'T' | b'I' | b'A' => Message::Other(kind),
        other => return Err(bad(format!("an unknown message {:?}", char::from(other)))),
    };
    Ok(Some((message, length + 1)))
}

fn bad(what: impl Into<String>) -> PgError {
    PgError::Protocol(what.into())
}

/// What is left of a message's body.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], PgError> {
        let (head, rest) = self
            .0
            .split_at_checked(count)
            .ok_or_else(|| bad("a message that is too short"))?;
        self.0 = rest;
        Ok(head)
    }

    fn u16(&mut self) -> Result<u16, PgError> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn u32(&mut self) -> Result<u32, PgError> {
        let bytes = self.take(4)?;
        Ok(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    /// Up to a zero byte.
    fn text(&mut self) -> Result<String, PgError> {
        let end = self.0.iter().position(|&byte| byte == 0);
        let end = end.ok_or_else(|| bad("a text without an end"))?;
        let text = String::from_utf8_lossy(self.take(end)?).into_owned();
        self.take(1)?;
        Ok(text)
    }
}

fn row(body: &[u8]) -> Result<Values, PgError> {
    let mut cursor = Cursor(body);
    let columns = cursor.u16()?;
    let mut values = Vec::new();
    for _ in 0..columns {
        values.push(match cursor.u32()? {
            u32::MAX => None,
            length => {
                let text = cursor.take(length as usize)?;
                let text =
                    std::str::from_utf8(text).map_err(|_| bad("a value that isn't UTF-8"))?;
                Some(text.to_owned())
            }
        });
    }
    Ok(values)
}

fn error(body: &[u8]) -> Result<Message, PgError> {
    let mut cursor = Cursor(body);
    let (mut code, mut message) = (String::new(), String::new());
    loop {
        match cursor.take(1)? {
            [0] => return Ok(Message::Error(code, message)),
            [b'C'] => code = cursor.text()?,
            [b'M'] => message = cursor.text()?,
            _ => drop(cursor.text()?),
        }
    }
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Pg {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Pg {
    /// Connects as that role to that database, and waits at most `limit` until the server is
    /// ready.
    pub(crate) fn connect(
        address: SocketAddr,
        role: &str,
        database: &str,
        limit: Duration,
    ) -> Result<Self, PgError> {
        let until = Instant::now() + limit;
        let stream = TcpStream::connect_timeout(&address, CONNECT_LIMIT.min(limit))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(LOOK))?;
        stream.set_write_timeout(Some(CONNECT_LIMIT))?;
        let mut pg = Self {
            stream,
            buffer: Vec::new(),
        };
        let mut body = VERSION.to_be_bytes().to_vec();
        for word in ["user", role, "database", database, ""] {
            body.extend_from_slice(word.as_bytes());
            body.push(0);
        }
        let length = (body.len() as u32 + 4).to_be_bytes();
        pg.stream.write_all(&[&length[..], &body].concat())?;
        pg.answer(|| Instant::now() < until)?;
        Ok(pg)
    }

    /// Sends statements and gives the rows that they answer with, all in one list. `patient` says
    /// whether to go on waiting.
    pub(crate) fn query(
        &mut self,
        sql: &str,
        patient: impl FnMut() -> bool,
    ) -> Result<Vec<Values>, PgError> {
        let length = (sql.len() as u32 + 5).to_be_bytes();
        let message = [b"Q", &length[..], sql.as_bytes(), b"\0"].concat();
        self.stream.write_all(&message)?;
        self.answer(patient)
    }

    /// Everything up to the server's being ready.
    fn answer(&mut self, mut patient: impl FnMut() -> bool) -> Result<Vec<Values>, PgError> {
        let mut rows = Vec::new();
        let mut refused = None;
        let mut used = 0;
        loop {
            let Some((message, length)) = parse(&self.buffer[used..])? else {
                self.buffer.drain(..used);
                used = 0;
                self.fill(&mut patient)?;
                continue;
            };
            used += length;
            match message {
                Message::Authentication(0) | Message::Complete | Message::Other(_) => {}
                Message::Authentication(other) => {
                    return Err(bad(format!("the server wants a password (kind {other})")));
                }
                Message::Row(_) if rows.len() >= MAX_ROWS => {
                    return Err(bad(format!("more than {MAX_ROWS} rows")));
                }
                Message::Row(values) => rows.push(values),
                Message::Error(code, message) => {
                    refused.get_or_insert(PgError::Refused { code, message });
                }
                Message::Ready(_) => {
                    self.buffer.drain(..used);
                    return refused.map_or(Ok(rows), Err);
                }
            }
        }
    }

    fn fill(&mut self, patient: &mut impl FnMut() -> bool) -> io::Result<()> {
        patience::fill(&mut self.stream, &mut self.buffer, patient)
    }
}

#[cfg(test)]
mod tests;
