//! Threads whose work can wait: copies of disks, snapshots for people. A guest goes first.

use std::io;
use std::thread::{self, JoinHandle};

/// What is added to the thread's nice value (sched(7)). A thread with ten more has about a tenth of
/// the processor time of the thread that it shares a processor with, and all that others leave.
const NICER: i32 = 10;

/// Starts a thread that yields to others, also to those of other programs: where processors are
/// short its work takes longer. Fails if the host starts no thread.
pub fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        // On Linux that is the calling thread's alone (setpriority(2)). One that may not be nicer
        // works on as it is.
        let _ = rustix::process::nice(NICER);
        work();
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn a_thread_in_the_background_yields_and_the_others_do_not() {
        let own = || rustix::process::getpriority_process(None).unwrap();
        let before = own();
        let (send, receive) = mpsc::channel();
        let thread = spawn("background", move || send.send(own()).unwrap()).unwrap();
        // 19 is the highest there is.
        assert_eq!(receive.recv().unwrap(), (before + NICER).min(19));
        thread.join().unwrap();
        assert_eq!(own(), before);
    }
}
