//! The process that runs the command: one thread, nothing of the node's.
//!
//! Signals that end a node leave it alone, so that the command still hears of the end: what ends
//! it is the end of its input, and then the time limit.

use std::collections::VecDeque;
use std::io::{self, PipeReader};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process_group};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use twinvm_protocol::NoteLevel;

use super::{HookCommand, HookEvent, MAX_LINE_BYTES, Setup};
use crate::journal::{Journal, LogFormat};

/// Events that wait while the command runs. When there are more the oldest is left out: what
/// is true now matters most.
const MAX_WAITING: usize = 16;
/// What the command prints is kept up to this, the rest is read and forgotten.
const MAX_OUTPUT_BYTES: usize = 4096;
/// Lines of it that go to the journal.
const MAX_OUTPUT_LINES: usize = 20;
/// How often a running command is looked at: 20 ms.
const LOOK: Duration = Duration::from_millis(20);
/// Variables of the node's process that mean nothing to others.
const NOT_FOR_THE_COMMAND: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"];

/// The runner's `main`: reads from standard input until that ends.
pub fn run() -> io::Result<()> {
    // A handler, which a program that is started doesn't inherit, and not "ignore", which it would.
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false)))?;
    }
    let stdin = io::stdin();
    let mut lines = Lines::default();
    let setup: Setup = loop {
        if let Some(line) = lines.take() {
            break serde_json::from_slice(&line)?;
        }
        if !lines.read(&stdin)? {
            return Ok(());
        }
    };
    let format = match setup.log_json {
        true => LogFormat::Json,
        false => LogFormat::Text,
    };
    let mut journal = Journal::new(format, &setup.vm, &setup.node);
    serve(&stdin, lines, &setup, &mut |level, generation, text| {
        journal.set_generation(generation);
        journal.tell(level, "hook", text);
    })
}

/// Where lines go: their weight, the generation of the event and the text.
type Tell<'a> = &'a mut dyn FnMut(NoteLevel, u64, &str);

/// Runs the command for every event until the input ends.
pub(crate) fn serve(
    input: &impl AsFd,
    mut lines: Lines,
    setup: &Setup,
    tell: Tell<'_>,
) -> io::Result<()> {
    let mut waiting = Waiting::default();
    let mut running: Option<Running> = None;
    let mut ends_at = None;
    loop {
        while let Some(line) = lines.take() {
            waiting.push(serde_json::from_slice(&line)?, tell);
        }
        if ends_at.is_some_and(|at| Instant::now() >= at) {
            waiting.events.clear();
        }
        match &mut running {
            Some(command) => {
                if command.has_ended(setup.command.timeout, ends_at) {
                    command.report(tell);
                    running = None;
                    continue;
                }
            }
            None => match waiting.events.pop_front() {
                Some(event) => {
                    running = Running::start(setup, event, &mut waiting.left_out, tell);
                    continue;
                }
                None if ends_at.is_some() => return Ok(()),
                None => {}
            },
        }
        let open = ends_at.is_none().then_some(input);
        wait(open, running.as_ref())?;
        if let Some(input) = open
            && readable(input)?
            && !lines.read(input)?
        {
            ends_at = Some(Instant::now() + setup.command.timeout);
        }
    }
}

/// Events that wait.
#[derive(Default)]
struct Waiting {
    events: VecDeque<HookEvent>,
    /// Events that the command never hears of, since it was last run.
    left_out: u64,
}

impl Waiting {
    fn push(&mut self, event: HookEvent, tell: Tell<'_>) {
        if self.events.len() >= MAX_WAITING
            && let Some(oldest) = self.events.pop_front()
        {
            self.left_out += 1;
            let text = format!("too many events at a time: {} is left out", oldest.event);
            tell(NoteLevel::Warn, oldest.generation, &text);
        }
        self.events.push_back(event);
    }
}

/// Until something can be read, or a running command is to be looked at.
fn wait(input: Option<&impl AsFd>, running: Option<&Running>) -> io::Result<()> {
    let mut fds = Vec::new();
    fds.extend(input.map(|input| PollFd::new(input, PollFlags::IN)));
    fds.extend(
        running.and_then(|running| Some(PollFd::new(running.output.as_ref()?, PollFlags::IN))),
    );
    let look = Timespec::try_from(LOOK).unwrap_or_default();
    match poll(&mut fds, running.is_some().then_some(&look)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Whether a read would not block.
fn readable(fd: &impl AsFd) -> io::Result<bool> {
    match poll(
        &mut [PollFd::new(fd, PollFlags::IN)],
        Some(&Timespec::default()),
    ) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The command at work.
struct Running {
    event: HookEvent,
    child: Child,
    /// Gone once it has ended.
    output: Option<PipeReader>,
    said: Vec<u8>,
    /// Printed beyond what is kept.
    unsaid: usize,
    since: Instant,
    status: Option<ExitStatus>,
    /// Why it was killed, if it was.
    killed: Option<&'static str>,
}

impl Running {
    fn start(setup: &Setup, event: HookEvent, left_out: &mut u64, tell: Tell<'_>) -> Option<Self> {
        match spawn(setup, &event, *left_out) {
            Ok((child, output)) => {
                *left_out = 0;
                Some(Self {
                    event,
                    child,
                    output: Some(output),
                    said: Vec::new(),
                    unsaid: 0,
                    since: Instant::now(),
                    status: None,
                    killed: None,
                })
            }
            Err(error) => {
                let program = setup.command.program.display();
                let text = format!(
                    "{}: can't run {program}: {error}; see [hooks] in VM.toml",
                    event.event
                );
                tell(NoteLevel::Warn, event.generation, &text);
                None
            }
        }
    }

    /// Reads what it prints, and ends it when its time is over.
    fn has_ended(&mut self, timeout: Duration, ends_at: Option<Instant>) -> bool {
        // Before its output, which is whole then; what its children print later is theirs.
        if let Ok(Some(status)) = self.child.try_wait() {
            self.status = Some(status);
        }
        self.read_output();
        if self.status.is_some() {
            return true;
        }
        let now = Instant::now();
        let over = if now.duration_since(self.since) >= timeout {
            Some("it took too long")
        } else {
            let ended = ends_at.is_some_and(|at| now >= at);
            ended.then_some("the node has ended")
        };
        if over.is_some() && self.killed.is_none() {
            self.killed = over;
            // Its own group: what it has started goes with it.
            let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        }
        false
    }

    fn read_output(&mut self) {
        let mut piece = [0; 1024];
        // As much as one look may take: a command that prints for ever has its limit too.
        for _ in 0..64 {
            let Some(output) = &self.output else {
                return;
            };
            if !readable(output).unwrap_or(false) {
                return;
            }
            match rustix::io::read(output, &mut piece) {
                Ok(0) | Err(_) => self.output = None,
                Ok(count) => {
                    let room = MAX_OUTPUT_BYTES - self.said.len();
                    self.said.extend_from_slice(&piece[..count.min(room)]);
                    self.unsaid += count.saturating_sub(room);
                }
            }
        }
    }

    /// How it ended and what it said.
    fn report(&self, tell: Tell<'_>) {
        let HookEvent {
            event, generation, ..
        } = &self.event;
        let text = String::from_utf8_lossy(&self.said);
        let mut lines = text.lines().filter(|line| !line.trim().is_empty());
        for line in lines.by_ref().take(MAX_OUTPUT_LINES) {
            tell(NoteLevel::Info, *generation, &format!("{event}: {line}"));
        }
        if self.unsaid > 0 || lines.next().is_some() {
            let text = format!("{event}: it printed more, which is left out");
            tell(NoteLevel::Info, *generation, &text);
        }
        let ms = self.since.elapsed().as_millis();
        let (level, how) = match self.status {
            Some(status) if status.success() => (NoteLevel::Info, status.to_string()),
            status => match (self.killed, status) {
                (None, Some(status)) => (NoteLevel::Warn, status.to_string()),
                (why, _) => (
                    NoteLevel::Warn,
                    format!("killed: {}", why.unwrap_or_default()),
                ),
            },
        };
        tell(
            level,
            *generation,
            &format!("{event}: the command has ended after {ms} ms: {how}"),
        );
    }
}

fn spawn(setup: &Setup, event: &HookEvent, left_out: u64) -> io::Result<(Child, PipeReader)> {
    let HookCommand { program, args, .. } = &setup.command;
    let (output, printed) = io::pipe()?;
    let mut command = Command::new(program);
    for name in NOT_FOR_THE_COMMAND {
        command.env_remove(name);
    }
    let child = command
        .args(args)
        .env("TWINVM_VM", &setup.vm)
        .env("TWINVM_NODE", &setup.node)
        .env("TWINVM_PEER", &setup.peer)
        .env("TWINVM_EVENT", &event.event)
        .env("TWINVM_GENERATION", event.generation.to_string())
        .env("TWINVM_ROLE", &event.role)
        .env(
            "TWINVM_PROTECTED",
            if event.protected { "yes" } else { "no" },
        )
        .env("TWINVM_WHY", &event.why)
        .env("TWINVM_TIME", &event.time)
        .env("TWINVM_LEFT_OUT", left_out.to_string())
        .stdin(Stdio::null())
        .stdout(printed.try_clone()?)
        .stderr(printed)
        .process_group(0)
        .spawn()?;
    Ok((child, output))
}

/// Cuts what is read into lines.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    /// The next whole line, without its end.
    fn take(&mut self) -> Option<Vec<u8>> {
        let end = self.rest.iter().position(|byte| *byte == b'\n')?;
        let behind = self.rest.split_off(end + 1);
        let mut line = std::mem::replace(&mut self.rest, behind);
        line.pop();
        Some(line)
    }

    /// Reads once; false at the end.
    fn read(&mut self, input: &impl AsFd) -> io::Result<bool> {
        if self.rest.len() > MAX_LINE_BYTES {
            return Err(io::Error::other("a line that is too long"));
        }
        let mut piece = [0; MAX_LINE_BYTES];
        loop {
            match rustix::io::read(input, &mut piece) {
                Ok(0) => return Ok(false),
                Ok(count) => {
                    self.rest.extend_from_slice(&piece[..count]);
                    return Ok(true);
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}
