//! The guest's console: keys in, text out.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, TryRecvError, never};
use twinvm_host::console::ConsoleEvent;

/// Pause when someone has made standard output non-blocking and it is full.
const PAUSE: Duration = Duration::from_millis(1);

/// Keys that are kept for a guest that has no room; beyond them nothing is read, the key that ends
/// the run neither. More than anyone types while a guest boots.
const TYPED_BYTES: usize = 64 << 10;

/// Standard input and output as the guest's console.
pub(crate) struct Console {
    events: Receiver<ConsoleEvent>,
    /// Typed, but the guest had no room.
    typed: VecDeque<u8>,
    /// `None` once nobody reads it any more.
    out: Option<File>,
}

impl Console {
    /// A console that takes its keys from `events`.
    pub(crate) fn new(events: Receiver<ConsoleEvent>) -> io::Result<Self> {
        let out = io::stdout().as_fd().try_clone_to_owned()?;
        Ok(Self {
            events,
            typed: VecDeque::new(),
            out: Some(File::from(out)),
        })
    }

    /// What announces new keys; `None` while too many wait for the guest to take them.
    pub(crate) fn wakes(&self) -> Option<&Receiver<ConsoleEvent>> {
        (self.typed.len() < TYPED_BYTES).then_some(&self.events)
    }

    /// Takes up what was typed; false if it was the key that ends the run.
    pub(crate) fn poll(&mut self) -> bool {
        if self.typed.len() >= TYPED_BYTES {
            return true;
        }
        match self.events.try_recv() {
            Ok(ConsoleEvent::Bytes(bytes)) => self.typed.extend(bytes),
            Ok(ConsoleEvent::Quit) => return false,
            Err(TryRecvError::Empty) => {}
            // The end of a file or a pipe: the guest goes on without keys.
            Err(TryRecvError::Disconnected) => self.events = never(),
        }
        true
    }

    /// Keys that wait for the guest.
    pub(crate) fn typed(&mut self) -> &mut VecDeque<u8> {
        &mut self.typed
    }

    /// Prints what the guest wrote. A reader that is slow holds the guest up; without one the
    /// text is lost.
    pub(crate) fn print(&mut self, bytes: &[u8]) {
        let Some(out) = &mut self.out else { return };
        let mut rest = bytes;
        while !rest.is_empty() {
            match out.write(rest) {
                Ok(count) if count > 0 => rest = &rest[count..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(PAUSE),
                _ => {
                    self.out = None;
                    return;
                }
            }
        }
    }
}
