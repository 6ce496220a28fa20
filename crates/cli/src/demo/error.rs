//! Why a demonstration can't begin or go on.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Why a demonstration can't begin or go on, by whose turn it is to mend it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DemoError {
    /// What was asked for can't be.
    #[error("{0}")]
    Input(String),
    /// Something of ours didn't do its part.
    #[error("{what}{}", Hint(.log))]
    Failed {
        /// What was expected and what happened.
        what: String,
        /// The log that is likely to say why.
        log: Option<LogTail>,
    },
    /// The client's connection or answers are broken: the run ends early, with its verdict.
    #[error("the client can't go on: {0}")]
    Client(String),
    /// A signal asked for the end.
    #[error("interrupted; everything that was started has been stopped")]
    Interrupted,
}

impl DemoError {
    /// A fault of ours that no log explains.
    pub(crate) fn failed(what: impl Into<String>) -> Self {
        Self::Failed {
            what: what.into(),
            log: None,
        }
    }

    /// A fault of ours that the log at `path` is likely to explain.
    pub(crate) fn failed_see(what: impl Into<String>, path: &Path) -> Self {
        Self::Failed {
            what: what.into(),
            log: Some(LogTail::read(path)),
        }
    }

    /// Turns a failure of the system into one that names the file.
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |error| Self::failed(format!("{}: {error}", path.display()))
    }

    /// The exit code of the process.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Client(_) => 1,
            Self::Input(_) => 2,
            Self::Failed { .. } => 125,
            Self::Interrupted => 130,
        }
    }
}

/// The last lines of a log file.
#[derive(Debug)]
pub(crate) struct LogTail {
    path: PathBuf,
    lines: Vec<String>,
}

/// Lines of a log that are shown.
const TAIL_LINES: usize = 15;
/// Bytes at the end of a log that are looked at.
const TAIL_BYTES: u64 = 16 << 10;

impl LogTail {
    /// Reads the end of the file; a file that can't be read has no lines.
    pub(crate) fn read(path: &Path) -> Self {
        let text = super::processes::read_end(path, TAIL_BYTES).unwrap_or_default();
        let lines: Vec<String> = text.lines().map(printable).collect();
        let first = lines.len().saturating_sub(TAIL_LINES);
        Self {
            path: path.to_owned(),
            lines: lines[first..].to_vec(),
        }
    }
}

/// A guest's console may hold anything; the terminal gets none of its control characters.
fn printable(line: &str) -> String {
    line.chars().filter(|c| !c.is_control()).collect()
}

struct Hint<'a>(&'a Option<LogTail>);

impl fmt::Display for Hint<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(log) = self.0 else {
            return Ok(());
        };
        if log.lines.is_empty() {
            return write!(f, "\nThe log {} says nothing.", log.path.display());
        }
        write!(f, "\nThe log {} ends with:", log.path.display())?;
        for line in &log.lines {
            write!(f, "\n    {line}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
