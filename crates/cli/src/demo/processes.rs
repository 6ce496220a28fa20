//! The processes that the demonstration starts, each with a log file. None outlives it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::error::DemoError;

/// How often a process that is to end is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// A process that ends, at the latest, when this value does.
#[derive(Debug)]
pub(crate) struct Process {
    what: String,
    log: PathBuf,
    child: Child,
}

impl Process {
    /// Starts `command` with its output appended to the file `log`. `what` names it in messages.
    pub(crate) fn start(
        what: impl Into<String>,
        command: &mut Command,
        log: &Path,
    ) -> Result<Self, DemoError> {
        Self::start_reading(what, command, log, Stdio::null())
    }

    /// Like [`Self::start`], and the process reads `stdin`.
    pub(crate) fn start_reading(
        what: impl Into<String>,
        command: &mut Command,
        log: &Path,
        stdin: Stdio,
    ) -> Result<Self, DemoError> {
        let what = what.into();
        let mut options = OpenOptions::new();
        let file = options.create(true).append(true).open(log);
        let file = file.map_err(DemoError::io(log))?;
        let second = file.try_clone().map_err(DemoError::io(log))?;
        let child = command
            .stdin(stdin)
            .stdout(file)
            .stderr(second)
            // Ctrl-C on the terminal is for us; we end the others in good order.
            .process_group(0)
            .spawn()
            .map_err(|error| DemoError::failed(format!("{what} can't be started: {error}")))?;
        Ok(Self {
            what,
            log: log.to_owned(),
            child,
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The other end of a piped standard input; once.
    pub(crate) fn take_stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    pub(crate) fn log(&self) -> &Path {
        &self.log
    }

    /// The error to give if the process has ended.
    pub(crate) fn check(&mut self) -> Result<(), DemoError> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(DemoError::failed_see(
                format!("{} has ended by itself ({})", self.what, in_words(status)),
                &self.log,
            )),
            Err(error) => Err(DemoError::failed(format!("{}: {error}", self.what))),
        }
    }

    /// SIGKILL, and waits until the process is gone.
    pub(crate) fn kill(mut self) {
        self.kill_and_reap();
    }

    /// SIGTERM, which asks for an orderly end.
    pub(crate) fn terminate(&mut self) {
        self.signal(Signal::TERM);
    }

    /// Sends a signal, if the process still runs.
    pub(crate) fn signal(&mut self, signal: Signal) {
        // A process that was reaped has no id of its own any more.
        if let Ok(None) = self.child.try_wait() {
            // It may end at this very moment; nobody else has the id until it is reaped.
            let _ = kill_process(Pid::from_child(&self.child), signal);
        }
    }

    /// Waits for the end until `deadline`; true if it has come.
    pub(crate) fn wait(&mut self, deadline: Instant) -> bool {
        loop {
            match self.child.try_wait() {
                Ok(Some(_)) | Err(_) => return true,
                Ok(None) if Instant::now() >= deadline => return false,
                Ok(None) => thread::sleep(LOOK),
            }
        }
    }

    /// True once the process has ended with exit code 0.
    pub(crate) fn has_succeeded(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(status)) if status.success())
    }

    fn kill_and_reap(&mut self) {
        // Both do nothing once it has been reaped.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill_and_reap();
    }
}

fn in_words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}

/// At most the last `bytes` of a file, as text.
pub(crate) fn read_end(path: &Path, bytes: u64) -> io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(bytes)))?;
    let mut end = Vec::new();
    file.take(bytes).read_to_end(&mut end)?;
    Ok(String::from_utf8_lossy(&end).into_owned())
}

#[cfg(test)]
mod tests;
