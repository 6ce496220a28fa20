//! Round trips to the guest's Redis: one connection, one request at a time.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::guests::{Guest, Kind};
use super::pair::Pair;
use super::report::{Row, Section};
use super::stats::percentile;
use super::{Bench, say};
use crate::demo::client::{connect, fill};
use crate::demo::error::DemoError;
use crate::demo::resp::{self, Reply};
use twinvm_host::time::mono_ns;

/// Round trips of each turn.
pub(crate) const REQUESTS: usize = 1000;
/// Round trips before the first that counts: connections, caches, branch predictors.
pub(crate) const WARM_UP: usize = 100;
/// How long a turn may take at most.
const TURN_LIMIT: Duration = Duration::from_secs(60);
/// The counter's key.
const KEY: &str = "bench:count";

/// Measures QEMU, a VM alone and a protected pair, in turns. All of them run meanwhile: idle
/// guests cost little.
pub(crate) fn measure(bench: &Bench) -> Result<Section, DemoError> {
    say("redis      three guests boot");
    let mut qemu = Guest::start(bench, Kind::Qemu)?;
    qemu.await_pong(bench)?;
    let mut run = Guest::start(bench, Kind::Run)?;
    run.await_pong(bench)?;
    let mut pair = Pair::start(bench)?;
    let names = ["QEMU, user network", "twinvm run", "twinvm node, protected"];
    let mut rows = names.map(Row::new);
    let mut clients = Vec::new();
    for (address, name) in [qemu.address(), run.address(), pair.address()]
        .into_iter()
        .zip(names)
    {
        let mut client = Client::new(address, name)?;
        client.turn(bench, WARM_UP)?;
        clients.push(client);
    }
    for round in 0..bench.runs {
        for turn in 0..clients.len() {
            let index = (round as usize + turn) % clients.len();
            let times_us = clients[index].turn(bench, REQUESTS)?;
            say(&format!(
                "redis {:>2}/{:<3}{}",
                round + 1,
                bench.runs,
                names[index]
            ));
            take(&mut rows[index], times_us);
        }
        qemu.check()?;
        run.check()?;
        pair.status()?;
    }
    drop(clients);
    pair.stop();
    run.finish()?;
    qemu.finish()?;
    Ok(Section {
        name: "redis".to_owned(),
        title: "round trips of INCR on one connection".to_owned(),
        rows: rows.into(),
        bars: Vec::new(),
        notes: vec![format!(
            "{REQUESTS} round trips a turn, in turns, from a client on this host; the number of \
             samples is that of the turns. QEMU's network is in its process; ours goes through \
             `twinvm lan`, and both nodes share this host's cores."
        )],
        compared: Vec::new(),
    })
}

/// Adds one turn's round trips to a row.
pub(crate) fn take(row: &mut Row, times_us: Vec<u32>) {
    let mut sorted = times_us.clone();
    sorted.sort_unstable();
    let ms = |us: u32| f64::from(us) / 1000.0;
    for (name, percent) in [("p50", 50), ("p99", 99)] {
        if let Some(us) = percentile(&sorted, percent) {
            row.sample(name, "ms", ms(us));
        }
    }
    let sum_us: u64 = sorted.iter().copied().map(u64::from).sum();
    if sum_us > 0 {
        row.sample(
            "requests",
            "1/s",
            sorted.len() as f64 / (sum_us as f64 / 1e6),
        );
    }
    row.round_trips_us.push(times_us);
}

/// From a request to its answer, by `CLOCK_MONOTONIC`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    pub(crate) from_ns: u64,
    pub(crate) to_ns: u64,
}

impl Span {
    /// How long.
    pub(crate) fn ns(&self) -> u64 {
        self.to_ns.saturating_sub(self.from_ns)
    }
}

/// One connection that counts.
pub(crate) struct Client {
    name: &'static str,
    stream: TcpStream,
    buffer: Vec<u8>,
    count: i64,
}

impl Client {
    /// Connects; `name` is for messages.
    pub(crate) fn new(address: SocketAddr, name: &'static str) -> Result<Self, DemoError> {
        let stream = connect(address)
            .map_err(|error| DemoError::failed(format!("{name}: connecting: {error}")))?;
        Ok(Self {
            name,
            stream,
            buffer: Vec::new(),
            count: 0,
        })
    }

    /// Sends requests one after the other; the round trips in microseconds.
    pub(crate) fn turn(&mut self, bench: &Bench, requests: usize) -> Result<Vec<u32>, DemoError> {
        let spans = self.spans(bench, requests)?;
        let us = |span: &Span| u32::try_from(span.ns() / 1000).unwrap_or(u32::MAX);
        Ok(spans.iter().map(us).collect())
    }

    /// The same; when each request was sent and answered.
    pub(crate) fn spans(&mut self, bench: &Bench, requests: usize) -> Result<Vec<Span>, DemoError> {
        let deadline = Instant::now() + TURN_LIMIT;
        let request = resp::command(&["INCR", KEY]);
        let mut spans = Vec::with_capacity(requests);
        for _ in 0..requests {
            let from_ns = mono_ns();
            let broken =
                |error: std::io::Error| DemoError::failed(format!("{}: {error}", self.name));
            self.stream.write_all(&request).map_err(broken)?;
            self.answer(bench, deadline)?;
            let to_ns = mono_ns();
            spans.push(Span { from_ns, to_ns });
        }
        Ok(spans)
    }

    /// Begins to count anew, whoever has counted before.
    pub(crate) fn forget(&mut self, bench: &Bench) -> Result<(), DemoError> {
        self.count = 0;
        self.ask(bench, &["DEL", KEY]).map(drop)
    }

    /// Sends any other request; its answer.
    pub(crate) fn ask(&mut self, bench: &Bench, words: &[&str]) -> Result<Reply, DemoError> {
        let broken = |error: std::io::Error| DemoError::failed(format!("{}: {error}", self.name));
        self.stream
            .write_all(&resp::command(words))
            .map_err(broken)?;
        self.reply(bench, Instant::now() + TURN_LIMIT)
    }

    /// Waits for the answer, which must be the next number.
    fn answer(&mut self, bench: &Bench, deadline: Instant) -> Result<(), DemoError> {
        let reply = self.reply(bench, deadline)?;
        self.count += 1;
        match reply {
            Reply::Integer(number) if number == self.count => Ok(()),
            other => Err(DemoError::failed(format!(
                "{}: the answer to INCR was {other:?}, expected {}",
                self.name, self.count
            ))),
        }
    }

    /// Waits for an answer.
    fn reply(&mut self, bench: &Bench, deadline: Instant) -> Result<Reply, DemoError> {
        let failed = |why: String| DemoError::failed(format!("{}: {why}", self.name));
        loop {
            if let Some((reply, length)) = resp::parse(&self.buffer).map_err(failed)? {
                self.buffer.drain(..length);
                return Ok(reply);
            }
            bench.check()?;
            if Instant::now() >= deadline {
                let limit = TURN_LIMIT.as_secs();
                return Err(failed(format!("a turn took longer than {limit} s")));
            }
            fill(&mut self.stream, &mut self.buffer).map_err(|error| failed(error.to_string()))?;
        }
    }
}
