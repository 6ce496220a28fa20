//! Clocks and what the process has used. The only place where the host's time is read for
//! the guest: from here it travels as an argument.

use std::fs;

use rustix::time::{ClockId, Timespec, clock_gettime};

/// `CLOCK_MONOTONIC` in nanoseconds: never goes back, stands still while the host sleeps. Its zero
/// is the host's own; means nothing on another host.
pub fn mono_ns() -> u64 {
    nanoseconds(clock_gettime(ClockId::Monotonic))
}

/// `CLOCK_REALTIME`: nanoseconds since 1970-01-01 UTC; 0 before that. May be set, even back.
pub fn wall_ns() -> u64 {
    nanoseconds(clock_gettime(ClockId::Realtime))
}

/// Processor time of all threads of the process, ended ones too, in nanoseconds.
pub fn process_cpu_ns() -> u64 {
    nanoseconds(clock_gettime(ClockId::ProcessCPUTime))
}

/// The memory that the process has in RAM now, in bytes (`VmRSS` of proc(5)); `None` without a
/// /proc.
pub fn rss_bytes() -> Option<u64> {
    memory_in(&fs::read_to_string("/proc/self/status").ok()?, "VmRSS:")
}

/// The most memory the process ever had in RAM, in bytes (`VmHWM` of proc(5)); `None`
/// without a /proc.
pub fn peak_rss_bytes() -> Option<u64> {
    memory_in(&fs::read_to_string("/proc/self/status").ok()?, "VmHWM:")
}

fn memory_in(status: &str, field: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

fn nanoseconds(time: Timespec) -> u64 {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let part = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(part)
}

#[cfg(test)]
mod tests;
