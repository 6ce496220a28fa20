//! What maps and marks must say whatever comes between.

use std::os::unix::fs::FileExt;

use super::*;

/// Two nodes that are a pair: copies of one epoch.
fn pair(a: &Place, b: &Place) -> (Node, Node) {
    let mut live = a.open();
    live.set.found().unwrap();
    live.write(0, &[1; 4096]);
    let mut joiner = b.open();
    synchronize(&mut live, &mut joiner, Script::default()).assert_copied(&joiner);
    (live, joiner)
}

/// At a point a write may have ended here, with no record of it yet, and not have begun there. If
/// the other node is lost before it begins, only our map can name it.
#[test]
fn a_write_in_flight_at_a_point_is_not_cleared() {
    let (a, b) = (Place::with_file(16 * MIB), Place::new());
    let (mut live, joiner) = pair(&a, &b);
    live.write(5 * MIB, &[7; 4096]);
    let request = DiskRequest {
        device: DEVICE,
        id: live.next_id - 1,
        op: DiskOp::Write { durable: false },
        offset: 5 * MIB,
        bytes: 4096,
        data: [7; 4096].into(),
    };
    let in_flight = [request];
    let points = (
        live.set.begin_point(&in_flight),
        joiner.set.begin_point(&in_flight),
    );
    live.flush();
    joiner.flush();
    live.set.clear_to(points.0);
    joiner.set.clear_to(points.1);
    drop(joiner);
    let mut joiner = b.open();
    let outcome = synchronize(&mut live, &mut joiner, Script::default());
    outcome.assert_copied(&joiner);
    assert!(outcome.progress.compare_bytes <= MIB, "{outcome:?}");
}

/// A medium that has changed by itself is in no map.
#[test]
fn a_copy_that_is_doubted_is_compared_whole() {
    let (a, b) = (Place::with_file(16 * MIB), Place::new());
    let (mut live, joiner) = pair(&a, &b);
    let file = fs::File::options().write(true).open(&b.path).unwrap();
    file.write_all_at(&[9; 512], 11 * MIB).unwrap();
    joiner.set.doubt().unwrap();
    drop(joiner);
    let mut joiner = b.open();
    let outcome = synchronize(&mut live, &mut joiner, Script::default());
    outcome.assert_copied(&joiner);
    assert_eq!(outcome.progress.compare_bytes, 16 * MIB);
    assert_eq!(outcome.progress.copied_bytes, 4096);
}

/// The loop and the thread of a synchronization both change the mark.
#[test]
fn what_the_loop_marks_meanwhile_stays() {
    let (a, b) = (Place::with_file(8 * MIB), Place::new());
    let (mut live, mut joiner) = pair(&a, &b);
    joiner.set.set_generation(6, Some(7)).unwrap();
    let (mut out, mut into) = begin(&live, &joiner);
    live.snapshot_taken = false;
    let mut marked = false;
    while !(into.is_done() && out.next_piece() == SyncPiece::Done) {
        if let SyncPiece::Ready(bytes) = out.next_piece() {
            into.heard(&bytes);
        }
        match into.next_piece() {
            SyncPiece::Ready(bytes) => {
                out.heard(&bytes);
                // It has begun: the loop hears of another generation.
                if !std::mem::replace(&mut marked, true) {
                    joiner.set.set_generation(8, None).unwrap();
                    live.set.set_generation(8, Some(9)).unwrap();
                }
            }
            SyncPiece::Later | SyncPiece::Done => {}
            SyncPiece::Failed(error) => panic!("{error}"),
        }
        if out.due() && !std::mem::replace(&mut live.snapshot_taken, true) {
            out.snapshot_now();
        }
    }
    let (ours, theirs) = (live.set.mark().unwrap(), joiner.set.mark().unwrap());
    assert_eq!((ours.generation, ours.pending), (8, Some(9)));
    assert_eq!((theirs.generation, theirs.pending), (8, None));
    assert!(theirs.consistent && ours.epoch == theirs.epoch);
    joiner.write(0, &[2; 512]);
}

/// Many small things in one message would take more room than its bytes.
#[test]
fn a_message_of_many_empty_answers_is_refused_at_once() {
    let (a, b) = (Place::with_file(8 * MIB), Place::new());
    let (live, joiner) = pair(&a, &b);
    let (mut out, _into) = begin(&live, &joiner);
    let runs = vec![wire::HashRun::Hashes(Vec::new()); 100_000];
    out.heard(&wire::encode(&wire::ToLive::Hashes { runs }));
    let end = wait_for(&live, || match out.next_piece() {
        SyncPiece::Ready(_) => SyncPiece::Later,
        other => other,
    });
    assert!(
        matches!(&end, SyncPiece::Failed(SyncError::Peer(why)) if why.contains("more hashes")),
        "{end:?}"
    );
}
