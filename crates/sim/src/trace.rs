//! The last events of a run, for people.

use std::collections::VecDeque;

/// Lines that are kept.
const MAX_LINES: usize = 4000;

/// Keeps lines if it is asked to.
#[derive(Default)]
pub(crate) struct Trace {
    pub(crate) on: bool,
    lines: VecDeque<String>,
}

impl Trace {
    pub(crate) fn new(on: bool) -> Self {
        Self {
            on,
            lines: VecDeque::new(),
        }
    }

    /// Notes what `line` says, at this time.
    pub(crate) fn note(&mut self, now: u64, line: impl FnOnce() -> String) {
        if !self.on {
            return;
        }
        if self.lines.len() >= MAX_LINES {
            self.lines.pop_front();
        }
        let (ms, us) = (now / 1_000_000, now / 1000 % 1000);
        self.lines
            .push_back(format!("{ms:>7}.{us:03} ms  {}", line()));
    }

    pub(crate) fn take(&mut self) -> Vec<String> {
        std::mem::take(&mut self.lines).into()
    }
}
