//! What the hart reaches outside RAM.

use twinvm_mem::Memory;

/// Nothing answers at this address, or not with this access size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccessFault;

/// Interrupt inputs of one hart as the devices drive them now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lines {
    /// Machine software interrupt (CLINT).
    pub msip: bool,
    /// Machine external interrupt (PLIC).
    pub meip: bool,
    /// Supervisor external interrupt (PLIC).
    pub seip: bool,
    /// The CLINT's compare value for this hart, in ticks of the virtual clock.
    pub mtimecmp: u64,
    /// Virtual time at which [`Bus::alarm`] wants to be called; `u64::MAX` for never.
    pub alarm: u64,
}

/// The devices, seen from the hart. Every access is part of the guest's own
/// step; `mtime` is virtual time as of the step before it.
pub trait Bus {
    /// Reads `size` (1, 2, 4 or 8) bytes at a physical address outside RAM.
    fn read(&mut self, pa: u64, size: usize, mtime: u64) -> Result<u64, AccessFault>;

    /// Writes `size` (1, 2, 4 or 8) bytes at a physical address outside RAM.
    fn write(
        &mut self,
        mem: &mut Memory,
        pa: u64,
        size: usize,
        value: u64,
        mtime: u64,
    ) -> Result<(), AccessFault>;

    /// The 16-bit instruction parcel at an even physical address outside RAM, if
    /// code can be fetched there (a ROM). Must not change anything: the engine
    /// asks for each instruction, as often as it likes.
    fn fetch(&self, pa: u64) -> Option<u16>;

    /// The interrupt inputs of a hart. Asked after each access and at the start
    /// of each run.
    fn lines(&self, hart: u64) -> Lines;

    /// Virtual time has reached [`Lines::alarm`].
    fn alarm(&mut self, mtime: u64);

    /// True if the machine has something to do (an output, a halt) before the
    /// next step: the engine leaves with [`crate::Exit::Attention`].
    fn attention(&self) -> bool;
}
