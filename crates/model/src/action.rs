//! What may happen, and where.

use crate::record::Id;
use crate::state::Left;

/// Something that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum What {
    /// The process starts.
    Start,
    /// It reads the arbiter's record.
    Read,
    /// A read's answer arrives.
    Seen,
    /// Its CAS takes effect, or finds another generation.
    Land,
    /// The CAS's answer arrives.
    Answered,
    /// A CAS of unknown outcome is sent again.
    AskAgain,
    /// It calls its peer, which answers.
    Dial,
    /// The peer's answer arrives.
    Called,
    /// Live: the snapshot is taken and sent.
    Snapshot,
    /// Following: the next thing in the stream arrives.
    Deliver,
    /// Following: what was received is stored and acked.
    Store,
    /// Following: the snapshot is installed.
    Install,
    /// Live: the follower's words arrive.
    Acks,
    /// Live: a heartbeat tells the follower what has left.
    Beat,
    /// Backup, with `output = "backup"`: it has executed past its next output, and emits it.
    Speak,
    /// Live: notices that the session is broken.
    LoseSession,
    /// Following: notices that the session is broken.
    Suspect,
    /// All that was stored is executed.
    Drained,
    /// Live: the guest makes an output.
    Output,
    /// No record, and a second without an answer.
    StartAlone,
    /// After a planned takeover: the backup has not claimed in time.
    HandoverOver,
    /// Following, with disks: the first of the live node's blocks is here, ahead of its snapshot.
    Overwrite,
    /// A node that is to start by force, and nobody has answered in time.
    Force,

    /// Live: an input is logged.
    Input,

    /// Fault: the process dies.
    Crash,
    /// Fault: the connection on which this node is live breaks, or one side takes it for broken.
    Cut,
    /// Fault: the outcome of its CAS stays unknown. It lands late, or never, or it has landed.
    Unknown,
    /// A forgotten request lands after all.
    LandStray(u8),
    /// Fault: the arbiter loses its record.
    Wipe,
    /// Fault: where the record was lost, this node's request for the very first one lands, late by
    /// the whole life of the VM. It was of the node's present life, or of an earlier one.
    LateFirst(bool),
    /// `cold_delay_ms` has passed: a cold start that may lose data, as configured.
    ColdDelay,

    /// The guest powers itself off.
    Poweroff,
    /// `ctl stop`.
    Stop,
    /// `ctl takeover`.
    Takeover,
    /// `ctl detach`.
    Detach,
    /// SIGTERM.
    Terminate,
    /// Both nodes are ended, and the record names this one.
    Reset,
    /// Both nodes are ended, and this one is started by force.
    StartForced,

    /// Broken rules only: a read takes the place of an unknown outcome.
    ReadForOutcome,
    /// Broken rules only: suspicion that does not end storing and acking.
    SuspectOnly,
}

/// Something that happens, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Action {
    /// What.
    pub what: What,
    /// At which node.
    pub at: Id,
}

impl Action {
    /// Whether it takes no fault, no person and no client: what the two nodes and the arbiter do by
    /// themselves. (A stopped process is started again by whoever watches over it.)
    pub fn is_recovery(&self) -> bool {
        !matches!(
            self.what,
            What::Input
                | What::Crash
                | What::Cut
                | What::Unknown
                | What::LandStray(_)
                | What::Wipe
                | What::LateFirst(_)
                | What::ColdDelay
                | What::Poweroff
                | What::Stop
                | What::Takeover
                | What::Detach
                | What::Terminate
                | What::Reset
                | What::StartForced
                | What::SuspectOnly
        )
    }
}

/// Takes what an action costs from what may still happen.
pub(crate) fn pay(left: &mut Left, what: What) {
    let purse = match what {
        What::Input => &mut left.inputs,
        What::Crash | What::Cut | What::Unknown | What::SuspectOnly => &mut left.faults,
        What::Wipe => &mut left.wipes,
        What::Poweroff
        | What::Stop
        | What::Takeover
        | What::Detach
        | What::Terminate
        | What::Reset => &mut left.requests,
        _ => return,
    };
    *purse -= 1;
}
