//! From power-on to Redis's PONG, in turns.

use super::compare::Compared;
use super::guests::{Ended, Guest, Kind, Up};
use super::report::{Row, Section};
use super::{Bench, say};
use crate::demo::error::DemoError;

/// The most that our processor time may be, in QEMU's.
const MOST_RATIO: f64 = 3.0;
/// What is compared with QEMU.
const CPU: &str = "CPU";
const RATIO: &str = "CPU ÷ QEMU's";

/// Boots every kind of guest as often as was asked for.
pub(crate) fn measure(bench: &Bench) -> Result<Section, DemoError> {
    // The rows, and the turns of each round.
    let kinds = [bench.against.kind(), Kind::Run, Kind::Record];
    let mut rows = kinds.map(|kind| Row::new(kind.name()));
    for round in 0..bench.runs {
        // Each kind comes first, second and last in turn.
        for turn in 0..kinds.len() {
            let index = (round as usize + turn) % kinds.len();
            let (up, ended) = boot(bench, kinds[index])?;
            say(&format!(
                "boot {:>2}/{:<3}{:<20} {:.2} s of processor time, {:.2} s by the clock",
                round + 1,
                bench.runs,
                kinds[index].name(),
                up.cpu_s,
                up.wall_s
            ));
            take(&mut rows[index], up, ended);
        }
    }
    let [qemu, mut run, mut record] = rows;
    run.compare(CPU, RATIO, &qemu);
    record.compare(CPU, RATIO, &qemu);
    let mut compared = Compared::new("boot to Redis");
    compared.ours_cpu_s = record.samples(CPU).to_vec();
    compared.other_cpu_s = qemu.samples(CPU).to_vec();
    let speed = compared.note(&qemu.name);
    let bars = [run.bar(RATIO, MOST_RATIO), record.bar(RATIO, MOST_RATIO)];
    Ok(Section {
        name: "boot".to_owned(),
        title: "power-on to Redis's PONG".to_owned(),
        rows: vec![qemu, run, record],
        bars: bars.into_iter().flatten().collect(),
        notes: speed.into_iter().chain([
            "CPU: user and system time of the process, all threads, to 10 ms. The same kernel, \
             initrd, command line, 256 MiB and one hart; in turns, and the ratio is of the pairs."
                .to_owned(),
            "Steps (instructions and traps) and MIPS (million steps for each second of \
             processor time) are of the run's own report."
                .to_owned(),
        ]).collect(),
        compared: vec![compared],
    })
}

fn boot(bench: &Bench, kind: Kind) -> Result<(Up, Ended), DemoError> {
    let mut guest = Guest::start(bench, kind)?;
    let up = guest.await_pong(bench)?;
    Ok((up, guest.finish()?))
}

fn take(row: &mut Row, up: Up, ended: Ended) {
    row.sample(CPU, "s", up.cpu_s);
    row.sample("clock", "s", up.wall_s);
    if let Some(steps) = ended.steps {
        row.sample("steps", "G", steps.icount as f64 / 1e9);
        row.sample("MIPS", "", steps.mips);
    }
    if let Some(bytes) = ended.log_bytes {
        row.sample("log", "MB", bytes as f64 / 1e6);
    }
}
