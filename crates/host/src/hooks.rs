//! A command of the owner's that hears when protection is lost or regained.
//!
//! The node never runs it. A small process, started before the node has threads or gives up
//! rights, reads events from a pipe and runs the command for each, one at a time ([`runner`]).
//! It ends when the node does, however that ends: the pipe's other end is gone then.

pub(crate) mod command;
pub mod runner;

use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::journal::LogFormat;

/// Longest line between the two: a pipe takes it whole or not at all (`PIPE_BUF`).
pub(crate) const MAX_LINE_BYTES: usize = 4096;
/// Longest text of an event.
const MAX_WHY_BYTES: usize = 512;
/// How long a command may take unless VM.toml says otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// What to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookCommand {
    /// The program: a path, or a name that is looked for in `PATH`.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// It is killed when it takes longer.
    pub timeout: Duration,
}

/// What the runner is told first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Setup {
    pub(crate) vm: String,
    pub(crate) node: String,
    pub(crate) peer: String,
    pub(crate) log_json: bool,
    pub(crate) command: HookCommand,
}

/// What happened, as the command hears of it in its environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookEvent {
    /// `protection-lost`, `protection-regained`, `took-over`, …: docs/VM.md lists them.
    pub event: String,
    /// The highest generation that the node knows.
    pub generation: u64,
    /// The node's role now.
    pub role: String,
    /// Whether the VM is protected, as far as this node knows.
    pub protected: bool,
    /// One sentence for a person.
    pub why: String,
    /// When, in UTC.
    pub time: String,
}

/// Why an event does not reach the command.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum HookTrouble {
    /// The pipe is full: the runner doesn't read.
    #[error("the hook's process is stuck; it does not hear of {0}")]
    Full(String),
    /// The runner has ended.
    #[error(
        "the hook's process has ended; it hears of nothing any more until the node is started again"
    )]
    Gone,
}

/// The node's end.
#[derive(Debug)]
pub struct Hooks {
    events: Option<ChildStdin>,
    /// Says nothing: its end is the runner's end.
    end: ChildStdout,
    timeout: Duration,
    runner: Child,
}

impl Hooks {
    /// Starts `program args…`, which must call [`runner::run`], to run `command`.
    pub fn start(
        program: &OsStr,
        args: &[&str],
        (vm, node, peer): (&str, &str, &str),
        format: LogFormat,
        command: HookCommand,
    ) -> io::Result<Self> {
        let timeout = command.timeout;
        let setup = Setup {
            vm: vm.to_owned(),
            node: node.to_owned(),
            peer: peer.to_owned(),
            log_json: format == LogFormat::Json,
            command,
        };
        let (runner, events, end) = start_runner(program, args, &setup)?;
        fcntl_setfl(&events, fcntl_getfl(&events)? | OFlags::NONBLOCK)?;
        Ok(Self {
            events: Some(events),
            end,
            timeout,
            runner,
        })
    }

    /// The runner's process.
    pub fn pid(&self) -> u32 {
        self.runner.id()
    }

    /// Hands an event over; never blocks.
    pub fn tell(&mut self, mut event: HookEvent) -> Result<(), HookTrouble> {
        let Some(events) = &self.events else {
            return Ok(());
        };
        let end = event.why.floor_char_boundary(MAX_WHY_BYTES);
        event.why.truncate(end);
        let name = event.event.clone();
        let Some(line) = line(&event) else {
            return Err(HookTrouble::Full(name));
        };
        match rustix::io::write(events, &line) {
            Ok(_) => Ok(()),
            Err(Errno::AGAIN) => Err(HookTrouble::Full(name)),
            Err(_) => {
                self.events = None;
                Err(HookTrouble::Gone)
            }
        }
    }

    /// No more events: waits until the command has heard of all, at most for its time limit.
    pub fn finish(&mut self) {
        self.events = None;
        let until = Instant::now() + self.timeout;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let Ok(left) = Timespec::try_from(left) else {
                return;
            };
            match poll(&mut [PollFd::new(&self.end, PollFlags::IN)], Some(&left)) {
                Err(Errno::INTR) => {}
                _ => return,
            }
        }
    }
}

impl Drop for Hooks {
    fn drop(&mut self) {
        // Not waited for: it has a limit of its own, and this process, which may no longer ask about
        // others, ends soon.
        self.events = None;
    }
}

/// Starts `program args…`, a process that runs commands, and tells it `setup`: the process, the way
/// to it and the way back.
pub(crate) fn start_runner(
    program: &OsStr,
    args: &[&str],
    setup: &impl Serialize,
) -> io::Result<(Child, ChildStdin, ChildStdout)> {
    let first = line(setup)
        .ok_or_else(|| io::Error::other("the command and its arguments are too long"))?;
    let mut runner = Command::new(program)
        .arg0("twinvm")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let (Some(mut to), Some(from)) = (runner.stdin.take(), runner.stdout.take()) else {
        return Err(io::ErrorKind::BrokenPipe.into());
    };
    to.write_all(&first)?;
    Ok((runner, to, from))
}

/// As one line; `None` if it is too long.
pub(crate) fn line(value: &impl Serialize) -> Option<Vec<u8>> {
    let mut line = serde_json::to_vec(value).ok()?;
    line.push(b'\n');
    (line.len() <= MAX_LINE_BYTES).then_some(line)
}

#[cfg(test)]
mod tests;
