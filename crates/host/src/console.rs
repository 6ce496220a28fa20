//! The terminal as the guest's serial line: raw mode, and a thread that reads.
//!
//! The terminal gets its old mode back on every way out that a process can see: when the
//! guard is dropped, when a thread panics, and when the caller, told by
//! [`crate::signals`], ends in good order or calls [`restore_terminal`]. After `kill -9`
//! the person types `reset`.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, Once, PoisonError, TryLockError};
use std::thread;
use std::time::Duration;

use crossbeam_channel::Sender;
use rustix::termios::{OptionalActions, OutputModes, Termios, isatty, tcgetattr, tcsetattr};

/// Ctrl-], the key that leaves a guest's console, as in telnet.
pub const ESCAPE: u8 = 0x1d;
/// Bytes read at a time: a pasted page.
const READ_BYTES: usize = 4096;
/// Pause when someone has made the terminal non-blocking and nothing is there.
const PAUSE: Duration = Duration::from_millis(10);

/// The terminal that is raw now, and its mode before.
static SAVED: Mutex<Option<(OwnedFd, Termios)>> = Mutex::new(None);

/// Holds the terminal in raw mode. One at a time in a process; a second does nothing.
#[derive(Debug)]
pub struct RawTerminal {
    raw: bool,
}

impl RawTerminal {
    /// Makes the terminal on standard input raw; does nothing if that is no terminal.
    pub fn enter() -> io::Result<RawTerminal> {
        RawTerminal::enter_on(io::stdin().as_fd().try_clone_to_owned()?)
    }

    /// Makes this terminal raw; does nothing if it is none.
    ///
    /// Every key goes to the guest, Ctrl-C too. Output stays as it was: a line end still
    /// returns the carriage, so that the program's own messages look right.
    pub fn enter_on(terminal: OwnedFd) -> io::Result<RawTerminal> {
        let mut saved = lock();
        if saved.is_some() || !isatty(&terminal) {
            return Ok(RawTerminal { raw: false });
        }
        restore_on_panic();
        let before = tcgetattr(&terminal)?;
        let mut mode = before.clone();
        mode.make_raw();
        let output = OutputModes::OPOST | OutputModes::ONLCR;
        mode.output_modes |= before.output_modes & output;
        tcsetattr(&terminal, OptionalActions::Now, &mode)?;
        *saved = Some((terminal, before));
        Ok(RawTerminal { raw: true })
    }

    /// Whether this guard has made a terminal raw.
    pub fn is_raw(&self) -> bool {
        self.raw
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        if self.raw {
            restore_terminal();
        }
    }
}

/// Gives the terminal its old mode back, if a [`RawTerminal`] is alive. May be called any
/// number of times, and before `std::process::exit`, which drops nothing.
pub fn restore_terminal() {
    restore(lock());
}

fn restore(mut saved: MutexGuard<'_, Option<(OwnedFd, Termios)>>) {
    if let Some((terminal, before)) = saved.take() {
        // Not `Drain`: a terminal stopped with Ctrl-S would hold the process.
        let _ = tcsetattr(&terminal, OptionalActions::Now, &before);
    }
}

fn lock() -> MutexGuard<'static, Option<(OwnedFd, Termios)>> {
    SAVED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The message of a panic belongs on a terminal in its old mode.
fn restore_on_panic() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let next = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            match SAVED.try_lock() {
                Ok(saved) => restore(saved),
                Err(TryLockError::Poisoned(saved)) => restore(saved.into_inner()),
                // Someone is at it.
                Err(TryLockError::WouldBlock) => {}
            }
            next(info);
        }));
    });
}

/// What a person types.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConsoleEvent {
    /// Keys for the guest. The next hop is the log, as input of the serial line.
    Bytes(Vec<u8>),
    /// Ctrl-] was typed. Nothing follows.
    Quit,
}

/// Reads standard input in a thread of its own. Ctrl-] means [`ConsoleEvent::Quit`] if it
/// is a terminal; from a file or a pipe it is a byte like any other.
pub fn read_stdin(events: Sender<ConsoleEvent>) -> io::Result<()> {
    let input = io::stdin().as_fd().try_clone_to_owned()?;
    let escape = isatty(&input);
    read_console(File::from(input), escape, events)
}

/// Reads `input` in a thread of its own, until its end, which is quiet: the sender is
/// dropped. A full channel makes the reader wait. The thread can't be stopped while it
/// waits for a key; it ends with the process.
pub fn read_console(
    mut input: impl Read + Send + 'static,
    escape: bool,
    events: Sender<ConsoleEvent>,
) -> io::Result<()> {
    thread::Builder::new()
        .name("console".to_owned())
        .spawn(move || {
            let mut buffer = [0; READ_BYTES];
            loop {
                let bytes = match input.read(&mut buffer) {
                    Ok(0) => return,
                    Ok(count) => &buffer[..count],
                    Err(error) => match error.kind() {
                        io::ErrorKind::Interrupted => continue,
                        io::ErrorKind::WouldBlock => {
                            thread::sleep(PAUSE);
                            continue;
                        }
                        // The terminal has gone.
                        _ => return,
                    },
                };
                if !deliver(bytes, escape, &events) {
                    return;
                }
            }
        })?;
    Ok(())
}

/// Hands over what was read; false if that was the end.
fn deliver(bytes: &[u8], escape: bool, events: &Sender<ConsoleEvent>) -> bool {
    let end = bytes.iter().position(|byte| escape && *byte == ESCAPE);
    let keys = &bytes[..end.unwrap_or(bytes.len())];
    if !keys.is_empty() && events.send(ConsoleEvent::Bytes(keys.to_vec())).is_err() {
        return false;
    }
    if end.is_some() {
        let _ = events.send(ConsoleEvent::Quit);
    }
    end.is_none()
}

#[cfg(test)]
mod tests;
