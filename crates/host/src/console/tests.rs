use std::io::Write;
use std::os::unix::net::UnixStream;

use crossbeam_channel::{Receiver, bounded};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::LocalModes;

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

/// A terminal's two ends.
fn terminal() -> (OwnedFd, OwnedFd) {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = openpt(flags).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let terminal = ioctl_tiocgptpeer(&master, flags).unwrap();
    (master, terminal)
}

fn mode(terminal: &OwnedFd) -> String {
    format!("{:?}", tcgetattr(terminal).unwrap())
}

/// One test, because a process has one raw terminal.
#[test]
fn the_terminal_gets_its_mode_back_on_every_way_out() {
    let (_master, terminal) = terminal();
    let before = mode(&terminal);
    let clone = || terminal.try_clone().unwrap();

    let guard = RawTerminal::enter_on(clone()).unwrap();
    assert!(guard.is_raw());
    let raw = tcgetattr(&terminal).unwrap();
    assert!(
        !raw.local_modes
            .intersects(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    );
    assert!(raw.output_modes.contains(OutputModes::OPOST));
    // A second one leaves it to the first.
    let second = RawTerminal::enter_on(clone()).unwrap();
    assert!(!second.is_raw());
    drop(second);
    assert_ne!(mode(&terminal), before);
    drop(guard);
    assert_eq!(mode(&terminal), before);

    let guard = RawTerminal::enter_on(clone()).unwrap();
    assert_ne!(mode(&terminal), before);
    let panicked = thread::spawn(|| panic!("on purpose")).join();
    assert!(panicked.is_err());
    assert_eq!(mode(&terminal), before, "after a panic elsewhere");
    drop(guard);

    let guard = RawTerminal::enter_on(clone()).unwrap();
    restore_terminal();
    restore_terminal();
    assert_eq!(mode(&terminal), before);
    drop(guard);
    assert_eq!(mode(&terminal), before);

    let (pipe, _other) = UnixStream::pair().unwrap();
    let guard = RawTerminal::enter_on(pipe.into()).unwrap();
    assert!(!guard.is_raw());
}

fn typed(escape: bool) -> (UnixStream, Receiver<ConsoleEvent>) {
    let (keys, input) = UnixStream::pair().unwrap();
    let (events, heard) = bounded(4);
    read_console(input, escape, events).unwrap();
    (keys, heard)
}

fn next(heard: &Receiver<ConsoleEvent>) -> ConsoleEvent {
    heard.recv_timeout(PATIENCE).expect("an event")
}

#[test]
fn keys_come_and_the_escape_ends() {
    let (mut keys, heard) = typed(true);
    keys.write_all(b"ls\r").unwrap();
    assert_eq!(next(&heard), ConsoleEvent::Bytes(b"ls\r".to_vec()));
    keys.write_all(b"\x03x\x1dmore").unwrap();
    assert_eq!(next(&heard), ConsoleEvent::Bytes(b"\x03x".to_vec()));
    assert_eq!(next(&heard), ConsoleEvent::Quit);
    assert!(
        heard.recv_timeout(PATIENCE).is_err(),
        "the thread has ended"
    );
}

#[test]
fn from_a_pipe_the_escape_is_a_byte_and_the_end_is_quiet() {
    let (mut keys, heard) = typed(false);
    keys.write_all(b"a\x1db").unwrap();
    assert_eq!(next(&heard), ConsoleEvent::Bytes(b"a\x1db".to_vec()));
    drop(keys);
    assert!(heard.recv_timeout(PATIENCE).is_err());
}

#[test]
fn an_input_that_never_waits_is_not_an_end() {
    let (mut keys, input) = UnixStream::pair().unwrap();
    input.set_nonblocking(true).unwrap();
    let (events, heard) = bounded(4);
    read_console(input, true, events).unwrap();
    thread::sleep(3 * PAUSE);
    keys.write_all(b"\x1d").unwrap();
    assert_eq!(next(&heard), ConsoleEvent::Quit);
}
