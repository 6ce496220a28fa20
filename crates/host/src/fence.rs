//! A command of the owner's that keeps a former live node off a disk, for servers that can't.
//!
//! As with hooks the node never runs it: a small process does, started before the node has threads
//! or gives up rights ([`run`] is its `main`). It is asked for one generation at a time, says how
//! the command has ended, and ends with the node. A command that is still at work for an older
//! generation is killed.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::process::{Child, ChildStdin, ChildStdout};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::hooks::command::{AtWork, LOOK, look, readable};
use crate::hooks::runner::{Lines, outlive_signals};
use crate::hooks::{HookCommand, line, start_runner};

/// How long the command may take unless VM.toml says otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
/// How often who waits for the command looks whether it is still wanted.
const LOOK_EACH: Duration = Duration::from_millis(200);
/// Of what the command printed, the last line is told up to this.
const MAX_SAID_BYTES: usize = 256;

/// What the process is told first.
#[derive(Debug, Serialize, Deserialize)]
struct Setup {
    vm: String,
    node: String,
    peer: String,
    disk: String,
    command: HookCommand,
}

/// One wish.
#[derive(Debug, Serialize, Deserialize)]
struct Wish {
    number: u64,
    generation: u64,
    takeover: bool,
}

/// How it went.
#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    number: u64,
    trouble: Option<String>,
}

/// The node's end.
pub struct Fence {
    pipes: Mutex<Pipes>,
    _runner: Child,
}

struct Pipes {
    wishes: ChildStdin,
    answers: ChildStdout,
    lines: Lines,
    number: u64,
}

impl Fence {
    /// Starts `program args…`, which must call [`run`], to run `command` for this disk.
    ///
    /// # Errors
    /// The process can't be started, or the command is nothing that can be run: at a takeover it
    /// would be too late to hear of that.
    pub fn start(
        program: &OsStr,
        args: &[&str],
        (vm, node, peer): (&str, &str, &str),
        disk: String,
        command: HookCommand,
    ) -> io::Result<Self> {
        let setup = Setup {
            vm: vm.to_owned(),
            node: node.to_owned(),
            peer: peer.to_owned(),
            disk,
            command,
        };
        look(&setup.command.program).map_err(|error| {
            let program = setup.command.program.display();
            io::Error::new(error.kind(), format!("{program}: {error}"))
        })?;
        let (runner, wishes, answers) = start_runner(program, args, &setup)?;
        Ok(Self {
            pipes: Mutex::new(Pipes {
                wishes,
                answers,
                lines: Lines::default(),
                number: 0,
            }),
            _runner: runner,
        })
    }

    /// Has the command run for a node that goes live by this generation. None if it was not waited
    /// for, since `wanted` said no.
    pub(crate) fn keep_off(
        &self,
        generation: u64,
        takeover: bool,
        wanted: &dyn Fn() -> bool,
    ) -> Option<Result<(), String>> {
        let mut pipes = self.pipes.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = pipes.ask(generation, takeover, wanted);
        answer.unwrap_or_else(|error| {
            Some(Err(format!(
                "the process that runs the command has ended ({error}): start the node again"
            )))
        })
    }
}

impl Pipes {
    fn ask(
        &mut self,
        generation: u64,
        takeover: bool,
        wanted: &dyn Fn() -> bool,
    ) -> io::Result<Option<Result<(), String>>> {
        self.number += 1;
        let wish = Wish {
            number: self.number,
            generation,
            takeover,
        };
        let bytes = line(&wish).ok_or(io::ErrorKind::InvalidData)?;
        self.wishes.write_all(&bytes)?;
        while wanted() {
            if !wait(&[&self.answers.as_fd()], LOOK_EACH)? {
                continue;
            }
            if !self.lines.read(&self.answers)? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            while let Some(line) = self.lines.take() {
                let answer: Answer = serde_json::from_slice(&line)?;
                // Others were for wishes that nobody waits for.
                if answer.number == self.number {
                    return Ok(Some(answer.trouble.map_or(Ok(()), Err)));
                }
            }
        }
        Ok(None)
    }
}

/// A fence, and what is to be said to it.
#[derive(Clone)]
pub struct Fencing {
    /// The fence.
    pub fence: Arc<Fence>,
    /// Another node was live before, by the record.
    pub takeover: bool,
}

/// The process's `main`: reads from standard input until that ends.
///
/// # Errors
/// The pipes to the node are broken.
pub fn run() -> io::Result<()> {
    outlive_signals()?;
    let stdin = io::stdin();
    let mut lines = Lines::default();
    let Some(setup) = lines.first::<Setup>(&stdin)? else {
        return Ok(());
    };
    serve(&stdin, lines, &setup, &mut |answer| {
        let line = line(&answer).ok_or(io::ErrorKind::InvalidData)?;
        let mut out = io::stdout().lock();
        out.write_all(&line)?;
        out.flush()
    })
}

fn serve(
    input: &impl AsFd,
    mut lines: Lines,
    setup: &Setup,
    say: &mut dyn FnMut(Answer) -> io::Result<()>,
) -> io::Result<()> {
    let mut wish: Option<Wish> = None;
    let mut running: Option<(u64, AtWork)> = None;
    let mut ends = false;
    loop {
        while let Some(line) = lines.take() {
            wish = Some(serde_json::from_slice(&line)?);
        }
        match &mut running {
            Some((number, command)) => {
                // Nobody wants it any more.
                let over = (ends || wish.is_some()).then(Instant::now);
                if command.has_ended(setup.command.timeout, over) {
                    let (number, trouble) = (*number, trouble(command));
                    running = None;
                    if !ends {
                        say(Answer { number, trouble })?;
                    }
                    continue;
                }
            }
            None if ends => return Ok(()),
            None => {
                if let Some(wish) = wish.take() {
                    match start(setup, &wish) {
                        Ok(command) => running = Some((wish.number, command)),
                        Err(error) => say(Answer {
                            number: wish.number,
                            trouble: Some(format!(
                                "can't run {}: {error}",
                                setup.command.program.display()
                            )),
                        })?,
                    }
                    continue;
                }
            }
        }
        let most = match running {
            Some(_) => LOOK,
            None => Duration::MAX,
        };
        let mut fds: Vec<&dyn AsFd> = Vec::new();
        if !ends {
            fds.push(input);
        }
        if let Some((_, command)) = &running
            && let Some(output) = command.output()
        {
            fds.push(output);
        }
        wait(&fds, most)?;
        ends = ends || readable(input)? && !lines.read(input)?;
    }
}

fn start(setup: &Setup, wish: &Wish) -> io::Result<AtWork> {
    let generation = wish.generation.to_string();
    let event = match wish.takeover {
        true => "took-over",
        false => "went-live",
    };
    let variables = [
        ("TWINVM_VM", &*setup.vm),
        ("TWINVM_NODE", &setup.node),
        ("TWINVM_PEER", &setup.peer),
        ("TWINVM_DISK", &setup.disk),
        ("TWINVM_EVENT", event),
        ("TWINVM_GENERATION", &generation),
    ];
    AtWork::start(&setup.command, &variables)
}

/// Why a command that has ended doesn't count, if so: how it ended and the last thing it said.
fn trouble(command: &AtWork) -> Option<String> {
    let how = command.how().err()?;
    let said = command.said();
    let last = said.lines().rfind(|line| !line.trim().is_empty());
    Some(match last {
        Some(last) => {
            let end = last.floor_char_boundary(MAX_SAID_BYTES);
            format!("{how}: {}", &last[..end])
        }
        None => how,
    })
}

/// Whether something can be read from one of these, within this time.
fn wait(fds: &[&dyn AsFd], most: Duration) -> io::Result<bool> {
    let mut fds: Vec<_> = fds
        .iter()
        .map(|fd| PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN))
        .collect();
    let most = Timespec::try_from(most).ok();
    match poll(&mut fds, most.as_ref()) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests;
