//! iperf3 both ways through TAP, with the Debian image, whose guests have it.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::debian::{DiskCopy, await_login, spec};
use super::guests::{Guest, Wire};
use super::netns::tool;
use super::report::{Row, Section};
use super::tap::{KINDS, TAPS, in_turns};
use super::{Bench, find_program, say};
use crate::demo::error::DemoError;

/// The table's title.
pub(crate) const TITLE: &str = "iperf3, both ways, through TAP";
/// How long one way is measured.
const SECONDS: u32 = 5;
/// The client connects, measures and prints.
const LIMIT: Duration = Duration::from_secs(60);
/// How often the client is started, and what lies between.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_secs(2);
/// What the guest's shell shows when it waits for a command.
const PROMPT: &str = "# ";
/// Typed at the login: Debian's root has no password on the console.
const USER: &str = "root\n";
/// The server, in the background.
const SERVER: &str = "iperf3 -s -D && echo iperf3 is $((40 + 2))\n";
const STARTED: &str = "iperf3 is 42";
/// Arguments, the columns of processor time, its ratio and the rate.
const WAYS: [(&[&str], [&str; 3]); 2] = [
    (&[], ["into the guest: CPU", "in: CPU ÷ QEMU's", "in"]),
    (&["-R"], ["out of it: CPU", "out: CPU ÷ QEMU's", "out"]),
];

/// Measures both guests in turns; nothing without an image.
pub(crate) fn measure(bench: &Bench) -> Result<Option<Section>, DemoError> {
    let Some(image) = &bench.debian else {
        return Ok(None);
    };
    if find_program("iperf3").is_none() {
        let why = "no iperf3 in PATH: `make bench` installs it";
        return Ok(Some(Section::skipped("tap", TITLE, why)));
    }
    let (mut guests, mut disks) = (Vec::new(), Vec::new());
    for (kind, tap) in KINDS.into_iter().zip(TAPS) {
        say(&format!("tap        Debian boots, {}", kind.name()));
        let disk = DiskCopy::make(bench, image, kind)?;
        let spec = spec(image, &disk, Wire::Tap(tap))?;
        let mut guest = Guest::power_on(bench, kind, &spec)?;
        await_login(bench, &mut guest, kind)?;
        for (line, answer) in [(USER, PROMPT), (SERVER, STARTED)] {
            guest.type_line(line)?;
            let what = format!("the guest of {} answers on its console", kind.name());
            guest.await_up(bench, &what, LIMIT, |console, _| console.contains(answer))?;
        }
        guests.push(guest);
        disks.push(disk);
    }
    let mut rows = KINDS.map(|kind| Row::new(kind.name()));
    in_turns(bench, "tap", &mut guests, "iperf3", |index, guest| {
        for (args, [cpu, _, rate]) in WAYS {
            let before = guest.cpu_s()?;
            let sum = client(bench, guest, args)?;
            let used = guest.cpu_s()? - before;
            let row = &mut rows[index];
            row.sample(cpu, "s/GiB", used * f64::from(1 << 30) / sum.bytes);
            row.sample(rate, "Gbit/s", sum.bits_per_second / 1e9);
        }
        Ok(())
    })?;
    for guest in guests {
        guest.finish()?;
    }
    let [qemu, mut run] = rows;
    for (_, [cpu, ratio, _]) in WAYS {
        run.compare(cpu, ratio, &qemu);
    }
    Ok(Some(Section {
        name: "tap".to_owned(),
        title: TITLE.to_owned(),
        rows: vec![qemu, run],
        bars: Vec::new(),
        notes: vec![format!(
            "iperf3 -c GUEST -t {SECONDS}, and with -R, in turns; the server is in a Debian guest \
             on one hart, the client on this host."
        )],
        compared: Vec::new(),
    }))
}

/// As much of iperf3's report as is told.
#[derive(Deserialize)]
struct Output {
    end: End,
}

#[derive(Deserialize)]
struct End {
    sum_received: Sum,
}

#[derive(Deserialize)]
struct Sum {
    bytes: f64,
    bits_per_second: f64,
}

/// Tries again where the server has not yet done with the client before.
fn client(bench: &Bench, guest: &Guest, args: &[&str]) -> Result<Sum, DemoError> {
    let mut tries = 1;
    loop {
        match try_client(bench, guest, args) {
            Err(error @ DemoError::Failed { .. }) if tries < TRIES => {
                say(&format!("tap        again: {error}"));
                tries += 1;
                bench.sleep_until(Instant::now() + PAUSE)?;
            }
            other => return other,
        }
    }
}

fn try_client(bench: &Bench, guest: &Guest, args: &[&str]) -> Result<Sum, DemoError> {
    let out = bench.dir.join("iperf3.json");
    if out.exists() {
        fs::remove_file(&out).map_err(DemoError::io(&out))?;
    }
    let mut command = Command::new("iperf3");
    command.arg("-c").arg(guest.address().ip().to_string());
    command.args(["-t", &SECONDS.to_string(), "--json", "--logfile"]);
    tool(bench, command.arg(&out).args(args), LIMIT)?;
    let text = fs::read_to_string(&out).map_err(DemoError::io(&out))?;
    let output: Output = serde_json::from_str(&text)
        .map_err(|error| DemoError::failed_see(format!("iperf3's report: {error}"), &out))?;
    let sum = output.end.sum_received;
    match sum.bytes > 0.0 {
        true => Ok(sum),
        false => Err(DemoError::failed_see("iperf3 received nothing", &out)),
    }
}
