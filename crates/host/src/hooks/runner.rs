//! The process that runs the command: one thread, nothing of the node's.
//!
//! Signals that end a node leave it alone, so that the command still hears of the end: what ends
//! it is the end of its input, and then the time limit.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use serde::de::DeserializeOwned;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use twinvm_protocol::NoteLevel;

use super::command::{self, AtWork, LOOK, readable};
use super::{HookEvent, MAX_LINE_BYTES, Setup};
use crate::journal::{Journal, LogFormat};

/// Events that wait while the command runs. When there are more the oldest is left out: what
/// is true now matters most.
const MAX_WAITING: usize = 16;
/// Lines of it that go to the journal.
const MAX_OUTPUT_LINES: usize = 20;

/// The runner's `main`: reads from standard input until that ends.
pub fn run() -> io::Result<()> {
    outlive_signals()?;
    let stdin = io::stdin();
    let mut lines = Lines::default();
    let Some(setup) = lines.first::<Setup>(&stdin)? else {
        return Ok(());
    };
    let format = match setup.log_json {
        true => LogFormat::Json,
        false => LogFormat::Text,
    };
    let mut journal = Journal::new(format, &setup.vm, &setup.node);
    let program = &setup.command.program;
    if let Err(error) = command::look(program) {
        // Now, and not at the first event, which may be years away.
        let program = program.display();
        let text = format!("{program} can't be run, so nobody would hear of anything: {error}");
        journal.tell(NoteLevel::Warn, "hook", &text);
    }
    serve(&stdin, lines, &setup, &mut |level, generation, text| {
        journal.set_generation(generation);
        journal.tell(level, "hook", text);
    })
}

/// From now on signals that end a node leave this process alone.
pub(crate) fn outlive_signals() -> io::Result<()> {
    // A handler, which a program that is started doesn't inherit, and not "ignore", which it would.
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false)))?;
    }
    Ok(())
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
            Some(now) => {
                if now.command.has_ended(setup.command.timeout, ends_at) {
                    now.report(tell);
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
        running.and_then(|running| Some(PollFd::new(running.command.output()?, PollFlags::IN))),
    );
    let look = Timespec::try_from(LOOK).unwrap_or_default();
    match poll(&mut fds, running.is_some().then_some(&look)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The command at work for an event.
struct Running {
    event: HookEvent,
    command: AtWork,
}

impl Running {
    fn start(setup: &Setup, event: HookEvent, left_out: &mut u64, tell: Tell<'_>) -> Option<Self> {
        let generation = event.generation.to_string();
        let missed = left_out.to_string();
        let variables = [
            ("TWINVM_VM", &*setup.vm),
            ("TWINVM_NODE", &setup.node),
            ("TWINVM_PEER", &setup.peer),
            ("TWINVM_EVENT", &event.event),
            ("TWINVM_GENERATION", &generation),
            ("TWINVM_ROLE", &event.role),
            (
                "TWINVM_PROTECTED",
                if event.protected { "yes" } else { "no" },
            ),
            ("TWINVM_WHY", &event.why),
            ("TWINVM_TIME", &event.time),
            ("TWINVM_LEFT_OUT", &missed),
        ];
        match AtWork::start(&setup.command, &variables) {
            Ok(command) => {
                *left_out = 0;
                Some(Self { event, command })
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

    /// How it ended and what it said.
    fn report(&self, tell: Tell<'_>) {
        let HookEvent {
            event, generation, ..
        } = &self.event;
        let text = self.command.said();
        let mut lines = text.lines().filter(|line| !line.trim().is_empty());
        for line in lines.by_ref().take(MAX_OUTPUT_LINES) {
            tell(NoteLevel::Info, *generation, &format!("{event}: {line}"));
        }
        if self.command.unsaid > 0 || lines.next().is_some() {
            let text = format!("{event}: it printed more, which is left out");
            tell(NoteLevel::Info, *generation, &text);
        }
        let ms = self.command.since.elapsed().as_millis();
        let (level, how) = match self.command.how() {
            Ok(how) => (NoteLevel::Info, how),
            Err(how) => (NoteLevel::Warn, how),
        };
        tell(
            level,
            *generation,
            &format!("{event}: the command has ended after {ms} ms: {how}"),
        );
    }
}

/// Cuts what is read into lines.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    /// The next whole line, without its end.
    pub(crate) fn take(&mut self) -> Option<Vec<u8>> {
        let end = self.rest.iter().position(|byte| *byte == b'\n')?;
        let behind = self.rest.split_off(end + 1);
        let mut line = std::mem::replace(&mut self.rest, behind);
        line.pop();
        Some(line)
    }

    /// What the first line says, waited for; none if there is none.
    pub(crate) fn first<T: DeserializeOwned>(
        &mut self,
        input: &impl AsFd,
    ) -> io::Result<Option<T>> {
        loop {
            if let Some(line) = self.take() {
                return Ok(Some(serde_json::from_slice(&line)?));
            }
            if !self.read(input)? {
                return Ok(None);
            }
        }
    }

    /// Reads once; false at the end.
    pub(crate) fn read(&mut self, input: &impl AsFd) -> io::Result<bool> {
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
