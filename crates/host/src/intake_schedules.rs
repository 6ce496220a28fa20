//! The intake under every order of its two threads: what was acked is in what the drain gets, and
//! nothing is handed over twice, left out or out of order. The same source as the one that runs,
//! with the locks of a scheduler that chooses who goes on at each of them.

mod sync {
    pub(crate) use std::sync::PoisonError;

    pub(crate) use shuttle::sync::{Mutex, MutexGuard};
}
#[allow(clippy::duplicate_mod)]
#[path = "intake.rs"]
mod intake;

use std::panic::{AssertUnwindSafe, catch_unwind};

use intake::Intake;
use shuttle::sync::Arc;
use shuttle::sync::atomic::{AtomicU64, Ordering};
use shuttle::thread;
use twinvm_protocol::{ConnId, Message, Position, Progress};
use twinvm_replica::{HostTime, Stored, Storing, Taken};

const CONN: ConnId = ConnId(1);
/// Batches that the peer sends; the loop stores the first by itself.
const BATCHES: u64 = 4;
/// Schedules that are tried.
const SCHEDULES: usize = 4000;

/// A batch of one record, as it comes over the channel.
fn batch(first: u64) -> Stored {
    let body = twinvm_log::Body::Digest { digest: 7 };
    let batch = twinvm_log::Batch {
        first_position: first,
        records: vec![twinvm_log::Record {
            icount: first,
            body,
        }],
    };
    let bytes = batch.encode().expect("one record fits").into_bytes();
    let (first, end) = (Position(first), Position(first + 1));
    Stored::decode(first, end, first, &bytes).expect("it was encoded just now")
}

/// One life of a session: a reader, and a loop that takes what it is told of, then drains.
fn session(close_late: bool) {
    let mut intake = Intake::default();
    intake.close_late = close_late.then_some(CONN);
    let intake = Arc::new(intake);
    let acked = Arc::new(AtomicU64::new(0));
    let (events, told) = shuttle::sync::mpsc::channel();
    intake.follow(Storing {
        conn: CONN,
        end: Position(1),
        emitted: Position(0),
        progress: Progress::default(),
    });
    let reader = {
        let (intake, acked) = (Arc::clone(&intake), Arc::clone(&acked));
        thread::spawn(move || {
            for first in 1..BATCHES {
                // A heartbeat goes before the last one.
                let after_other = first == BATCHES - 1;
                let now = HostTime { mono_ns: 0 };
                let taken = intake.take(CONN, batch(first), 1, after_other, now, |ack| {
                    if let Message::Ack { received, .. } = ack {
                        acked.store(received.0, Ordering::SeqCst);
                    }
                });
                match taken {
                    Taken::Yes(Some(number)) => drop(events.send(number)),
                    Taken::Yes(None) => {}
                    Taken::No => return,
                }
            }
        })
    };
    let mut held = 1;
    let mut hold = |stored: Stored| {
        assert_eq!(stored.first, Position(held), "in order, each once");
        held = stored.end.0;
    };
    // It hears of some, and then suspects, perhaps for what it has found in one of them.
    if let Ok(number) = told.recv() {
        let most = shuttle::rand::Rng::gen_range(&mut shuttle::rand::thread_rng(), 1..BATCHES);
        let next = || intake.next(CONN, number);
        (0..most).map_while(|_| next()).for_each(&mut hold);
    }
    intake.close().into_iter().for_each(hold);
    // From here on the drain reads its last position.
    let drained = held;
    reader.join().expect("the reader ends");
    let acked = acked.load(Ordering::SeqCst);
    assert!(acked <= drained, "acked {acked}, drained {drained}");
    let now = HostTime { mono_ns: 0 };
    assert!(!intake.wants(CONN, Position(drained), now), "it is closed");
}

#[test]
fn what_was_acked_is_in_the_drain_whatever_the_order() {
    shuttle::check_pct(|| session(false), SCHEDULES, 3);
    shuttle::check_random(|| session(false), SCHEDULES);
}

#[test]
fn a_last_position_that_is_read_while_acks_go_on_is_found() {
    let broken = || shuttle::check_random(|| session(true), SCHEDULES);
    let found = catch_unwind(AssertUnwindSafe(broken));
    assert!(found.is_err(), "{SCHEDULES} schedules did not notice");
}
