//! The whole machine: harts, RAM and the devices of the `virt` board, as one
//! value that runs to an exact step, takes records, and can be saved, restored
//! and digested.
//!
//! The state after step N is a function of the snapshot and of the records
//! injected since: this crate has no clock, thread, socket or source of chance.
//! Whoever drives it decides when to run and what to inject.

mod boot;
mod config;
mod difference;
mod digest;
mod disk;
mod engine;
mod fdt;
#[cfg(feature = "mutations")]
mod flip;
mod harts;
mod image;
mod inject;
mod instruction;
pub mod loader;
mod machine;
mod output;
mod sbi;
mod snapshot;

pub use config::{FieldDifference, MachineConfig, OnReset, PowerOn, first_field_difference};
pub use difference::{
    Difference, MachineState, Moment, RegisterState, StateDecodeError, first_difference,
    page_address, page_difference,
};
pub use digest::Digest;
pub use disk::disk_hash;
pub use engine::{EngineError, EngineKind};
#[cfg(feature = "mutations")]
#[doc(hidden)]
pub use flip::{Flip, FlipError};
pub use harts::MAX_HARTS;
pub use image::{ImageKind, Images};
pub use inject::InjectError;
pub use instruction::Upcoming;
pub use machine::{Exit, Machine, MachineError};
pub use output::{Halt, Output, OutputItem};
pub use snapshot::{Restore, SnapshotError, SnapshotStream};
pub use twinvm_cpu::tier;
pub use twinvm_cpu::{Clock, EngineCounters, TICKS_PER_SECOND, disassemble};
pub use twinvm_devices::SlotConfig;
pub use twinvm_devices::map::VIRTIO_SLOTS;
pub use twinvm_devices::virtio::MAX_REQUESTS as MAX_DISK_REQUESTS;
pub use twinvm_devices::virtio::{DiskConfig, DiskOp, DiskRequest, SECTOR_BYTES};
pub use twinvm_devices::virtio::{
    MAX_FRAME_BYTES, MAX_PACKET_BYTES, MIN_FRAME_BYTES, NET_HEADER_BYTES, NetHeader, NetOffloads,
    PartialChecksum, Segmentation,
};
pub use twinvm_mem::{PAGE_BYTES, RAM_BASE, SnapshotBusy};

/// The log takes every packet that the network card can hold.
const _: () = assert!(twinvm_log::MAX_FRAME_BYTES == MAX_PACKET_BYTES);

/// Raised by every change that a guest could notice. Two nodes, a snapshot and a
/// recording go together only if it is equal.
pub const MACHINE_VERSION: u32 = 2;

#[cfg(test)]
mod tests;
