//! At which of the guest's steps a line was typed: a recording knows it exactly.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use twinvm_log::{Body, LogReader};

use crate::demo::error::DemoError;

/// The lines that were typed on the serial console, in order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Typed(Vec<Line>);

#[derive(Debug, PartialEq, Eq)]
struct Line {
    text: String,
    /// Steps before its first byte came.
    first: u64,
    /// Steps before its end came.
    last: u64,
}

impl Typed {
    /// Reads the log of a recording.
    pub(crate) fn read(log: &Path) -> Result<Self, DemoError> {
        let file = File::open(log).map_err(DemoError::io(log))?;
        let bad =
            |error: twinvm_log::ReadError| DemoError::failed(format!("{}: {error}", log.display()));
        let mut typed = Vec::new();
        for entry in LogReader::new(BufReader::new(file)).map_err(bad)? {
            let record = entry.map_err(bad)?.record;
            if let Body::ConsoleRx { bytes } = record.body {
                typed.push((record.icount, bytes));
            }
        }
        Ok(Self::of(typed))
    }

    /// Takes pieces of what was typed, each with the steps before it.
    pub(super) fn of(pieces: impl IntoIterator<Item = (u64, Vec<u8>)>) -> Self {
        let mut lines = Vec::new();
        let (mut text, mut first) = (Vec::new(), None);
        for (icount, bytes) in pieces {
            for byte in bytes {
                let first_of_line = *first.get_or_insert(icount);
                if byte != b'\n' {
                    text.push(byte);
                    continue;
                }
                lines.push(Line {
                    text: String::from_utf8_lossy(&text).into_owned(),
                    first: first_of_line,
                    last: icount,
                });
                text.clear();
                first = None;
            }
        }
        Self(lines)
    }

    /// Steps between the end of one line and the beginning of a later one; `None` unless both
    /// were typed, in this order.
    pub(crate) fn steps_between(&self, before: &str, after: &str) -> Option<u64> {
        let at = self.0.iter().position(|line| line.text == before)?;
        let end = self.0[at..].iter().find(|line| line.text == after)?;
        end.first.checked_sub(self.0[at].last)
    }
}

#[cfg(test)]
mod tests;
