//! The way of an answer from place to place: what a request, the output that answers it and the
//! ack that lets it go spend on each hop, by marks that both nodes note with one clock.

mod way;

use std::fs;
use std::process::{Child, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use twinvm_host::marks::MARKS_LOG;
use twinvm_protocol::OutputFrom;

use self::way::{HOPS, Way, read};
use crate::bench::redis::{Client, Span, WARM_UP};
use crate::bench::report::{Row, Section};
use crate::bench::stats::Summary;
use crate::bench::{Bench, netns, say, takeover};
use crate::demo::error::DemoError;
use crate::lab::LabError;
use crate::lab::pair::{NAMES, Pair, REDIS};

const NAME: &str = "hops";
const TITLE: &str = "the way of an answer, hop by hop";
const MEMORY: &str = "256M";
/// Answers of a turn.
const REQUESTS: usize = 2000;
const LIMIT: Duration = Duration::from_secs(120);

/// The columns: what the backup's core has to do beside the backup; and no backup.
const SITUATIONS: [&str; 3] = ["protected", "busy backup", "alone"];
const BUSY: usize = 1;
const ALONE: usize = 2;

/// The rows that are no hops.
const WAITS: &str = "the output waits (sending to out)";
const WRITTEN: &str = "of the batch: encoded, encrypted, written";
const P50: &str = "the client's round trip, p50";
const P90: &str = "its p90";

/// Measures in namespaces of its own, or says why it can't.
pub(in crate::bench) fn measure(bench: &Bench) -> Result<Vec<Section>, DemoError> {
    netns::section_on_hosts(bench, (NAME, TITLE), inside)
}

/// A process that never sleeps, on one core.
struct Spinner(Child);

impl Spinner {
    fn start(pair: &Pair, node: usize) -> Result<Self, DemoError> {
        let mut command = pair.hosts.hosts[node].command("taskset");
        command.args(["-c", &node.to_string(), "sh", "-c", "while :; do :; done"]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        let child = child.map_err(|error| DemoError::failed(format!("taskset: {error}")))?;
        Ok(Self(child))
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn inside(bench: &Bench) -> Result<Section, DemoError> {
    say("hops       a pair boots");
    let none = (Duration::ZERO, OutputFrom::Live);
    let mut pair = takeover::lab(bench, MEMORY, none, true)?;
    pair.marks = true;
    let live = pair.bring_up(LIMIT)?;
    let mut client = Client::new(REDIS, NAME)?;
    client.turn(bench, WARM_UP)?;
    let mut turns = Vec::new();
    for round in 0..bench.runs as usize {
        for step in 0..ALONE {
            let at = (round + step) % ALONE;
            let spinner = match at {
                BUSY => Some(Spinner::start(&pair, 1 - live)?),
                _ => None,
            };
            turns.push((at, turn(bench, &mut client, round, at)?));
            drop(spinner);
        }
    }
    super::still_protected(&pair, live)?;
    let of_backup = end(&mut pair, 1 - live)?;
    pair.wait_for("the live node is alone", LIMIT, |pair| {
        let status = pair.status(live);
        Ok(status
            .is_ok_and(|status| status["link"] == "solo")
            .then_some(()))
    })?;
    for round in 0..bench.runs as usize {
        turns.push((ALONE, turn(bench, &mut client, round, ALONE)?));
    }
    drop(client);
    let of_live = end(&mut pair, live)?;
    let way = Way::new(&read(&of_live)?, &read(&of_backup)?);
    let mut rows: Vec<Row> = HOPS.into_iter().map(Row::new).collect();
    let mut found = [(0, 0); SITUATIONS.len()];
    for (at, spans) in &turns {
        let (complete, all) = take(&way, spans, *at, &mut rows);
        found[*at].0 += complete;
        found[*at].1 += all;
    }
    let found = SITUATIONS.iter().zip(found);
    let found: Vec<String> = found
        .map(|(name, (complete, all))| format!("{name} {complete} of {all}"))
        .collect();
    Ok(Section {
        name: NAME.to_owned(),
        title: TITLE.to_owned(),
        rows,
        bars: Vec::new(),
        notes: vec![
            format!(
                "Medians of a turn of {REQUESTS} INCR on one connection, in turns. TLS on the channel, \
                 the guest on TAP, each node on a core of its own, which the client's host and the \
                 switch share. Busy backup: a process that never sleeps shares the backup's core. \
                 Alone: after all others, the backup gone; the guest's hop ends with its packet. Marks \
                 cost some microseconds of the whole."
            ),
            format!(
                "Hops are of the answers whose marks were all found: {}. Medians of hops don't add \
                 up exactly.",
                found.join(", ")
            ),
        ],
        compared: Vec::new(),
    })
}

/// One turn, warmed up.
fn turn(
    bench: &Bench,
    client: &mut Client,
    round: usize,
    at: usize,
) -> Result<Vec<Span>, DemoError> {
    client.turn(bench, WARM_UP)?;
    let spans = client.spans(bench, REQUESTS)?;
    let (round, name) = (round + 1, SITUATIONS[at]);
    say(&format!("hops {round:>5}/{:<3}{name}", bench.runs));
    Ok(spans)
}

/// Ends a node in good order; all that it has noted, of which the last is in the file only then.
fn end(pair: &mut Pair, node: usize) -> Result<String, DemoError> {
    pair.signal(node, Signal::TERM)?;
    let what = format!("node {} ends", NAMES[node]);
    pair.wait_for(&what, LIMIT, |pair| {
        let child = pair.nodes[node].as_mut();
        let ended = child.map_or(Ok(None), Child::try_wait);
        Ok(ended.map_err(LabError::of("wait"))?.map(drop))
    })?;
    let path = pair.state(node).join(MARKS_LOG);
    fs::read_to_string(&path).map_err(DemoError::io(&path))
}

/// Adds the medians of a turn to the rows; how many of its answers had all marks, and of how many.
fn take(way: &Way, spans: &[Span], at: usize, rows: &mut Vec<Row>) -> (usize, usize) {
    let column = SITUATIONS[at];
    let of = if at == ALONE { Way::of_alone } else { Way::of };
    let found: Vec<_> = spans.iter().filter_map(|span| of(way, span)).collect();
    let mut add = |name: &str, us: Option<f64>| {
        let Some(us) = us else { return };
        let at = rows.iter().position(|row| row.name == name);
        let at = at.unwrap_or_else(|| {
            rows.push(Row::new(name));
            rows.len() - 1
        });
        rows[at].sample(column, "µs", us);
    };
    for (hop, name) in HOPS.into_iter().enumerate() {
        let spent = found.iter().filter_map(|answer| answer.hops_ns[hop]);
        add(name, median(spent));
    }
    let written = found.iter().filter_map(|answer| answer.written_ns);
    add(WRITTEN, median(written));
    add(
        WAITS,
        median(found.iter().filter_map(|answer| answer.waits_ns)),
    );
    let mut whole: Vec<u64> = spans.iter().map(Span::ns).collect();
    whole.sort_unstable();
    add(P50, median(whole.iter().copied()));
    let nine = whole.get(whole.len() * 9 / 10);
    add(P90, nine.map(|ns| *ns as f64 / 1e3));
    (found.len(), spans.len())
}

/// In microseconds.
fn median(ns: impl Iterator<Item = u64>) -> Option<f64> {
    let us: Vec<f64> = ns.map(|ns| ns as f64 / 1e3).collect();
    Some(Summary::of(&us)?.median)
}
