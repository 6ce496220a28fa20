//! The arbiter behind `twinvm arbiter serve`.
//!
//! One connection, made when there is something to ask and made again when it is gone. A
//! request whose connection breaks is sent once more on a fresh one while there is time: a
//! second copy changes nothing (see [`twinvm_protocol::ArbiterContract`]). No answer in time is
//! [`Outcome::Unknown`].

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use twinvm_protocol::arbiter::wire::{
    Answer, Ask, Request, Told, VmName, decode_answer, encode_request,
};
use twinvm_protocol::{ArbiterContract, Generation, Outcome, Record};

use super::CALL_LIMIT;
use super::guard::{Guard, one_line};
use super::stream::{self, Stream, left};
use crate::arbiter_worker::ArbiterBackend;
use crate::tls::Credentials;

/// Answers to earlier requests that are passed over while one is awaited.
const MAX_STALE_ANSWERS: usize = 16;

/// The arbiter behind a server. Calls block for at most 2.4 s.
pub struct TcpArbiter {
    /// Of one server; the first that answers.
    addresses: Vec<SocketAddr>,
    vm: VmName,
    keys: Option<Credentials>,
    stream: Option<Box<dyn Stream>>,
    number: u64,
    guard: Guard,
    trouble: Option<String>,
}

impl TcpArbiter {
    /// The register of `vm` on the server with these addresses, reached by TLS if there are
    /// `keys`. Nothing is asked yet.
    pub fn new(addresses: Vec<SocketAddr>, vm: VmName, keys: Option<Credentials>) -> TcpArbiter {
        TcpArbiter {
            addresses,
            vm,
            keys,
            stream: None,
            number: 0,
            guard: Guard::default(),
            trouble: None,
        }
    }

    fn dial(&self, until: Instant) -> io::Result<Box<dyn Stream>> {
        let mut failed = io::Error::new(io::ErrorKind::AddrNotAvailable, "no address");
        for address in &self.addresses {
            match stream::dial(*address, self.keys.as_ref(), until) {
                Ok(stream) => return Ok(stream),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    fn exchange(
        stream: &mut dyn Stream,
        number: u64,
        frame: &[u8],
        until: Instant,
    ) -> io::Result<Told> {
        stream::write_all(stream, frame, until)?;
        for _ in 0..MAX_STALE_ANSWERS {
            let body = stream::read_frame(stream, until, left(until)?)?;
            let answer = decode_answer(&body)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            match answer {
                Answer { number: n, told } if n == number => return Ok(told),
                _ => {}
            }
        }
        Err(io::Error::other("it answers what was not asked"))
    }

    fn ask(&mut self, ask: Ask) -> io::Result<Told> {
        let until = Instant::now() + CALL_LIMIT;
        self.number += 1;
        let frame = encode_request(&Request {
            number: self.number,
            vm: self.vm.clone(),
            ask,
        });
        loop {
            let (mut stream, fresh) = match self.stream.take() {
                Some(stream) => (stream, false),
                None => (self.dial(until)?, true),
            };
            match Self::exchange(&mut *stream, self.number, &frame, until) {
                Ok(told) => {
                    self.stream = Some(stream);
                    return Ok(told);
                }
                // The server may have closed it long ago, or be another process by now.
                Err(_) if !fresh && left(until).is_ok() => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn answer(
        &mut self,
        ask: Ask,
        judge: impl FnOnce(&mut Guard, Told) -> Result<Outcome, String>,
    ) -> Outcome {
        let result = match self.ask(ask) {
            Ok(told) => judge(&mut self.guard, told),
            Err(error) => Err(match error.kind() {
                io::ErrorKind::UnexpectedEof => {
                    "closed the connection: if it has --keys, VM.toml needs [tls]".to_owned()
                }
                // An alert of TLS, say.
                io::ErrorKind::InvalidData => {
                    format!(
                        "says what no arbiter says ({error}): if it has --keys, VM.toml needs [tls]"
                    )
                }
                io::ErrorKind::ConnectionRefused => {
                    "nobody listens there: start twinvm arbiter serve".to_owned()
                }
                _ => error.to_string(),
            }),
        };
        result.unwrap_or_else(|why| {
            let server = self.addresses.first().map(SocketAddr::to_string);
            let server = server.unwrap_or_default();
            self.trouble = Some(format!("arbiter tcp:{server}: {}", one_line(&why)));
            Outcome::Unknown
        })
    }
}

/// An answer that no sound server gives.
fn unfit(told: &Told) -> String {
    match told {
        Told::Failed(text) => text.clone(),
        other => format!("answers what was not asked: {other:?}"),
    }
}

impl ArbiterContract for TcpArbiter {
    fn read(&mut self) -> Outcome {
        self.answer(Ask::Read, |guard, told| match told {
            Told::Read(record) => guard.read(record),
            other => Err(unfit(&other)),
        })
    }

    fn cas(&mut self, expect: Generation, record: Record) -> Outcome {
        let ask = Ask::Cas { expect, record };
        self.answer(ask, |guard, told| match told {
            Told::Won(now) => guard.won(expect, &record, &now),
            Told::Lost(now) => guard.lost(now),
            other => Err(unfit(&other)),
        })
    }
}

impl ArbiterBackend for TcpArbiter {
    fn take_trouble(&mut self) -> Option<String> {
        self.trouble.take()
    }
}
