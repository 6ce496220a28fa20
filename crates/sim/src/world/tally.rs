//! What runs amount to.

/// What happened in a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Takeovers.
    pub takeovers: u64,
    /// Outputs that left.
    pub outputs: u64,
    /// Outputs that a backup emitted.
    pub spoken: u64,
    /// Operations of clients in histories that were judged.
    pub operations: u64,
    /// Operations in histories that were too hard to judge.
    pub unjudged: u64,
    /// Faults of all kinds.
    pub faults: u64,
    /// Digests that a backup compared.
    pub digests: u64,
    /// Records that the arbiter has had.
    pub records: u64,
    /// Power-ons.
    pub boots: u64,
    /// Requests of a disk that came when another node had it.
    pub rejected: u64,
    /// Batches that were stored and acked beside a loop.
    pub beside: u64,
    /// Packets that waited at a backup and reached the guest there.
    pub kept: u64,
    /// Virtual milliseconds.
    pub virtual_ms: u64,
    /// The longest way from the last fault to a protected pair, milliseconds.
    pub recovery_ms: u64,
}

impl Tally {
    /// Adds another run.
    pub fn add(&mut self, other: &Self) {
        self.takeovers += other.takeovers;
        self.outputs += other.outputs;
        self.spoken += other.spoken;
        self.operations += other.operations;
        self.unjudged += other.unjudged;
        self.faults += other.faults;
        self.digests += other.digests;
        self.records += other.records;
        self.boots += other.boots;
        self.rejected += other.rejected;
        self.beside += other.beside;
        self.kept += other.kept;
        self.virtual_ms += other.virtual_ms;
        self.recovery_ms = self.recovery_ms.max(other.recovery_ms);
    }
}
