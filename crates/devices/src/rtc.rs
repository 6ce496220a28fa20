//! The goldfish real-time clock: wall time in nanoseconds, with one alarm.
//!
//! Wall time is a base fixed at the cold start plus the virtual time of the machine, so both nodes
//! of a pair read the same time; it has the resolution of mtime, 100 ns. Registers are those of the
//! Android emulator's goldfish RTC as QEMU offers them, accesses of 4 bytes. Reading TIME_LOW
//! latches the high half for TIME_HIGH. Writing TIME shifts the clock for as long as the machine
//! lives; a reset of the machine keeps the clock, as a battery would.
//!
//! The alarm is a deadline in mtime ticks that the machine treats like a timer: it stops there and
//! calls [`Rtc::update`], so the interrupt comes at a computed step.

use serde::{Deserialize, Serialize};

use crate::access::{set_high, set_low};
use crate::persist::{Persist, StateError};
use crate::{AccessFault, Now};

#[cfg(test)]
mod tests;

const TIME_LOW: u64 = 0x00;
const TIME_HIGH: u64 = 0x04;
const ALARM_LOW: u64 = 0x08;
const ALARM_HIGH: u64 = 0x0c;
const IRQ_ENABLED: u64 = 0x10;
const CLEAR_ALARM: u64 = 0x14;
const ALARM_STATUS: u64 = 0x18;
const CLEAR_INTERRUPT: u64 = 0x1c;
/// Nanoseconds per tick of mtime.
const TICK_NS: u64 = 100;

/// The real-time clock.
#[derive(Debug)]
pub struct Rtc {
    /// Wall time in ns at mtime 0, modulo 2^64: the base plus what the guest shifted.
    offset_ns: u64,
    /// High half of the last TIME_LOW read.
    latched_high: u32,
    /// Alarm time in ns of wall time.
    alarm_ns: u64,
    /// The mtime at which the alarm fires, while it is armed.
    deadline: Option<u64>,
    irq_enabled: bool,
    irq_pending: bool,
}

/// The saved form of [`Rtc`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RtcState {
    /// Wall time in nanoseconds at mtime 0, modulo 2^64.
    pub offset_ns: u64,
    /// What TIME_HIGH reads.
    pub latched_high: u32,
    /// Alarm time in nanoseconds of wall time.
    pub alarm_ns: u64,
    /// The mtime at which the armed alarm fires.
    pub deadline: Option<u64>,
    /// The interrupt enable register.
    pub irq_enabled: bool,
    /// An alarm has fired and was not cleared.
    pub irq_pending: bool,
}

impl Rtc {
    /// A clock that shows `base_ns` (nanoseconds since 1970) at mtime 0.
    pub fn new(base_ns: u64) -> Self {
        Self {
            offset_ns: base_ns,
            latched_high: 0,
            alarm_ns: 0,
            deadline: None,
            irq_enabled: false,
            irq_pending: false,
        }
    }

    /// Power-on state of everything but the time of day.
    pub fn reset(&mut self) {
        *self = Self::new(self.offset_ns);
    }

    /// The mtime at which the armed alarm fires: the machine calls [`Rtc::update`] when mtime
    /// reaches it.
    #[inline]
    pub fn alarm_deadline(&self) -> Option<u64> {
        self.deadline
    }

    /// Fires the alarm if mtime has reached its deadline.
    pub fn update(&mut self, mtime: u64) {
        if self.deadline.is_some_and(|deadline| mtime >= deadline) {
            self.deadline = None;
            self.irq_pending = true;
        }
    }

    /// The interrupt line.
    #[inline]
    pub fn irq_level(&self) -> bool {
        self.irq_pending && self.irq_enabled
    }

    /// Reads a register; `offset` is aligned to `size`.
    pub fn read(&mut self, offset: u64, size: usize, now: Now) -> Result<u64, AccessFault> {
        if size != 4 {
            return Err(AccessFault);
        }
        self.update(now.mtime);
        Ok(match offset {
            TIME_LOW => {
                let time = self.time_ns(now.mtime);
                self.latched_high = (time >> 32) as u32;
                time & 0xffff_ffff
            }
            TIME_HIGH => u64::from(self.latched_high),
            ALARM_LOW => self.alarm_ns & 0xffff_ffff,
            ALARM_HIGH => self.alarm_ns >> 32,
            IRQ_ENABLED => u64::from(self.irq_enabled),
            ALARM_STATUS => u64::from(self.deadline.is_some()),
            _ => 0,
        })
    }

    /// Writes a register; `offset` is aligned to `size`.
    pub fn write(
        &mut self,
        offset: u64,
        size: usize,
        value: u64,
        now: Now,
    ) -> Result<(), AccessFault> {
        if size != 4 {
            return Err(AccessFault);
        }
        self.update(now.mtime);
        let word = value as u32;
        match offset {
            TIME_LOW => self.set_time(set_low(self.time_ns(now.mtime), word), now.mtime),
            TIME_HIGH => self.set_time(set_high(self.time_ns(now.mtime), word), now.mtime),
            ALARM_LOW => {
                self.alarm_ns = set_low(self.alarm_ns, word);
                self.arm(now.mtime);
            }
            ALARM_HIGH => self.alarm_ns = set_high(self.alarm_ns, word),
            IRQ_ENABLED => self.irq_enabled = value & 1 != 0,
            CLEAR_ALARM => self.deadline = None,
            CLEAR_INTERRUPT => self.irq_pending = false,
            _ => {}
        }
        Ok(())
    }

    fn time_ns(&self, mtime: u64) -> u64 {
        self.offset_ns.wrapping_add(mtime.wrapping_mul(TICK_NS))
    }

    /// Shifts the clock. An armed alarm stays at its wall time.
    fn set_time(&mut self, time_ns: u64, mtime: u64) {
        self.offset_ns = time_ns.wrapping_sub(mtime.wrapping_mul(TICK_NS));
        if self.deadline.is_some() {
            self.arm(mtime);
        }
    }

    /// Arms the alarm; one in the past fires at once.
    fn arm(&mut self, mtime: u64) {
        let ticks = self
            .alarm_ns
            .saturating_sub(self.time_ns(mtime))
            .div_ceil(TICK_NS);
        self.deadline = Some(mtime.saturating_add(ticks));
        self.update(mtime);
    }
}

impl Persist for Rtc {
    type State = RtcState;

    fn save(&self) -> RtcState {
        RtcState {
            offset_ns: self.offset_ns,
            latched_high: self.latched_high,
            alarm_ns: self.alarm_ns,
            deadline: self.deadline,
            irq_enabled: self.irq_enabled,
            irq_pending: self.irq_pending,
        }
    }

    fn restore(state: RtcState) -> Result<Self, StateError> {
        Ok(Self {
            offset_ns: state.offset_ns,
            latched_high: state.latched_high,
            alarm_ns: state.alarm_ns,
            deadline: state.deadline,
            irq_enabled: state.irq_enabled,
            irq_pending: state.irq_pending,
        })
    }
}
