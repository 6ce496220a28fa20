//! Virtio devices (virtio 1.2) on the modern MMIO transport, with split virtqueues.
//!
//! A device acts in two moments only: inside the guest's own register access (a notify, or the
//! write that sets DRIVER_OK), and inside a record (a frame, entropy, a disk's result). In both it
//! runs to the end, and data, used ring and interrupt appear together, so the guest can never watch
//! a transfer. Rings are read at no other time. Which notifications and interrupts are left out is
//! said by flags and event indexes in the rings, which both sides write in their own steps or in
//! records: never by timing.
//!
//! A guest that breaks the rules of the ring makes its device set DEVICE_NEEDS_RESET; work per
//! notify is bounded by the queue size, the longest chain and the largest frame.

mod blk;
mod console;
mod mmio;
mod net;
mod ring;
mod rng;

pub use blk::{
    BlkState, DiskConfig, DiskDoneError, DiskOp, DiskRequest, HeldState, MAX_DISCARD_SECTORS,
    MAX_HELD_BYTES, MAX_REQUEST_BYTES as MAX_DISK_REQUEST_BYTES, MAX_REQUESTS, MAX_SECTORS,
    SECTOR_BYTES, VirtioBlk,
};
pub use console::{ConsoleState, MAX_TEXT_BYTES, VirtioConsole};
pub use mmio::{MmioState, VirtioMmio};
pub(crate) use mmio::{read_empty_slot, write_empty_slot};
pub use net::{
    MAX_FRAME_BYTES, MAX_PACKET_BYTES, MIN_FRAME_BYTES, NET_HEADER_BYTES, NetHeader, NetOffloads,
    NetState, PartialChecksum, RX_QUEUE_BYTES, RX_QUEUE_FRAMES, Segmentation, VirtioNet,
};
pub use ring::{
    Chain, HeldChainState, MAX_CHAIN_DESCRIPTORS, MAX_QUEUE_SIZE, QueueState, RingError, Virtqueue,
};
pub use rng::{MAX_REQUEST_BYTES, RngState, VirtioRng};

use twinvm_mem::Memory;

use crate::{DeviceOut, Persist};

/// Feature bits of the transport and the rings (virtio 1.2 section 6).
pub mod feature {
    /// Descriptors may point to a table of descriptors.
    pub const INDIRECT_DESC: u64 = 1 << 28;
    /// Event indexes in the rings say which notifications and interrupts are wanted.
    pub const EVENT_IDX: u64 = 1 << 29;
    /// The device follows virtio 1.0 and later, not the legacy interface.
    pub const VERSION_1: u64 = 1 << 32;
}

/// What one virtio device type adds to the transport.
pub trait VirtioDevice: Persist {
    /// Device type (virtio 1.2 section 5).
    const DEVICE_ID: u32;
    /// Number of virtqueues.
    const QUEUES: usize;

    /// Feature bits of this device type, without those of [`feature`].
    fn features(&self) -> u64;

    /// The device configuration space.
    fn config(&self) -> &[u8];

    /// The guest offers buffers in `queue`. The device looks at all of them, now or by itself
    /// later: the guest notifies again only for what it offers beyond them. Says whether the
    /// device used any of them in a way that interrupts the guest.
    fn notify(
        &mut self,
        queue: usize,
        queues: &mut [Virtqueue],
        mem: &mut Memory,
        out: DeviceOut<'_>,
    ) -> Result<bool, RingError>;

    /// The guest resets the device.
    fn reset(&mut self);
}
