//! Accepted connections whose handshake is not done: strangers, until it is.
//!
//! They are bounded, and when one too many comes it is the oldest that goes: who holds its place
//! without finishing keeps nobody out. Those from the peer's own address go last.

use std::collections::VecDeque;
use std::net::{IpAddr, Shutdown, TcpStream};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Handshakes under way at one time: each has a thread and about 100 KiB of buffers.
pub(crate) const MAX_HALF_OPEN: usize = 16;
/// Threads of handshakes, those included that have lost their place and are about to end.
pub(crate) const MAX_THREADS: usize = 2 * MAX_HALF_OPEN;

/// How long the listener waits for threads to end whose connections have just been cut off. They
/// have nothing to wait for themselves; meanwhile callers queue in the kernel.
const ROOM_TIME: Duration = Duration::from_millis(200);

/// Connections in their handshakes.
#[derive(Debug, Default)]
pub(crate) struct HalfOpen {
    held: Mutex<Held>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct Held {
    /// The oldest first.
    places: VecDeque<Place>,
    threads: usize,
    last: u64,
}

#[derive(Debug)]
struct Place {
    number: u64,
    from: IpAddr,
    stream: TcpStream,
}

impl HalfOpen {
    /// A place for a connection from `from`; `None` if it must go, or another one goes for it.
    pub(crate) fn take(&self, stream: &TcpStream, from: IpAddr, peer: IpAddr) -> Option<u64> {
        let stream = stream.try_clone().ok()?;
        let mut held = self.lock();
        if held.places.len() >= MAX_HALF_OPEN {
            let stranger = held.places.iter().position(|place| place.from != peer);
            let goes = match stranger {
                Some(at) => at,
                None if from == peer => 0,
                None => return None,
            };
            if let Some(place) = held.places.remove(goes) {
                let _ = place.stream.shutdown(Shutdown::Both);
            }
        }
        let full = |held: &mut Held| held.threads >= MAX_THREADS;
        let (mut held, waited) = self
            .ended
            .wait_timeout_while(held, ROOM_TIME, full)
            .unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() {
            return None;
        }
        held.threads += 1;
        held.last += 1;
        let number = held.last;
        held.places.push_back(Place {
            number,
            from,
            stream,
        });
        Some(number)
    }

    /// The thread of a handshake is done with it.
    pub(crate) fn give_back(&self, number: u64) {
        let mut held = self.lock();
        held.places.retain(|place| place.number != number);
        held.threads -= 1;
        self.ended.notify_one();
    }

    /// Threads that live.
    #[cfg(test)]
    pub(crate) fn threads(&self) -> usize {
        self.lock().threads
    }

    /// Ends all of them.
    pub(crate) fn cut(&self) {
        for place in &self.lock().places {
            let _ = place.stream.shutdown(Shutdown::Both);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
