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
const MOST_MBIT_S: f64 = 0.05;
/// The most processor time of a node with an idle guest, in percent of one core.
const MOST_CPU_PERCENT: f64 = 5.0;
/// The most of a VM that runs alone.
const MOST_ALONE_PERCENT: f64 = 2.0;
const CPU: &str = "CPU of one core";
const LOG: &str = "log";

/// Measures QEMU, a VM alone and a protected pair, all with the same guest and in the same
/// windows: idle guests don't disturb one another.
pub(crate) fn measure(bench: &Bench) -> Result<Section, DemoError> {
    say("idle       three guests boot");
    let mut qemu = Guest::start(bench, Kind::Qemu)?;
    qemu.await_pong(bench)?;
    let mut run = Guest::start(bench, Kind::Run)?;
    run.await_pong(bench)?;
    let mut pair = Pair::start(bench)?;
    say("idle       all are up, the pair is protected");
    let rows = watch(bench, &mut qemu, &mut run, &mut pair)?;
    pair.stop();
    run.finish()?;
    qemu.finish()?;
    let [_, run, live, backup] = &rows;
    let bars = [
        run.bar(CPU, MOST_ALONE_PERCENT),
        live.bar(LOG, MOST_MBIT_S),
        live.bar(CPU, MOST_CPU_PERCENT),
        backup.bar(CPU, MOST_CPU_PERCENT),
    ];
    Ok(Section {
        name: "idle".to_owned(),
        title: "a guest that does nothing".to_owned(),
        bars: bars.into_iter().flatten().collect(),
        rows: rows.into(),
        notes: vec![format!(
            "{} s after the boots, {} s cut into equal windows, the same for all. Log: bytes of \
             records and batches, without the channel's acks and heartbeats.",
            SETTLE.as_secs(),
            MEASURED.as_secs()
        )],
        compared: Vec::new(),
    })
}

/// The rows of QEMU, the VM alone, the live node and the backup.
fn watch(
    bench: &Bench,
    qemu: &mut Guest,
    run: &mut Guest,
    pair: &mut Pair,
) -> Result<[Row; 4], DemoError> {
    let mut rows = [
        Row::new(Kind::Qemu.name()),
        Row::new(Kind::Run.name()),
        Row::new("twinvm node, live"),
        Row::new("twinvm node, backup"),
    ];
    let (mut last_cpu, mut last_log, mut last_steps) = ([0.0; 4], 0, 0);
    windows(bench, |seconds| {
        qemu.check()?;
        run.check()?;
        let status = pair.status()?;
        let log = status
            .log_bytes
            .ok_or_else(|| DemoError::failed("the live node doesn't tell its log's bytes"))?;
        let steps = status.icount.unwrap_or(0);
        let [live, backup] = pair.cpu_s()?;
        let cpu = [qemu.cpu_s()?, run.cpu_s()?, live, backup];
        if let Some(seconds) = seconds {
            for (row, (now, last)) in rows.iter_mut().zip(cpu.iter().zip(last_cpu)) {
                row.sample(CPU, "%", (now - last) / seconds * 100.0);
            }
            let bits = log.saturating_sub(last_log) as f64 * 8.0;
            rows[2].sample(LOG, "Mbit/s", bits / seconds / 1e6);
            let made = steps.saturating_sub(last_steps) as f64;
            rows[2].sample("steps", "M/s", made / seconds / 1e6);
        }
        (last_cpu, last_log, last_steps) = (cpu, log, steps);
        Ok(())
    })?;
    Ok(rows)
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
