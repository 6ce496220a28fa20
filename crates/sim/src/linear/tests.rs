use super::*;
use twinvm_linear::{Verdict, judge};

fn op(op: Op, asked: u64, answered: Option<(u64, u64, bool)>) -> Entry {
    Entry {
        op,
        asked,
        answered,
    }
}

fn is_violated(history: &[Entry]) -> bool {
    matches!(judge(history, 0), Verdict::Violated(_))
}

#[test]
fn what_a_register_does_is_linearizable() {
    let history = [
        op(Op::Set(5), 0, Some((10, 0, true))),
        op(Op::Get, 20, Some((30, 5, true))),
        op(Op::Swap(5, 6), 25, Some((50, 5, true))),
        op(Op::Add(1), 40, Some((60, 6, true))),
        op(Op::Swap(5, 9), 70, Some((80, 7, false))),
    ];
    assert_eq!(judge(&history, 0), Verdict::Linearizable);
}

#[test]
fn operations_at_the_same_time_may_take_any_order() {
    let history = [
        op(Op::Add(1), 0, Some((10, 2, true))),
        op(Op::Add(2), 0, Some((10, 0, true))),
        op(Op::Get, 5, Some((12, 2, true))),
    ];
    assert_eq!(judge(&history, 0), Verdict::Linearizable);
}

#[test]
fn a_lost_write_an_old_read_and_a_write_made_twice_are_found() {
    let lost = [
        op(Op::Set(5), 0, Some((10, 0, true))),
        op(Op::Get, 20, Some((30, 0, true))),
    ];
    assert!(is_violated(&lost));
    let old = [
        op(Op::Add(1), 0, Some((10, 0, true))),
        op(Op::Get, 0, Some((15, 1, true))),
        op(Op::Get, 20, Some((30, 0, true))),
    ];
    assert!(is_violated(&old));
    let twice = [
        op(Op::Add(1), 0, Some((10, 0, true))),
        op(Op::Get, 20, Some((30, 2, true))),
    ];
    assert!(is_violated(&twice));
}

#[test]
fn without_an_answer_an_operation_may_take_place_later_or_never() {
    let later = [
        op(Op::Set(5), 0, None),
        op(Op::Get, 10, Some((20, 0, true))),
        op(Op::Get, 30, Some((40, 5, true))),
    ];
    assert_eq!(judge(&later, 0), Verdict::Linearizable);
    let never = [
        op(Op::Set(5), 0, None),
        op(Op::Get, 10, Some((20, 0, true))),
    ];
    assert_eq!(judge(&never, 0), Verdict::Linearizable);
    let too_soon = [op(Op::Get, 0, Some((4, 5, true))), op(Op::Set(5), 5, None)];
    assert!(is_violated(&too_soon));
}
