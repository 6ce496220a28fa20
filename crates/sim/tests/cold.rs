//! Both nodes killed and started again.

use twinvm_protocol::node::Mutation;
use twinvm_sim::{Broken, DriverFault, colds};

/// Moments for each way.
const SEEDS: u64 = 5;

#[test]
fn whatever_the_order_nothing_is_lost_and_nobody_starts_beside_another() {
    let colds = colds(SEEDS, None).unwrap();
    println!("{colds:?}");
    // Four phases, three kills, three restarts; and a backup that stands still, twice.
    assert_eq!(colds.cases, (4 * 3 * 3 + 2) * 2 * SEEDS);
    assert_eq!(colds.kept_memory, 2 * 2 * SEEDS);
    assert!(
        colds.started_alone > 50 && colds.waited_alone > 50,
        "{colds:?}"
    );
    assert!(colds.killed_joining > 50, "{colds:?}");
}

#[test]
fn a_start_beside_a_backup_that_stands_still_is_found() {
    let found = colds(SEEDS, Some(Broken::Protocol(Mutation::StartBesideHolder)));
    println!("{}", found.unwrap_err());
}

#[test]
fn a_disk_that_never_flushes_is_found() {
    let found = colds(SEEDS, Some(Broken::Driver(DriverFault::FlushesNothing)));
    println!("{}", found.unwrap_err());
}
