//! Takeovers: how long clients wait when the live node's process is killed, when its host falls
//! silent, and when it is asked to hand the VM over. Two nodes and an arbiter on hosts of their own
//! (network namespaces), TLS between them, the guest's Redis on TAP under several clients.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::Signal;

use super::report::{Bar, Row, Section};
use super::{Bench, netns, say};
use crate::demo::error::DemoError;
use crate::demo::rng::Rng;
use crate::demo::status::{Status, Takeover};
use crate::demo::timeline::percentile;
use crate::lab::LabError;
use crate::lab::clients::{Clients, Load};
use crate::lab::history::Verdict;
use crate::lab::pair::{NAMES, Pair, Parts, READY, REDIS};
use twinvm_host::ctl_socket::{self, CtlRequest};
use twinvm_protocol::OutputFrom;

const NAME: &str = "takeover";
const TITLE: &str = "what clients wait when the live node goes, or is asked to, over TAP";
/// As VM.toml has it when it says nothing.
const SUSPECT_MS: u64 = 300;
const CLIENTS: u16 = 4;
/// A takeover comes at a random moment between these, counted from protection.
const AFTER: (Duration, Duration) = (Duration::from_millis(200), Duration::from_millis(1000));
/// Answers of each client after a takeover that show that it goes on.
const FLOWING: usize = 3;
/// For everything that takes seconds at most.
const LIMIT: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(20);

/// The columns that bars are about.
const EACH: &str = "client's pause";
const PAUSE: &str = "longest of all clients'";
const GUEST: &str = "guest's pause";

impl From<LabError> for DemoError {
    fn from(error: LabError) -> Self {
        Self::failed(error.to_string())
    }
}

/// How the live node goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Killed,
    Silent,
    /// `twinvm ctl takeover`.
    Planned,
}

/// Measures in namespaces of its own, or says why it can't.
pub(crate) fn measure(bench: &Bench) -> Result<Vec<Section>, DemoError> {
    if bench.in_namespace {
        return Ok(vec![inside(bench)?]);
    }
    say("takeover   on hosts that are network namespaces");
    let [kills, silences, planned, seed] = [
        u64::from(bench.kills),
        u64::from(bench.silences),
        u64::from(bench.planned),
        bench.seed,
    ]
    .map(|number| number.to_string());
    let words = [
        NAME,
        "--kills",
        &kills,
        "--silences",
        &silences,
        "--planned",
        &planned,
        "--seed",
        &seed,
    ];
    match netns::bench_on_hosts(bench, &words)? {
        Ok(sections) => Ok(sections),
        Err(why) => {
            say(&format!("takeover   not measured: {why}"));
            Ok(vec![Section::skipped(NAME, TITLE, &why)])
        }
    }
}

/// A pair on hosts of its own, nothing of it running yet: with so much memory, so long a line between
/// the nodes, and each of them on a core of its own or not.
pub(super) fn lab(
    bench: &Bench,
    memory: &str,
    (delay, output): (Duration, OutputFrom),
    pinned: bool,
) -> Result<Pair, DemoError> {
    let dir = bench.dir.join("lab");
    match std::fs::remove_dir_all(&dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(DemoError::io(&dir)(error));
        }
        _ => std::fs::create_dir_all(&dir).map_err(DemoError::io(&dir))?,
    }
    let image = bench.image()?;
    let absolute = |path: &std::path::Path| path.canonicalize().map_err(DemoError::io(path));
    let pair = Pair::new(Parts {
        program: bench.program.clone(),
        dir,
        kernel: absolute(&image.kernel)?,
        initrd: absolute(&image.initrd)?,
        cmdline: image.cmdline.clone(),
        memory: memory.to_owned(),
        disk: None,
        ready: READY,
        delay,
        output,
        pinned,
        suspect_ms: SUSPECT_MS,
    })?;
    Ok(pair)
}

fn inside(bench: &Bench) -> Result<Section, DemoError> {
    netns::end_with_parent()?;
    let mut pair = lab(bench, "256M", (Duration::ZERO, OutputFrom::Live), false)?;
    pair.bring_up(LIMIT)?;
    let clients = Clients::start(&Load {
        address: REDIS,
        clients: CLIENTS,
        think: Duration::ZERO,
        seed: bench.seed,
    })?;
    let mut run = Run {
        bench,
        pair,
        clients,
        rng: Rng::new(bench.seed),
        began: Instant::now(),
    };
    let mut rows = Vec::new();
    for (how, name, count) in [
        (How::Killed, "process killed", bench.kills),
        (How::Silent, "host silent", bench.silences),
        (How::Planned, "planned", bench.planned),
    ] {
        let mut row = Row::new(name);
        for number in 1..=count {
            run.one(how, &mut row, (number, count))?;
        }
        if count > 0 {
            rows.push(row);
        }
    }
    let Run {
        pair,
        clients,
        began,
        ..
    } = run;
    let seen = clients.finish(REDIS)?;
    drop(pair);
    let verdict = seen.verdict();
    if verdict != Verdict::Linearizable || !seen.lost.is_empty() {
        return Err(DemoError::Client(format!("{verdict}; {:?}", seen.lost)));
    }
    let bars = rows.iter().flat_map(bars).collect();
    let mut notes: Vec<String> = rows.iter().flat_map(spread).collect();
    notes.push(format!(
        "{} answers to {CLIENTS} clients in {:.0} s, each on one connection that no takeover \
         ended; their history (GET, SET, INCR, compare-and-set on shared keys) is linearizable.",
        seen.answers(),
        began.elapsed().as_secs_f64()
    ));
    notes.push(format!(
        "suspect_ms {SUSPECT_MS}, seed {}; each client asks when its last question is answered; a \
         takeover {} to {} ms after protection. Host silent: SIGSTOP for the whole process, which \
         later joins again. Planned: as `twinvm ctl takeover` asks; what is lost would be \
         missing in the history.",
        bench.seed,
        AFTER.0.as_millis(),
        AFTER.1.as_millis()
    ));
    Ok(Section {
        name: NAME.to_owned(),
        title: TITLE.to_owned(),
        rows,
        bars,
        notes,
        compared: Vec::new(),
    })
}

/// The measurement under way.
struct Run<'a> {
    bench: &'a Bench,
    pair: Pair,
    clients: Clients,
    rng: Rng,
    began: Instant,
}

impl Run<'_> {
    /// One takeover, from protection to protection.
    fn one(
        &mut self,
        how: How,
        row: &mut Row,
        (number, count): (u32, u32),
    ) -> Result<(), DemoError> {
        let live = self.pair.await_protected(LIMIT)?;
        let other = 1 - live;
        let moment = self.rng.between(AFTER.0, AFTER.1);
        self.bench.sleep_until(Instant::now() + moment)?;
        let (from_ns, wall_ms) = (self.clients.now_ns(), wall_ms());
        match how {
            How::Killed => self.pair.kill(live),
            How::Silent => {
                self.pair.silent = Some(live);
                self.pair.signal(live, Signal::STOP)?;
            }
            How::Planned => hand_over(&self.pair, live)?,
        }
        // Until clients have their answers nobody is asked anything: it would take time from the
        // pause that is measured.
        self.flow(from_ns)?;
        let waits = self.clients.longest_waits(from_ns, self.clients.now_ns());
        let takeover = self.takeover(other, wall_ms)?;
        match how {
            How::Killed => self.pair.start_node(live)?,
            How::Silent => {
                self.pair.signal(live, Signal::CONT)?;
                self.pair.silent = None;
            }
            // It joins again by itself.
            How::Planned => {}
        }
        let back = Instant::now();
        // One that was stopped doesn't know yet that it has lost.
        let what = format!("node {} is live and protected", NAMES[other]);
        self.pair.wait_for(&what, LIMIT, |pair| {
            Ok((pair.protected() == Some(other)).then_some(()))
        })?;
        let protected_ms = back.elapsed().as_secs_f64() * 1000.0;

        let waits: Vec<f64> = waits.iter().map(|wait| wait.as_secs_f64() * 1e3).collect();
        let longest = waits.iter().copied().fold(0.0, f64::max);
        waits.iter().for_each(|wait| row.sample(EACH, "ms", *wait));
        row.sample(PAUSE, "ms", longest);
        let parts = [
            ("detect", takeover.detect_ms),
            ("drain", takeover.drain_ms),
            ("arbitrate", takeover.arbitrate_ms),
            ("announce", takeover.announce_ms),
        ];
        for (name, ms) in parts {
            row.sample(name, "ms", ms.unwrap_or(f64::NAN));
        }
        let guest = parts[..3].iter().filter_map(|(_, ms)| *ms).sum();
        row.sample(GUEST, "ms", guest);
        row.sample("protected again", "ms", protected_ms);
        say(&format!(
            "{NAME}   {:>3}/{count:<4}{}: clients waited {longest:.0} ms ({}), protected after \
             {protected_ms:.0} ms",
            number,
            row.name,
            takeover.parts()
        ));
        Ok(())
    }

    /// Waits until every client has got answers to questions from after `from_ns`.
    fn flow(&mut self, from_ns: u64) -> Result<(), DemoError> {
        let until = Instant::now() + LIMIT;
        loop {
            self.bench.check()?;
            let answered = self.clients.answered_since(from_ns);
            if answered.iter().all(|n| *n >= FLOWING) {
                return Ok(());
            }
            if Instant::now() > until {
                let logs = self.pair.logs();
                return Err(DemoError::failed(format!("clients don't go on\n{logs}")));
            }
            std::thread::sleep(LOOK);
        }
    }

    /// What the node that took over says of it.
    fn takeover(&mut self, node: usize, wall_ms: f64) -> Result<Takeover, DemoError> {
        let what = format!("node {} says how it took over", NAMES[node]);
        let takeover = self.pair.wait_for(&what, LIMIT, |pair| {
            let Ok(status) = pair.status(node) else {
                return Ok(None);
            };
            let status = Status::parse(&status.to_string()).map_err(LabError)?;
            let is_new = |it: &Takeover| it.at_unix_ms.is_some_and(|at| at >= wall_ms.floor());
            Ok(status.last_takeover.filter(is_new))
        });
        Ok(takeover?)
    }
}

/// Asks the live node to hand the VM over, as `twinvm ctl takeover` does; it has begun when this
/// returns.
fn hand_over(pair: &Pair, live: usize) -> Result<(), DemoError> {
    let socket = pair.state(live).join("ctl.sock");
    let asked = ctl_socket::request(&socket, &CtlRequest::Takeover {});
    let why = |error| DemoError::failed(format!("node {}: {error}", NAMES[live]));
    asked.map(drop).map_err(why)
}

fn wall_ms() -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0.0, |now| now.as_secs_f64() * 1000.0)
}

/// What the pauses may be.
fn bars(row: &Row) -> Vec<Bar> {
    let wanted: &[(&str, f64, f64)] = match row.name.as_str() {
        "process killed" => &[
            (EACH, 50.0, 100.0),
            (EACH, 99.0, 250.0),
            (GUEST, 99.0, 60.0),
        ],
        "planned" => &[(EACH, 99.0, 50.0)],
        _ => &[(EACH, 99.0, 700.0)],
    };
    let bar = |(quantity, percent, most): &(&str, f64, f64)| {
        Some(Bar {
            what: format!("{}: p{percent} of {quantity}", row.name),
            value: percentile(row.samples(quantity), *percent)?,
            most: *most,
            unit: "ms".to_owned(),
        })
    };
    wanted.iter().filter_map(bar).collect()
}

/// More of the distributions than a table's cell has.
fn spread(row: &Row) -> Option<String> {
    let parts = [EACH, PAUSE, GUEST, "protected again"].map(|quantity| {
        let at = |percent| percentile(row.samples(quantity), percent).unwrap_or(f64::NAN);
        let [p50, p90, p99] = [50.0, 90.0, 99.0].map(at);
        format!("{quantity} p50 {p50:.1}, p90 {p90:.1}, p99 {p99:.1} ms")
    });
    let n = row.samples(PAUSE).len();
    Some(format!("{} ({n} times): {}.", row.name, parts.join("; ")))
}
