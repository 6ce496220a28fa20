use super::*;

fn tally_of(numbers: &[i64]) -> Tally {
    let mut checker = Checker::default();
    for &number in numbers {
        checker.take(number);
    }
    checker.tally()
}

#[test]
fn counting_is_clean() {
    let tally = tally_of(&[1, 2, 3, 4]);
    assert_eq!(tally.answers, 4);
    assert!(tally.is_clean());
}

#[test]
fn the_first_answer_must_be_one() {
    assert_eq!(tally_of(&[3, 4]).lost, 2);
}

#[test]
fn a_skipped_number_is_lost() {
    let tally = tally_of(&[1, 2, 5, 6]);
    assert_eq!((tally.answers, tally.lost), (4, 2));
    assert!(!tally.is_clean());
}

#[test]
fn a_number_that_comes_again_is_a_duplicate() {
    let tally = tally_of(&[1, 2, 2, 3, 1]);
    assert_eq!((tally.answers, tally.duplicated, tally.lost), (3, 2, 0));
    assert!(!tally.is_clean());
}

#[test]
fn a_number_that_comes_late_is_out_of_order_and_not_lost() {
    let tally = tally_of(&[1, 5, 3]);
    assert_eq!((tally.answers, tally.lost, tally.out_of_order), (3, 2, 1));
    // The hole is cut in two: its other numbers may come too, the same one may not.
    let tally = tally_of(&[1, 5, 3, 2, 4, 3]);
    assert_eq!((tally.answers, tally.lost), (5, 0));
    assert_eq!((tally.out_of_order, tally.duplicated), (3, 1));
    assert!(!tally.is_clean());
}

#[test]
fn what_is_no_count_is_wrong() {
    let mut checker = Checker::default();
    assert_eq!(checker.take(0), Verdict::Wrong);
    assert_eq!(checker.take(-7), Verdict::Wrong);
    assert_eq!(checker.take_wrong(), Verdict::Wrong);
    assert_eq!(checker.tally().wrong, 3);
    assert!(!checker.tally().is_clean());
}

#[test]
fn a_request_without_an_answer_is_lost() {
    let mut checker = Checker::default();
    checker.take(1);
    checker.never_answered();
    assert_eq!(checker.tally().lost, 1);
    assert!(!checker.tally().is_clean());
}

#[test]
fn huge_numbers_cost_no_memory() {
    let mut checker = Checker::default();
    assert_eq!(
        checker.take(i64::MAX),
        Verdict::Skipped(i64::MAX as u64 - 1)
    );
    assert_eq!(checker.take(5), Verdict::Late);
    assert_eq!(checker.holes.len(), 2);
}

#[test]
fn only_a_new_high_number_answers_the_request() {
    let mut checker = Checker::default();
    assert!(checker.take(1).answers_request());
    assert!(!checker.take(1).answers_request());
    assert!(checker.take(3).answers_request());
    assert!(!checker.take(2).answers_request());
    assert_eq!(checker.last(), 3);
}
