//! A look at the instruction that a hart comes to, or at its data, which changes nothing.

use crate::decode::is_long;
use crate::hart::{Hart, Mode};
use crate::walk::peek;
use twinvm_mem::Memory;

/// An instruction in memory, not yet executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peeked {
    /// Its address, as the hart sees it.
    pub pc: u64,
    /// Its 16 or 32 bits; `None` where nothing can be fetched.
    pub raw: Option<u32>,
}

/// The doubleword in RAM at an aligned virtual address of the hart, whatever it may access there;
/// `None` if there is none.
pub fn peek_data(hart: &Hart, mem: &Memory, va: u64) -> Option<u64> {
    mem.load_u64(peek(mem, satp(hart), va.is_multiple_of(8).then_some(va)?)?)
        .ok()
}

/// The hart's translation.
fn satp(hart: &Hart) -> u64 {
    match hart.mode {
        Mode::Machine => 0,
        Mode::Supervisor | Mode::User => hart.satp,
    }
}

/// The instruction at the hart's pc. Where it lies outside RAM, `outside` gives 16 bits at a
/// physical address.
pub fn peek_instruction(hart: &Hart, mem: &Memory, outside: &dyn Fn(u64) -> Option<u16>) -> Peeked {
    let satp = satp(hart);
    let parcel = |va: u64| {
        let pa = peek(mem, satp, va)?;
        mem.load_u16(pa).ok().or_else(|| outside(pa))
    };
    let raw = parcel(hart.pc).and_then(|low| {
        if !is_long(low) {
            return Some(u32::from(low));
        }
        let high = parcel(hart.pc.wrapping_add(2))?;
        Some(u32::from(high) << 16 | u32::from(low))
    });
    Peeked { pc: hart.pc, raw }
}
