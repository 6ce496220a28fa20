//! Tests of marks: what starts, and which copy is newer.

use super::*;

fn mark(generation: u64, pending: Option<u64>) -> DiskMark {
    DiskMark {
        generation: Generation(generation),
        pending: pending.map(Generation),
        ..DiskMark::FRESH
    }
}

#[test]
fn a_copy_starts_by_its_own_record_alone() {
    assert!(mark(3, None).starts(Generation(3)));
    assert!(mark(3, Some(4)).starts(Generation(3)));
    assert!(mark(3, Some(4)).starts(Generation(4)));
    assert!(!mark(3, Some(4)).starts(Generation(5)));
    assert!(!mark(3, None).starts(Generation(4)));
    assert!(!mark(3, None).starts(Generation(2)));
    assert!(!mark(3, None).overwritten().starts(Generation(3)));
    assert!(DiskMark::NONE.starts(Generation(9)));
}

#[test]
fn overwriting_withdraws_what_is_pending() {
    let half = mark(3, Some(4)).overwritten();
    assert_eq!((half.pending, half.consistent), (None, false));
    assert_eq!(half.whole(), mark(3, None));
}

#[test]
fn the_newer_copy() {
    use Ordering::{Greater, Less};
    let cases = [
        (mark(3, None), mark(2, None), Some(Greater)),
        (mark(2, None), mark(3, None), Some(Less)),
        (mark(3, None), mark(3, None), None),
        // The other one's change may have been made as well.
        (mark(3, None), mark(2, Some(3)), None),
        (mark(2, Some(3)), mark(3, None), None),
        (mark(4, None), mark(2, Some(3)), Some(Greater)),
        (mark(2, None), mark(9, None).overwritten(), Some(Greater)),
        (mark(9, None).overwritten(), mark(2, None), Some(Less)),
        (
            mark(9, None).overwritten(),
            mark(2, None).overwritten(),
            None,
        ),
    ];
    for (one, other, order) in cases {
        assert_eq!(one.compare(&other), order, "{one} and {other}");
    }
}
