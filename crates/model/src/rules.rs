//! Rules broken on purpose, one at a time: each must be found.

/// A broken rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Broken {
    /// Rule 1: an output leaves on the ack of what came before its own record.
    ReleaseOnInputAck,
    /// Rule 5: outputs are not held while pairing.
    PairGateOff,
    /// Rule 5: the pairing CAS is sent before the ack of p.
    PairBeforeAck,
    /// Rule 5: the backup is told before the CAS is won.
    TellBeforeCas,
    /// Rule 6: a pairing CAS of unknown outcome counts as failed.
    UnknownIsFailed,
    /// Rule 6: after an unknown outcome, a read that still shows g counts as the answer.
    ReadSettles,
    /// Rule 7: a paired node that suspects goes on alone without a won drop.
    SoloWithoutDrop,
    /// Rule 7: a node that has not won its drop yet welcomes a joiner.
    WelcomeBeforeDrop,
    /// Rule 4: what an earlier session acked counts for the new one.
    OldAcks,
    /// Rule 8: acks on receipt, so that a drain may miss what was acked.
    AckBeforeStored,
    /// Rule 8: the drain's last position is read while storing and acking go on.
    DrainBeforeAcksEnd,
    /// Rule 8: goes live without asking the arbiter.
    ClaimWithoutCas,
    /// Rule 8: a backup that was never told claims without looking for its name.
    ClaimUntold,
    /// Rule 8: unproven outputs are not sent again.
    NoResend,
    /// Rule 8: a record older than what is known counts as news, and ends a claim.
    LateNews,
    /// Rule 8: a backup that was never told gives up since the arbiter has no record.
    AbsentEndsClaim,
    /// Rule 8: a backup that was never told decides by a record older than the one by which it was
    /// welcomed.
    OlderEndsClaim,
    /// Rule 8: a backup that was never told decides by a record of the generation by which it was
    /// welcomed, though that doesn't name the node that welcomed it.
    StrangerEndsClaim,
    /// Rule 9: the loser lets its gate go.
    LoserEmits,
    /// Rule 9: the loser goes on executing and speaking.
    LoserGoesOn,
    /// Rule 9: the loser joins with its own machine in the place of the winner's snapshot.
    LoserKeepsMachine,
    /// Rule 10: starts although the peer holds the session.
    StartBesideHolder,
    /// Rule 10, for progress: a peer's word that it holds the VM counts for ever.
    AnswerForEver,
    /// Rule 10: starts from a record that names the other node.
    StartFromOther,
    /// Rules 10 and 11: a node that has known a generation trusts an absent record.
    AbsentTrusted,
    /// Rule 2: the id named live starts again without raising the generation.
    StartWithoutCas,
    /// Rule 9, for progress: a node that waits to join never looks at the record again.
    NeverReread,
    /// Rule 6, for progress: a live node's CAS of unknown outcome is never sent again.
    NeverRetried,
    /// Rule 14: a backup emits an output whose record it has received and not stored.
    SpeakUnstored,
    /// Rule 14: the live node forgets an output when its record is acked, not when it was emitted.
    ForgetOnAck,
    /// Rule 14: a live node that loses its backup does not emit what that had not.
    ForgetUnspoken,
    /// Rule 14: the VM is powered off, or handed over, before its last outputs were emitted.
    HaltUnspoken,
    /// Rule 11: no mark says that a CAS may have been sent.
    PendingUnmarked,
    /// Rule 11: the mark comes after the CAS in the place of before it.
    PendingMarkedLate,
    /// Rule 11: what was won is never marked as held.
    HeldUnmarked,
    /// Rule 11: a copy that is being overwritten is not marked.
    HalfUnmarked,
    /// Rule 11: a joiner's copy is marked as whole before its blocks are durable.
    HalfClearedEarly,
    /// Rule 10: a cold start doesn't look at the mark.
    MarkIgnored,
    /// Rule 8: claims before its disks are durable.
    ClaimUnflushed,
    /// Rule 15: a reset raises the generation by one, so that it may meet a pending mark.
    ResetByOne,
    /// Rule 15: force while the other node runs.
    ForceUnfenced,
    /// Rule 15: force from a later record than a person was shown.
    ForceLater,
}

impl Broken {
    /// All of them.
    pub const ALL: [Self; 42] = [
        Self::ReleaseOnInputAck,
        Self::PairGateOff,
        Self::PairBeforeAck,
        Self::TellBeforeCas,
        Self::UnknownIsFailed,
        Self::ReadSettles,
        Self::SoloWithoutDrop,
        Self::WelcomeBeforeDrop,
        Self::OldAcks,
        Self::AckBeforeStored,
        Self::DrainBeforeAcksEnd,
        Self::ClaimWithoutCas,
        Self::ClaimUntold,
        Self::NoResend,
        Self::LateNews,
        Self::AbsentEndsClaim,
        Self::OlderEndsClaim,
        Self::StrangerEndsClaim,
        Self::LoserEmits,
        Self::LoserGoesOn,
        Self::LoserKeepsMachine,
        Self::StartBesideHolder,
        Self::AnswerForEver,
        Self::StartFromOther,
        Self::AbsentTrusted,
        Self::StartWithoutCas,
        Self::NeverReread,
        Self::NeverRetried,
        Self::SpeakUnstored,
        Self::ForgetOnAck,
        Self::ForgetUnspoken,
        Self::HaltUnspoken,
        Self::PendingUnmarked,
        Self::PendingMarkedLate,
        Self::HeldUnmarked,
        Self::HalfUnmarked,
        Self::HalfClearedEarly,
        Self::MarkIgnored,
        Self::ClaimUnflushed,
        Self::ResetByOne,
        Self::ForceUnfenced,
        Self::ForceLater,
    ];

    /// Whether it breaks a rule of `output = "backup"`.
    pub fn is_about_speaking(self) -> bool {
        matches!(
            self,
            Self::SpeakUnstored | Self::ForgetOnAck | Self::ForgetUnspoken | Self::HaltUnspoken
        )
    }

    /// Whether it is about disks, their marks, or force.
    pub fn is_about_disks(self) -> bool {
        matches!(
            self,
            Self::PendingUnmarked
                | Self::PendingMarkedLate
                | Self::HeldUnmarked
                | Self::HalfUnmarked
                | Self::HalfClearedEarly
                | Self::MarkIgnored
                | Self::ClaimUnflushed
                | Self::ResetByOne
                | Self::ForceUnfenced
                | Self::ForceLater
        )
    }

    /// Whether it is about progress: nothing wrong is ever seen, but the pair may stay unprotected.
    pub fn is_progress(self) -> bool {
        matches!(
            self,
            Self::NeverReread
                | Self::NeverRetried
                | Self::AnswerForEver
                | Self::PendingUnmarked
                | Self::PendingMarkedLate
                | Self::HeldUnmarked
        )
    }
}
