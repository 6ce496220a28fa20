//! What a transaction of PostgreSQL costs: pgbench on this host, the server in a Debian guest, alone,
//! beside a neighbour that does the same, and protected, and in QEMU.

use std::process::Command;
use std::time::Duration;

use super::debians::{ALONE, BESIDE, Debians, NEIGHBOUR, PROTECTED, QEMU};
use super::netns::tool;
use super::report::{Bar, Row, Section};
use super::stats::Summary;
use super::{Bench, debians, find_program};
use crate::demo::error::DemoError;
use crate::demo::processes::{Process, read_end};

pub(super) const NAME: &str = "postgres";
const TITLE: &str =
    "pgbench, the server in a Debian guest: QEMU, ours alone, beside a neighbour, protected";
const CLIENTS: u32 = 4;
/// Of 100,000 accounts.
const SCALE: u32 = 2;
/// Making the tables, and one run, on a busy host too.
const LIMIT: Duration = Duration::from_secs(300);
/// The neighbour is at work before the one that is measured begins.
const AHEAD: Duration = Duration::from_millis(300);
const LOG_BYTES: u64 = 64 << 10;

/// One kind of transaction. Runs last a time and not a number of them, so that a slow host gets
/// to the end.
struct Work {
    /// The column of processor time, and that of the rate.
    cpu: &'static str,
    rate: &'static str,
    /// Of pgbench's options.
    options: &'static [&'static str],
    seconds: u32,
    /// What part of its own rate alone a protected VM is to reach.
    least: f64,
}

const WORKS: [Work; 2] = [
    Work {
        cpu: "select: CPU",
        rate: "select",
        options: &["--select-only"],
        seconds: 6,
        least: 0.9,
    },
    Work {
        cpu: "TPC-B: CPU",
        rate: "TPC-B",
        options: &[],
        seconds: 8,
        least: 0.85,
    },
];

/// Measures all three in turns.
pub(super) fn measure(bench: &Bench) -> Result<Vec<Section>, DemoError> {
    if find_program("pgbench").is_none() {
        let why = "no pgbench in PATH: scripts/pgbench.sh fetches it";
        return Ok(vec![Section::skipped(NAME, TITLE, why)]);
    }
    debians::measure(bench, (NAME, TITLE), |bench| Ok(vec![inside(bench)?]))
}

fn pgbench(debians: &Debians<'_>, row: usize) -> Command {
    let mut command = Command::new("pgbench");
    let host = debians.address(row, 5432).ip().to_string();
    command
        .args(["-h", &host, "-U", "postgres"])
        .env("LC_ALL", "C");
    command
}

fn inside(bench: &Bench) -> Result<Section, DemoError> {
    let mut debians = Debians::start(bench, NAME)?;
    for row in [QEMU, ALONE, NEIGHBOUR] {
        let mut command = pgbench(&debians, row);
        command.args([
            "--initialize",
            "--quiet",
            "--scale",
            &SCALE.to_string(),
            "postgres",
        ]);
        tool(bench, &mut command, LIMIT)?;
    }
    debians.become_(PROTECTED)?;
    // The first of each is not counted: caches fill, and code is translated.
    for row in [QEMU, ALONE, NEIGHBOUR] {
        for work in &WORKS {
            run(bench, &debians, row, work)?;
        }
    }
    let rows = debians.in_turns(|debians, which, row| turn(bench, debians, which, row))?;
    let [qemu, mut alone, beside, mut protected] = rows;
    let mut bars = Vec::new();
    for Work {
        cpu, rate, least, ..
    } in &WORKS
    {
        alone.compare(cpu, &format!("{rate} CPU ÷ QEMU's"), &qemu);
        alone.compare(rate, &format!("{rate} rate ÷ QEMU's"), &qemu);
        protected.compare(cpu, &format!("{rate} CPU ÷ alone"), &alone);
        protected.compare(cpu, &format!("{rate} CPU ÷ beside"), &beside);
        let ratio = format!("{rate} rate ÷ alone");
        protected.compare(rate, &ratio, &alone);
        protected.compare(rate, &format!("{rate} rate ÷ beside"), &beside);
        if let Some(found) = Summary::of(protected.samples(&ratio)) {
            bars.push(Bar {
                what: format!("{rate}: rate alone ÷ rate protected"),
                value: 1.0 / found.median,
                most: 1.0 / least,
                unit: String::new(),
            });
        }
    }
    Ok(Section {
        name: NAME.to_owned(),
        title: TITLE.to_owned(),
        rows: vec![qemu, alone, beside, protected],
        bars,
        notes: vec![format!(
            "pgbench -c {CLIENTS} -j 1, scale {SCALE}: {} s of select-only and {} s of TPC-B \
             transactions a turn. CPU per transaction of the process that runs the guest \
             (protected: of the live node). Beside a neighbour: another Debian, which nobody \
             protects, serves another pgbench of the same kind meanwhile. PostgreSQL 17 as Debian sets it up, 64 MB of buffers, \
             fsync on; a flush is fdatasync on the live node's host (`flush = \"live\"`). Both \
             nodes, QEMU, the neighbour and pgbench share the host.",
            WORKS[0].seconds, WORKS[1].seconds
        )],
        compared: Vec::new(),
    })
}

fn turn(
    bench: &Bench,
    debians: &Debians<'_>,
    which: usize,
    row: &mut Row,
) -> Result<(), DemoError> {
    for work in &WORKS {
        let busy = (which == BESIDE).then(|| keep_busy(bench, debians, work));
        let busy = busy.transpose()?;
        let before = debians.cpu_s(which)?;
        let found = run(bench, debians, which, work)?;
        let used = debians.cpu_s(which)? - before;
        drop(busy);
        row.sample(work.cpu, "ms", used * 1e3 / found.transactions);
        row.sample(work.rate, "1/s", found.rate);
    }
    Ok(())
}

/// What pgbench has done.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Found {
    transactions: f64,
    /// A second.
    rate: f64,
}

/// pgbench for so long.
fn load(debians: &Debians<'_>, which: usize, work: &Work, seconds: u32) -> Command {
    let mut command = pgbench(debians, which);
    command
        .args(["--no-vacuum", "--jobs", "1"])
        .args(["--client", &CLIENTS.to_string()])
        .args(["--time", &seconds.to_string()])
        .args(work.options)
        .arg("postgres");
    command
}

/// Keeps the neighbour's server busy with the same until what it gives is dropped.
fn keep_busy(bench: &Bench, debians: &Debians<'_>, work: &Work) -> Result<Process, DemoError> {
    let log = bench.dir.join("pgbench-beside.log");
    let mut command = load(debians, NEIGHBOUR, work, LIMIT.as_secs() as u32);
    let process = Process::start("the neighbour's pgbench", &mut command, &log)?;
    std::thread::sleep(AHEAD);
    Ok(process)
}

/// One run.
fn run(
    bench: &Bench,
    debians: &Debians<'_>,
    which: usize,
    work: &Work,
) -> Result<Found, DemoError> {
    let log = bench.dir.join("pgbench.log");
    if log.exists() {
        std::fs::remove_file(&log).map_err(DemoError::io(&log))?;
    }
    let mut command = load(debians, which, work, work.seconds);
    let mut process = Process::start("pgbench", &mut command, &log)?;
    bench.wait_for("pgbench ends", LIMIT, &log, || {
        Ok(process.wait(std::time::Instant::now()).then_some(()))
    })?;
    let said = read_end(&log, LOG_BYTES).unwrap_or_default();
    let found = found(&said).filter(|_| process.has_succeeded());
    found.ok_or_else(|| DemoError::failed_see("pgbench says no rate", &log))
}

/// What pgbench says of its run; none if any transaction failed.
fn found(said: &str) -> Option<Found> {
    let value = |name: &str| {
        let rest = said.lines().find_map(|line| line.strip_prefix(name))?;
        rest.split([' ', '/']).next()?.parse::<f64>().ok()
    };
    let found = Found {
        transactions: value("number of transactions actually processed: ")?,
        rate: value("tps = ")?,
    };
    let failed = value("number of failed transactions: ").unwrap_or(0.0);
    (found.transactions > 0.0 && failed == 0.0).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_the_one_without_the_time_of_connecting() {
        let said = "number of transactions actually processed: 2848\n\
                    number of failed transactions: 0 (0.000%)\n\
                    latency average = 2.1 ms\n\
                    tps = 474.53 (without initial connection time)\n";
        let right = Found {
            transactions: 2848.0,
            rate: 474.53,
        };
        assert_eq!(found(said), Some(right));
        assert_eq!(found(&said.replace(": 0 (", ": 3 (")), None);
        assert_eq!(found("pgbench: error: connection refused"), None);
    }
}
