use super::*;

const MS: u64 = 1_000_000;

#[test]
fn a_backup_with_work_to_do_is_measured() {
    let mut speed = BackupSpeed::default();
    assert_eq!(ticks_for(1_000_000, speed.per_s()), 0, "nothing is known");
    // The live guest makes 20 million steps and 200 records a second, the backup executes 2
    // million steps.
    for ms in (0..400).step_by(3) {
        let behind = 20 + ms / 5;
        speed.told(ms * MS, ms * 2_000, ms / 50, behind);
    }
    let per_s = speed.per_s().unwrap();
    assert!((1_900_000..2_100_000).contains(&per_s), "{per_s}");
    // A second's work for it.
    let ticks = ticks_for(2_000_000, speed.per_s());
    assert!((9_500_000..10_500_000).contains(&ticks), "{ticks}");
}

#[test]
fn one_that_waits_for_work_is_not() {
    let mut speed = BackupSpeed::default();
    // Now and then the guest does something for a moment, which the backup has soon repeated.
    for n in 0..50 {
        let steps = n * 1000;
        // What it stores it has executed by the next ack, though that says little.
        speed.told(n * 100 * MS, steps, n, n + 1);
        speed.told(n * 100 * MS + MS, steps + 1000, n + 1, n + 1);
        speed.told(n * 100 * MS + 50 * MS, steps + 1000, n + 1, n + 1);
    }
    assert_eq!(speed.per_s(), None);
}

#[test]
fn a_moment_of_slowness_counts_little_and_a_faster_one_soon() {
    let mut speed = BackupSpeed::default();
    let mut executed = 0;
    let mut tell = |speed: &mut BackupSpeed, n: u64, steps: u64| {
        executed += steps;
        speed.told(n * 10 * MS, executed, n, n + 10);
    };
    for n in 0..10 {
        tell(&mut speed, n, 1_000_000);
    }
    assert_eq!(speed.per_s(), Some(100_000_000));
    tell(&mut speed, 10, 0);
    assert!(speed.per_s().unwrap() > 85_000_000);
    for n in 11..15 {
        tell(&mut speed, n, 2_000_000);
    }
    assert!(speed.per_s().unwrap() > 180_000_000);
}

#[test]
fn one_wrong_measurement_does_not_hold_the_guest_back_for_ever() {
    let mut speed = BackupSpeed::default();
    // Its host had something else to do.
    speed.told(0, 0, 0, 10);
    speed.told(10 * MS, 0, 5, 20);
    assert_eq!(speed.per_s(), Some(SLOWEST));
    // Held back as far as it goes, the guest gives it little to do, and that it does at once.
    for n in 1..40 {
        speed.told((10 + n * 20) * MS, n * 500, 20 + n, 20 + n);
    }
    assert!(speed.per_s().unwrap() > 20_000);
}

#[test]
fn over_a_while_acks_that_come_together_are_no_speed() {
    let mut speed = BackupSpeed::default();
    assert_eq!(speed.even_per_s(), None);
    // 2 million steps a second; every other ack is 30 ms late, and the next one is just behind it.
    for n in 0..40u64 {
        let late = if n % 2 == 0 { 30 } else { 0 };
        let at = n * 40 + late;
        speed.told(at * MS, n * 80_000, n, n + 10);
        let even = speed.even_per_s();
        assert_eq!(even.is_some(), n > 1, "{n}");
        let near = even.is_none_or(|per_s| (1_500_000..3_000_000).contains(&per_s));
        assert!(near, "{n}: {even:?}");
    }
}

#[test]
fn a_joiner_gets_level_in_time_whatever_it_has_to_execute() {
    const S: u64 = 1_000_000_000;
    assert_eq!(joiners_share(100 * S, 0), MOST_SHARE);
    assert_eq!(joiners_share(S, 10 * S), MOST_SHARE);
    assert_eq!(joiners_share(10 * S, 10 * S), 500);
    assert_eq!(joiners_share(100 * S, 10 * S), LEAST_SHARE);
    assert!(joiners_share(S, 400 * S) < LEAST_SHARE);
    assert!(joiners_share(u64::MAX, u64::MAX) > 0);
    // Steps of a backup that is as fast as was measured, or is a third of that.
    for (slower, most) in [(1, [10, 30, 30, 65]), (3, [45, 45, 60, 150])] {
        for (lag_s, most_s) in [1, 5, 15, 50].into_iter().zip(most) {
            let (mut lag_ns, mut since_ns) = (lag_s * S, 0);
            while lag_ns > S / 10 {
                let share = joiners_share(lag_ns, since_ns);
                assert!(share <= MOST_SHARE);
                since_ns += S / 100;
                lag_ns = lag_ns + slower * share * (S / 100_000) - S / 100;
            }
            assert!(since_ns <= most_s * S, "{slower} {lag_s}: {since_ns}");
        }
    }
}

#[test]
fn acks_from_beside_a_slow_loop_do_not_make_it_fast() {
    let mut speed = BackupSpeed::default();
    // 10,000 steps take it 15 ms; an ack comes every 5 ms.
    for n in 0..200 {
        let slices = n / 3;
        speed.told(n * 5 * MS, slices * 10_000, slices, slices + 20);
    }
    let right = 600_000..700_000;
    assert!(
        right.contains(&speed.per_s().unwrap()),
        "{:?}",
        speed.per_s()
    );
    assert!(right.contains(&speed.even_per_s().unwrap()));
    // It stands still.
    for n in 200..400 {
        speed.told(n * 5 * MS, 660_000, 66, 86);
    }
    assert!(speed.per_s().unwrap() < 100_000);
}
