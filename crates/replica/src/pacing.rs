//! How virtual time follows the host's clock, and how long a slice is.

use twinvm_machine::Clock;

/// The host's clocks, read by the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostTime {
    /// CLOCK_MONOTONIC, nanoseconds.
    pub mono_ns: u64,
}

/// Nanoseconds in a tick of virtual time.
const TICK_NS: u64 = 100;
/// Aimed length of a slice: input waits at most about this long to be stamped.
const SLICE_NS: u64 = 30_000;
/// Bounds of a slice in steps: a slow host still makes progress, a fast one still
/// looks outside often.
const SLICE_STEPS: std::ops::RangeInclusive<u64> = 500..=200_000;
/// Anchors are this far apart at most while the guest is busy: 5 ms.
const ANCHOR_NS: u64 = 5_000_000;
/// Drift beyond which an anchor is set earlier, down to [`ANCHOR_MIN_NS`].
const DRIFT_TICKS: u64 = 2_000;
/// The least distance between two anchors of a busy guest: 1 ms.
const ANCHOR_MIN_NS: u64 = 1_000_000;
/// Drift beyond which an anchor doesn't wait for [`ANCHOR_MIN_NS`]: 500 µs, half of
/// what the guest's clock may be off.
const FAR_TICKS: u64 = 5_000;
/// The least distance of any two anchors of a busy guest: 250 µs.
const ANCHOR_FAR_NS: u64 = 250_000;
/// How far time may run ahead of an anchor: if the host stops, so does time.
const SPAN_TICKS: u64 = 100_000;
/// Speeds that are believed, in steps per second.
const SPEEDS: std::ops::RangeInclusive<u64> = 1_000_000..=20_000_000_000;
/// Share of a new speed measurement in the running mean, 1/8 for a lower one and 1/2
/// for a higher one: the host can make a slice slow, but nothing makes it too fast.
const SLOWER_SHIFT: u32 = 3;
const FASTER_SHIFT: u32 = 1;
/// Virtual time runs this share slower than the measured speed says, 1/32: an anchor
/// can step time forward at once, but when it is ahead it must wait.
const RATE_BIAS_SHIFT: u32 = 5;

/// Measures how fast the guest runs here, and how many steps a slice gets for it.
pub(crate) struct Slices {
    /// Steps per second while the guest runs, running mean.
    speed: u64,
    /// The same of the last measurement alone.
    last_speed: u64,
    last_ns: u64,
    last_icount: u64,
}

impl Slices {
    /// Nothing is measured yet.
    pub(crate) fn new(now: HostTime, icount: u64) -> Self {
        Self {
            speed: 150_000_000,
            last_speed: 150_000_000,
            last_ns: now.mono_ns,
            last_icount: icount,
        }
    }

    /// Learns from a slice that ended at `now` after the guest came to `icount`.
    pub(crate) fn ran(&mut self, now: HostTime, icount: u64) {
        let ns = now.mono_ns.saturating_sub(self.last_ns);
        let steps = icount.saturating_sub(self.last_icount);
        // Too short to measure: keep adding up.
        if ns < SLICE_NS / 4 {
            return;
        }
        self.last_ns = now.mono_ns;
        self.last_icount = icount;
        let speed = u128::from(steps) * 1_000_000_000 / u128::from(ns);
        self.last_speed = u64::try_from(speed).unwrap_or(u64::MAX);
        // A slice in which the host did something else says nothing of the guest's
        // speed: one measurement counts for at most a factor of two.
        let speed = u64::try_from(speed)
            .unwrap_or(u64::MAX)
            .clamp(self.speed / 2, self.speed.saturating_mul(2))
            .clamp(*SPEEDS.start(), *SPEEDS.end());
        let shift = if speed > self.speed {
            FASTER_SHIFT
        } else {
            SLOWER_SHIFT
        };
        self.speed = self.speed - (self.speed >> shift) + (speed >> shift);
    }

    /// The guest slept or stalled: the next measurement starts at `now`.
    pub(crate) fn resumed(&mut self, now: HostTime, icount: u64) {
        self.last_ns = now.mono_ns;
        self.last_icount = icount;
    }

    /// Steps of the next slice. Code that runs for the first time takes a hundred times as long, and
    /// input would wait while the mean comes down; a slice that is too short costs next to nothing.
    /// So a measurement that is much below the mean is believed at once.
    pub(crate) fn steps(&self) -> u64 {
        let speed = self.speed.min(self.last_speed.saturating_mul(2));
        let steps = u128::from(speed) * u128::from(SLICE_NS) / 1_000_000_000;
        u64::try_from(steps)
            .unwrap_or(u64::MAX)
            .clamp(*SLICE_STEPS.start(), *SLICE_STEPS.end())
    }
}

/// Decides about anchors and slices on the live node.
pub(crate) struct Pacing {
    /// Host time at which virtual time 0 lies (may be "before" the host's boot).
    offset_ns: i128,
    slices: Slices,
    last_anchor_ns: u64,
}

impl Pacing {
    /// Pacing for a machine whose virtual time is `mtime` now.
    pub(crate) fn new(now: HostTime, mtime: u64, icount: u64) -> Self {
        Self {
            offset_ns: i128::from(now.mono_ns) - i128::from(mtime) * i128::from(TICK_NS),
            slices: Slices::new(now, icount),
            last_anchor_ns: now.mono_ns,
        }
    }

    /// Virtual time as the host's clock says it should be, in ticks.
    pub(crate) fn wanted_mtime(&self, now: HostTime) -> u64 {
        let ns = i128::from(now.mono_ns) - self.offset_ns;
        u64::try_from(ns / i128::from(TICK_NS)).unwrap_or(0)
    }

    /// Host time at which virtual time should be `mtime`.
    pub(crate) fn host_ns_at(&self, mtime: u64) -> u64 {
        let ns = i128::from(mtime) * i128::from(TICK_NS) + self.offset_ns;
        u64::try_from(ns.max(0)).unwrap_or(u64::MAX)
    }

    /// See [`Slices::ran`].
    pub(crate) fn ran(&mut self, now: HostTime, icount: u64) {
        self.slices.ran(now, icount);
    }

    /// See [`Slices::resumed`].
    pub(crate) fn resumed(&mut self, now: HostTime, icount: u64) {
        self.slices.resumed(now, icount);
    }

    /// See [`Slices::steps`].
    pub(crate) fn slice_steps(&self) -> u64 {
        self.slices.steps()
    }

    /// Ticks per step at the measured speed, 32.32 fixed point.
    fn rate(&self) -> u128 {
        let ticks_per_second = 1_000_000_000 / TICK_NS;
        let rate = (u128::from(ticks_per_second) << 32) / u128::from(self.slices.speed.max(1));
        rate - (rate >> RATE_BIAS_SHIFT)
    }

    /// Whether a busy guest needs a new anchor now.
    pub(crate) fn anchor_due(&self, now: HostTime, clock: &Clock, icount: u64) -> bool {
        let since = now.mono_ns.saturating_sub(self.last_anchor_ns);
        if clock.rate == 0 || since >= ANCHOR_NS {
            return true;
        }
        // The guest has become so fast that virtual time runs away.
        if u128::from(clock.rate) > 2 * self.rate() {
            return true;
        }
        if since < ANCHOR_FAR_NS {
            return false;
        }
        let drift = self.wanted_mtime(now).abs_diff(clock.mtime(icount));
        drift > FAR_TICKS || (since >= ANCHOR_MIN_NS && drift > DRIFT_TICKS)
    }

    /// The anchor that steers virtual time to the host's clock from here on.
    /// Virtual time never goes back: if it is ahead, it runs slower for a while.
    pub(crate) fn anchor(&mut self, now: HostTime, clock: &Clock, icount: u64) -> Clock {
        self.last_anchor_ns = now.mono_ns;
        let (is, wanted) = (clock.mtime(icount), self.wanted_mtime(now));
        let mtime = is.max(wanted);
        let mut rate = self.rate();
        let ahead = is.saturating_sub(wanted);
        if ahead > 0 {
            // Make up for it before the next anchor, but never stand still.
            let ticks = ANCHOR_FAR_NS / TICK_NS;
            rate = rate * u128::from(ticks) / u128::from(ticks.saturating_add(ahead));
        }
        Clock {
            icount,
            mtime,
            rate: u64::try_from(rate).unwrap_or(u64::MAX).max(1),
            span: SPAN_TICKS,
        }
    }
}

#[cfg(test)]
mod tests;
