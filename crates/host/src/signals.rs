//! Signals as events. Nothing is done in a signal handler but to wake a thread.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;

use crossbeam_channel::Sender;
use signal_hook::consts::{SIGHUP, SIGINT, SIGPIPE, SIGTERM, SIGXFSZ};
use signal_hook::iterator::{Handle, Signals};

/// A signal that asks the process to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignalEvent {
    /// SIGTERM.
    Terminate,
    /// SIGINT, such as Ctrl-C on a terminal that is not raw.
    Interrupt,
    /// SIGHUP: the terminal has gone.
    Hangup,
}

/// From now on a write beyond what a file may have (`ulimit -f`, `LimitFSIZE=` of systemd) is an
/// error of the write, as on a file system that is full, and doesn't end the process.
///
/// # Errors
/// The system's.
pub fn outlive_file_limits() -> io::Result<()> {
    // A handler, which a program that is started doesn't inherit, and not "ignore", which it would.
    signal_hook::flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false))).map(drop)
}

/// Turns signals into events until it is dropped; after that they are ignored.
#[derive(Debug)]
pub struct SignalWatch {
    handle: Handle,
}

impl SignalWatch {
    /// From now on SIGTERM, SIGINT and SIGHUP end up in `events` and SIGPIPE does nothing
    /// (a write to a closed pipe is an error of the write).
    ///
    /// One that comes while an earlier one of its kind has not been taken up may be merged
    /// with it.
    pub fn start(events: Sender<SignalEvent>) -> io::Result<SignalWatch> {
        // Rust programs start with SIGPIPE ignored, but not if another program starts this
        // library. A handler that only sets a flag keeps the process alive.
        signal_hook::flag::register(SIGPIPE, Arc::new(AtomicBool::new(false)))?;
        let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
        let handle = signals.handle();
        thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                for signal in signals.forever() {
                    let event = match signal {
                        SIGTERM => SignalEvent::Terminate,
                        SIGINT => SignalEvent::Interrupt,
                        _ => SignalEvent::Hangup,
                    };
                    if events.send(event).is_err() {
                        return;
                    }
                }
            })?;
        Ok(SignalWatch { handle })
    }
}

impl Drop for SignalWatch {
    fn drop(&mut self) {
        self.handle.close();
    }
}
