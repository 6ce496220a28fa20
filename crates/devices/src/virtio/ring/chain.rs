//! Buffers: what a chain of descriptors names, in pieces of RAM.

use serde::{Deserialize, Serialize};
use twinvm_mem::Memory;

use super::{MAX_CHAIN_DESCRIPTORS, RingError, in_ram};
use crate::persist::{Persist, StateError, length};

/// One piece of a buffer, wholly inside RAM when it was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Segment {
    pa: u64,
    len: u32,
}

/// A buffer that the guest offers: its device-readable part, then its device-writable part.
///
/// It lives only inside one operation of a device and is kept between operations for its memory
/// alone.
#[derive(Debug, Default)]
pub struct Chain {
    readable: Vec<Segment>,
    held: HeldChain,
}

impl Chain {
    /// A buffer of nothing, for the chain that begins with this descriptor.
    pub(super) fn begin(&mut self, head: u16) {
        self.readable.clear();
        self.held.head = head;
        self.held.writable.clear();
    }

    /// Adds what the next descriptor names.
    pub(super) fn push(
        &mut self,
        mem: &Memory,
        writable: bool,
        pa: u64,
        len: u32,
    ) -> Result<(), RingError> {
        if !writable && !self.held.writable.is_empty() {
            return Err(RingError::ReadableAfterWritable);
        }
        if len == 0 {
            return Ok(());
        }
        in_ram(mem, pa, u64::from(len))?;
        let part = if writable {
            &mut self.held.writable
        } else {
            &mut self.readable
        };
        part.push(Segment { pa, len });
        Ok(())
    }

    pub(super) fn head(&self) -> u16 {
        self.held.head
    }

    /// Bytes that the device may read.
    pub fn readable_bytes(&self) -> u64 {
        total(&self.readable)
    }

    /// Bytes that the device may write.
    pub fn writable_bytes(&self) -> u64 {
        self.held.writable_bytes()
    }

    /// Copies the readable part from byte `skip` on into `out`; stops when either ends, and gives
    /// the number of bytes copied.
    pub fn read(&self, mem: &Memory, skip: u64, out: &mut [u8]) -> Result<usize, RingError> {
        let mut done = 0;
        for (pa, len) in pieces(&self.readable, skip, out.len()) {
            mem.read(pa, &mut out[done..done + len])?;
            done += len;
        }
        Ok(done)
    }

    /// Copies `bytes` to the start of the writable part; gives the number of bytes that had room.
    pub fn write(&self, mem: &mut Memory, bytes: &[u8]) -> Result<usize, RingError> {
        self.held.write_at(mem, 0, bytes)
    }

    /// The buffer's head and writable part, which may be given back in a later step.
    pub(crate) fn held(&self) -> &HeldChain {
        &self.held
    }
}

/// A buffer that the device keeps over steps, without its readable part. Every access checks anew
/// that it lies in RAM.
#[derive(Debug, Clone, Default)]
pub(crate) struct HeldChain {
    head: u16,
    writable: Vec<Segment>,
}

/// The saved form of a buffer that a device keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldChainState {
    /// The descriptor that the chain begins with.
    pub head: u16,
    /// Address and length of each device-writable segment.
    pub writable: Vec<(u64, u32)>,
}

impl HeldChain {
    pub(super) fn head(&self) -> u16 {
        self.head
    }

    /// Bytes that the device may write.
    pub(crate) fn writable_bytes(&self) -> u64 {
        total(&self.writable)
    }

    /// Copies `bytes` into the writable part from byte `skip` on; gives the number of bytes that
    /// had room.
    pub(crate) fn write_at(
        &self,
        mem: &mut Memory,
        skip: u64,
        bytes: &[u8],
    ) -> Result<usize, RingError> {
        let mut done = 0;
        for (pa, len) in pieces(&self.writable, skip, bytes.len()) {
            mem.store(pa, &bytes[done..done + len])?;
            done += len;
        }
        Ok(done)
    }
}

impl Persist for HeldChain {
    type State = HeldChainState;

    fn save(&self) -> HeldChainState {
        HeldChainState {
            head: self.head,
            writable: self.writable.iter().map(|s| (s.pa, s.len)).collect(),
        }
    }

    fn restore(state: HeldChainState) -> Result<Self, StateError> {
        length(
            "chain.writable",
            state.writable.len(),
            0,
            MAX_CHAIN_DESCRIPTORS,
        )?;
        let segment = |(pa, len)| Segment { pa, len };
        Ok(Self {
            head: state.head,
            writable: state.writable.into_iter().map(segment).collect(),
        })
    }
}

/// Address and length of the pieces of RAM in which bytes `skip` to `skip + len` of a buffer are,
/// as far as it reaches.
fn pieces(segments: &[Segment], skip: u64, len: usize) -> impl Iterator<Item = (u64, usize)> {
    let (mut skip, mut left) = (skip, len);
    segments.iter().filter_map(move |segment| {
        let here = u64::from(segment.len);
        let from = skip.min(here);
        skip -= from;
        let take = left.min((here - from) as usize);
        left -= take;
        (take > 0).then(|| (segment.pa.wrapping_add(from), take))
    })
}

fn total(segments: &[Segment]) -> u64 {
    segments.iter().map(|segment| u64::from(segment.len)).sum()
}
