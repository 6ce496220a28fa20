//! A node joins while the guest never sleeps: the guest goes on at nearly its speed, or at nearly the
//! joining node's, and the pair is protected in bounded time.

use std::io::{self, Write as _};

use twinvm_sim::{JoinSeen, join_of};

/// A node that has much to execute is level within this time.
const LEVEL_MS: u64 = 30_000;

fn joined(times: u64) -> JoinSeen {
    let seen = join_of(times).unwrap();
    let _ = writeln!(
        io::stderr(),
        "simulation: a node of 1/{times} joins: {seen:?}"
    );
    seen
}

#[test]
fn a_guest_goes_on_while_a_node_of_its_speed_joins() {
    let seen = joined(1);
    assert!(seen.behind_ms > 900, "{seen:#?}");
    assert!(
        seen.joining_per_s * 100 >= seen.alone_per_s * 85,
        "{seen:#?}"
    );
    // No second, also around the change to what holds for a pair, in which it comes near to standing
    // still.
    assert!(
        seen.slowest_per_s * 100 >= seen.alone_per_s * 75,
        "{seen:#?}"
    );
    let catching_up_ms = seen.protected_after_ms - seen.installed_after_ms;
    assert!(catching_up_ms <= 11 * seen.behind_ms, "{seen:#?}");
    assert!(seen.lag_then_ms <= 100, "{seen:#?}");
    assert!(seen.worst_lag_after_ms <= 120, "{seen:#?}");
    assert!(
        seen.protected_per_s * 100 >= seen.alone_per_s * 95,
        "{seen:#?}"
    );
}

#[test]
fn one_of_a_thirtieth_does_too() {
    let seen = joined(30);
    assert!(seen.behind_ms > 27_000, "{seen:#?}");
    // A ninth more than it had to execute, and nine seconds.
    let catching_up_ms = seen.protected_after_ms - seen.installed_after_ms;
    assert!(catching_up_ms <= 50_000, "{seen:#?}");
    assert!(seen.lag_then_ms <= 120, "{seen:#?}");
    assert!(seen.worst_lag_after_ms <= 250, "{seen:#?}");
}

#[test]
fn one_of_a_tenth_of_the_speed_gets_level_in_bounded_time() {
    let seen = joined(10);
    // Ten seconds of work for it, which would take it a hundred at nine tenths.
    assert!(seen.behind_ms > 9_000, "{seen:#?}");
    let catching_up_ms = seen.protected_after_ms - seen.installed_after_ms;
    assert!(catching_up_ms <= LEVEL_MS + 500, "{seen:#?}");
    // The guest has at least half of its speed until then, and all of it afterwards.
    assert!(
        seen.slowest_per_s * 100 >= seen.alone_per_s * 4,
        "{seen:#?}"
    );
    assert!(seen.lag_then_ms <= 100, "{seen:#?}");
    assert!(seen.worst_lag_after_ms <= 250, "{seen:#?}");
    assert!(
        seen.protected_per_s * 100 >= seen.alone_per_s * 9,
        "{seen:#?}"
    );
}
