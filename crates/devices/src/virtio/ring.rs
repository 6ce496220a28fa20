//! The split virtqueue (virtio 1.2 section 2.7), the device's side, directly on guest RAM.
//!
//! A device looks at a ring only inside a step of the guest or inside a record, and no hart runs
//! meanwhile: so no barriers, and no second look after a wish to be notified was written. Which
//! notifications and interrupts are left out (section 2.7.7 and 2.7.10) is a function of the ring,
//! of the guest's own steps and of records, never of timing.

use serde::{Deserialize, Serialize};
use twinvm_mem::{Memory, OutOfRam};

use super::feature;
use crate::persist::{Persist, StateError, consistent};

mod chain;
#[cfg(test)]
mod tests;

pub(crate) use chain::HeldChain;
pub use chain::{Chain, HeldChainState};

/// Largest queue that we offer.
pub const MAX_QUEUE_SIZE: u16 = 256;
/// Most descriptors in one chain, those of its indirect table included: bounds the work that one
/// available buffer can cause.
pub const MAX_CHAIN_DESCRIPTORS: usize = 256;

const DESCRIPTOR_BYTES: u64 = 16;
const DESC_NEXT: u16 = 1;
const DESC_WRITE: u16 = 2;
const DESC_INDIRECT: u16 = 4;
const AVAIL_NO_INTERRUPT: u16 = 1;
const USED_NO_NOTIFY: u16 = 1;

/// How the guest broke the rules of the ring. The device answers with DEVICE_NEEDS_RESET.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// A ring, a table or a buffer is not wholly in RAM.
    #[error(transparent)]
    OutOfRam(#[from] OutOfRam),
    /// A size, alignment or address that no ring can have.
    #[error("virtqueue of size {size} cannot be enabled: bad size, alignment or address")]
    BadLayout {
        /// The queue size that the guest set.
        size: u16,
    },
    /// More buffers offered than the queue has room for.
    #[error("available index {found} is more than {size} ahead of {expected}")]
    IndexJump {
        /// The available index in the ring.
        found: u16,
        /// The device's own index.
        expected: u16,
        /// The queue size.
        size: u16,
    },
    /// A descriptor number beyond its table.
    #[error("descriptor {index} is outside its table of {len}")]
    BadDescriptor {
        /// The descriptor number.
        index: u16,
        /// Entries in the table.
        len: u16,
    },
    /// A chain that is too long or runs in a circle.
    #[error("descriptor chain of more than {MAX_CHAIN_DESCRIPTORS}, or a loop")]
    ChainTooLong,
    /// A readable buffer behind a writable one.
    #[error("device-readable descriptor after a device-writable one")]
    ReadableAfterWritable,
    /// A request without a whole header, or without room to say how it went.
    #[error("request without a header or without room for its status")]
    BadRequest,
    /// An indirect table that was not negotiated, is nested, has a successor, or has a bad length.
    #[error("indirect descriptor not allowed here, or its table has a bad length")]
    BadIndirect,
}

/// A virtqueue: where the guest put its rings and how far the device is in them.
///
/// The device's indexes are its own state; it never reads back what it wrote.
#[derive(Debug, Clone, Copy, Default)]
pub struct Virtqueue {
    pub(crate) size: u16,
    pub(crate) desc: u64,
    pub(crate) driver: u64,
    pub(crate) device: u64,
    ready: bool,
    features: u64,
    next_avail: u16,
    next_used: u16,
    published: u16,
    /// Descriptors read since the transport has asked. It asks at the end of each operation, so
    /// where state is saved it is 0.
    read: u32,
}

/// The saved form of [`Virtqueue`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueState {
    /// Queue size that the guest chose.
    pub size: u16,
    /// Physical address of the descriptor table.
    pub desc: u64,
    /// Physical address of the available ring.
    pub driver: u64,
    /// Physical address of the used ring.
    pub device: u64,
    /// The guest enabled the queue.
    pub ready: bool,
    /// The features that were negotiated when the queue was enabled.
    pub features: u64,
    /// Free-running index of the next available entry to take.
    pub next_avail: u16,
    /// Free-running index of the next used entry to fill.
    pub next_used: u16,
    /// The used index that the guest was shown last: what came after it has caused no interrupt.
    pub published: u16,
}

impl Virtqueue {
    /// A queue as after a reset.
    pub fn new() -> Self {
        Self {
            size: MAX_QUEUE_SIZE,
            ..Self::default()
        }
    }

    /// Entries of the queue.
    pub fn size(&self) -> u16 {
        self.size
    }

    /// Whether the guest enabled the queue.
    pub fn ready(&self) -> bool {
        self.ready
    }

    /// The features that were negotiated when the queue was enabled.
    pub fn features(&self) -> u64 {
        self.features
    }

    fn event_idx(&self) -> bool {
        self.features & feature::EVENT_IDX != 0
    }

    /// Enables the queue with the negotiated features, if its layout can be one and lies in RAM.
    pub(crate) fn enable(&mut self, mem: &Memory, features: u64) -> Result<(), RingError> {
        if !self.layout_valid() {
            return Err(RingError::BadLayout { size: self.size });
        }
        let size = u64::from(self.size);
        // The event index behind each ring.
        let event = match features & feature::EVENT_IDX {
            0 => 0,
            _ => 2,
        };
        for (pa, len) in [
            (self.desc, DESCRIPTOR_BYTES * size),
            (self.driver, 4 + 2 * size + event),
            (self.device, 4 + 8 * size + event),
        ] {
            in_ram(mem, pa, len)?;
        }
        self.disable();
        self.ready = true;
        self.features = features;
        Ok(())
    }

    /// Disables the queue: the guest may set it up anew.
    pub(crate) fn disable(&mut self) {
        self.ready = false;
        self.features = 0;
        self.next_avail = 0;
        self.next_used = 0;
        self.published = 0;
    }

    fn layout_valid(&self) -> bool {
        self.size.is_power_of_two()
            && self.size <= MAX_QUEUE_SIZE
            && self.desc.is_multiple_of(16)
            && self.driver.is_multiple_of(2)
            && self.device.is_multiple_of(4)
    }

    /// How many buffers the guest has offered that the device hasn't taken yet: at most the queue
    /// size. An operation asks once and takes no more than that.
    pub fn available(&self, mem: &Memory) -> Result<u16, RingError> {
        let found = mem.load_u16(self.driver.wrapping_add(2))?;
        let available = found.wrapping_sub(self.next_avail);
        if available > self.size {
            return Err(RingError::IndexJump {
                found,
                expected: self.next_avail,
                size: self.size,
            });
        }
        Ok(available)
    }

    /// Takes the next offered buffer into `chain`. Only after [`available`](Self::available) said
    /// that there is one.
    pub fn take(&mut self, mem: &Memory, chain: &mut Chain) -> Result<(), RingError> {
        self.peek(mem, chain)?;
        self.skip();
        Ok(())
    }

    /// Like [`take`](Self::take), but leaves the buffer in the queue.
    pub fn peek(&mut self, mem: &Memory, chain: &mut Chain) -> Result<(), RingError> {
        self.peek_ahead(mem, 0, chain)
    }

    /// Like [`peek`](Self::peek) for the buffer that is offered `ahead` buffers later.
    pub fn peek_ahead(
        &mut self,
        mem: &Memory,
        ahead: u16,
        chain: &mut Chain,
    ) -> Result<(), RingError> {
        let index = self.next_avail.wrapping_add(ahead);
        let slot = u64::from(index & (self.size - 1));
        let head = mem.load_u16(self.driver.wrapping_add(4 + 2 * slot))?;
        chain.begin(head);
        self.walk(mem, chain)
    }

    /// Takes the next offered buffer, which was looked at before.
    pub fn skip(&mut self) {
        self.next_avail = self.next_avail.wrapping_add(1);
    }

    /// How many descriptors were read since this was asked last.
    pub(crate) fn take_read(&mut self) -> u32 {
        std::mem::take(&mut self.read)
    }

    fn walk(&mut self, mem: &Memory, chain: &mut Chain) -> Result<(), RingError> {
        let (mut table, mut len, mut index) = (self.desc, self.size, chain.head());
        let mut inside_indirect = false;
        for _ in 0..MAX_CHAIN_DESCRIPTORS {
            if index >= len {
                return Err(RingError::BadDescriptor { index, len });
            }
            let at = table.wrapping_add(DESCRIPTOR_BYTES * u64::from(index));
            self.read += 1;
            let descriptor = Descriptor::read(mem, at)?;
            if descriptor.flags & DESC_INDIRECT != 0 {
                if inside_indirect || self.features & feature::INDIRECT_DESC == 0 {
                    return Err(RingError::BadIndirect);
                }
                inside_indirect = true;
                len = descriptor.table_len()?;
                table = descriptor.pa;
                index = 0;
                continue;
            }
            chain.push(
                mem,
                descriptor.flags & DESC_WRITE != 0,
                descriptor.pa,
                descriptor.len,
            )?;
            if descriptor.flags & DESC_NEXT == 0 {
                return Ok(());
            }
            index = descriptor.next;
        }
        Err(RingError::ChainTooLong)
    }

    /// Gives a buffer back to the guest, `written` bytes of it filled. It becomes visible with
    /// [`publish`](Self::publish).
    pub fn give_back(
        &mut self,
        mem: &mut Memory,
        chain: &Chain,
        written: u32,
    ) -> Result<(), RingError> {
        self.give_back_held(mem, chain.held(), written)
    }

    /// Like [`give_back`](Self::give_back), for a buffer of an earlier step.
    pub(crate) fn give_back_held(
        &mut self,
        mem: &mut Memory,
        chain: &HeldChain,
        written: u32,
    ) -> Result<(), RingError> {
        let slot = u64::from(self.next_used & (self.size - 1));
        let mut entry = [0; 8];
        entry[..4].copy_from_slice(&u32::from(chain.head()).to_le_bytes());
        entry[4..].copy_from_slice(&written.to_le_bytes());
        mem.store(self.device.wrapping_add(4 + 8 * slot), &entry)?;
        self.next_used = self.next_used.wrapping_add(1);
        Ok(())
    }

    /// Shows the guest all buffers given back, if there are any; says whether the guest wants an
    /// interrupt for them: by its flag, or, with event indexes, if the entry that it waits for is
    /// among those shown now (`vring_need_event` of section 2.7.7).
    pub fn publish(&mut self, mem: &mut Memory) -> Result<bool, RingError> {
        let shown = self.next_used.wrapping_sub(self.published);
        if shown == 0 {
            return Ok(false);
        }
        self.published = self.next_used;
        mem.store_u16(self.device.wrapping_add(2), self.next_used)?;
        if self.event_idx() {
            let at = self.driver.wrapping_add(4 + 2 * u64::from(self.size));
            let used_event = mem.load_u16(at)?;
            let behind = self.next_used.wrapping_sub(used_event).wrapping_sub(1);
            return Ok(behind < shown);
        }
        let flags = mem.load_u16(self.driver)?;
        Ok(flags & AVAIL_NO_INTERRUPT == 0)
    }

    /// Asks the guest to notify when it offers a buffer beyond those in the ring now. The
    /// transport does so before it hands a notify to the device, which thus has to look at all
    /// that is offered, then or by itself later.
    pub fn watch(&self, mem: &mut Memory) -> Result<(), RingError> {
        if self.event_idx() {
            let offered = mem.load_u16(self.driver.wrapping_add(2))?;
            self.set_avail_event(mem, offered)
        } else {
            Ok(mem.store_u16(self.device, 0)?)
        }
    }

    /// The guest need not notify until the next [`watch`](Self::watch): the device will look by
    /// itself. (With event indexes it still does so once in 65,536 buffers.)
    pub fn unwatch(&self, mem: &mut Memory) -> Result<(), RingError> {
        if self.event_idx() {
            // The index just passed.
            let offered = mem.load_u16(self.driver.wrapping_add(2))?;
            self.set_avail_event(mem, offered.wrapping_sub(1))
        } else {
            Ok(mem.store_u16(self.device, USED_NO_NOTIFY)?)
        }
    }

    fn set_avail_event(&self, mem: &mut Memory, index: u16) -> Result<(), RingError> {
        let at = self.device.wrapping_add(4 + 8 * u64::from(self.size));
        Ok(mem.store_u16(at, index)?)
    }
}

/// A descriptor as the guest wrote it.
struct Descriptor {
    pa: u64,
    len: u32,
    flags: u16,
    next: u16,
}

impl Descriptor {
    fn read(mem: &Memory, at: u64) -> Result<Self, RingError> {
        let mut raw = [0; DESCRIPTOR_BYTES as usize];
        mem.read(at, &mut raw)?;
        let [low, high] = [0, 8].map(|from| {
            let mut half = [0; 8];
            half.copy_from_slice(&raw[from..from + 8]);
            u64::from_le_bytes(half)
        });
        Ok(Self {
            pa: low,
            len: high as u32,
            flags: (high >> 32) as u16,
            next: (high >> 48) as u16,
        })
    }

    /// Entries in the indirect table that this descriptor points to.
    fn table_len(&self) -> Result<u16, RingError> {
        let entries = u64::from(self.len) / DESCRIPTOR_BYTES;
        let whole = u64::from(self.len).is_multiple_of(DESCRIPTOR_BYTES);
        if self.flags & DESC_NEXT != 0 || !whole || entries == 0 {
            return Err(RingError::BadIndirect);
        }
        match u16::try_from(entries) {
            Ok(len) if usize::from(len) <= MAX_CHAIN_DESCRIPTORS => Ok(len),
            _ => Err(RingError::BadIndirect),
        }
    }
}

fn in_ram(mem: &Memory, pa: u64, len: u64) -> Result<(), RingError> {
    if mem.contains(pa, len) {
        Ok(())
    } else {
        Err(OutOfRam { pa, len }.into())
    }
}

impl Persist for Virtqueue {
    type State = QueueState;

    fn save(&self) -> QueueState {
        QueueState {
            size: self.size,
            desc: self.desc,
            driver: self.driver,
            device: self.device,
            ready: self.ready,
            features: self.features,
            next_avail: self.next_avail,
            next_used: self.next_used,
            published: self.published,
        }
    }

    /// Addresses are checked against RAM at each use, not here.
    fn restore(state: QueueState) -> Result<Self, StateError> {
        let queue = Self {
            size: state.size,
            desc: state.desc,
            driver: state.driver,
            device: state.device,
            ready: state.ready,
            features: state.features,
            next_avail: state.next_avail,
            next_used: state.next_used,
            published: state.published,
            read: 0,
        };
        consistent(
            !queue.ready || queue.layout_valid(),
            "virtqueue is ready but its size or alignment is not one a queue can have",
        )?;
        Ok(queue)
    }
}
