//! What protection costs: one VM alone, alone beside a neighbour that does the same work, and with
//! its backup, in turns; and over distances. Two nodes and an arbiter on hosts of their own (network
//! namespaces), TLS between them, the guest's Redis on TAP.

mod distance;
pub(crate) mod hops;
pub(crate) mod relay;
pub(crate) mod sites;
mod work;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use twinvm_host::ctl_socket::{self, CtlRequest};

use self::work::{Asker, NEIGHBOUR_TAP, Neighbour, VALUES, Work};
use super::load::VALUE_BYTES;
use super::machine::cpu_s;
use super::redis::{REQUESTS, WARM_UP, take};
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
/// Between two looks at the lag.
const LOOK: Duration = Duration::from_millis(10);

const STEP: &str = "computing: CPU of a step";
const LOG: &str = "computing: log";
const P50: &str = "p50";
const ADDED: &str = "p50 added";
const REQUEST: &str = "CPU of a request";
const LAG: &str = "lag p50";
const JOIN: &str = "pause at a join";
const IN: &str = "in: CPU";
const OUT: &str = "out: CPU";

/// What is compared with the VM alone, the column of ratios, and the most that one may be; and the
/// column of ratios to the VM alone beside a neighbour.
const COMPARED: [(&str, &str, f64, &str); 4] = [
    (STEP, "step ÷ alone", 1.0 / 0.98, "step ÷ beside"),
    (REQUEST, "request ÷ alone", 1.05, "request ÷ beside"),
    (IN, "in ÷ alone", 1.0 / 0.90, "in ÷ beside"),
    (OUT, "out ÷ alone", 1.0 / 0.95, "out ÷ beside"),
];

/// The rows: what surrounds the live node in a turn.
const ROWS: [&str; 3] = ["alone", "beside a neighbour", "protected"];
const BESIDE: usize = 1;
const PROTECTED: usize = 2;

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

/// What was measured counts only if this node is live and protected still.
fn still_protected(pair: &Pair, live: usize) -> Result<(), DemoError> {
    match pair.protected() == Some(live) {
        true => Ok(()),
        false => Err(DemoError::failed(format!(
            "{} is not live and protected any more\n{}",
            NAMES[live],
            pair.logs()
        ))),
    }
}

/// The VM, who asks its guest, and what is beside it.
struct Vm<'a> {
    bench: &'a Bench,
    pair: Pair,
    live: usize,
    asker: Asker,
    neighbour: Neighbour,
}

fn inside(bench: &Bench) -> Result<Section, DemoError> {
    say("protect    two guests boot");
    let (pair, live) = start(bench, MEMORY, Duration::ZERO)?;
    netns::settle(bench, &[NEIGHBOUR_TAP])?;
    let mut vm = Vm {
        neighbour: Neighbour::start(bench, live)?,
        asker: Asker::new(REDIS)?,
        bench,
        pair,
        live,
    };
    vm.asker.fill(bench, FILL_BYTES / VALUE_BYTES)?;
    vm.asker.client.turn(bench, WARM_UP)?;
    vm.asker.warm_up(bench)?;
    let mut rows = ROWS.map(Row::new);
    for round in 0..bench.runs {
        for step in 0..ROWS.len() {
            let at = match round % 2 {
                0 => step,
                _ => ROWS.len() - 1 - step,
            };
            vm.become_(at, &mut rows[at])?;
            vm.turn(at, &mut rows[at])?;
            let (round, name) = (round + 1, ROWS[at]);
            say(&format!("protect {round:>2}/{:<3}{name}", bench.runs));
        }
    }
    drop(vm);
    let [alone, beside, protected] = &mut rows;
    for (quantity, name, _, to_beside) in COMPARED {
        protected.compare(quantity, name, alone);
        beside.compare(quantity, name, alone);
        protected.compare(quantity, to_beside, beside);
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
    let ratios = COMPARED.map(|(_, name, most, _)| (name, most));
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
         the arbiter share both. Beside a neighbour: a VM that nobody protects does the same work \
         on the backup's core meanwhile, asked by clients of its own; otherwise it does nothing.",
        FILL_BYTES >> 20,
        VALUE_BYTES >> 20,
        LOOK.as_millis()
    )];
    let ratios = COMPARED.into_iter().flat_map(|(_, name, _, to)| [name, to]);
    notes.extend(ratios.chain([ADDED]).filter_map(|quantity| {
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

    /// Steps and log of the live node so far.
    fn counts(&self) -> Result<(f64, f64), DemoError> {
        let status = self.pair.status(self.live).map_err(DemoError::failed)?;
        let number = |name: &str| status[name].as_f64().unwrap_or_default();
        Ok((number("icount"), number("log_bytes")))
    }

    /// The VM is protected, or the live node alone, and has been for a moment.
    fn become_(&mut self, to: usize, row: &mut Row) -> Result<(), DemoError> {
        let (live, other) = (self.live, 1 - self.live);
        if to != PROTECTED {
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
    fn turn(&mut self, at: usize, row: &mut Row) -> Result<(), DemoError> {
        let (began, (steps, log)) = (Instant::now(), self.counts()?);
        let used = self.work(at, Work::Compute)?.cpu_s;
        let (steps_now, log_now) = self.counts()?;
        row.sample(STEP, "ns", used * 1e9 / (steps_now - steps).max(1.0));
        if at == PROTECTED {
            let seconds = began.elapsed().as_secs_f64();
            row.sample(LOG, "Mbit/s", (log_now - log) * 8.0 / seconds / 1e6);
        }
        if at != BESIDE {
            take(row, self.asker.client.turn(self.bench, REQUESTS)?);
        }
        self.pipelined(at, row)?;
        for (work, cpu, rate) in [(Work::In, IN, "in"), (Work::Out, OUT, "out")] {
            let done = self.work(at, work)?;
            let bytes = (VALUES * VALUE_BYTES) as f64;
            row.sample(cpu, "s/GiB", done.cpu_s * f64::from(1 << 30) / bytes);
            row.sample(rate, "Gbit/s", bytes * 8.0 / done.seconds / 1e9);
        }
        // What was measured counts only if nothing has changed.
        let still = self.pair.protected();
        match still == (at == PROTECTED).then_some(self.live) {
            true => Ok(()),
            false => Err(DemoError::failed(format!(
                "protected by {still:?} at the end of a turn\n{}",
                self.pair.logs()
            ))),
        }
    }

    /// One kind of work, with what is beside the live node in such a turn.
    fn work(&mut self, at: usize, work: Work) -> Result<Done, DemoError> {
        let (bench, pid, asker) = (self.bench, self.pid()?, &mut self.asker);
        let mut measured = || {
            let (began, before) = (Instant::now(), cpu_s(pid)?);
            let requests = asker.whole(bench, work)?;
            Ok(Done {
                cpu_s: cpu_s(pid)? - before,
                seconds: began.elapsed().as_secs_f64(),
                requests,
            })
        };
        match at {
            BESIDE => self.neighbour.beside(bench, work, measured),
            _ => measured(),
        }
    }

    fn pipelined(&mut self, at: usize, row: &mut Row) -> Result<(), DemoError> {
        let socket = self.pair.state(self.live).join("ctl.sock");
        let over = AtomicBool::new(false);
        let (done, mut lags_ms) = thread::scope(|scope| {
            let lags = scope.spawn(|| {
                let mut lags_ms = Vec::new();
                while at == PROTECTED && !over.load(Ordering::Relaxed) {
                    let status = ctl_socket::request(&socket, &CtlRequest::Status {});
                    lags_ms.extend(status.ok().and_then(|status| status["lag_ms"].as_f64()));
                    thread::sleep(LOOK);
                }
                lags_ms
            });
            let done = self.work(at, Work::Pipelined);
            over.store(true, Ordering::Relaxed);
            (done, lags.join().unwrap_or_default())
        });
        let done = done?;
        let requests = done.requests as f64;
        row.sample(REQUEST, "µs", done.cpu_s * 1e6 / requests);
        row.sample("requests/s", "1/s", requests / done.seconds);
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

/// What a turn's work of one kind took.
struct Done {
    /// Of the live node's process.
    cpu_s: f64,
    seconds: f64,
    requests: usize,
}
