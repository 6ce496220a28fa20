use super::*;
use twinvm_log::{Body, Record};

const CONN: ConnId = ConnId(1);
const MS: u64 = 1_000_000;
const MIB: usize = 1 << 20;

/// A batch of one record.
fn batch(first: u64) -> Stored {
    let record = Record {
        icount: first,
        body: Body::Digest { digest: 7 },
    };
    Stored {
        first: Position(first),
        end: Position(first + 1),
        released: Position(0),
        records: vec![record],
    }
}

fn open() -> Intake {
    let mut intake = Intake::default();
    intake.follow(Storing {
        conn: CONN,
        end: Position(0),
        emitted: Position(0),
        progress: twinvm_protocol::Progress::default(),
    });
    intake
}

fn at(ms: u64) -> HostTime {
    HostTime { mono_ns: ms * MS }
}

/// Stores the next batch if it is wanted; the event that the loop is told, if there is one.
fn comes(intake: &mut Intake, first: u64, bytes: usize, other: bool, ms: u64) -> Option<Taken> {
    let wanted = intake.wants(CONN, Position(first), at(ms));
    wanted.then(|| intake.take(CONN, batch(first), bytes, other, at(ms), drop))
}

#[test]
fn a_loop_that_is_never_quite_level_is_spoken_for_all_the_same() {
    let mut intake = open();
    // Of 10 MiB a millisecond there is always one batch that the loop has not come to.
    assert_eq!(
        comes(&mut intake, 0, 10 * MIB, false, 0),
        Some(Taken::Yes(Some(1)))
    );
    for n in 1..1000 {
        let told = comes(&mut intake, n, 6 * MIB, true, n);
        assert_eq!(told, Some(Taken::Yes(Some(n + 1))), "batch {n}");
        let taken = intake.next(CONN, n).map(|stored| stored.first.0);
        assert_eq!(taken, Some(n - 1));
        assert_eq!(intake.next(CONN, n), None);
    }
    // One that does not come is not.
    assert_eq!(comes(&mut intake, 1000, 0, true, 1101), None);
}

#[test]
fn what_waits_is_bounded() {
    let mut intake = open();
    let mut count = 0;
    while comes(&mut intake, count, MIB, false, 0).is_some() {
        count += 1;
    }
    assert_eq!(count, (MAX_BYTES / MIB) as u64);
    // One that is taken makes room for one.
    assert_eq!(intake.next(CONN, 1).unwrap().first, Position(0));
    for wanted in [true, false] {
        let told = comes(&mut intake, count, MIB, false, 0);
        assert_eq!(told.is_some(), wanted);
        count += 1;
    }
}

#[test]
fn what_the_loop_was_told_of_and_has_not_taken_is_in_the_drain() {
    let mut intake = open();
    for n in 0..3 {
        assert!(comes(&mut intake, n, 1, false, 0).is_some());
    }
    // All three by one event; the first one ends the session.
    assert_eq!(intake.next(CONN, 1).unwrap().first, Position(0));
    let drained: Vec<u64> = intake.close().iter().map(|s| s.first.0).collect();
    assert_eq!(drained, [1, 2]);
    assert_eq!(intake.next(CONN, 1), None);
    assert!(!intake.wants(CONN, Position(3), at(0)));
}
