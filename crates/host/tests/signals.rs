//! Signals belong to the whole process, so this is a program of its own, and one test.

use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};

use twinvm_host::signals::{SignalEvent, SignalWatch};

#[test]
fn signals_become_events_and_end_nothing() {
    const PATIENCE: Duration = Duration::from_secs(20);
    let (events, heard) = crossbeam_channel::bounded(1);
    let watch = SignalWatch::start(events).unwrap();
    for (signal, event) in [
        (Signal::TERM, SignalEvent::Terminate),
        (Signal::INT, SignalEvent::Interrupt),
        (Signal::HUP, SignalEvent::Hangup),
        (Signal::TERM, SignalEvent::Terminate),
    ] {
        kill_process(getpid(), Signal::PIPE).unwrap();
        kill_process(getpid(), signal).unwrap();
        assert_eq!(heard.recv_timeout(PATIENCE), Ok(event));
    }
    drop(watch);
    // Its thread has ended.
    assert!(heard.recv_timeout(PATIENCE).is_err());
}
