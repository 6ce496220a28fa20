//! A command of the owner's at work: in a process group of its own, what it prints kept up to a
//! bound, ended when its time is over.

use std::env;
use std::fs;
use std::io::{self, PipeReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Access, access};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process_group};

use super::HookCommand;

/// What the command prints is kept up to this, the rest is read and forgotten.
pub(crate) const MAX_OUTPUT_BYTES: usize = 4096;
/// How often a running command is looked at: 20 ms.
pub(crate) const LOOK: Duration = Duration::from_millis(20);
/// Variables of the node's process that mean nothing to others.
const NOT_FOR_THE_COMMAND: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"];

/// The command at work.
pub(crate) struct AtWork {
    child: Child,
    /// Gone once it has ended.
    output: Option<PipeReader>,
    said: Vec<u8>,
    /// Printed beyond what is kept.
    pub(crate) unsaid: usize,
    pub(crate) since: Instant,
    pub(crate) status: Option<ExitStatus>,
    /// Why it was killed, if it was.
    pub(crate) killed: Option<&'static str>,
}

/// Where a program is looked for if there is no PATH, as the C library does.
const USUAL_PATH: &str = "/bin:/usr/bin";

/// Whether the program is there and this user may run it; a name without a slash is looked for in
/// PATH.
pub(crate) fn look(program: &Path) -> io::Result<()> {
    let runs = |file: &Path| -> io::Result<()> {
        match fs::metadata(file)?.is_file() {
            true => Ok(access(file, Access::EXEC_OK)?),
            false => Err(io::ErrorKind::PermissionDenied.into()),
        }
    };
    if program.components().count() > 1 {
        return runs(program);
    }
    let path = env::var_os("PATH").unwrap_or_else(|| USUAL_PATH.into());
    let found = env::split_paths(&path).any(|folder| runs(&folder.join(program)).is_ok());
    match found {
        true => Ok(()),
        false => Err(io::Error::new(io::ErrorKind::NotFound, "it is not in PATH")),
    }
}

impl AtWork {
    /// Starts it with these variables.
    pub(crate) fn start(command: &HookCommand, variables: &[(&str, &str)]) -> io::Result<Self> {
        let (output, printed) = io::pipe()?;
        let mut process = Command::new(&command.program);
        for name in NOT_FOR_THE_COMMAND {
            process.env_remove(name);
        }
        let child = process
            .args(&command.args)
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(printed.try_clone()?)
            .stderr(printed)
            .process_group(0)
            .spawn()?;
        Ok(Self {
            child,
            output: Some(output),
            said: Vec::new(),
            unsaid: 0,
            since: Instant::now(),
            status: None,
            killed: None,
        })
    }

    /// What to wait for beside [`LOOK`].
    pub(crate) fn output(&self) -> Option<&PipeReader> {
        self.output.as_ref()
    }

    /// Reads what it prints, and ends it when its time is over, or with the node.
    pub(crate) fn has_ended(&mut self, timeout: Duration, node_ends: Option<Instant>) -> bool {
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
            let ended = node_ends.is_some_and(|at| now >= at);
            ended.then_some("the node has ended")
        };
        if over.is_some() && self.killed.is_none() {
            self.killed = over;
            // Its own group: what it has started goes with it.
            let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        }
        false
    }

    /// What it has printed, as far as it is kept.
    pub(crate) fn said(&self) -> String {
        String::from_utf8_lossy(&self.said).into_owned()
    }

    /// How it has ended, and whether well.
    pub(crate) fn how(&self) -> Result<String, String> {
        match (self.killed, self.status) {
            (_, Some(status)) if status.success() => Ok(status.to_string()),
            (None, Some(status)) => Err(status.to_string()),
            (why, _) => Err(format!("killed: {}", why.unwrap_or_default())),
        }
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
}

/// Whether a read would not block.
pub(crate) fn readable(fd: &impl std::os::fd::AsFd) -> io::Result<bool> {
    match poll(
        &mut [PollFd::new(fd, PollFlags::IN)],
        Some(&Timespec::default()),
    ) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// A shell script of a test's, at work in its folder. Another process writes it: a child that this
/// one starts at that moment for another test would hold it open for writing, and such a file can't
/// be executed (`ETXTBSY`).
#[cfg(test)]
pub(crate) fn script(folder: &std::path::Path, text: &str) -> std::path::PathBuf {
    use std::io::Write;
    let program = folder.join("command");
    let mut child = Command::new("sh")
        .args(["-c", "cat >\"$0\" && chmod 755 \"$0\""])
        .arg(&program)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    write!(stdin, "#!/bin/sh\ncd {folder:?}\n{text}").unwrap();
    drop(stdin);
    assert!(child.wait().unwrap().success());
    program
}
