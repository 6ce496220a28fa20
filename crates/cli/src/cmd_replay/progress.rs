//! One line on the terminal of whoever waits.

use std::io::{IsTerminal, Write};

use twinvm_host::time::mono_ns;

/// How often the line is written anew.
const EVERY_NS: u64 = 250_000_000;

/// How far a replay is. Writes nothing where standard error is no terminal.
pub(crate) struct Progress {
    from: u64,
    to: u64,
    began_ns: u64,
    /// `None` if there is nobody to see it.
    next_ns: Option<u64>,
    shown: bool,
}

impl Progress {
    /// Progress from one step to another.
    pub(crate) fn new(from: u64, to: u64) -> Self {
        let now_ns = mono_ns();
        Self {
            from,
            to,
            began_ns: now_ns,
            next_ns: std::io::stderr().is_terminal().then_some(now_ns + EVERY_NS),
            shown: false,
        }
    }

    /// Tells that the replay has come to this step.
    pub(crate) fn show(&mut self, icount: u64) {
        let Some(next_ns) = self.next_ns else { return };
        let now_ns = mono_ns();
        if now_ns < next_ns {
            return;
        }
        self.next_ns = Some(now_ns + EVERY_NS);
        self.shown = true;
        let steps = icount.saturating_sub(self.from);
        let total = self.to.saturating_sub(self.from).max(1);
        let seconds = now_ns.saturating_sub(self.began_ns) as f64 / 1e9;
        let mut err = std::io::stderr().lock();
        let _ = write!(
            err,
            "\r\x1b[K{:3} %  {} of {} million steps, {:.0} MIPS",
            u128::from(steps) * 100 / u128::from(total),
            steps / 1_000_000,
            total / 1_000_000,
            steps as f64 / 1e6 / seconds.max(1e-9)
        )
        .and_then(|()| err.flush());
    }

    /// Takes the line away.
    pub(crate) fn clear(&mut self) {
        if self.shown {
            let mut err = std::io::stderr().lock();
            let _ = write!(err, "\r\x1b[K").and_then(|()| err.flush());
        }
    }
}
