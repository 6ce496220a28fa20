//! How the host provides guest RAM. The guest never sees the difference.

#![allow(unsafe_code)]

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};
use std::ptr::{NonNull, null_mut};

/// Zeroed memory of this process, page-aligned, given back when it is dropped.
pub(crate) struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: a mapping is an address and a length. Whoever reads or writes through the
// address answers for that; mapping and unmapping are bound to no thread.
unsafe impl Send for Mapping {}
// SAFETY: as above; the methods only tell address and length.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// `len` zero bytes; `len` is not 0. Huge pages where the host has them: the
    /// guest's first touches cost less, and a dead process's RAM is freed sooner, so
    /// that its peer hears sooner that it died.
    pub(crate) fn zeroed(len: usize) -> Option<Self> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at a place of the kernel's choice touches nothing that
        // exists.
        let base =
            unsafe { mmap_anonymous(null_mut(), len, protection, MapFlags::PRIVATE) }.ok()?;
        // SAFETY: exactly the range that was just mapped; this advice changes neither
        // contents nor mapping. A host that refuses it leaves everything as it was.
        let _ = unsafe { madvise(base, len, Advice::LinuxHugepage) };
        Some(Self {
            base: NonNull::new(base.cast())?,
            len,
        })
    }

    /// Address of the first byte; valid as long as the mapping.
    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by `zeroed` and is unmapped only here; whoever
        // holds the address holds the mapping, too.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.len) };
    }
}

/// Lets another thread of this host run: the one that is waited for may need the core.
pub(crate) fn give_way() {
    rustix::thread::sched_yield();
}
