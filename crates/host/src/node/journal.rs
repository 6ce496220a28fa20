//! What a node says on standard error: one line each.

use std::io::Write;

use twinvm_protocol::NoteLevel;

use crate::time;

/// Lines of one node.
#[derive(Debug)]
pub(super) struct Journal {
    name: String,
    last: String,
}

impl Journal {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            last: String::new(),
        }
    }

    /// Writes a line with wall time (seconds of the day, UTC) and the node's name. A
    /// line that repeats the one before it is left out: a node may wait for days.
    pub(super) fn line(&mut self, text: &str) {
        if self.last == text {
            return;
        }
        self.last = text.to_owned();
        let ms = time::wall_ns() / 1_000_000;
        let (h, m, s) = (ms / 3_600_000 % 24, ms / 60_000 % 60, ms / 1000 % 60);
        let text: String = text
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        let _ = writeln!(
            std::io::stderr().lock(),
            "{h:02}:{m:02}:{s:02}.{:03} node {}: {text}",
            ms % 1000,
            self.name
        );
    }

    pub(super) fn note(&mut self, level: NoteLevel, text: &str) {
        match level {
            NoteLevel::Info => self.line(text),
            NoteLevel::Warn => self.line(&format!("warning: {text}")),
            NoteLevel::Error => self.line(&format!("error: {text}")),
        }
    }
}
