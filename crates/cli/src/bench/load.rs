//! Load for the guest's Redis: many connections with many requests under way, and large values.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::Bench;
use crate::demo::client::connect;
use crate::demo::error::DemoError;
use crate::demo::resp;

/// Connections of the pipelined load, as `redis-benchmark -c 50` has.
pub(crate) const CONNECTIONS: usize = 50;
/// Requests under way on each connection, as with `-P 16`.
pub(crate) const DEPTH: usize = 16;
/// Size of a large value.
pub(crate) const VALUE_BYTES: usize = 4 << 20;
/// How long a turn may take at most.
const TURN_LIMIT: Duration = Duration::from_secs(120);
/// How long the client waits before it looks whether it shall end.
const LOOK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};
/// The answer to SET.
const OK: &[u8] = b"+OK\r\n";

fn broken(error: impl std::fmt::Display) -> DemoError {
    DemoError::failed(format!("the guest's Redis: {error}"))
}

/// Stops a turn that takes too long, or that nobody wants any more.
struct Limit(Instant);

impl Limit {
    fn start() -> Self {
        Self(Instant::now() + TURN_LIMIT)
    }

    fn check(&self, bench: &Bench) -> Result<(), DemoError> {
        bench.check()?;
        match Instant::now() >= self.0 {
            true => Err(broken(format!(
                "a turn took longer than {} s",
                TURN_LIMIT.as_secs()
            ))),
            false => Ok(()),
        }
    }
}

/// Many connections, each with [`DEPTH`] requests under way.
pub(crate) struct Pipelines {
    lanes: Vec<Lane>,
    /// [`DEPTH`] requests.
    block: Vec<u8>,
}

/// One of the connections.
struct Lane {
    stream: TcpStream,
    /// Bytes of answers that are still to come; 0 if nothing is under way.
    missing: usize,
    /// Blocks that are still to be sent.
    blocks: usize,
}

impl Pipelines {
    /// Connects.
    pub(crate) fn new(address: SocketAddr) -> Result<Self, DemoError> {
        let lane = |_| {
            let stream = connect(address).map_err(broken)?;
            stream.set_nonblocking(true).map_err(broken)?;
            Ok(Lane {
                stream,
                missing: 0,
                blocks: 0,
            })
        };
        Ok(Self {
            lanes: (0..CONNECTIONS)
                .map(lane)
                .collect::<Result<_, DemoError>>()?,
            block: resp::command(&["SET", "bench:key", "xxx"]).repeat(DEPTH),
        })
    }

    /// Sends `blocks` times [`DEPTH`] requests on each connection; how many that were.
    pub(crate) fn turn(&mut self, bench: &Bench, blocks: usize) -> Result<usize, DemoError> {
        let limit = Limit::start();
        for lane in &mut self.lanes {
            lane.blocks = blocks;
            lane.next(&self.block)?;
        }
        let busy = |lane: &&mut Lane| lane.missing > 0;
        loop {
            limit.check(bench)?;
            let mut lanes: Vec<&mut Lane> = self.lanes.iter_mut().filter(busy).collect();
            if lanes.is_empty() {
                return Ok(CONNECTIONS * DEPTH * blocks);
            }
            let mut polled: Vec<PollFd<'_>> = lanes
                .iter()
                .map(|lane| PollFd::new(&lane.stream, PollFlags::IN))
                .collect();
            match poll(&mut polled, Some(&LOOK)) {
                Err(rustix::io::Errno::INTR) => continue,
                other => other.map_err(broken)?,
            };
            let ready: Vec<bool> = polled.iter().map(|fd| !fd.revents().is_empty()).collect();
            for (lane, _) in lanes.iter_mut().zip(ready).filter(|(_, ready)| *ready) {
                lane.take(&self.block)?;
            }
        }
    }
}

impl Lane {
    /// Sends the next block, if there is one. The last was answered, so there is room.
    fn next(&mut self, block: &[u8]) -> Result<(), DemoError> {
        if self.blocks == 0 {
            return Ok(());
        }
        self.blocks -= 1;
        self.missing = DEPTH * OK.len();
        self.stream.write_all(block).map_err(broken)
    }

    /// Takes what has come; each answer must be OK.
    fn take(&mut self, block: &[u8]) -> Result<(), DemoError> {
        let mut piece = [0; DEPTH * OK.len()];
        let length = match self.stream.read(&mut piece) {
            Ok(0) => return Err(broken("the connection was closed")),
            Ok(length) => length,
            Err(error) if is_for_later(&error) => return Ok(()),
            Err(error) => return Err(broken(error)),
        };
        let begin = DEPTH * OK.len() - self.missing;
        let expected = OK.iter().cycle().skip(begin);
        if length > self.missing || !piece[..length].iter().eq(expected.take(length)) {
            let text = String::from_utf8_lossy(&piece[..length]);
            return Err(broken(format!("the answer to SET was {text:?}")));
        }
        self.missing -= length;
        match self.missing {
            0 => self.next(block),
            _ => Ok(()),
        }
    }
}

fn is_for_later(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
    )
}

/// One connection for large values.
pub(crate) struct Bulk {
    stream: TcpStream,
    value: Vec<u8>,
}

impl Bulk {
    /// Connects.
    pub(crate) fn new(address: SocketAddr) -> Result<Self, DemoError> {
        // No byte is zero: the pages that hold it are touched.
        let value = (0..VALUE_BYTES).map(|at| (at % 251) as u8 + 1).collect();
        Ok(Self {
            stream: connect(address).map_err(broken)?,
            value,
        })
    }

    /// Writes the value as `key`.
    pub(crate) fn set(&mut self, bench: &Bench, key: &str) -> Result<(), DemoError> {
        let limit = Limit::start();
        let head = format!(
            "*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${VALUE_BYTES}\r\n",
            key.len()
        );
        self.stream.write_all(head.as_bytes()).map_err(broken)?;
        self.stream.write_all(&self.value).map_err(broken)?;
        self.stream.write_all(b"\r\n").map_err(broken)?;
        let answer = self.read(bench, &limit, OK.len())?;
        match answer == OK {
            true => Ok(()),
            false => Err(broken(format!(
                "the answer to SET was {:?}",
                String::from_utf8_lossy(&answer)
            ))),
        }
    }

    /// Reads `key`, which must be the value.
    pub(crate) fn get(&mut self, bench: &Bench, key: &str) -> Result<(), DemoError> {
        let limit = Limit::start();
        let request = resp::command(&["GET", key]);
        self.stream.write_all(&request).map_err(broken)?;
        let head = format!("${VALUE_BYTES}\r\n");
        let answer = self.read(bench, &limit, head.len() + VALUE_BYTES + 2)?;
        let value = answer.strip_prefix(head.as_bytes());
        match value.and_then(|rest| rest.strip_suffix(b"\r\n")) == Some(&self.value) {
            true => Ok(()),
            false => Err(broken("the answer to GET was another value")),
        }
    }

    /// Reads exactly that many bytes.
    fn read(&mut self, bench: &Bench, limit: &Limit, length: usize) -> Result<Vec<u8>, DemoError> {
        let mut answer = vec![0; length];
        let mut have = 0;
        while have < length {
            limit.check(bench)?;
            match self.stream.read(&mut answer[have..]) {
                Ok(0) => return Err(broken("the connection was closed")),
                Ok(more) => have += more,
                Err(error) if is_for_later(&error) => {}
                Err(error) => return Err(broken(error)),
            }
        }
        Ok(answer)
    }
}

#[cfg(test)]
mod tests;
