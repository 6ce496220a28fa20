use super::*;
use twinvm_linear::{Call as _, MAX_OPEN};

fn call(client: u16, ask: Ask, asked_ns: u64, answered: Option<(u64, Answer)>) -> Call {
    Call {
        client,
        key: 0,
        ask,
        asked_ns,
        answered,
    }
}

fn get(asked_ns: u64, answered_ns: u64, value: Option<i64>) -> Call {
    call(
        0,
        Ask::Get,
        asked_ns,
        Some((answered_ns, Answer::Value(value))),
    )
}

fn set(asked_ns: u64, answered_ns: u64, value: i64) -> Call {
    call(
        1,
        Ask::Set(value),
        asked_ns,
        Some((answered_ns, Answer::Done)),
    )
}

fn is_violated(calls: &[Call]) -> bool {
    matches!(judge(calls), Verdict::Violated { .. })
}

#[test]
fn one_after_the_other() {
    let calls = [get(0, 1, None), set(2, 3, 7), get(4, 5, Some(7))];
    assert_eq!(judge(&calls), Verdict::Linearizable);
    assert!(is_violated(&[set(2, 3, 7), get(4, 5, None)]));
    assert!(is_violated(&[set(2, 3, 7), get(4, 5, Some(8))]));
}

#[test]
fn calls_at_one_time_may_come_in_any_order_but_in_one_only() {
    let either = |value| [set(0, 10, 1), set(0, 10, 2), get(11, 12, Some(value))];
    assert_eq!(judge(&either(1)), Verdict::Linearizable);
    assert_eq!(judge(&either(2)), Verdict::Linearizable);
    let both = [
        set(0, 10, 1),
        set(0, 10, 2),
        get(11, 12, Some(1)),
        get(13, 14, Some(2)),
    ];
    assert!(is_violated(&both));
    // The second reader sees the old value after the first has seen the new one.
    let back = [set(0, 20, 5), get(1, 3, Some(5)), get(4, 6, None)];
    assert!(is_violated(&back));
}

#[test]
fn what_was_never_answered_may_have_happened_or_not() {
    let lost = call(2, Ask::Set(9), 5, None);
    for value in [None, Some(9)] {
        assert_eq!(judge(&[lost, get(10, 11, value)]), Verdict::Linearizable);
    }
    assert!(is_violated(&[
        lost,
        get(10, 11, Some(9)),
        get(12, 13, None)
    ]));
    // Not before it was asked.
    assert!(is_violated(&[get(1, 2, Some(9)), lost]));
    // It happens once.
    let incr = call(2, Ask::Incr, 0, None);
    assert!(is_violated(&[incr, get(3, 4, Some(2))]));
}

#[test]
fn numbers_and_swaps() {
    let incr = |asked, answered, number| {
        call(
            3,
            Ask::Incr,
            asked,
            Some((answered, Answer::Number(number))),
        )
    };
    assert_eq!(
        judge(&[incr(0, 9, 2), incr(0, 9, 1), incr(10, 11, 3)]),
        Verdict::Linearizable
    );
    assert!(is_violated(&[incr(0, 9, 1), incr(0, 9, 1)]));
    let swap = |from, to, asked, answered, yes| {
        let answer = Answer::Swapped(yes);
        call(4, Ask::Swap(from, to), asked, Some((answered, answer)))
    };
    let calls = [
        set(0, 1, 5),
        swap(5, 6, 2, 3, true),
        swap(5, 7, 4, 5, false),
        get(6, 7, Some(6)),
    ];
    assert_eq!(judge(&calls), Verdict::Linearizable);
    // Of two that take the same value at one time one wins.
    assert!(is_violated(&[
        set(0, 1, 5),
        swap(5, 6, 2, 9, true),
        swap(5, 7, 2, 9, true),
    ]));
}

#[test]
fn keys_are_told_apart_and_the_one_in_question_is_named() {
    let mut calls = vec![set(0, 1, 5), get(2, 3, Some(5))];
    for call in &mut calls {
        call.key = 4;
    }
    calls.push(get(2, 3, None));
    assert_eq!(judge(&calls), Verdict::Linearizable);
    let mut wrong = get(6, 7, Some(1));
    wrong.key = 4;
    calls.push(wrong);
    let Verdict::Violated { key: 4, calls } = judge(&calls) else {
        panic!("not found");
    };
    assert_eq!(calls.last(), Some(&wrong));
}

#[test]
fn too_many_unanswered_calls_are_undecided() {
    let mut calls: Vec<Call> = (0..MAX_OPEN as i64)
        .map(|n| call(0, Ask::Set(n), 0, None))
        .collect();
    calls.push(get(1, 2, Some(3)));
    assert_eq!(judge(&calls), Verdict::Undecided { key: 0 });
}

/// Whether some order of all calls, each within its time, explains the answers: tried one by one.
fn some_order_explains(calls: &[Call], used: &mut Vec<bool>, value: Option<i64>) -> bool {
    let open = |used: &[bool]| (0..calls.len()).filter(|at| !used[*at]).collect::<Vec<_>>();
    let left = open(used);
    // What is left may never have happened.
    if left.iter().all(|at| calls[*at].answered.is_none()) {
        return true;
    }
    left.iter().any(|&at| {
        // Nothing that is left was answered before this one was asked.
        let first = left.iter().all(|&other| {
            let answered = calls[other].answered.map_or(u64::MAX, |(at, _)| at);
            answered >= calls[at].asked_ns
        });
        let Some(next) = first.then(|| calls[at].happens(value)).flatten() else {
            return false;
        };
        used[at] = true;
        let found = some_order_explains(calls, used, next);
        used[at] = false;
        found
    })
}

#[test]
fn short_histories_are_judged_as_by_trying_all_orders() {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut draw = |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 20) % below
    };
    let (mut right, mut wrong) = (0, 0);
    for _ in 0..20_000 {
        let calls: Vec<Call> = (0..1 + draw(6))
            .map(|client| {
                let asked_ns = draw(12);
                let small = |n: u64| n as i64;
                let ask = match draw(4) {
                    0 => Ask::Get,
                    1 => Ask::Set(small(draw(3))),
                    2 => Ask::Incr,
                    _ => Ask::Swap(small(draw(3)), small(draw(3))),
                };
                let answer = match ask {
                    Ask::Get => Answer::Value(Some(small(draw(4))).filter(|n| *n != 3)),
                    Ask::Set(_) => Answer::Done,
                    Ask::Incr => Answer::Number(1 + small(draw(3))),
                    Ask::Swap(..) => Answer::Swapped(draw(2) == 0),
                };
                let answered = (draw(6) != 0).then(|| (asked_ns + draw(8), answer));
                call(client as u16, ask, asked_ns, answered)
            })
            .collect();
        let expected = some_order_explains(&calls, &mut vec![false; calls.len()], None);
        let verdict = judge(&calls);
        assert_eq!(
            verdict == Verdict::Linearizable,
            expected,
            "{verdict}\n{calls:?}"
        );
        *(if expected { &mut right } else { &mut wrong }) += 1;
    }
    assert!(right > 1000 && wrong > 1000, "{right} {wrong}");
}
