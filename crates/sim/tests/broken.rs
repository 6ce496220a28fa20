//! Tests of the tests: each rule is broken on purpose, and the simulator must find it.

use std::io::{self, Write as _};

use twinvm_protocol::node::Mutation;
use twinvm_sim::{Broken, DiskFault, DriverFault, Finding, run};

/// Seeds that may pass before a broken rule is found.
const SEEDS: u64 = 5000;

fn finding(broken: Broken) -> Option<Box<Finding>> {
    (0..SEEDS).find_map(|seed| run(seed, Some(broken)).err())
}

fn must_find(broken: Broken) {
    match finding(broken) {
        Some(found) => {
            let _ = writeln!(
                io::stderr(),
                "simulation: without {broken:?}: seed {}: {}",
                found.seed,
                found.what
            );
        }
        None => panic!("{SEEDS} seeds did not notice {broken:?}"),
    }
}

macro_rules! rules {
    ($($name:ident: $kind:ident($fault:expr);)*) => {
        $(#[test]
        fn $name() {
            must_find(Broken::$kind($fault));
        })*
    };
}

rules! {
    finds_release_on_the_inputs_ack: Protocol(Mutation::ReleaseOnInputAck);
    finds_pairing_before_the_ack: Protocol(Mutation::PairBeforeAck);
    finds_pairing_without_gate: Protocol(Mutation::PairGateOff);
    finds_unknown_taken_for_failed: Protocol(Mutation::UnknownIsFailed);
    finds_solo_without_a_won_drop: Protocol(Mutation::SoloWithoutDrop);
    finds_a_claim_without_cas: Protocol(Mutation::ClaimWithoutCas);
    finds_an_untold_claim: Protocol(Mutation::ClaimUntold);
    finds_unproven_outputs_not_sent: Protocol(Mutation::NoResend);
    finds_a_loser_that_emits: Protocol(Mutation::LoserEmits);
    finds_a_start_beside_a_holder: Protocol(Mutation::StartBesideHolder);
    finds_an_output_forgotten_on_its_ack: Protocol(Mutation::ForgetOnAck);
    finds_an_output_forgotten_with_its_backup: Protocol(Mutation::ForgetUnspoken);
    finds_a_write_that_does_not_wait_for_the_backups_reads: Protocol(Mutation::OverwriteUnread);
    finds_a_rename_before_the_sync: Disk(DiskFault::RenameBeforeSync);
    finds_a_file_written_in_place: Disk(DiskFault::InPlace);
    finds_a_file_never_synced: Disk(DiskFault::NoSync);
    finds_a_cas_that_is_not_asked: Driver(DriverFault::CasUnasked);
    finds_sends_before_outputs: Driver(DriverFault::SendsFirst);
    finds_a_generation_not_stored: Driver(DriverFault::GenerationLater);
    finds_an_unlogged_input: Driver(DriverFault::UnloggedInput);
    finds_a_flush_that_does_nothing: Driver(DriverFault::FlushesNothing);
    finds_a_disk_used_without_a_claim: Driver(DriverFault::ClaimsNothing);
    finds_first_outputs_dropped: Driver(DriverFault::FirstOutputsDropped);
    finds_stored_batches_forgotten_at_the_claim: Driver(DriverFault::StoredForgotten);
}
