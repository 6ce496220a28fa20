//! One bit changed behind everybody's back, as a fault of the host would: for tests that a
//! difference is found. Not compiled without the feature `mutations`.

use crate::difference::MachineState;
use crate::harts::Harts;
use crate::machine::Machine;
use serde_json::Value;
use twinvm_devices::{Board, Persist};

/// Which bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flip<'a> {
    /// Of RAM: physical address of the byte, and bit 0 to 7. The page counts as stored to, as if
    /// an instruction had done it.
    Ram {
        /// Where.
        pa: u64,
        /// Which.
        bit: u32,
    },
    /// Of RAM, and nobody has stored to the page: what a fault of the host's memory does.
    Decay {
        /// Where.
        pa: u64,
        /// Which.
        bit: u32,
    },
    /// Of the saved state of harts and devices: the number at a JSON pointer (RFC 6901), for
    /// example `/registers/harts/harts/0/x/9` for x10 of hart 0.
    State {
        /// Where.
        pointer: &'a str,
        /// Which.
        bit: u32,
    },
}

/// There is no such bit, or no machine could be in that state.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct FlipError(String);

impl Machine {
    /// Changes one bit, and nothing else.
    ///
    /// # Errors
    /// [`FlipError`].
    pub fn flip(&mut self, flip: Flip<'_>) -> Result<(), FlipError> {
        let told = |error: &dyn std::fmt::Display| FlipError(error.to_string());
        match flip {
            Flip::Ram { pa, bit } => {
                let byte = self.ram(pa, 1).and_then(|bytes| bytes.first().copied());
                let byte = byte.ok_or_else(|| FlipError(format!("no RAM at {pa:#x}")))?;
                let changed = [byte ^ 1u8.wrapping_shl(bit)];
                self.mem.store(pa, &changed).map_err(|error| told(&error))
            }
            Flip::Decay { pa, bit } => match self.mem.decay(pa, bit) {
                true => Ok(()),
                false => Err(FlipError(format!("no RAM at {pa:#x}"))),
            },
            Flip::State { pointer, bit } => {
                let mut value = serde_json::to_value(self.state()).map_err(|e| told(&e))?;
                let number = value.pointer_mut(pointer);
                let number = number.ok_or_else(|| FlipError(format!("nothing at {pointer}")))?;
                let was = number.as_u64();
                let was = was.ok_or_else(|| FlipError(format!("no number at {pointer}")))?;
                *number = Value::from(was ^ 1u64.wrapping_shl(bit));
                let state: MachineState = serde_json::from_value(value).map_err(|e| told(&e))?;
                let (harts, board) = state.parts();
                let count = self.config.harts;
                let harts = Harts::restore(&harts, count, self.icount).map_err(|e| told(&e))?;
                self.board = Board::restore(board).map_err(|error| told(&error))?;
                self.harts = harts;
                self.flush_engine();
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests;
