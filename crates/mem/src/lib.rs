//! Guest RAM: the bytes, what is known about each page, and the content hash.
//!
//! All RAM of a machine lives in one [`Memory`]. Stores go through
//! [`Memory::store`] (or its sized forms), whoever makes them: the hart, an
//! atomic, a device's DMA, the built-in SBI. The only exception is the fast
//! store of an engine, allowed while the page's state byte is zero
//! ([`Memory::claim_write_tag`]). So every party that derives something from
//! memory (decoded code, address translations, hashes) hears of each change:
//!
//! * [`state::CODE`]: decoded instructions exist for some 64-byte chunks of the
//!   page. A store that touches such a chunk raises [`Change::Code`].
//! * [`state::TABLE`]: the page-table walker has read an entry of this page. A
//!   store over an entry that was valid raises [`Change::Table`].
//! * [`state::HASHED`]: the page's hash is current. The first store clears it.
//! * [`state::COW`]: a snapshot may still want the page; the first store copies it
//!   aside, so taking a snapshot stops nobody.
//! * [`state::FRESH`]: nobody has ever stored to the page. [`state::LOADED`]: nobody has since
//!   it was loaded. Snapshots need neither.
//!
//! A snapshot's [`SnapshotReader`] may be on another thread than the guest; only the
//! guest's writes RAM and changes state bytes (`ram` has the argument).
//!
//! Nothing that the guest can see depends on time, threads or chance. Hashes are independent of
//! the order in which pages were written.

mod digest;
mod host;
mod memory;
mod ram;
mod snapshot;

pub use digest::MemoryDigest;
pub use memory::{Change, MemError, Memory, OutOfRam, state};
pub use snapshot::{MAX_SNAPSHOTS, SnapshotBusy, SnapshotReader};

/// Guest-physical address of the first byte of RAM (QEMU `virt` board).
pub const RAM_BASE: u64 = 0x8000_0000;
/// Bytes in a page.
pub const PAGE_BYTES: usize = 4096;
/// log2 of [`PAGE_BYTES`].
pub const PAGE_SHIFT: u32 = 12;
/// The largest RAM a machine may have: 64 GiB, bounded by the per-page arrays.
pub const MAX_RAM_BYTES: u64 = 64 << 30;

#[cfg(test)]
mod tests;
