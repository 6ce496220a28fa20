//! Virtual time: a function of the step counter and the last anchor.

/// Frequency of `time` and mtime: 10 MHz.
pub const TICKS_PER_SECOND: u64 = 10_000_000;

/// The anchor that ties virtual time to the step counter:
/// `mtime(i) = mtime + min(((i − icount)·rate) >> 32, span)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Clock {
    /// Step count at which the anchor was set.
    pub icount: u64,
    /// Virtual time at that step, in ticks of 100 ns.
    pub mtime: u64,
    /// Ticks per step, 32.32 fixed point.
    pub rate: u64,
    /// The most ticks that may pass before the next anchor.
    pub span: u64,
}

impl Clock {
    /// Virtual time after step `icount`, in ticks.
    #[inline]
    pub fn mtime(&self, icount: u64) -> u64 {
        let steps = u128::from(icount.saturating_sub(self.icount));
        let ticks = (steps * u128::from(self.rate)) >> 32;
        let ticks = ticks.min(u128::from(self.span)) as u64;
        self.mtime.saturating_add(ticks)
    }

    /// The first step count at which virtual time has reached `compare`; `None`
    /// if that needs another anchor. May lie in the past (already due).
    pub fn deadline(&self, compare: u64) -> Option<u64> {
        let Some(ahead) = compare.checked_sub(self.mtime).filter(|ahead| *ahead > 0) else {
            return Some(self.icount);
        };
        if ahead > self.span || self.rate == 0 {
            return None;
        }
        let steps = (u128::from(ahead) << 32).div_ceil(u128::from(self.rate));
        u64::try_from(steps)
            .ok()
            .and_then(|steps| self.icount.checked_add(steps))
    }
}
