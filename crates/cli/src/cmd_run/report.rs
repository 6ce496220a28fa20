//! The report of a run.

mod engine;

use std::fs;
use std::io;
use std::path::Path;

use serde::Serialize;
use twinvm_host::port::PortCounts;
use twinvm_host::time::{mono_ns, peak_rss_bytes, process_cpu_ns};

use super::drive::Ended;
use super::end::End;
pub(crate) use engine::EngineReport;

/// Measures from the run's beginning on.
pub(crate) struct Meter {
    icount: u64,
    host_ns: u64,
    cpu_ns: u64,
}

impl Meter {
    /// From this step on.
    pub(crate) fn start(icount: u64) -> Self {
        Self {
            icount,
            host_ns: mono_ns(),
            cpu_ns: process_cpu_ns(),
        }
    }
}

/// What `--report` writes.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    icount: u64,
    host_s: f64,
    cpu_s: f64,
    mips: f64,
    peak_rss_bytes: Option<u64>,
    ram_touched_bytes: u64,
    digest: String,
    nets: Vec<PortCounts>,
    engine: EngineReport,
    exit: Exit,
}

#[derive(Debug, Serialize)]
struct Exit {
    reason: &'static str,
    code: u8,
}

impl Report {
    /// A report as of now.
    pub(crate) fn new(meter: &Meter, ended: &Ended, end: End) -> Self {
        let seconds = |from: u64, to: u64| to.saturating_sub(from) as f64 / 1e9;
        let cpu_s = seconds(meter.cpu_ns, ended.cpu_ns);
        let end = match ended.trouble {
            Some(_) => End::Fault,
            None => end,
        };
        Self {
            icount: ended.icount,
            host_s: seconds(meter.host_ns, ended.host_ns),
            cpu_s,
            mips: ended.icount.saturating_sub(meter.icount) as f64 / 1e6 / cpu_s.max(1e-9),
            peak_rss_bytes: peak_rss_bytes(),
            ram_touched_bytes: ended.ram_touched_bytes,
            digest: format!("{:032x}", ended.digest),
            nets: ended.nets.clone(),
            engine: ended.engine.clone(),
            exit: Exit {
                reason: end.reason(),
                code: end.exit_code(),
            },
        }
    }

    /// Writes it as JSON.
    pub(crate) fn write(&self, path: &Path) -> io::Result<()> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        fs::write(path, text)
    }
}
