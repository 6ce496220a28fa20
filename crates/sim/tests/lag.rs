//! A backup ten times slower than the live node, under a guest that never sleeps.

use twinvm_sim::lag;

#[test]
fn a_slow_backup_is_waited_for() {
    let seen = lag(false).unwrap();
    println!("{seen:#?}");
    assert!(seen.paired_per_s < seen.alone_per_s / 5, "{seen:?}");
    assert!(seen.backup_per_s > seen.paired_per_s * 9 / 10, "{seen:?}");
}
