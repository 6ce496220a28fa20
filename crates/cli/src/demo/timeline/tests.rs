use super::*;

fn gap(start_us: u64, end_us: u64) -> Option<Gap> {
    Some(Gap { start_us, end_us })
}

#[test]
fn the_gap_across_a_kill_reaches_from_the_answer_before_to_the_one_after() {
    let times = [0, 10, 20, 400, 410, 420];
    assert_eq!(longest_gap(&times, 25, 405), gap(20, 400));
    assert_eq!(gap(20, 400).unwrap().ms(), 0.38);
}

#[test]
fn an_answer_that_was_under_way_at_the_kill_does_not_hide_the_gap() {
    // Killed at 25, one answer at 26 had left before.
    let times = [0, 10, 20, 26, 400, 410];
    assert_eq!(longest_gap(&times, 25, 405), gap(26, 400));
}

#[test]
fn gaps_outside_the_window_do_not_count() {
    let times = [0, 900, 910, 920, 1000, 5000];
    assert_eq!(longest_gap(&times, 915, 990), gap(920, 1000));
    assert_eq!(longest_gap(&times, 901, 915), gap(900, 910));
}

#[test]
fn a_gap_that_begins_or_ends_outside_the_window_counts_whole() {
    assert_eq!(longest_gap(&[0, 1000], 400, 500), gap(0, 1000));
}

#[test]
fn of_equal_gaps_the_first_is_taken() {
    assert_eq!(longest_gap(&[0, 10, 20, 30], 0, 30), gap(0, 10));
}

#[test]
fn no_answers_no_gap() {
    assert_eq!(longest_gap(&[], 0, 10), None);
    assert_eq!(longest_gap(&[5], 0, 10), None);
    assert_eq!(longest_gap(&[5, 6], 100, 200), None);
}

#[test]
fn bins_hold_what_came_in_their_time() {
    let times = [0, 9, 10, 35, 39, 40, 99];
    assert_eq!(bins(&times, 0, 40, 10), [2, 1, 0, 2]);
    assert_eq!(bins(&times, 10, 35, 10), [1, 0, 2]);
    assert_eq!(bins(&[], 0, 20, 10), [0, 0]);
    assert!(bins(&times, 50, 50, 10).is_empty());
}

#[test]
fn percentiles_are_values_that_were_measured() {
    let values: Vec<f64> = (1..=100).rev().map(f64::from).collect();
    assert_eq!(percentile(&values, 50.0), Some(50.0));
    assert_eq!(percentile(&values, 99.0), Some(99.0));
    assert_eq!(percentile(&values, 100.0), Some(100.0));
    assert_eq!(percentile(&[7.0], 50.0), Some(7.0));
    assert_eq!(percentile(&[3.0, 1.0, 2.0], 99.0), Some(3.0));
    assert_eq!(percentile(&[], 50.0), None);
}
