//! Ways to break a rule on purpose. Only the crate's own tests can choose one.

/// A broken rule; each must be found by the simulation.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// Rule 1: an output leaves on the ack of what came before its own record.
    ReleaseOnInputAck,
    /// Rule 5: the pairing CAS is sent before the ack of p.
    PairBeforeAck,
    /// Rule 5: outputs are not held while pairing.
    PairGateOff,
    /// Rule 6: a pairing CAS of unknown outcome counts as failed.
    UnknownIsFailed,
    /// Rule 7: a paired node that suspects goes on alone without a won drop.
    SoloWithoutDrop,
    /// Rule 8: acks on receipt, so that a drain may miss what was acked.
    AckBeforeStored,
    /// Rule 8: goes live without asking the arbiter.
    ClaimWithoutCas,
    /// Rule 8: a backup that was never told claims without looking for its name.
    ClaimUntold,
    /// Rule 8: a backup that was never told gives up since the arbiter has no record.
    AbsentEndsClaim,
    /// Rule 8: a backup that was never told decides by a record from before it was welcomed.
    OldEndsClaim,
    /// Rule 8: unproven outputs are not sent again.
    NoResend,
    /// Rule 9: the loser lets its gate go.
    LoserEmits,
    /// Rule 10: starts although the peer holds the session.
    StartBesideHolder,
    /// Rule 14: the live node forgets an output when its record is acked, not when it was emitted.
    ForgetOnAck,
    /// Rule 14: a live node that loses its backup does not emit what that had not.
    ForgetUnspoken,
    /// Rule 11: the live node changes what its backup has yet to read (the replica breaks it).
    OverwriteUnread,
}
