use super::*;

#[test]
fn a_median_of_an_odd_and_of_an_even_number() {
    let summary = Summary::of(&[3.0, 1.0, 2.0]).unwrap();
    assert_eq!((summary.n, summary.median), (3, 2.0));
    assert_eq!((summary.min, summary.max), (1.0, 3.0));
    assert_eq!(Summary::of(&[4.0, 1.0, 2.0, 3.0]).unwrap().median, 2.5);
    assert_eq!(Summary::of(&[7.0]).unwrap().median, 7.0);
    assert_eq!(Summary::of(&[]), None);
}

#[test]
fn percentiles_by_nearest_rank() {
    let hundred: Vec<u32> = (1..=100).collect();
    assert_eq!(percentile(&hundred, 50), Some(50));
    assert_eq!(percentile(&hundred, 99), Some(99));
    assert_eq!(percentile(&hundred, 100), Some(100));
    assert_eq!(percentile(&[10, 20, 30], 50), Some(20));
    assert_eq!(percentile(&[10, 20, 30], 99), Some(30));
    assert_eq!(percentile(&[10, 20, 30], 0), Some(10));
    assert_eq!(percentile(&[5], 50), Some(5));
    assert_eq!(percentile(&[], 50), None);
}

#[test]
fn three_digits_that_count() {
    let shown = [479.6, 99.96, 14.26, 9.996, 3.034, 0.9999, 0.0312, 0.0, -2.5].map(digits);
    let expected = [
        "480", "100", "14.3", "10.0", "3.03", "1.00", "0.031", "0.000", "-2.50",
    ];
    assert_eq!(shown, expected);
}

#[test]
fn the_interval_of_a_median_is_binomial() {
    let samples = |n: u32| (0..n).rev().map(f64::from).collect::<Vec<_>>();
    assert_eq!(median_interval(&[]), None);
    assert_eq!(median_interval(&samples(5)), None);
    // Printed tables of the sign test: 1 - 2/64, 1 - 2·12/2048, 1 - 2·(1 + 21 + 210 + 1330 +
    // 5985 + 20349)/2^21.
    for (n, confidence, from, to) in [
        (6, 0.968_75, 0.0, 5.0),
        (11, 0.988_281_25, 1.0, 9.0),
        (21, 0.973_396_301_269_531_2, 5.0, 15.0),
    ] {
        let interval = median_interval(&samples(n)).unwrap();
        assert!((interval.confidence - confidence).abs() < 1e-12, "{n}");
        assert_eq!((interval.from, interval.to), (from, to), "{n}");
    }
}
