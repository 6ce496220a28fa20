//! The outcome of a replay, for people and for programs.

use std::fmt;

use serde::Serialize;
use twinvm_host::time::mono_ns;
use twinvm_log::Ending;
use twinvm_replica::{Divergence, PerturbCounts, Replay};

use super::explain::Explained;
use super::source::Source;

/// What a replay has found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// `equal` or `diverged`.
    outcome: &'static str,
    /// Step reached.
    icount: u64,
    /// Steps made.
    steps: u64,
    /// Position in the log up to which it is applied.
    position: u64,
    /// Digests of the log that were found equal.
    digests_checked: u64,
    /// Digest of the state reached.
    digest: String,
    /// How the recording ends: `finished`, `open` (no end record) or `torn`.
    recording: &'static str,
    host_s: f64,
    mips: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    perturbation: Option<Perturbed>,
    #[serde(skip_serializing_if = "Option::is_none")]
    divergence: Option<Difference>,
}

#[derive(Debug, Serialize)]
struct Perturbed {
    seed: u64,
    slices: u64,
    flushes: u64,
    switches: u64,
    restores: u64,
    snapshots: u64,
    digests: u64,
}

#[derive(Debug, Serialize)]
struct Difference {
    position: u64,
    icount: u64,
    what: String,
    /// Where it went wrong first, if that was looked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    explanation: Option<Explained>,
}

impl Report {
    /// A report as of now, on a replay that began at step `from`.
    pub(crate) fn new(
        replay: &mut Replay,
        source: &Source,
        from: u64,
        began_ns: u64,
        perturbation: Option<(u64, PerturbCounts)>,
        divergence: Option<Divergence>,
    ) -> Self {
        let host_s = mono_ns().saturating_sub(began_ns) as f64 / 1e9;
        let icount = replay.machine().icount();
        let steps = icount.saturating_sub(from);
        Self {
            outcome: match divergence {
                None => "equal",
                Some(_) => "diverged",
            },
            icount,
            steps,
            position: replay.position(),
            digests_checked: replay.checked_digests(),
            digest: format!("{:032x}", replay.machine_mut().digest().total()),
            recording: match source.ending() {
                Some(Ending::Finished { .. }) => "finished",
                Some(Ending::Torn(_)) => "torn",
                Some(Ending::Open) | None => "open",
            },
            host_s,
            mips: steps as f64 / 1e6 / host_s.max(1e-9),
            perturbation: perturbation.map(|(seed, counts)| Perturbed {
                seed,
                slices: counts.slices,
                flushes: counts.flushes,
                switches: counts.switches,
                restores: counts.restores,
                snapshots: counts.snapshots,
                digests: counts.digests,
            }),
            divergence: divergence.map(|divergence| Difference {
                position: divergence.position,
                icount: divergence.icount,
                what: divergence.what,
                explanation: None,
            }),
        }
    }

    /// Adds where it went wrong first.
    pub(crate) fn explain(&mut self, explanation: Explained) {
        if let Some(divergence) = &mut self.divergence {
            divergence.explanation = Some(explanation);
        }
    }

    /// Whether the replay is what was recorded.
    pub(crate) fn is_equal(&self) -> bool {
        self.divergence.is_none()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.divergence {
            Some(Difference {
                position,
                icount,
                what,
                ..
            }) => write!(
                f,
                "diverged at position {position}, step {icount}: {what} ({} digests before it \
                 were equal)",
                self.digests_checked
            )?,
            None => write!(
                f,
                "equal: {} steps, {} records, {} digests, the last state {}, in {:.1} s ({:.0} MIPS)",
                self.steps,
                self.position,
                self.digests_checked,
                self.digest,
                self.host_s,
                self.mips
            )?,
        }
        if let Some(perturbed) = &self.perturbation {
            write!(
                f,
                "; perturbed by seed {}: {} slices, {} flushes, {} switches of engines, {} \
                 restores, {} snapshots, {} extra digests",
                perturbed.seed,
                perturbed.slices,
                perturbed.flushes,
                perturbed.switches,
                perturbed.restores,
                perturbed.snapshots,
                perturbed.digests
            )?;
        }
        Ok(())
    }
}
