//! How fast a recording's log grows: under an idle guest, a busy one, and one that serves.

use std::time::{Duration, Instant};

use super::guests::{Guest, Kind};
use super::redis::{Client, WARM_UP};
use super::report::{Row, Section};
use super::{Bench, say};
use crate::demo::error::DemoError;

/// After the boot the guest still has things to do.
const SETTLE: Duration = Duration::from_secs(10);
/// How long each load is measured; it is cut into as many windows as there are runs.
const MEASURED: Duration = Duration::from_secs(20);
/// Round trips between two looks at the clock.
const TURN: usize = 50;
/// Typed at the guest's shell.
const BUSY: &str = "sh -c 'while :; do :; done' &\n";
const MOST_IDLE_MBIT_S: f64 = 0.05;
const MOST_BUSY_MBIT_S: f64 = 0.1;
const LOG: &str = "log";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Load {
    Idle,
    Redis,
    Busy,
}

/// Measures one guest under one load after the other. The busy one comes last: it never ends.
pub(crate) fn measure(bench: &Bench) -> Result<Section, DemoError> {
    say("log        a guest boots");
    let mut guest = Guest::start(bench, Kind::Record)?;
    guest.await_pong(bench)?;
    let loads = [
        (Load::Idle, "idle"),
        (Load::Redis, "INCR on one connection"),
        (Load::Busy, "CPU-bound (a shell's loop)"),
    ];
    let mut rows = Vec::new();
    for (load, name) in loads {
        if load == Load::Busy {
            guest.type_line(BUSY)?;
        }
        bench.sleep_until(Instant::now() + SETTLE)?;
        say(&format!("log        {name}: {} s", MEASURED.as_secs()));
        rows.push(watch(bench, &mut guest, load, name)?);
    }
    guest.finish()?;
    let bars = [
        rows[0].bar(LOG, MOST_IDLE_MBIT_S),
        rows[2].bar(LOG, MOST_BUSY_MBIT_S),
    ];
    Ok(Section {
        name: "log".to_owned(),
        title: "how fast the log of twinvm run --record grows".to_owned(),
        rows,
        bars: bars.into_iter().flatten().collect(),
        notes: vec![format!(
            "{} s of each, cut into equal windows. Bytes of the log's file: records, batches and \
             their checksums.",
            MEASURED.as_secs()
        )],
        compared: Vec::new(),
    })
}

fn watch(bench: &Bench, guest: &mut Guest, load: Load, name: &str) -> Result<Row, DemoError> {
    let mut row = Row::new(name);
    let mut client = None;
    if load == Load::Redis {
        let mut new = Client::new(guest.address(), "twinvm run --record")?;
        new.turn(bench, WARM_UP)?;
        client = Some(new);
    }
    let (mut last, mut last_bytes) = (Instant::now(), guest.log_bytes()?);
    for _ in 0..bench.runs {
        let end = last + MEASURED / bench.runs;
        let mut requests = 0;
        if let Some(client) = &mut client {
            while Instant::now() < end {
                requests += client.turn(bench, TURN)?.len();
            }
        }
        bench.sleep_until(end)?;
        guest.check()?;
        let (now, bytes) = (Instant::now(), guest.log_bytes()?);
        let grown = bytes.saturating_sub(last_bytes) as f64;
        let seconds = (now - last).as_secs_f64();
        row.sample(LOG, "Mbit/s", grown * 8.0 / seconds / 1e6);
        row.sample("bytes", "1/s", grown / seconds);
        if requests > 0 {
            row.sample("bytes of a request", "", grown / requests as f64);
        }
        (last, last_bytes) = (now, bytes);
    }
    Ok(row)
}
