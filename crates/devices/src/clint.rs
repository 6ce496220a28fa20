//! The core-local interruptor: software interrupts and timer compare registers of every hart.
//!
//! Layout and access sizes are those of the SiFive CLINT (`sifive,clint0`): MSIP registers from
//! 0x0 (4 bytes each, 4-byte accesses), MTIMECMP from 0x4000 (8 bytes each) and MTIME at 0xbff8,
//! both with accesses of 4 or 8 bytes. Registers of harts that don't exist read as zero and ignore
//! writes.
//!
//! MTIME is read-only here: virtual time belongs to the machine, and a guest that could turn it
//! back would break the rule that time never goes back. Writes to it are ignored. No operating
//! system for this board writes it.

use serde::{Deserialize, Serialize};

use crate::access::{window_read, window_write};
use crate::persist::{Persist, StateError, length};
use crate::{AccessFault, MAX_HARTS, Now};

#[cfg(test)]
mod tests;

const MSIP_END: u64 = 0x4000;
const MTIMECMP_BASE: u64 = 0x4000;
const MTIME: u64 = 0xbff8;
/// Bytes of the address space that answer; the rest of the 0x1_0000 window is a hole.
const CLINT_END: u64 = 0xc000;

/// The core-local interruptor.
#[derive(Debug)]
pub struct Clint {
    harts: Vec<HartTimer>,
}

/// Software interrupt and timer compare value of one hart.
#[derive(Debug, Clone, Copy)]
struct HartTimer {
    msip: bool,
    mtimecmp: u64,
}

impl HartTimer {
    /// The specification leaves MTIMECMP undefined at reset; all ones means no timer interrupt.
    const RESET: Self = Self {
        msip: false,
        mtimecmp: u64::MAX,
    };
}

/// The saved form of [`Clint`], hart by hart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClintState {
    /// Software interrupt pending, per hart.
    pub msip: Vec<bool>,
    /// Timer compare value in ticks of mtime, per hart.
    pub mtimecmp: Vec<u64>,
}

impl Clint {
    /// A CLINT for `harts` harts, with nothing pending.
    pub fn new(harts: usize) -> Self {
        Self {
            harts: vec![HartTimer::RESET; harts],
        }
    }

    /// Back to the state of [`Clint::new`].
    pub fn reset(&mut self) {
        self.harts.fill(HartTimer::RESET);
    }

    /// Whether the machine software interrupt of `hart` is pending (mip.MSIP).
    #[inline]
    pub fn msip(&self, hart: usize) -> bool {
        self.harts.get(hart).is_some_and(|timer| timer.msip)
    }

    /// The timer compare value of `hart` in ticks of mtime: mip.MTIP is set while mtime is at or
    /// above it. Harts that don't exist never have a timer interrupt.
    #[inline]
    pub fn mtimecmp(&self, hart: usize) -> u64 {
        self.harts
            .get(hart)
            .map_or(u64::MAX, |timer| timer.mtimecmp)
    }

    /// Reads a register; `offset` is aligned to `size`.
    pub fn read(&self, offset: u64, size: usize, now: Now) -> Result<u64, AccessFault> {
        match (offset, size) {
            (0..MSIP_END, 4) => Ok(u64::from(self.msip((offset / 4) as usize))),
            (MTIMECMP_BASE..MTIME, 4 | 8) => {
                let (hart, byte) = timer_register(offset);
                let register = self.harts.get(hart).map_or(0, |timer| timer.mtimecmp);
                window_read(register, byte, size)
            }
            (MTIME..CLINT_END, 4 | 8) => window_read(now.mtime, offset - MTIME, size),
            _ => Err(AccessFault),
        }
    }

    /// Writes a register; `offset` is aligned to `size`.
    pub fn write(&mut self, offset: u64, size: usize, value: u64) -> Result<(), AccessFault> {
        match (offset, size) {
            (0..MSIP_END, 4) => {
                if let Some(timer) = self.harts.get_mut((offset / 4) as usize) {
                    timer.msip = value & 1 != 0;
                }
                Ok(())
            }
            (MTIMECMP_BASE..MTIME, 4 | 8) => {
                let (hart, byte) = timer_register(offset);
                if let Some(timer) = self.harts.get_mut(hart) {
                    timer.mtimecmp = window_write(timer.mtimecmp, byte, size, value)?;
                }
                Ok(())
            }
            (MTIME..CLINT_END, 4 | 8) => Ok(()),
            _ => Err(AccessFault),
        }
    }
}

/// The hart whose MTIMECMP holds `offset`, and the byte within it.
fn timer_register(offset: u64) -> (usize, u64) {
    let relative = offset - MTIMECMP_BASE;
    ((relative / 8) as usize, relative % 8)
}

impl Persist for Clint {
    type State = ClintState;

    fn save(&self) -> ClintState {
        ClintState {
            msip: self.harts.iter().map(|timer| timer.msip).collect(),
            mtimecmp: self.harts.iter().map(|timer| timer.mtimecmp).collect(),
        }
    }

    fn restore(state: ClintState) -> Result<Self, StateError> {
        let harts = state.msip.len();
        length("clint.msip", harts, 1, MAX_HARTS)?;
        length("clint.mtimecmp", state.mtimecmp.len(), harts, harts)?;
        let harts = state
            .msip
            .into_iter()
            .zip(state.mtimecmp)
            .map(|(msip, mtimecmp)| HartTimer { msip, mtimecmp })
            .collect();
        Ok(Self { harts })
    }
}
