//! What a request to the guest's disk costs: fio in a Debian guest, alone, beside a neighbour that
//! does the same, and protected, and QEMU with a copy of the same file.

use serde_json::Value;

use super::debians::{ALONE, BESIDE, Debians, NEIGHBOUR, QEMU, Shell};
use super::report::{Row, Section};
use super::{Bench, debians, join};
use crate::demo::error::DemoError;

pub(super) const NAME: &str = "disk";
const TITLE: &str =
    "fio in a Debian guest, its disk a file: QEMU, ours alone, beside a neighbour, protected";
/// What a request may cost protected, as a part of what it costs alone: alone ÷ protected is 0.9.
const MOST: f64 = 1.0 / 0.9;
/// The file that fio works on.
const FILE: &str = "/var/tmp/fio.dat";
const FILE_MIB: u32 = 256;

/// One kind of work.
struct Work {
    /// The column of processor time, that of the rate, and their units.
    cpu: &'static str,
    rate: &'static str,
    /// Of fio's options.
    words: &'static str,
    /// Which half of fio's report.
    side: &'static str,
    /// Requests, or bytes, are counted.
    in_bulk: bool,
}

const WORKS: [Work; 3] = [
    Work {
        cpu: "4k random write: CPU",
        rate: "4k random write",
        words: "--rw=randwrite --bs=4k --iodepth=16 --io_size=48m",
        side: "write",
        in_bulk: false,
    },
    Work {
        cpu: "write: CPU",
        rate: "write",
        words: "--rw=write --bs=1m --iodepth=4 --io_size=256m",
        side: "write",
        in_bulk: true,
    },
    Work {
        cpu: "read: CPU",
        rate: "read",
        words: "--rw=read --bs=1m --iodepth=4 --io_size=256m",
        side: "read",
        in_bulk: true,
    },
];
/// A write and a flush, one after the other.
const FLUSHES: &str = "--rw=randwrite --bs=4k --iodepth=1 --fsync=1 --io_size=1m";
/// Almost nothing: what fio itself takes, which is not the disk's.
const NOTHING: &str = "--rw=randwrite --bs=4k --iodepth=1 --io_size=4k";

/// Measures all three in turns.
pub(super) fn measure(bench: &Bench) -> Result<Vec<Section>, DemoError> {
    debians::measure(bench, (NAME, TITLE), inside)
}

fn inside(bench: &Bench) -> Result<Vec<Section>, DemoError> {
    let mut debians = Debians::start(bench, NAME)?;
    let (mut qemu, mut ours) = (debians.shell(QEMU)?, debians.shell(ALONE)?);
    let mut neighbour = debians.shell(NEIGHBOUR)?;
    for shell in [&mut qemu, &mut ours, &mut neighbour] {
        fio(
            bench,
            shell,
            &format!("--rw=write --bs=1m --io_size={FILE_MIB}m --end_fsync=1"),
        )?;
    }
    let file = (FILE, u64::from(FILE_MIB) << 20);
    let joins = debians.without_others(|debians| {
        join::measure(bench, debians, (&mut ours, &mut neighbour), file)
    })?;
    let rows = debians.in_turns(|debians, which, row| {
        let shell = if which == QEMU { &mut qemu } else { &mut ours };
        let neighbour = (which == BESIDE).then_some(&mut neighbour);
        turn(bench, debians, which, (shell, neighbour), row)
    })?;
    let [qemu, mut alone, beside, mut protected] = rows;
    let mut bars = Vec::new();
    for work in &WORKS {
        alone.compare(work.cpu, &format!("{} ÷ QEMU's", work.cpu), &qemu);
        let ratio = format!("{} ÷ alone", work.cpu);
        protected.compare(work.cpu, &ratio, &alone);
        protected.compare(work.cpu, &format!("{} ÷ beside", work.cpu), &beside);
        bars.extend(protected.bar(&ratio, MOST));
    }
    let notes = vec![format!(
        "fio --direct=1 --ioengine=libaio on a file of {FILE_MIB} MiB in the guest's ext4; 4k \
         random writes 16 deep, 1 MiB in sequence 4 deep. CPU of the process that runs the guest \
         (protected: of the live node), less what a fio with one request takes. Beside a neighbour: \
         another Debian, which nobody protects, does the same again and again meanwhile. flush: \
         fsync after each 4k write, one at a time. Host files in the host's page cache on all sides; a flush \
         is fdatasync on the live node's host (`flush = \"live\"`). re-join: the backup was killed \
         and away for the turns between."
    )];
    let fio = Section {
        name: NAME.to_owned(),
        title: TITLE.to_owned(),
        rows: vec![qemu, alone, beside, protected],
        bars,
        notes,
        compared: Vec::new(),
    };
    Ok(vec![joins, fio])
}

fn turn(
    bench: &Bench,
    debians: &Debians<'_>,
    which: usize,
    (shell, mut neighbour): (&mut Shell, Option<&mut Shell>),
    row: &mut Row,
) -> Result<(), DemoError> {
    let mut measured = |words: &str| -> Result<(Value, f64), DemoError> {
        if let Some(neighbour) = &mut neighbour {
            keep_busy(bench, neighbour, words)?;
        }
        let before = debians.cpu_s(which)?;
        let job = fio(bench, shell, words)?;
        let used_s = debians.cpu_s(which)? - before;
        if let Some(neighbour) = &mut neighbour {
            neighbour.run(
                bench,
                "rm /run/busy; while pgrep -x fio >/dev/null; do sleep 0.1; done",
            )?;
        }
        Ok((job, used_s))
    };
    let (_, own_s) = measured(NOTHING)?;
    for work in &WORKS {
        let (job, used_s) = measured(work.words)?;
        let side = &job[work.side];
        let (cpu_s, ms) = ((used_s - own_s).max(0.0), number(&side["runtime"])?);
        if work.in_bulk {
            let bytes = number(&side["io_bytes"])?;
            row.sample(work.cpu, "s/GiB", cpu_s * f64::from(1 << 30) / bytes);
            row.sample(work.rate, "MB/s", bytes / ms / 1e3);
        } else {
            let requests = number(&side["total_ios"])?;
            row.sample(work.cpu, "µs", cpu_s * 1e6 / requests);
            row.sample(work.rate, "1/s", requests / ms * 1e3);
        }
    }
    let (job, _) = measured(FLUSHES)?;
    let flushes = &job["sync"]["lat_ns"]["percentile"];
    for (name, key) in [("flush p50", "50.000000"), ("flush p99", "99.000000")] {
        row.sample(name, "ms", number(&flushes[key])? / 1e6);
    }
    Ok(())
}

/// Has the neighbour do this again and again, until its file of that name has gone.
fn keep_busy(bench: &Bench, neighbour: &mut Shell, words: &str) -> Result<(), DemoError> {
    let fio = command(words);
    let again = format!("while [ -e /run/busy ]; do {fio}; done");
    let begun = "until pgrep -x fio >/dev/null; do sleep 0.1; done";
    let line = format!("touch /run/busy; ( {again} ) >/dev/null 2>&1 & {begun}");
    neighbour.run(bench, &line).map(drop)
}

fn command(words: &str) -> String {
    format!(
        "fio --name=bench --filename={FILE} --size={FILE_MIB}m --direct=1 --ioengine=libaio \
         --randseed=1 --lat_percentiles=0 {words} --output-format=json"
    )
}

/// Runs fio and gives the report of its job.
fn fio(bench: &Bench, shell: &mut Shell, words: &str) -> Result<Value, DemoError> {
    let said = shell.run(bench, &command(words))?;
    job_of(&said).ok_or_else(|| DemoError::failed(format!("fio's report is none: {said}")))
}

/// The first job of fio's report; warnings may stand before it.
fn job_of(said: &str) -> Option<Value> {
    let report: Value = serde_json::from_str(said.get(said.find('{')?..)?).ok()?;
    report["jobs"].get(0).cloned()
}

fn number(value: &Value) -> Result<f64, DemoError> {
    let number = value.as_f64().filter(|number| *number > 0.0);
    number.ok_or_else(|| DemoError::failed(format!("{value} in fio's report")))
}

#[cfg(test)]
mod tests;
