use super::*;

/// A counter: each call adds one and is told the value before.
struct Add {
    asked: u64,
    answered: Option<(u64, u64)>,
}

impl Call for Add {
    type Value = u64;

    fn asked(&self) -> u64 {
        self.asked
    }

    fn answered(&self) -> Option<u64> {
        self.answered.map(|(at, _)| at)
    }

    fn happens(&self, value: u64) -> Option<u64> {
        let right = self.answered.is_none_or(|(_, before)| before == value);
        right.then_some(value + 1)
    }
}

fn add(asked: u64, answered: u64, before: u64) -> Add {
    Add {
        asked,
        answered: Some((answered, before)),
    }
}

fn lost(asked: u64) -> Add {
    Add {
        asked,
        answered: None,
    }
}

#[test]
fn the_first_call_that_nothing_explains_is_named() {
    assert_eq!(
        judge(&[add(0, 1, 0), add(2, 3, 1)], 0),
        Verdict::Linearizable
    );
    // In any order, also at the same time.
    assert_eq!(
        judge(&[add(0, 9, 1), add(2, 3, 0)], 0),
        Verdict::Linearizable
    );
    let twice = [add(4, 5, 1), add(0, 1, 0), add(2, 3, 0)];
    assert_eq!(judge(&twice, 0), Verdict::Violated(2));
    assert_eq!(judge(&twice, 7), Verdict::Violated(1));
}

#[test]
fn what_was_never_answered_may_have_happened_later_or_never() {
    for before in [1, 2] {
        let calls = [lost(0), add(2, 3, 0), add(4, 5, before)];
        assert_eq!(judge(&calls, 0), Verdict::Linearizable, "{before}");
    }
    assert_eq!(judge(&[add(0, 1, 1), lost(2)], 0), Verdict::Violated(0));
}

#[test]
fn too_much_at_a_time_is_undecided() {
    let calls: Vec<Add> = (0..=MAX_OPEN as u64).map(lost).collect();
    assert_eq!(judge(&calls, 0), Verdict::Undecided);
    // Any of them may be among those before the last.
    let mut calls: Vec<Add> = (0..40).map(lost).collect();
    calls.push(add(50, 60, 20));
    assert_eq!(judge(&calls, 0), Verdict::Undecided);
}
