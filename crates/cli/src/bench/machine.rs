//! The host on which something was measured, and what its processes use.

use std::fmt;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::Bench;
use crate::demo::error::DemoError;
use crate::demo::processes::{Process, read_end};

/// Ticks a second of the times in /proc: `USER_HZ`, fixed at 100 in Linux's interface of x86,
/// Arm and RISC-V (proc_pid_stat(5)).
pub(crate) const TICKS_PER_SECOND: f64 = 100.0;
/// Printing a version takes no time.
const VERSION_LIMIT: Duration = Duration::from_secs(10);

/// The line that every number needs beside it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct MachineLine {
    /// As the processor calls itself.
    pub(crate) cpu: String,
    /// That this process may use.
    pub(crate) cores: usize,
    /// Of the host.
    pub(crate) kernel: String,
    /// Means over 1, 5 and 15 minutes, when the run began.
    pub(crate) load_at_start: String,
    /// The yardstick's version.
    pub(crate) qemu: String,
    /// Our own.
    pub(crate) twinvm: String,
}

impl fmt::Display for MachineLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}, {} cores, Linux {}, load average at the start {}; {}; {}",
            self.cpu, self.cores, self.kernel, self.load_at_start, self.qemu, self.twinvm
        )
    }
}

/// Looks at this host.
pub(crate) fn look(bench: &Bench) -> Result<MachineLine, DemoError> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    Ok(MachineLine {
        cpu: cpu_model(&read("/proc/cpuinfo")).to_owned(),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        load_at_start: load(&read("/proc/loadavg")),
        qemu: qemu_version(bench)?,
        twinvm: format!("twinvm {}", *crate::VERSION),
    })
}

fn cpu_model(cpuinfo: &str) -> &str {
    cpuinfo
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.trim() == "model name")
        .map_or("unknown processor", |(_, model)| model.trim())
}

fn load(loadavg: &str) -> String {
    let three: Vec<&str> = loadavg.split_whitespace().take(3).collect();
    three.join(" ")
}

fn qemu_version(bench: &Bench) -> Result<String, DemoError> {
    if bench.qemu.as_os_str().is_empty() {
        return Ok("no QEMU".to_owned());
    }
    let log = bench.dir.join("qemu-version.log");
    match fs::remove_file(&log) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(DemoError::io(&log)(error));
        }
        _ => {}
    }
    let mut command = Command::new(&bench.qemu);
    let mut process = Process::start("QEMU", command.arg("--version"), &log)?;
    let ended = process.wait(Instant::now() + VERSION_LIMIT);
    let text = read_end(&log, 4096).map_err(DemoError::io(&log))?;
    match text.lines().next() {
        Some(line) if ended => Ok(line.trim().to_owned()),
        _ => Err(DemoError::failed_see("QEMU doesn't tell its version", &log)),
    }
}

/// Processor time that a process has used so far, of all its threads, ended ones too, in
/// seconds; to 10 ms.
pub(crate) fn cpu_s(pid: u32) -> Result<f64, DemoError> {
    let path = format!("/proc/{pid}/stat");
    let stat =
        fs::read_to_string(&path).map_err(|error| DemoError::failed(format!("{path}: {error}")))?;
    ticks(&stat)
        .map(|ticks| ticks as f64 / TICKS_PER_SECOND)
        .ok_or_else(|| DemoError::failed(format!("{path}: no times in {stat:?}")))
}

/// utime and stime together, fields 14 and 15 (proc_pid_stat(5)). The name in field 2 may hold
/// anything, also spaces and parentheses.
fn ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<u64>().ok();
    Some(next()? + next()?)
}

/// The most memory that a process has had in RAM so far (`VmHWM` of proc_pid_status(5)).
pub(crate) fn peak_rss_bytes(pid: u32) -> Result<u64, DemoError> {
    let path = format!("/proc/{pid}/status");
    let status =
        fs::read_to_string(&path).map_err(|error| DemoError::failed(format!("{path}: {error}")))?;
    high_water_bytes(&status)
        .ok_or_else(|| DemoError::failed(format!("{path}: no VmHWM in {status:?}")))
}

fn high_water_bytes(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests;
