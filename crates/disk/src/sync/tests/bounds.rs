//! What a synchronization may take: memory, and the line.

use super::*;

/// A live node with 80 MiB of content.
fn full(place: &Place) -> Node {
    let mut live = place.open();
    live.set.found().unwrap();
    for n in 0..80 {
        live.write(n * MIB, &noise(n, MIB as usize));
    }
    live
}

/// As far as the copying, whose window fills: nobody acks.
fn copying(live: &Node, joiner: &Node) -> (SyncOut, SyncIn) {
    let (mut out, mut into) = begin(live, joiner);
    while out.progress().copied_bytes == 0 {
        if let SyncPiece::Ready(bytes) = out.next_piece() {
            into.heard(&bytes);
        }
        if let SyncPiece::Ready(bytes) = into.next_piece() {
            out.heard(&bytes);
        }
    }
    (out, into)
}

#[test]
fn what_is_kept_aside_is_bounded_and_a_write_waits() {
    let (a, b) = (Place::with_file(96 * MIB), Place::new());
    let mut live = full(&a);
    let mut joiner = b.open();
    let (mut out, mut into) = copying(&live, &joiner);
    out.snapshot_now();
    let expected = live.contents();
    for n in 0..80 {
        live.submit(
            DiskOp::Write { durable: false },
            n * MIB..(n + 1) * MIB,
            &noise(1000 + n, MIB as usize),
        );
    }
    let aside = |node: &Node| node.set.bytes_aside();
    while aside(&live) < 32 * MIB {
        std::thread::yield_now();
    }
    assert_eq!(aside(&live), 32 * MIB);
    assert!(live.contents() != expected, "something was written");
    let mut done = (false, false);
    while done != (true, true) {
        assert!(aside(&live) <= 32 * MIB);
        match out.next_piece() {
            SyncPiece::Ready(bytes) => into.heard(&bytes),
            SyncPiece::Done => done.0 = true,
            SyncPiece::Later => {}
            SyncPiece::Failed(error) => panic!("{error}"),
        }
        match into.next_piece() {
            SyncPiece::Ready(bytes) => out.heard(&bytes),
            SyncPiece::Done => done.1 = true,
            SyncPiece::Later => {}
            SyncPiece::Failed(error) => panic!("{error}"),
        }
    }
    assert_eq!(live.results(80), [0; 80]);
    assert_same(&joiner.contents(), &expected);
    // What was written since is all that differs.
    let again = synchronize(&mut live, &mut joiner, Script::default());
    again.assert_copied(&joiner);
    assert_eq!(again.progress.copied_bytes, 80 * MIB);
}

#[test]
fn one_that_is_dropped_lets_waiting_writes_go() {
    let (a, b) = (Place::with_file(96 * MIB), Place::new());
    let mut live = full(&a);
    let joiner = b.open();
    let (mut out, _into) = copying(&live, &joiner);
    out.snapshot_now();
    for n in 0..80 {
        let range = n * MIB..(n + 1) * MIB;
        live.submit(
            DiskOp::Write { durable: false },
            range,
            &vec![9; MIB as usize],
        );
    }
    while live.set.bytes_aside() < 32 * MIB {
        std::thread::yield_now();
    }
    drop(out);
    assert_eq!(live.results(80), [0; 80]);
    assert_eq!(live.set.bytes_aside(), 0);
}

#[test]
fn no_more_is_sent_than_the_rate_allows() {
    let (a, b) = (Place::with_file(8 * MIB), Place::new());
    let options = DiskOptions {
        sync_bytes_s: Some(2 * MIB),
        ..DiskOptions::default()
    };
    let mut live = a.open_on(Medium::default(), options).unwrap();
    live.set.found().unwrap();
    live.write(0, &noise(1, MIB as usize));
    let mut joiner = b.open();
    let begun = std::time::Instant::now();
    synchronize(&mut live, &mut joiner, Script::default()).assert_copied(&joiner);
    // The last message's time needn't have passed.
    assert!(begun.elapsed() >= Duration::from_millis(350), "{begun:?}");
}
