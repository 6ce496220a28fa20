//! How long a backup would take for what it has not yet executed.
//!
//! Virtual time alone doesn't tell. What a fast host executes in 100 ms keeps a host of a tenth of
//! its speed busy for a second, and that second is what a takeover would take. So the live node
//! measures the backup: what it has executed between two of its acks, if it had work for all of
//! the time between them; and if it had not, it is no slower than that.

/// Measurements are this long at least: an ack is only as fresh as the backup's last slice.
const MEASURE_NS: u64 = 5_000_000;
/// Share of a new measurement in the running mean, 1/8 for a lower one and 1/2 for a higher one: the
/// host and the channel can make a backup slow for a moment, nothing makes it too fast.
const SLOWER_SHIFT: u32 = 3;
const FASTER_SHIFT: u32 = 1;
/// Slower than this nothing is believed to be, steps per second.
const SLOWEST: u64 = 10_000;
/// Ticks of virtual time in a second.
const TICKS_PER_SECOND: u64 = 10_000_000;

/// What an ack said, and when it came.
#[derive(Debug, Clone, Copy)]
struct Mark {
    at_ns: u64,
    /// Steps.
    executed: u64,
    /// End of the log that it had stored.
    stored: u64,
}

/// The backup's speed, as its acks show it.
#[derive(Debug, Default)]
pub(crate) struct BackupSpeed {
    mark: Option<Mark>,
    /// Steps per second, running mean; `None` as long as it was never behind for long enough.
    per_s: Option<u64>,
}

impl BackupSpeed {
    /// An ack came at `now_ns`: the log is stored up to `stored` and executed up to `position`,
    /// which is the guest's step `executed`.
    pub(crate) fn told(&mut self, now_ns: u64, executed: u64, position: u64, stored: u64) {
        let new = Mark {
            at_ns: now_ns,
            executed,
            stored,
        };
        let Some(mark) = self.mark else {
            self.mark = Some(new);
            return;
        };
        let ns = now_ns.saturating_sub(mark.at_ns);
        if ns < MEASURE_NS {
            return;
        }
        self.mark = Some(new);
        let steps = executed.saturating_sub(mark.executed);
        let measured = u128::from(steps) * 1_000_000_000 / u128::from(ns);
        let measured = u64::try_from(measured).unwrap_or(u64::MAX).max(SLOWEST);
        // If what it had stored at the beginning isn't all done, it was never out of work; otherwise
        // it is at least as fast as this. Without that a guest which is held back for one wrong
        // measurement would never give it enough work for another.
        let idle = position >= mark.stored;
        if idle && self.per_s.is_none_or(|known| measured <= known) {
            return;
        }
        self.per_s = Some(match self.per_s {
            None => measured,
            Some(known) => {
                let shift = if measured > known {
                    FASTER_SHIFT
                } else {
                    SLOWER_SHIFT
                };
                known - (known >> shift) + (measured >> shift)
            }
        });
    }

    /// Steps per second, if it is known.
    pub(crate) fn per_s(&self) -> Option<u64> {
        self.per_s
    }

    /// Ticks (100 ns) that the backup needs for so many steps; 0 if its speed is not known.
    pub(crate) fn ticks_for(&self, steps: u64) -> u64 {
        let Some(per_s) = self.per_s else {
            return 0;
        };
        let ticks = u128::from(steps) * u128::from(TICKS_PER_SECOND) / u128::from(per_s.max(1));
        u64::try_from(ticks).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests;
