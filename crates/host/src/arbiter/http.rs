//! As much of HTTP (RFC 9110, RFC 9112) as it takes to ask a server one question: a POST on a
//! connection of its own, in HTTP/1.0, so that the answer ends where the connection does.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Instant;

use super::stream::{Stream, read_some, write_all};

/// Longest answer: a record and what stands around it take below 2 KiB.
const MAX_ANSWER_BYTES: usize = 64 << 10;

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// The status code, 200 if all is well.
    pub(super) status: u16,
    /// The content.
    pub(super) body: Vec<u8>,
}

/// Posts `json` to `path` on the server at `to`, to which there is this stream.
pub(super) fn post(
    stream: &mut dyn Stream,
    to: SocketAddr,
    path: &str,
    json: &str,
    until: Instant,
) -> io::Result<Answer> {
    let request = format!(
        "POST {path} HTTP/1.0\r\nHost: {to}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{json}",
        json.len()
    );
    write_all(stream, request.as_bytes(), until)?;
    let mut bytes = Vec::new();
    let mut part = [0; 4096];
    loop {
        match read_some(stream, &mut part, until)? {
            0 => break,
            count => bytes.extend_from_slice(&part[..count]),
        }
        if bytes.len() > MAX_ANSWER_BYTES {
            return Err(io::Error::new(ErrorKind::InvalidData, "a very long answer"));
        }
    }
    parse(&bytes).ok_or_else(|| {
        let what = "answers something that is not HTTP, or only a part of it";
        io::Error::new(ErrorKind::InvalidData, what)
    })
}

/// Takes a whole answer apart.
pub(super) fn parse(bytes: &[u8]) -> Option<Answer> {
    const END: &[u8] = b"\r\n\r\n";
    let at = bytes.windows(END.len()).position(|four| four == END)?;
    let head = str::from_utf8(&bytes[..at]).ok()?;
    let body = &bytes[at + END.len()..];
    let mut lines = head.split("\r\n");
    let mut status = lines.next()?.split(' ');
    status.next()?.strip_prefix("HTTP/1.")?;
    let status: u16 = status.next()?.parse().ok()?;
    for line in lines {
        let (name, value) = line.split_once(':')?;
        let value = value.trim();
        // Nobody may answer HTTP/1.0 in pieces (RFC 9112, section 6.1).
        if name.eq_ignore_ascii_case("transfer-encoding") {
            return None;
        }
        if name.eq_ignore_ascii_case("content-length") && value.parse() != Ok(body.len()) {
            return None;
        }
    }
    let body = body.to_vec();
    Some(Answer { status, body })
}

#[cfg(test)]
mod tests;
