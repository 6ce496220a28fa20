//! A network namespace for measurements through TAP interfaces.
//!
//! The measurements run in a `twinvm bench` of their own, started inside the namespace by
//! `unshare`. The namespace has no name and the interfaces no other owner: the kernel takes all
//! of it away with the last process inside, however that one ends.

use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Signal, set_parent_process_death_signal};

use super::guests::Tap;
use super::report::{Report, Section};
use super::{Bench, find_program, say};
use crate::demo::error::DemoError;
use crate::demo::processes::{Process, read_end};
use crate::lab::hosts;

/// Making an interface takes no time.
const TOOL_LIMIT: Duration = Duration::from_secs(20);
/// A process inside is asked to end, and ends its guests first.
const END_LIMIT: Duration = Duration::from_secs(40);
/// All the measurements inside, beside what each run takes.
const LIMIT: Duration = Duration::from_secs(600);
const LIMIT_PER_RUN: Duration = Duration::from_secs(180);
const LIMIT_PER_TAKEOVER: Duration = Duration::from_secs(20);
/// Bytes of the inner bench's progress that are kept.
const PROGRESS_BYTES: u64 = 1 << 20;
/// Programs that must be there, and those that hosts are made with.
const TOOLS: [&str; 3] = ["unshare", "ip", "setpriv"];
const HOST_TOOLS: [&str; 2] = ["nsenter", "nft"];
/// The interface goes with the try.
const TRY: [&str; 7] = ["ip", "tuntap", "add", "dev", "bench-try", "mode", "tap"];

/// How to get into a new namespace: root needs nothing else, others become root of a user
/// namespace.
const WAYS: [&str; 2] = ["-n", "-Urn"];

/// Runs `twinvm bench` with `words` in a new namespace; its sections, or why there can be no
/// namespace.
pub(crate) fn bench_inside(
    bench: &Bench,
    words: &[&str],
) -> Result<Result<Vec<Section>, String>, DemoError> {
    bench_in(bench, &[], words)
}

/// The same with namespaces for mounts and processes too, in which hosts can be made.
pub(crate) fn bench_on_hosts(
    bench: &Bench,
    words: &[&str],
) -> Result<Result<Vec<Section>, String>, DemoError> {
    bench_in(bench, &hosts::ENTER, words)
}

/// One table, measured by `inside` in such namespaces, or why it can't be.
pub(crate) fn section_on_hosts(
    bench: &Bench,
    (name, title): (&str, &str),
    inside: fn(&Bench) -> Result<Section, DemoError>,
) -> Result<Vec<Section>, DemoError> {
    if bench.in_namespace {
        end_with_parent()?;
        return Ok(vec![inside(bench)?]);
    }
    match bench_on_hosts(bench, &[name])? {
        Ok(sections) => Ok(sections),
        Err(why) => {
            say(&format!("{name:<11}not measured: {why}"));
            Ok(vec![Section::skipped(name, title, &why)])
        }
    }
}

fn bench_in(
    bench: &Bench,
    more: &[&str],
    words: &[&str],
) -> Result<Result<Vec<Section>, String>, DemoError> {
    let way = match way_in(bench, more)? {
        Ok(way) => way,
        Err(why) => return Ok(Err(why)),
    };
    let dir = bench.dir.join("tap");
    std::fs::create_dir_all(&dir).map_err(DemoError::io(&dir))?;
    let (out, log) = (dir.join("bench.json"), dir.join("progress.log"));
    for file in [&out, &log] {
        match std::fs::remove_file(file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(DemoError::io(file)(error));
            }
            _ => {}
        }
    }
    // With more namespaces `unshare` stays as the parent of the bench inside, and takes it along.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "unshare", way]);
    command.args(more).arg(&bench.program).arg("bench");
    command.args(words).arg("--in-namespace");
    command.arg("--runs").arg(bench.runs.to_string());
    command.arg("--dir").arg(&dir).arg("--out").arg(&out);
    command.arg("--image").arg(&bench.image_dir);
    if let Some(engine) = bench.engine {
        command.arg("--engine").arg(engine.name());
    }
    if let Some(debian) = &bench.debian {
        command.arg("--debian").arg(debian);
    }
    let process = Process::start("the bench in the namespace", &mut command, &log)?;
    let mut inner = Inner {
        process,
        hosts: !more.is_empty(),
        what: words.first().copied().unwrap_or_default().to_owned(),
        shown: 0,
    };
    let takeovers = bench.kills + bench.silences + bench.planned;
    let limit = LIMIT + LIMIT_PER_RUN * bench.runs + LIMIT_PER_TAKEOVER * takeovers;
    let what = "the measurements in the namespace are done";
    let ended = bench.wait_for(what, limit, &log, || {
        inner.relay();
        Ok(inner.process.wait(Instant::now()).then_some(()))
    });
    inner.relay();
    ended?;
    if !inner.process.has_succeeded() {
        return Err(DemoError::failed_see("the bench in the namespace", &log));
    }
    Ok(Ok(Report::read(&out)?.sections))
}

/// The bench inside; it is asked to end before it is made to.
struct Inner {
    process: Process,
    /// All that it starts ends with it.
    hosts: bool,
    /// What it measures; its progress says so.
    what: String,
    /// Bytes of its progress that were shown.
    shown: usize,
}

impl Inner {
    /// Shows what it has said since.
    fn relay(&mut self) {
        let text = read_end(self.process.log(), PROGRESS_BYTES).unwrap_or_default();
        let Some(new) = text.get(self.shown..) else {
            return;
        };
        let Some(end) = new.rfind('\n') else {
            return;
        };
        // What it says before it measures was said out here too.
        let lines = new[..end].lines();
        let own = |line: &&str| line.starts_with(&self.what);
        lines.filter(own).for_each(say);
        self.shown += end + 1;
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if !self.hosts {
            self.process.terminate();
            self.process.wait(Instant::now() + END_LIMIT);
        }
    }
}

/// The option of `unshare` with which this user gets a namespace with a TAP interface.
fn way_in(bench: &Bench, more: &[&str]) -> Result<Result<&'static str, String>, DemoError> {
    let for_hosts: &[&str] = if more.is_empty() { &[] } else { &HOST_TOOLS };
    for tool in TOOLS.iter().chain(for_hosts) {
        if find_program(tool).is_none() {
            return Ok(Err(format!("no {tool} in PATH: `make bench` installs it")));
        }
    }
    for way in WAYS {
        let mut command = Command::new("unshare");
        command.arg(way).args(more).args(TRY);
        if tool(bench, &mut command, TOOL_LIMIT).is_ok() {
            return Ok(Ok(way));
        }
        bench.check()?;
    }
    Ok(Err(
        "this user gets no network namespace with a TAP interface (unshare -n as root, or unshare \
         -Urn): run it as root"
            .to_owned(),
    ))
}

/// Called by the bench inside: it ends with the one outside.
pub(crate) fn end_with_parent() -> Result<(), DemoError> {
    set_parent_process_death_signal(Some(Signal::TERM))
        .map_err(|error| DemoError::failed(format!("asking for a signal: {error}")))
}

/// The same, and makes the interfaces.
pub(crate) fn settle(bench: &Bench, taps: &[Tap]) -> Result<(), DemoError> {
    end_with_parent()?;
    let ip = |line: String| tool(bench, Command::new("ip").args(line.split(' ')), TOOL_LIMIT);
    ip("link set lo up".to_owned())?;
    for tap in taps {
        ip(format!("tuntap add dev {} mode tap", tap.name))?;
        ip(format!("address add {}/24 dev {}", tap.host, tap.name))?;
        ip(format!("link set {} up", tap.name))?;
    }
    Ok(())
}

/// Keeps a process, all its threads, on one core.
pub(crate) fn keep_on(bench: &Bench, pid: u32, core: usize) -> Result<(), DemoError> {
    let words = ["-a", "-c", "-p", &core.to_string(), &pid.to_string()];
    tool(bench, Command::new("taskset").args(words), TOOL_LIMIT)
}

/// Runs a program to its end, which must be a good one and come in time.
pub(crate) fn tool(bench: &Bench, command: &mut Command, limit: Duration) -> Result<(), DemoError> {
    let log = bench.dir.join("tool.log");
    let what = format!("{command:?}");
    let mut process = Process::start(what.clone(), command, &log)?;
    bench.wait_for(&format!("{what} ends"), limit, &log, || {
        Ok(process.wait(Instant::now()).then_some(()))
    })?;
    match process.has_succeeded() {
        true => Ok(()),
        false => Err(DemoError::failed_see(format!("{what} has failed"), &log)),
    }
}
