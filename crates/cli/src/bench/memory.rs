//! The memory of a process beside what its guest has touched.

use super::guests::{Guest, Kind};
use super::load::{Bulk, VALUE_BYTES};
use super::report::{Row, Section};
use super::{Bench, say};
use crate::demo::error::DemoError;

/// The most that a process may have in RAM beyond what the guest has touched, in MiB.
const MOST_ABOVE_MIB: f64 = 64.0;
/// Values that the guest's Redis keeps.
const VALUES: usize = 16;
const KINDS: [Kind; 3] = [Kind::Qemu, Kind::Run, Kind::Record];
const PEAK: &str = "peak RSS";
const ABOVE: &str = "peak RSS above it";

/// Boots every kind of guest, gives its Redis something to keep, and ends it.
pub(crate) fn measure(bench: &Bench) -> Result<Section, DemoError> {
    let mut rows = KINDS.map(|kind| Row::new(kind.name()));
    for round in 0..bench.runs {
        for (kind, row) in KINDS.into_iter().zip(&mut rows) {
            take(bench, kind, row)?;
            say(&format!(
                "memory {:>2}/{:<3}{}",
                round + 1,
                bench.runs,
                kind.name()
            ));
        }
    }
    let bars: Vec<_> = rows
        .iter()
        .filter_map(|row| row.bar(ABOVE, MOST_ABOVE_MIB))
        .collect();
    Ok(Section {
        name: "memory".to_owned(),
        title: "what a process has in RAM".to_owned(),
        rows: rows.into(),
        bars,
        notes: vec![format!(
            "A guest of 256 MiB boots, and its Redis takes {VALUES} values of {} MiB. RAM \
             touched: the guest's pages that anybody has written to since power-on, 4 KiB each.",
            VALUE_BYTES >> 20
        )],
        compared: Vec::new(),
    })
}

fn take(bench: &Bench, kind: Kind, row: &mut Row) -> Result<(), DemoError> {
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let mut guest = Guest::start(bench, kind)?;
    guest.await_pong(bench)?;
    let mut client = Bulk::new(guest.address())?;
    for number in 0..VALUES {
        client.set(bench, &format!("bench:value:{number}"))?;
        guest.check()?;
    }
    drop(client);
    let peak = guest.peak_rss_bytes()?;
    let Some(steps) = guest.finish()?.steps else {
        row.sample(PEAK, "MiB", mib(peak));
        return Ok(());
    };
    let peak = steps.peak_rss_bytes.unwrap_or(peak);
    row.sample(PEAK, "MiB", mib(peak));
    row.sample("RAM touched", "MiB", mib(steps.ram_touched_bytes));
    row.sample(ABOVE, "MiB", mib(peak) - mib(steps.ram_touched_bytes));
    Ok(())
}
