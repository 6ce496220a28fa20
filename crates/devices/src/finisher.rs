//! The finisher (`sifive,test0`, `syscon`): the guest writes how it wants to end.
//!
//! One register at offset 0, accesses of 2 or 4 bytes: 0x5555 is success (power off), 0x3333 a
//! failure with a code in the upper half, 0x7777 a reset. Everything else is ignored, reads give
//! zero.

use serde::{Deserialize, Serialize};

use crate::AccessFault;
use crate::persist::{Persist, StateError};

#[cfg(test)]
mod tests;

const PASS: u64 = 0x5555;
const FAIL: u64 = 0x3333;
const RESET: u64 = 0x7777;

/// How the guest wants to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FinisherRequest {
    /// Power off, all is well.
    Pass,
    /// Power off with this failure code.
    Fail(u16),
    /// Start again.
    Reset,
}

/// The finisher.
#[derive(Debug, Default)]
pub struct Finisher {
    request: Option<FinisherRequest>,
}

/// The saved form of [`Finisher`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinisherState {
    /// A request that the machine has not taken yet.
    pub request: Option<FinisherRequest>,
}

impl Finisher {
    /// A finisher without a request.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether there is a request to take.
    #[inline]
    pub fn has_request(&self) -> bool {
        self.request.is_some()
    }

    /// Takes the request, if the guest made one. The last one written counts.
    pub fn take_request(&mut self) -> Option<FinisherRequest> {
        self.request.take()
    }

    /// Reads the register; `offset` is aligned to `size`.
    pub fn read(&self, _offset: u64, size: usize) -> Result<u64, AccessFault> {
        match size {
            2 | 4 => Ok(0),
            _ => Err(AccessFault),
        }
    }

    /// Writes the register; `offset` is aligned to `size`.
    pub fn write(&mut self, offset: u64, size: usize, value: u64) -> Result<(), AccessFault> {
        if !matches!(size, 2 | 4) {
            return Err(AccessFault);
        }
        if offset == 0 {
            let code = if size == 4 { (value >> 16) as u16 } else { 0 };
            match value & 0xffff {
                PASS => self.request = Some(FinisherRequest::Pass),
                FAIL => self.request = Some(FinisherRequest::Fail(code)),
                RESET => self.request = Some(FinisherRequest::Reset),
                _ => {}
            }
        }
        Ok(())
    }
}

impl Persist for Finisher {
    type State = FinisherState;

    fn save(&self) -> FinisherState {
        FinisherState {
            request: self.request,
        }
    }

    fn restore(state: FinisherState) -> Result<Self, StateError> {
        Ok(Self {
            request: state.request,
        })
    }
}
