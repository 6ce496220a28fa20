//! Tests of the model: each rule broken on purpose is found, by a short way.

use std::io::{self, Write as _};

use twinvm_model::explore::explore;
use twinvm_model::model::{Goal, Protocol};
use twinvm_model::rules::Broken;
use twinvm_model::scope::Scope;

/// No rule needs more to be found.
const MAX_STATES: usize = 3_000_000;
/// A person follows a way of this many steps.
const MAX_STEPS: usize = 40;

fn scope(rule: Broken) -> Scope {
    match rule {
        // Two histories take two inputs.
        Broken::LoserKeepsMachine | Broken::NoResend => Scope::new(2, 0, 2).from_pair(),
        Broken::AnswerForEver => Scope::new(2, 0, 0).with_cold_delay(),
        Broken::AbsentTrusted
        | Broken::AbsentEndsClaim
        | Broken::OlderEndsClaim
        | Broken::StrangerEndsClaim => Scope::new(2, 0, 1).with_wipe(),
        Broken::HaltUnspoken => Scope::new(0, 1, 1).with_backup_speaking(),
        // An output that is missing shows when a later one leaves.
        _ if rule.is_about_speaking() => Scope::new(2, 0, 2).from_pair().with_backup_speaking(),
        // Where nobody dies between two steps of a change, the mark doesn't matter.
        Broken::PendingUnmarked | Broken::PendingMarkedLate | Broken::HeldUnmarked => {
            Scope::new(1, 0, 0).with_disks()
        }
        Broken::ClaimUnflushed => Scope::new(2, 0, 1).with_disks().from_pair(),
        Broken::HalfClearedEarly => Scope::new(2, 1, 0).with_disks().with_people(),
        Broken::ResetByOne => Scope::new(1, 2, 0).with_disks().with_people(),
        rule if rule.is_about_disks() => Scope::new(2, 1, 1).with_disks().with_people().from_pair(),
        _ => Scope::new(2, 0, 1),
    }
}

fn found(rule: Broken) {
    let scope = scope(rule);
    let mut protocol = Protocol::broken(scope, rule);
    if rule == Broken::AnswerForEver {
        protocol.goal = Goal::LiveAlone;
    }
    let report = explore(&protocol, MAX_STATES);
    let (way, what) = if rule.is_progress() {
        assert!(report.wrong.is_none(), "{rule:?} is about progress");
        (report.stuck_by.as_ref(), "stuck")
    } else {
        (report.wrong.as_ref(), "wrong")
    };
    let Some(way) = way else {
        panic!("{rule:?} was not found in {scope}: {report}");
    };
    let steps = way.len();
    let _ = writeln!(
        io::stderr(),
        "model: without {rule:?}: {what} after {steps} steps, {report}"
    );
    assert!(way.len() <= MAX_STEPS, "{rule:?}: {} steps", way.len());
}

macro_rules! rules {
    ($($name:ident => $rule:ident,)*) => {
        $(#[test]
        fn $name() {
            found(Broken::$rule);
        })*

        #[test]
        fn every_rule_has_its_test() {
            assert_eq!(Broken::ALL.to_vec(), [$(Broken::$rule),*]);
        }
    };
}

rules! {
    release_on_the_inputs_ack => ReleaseOnInputAck,
    pairing_without_gate => PairGateOff,
    pairing_before_the_ack => PairBeforeAck,
    telling_before_the_cas => TellBeforeCas,
    unknown_taken_for_failed => UnknownIsFailed,
    a_read_that_settles => ReadSettles,
    solo_without_a_won_drop => SoloWithoutDrop,
    a_welcome_before_the_drop => WelcomeBeforeDrop,
    acks_of_an_old_session => OldAcks,
    acks_before_storing => AckBeforeStored,
    a_drain_before_acks_end => DrainBeforeAcksEnd,
    a_claim_without_cas => ClaimWithoutCas,
    an_untold_claim => ClaimUntold,
    unproven_outputs_not_sent => NoResend,
    late_news => LateNews,
    no_record_ends_a_claim => AbsentEndsClaim,
    an_older_record_ends_a_claim => OlderEndsClaim,
    a_strangers_record_ends_a_claim => StrangerEndsClaim,
    a_loser_that_emits => LoserEmits,
    a_loser_that_goes_on => LoserGoesOn,
    a_loser_that_keeps_its_machine => LoserKeepsMachine,
    a_start_beside_a_holder => StartBesideHolder,
    an_answer_that_counts_for_ever => AnswerForEver,
    a_start_from_anothers_record => StartFromOther,
    an_absent_record_trusted => AbsentTrusted,
    a_start_without_cas => StartWithoutCas,
    a_joiner_that_never_rereads => NeverReread,
    a_change_never_asked_again => NeverRetried,
    a_backup_that_speaks_of_what_it_has_not_stored => SpeakUnstored,
    an_output_forgotten_on_its_ack => ForgetOnAck,
    an_output_forgotten_with_its_backup => ForgetUnspoken,
    a_power_off_before_the_last_output => HaltUnspoken,
    a_change_without_a_mark => PendingUnmarked,
    a_mark_after_the_change => PendingMarkedLate,
    a_won_record_never_marked => HeldUnmarked,
    half_a_copy_not_marked => HalfUnmarked,
    a_copy_called_whole_too_early => HalfClearedEarly,
    a_start_that_ignores_the_mark => MarkIgnored,
    a_claim_before_disks_are_durable => ClaimUnflushed,
    a_reset_that_meets_a_mark => ResetByOne,
    force_beside_a_node_that_runs => ForceUnfenced,
    force_by_another_record_than_was_shown => ForceLater,
}
