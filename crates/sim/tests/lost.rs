//! An arbiter that has lost its record.

use twinvm_protocol::node::Mutation;
use twinvm_sim::{Broken, lost_records};

const SEEDS: u64 = 20;

#[test]
fn the_only_machine_waits_for_the_record_to_come_back() {
    assert_eq!(lost_records(SEEDS, None).unwrap(), 3 * SEEDS);
}

#[test]
fn a_claim_that_no_record_ends_is_found() {
    let found = lost_records(1, Some(Broken::Protocol(Mutation::AbsentEndsClaim)));
    assert!(found.unwrap_err().starts_with("Nothing"));
}

#[test]
fn a_claim_that_an_old_record_ends_is_found() {
    let found = lost_records(1, Some(Broken::Protocol(Mutation::OldEndsClaim)));
    assert!(found.unwrap_err().starts_with("Another"));
}
