//! The protocol as it is: nothing wrong is ever seen, and from every state that can be reached the
//! pair becomes protected again without a further fault.

use std::io::{self, Write as _};

use twinvm_model::action::What;
use twinvm_model::explore::explore;
use twinvm_model::model::{Goal, Protocol};
use twinvm_model::scope::Scope;

/// States that a test may keep: 90 bytes each.
const MAX_STATES: usize = 8_000_000;

fn holds(scope: Scope) {
    check(Protocol::new(scope));
}

fn check(protocol: Protocol) {
    let scope = protocol.scope;
    let report = explore(&protocol, MAX_STATES);
    // Into the log of CI, and so past the harness, which keeps what a test that passes prints.
    let _ = writeln!(io::stderr(), "model: {scope}: {report}");
    if let Some(way) = &report.wrong {
        panic!("{scope}: something wrong is seen after {way:#?}");
    }
    assert!(report.complete, "{scope}: more than {MAX_STATES} states");
    // Nobody but a person can bring back a record that the arbiter has lost.
    let asks = !protocol.loses_record() || protocol.goal == Goal::ProtectedByForce;
    if let (true, Some(way)) = (asks, &report.stuck_by) {
        panic!(
            "{scope}: from {} states no way leads to {:?}, after {way:#?}",
            report.stuck, protocol.goal
        );
    }
}

#[test]
fn two_faults() {
    holds(Scope::new(2, 0, 1).with_cold_delay());
}

#[test]
fn four_faults_without_input() {
    holds(Scope::new(4, 0, 0));
}

#[test]
fn a_fault_and_a_request() {
    holds(Scope::new(1, 1, 1));
}

#[test]
fn two_faults_and_a_request_without_input() {
    holds(Scope::new(2, 1, 0));
}

#[test]
fn a_pair_with_two_faults_and_two_inputs() {
    holds(Scope::new(2, 0, 2).from_pair());
}

#[test]
fn a_pair_with_two_faults_and_a_request() {
    holds(Scope::new(2, 1, 1).from_pair());
}

#[test]
fn a_lost_record() {
    holds(Scope::new(1, 0, 1).with_wipe());
}

#[test]
fn a_lost_record_of_a_pair() {
    holds(Scope::new(2, 0, 1).from_pair().with_wipe());
}

/// What the arbiter has lost a person brings to its end: a reset, and force where there are disks.
#[test]
fn a_lost_record_ends_with_a_reset() {
    let scope = Scope::new(1, 0, 0).with_disks().with_people().with_wipe();
    check(Protocol::with_force(scope));
}

#[test]
fn the_backup_speaks_through_two_faults() {
    holds(Scope::new(2, 0, 1).with_cold_delay().with_backup_speaking());
}

#[test]
fn the_backup_speaks_through_a_fault_and_a_request() {
    holds(Scope::new(1, 1, 1).with_backup_speaking());
}

#[test]
fn the_backup_of_a_pair_speaks_through_two_faults() {
    holds(Scope::new(2, 0, 2).from_pair().with_backup_speaking());
}

#[test]
fn the_backup_of_a_pair_speaks_through_two_faults_and_a_request() {
    holds(Scope::new(2, 1, 1).from_pair().with_backup_speaking());
}

#[test]
fn disks_and_a_fault() {
    holds(Scope::new(1, 0, 1).with_disks().with_cold_delay());
}

#[test]
fn disks_of_a_pair_with_two_faults() {
    holds(Scope::new(2, 0, 1).with_disks().from_pair());
}

#[test]
fn resets_and_force_with_disks() {
    let scope = Scope::new(2, 1, 0).with_disks().with_people().from_pair();
    check(Protocol::with_force(scope));
}

/// After a reset the named node's disks are not those that the record means: force alone helps.
#[test]
fn after_a_reset_nothing_but_force_helps() {
    let scope = Scope::new(2, 1, 0).with_disks().with_people().from_pair();
    let report = explore(&Protocol::new(scope), MAX_STATES);
    assert!(report.wrong.is_none() && report.complete);
    assert!(report.stuck > 0, "{report}");
    let way = report.stuck_by.unwrap_or_default();
    assert_eq!(way.last().map(|a| a.what), Some(What::Reset), "{way:?}");
}

#[test]
fn the_node_named_live_starts_without_its_peer() {
    check(Protocol::alone(Scope::new(2, 0, 0)));
    check(Protocol::alone(Scope::new(1, 1, 0)));
}
