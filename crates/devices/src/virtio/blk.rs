//! The disk (virtio 1.2 section 5.2): one queue, no contents.
//!
//! ```text
//! ring ──notify, room──▶ held ──overlaps none before it──▶ issued ──record──▶ used ring
//! ```
//!
//! The contents are outside. A notify takes what the guest offers, copies what is to be written,
//! and gives each request that overlaps none before it a number: from then on it may be carried
//! out, beside all others that have one. The result is a record; data, status, used ring and
//! interrupt appear together in its step, and requests that had to wait get their numbers.
//! What is held is device state, so a restored machine's requests can be carried out again.
//!
//! A reset by the guest drops what has not been issued. What has may still happen, so it is kept
//! until its record comes, and what overlaps it waits.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use twinvm_mem::Memory;

use super::ring::{HeldChain, HeldChainState};
use super::{Chain, RingError, VirtioDevice, VirtioMmio, Virtqueue};
use crate::DeviceOut;
use crate::persist::{Persist, StateError, at_most, consistent, length};

mod request;
#[cfg(test)]
mod tests;

pub use request::{DiskOp, DiskRequest};
use request::{Held, Parsed, STATUS_IOERR, STATUS_OK};

/// Bytes of a sector.
pub const SECTOR_BYTES: u64 = 512;
/// Most data segments of a read or a write.
const SEGMENTS: u32 = 32;
/// Longest data segment: a page, since that is what guests have.
const SEGMENT_BYTES: u32 = 4096;
/// Most bytes of one read or write. A read's data must fit into one record of the log.
pub const MAX_REQUEST_BYTES: u64 = SEGMENTS as u64 * SEGMENT_BYTES as u64;
/// Requests that one disk holds at most: as many as its queue has heads.
pub const MAX_REQUESTS: usize = 256;
/// Bytes of reads and writes that one disk holds at most: bounds snapshots, and what the host
/// keeps in memory. What doesn't fit stays in the ring.
pub const MAX_HELD_BYTES: u64 = 4 << 20;
/// Most sectors of one discard or write-zeroes request, 128 MiB: where the host can only write
/// zeros it takes a moment.
pub const MAX_DISCARD_SECTORS: u32 = 1 << 18;
/// Most sectors of a disk: every byte has an offset in a file.
pub const MAX_SECTORS: u64 = i64::MAX as u64 / SECTOR_BYTES;

const REQUESTS: usize = 0;

const FEATURE_SIZE_MAX: u64 = 1 << 1;
const FEATURE_SEG_MAX: u64 = 1 << 2;
const FEATURE_READ_ONLY: u64 = 1 << 5;
const FEATURE_BLK_SIZE: u64 = 1 << 6;
const FEATURE_FLUSH: u64 = 1 << 9;
const FEATURE_DISCARD: u64 = 1 << 13;
const FEATURE_WRITE_ZEROES: u64 = 1 << 14;

/// Length of `virtio_blk_config` (section 5.2.4).
const CONFIG_BYTES: usize = 72;

/// What a disk is to the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskConfig {
    /// Capacity in sectors of [`SECTOR_BYTES`], at most [`MAX_SECTORS`].
    pub sectors: u64,
    /// The guest can't write.
    pub read_only: bool,
    /// Which of the machine's disks it is, from 0: part of its name.
    pub number: u8,
}

impl DiskConfig {
    /// The name that the guest can ask for.
    pub fn name(&self) -> String {
        format!("twinvm-disk-{}", self.number)
    }

    /// Offset and length in bytes of a range of sectors; `None` if it isn't within the disk.
    fn range(&self, sector: u64, sectors: u64) -> Option<(u64, u64)> {
        let end = sector.checked_add(sectors)?;
        (end <= self.sectors.min(MAX_SECTORS))
            .then_some((sector * SECTOR_BYTES, sectors * SECTOR_BYTES))
    }
}

/// A disk.
#[derive(Debug)]
pub struct VirtioBlk {
    config: DiskConfig,
    config_space: [u8; CONFIG_BYTES],
    /// Number of the next request to be issued; goes on over resets.
    next_id: u64,
    /// All requests that were taken and aren't done, in the order in which they were taken.
    held: Vec<Held>,
}

/// The saved form of [`VirtioBlk`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlkState {
    /// What the disk is to the guest.
    pub config: DiskConfig,
    /// Number of the next request to be issued.
    pub next_id: u64,
    /// All requests that were taken and aren't done, oldest first.
    pub held: Vec<HeldState>,
}

/// The saved form of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldState {
    /// Its number, once it is issued.
    pub id: Option<u64>,
    /// The buffer to give back; none after a reset.
    pub chain: Option<HeldChainState>,
    /// 0 read, 1 write, 2 durable write, 3 flush, 4 discard, 5 write zeroes, 6 the same with
    /// unmap. Numbers are never reused.
    pub op: u8,
    /// First byte on the disk.
    pub offset: u64,
    /// Number of bytes.
    pub bytes: u64,
    /// What a write writes.
    pub data: Vec<u8>,
}

/// Operations by their saved number.
const OPS: [DiskOp; 7] = [
    DiskOp::Read,
    DiskOp::Write { durable: false },
    DiskOp::Write { durable: true },
    DiskOp::Flush,
    DiskOp::Discard,
    DiskOp::WriteZeroes { unmap: false },
    DiskOp::WriteZeroes { unmap: true },
];

/// A result that isn't one of a request in flight: the record comes from another machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DiskDoneError {
    /// No such request is in flight.
    #[error("request {0} is not in flight")]
    NotInFlight(u64),
    /// A status other than done (0) and failed (1).
    #[error("status {0} is neither done nor failed")]
    Status(u8),
    /// Not as many bytes as the request asked for; a failed request and one that isn't a read has
    /// none.
    #[error("{found} bytes of data, expected {expected}")]
    Length {
        /// Bytes that came.
        found: usize,
        /// Bytes that the request asked for.
        expected: u64,
    },
}

impl VirtioBlk {
    /// A disk without requests.
    pub fn new(config: DiskConfig) -> Self {
        Self {
            config,
            config_space: config_space(&config),
            next_id: 0,
            held: Vec::new(),
        }
    }

    /// What the disk is to the guest.
    pub fn disk(&self) -> DiskConfig {
        self.config
    }

    /// Number that the next request gets: if it is greater than it was, requests were issued.
    #[inline]
    pub fn next_id(&self) -> u64 {
        self.next_id
    }

    /// The requests that are issued and not done, oldest first, as the disk in slot `device`.
    pub fn in_flight(&self, device: u8) -> impl Iterator<Item = DiskRequest> {
        self.held.iter().filter_map(move |held| {
            Some(DiskRequest {
                device,
                id: held.id?,
                op: held.op,
                offset: held.offset,
                bytes: held.bytes,
                data: Arc::clone(&held.data),
            })
        })
    }

    /// Takes what the guest offers while there is room, and issues what may be. What is answered
    /// at once is not published.
    fn take(&mut self, queue: &mut Virtqueue, mem: &mut Memory) -> Result<(), RingError> {
        let taken = self.take_from_ring(queue, mem);
        self.issue();
        taken
    }

    fn take_from_ring(&mut self, queue: &mut Virtqueue, mem: &mut Memory) -> Result<(), RingError> {
        // A driver that can't flush needs every write stable when it is done (section 5.2.6.2).
        let durable = queue.features() & FEATURE_FLUSH == 0;
        let mut chain = Chain::default();
        for _ in 0..queue.available(mem)? {
            queue.peek(mem, &mut chain)?;
            match request::parse(&self.config, durable, mem, &chain)? {
                Parsed::Answer { status, data } => {
                    queue.take(mem, &mut chain)?;
                    finish(queue, mem, chain.held(), status, &data)?;
                }
                Parsed::Work { op, offset, bytes } => {
                    let mut held = Held {
                        id: None,
                        chain: None,
                        op,
                        offset,
                        bytes,
                        data: Arc::default(),
                    };
                    if !self.has_room(&held) {
                        break;
                    }
                    queue.take(mem, &mut chain)?;
                    if let DiskOp::Write { .. } = op {
                        held.data = request::write_data(mem, &chain, bytes)?;
                    }
                    held.chain = Some(chain.held().clone());
                    self.held.push(held);
                }
            }
        }
        Ok(())
    }

    fn has_room(&self, request: &Held) -> bool {
        let bytes: u64 = self.held.iter().map(Held::buffered).sum();
        self.held.len() < MAX_REQUESTS && bytes + request.buffered() <= MAX_HELD_BYTES
    }

    /// Gives a number to every request that overlaps none before it.
    fn issue(&mut self) {
        for n in 0..self.held.len() {
            let (before, rest) = self.held.split_at_mut(n);
            let held = &mut rest[0];
            if held.id.is_none() && !before.iter().any(|other| other.conflicts(held)) {
                held.id = Some(self.next_id);
                self.next_id += 1;
            }
        }
    }

    /// Where the request with this number is, if the result can be its own.
    fn find(&self, id: u64, status: u8, data: &[u8]) -> Result<usize, DiskDoneError> {
        let at = self
            .held
            .iter()
            .position(|held| held.id == Some(id))
            .ok_or(DiskDoneError::NotInFlight(id))?;
        let held = &self.held[at];
        let expected = match (status, held.op) {
            (STATUS_OK, DiskOp::Read) => held.bytes,
            (STATUS_OK | STATUS_IOERR, _) => 0,
            _ => return Err(DiskDoneError::Status(status)),
        };
        if data.len() as u64 != expected {
            return Err(DiskDoneError::Length {
                found: data.len(),
                expected,
            });
        }
        Ok(at)
    }
}

/// Writes data and status into the buffer and gives it back.
fn finish(
    queue: &mut Virtqueue,
    mem: &mut Memory,
    chain: &HeldChain,
    status: u8,
    data: &[u8],
) -> Result<(), RingError> {
    let room = chain.writable_bytes().saturating_sub(1);
    chain.write_at(mem, 0, data)?;
    chain.write_at(mem, room, &[status])?;
    // The bytes from the start on that are known to be written (section 2.7.8.2).
    let written = match data.len() as u64 {
        len if len == room => len + 1,
        len => len,
    };
    queue.give_back_held(mem, chain, written as u32)
}

fn config_space(config: &DiskConfig) -> [u8; CONFIG_BYTES] {
    let mut space = [0; CONFIG_BYTES];
    let mut put = |at: usize, bytes: &[u8]| space[at..at + bytes.len()].copy_from_slice(bytes);
    let page_sectors = SEGMENT_BYTES / SECTOR_BYTES as u32;
    put(0, &config.sectors.to_le_bytes()); // capacity
    put(8, &SEGMENT_BYTES.to_le_bytes()); // size_max
    put(12, &SEGMENTS.to_le_bytes()); // seg_max
    put(20, &(SECTOR_BYTES as u32).to_le_bytes()); // blk_size
    put(32, &[1]); // writeback
    put(34, &1u16.to_le_bytes()); // num_queues
    if !config.read_only {
        put(36, &MAX_DISCARD_SECTORS.to_le_bytes()); // max_discard_sectors
        put(40, &1u32.to_le_bytes()); // max_discard_seg
        put(44, &page_sectors.to_le_bytes()); // discard_sector_alignment
        put(48, &MAX_DISCARD_SECTORS.to_le_bytes()); // max_write_zeroes_sectors
        put(52, &1u32.to_le_bytes()); // max_write_zeroes_seg
        put(56, &[1]); // write_zeroes_may_unmap
    }
    space
}

impl VirtioDevice for VirtioBlk {
    const DEVICE_ID: u32 = 2;
    const QUEUES: usize = 1;

    fn features(&self) -> u64 {
        let own = if self.config.read_only {
            FEATURE_READ_ONLY
        } else {
            FEATURE_DISCARD | FEATURE_WRITE_ZEROES
        };
        own | FEATURE_SIZE_MAX | FEATURE_SEG_MAX | FEATURE_BLK_SIZE | FEATURE_FLUSH
    }

    fn config(&self) -> &[u8] {
        &self.config_space
    }

    fn notify(
        &mut self,
        queue: usize,
        queues: &mut [Virtqueue],
        mem: &mut Memory,
        _out: DeviceOut<'_>,
    ) -> Result<bool, RingError> {
        if queue != REQUESTS {
            return Ok(false);
        }
        self.take(&mut queues[REQUESTS], mem)?;
        queues[REQUESTS].publish(mem)
    }

    fn reset(&mut self) {
        self.held.retain_mut(|held| {
            held.chain = None;
            held.id.is_some()
        });
    }
}

impl VirtioMmio<VirtioBlk> {
    /// The result of a request in flight, in the step of its record: data, status, used ring and
    /// interrupt appear together. After a reset by the guest only the request ends.
    ///
    /// # Errors
    /// [`DiskDoneError`]; nothing has changed then.
    pub fn complete(
        &mut self,
        mem: &mut Memory,
        id: u64,
        status: u8,
        data: &[u8],
    ) -> Result<(), DiskDoneError> {
        let at = self.device().find(id, status, data)?;
        let done = self.device_mut().held.remove(at);
        self.device_mut().issue();
        self.act(REQUESTS, |device, queues| {
            let queue = &mut queues[REQUESTS];
            if let Some(chain) = &done.chain {
                finish(queue, mem, chain, status, data)?;
            }
            // There is room now.
            device.take(queue, mem)?;
            queue.publish(mem)
        });
        Ok(())
    }
}

impl Persist for VirtioBlk {
    type State = BlkState;

    fn save(&self) -> BlkState {
        BlkState {
            config: self.config,
            next_id: self.next_id,
            held: self.held.iter().map(Persist::save).collect(),
        }
    }

    fn restore(state: BlkState) -> Result<Self, StateError> {
        at_most("disk.sectors", state.config.sectors, MAX_SECTORS)?;
        length("disk.held", state.held.len(), 0, MAX_REQUESTS)?;
        let mut disk = Self::new(state.config);
        disk.next_id = state.next_id;
        for held in state.held {
            let held = Held::restore(held)?;
            let sectors = held.bytes / SECTOR_BYTES;
            consistent(
                disk.config.range(held.offset / SECTOR_BYTES, sectors)
                    == Some((held.offset, held.bytes)),
                "a disk request lies outside its disk",
            )?;
            consistent(
                disk.has_room(&held),
                "a disk holds more than it has room for",
            )?;
            let waits = disk.held.iter().any(|before| before.conflicts(&held));
            consistent(
                waits == held.id.is_none(),
                "a disk request is issued that must wait, or waits for nothing",
            )?;
            consistent(
                held.id.is_none_or(|id| {
                    id < state.next_id && disk.held.iter().all(|other| other.id != Some(id))
                }),
                "a disk request has a number that can't be its own",
            )?;
            disk.held.push(held);
        }
        Ok(disk)
    }
}

impl Persist for Held {
    type State = HeldState;

    fn save(&self) -> HeldState {
        let op = OPS.iter().position(|op| *op == self.op);
        HeldState {
            id: self.id,
            chain: self.chain.as_ref().map(Persist::save),
            op: op.unwrap_or_default() as u8,
            offset: self.offset,
            bytes: self.bytes,
            data: self.data.to_vec(),
        }
    }

    fn restore(state: HeldState) -> Result<Self, StateError> {
        at_most("disk.held.op", state.op, OPS.len() as u8 - 1)?;
        let op = OPS[usize::from(state.op)];
        let most = match op {
            DiskOp::Flush => 0,
            DiskOp::Read | DiskOp::Write { .. } => MAX_REQUEST_BYTES,
            DiskOp::Discard | DiskOp::WriteZeroes { .. } => {
                u64::from(MAX_DISCARD_SECTORS) * SECTOR_BYTES
            }
        };
        at_most("disk.held.bytes", state.bytes, most)?;
        consistent(
            (state.bytes == 0) == (op == DiskOp::Flush),
            "a disk request of no bytes",
        )?;
        let data = match op {
            DiskOp::Write { .. } => state.bytes as usize,
            _ => 0,
        };
        length("disk.held.data", state.data.len(), data, data)?;
        consistent(
            state.id.is_some() || state.chain.is_some(),
            "a disk request waits for a guest that has reset",
        )?;
        let chain = state.chain.map(HeldChain::restore).transpose()?;
        let room = match op {
            DiskOp::Read => state.bytes + 1,
            _ => 1,
        };
        consistent(
            chain
                .as_ref()
                .is_none_or(|chain| chain.writable_bytes() >= room),
            "a disk request has no room for its result",
        )?;
        Ok(Self {
            id: state.id,
            chain,
            op,
            offset: state.offset,
            bytes: state.bytes,
            data: state.data.into(),
        })
    }
}
