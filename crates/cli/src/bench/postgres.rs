//! What a transaction of PostgreSQL costs: pgbench on this host, the server in a Debian guest, alone
//! and protected, with QEMU beside it.

use std::process::Command;
use std::time::Duration;

use super::netns::tool;
use super::report::{Row, Section};
use super::trio::{QEMU, ROWS, Trio};
use super::{Bench, find_program, trio};
use crate::demo::error::DemoError;
use crate::demo::processes::{Process, read_end};

pub(super) const NAME: &str = "postgres";
const TITLE: &str = "pgbench, the server in a Debian guest: QEMU, ours alone, ours protected";
const CLIENTS: u32 = 4;
/// Of 100,000 accounts.
const SCALE: u32 = 2;
/// Making the tables, and one run.
const LIMIT: Duration = Duration::from_secs(300);
const LOG_BYTES: u64 = 64 << 10;

/// Columns of processor time and rate, pgbench's option, and transactions of a client in a turn.
const WORKS: [(&str, &str, &[&str], u32); 2] = [
    ("select: CPU", "select", &["--select-only"], 1500),
    ("TPC-B: CPU", "TPC-B", &[], 250),
];

/// Measures all three in turns.
pub(super) fn measure(bench: &Bench) -> Result<Vec<Section>, DemoError> {
    if find_program("pgbench").is_none() {
        let why = "no pgbench in PATH: scripts/pgbench.sh fetches it";
        return Ok(vec![Section::skipped(NAME, TITLE, why)]);
    }
    trio::measure(bench, (NAME, TITLE), |bench| Ok(vec![inside(bench)?]))
}

fn pgbench(trio: &Trio<'_>, row: usize) -> Command {
    let mut command = Command::new("pgbench");
    let host = trio.address(row, 5432).ip().to_string();
    command
        .args(["-h", &host, "-U", "postgres"])
        .env("LC_ALL", "C");
    command
}

fn inside(bench: &Bench) -> Result<Section, DemoError> {
    let mut trio = Trio::start(bench, NAME)?;
    for row in [QEMU, QEMU + 1] {
        let mut command = pgbench(&trio, row);
        command.args([
            "--initialize",
            "--quiet",
            "--scale",
            &SCALE.to_string(),
            "postgres",
        ]);
        tool(bench, &mut command, LIMIT)?;
    }
    trio.become_(ROWS.len() - 1)?;
    // The first of each is not counted: caches fill, and code is translated.
    for row in [QEMU, QEMU + 1] {
        for work in WORKS {
            run(bench, &trio, row, work)?;
        }
    }
    let rows = trio.in_turns(|trio, which, row| turn(bench, trio, which, row))?;
    let [qemu, mut alone, mut protected] = rows;
    for (cpu, rate, ..) in WORKS {
        alone.compare(cpu, &format!("{rate} CPU ÷ QEMU's"), &qemu);
        protected.compare(cpu, &format!("{rate} CPU ÷ alone"), &alone);
        protected.compare(rate, &format!("{rate} rate ÷ alone"), &alone);
    }
    Ok(Section {
        name: NAME.to_owned(),
        title: TITLE.to_owned(),
        rows: vec![qemu, alone, protected],
        bars: Vec::new(),
        notes: vec![format!(
            "pgbench -c {CLIENTS} -j 1, scale {SCALE}: {} select-only and {} TPC-B transactions a \
             turn. CPU of the process that runs the guest (protected: of the live node). \
             PostgreSQL 17 as Debian sets it up, 64 MB of buffers, fsync on; a flush is fdatasync \
             on the live node's host (`flush = \"live\"`).",
            CLIENTS * WORKS[0].3,
            CLIENTS * WORKS[1].3
        )],
        compared: Vec::new(),
    })
}

fn turn(bench: &Bench, trio: &Trio<'_>, which: usize, row: &mut Row) -> Result<(), DemoError> {
    for work in WORKS {
        let before = trio.cpu_s(which)?;
        let tps = run(bench, trio, which, work)?;
        let (cpu, rate, _, each) = work;
        let used = trio.cpu_s(which)? - before;
        row.sample(cpu, "ms", used * 1e3 / f64::from(CLIENTS * each));
        row.sample(rate, "1/s", tps);
    }
    Ok(())
}

/// One run; transactions a second.
fn run(
    bench: &Bench,
    trio: &Trio<'_>,
    which: usize,
    (_, _, options, each): (&str, &str, &[&str], u32),
) -> Result<f64, DemoError> {
    let log = bench.dir.join("pgbench.log");
    if log.exists() {
        std::fs::remove_file(&log).map_err(DemoError::io(&log))?;
    }
    let mut command = pgbench(trio, which);
    command.args([
        "--no-vacuum",
        "--jobs",
        "1",
        "--client",
        &CLIENTS.to_string(),
    ]);
    command
        .args(["--transactions", &each.to_string()])
        .args(options);
    let mut process = Process::start("pgbench", command.arg("postgres"), &log)?;
    bench.wait_for("pgbench ends", LIMIT, &log, || {
        Ok(process.wait(std::time::Instant::now()).then_some(()))
    })?;
    let said = read_end(&log, LOG_BYTES).unwrap_or_default();
    let rate = rate(&said).filter(|_| process.has_succeeded());
    rate.ok_or_else(|| DemoError::failed_see("pgbench says no rate", &log))
}

/// What pgbench says of its rate.
fn rate(said: &str) -> Option<f64> {
    let rest = said.lines().find_map(|line| line.strip_prefix("tps = "))?;
    rest.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_the_one_without_the_time_of_connecting() {
        let said = "latency average = 2.1 ms\ntps = 474.53 (without initial connection time)\n";
        assert_eq!(rate(said), Some(474.53));
        assert_eq!(rate("pgbench: error: connection refused"), None);
    }
}
