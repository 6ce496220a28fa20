//! What protection costs: one VM alone and with its backup, in turns, and over distances. Two nodes
//! and an arbiter on hosts of their own (network namespaces), TLS between them, the guest's Redis on
//! TAP.

mod distance;
pub(crate) mod relay;
pub(crate) mod sites;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use twinvm_host::ctl_socket::{self, CtlRequest};

use super::load::{Bulk, Pipelines, VALUE_BYTES};
use super::machine::cpu_s;
use super::redis::{Client, REQUESTS, WARM_UP, take};
use super::report::{Bar, Row, Section};
use super::stats::{digits, median_interval};
use super::{Bench, netns, say, takeover};
use crate::demo::error::DemoError;
use crate::lab::pair::{NAMES, Pair, REDIS};
use twinvm_protocol::OutputFrom;

const NAME: &str = "protect";
const TITLE: &str = "a VM alone and protected, through TAP, TLS on the channel";
/// The guest's memory, and what of it its Redis fills before anything is measured.
const MEMORY: &str = "1G";
const FILL_BYTES: usize = 640 << 20;
/// For everything that takes seconds at most.
const LIMIT: Duration = Duration::from_secs(120);
/// After a change of state the nodes have other things to do.
const SETTLE: Duration = Duration::from_millis(1500);
/// How long the guest computes in a turn, about.
const COMPUTES: Duration = Duration::from_millis(2500);
/// Turns of the guest's loop that are tried first.
const FIRST_TURNS: u64 = 5_000_000;
/// Blocks of pipelined requests, and large values each way, of a turn.
const BLOCKS: usize = 120;
const VALUES: usize = 48;
const KEY: &str = "bench:value";
/// Between two looks at the lag.
const LOOK: Duration = Duration::from_millis(10);
/// The guest computes and nothing else.
const LOOP: &str = "local x=0 for i=1,ARGV[1] do x=(x*31+i)%65521 end return x";

const STEP: &str = "computing: CPU of a step";
const LOG: &str = "computing: log";
const P50: &str = "p50";
const ADDED: &str = "p50 added";
const REQUEST: &str = "CPU of a request";
const LAG: &str = "lag p50";
const JOIN: &str = "pause at a join";
const IN: &str = "in: CPU";
const OUT: &str = "out: CPU";

/// Columns that are compared, the column of ratios, and the most that one may be.
const COMPARED: [(&str, &str, f64); 4] = [
    (STEP, "step ÷ alone", 1.0 / 0.98),
    (REQUEST, "request ÷ alone", 1.05),
    (IN, "in ÷ alone", 1.0 / 0.90),
    (OUT, "out ÷ alone", 1.0 / 0.95),
];

/// Measures in namespaces of its own, or says why it can't.
pub(super) fn measure(bench: &Bench) -> Result<Vec<Section>, DemoError> {
    if bench.in_namespace {
        netns::end_with_parent()?;
        return Ok(vec![inside(bench)?, distance::measure(bench)?]);
    }
    say("protect    on hosts that are network namespaces");
    match netns::bench_on_hosts(bench, &[NAME])? {
        Ok(sections) => Ok(sections),
        Err(why) => {
            say(&format!("protect    not measured: {why}"));
            Ok(vec![Section::skipped(NAME, TITLE, &why)])
        }
    }
}

/// A pair with so much memory and so long a line between its nodes, protected; the live node.
fn start(bench: &Bench, memory: &str, delay: Duration) -> Result<(Pair, usize), DemoError> {
    let mut pair = takeover::lab(bench, memory, (delay, OutputFrom::Live), true)?;
    let live = pair.bring_up(LIMIT)?;
    Ok((pair, live))
}

/// The VM, and who asks its guest.
struct Vm<'a> {
    bench: &'a Bench,
    pair: Pair,
    live: usize,
    client: Client,
    pipelines: Pipelines,
    bulk: Bulk,
    /// Turns of the guest's loop.
    turns: u64,
}

fn inside(bench: &Bench) -> Result<Section, DemoError> {
    say("protect    a guest boots");
    let (pair, live) = start(bench, MEMORY, Duration::ZERO)?;
    let mut vm = Vm {
        bench,
        pair,
        live,
        client: Client::new(REDIS, NAME)?,
        pipelines: Pipelines::new(REDIS)?,
        bulk: Bulk::new(REDIS)?,
        turns: FIRST_TURNS,
    };
    vm.warm_up()?;
    let mut rows = ["alone", "protected"].map(Row::new);
    for round in 0..bench.runs {
        for step in 0..2 {
            let protected = (round + step) % 2 == 1;
            let row = &mut rows[usize::from(protected)];
            vm.become_(protected, row)?;
            vm.turn(protected, row)?;
            let (round, name) = (round + 1, &row.name);
            say(&format!("protect {round:>2}/{:<3}{name}", bench.runs));
        }
    }
    drop(vm);
    let [alone, protected] = &mut rows;
    for (quantity, name, _) in COMPARED {
        protected.compare(quantity, name, alone);
    }
    let pairs = protected.samples(P50).iter().zip(alone.samples(P50));
    let added: Vec<f64> = pairs
        .map(|(with, without)| (with - without) * 1e3)
        .collect();
    for us in added {
        protected.sample(ADDED, "µs", us);
    }
    Ok(Section {
        name: NAME.to_owned(),
        title: TITLE.to_owned(),
        bars: bars(protected),
        notes: notes(protected),
        rows: rows.into(),
        compared: Vec::new(),
    })
}

fn bars(protected: &Row) -> Vec<Bar> {
    let ratios = COMPARED.map(|(_, name, most)| (name, most));
    let others = [(LOG, 0.1), (ADDED, 150.0), (LAG, 20.0), (JOIN, 5.0)];
    let all = ratios.into_iter().chain(others);
    all.filter_map(|(quantity, most)| protected.bar(quantity, most))
        .collect()
}

fn notes(protected: &Row) -> Vec<String> {
    let mut notes = vec![format!(
        "One VM of {MEMORY} with {} MiB of values in its Redis; its backup is killed and started \
         again between the turns, whose order alternates. CPU: of the live node's process, all \
         threads. computing: a loop in Redis's Lua. Round trips: {REQUESTS} INCR on one connection. \
         A request: SET, 50 connections with 16 under way on each. in, out: SET and GET of {} MiB. \
         Lag: every {} ms during the pipelined requests. Each node is kept on a core; clients and \
         the arbiter share both.",
        FILL_BYTES >> 20,
        VALUE_BYTES >> 20,
        LOOK.as_millis()
    )];
    let ratios = COMPARED.map(|(_, name, _)| name);
    notes.extend(ratios.into_iter().chain([ADDED]).filter_map(|quantity| {
        let interval = median_interval(protected.samples(quantity))?;
        Some(format!(
            "{quantity}: {:.1} % confidence interval of the median, from the order of the pairs: {} \
             to {}.",
            interval.confidence * 100.0,
            digits(interval.from),
            digits(interval.to)
        ))
    }));
    notes
}

impl Vm<'_> {
    fn pid(&self) -> Result<u32, DemoError> {
        let name = NAMES[self.live];
        let pid = self.pair.pid(self.live);
        pid.ok_or_else(|| DemoError::failed(format!("node {name} doesn't run")))
    }

    /// Fills the guest's memory, and finds out how many turns of its loop take a while.
    fn warm_up(&mut self) -> Result<(), DemoError> {
        for number in 0..FILL_BYTES / VALUE_BYTES {
            self.bulk.set(self.bench, &format!("bench:fill:{number}"))?;
        }
        self.client.turn(self.bench, WARM_UP)?;
        self.pipelines.turn(self.bench, 1)?;
        self.bulk.set(self.bench, KEY)?;
        self.compute()?;
        let began = Instant::now();
        self.compute()?;
        let share = COMPUTES.as_secs_f64() / began.elapsed().as_secs_f64().max(0.01);
        self.turns = (self.turns as f64 * share) as u64;
        Ok(())
    }

    fn compute(&mut self) -> Result<(), DemoError> {
        let turns = self.turns.to_string();
        let words = ["EVAL", LOOP, "0", &turns];
        self.client.ask(self.bench, &words).map(drop)
    }

    /// Steps and log of the live node so far.
    fn counts(&self) -> Result<(f64, f64), DemoError> {
        let status = self.pair.status(self.live).map_err(DemoError::failed)?;
        let number = |name: &str| status[name].as_f64().unwrap_or_default();
        Ok((number("icount"), number("log_bytes")))
    }

    /// The VM is protected, or the live node alone, and has been for a moment.
    fn become_(&mut self, protected: bool, row: &mut Row) -> Result<(), DemoError> {
        let (live, other) = (self.live, 1 - self.live);
        if !protected {
            self.pair.kill(other);
            self.pair
                .wait_for("the live node is alone", LIMIT, |pair| {
                    let solo = pair
                        .status(live)
                        .is_ok_and(|status| status["link"] == "solo");
                    Ok(solo.then_some(()))
                })?;
        } else if self.pair.protected().is_none() {
            self.pair.start_node(other)?;
            let found = self.pair.await_protected(LIMIT)?;
            if found != live {
                return Err(DemoError::failed("the backup took over"));
            }
            let status = self.pair.status(live).map_err(DemoError::failed)?;
            if let Some(us) = status["join_pause_us"].as_f64() {
                row.sample(JOIN, "ms", us / 1e3);
            }
        }
        thread::sleep(SETTLE);
        self.bench.check()
    }

    /// All kinds of work once.
    fn turn(&mut self, protected: bool, row: &mut Row) -> Result<(), DemoError> {
        let pid = self.pid()?;
        let (began, before, (steps, log)) = (Instant::now(), cpu_s(pid)?, self.counts()?);
        self.compute()?;
        let (used, (steps_now, log_now)) = (cpu_s(pid)? - before, self.counts()?);
        row.sample(STEP, "ns", used * 1e9 / (steps_now - steps).max(1.0));
        if protected {
            let seconds = began.elapsed().as_secs_f64();
            row.sample(LOG, "Mbit/s", (log_now - log) * 8.0 / seconds / 1e6);
        }
        take(row, self.client.turn(self.bench, REQUESTS)?);
        self.pipelined(protected, row)?;
        for (cpu, rate) in [(IN, "in"), (OUT, "out")] {
            let (began, before) = (Instant::now(), cpu_s(pid)?);
            for _ in 0..VALUES {
                match rate {
                    "in" => self.bulk.set(self.bench, KEY)?,
                    _ => self.bulk.get(self.bench, KEY)?,
                }
            }
            let (seconds, used) = (began.elapsed().as_secs_f64(), cpu_s(pid)? - before);
            let bytes = (VALUES * VALUE_BYTES) as f64;
            row.sample(cpu, "s/GiB", used * f64::from(1 << 30) / bytes);
            row.sample(rate, "Gbit/s", bytes * 8.0 / seconds / 1e9);
        }
        // What was measured counts only if nothing has changed.
        let still = self.pair.protected();
        match still == protected.then_some(self.live) {
            true => Ok(()),
            false => Err(DemoError::failed(format!(
                "protected by {still:?} at the end of a turn\n{}",
                self.pair.logs()
            ))),
        }
    }

    fn pipelined(&mut self, protected: bool, row: &mut Row) -> Result<(), DemoError> {
        let pid = self.pid()?;
        let socket = self.pair.state(self.live).join("ctl.sock");
        let over = AtomicBool::new(false);
        let (began, before) = (Instant::now(), cpu_s(pid)?);
        let (requests, mut lags_ms) = thread::scope(|scope| {
            let lags = scope.spawn(|| {
                let mut lags_ms = Vec::new();
                while protected && !over.load(Ordering::Relaxed) {
                    let status = ctl_socket::request(&socket, &CtlRequest::Status {});
                    lags_ms.extend(status.ok().and_then(|status| status["lag_ms"].as_f64()));
                    thread::sleep(LOOK);
                }
                lags_ms
            });
            let requests = self.pipelines.turn(self.bench, BLOCKS);
            over.store(true, Ordering::Relaxed);
            (requests, lags.join().unwrap_or_default())
        });
        let requests = requests? as f64;
        let (seconds, used) = (began.elapsed().as_secs_f64(), cpu_s(pid)? - before);
        row.sample(REQUEST, "µs", used * 1e6 / requests);
        row.sample("requests/s", "1/s", requests / seconds);
        lags_ms.sort_by(f64::total_cmp);
        let last = lags_ms.len().saturating_sub(1);
        for (name, at) in [(LAG, last / 2), ("longest lag", last)] {
            if let Some(ms) = lags_ms.get(at) {
                row.sample(name, "ms", *ms);
            }
        }
        Ok(())
    }
}
