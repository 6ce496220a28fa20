//! The snapshot of a run that has ended, so that others can go on from there.

use std::io::IsTerminal;
use std::path::Path;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use twinvm_host::signals::SignalEvent;
use twinvm_host::snapshot_file::{self, SnapshotFileError};
use twinvm_machine::SnapshotBusy;

use crate::say;

use super::disks::RestError;
use super::drive::Frozen;

/// A person hears of progress this often.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

/// Why there is no snapshot of a run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunSnapshotError {
    /// Its file.
    #[error("--snapshot {0}")]
    File(#[from] SnapshotFileError),
    /// A disk could not be brought to rest: without its disk a snapshot is good for nothing.
    #[error("no snapshot is written, since what the guest has written can't be made durable: {0}")]
    Disk(#[from] RestError),
    /// The machine.
    #[error("--snapshot: {0}")]
    Busy(#[from] SnapshotBusy),
}

/// What was written.
#[derive(Debug)]
pub(crate) enum Written {
    /// A snapshot.
    File {
        /// Of this step.
        icount: u64,
        /// Length of the file.
        bytes: u64,
    },
    /// None: a guest that has ended by itself never goes on.
    None,
}

/// Writes the machine to `path` when its disks are at rest: what is in flight is part of the
/// machine and is carried out again by whoever goes on from there.
pub(crate) fn write(
    mut frozen: Frozen,
    path: &Path,
    replace: bool,
) -> Result<Written, RunSnapshotError> {
    if frozen.machine.halted().is_some() {
        return Ok(Written::None);
    }
    frozen.disks.rest()?;
    // Those that have ended the run.
    frozen.signals.try_iter().for_each(drop);
    let icount = frozen.machine.icount();
    let stream = frozen.machine.snapshot(true)?;
    let mut shown = Shown::new();
    let result = snapshot_file::write(stream, path, replace, &mut |bytes| {
        shown.progress(bytes);
        is_wanted(&frozen.signals)
    });
    shown.clear();
    Ok(Written::File {
        icount,
        bytes: result?,
    })
}

/// Only Ctrl-C gives up what it may have begun: who ends a run by another signal often sends it
/// twice.
fn is_wanted(signals: &Receiver<SignalEvent>) -> bool {
    !signals
        .try_iter()
        .any(|signal| signal == SignalEvent::Interrupt)
}

/// Progress on a person's terminal.
struct Shown {
    told: Instant,
    is_shown: bool,
}

impl Shown {
    fn new() -> Self {
        Self {
            told: Instant::now(),
            is_shown: false,
        }
    }

    fn progress(&mut self, bytes: u64) {
        if self.told.elapsed() >= PROGRESS_EVERY && std::io::stderr().is_terminal() {
            self.told = Instant::now();
            self.is_shown = true;
            say::part(format_args!(
                "\r{} MiB of the snapshot written (Ctrl-C gives it up)",
                bytes >> 20
            ));
        }
    }

    fn clear(&mut self) {
        if self.is_shown {
            say::part(format_args!("\r\x1b[K"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::unbounded;

    #[test]
    fn only_an_interrupt_gives_it_up() {
        let (signals_in, signals) = unbounded();
        assert!(is_wanted(&signals));
        for (signal, wanted) in [
            (SignalEvent::Terminate, true),
            (SignalEvent::Hangup, true),
            (SignalEvent::Interrupt, false),
        ] {
            signals_in.send(signal).unwrap();
            assert_eq!(is_wanted(&signals), wanted, "{signal:?}");
        }
        assert!(is_wanted(&signals), "it was said once");
    }
}
