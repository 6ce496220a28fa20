//! Replay with everything changed that must not matter.
//!
//! What the guest sees is a function of snapshot and log alone. So a replay that is cut into
//! other slices, whose engine forgets what it has derived, and whose machine is now and then
//! exchanged for a restored copy of itself must give the digests of the log all the same. Where
//! it doesn't, something depends on the host, and the two nodes of a pair would drift apart.

use crate::replay::{Divergence, Replay, ReplayExit};
use twinvm_log::{Body, Record};
use twinvm_machine::{
    Digest, EngineKind, Machine, PAGE_BYTES, SnapshotError, SnapshotStream, first_difference,
};

/// Steps between two flushes of the engine, on average.
const FLUSH_STEPS: u64 = 3_000_000;
/// Steps between two switches of the engine, on average.
const SWITCH_STEPS: u64 = 1_000_000;
/// Switches that only change when blocks are translated, per one that takes translation away.
const CHANGES: u64 = 8;
/// How often a block is entered before it is translated.
const HOT_AT: [u8; 6] = [0, 1, 2, 16, 100, 254];
// What follows costs time in proportion to RAM, so its distances are steps per page.
/// Steps per page of RAM between two extra digests, on average.
const DIGEST_STEPS: u64 = 2300;
/// Between two exchanges of the machine. With 256 MiB one costs about 0.3 s.
const RESTORE_STEPS: u64 = 4600;
/// Between the beginnings of two snapshots that are read while the guest goes on.
const SNAPSHOT_STEPS: u64 = 6100;
/// Most bytes of such a snapshot that are read between two slices.
const READ_BYTES: u64 = 2 << 20;

/// One way of cutting time into slices: how long they are and how many follow each other.
struct Cut {
    steps: u64,
    slices: u64,
}

/// Single steps find what depends on a slice's end, long slices what depends on its absence.
/// The short ones are few enough that they cost seconds, not minutes.
const CUTS: [Cut; 4] = [
    Cut {
        steps: 1,
        slices: 4000,
    },
    Cut {
        steps: 16,
        slices: 4000,
    },
    Cut {
        steps: 2_000,
        slices: 400,
    },
    Cut {
        steps: 300_000,
        slices: 40,
    },
];

/// What was done to a replay, for reports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PerturbCounts {
    /// Slices run.
    pub slices: u64,
    /// Times the engine had to forget everything it had derived.
    pub flushes: u64,
    /// Times another engine took over, or blocks began to be translated sooner, later or no more.
    pub switches: u64,
    /// Times the machine was exchanged for a copy restored from its own snapshot.
    pub restores: u64,
    /// Snapshots read while the guest went on, restored aside and compared.
    pub snapshots: u64,
    /// Digests beyond those in the log.
    pub digests: u64,
}

/// Disturbs a replay in ways that follow from a seed alone.
pub struct Perturbation {
    rng: SplitMix64,
    pages: u64,
    /// Of each slice, in place of random ones.
    slice_steps: Option<u64>,
    cut: usize,
    slices_left: u64,
    flush_at: u64,
    /// `None` if the machine was given without translation.
    switch_at: Option<u64>,
    engine: EngineKind,
    /// For [`Machine::set_translation`], once it was chosen.
    hot_at: Option<Option<u8>>,
    digest_at: u64,
    restore_at: u64,
    snapshot_at: u64,
    reading: Option<Reading>,
    sabotage_at: Option<u64>,
    counts: PerturbCounts,
}

/// A snapshot that is being read while the guest goes on.
struct Reading {
    stream: SnapshotStream,
    bytes: Vec<u8>,
    begun: u64,
    digest: Digest,
}

impl Perturbation {
    /// The perturbation of this seed, beginning with the machine as it is.
    pub fn new(seed: u64, machine: &Machine) -> Self {
        let mut rng = SplitMix64(seed);
        let icount = machine.icount();
        let pages = (machine.config().ram_bytes / PAGE_BYTES as u64).max(1);
        Self {
            pages,
            slice_steps: None,
            cut: 0,
            slices_left: 0,
            flush_at: rng.after(icount, FLUSH_STEPS),
            switch_at: match machine.engine_kind() {
                EngineKind::Interp => None,
                EngineKind::Jit => Some(rng.after(icount, SWITCH_STEPS)),
            },
            engine: machine.engine_kind(),
            hot_at: None,
            digest_at: rng.after(icount, pages * DIGEST_STEPS),
            restore_at: rng.after(icount, pages * RESTORE_STEPS),
            snapshot_at: rng.after(icount, pages * SNAPSHOT_STEPS),
            reading: None,
            sabotage_at: None,
            counts: PerturbCounts::default(),
            rng,
        }
    }

    /// Disturbs nothing: slices of this length.
    pub fn quiet(slice_steps: u64, machine: &Machine) -> Self {
        Self {
            flush_at: u64::MAX,
            switch_at: None,
            digest_at: u64::MAX,
            restore_at: u64::MAX,
            snapshot_at: u64::MAX,
            slice_steps: Some(slice_steps),
            ..Self::new(0, machine)
        }
    }

    /// Gives the guest a key that is not in the log, at the first slice end from this step on:
    /// what a fault of determinism does. A replay that doesn't find it proves nothing.
    pub fn sabotage(&mut self, icount: u64) {
        self.sabotage_at = Some(icount);
    }

    /// What was done so far.
    pub fn counts(&self) -> PerturbCounts {
        self.counts
    }

    /// Disturbs `replay` and runs one slice of it, of at most `budget` steps. Console text is to
    /// be taken between two calls: it doesn't outlive an exchange of the machine, and much of it
    /// ends a slice.
    ///
    /// # Errors
    /// [`Divergence`], also if a restored copy is not equal to its original.
    pub fn run(&mut self, replay: &mut Replay, budget: u64) -> Result<ReplayExit, Divergence> {
        self.disturb(replay)?;
        let steps = self.slice_steps();
        self.counts.slices += 1;
        replay.run(steps.min(budget))
    }

    fn slice_steps(&mut self) -> u64 {
        if let Some(steps) = self.slice_steps {
            return steps;
        }
        if self.slices_left == 0 {
            self.cut = self.rng.below(CUTS.len() as u64) as usize;
            self.slices_left = 1 + self.rng.below(CUTS[self.cut].slices);
        }
        self.slices_left -= 1;
        1 + self.rng.below(CUTS[self.cut].steps)
    }

    pub(crate) fn disturb(&mut self, replay: &mut Replay) -> Result<(), Divergence> {
        let icount = replay.machine().icount();
        if self.sabotage_at.is_some_and(|at| icount >= at) {
            let record = Record {
                icount,
                body: Body::ConsoleRx { bytes: vec![b'x'] },
            };
            if replay.machine_mut().inject(&record).is_ok() {
                self.sabotage_at = None;
            }
        }
        if icount >= self.flush_at {
            self.flush_at = self.rng.after(icount, FLUSH_STEPS);
            self.counts.flushes += 1;
            replay.machine_mut().flush_engine();
        }
        if self.switch_at.is_some_and(|at| icount >= at) {
            self.switch_at = Some(self.rng.after(icount, SWITCH_STEPS));
            self.counts.switches += 1;
            self.choose_engine();
            self.equip(replay.machine_mut());
        }
        if icount >= self.digest_at {
            self.digest_at = self.rng.after(icount, self.pages * DIGEST_STEPS);
            self.counts.digests += 1;
            replay.machine_mut().digest();
        }
        if icount >= self.snapshot_at {
            self.snapshot_at = self.rng.after(icount, self.pages * SNAPSHOT_STEPS);
            let machine = replay.machine_mut();
            let digest = machine.digest();
            let stream = machine.snapshot(false);
            self.reading = Some(Reading {
                stream: stream.map_err(|error| failed(replay, icount, error))?,
                bytes: Vec::new(),
                begun: icount,
                digest,
            });
        }
        if let Some(reading) = &mut self.reading {
            let bytes = 1 + self.rng.below(READ_BYTES) as usize;
            if !reading.stream.read(bytes, &mut reading.bytes) {
                self.check_reading(replay)?;
            }
        }
        if icount >= self.restore_at {
            self.restore_at = self.rng.after(icount, self.pages * RESTORE_STEPS);
            self.counts.restores += 1;
            let machine = replay.machine_mut();
            let digest = machine.digest();
            let bytes = machine.save(false);
            let bytes = bytes.map_err(|error| failed(replay, icount, error))?;
            let mut copy = equal_copy(replay, &bytes, &digest, icount)?;
            self.equip(&mut copy);
            replay.replace_machine(copy);
        }
        Ok(())
    }

    fn choose_engine(&mut self) {
        let choice = self.rng.below(CHANGES + 1);
        if self.engine == EngineKind::Interp {
            self.engine = EngineKind::Jit;
        } else if choice == CHANGES {
            self.engine = EngineKind::Interp;
        } else {
            // Beyond the last: blocks are translated no more.
            self.hot_at = Some(HOT_AT.get(choice as usize).copied());
        }
    }

    fn equip(&self, machine: &mut Machine) {
        // Where the host has no memory for code now, the engine stays.
        let _ = machine.set_engine(self.engine);
        if let Some(hot_at) = self.hot_at {
            machine.set_translation(hot_at);
        }
    }

    /// A snapshot has been read to its end: it must be of the step at which it began.
    fn check_reading(&mut self, replay: &Replay) -> Result<(), Divergence> {
        if let Some(reading) = self.reading.take() {
            self.counts.snapshots += 1;
            equal_copy(replay, &reading.bytes, &reading.digest, reading.begun)?;
        }
        Ok(())
    }
}

fn failed(replay: &Replay, begun: u64, what: impl std::fmt::Display) -> Divergence {
    Divergence {
        doubtful: false,
        position: replay.position(),
        icount: replay.machine().icount(),
        what: format!("the snapshot of step {begun}: {what}"),
    }
}

/// The machine that `bytes` restore to, if it has the digest of its original.
fn equal_copy(
    replay: &Replay,
    bytes: &[u8],
    digest: &Digest,
    begun: u64,
) -> Result<Machine, Divergence> {
    let diverged = |what: String| failed(replay, begun, what);
    let restored: Result<Machine, SnapshotError> =
        Machine::restore(bytes, Some(replay.machine().config().clone()));
    let mut copy = restored.map_err(|error| diverged(format!("it can't be restored: {error}")))?;
    match digest.first_difference(&copy.digest()) {
        None => Ok(copy),
        Some(part) => {
            // Only a snapshot of this very step has its original beside it.
            let item = (begun == copy.icount() && begun == replay.machine().icount())
                .then(|| first_difference(replay.machine(), &copy))
                .flatten();
            let item = item.map(|item| format!(": {item}")).unwrap_or_default();
            Err(diverged(format!(
                "it restores to another machine: {part}{item}"
            )))
        }
    }
}

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not 0.
    fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// A step after `icount`, `mean` steps on on average.
    fn after(&mut self, icount: u64, mean: u64) -> u64 {
        icount
            .saturating_add(1)
            .saturating_add(self.below(mean.saturating_mul(2)))
    }
}
