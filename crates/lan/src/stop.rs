//! Stopping a running switch from another thread or a signal handler.

use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

/// Stops the switch that was given the matching [`StopSignal`].
#[derive(Debug)]
pub struct Stopper(UnixStream);

impl Stopper {
    /// Asks the switch to stop. Doing so twice, or after it ended, is harmless.
    pub fn stop(&self) {
        let _ = (&self.0).write(&[1]);
    }

    /// A descriptor on which any written byte stops the switch, for signal
    /// handlers (`signal_hook::low_level::pipe::register`).
    pub fn descriptor(&self) -> io::Result<OwnedFd> {
        Ok(self.0.try_clone()?.into())
    }
}

/// What a switch watches to learn that it is to stop. Dropping every [`Stopper`]
/// and descriptor of it stops the switch too.
#[derive(Debug)]
pub struct StopSignal(pub(crate) UnixStream);

/// A stopper and the signal it gives.
pub fn stop_pair() -> io::Result<(Stopper, StopSignal)> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    theirs.set_nonblocking(true)?;
    Ok((Stopper(ours), StopSignal(theirs)))
}
