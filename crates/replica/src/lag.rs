//! How long a backup would take for what it has not yet executed.
//!
//! Virtual time alone doesn't tell. What a fast host executes in 100 ms keeps a host of a tenth of
//! its speed busy for a second, and that second is what a takeover would take. So the live node
//! measures the backup: what it has executed between two of its acks, if it had work for all of
//! the time between them; and if it had not, it is no slower than that.

/// Measurements are this long at least: an ack is only as fresh as the backup's last slice.
const MEASURE_NS: u64 = 5_000_000;
/// An ack that says what one before it said comes from beside the backup's loop, which is within a
/// slice; one that has been within the same slice for this long stands still.
const STANDS_NS: u64 = 50_000_000;
/// Share of a new measurement in the running mean, 1/8 for a lower one and 1/2 for a higher one: the
/// host and the channel can make a backup slow for a moment, nothing makes it too fast.
const SLOWER_SHIFT: u32 = 3;
const FASTER_SHIFT: u32 = 1;
/// Slower than this nothing is believed to be, steps per second.
const SLOWEST: u64 = 10_000;
/// Ticks of virtual time in a second.
const TICKS_PER_SECOND: u64 = 10_000_000;
/// The even mean is one of about this long: acks that come late and then together cancel out, and
/// a backup that gets faster as it translates more of the guest's code is soon known to be.
const EVEN_NS: u64 = 250_000_000;
/// It says nothing before it is one of this long: in a moment of its own, any backup stands still.
const EVEN_MIN_NS: u64 = 50_000_000;

/// A live guest runs at this share of a joining backup's speed at most, in thousandths: it loses a
/// tenth, and the backup gets level in ten times what it has to execute.
const MOST_SHARE: u64 = 900;
/// It runs at this share at least, for as long as a joining backup may take to get level.
const LEAST_SHARE: u64 = 100;
/// It runs at [`MOST_SHARE`] for this long whatever the backup has to execute.
const MOST_FOR_NS: u64 = 10_000_000_000;
/// A joining backup is to be level this long after it was found to be behind: one that has much to
/// execute would take too long at [`MOST_SHARE`].
const LEVEL_WITHIN_NS: u64 = 30_000_000_000;

/// What an ack said, and when it came.
#[derive(Debug, Clone, Copy)]
struct Mark {
    at_ns: u64,
    /// Steps.
    executed: u64,
    /// The same in the log.
    position: u64,
    /// End of the log that it had stored.
    stored: u64,
}

/// The backup's speed, as its acks show it.
#[derive(Debug, Default)]
pub(crate) struct BackupSpeed {
    mark: Option<Mark>,
    /// Steps per second, running mean; `None` as long as it was never behind for long enough.
    per_s: Option<u64>,
    /// The same, each measurement counted for as long as it was.
    even: Even,
    /// How long it has been watched, at work or not, up to [`EVEN_NS`].
    watched_ns: u64,
}

/// A mean in which times count alike, whatever they show.
#[derive(Debug, Default)]
struct Even {
    per_s: u64,
    /// What was measured so far, up to [`EVEN_NS`].
    ns: u64,
}

impl Even {
    fn add(&mut self, measured: u64, ns: u64) {
        self.ns = self.ns.saturating_add(ns).min(EVEN_NS);
        let new = u128::from(ns.min(self.ns));
        let old = u128::from(self.ns) - new;
        let mean = u128::from(self.per_s) * old + u128::from(measured) * new;
        self.per_s = u64::try_from(mean / u128::from(self.ns.max(1))).unwrap_or(u64::MAX);
    }
}

impl BackupSpeed {
    /// An ack came at `now_ns`: the log is stored up to `stored` and executed up to `position`,
    /// which is the guest's step `executed`.
    pub(crate) fn told(&mut self, now_ns: u64, executed: u64, position: u64, stored: u64) {
        let new = Mark {
            at_ns: now_ns,
            executed,
            position,
            stored,
        };
        let Some(mark) = self.mark else {
            self.mark = Some(new);
            return;
        };
        let ns = now_ns.saturating_sub(mark.at_ns);
        let says_nothing = (executed, position) == (mark.executed, mark.position);
        if ns < MEASURE_NS || says_nothing && ns < STANDS_NS {
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
        self.watched_ns = self.watched_ns.saturating_add(ns).min(EVEN_NS);
        if !idle || measured > self.even.per_s {
            self.even.add(measured, ns);
        }
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

    /// Steps per second over a while, if it is known: for a joining backup, which is behind all the
    /// time and may stand still for a moment without anybody's harm.
    pub(crate) fn even_per_s(&self) -> Option<u64> {
        (self.even.ns >= EVEN_MIN_NS).then_some(self.even.per_s.max(SLOWEST))
    }

    /// The same, also of one that was out of work for most of that while: it keeps up with a guest that
    /// does little, and nobody knows how much faster it is.
    pub(crate) fn at_least_per_s(&self) -> Option<u64> {
        (self.watched_ns >= EVEN_MIN_NS).then_some(self.even.per_s.max(SLOWEST))
    }
}

/// Ticks (100 ns) that a backup of this speed needs for so many steps; 0 if that is not known.
pub(crate) fn ticks_for(steps: u64, per_s: Option<u64>) -> u64 {
    let Some(per_s) = per_s else {
        return 0;
    };
    let ticks = u128::from(steps) * u128::from(TICKS_PER_SECOND) / u128::from(per_s.max(1));
    u64::try_from(ticks).unwrap_or(u64::MAX)
}

/// The share of a joining backup's speed at which the live guest runs, in thousandths, if the backup
/// has `lag_ns` of work left and has been behind for `since_ns`.
///
/// What it has left shrinks by the rest of its speed. So it is level after ten times what it had to
/// execute, or after [`LEVEL_WITHIN_NS`] if that is sooner; if it has more to execute than can be
/// done by then, after a ninth more than that and [`MOST_FOR_NS`]. One that is slower than was
/// measured gets there, too: past that time the share falls on and on.
pub(crate) fn joiners_share(lag_ns: u64, since_ns: u64) -> u64 {
    if since_ns < MOST_FOR_NS {
        return MOST_SHARE;
    }
    let left_ns = LEVEL_WITHIN_NS.saturating_sub(since_ns);
    let in_time = match lag_ns < left_ns {
        true => 1000 - u64::try_from(u128::from(lag_ns) * 1000 / u128::from(left_ns)).unwrap_or(0),
        false => 0,
    };
    let least = u128::from(LEAST_SHARE) * u128::from(LEVEL_WITHIN_NS)
        / u128::from(since_ns.max(LEVEL_WITHIN_NS));
    let least = u64::try_from(least).unwrap_or(LEAST_SHARE).max(1);
    in_time.clamp(least, MOST_SHARE)
}

#[cfg(test)]
mod tests;
