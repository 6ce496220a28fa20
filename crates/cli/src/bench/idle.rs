//! What a guest costs that does nothing.

use std::time::{Duration, Instant};

use super::guests::{Guest, Kind};
use super::pair::Pair;
use super::report::{Row, Section};
use super::{Bench, say};
use crate::demo::error::DemoError;

/// After the boot the guest still has things to do.
const SETTLE: Duration = Duration::from_secs(10);
/// The whole time that is measured; it is cut into as many windows as there are runs.
const MEASURED: Duration = Duration::from_secs(30);
/// The most log of an idle guest.
const MOST_MBIT_S: f64 = 0.1;
/// The most processor time of a node with an idle guest, in percent of one core.
const MOST_CPU_PERCENT: f64 = 5.0;
const CPU: &str = "CPU of one core";
const LOG: &str = "log";

/// Measures a protected pair, then QEMU with the same guest.
pub(crate) fn measure(bench: &Bench) -> Result<Section, DemoError> {
    let (live, backup) = pair(bench)?;
    let qemu = qemu(bench)?;
    let bars = [
        live.bar(LOG, MOST_MBIT_S),
        live.bar(CPU, MOST_CPU_PERCENT),
        backup.bar(CPU, MOST_CPU_PERCENT),
    ];
    Ok(Section {
        name: "idle".to_owned(),
        title: "a guest that does nothing".to_owned(),
        rows: vec![qemu, live, backup],
        bars: bars.into_iter().flatten().collect(),
        notes: vec![format!(
            "{} s after the boot, {} s cut into equal windows. Log: bytes of records and \
             batches, without the channel's acks and heartbeats.",
            SETTLE.as_secs(),
            MEASURED.as_secs()
        )],
    })
}

/// Runs `sample` at the end of each window with the window's length in seconds; the first call,
/// at the beginning, has none.
fn windows(
    bench: &Bench,
    mut sample: impl FnMut(Option<f64>) -> Result<(), DemoError>,
) -> Result<(), DemoError> {
    bench.sleep_until(Instant::now() + SETTLE)?;
    let mut last = Instant::now();
    sample(None)?;
    for _ in 0..bench.runs {
        bench.sleep_until(last + MEASURED / bench.runs)?;
        let now = Instant::now();
        sample(Some((now - last).as_secs_f64()))?;
        last = now;
    }
    Ok(())
}

fn pair(bench: &Bench) -> Result<(Row, Row), DemoError> {
    say("idle       a pair boots");
    let mut pair = Pair::start(bench)?;
    say("idle       the pair is protected");
    let mut rows = [
        Row::new("twinvm node, live"),
        Row::new("twinvm node, backup"),
    ];
    let (mut last_cpu, mut last_log, mut last_steps) = ([0.0; 2], 0, 0);
    windows(bench, |seconds| {
        let status = pair.status()?;
        let log = status
            .log_bytes
            .ok_or_else(|| DemoError::failed("the live node doesn't tell its log's bytes"))?;
        let steps = status.icount.unwrap_or(0);
        let cpu = pair.cpu_s()?;
        if let Some(seconds) = seconds {
            for (row, (now, last)) in rows.iter_mut().zip(cpu.iter().zip(last_cpu)) {
                row.sample(CPU, "%", (now - last) / seconds * 100.0);
            }
            let bits = log.saturating_sub(last_log) as f64 * 8.0;
            rows[0].sample(LOG, "Mbit/s", bits / seconds / 1e6);
            let made = steps.saturating_sub(last_steps) as f64;
            rows[0].sample("steps", "M/s", made / seconds / 1e6);
        }
        (last_cpu, last_log, last_steps) = (cpu, log, steps);
        Ok(())
    })?;
    pair.stop();
    let [live, backup] = rows;
    Ok((live, backup))
}

fn qemu(bench: &Bench) -> Result<Row, DemoError> {
    say("idle       QEMU boots");
    let mut guest = Guest::start(bench, Kind::Qemu)?;
    guest.await_pong(bench)?;
    say("idle       QEMU is up");
    let mut row = Row::new(Kind::Qemu.name());
    let mut last_cpu = 0.0;
    windows(bench, |seconds| {
        guest.check()?;
        let cpu = guest.cpu_s()?;
        if let Some(seconds) = seconds {
            row.sample(CPU, "%", (cpu - last_cpu) / seconds * 100.0);
        }
        last_cpu = cpu;
        Ok(())
    })?;
    guest.finish()?;
    Ok(row)
}
