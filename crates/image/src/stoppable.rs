//! Programs that a signal to us ends in good order: what they and we have set up on the host is
//! undone before we end.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};

use crate::ImageError;

/// So many last lines of a failed program are looked through for its reason.
const KEPT_LINES: usize = 200;

#[derive(Debug, Default)]
struct State {
    stopped: bool,
    child: Option<Pid>,
}

/// From its making to its end, signals that ask us to stop end the program at hand instead.
#[derive(Debug)]
pub(crate) struct Stoppable {
    state: Arc<Mutex<State>>,
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

impl Stoppable {
    pub(crate) fn start() -> std::io::Result<Self> {
        let state = Arc::new(Mutex::new(State::default()));
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
        let handle = signals.handle();
        let shared = Arc::clone(&state);
        let thread = thread::Builder::new().spawn(move || {
            for _ in &mut signals {
                let mut state = shared.lock().unwrap_or_else(PoisonError::into_inner);
                state.stopped = true;
                if let Some(child) = state.child {
                    // It may have ended this moment; then there is nothing to end.
                    let _ = kill_process(child, Signal::KILL);
                }
            }
        })?;
        Ok(Self {
            state,
            handle,
            thread: Some(thread),
        })
    }

    fn child(&self, child: Option<Pid>) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.child = child;
        state.stopped
    }

    /// Runs a program with its output and errors in the file `log`, and gives them line by line.
    ///
    /// A signal kills the program at once: what it has started must end with it (as in a process
    /// namespace), and its mounts must go by themselves (as in a mount namespace).
    pub(crate) fn run(
        &self,
        mut command: Command,
        program: &'static str,
        doing: &str,
        log: &Path,
        mut line: impl FnMut(&str),
    ) -> Result<(), ImageError> {
        let failed = |said: String| ImageError::Failed {
            program,
            doing: doing.to_owned(),
            said,
        };
        let broken = |error: std::io::Error| failed(error.to_string());
        let mut file = File::options()
            .create(true)
            .append(true)
            .open(log)
            .map_err(ImageError::io(log))?;
        let (output, input) = std::io::pipe().map_err(broken)?;
        command
            .env("LC_ALL", "C.UTF-8")
            .stdin(Stdio::null())
            .stdout(input.try_clone().map_err(broken)?)
            .stderr(input);
        let mut child = command.spawn().map_err(broken)?;
        // It holds the pipe's other end.
        drop(command);
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        if self.child(pid) {
            let _ = child.kill();
        }
        let mut last = VecDeque::new();
        let mut output = BufReader::new(output);
        let mut bytes = Vec::new();
        while output
            .read_until(b'\n', &mut bytes)
            .is_ok_and(|count| count > 0)
        {
            let _ = file.write_all(&bytes);
            let text = String::from_utf8_lossy(&bytes).trim_end().to_owned();
            bytes.clear();
            line(&text);
            if last.len() == KEPT_LINES {
                last.pop_front();
            }
            last.push_back(text);
        }
        let status = child.wait().map_err(broken)?;
        if self.child(None) {
            return Err(ImageError::Stopped);
        }
        if status.success() {
            return Ok(());
        }
        let said = reason(last.make_contiguous()).unwrap_or_else(|| status.to_string());
        Err(failed(format!(
            "{said}; all it said is in {}",
            log.display()
        )))
    }
}

impl Drop for Stoppable {
    fn drop(&mut self) {
        self.handle.close();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The first line that says that it is an error, else the last line.
fn reason(lines: &[String]) -> Option<String> {
    let is_error = |line: &&String| {
        let line = line.trim_start();
        line.starts_with("E: ") || line.starts_with("dpkg: error") || line.contains(": error: ")
    };
    lines
        .iter()
        .find(is_error)
        .or_else(|| lines.iter().rfind(|line| !line.trim().is_empty()))
        .map(|line| line.trim().trim_start_matches("E: ").to_owned())
}

#[cfg(test)]
mod tests;
