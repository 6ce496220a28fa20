//! Memory for code, seen twice: once to write, once to execute. No address is ever
//! both.

#![allow(unsafe_code)]

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};
use std::io;
use std::ptr::{NonNull, null_mut};

/// Bytes of code that are kept. Reserved only: the host gives pages as they are used.
pub(crate) const BUFFER_BYTES: usize = 32 << 20;
/// Written pages are unmapped from where they were written when they are so many bytes: the code
/// is in memory once, and should count once.
const WRITTEN_BYTES: usize = 1 << 20;
const PAGE_BYTES: usize = 4096;

/// See the module's documentation.
pub(crate) struct CodeBuffer {
    writable: NonNull<u8>,
    executable: NonNull<u8>,
    used: usize,
    peak: usize,
    /// At least the bytes of pages that were written since the last were unmapped.
    written: usize,
}

// SAFETY: the addresses of two mappings that this value owns; bound to no thread.
unsafe impl Send for CodeBuffer {}

impl CodeBuffer {
    pub(crate) fn new() -> io::Result<Self> {
        let file = memfd_create("twinvm-code", MemfdFlags::CLOEXEC)?;
        ftruncate(&file, BUFFER_BYTES as u64)?;
        let map = |protection| {
            // SAFETY: a new mapping at a place of the kernel's choice touches nothing
            // that exists.
            let address = unsafe {
                mmap(
                    null_mut(),
                    BUFFER_BYTES,
                    protection,
                    MapFlags::SHARED,
                    &file,
                    0,
                )
            }?;
            NonNull::new(address.cast::<u8>()).ok_or(io::Error::from(io::ErrorKind::OutOfMemory))
        };
        let writable = map(ProtFlags::READ | ProtFlags::WRITE)?;
        match map(ProtFlags::READ | ProtFlags::EXEC) {
            Ok(executable) => Ok(Self {
                writable,
                executable,
                used: 0,
                peak: 0,
                written: 0,
            }),
            Err(error) => {
                unmap(writable);
                Err(error)
            }
        }
    }

    /// Offset at which the next code is put.
    pub(crate) fn used(&self) -> usize {
        self.used
    }

    /// The most bytes that were used at once.
    pub(crate) fn peak(&self) -> usize {
        self.peak
    }

    /// Address of an offset, to execute.
    pub(crate) fn address(&self, offset: usize) -> u64 {
        self.executable.as_ptr().expose_provenance() as u64 + offset as u64
    }

    /// Offset of an address in the buffer.
    pub(crate) fn offset(&self, address: u64) -> usize {
        (address - self.address(0)) as usize
    }

    /// Appends code; false if there is no room for it.
    #[must_use]
    pub(crate) fn append(&mut self, code: &[u8]) -> bool {
        if code.len() > BUFFER_BYTES - self.used {
            return false;
        }
        // SAFETY: the range lies in the writable mapping, which only this value writes;
        // no reference to it exists.
        unsafe {
            let place = self.writable.as_ptr().add(self.used);
            place.copy_from_nonoverlapping(code.as_ptr(), code.len());
        }
        self.used += code.len();
        self.peak = self.peak.max(self.used);
        self.wrote(code.len());
        true
    }

    /// Notes a write; at times unmaps what was written.
    fn wrote(&mut self, bytes: usize) {
        self.written += bytes;
        if self.written < WRITTEN_BYTES {
            return;
        }
        self.written = 0;
        let from = self.writable.as_ptr().cast();
        // SAFETY: the mapping is shared and of a file, which keeps the contents: the next access
        // to these addresses finds them as they are. No reference to them exists.
        let _ = unsafe { madvise(from, BUFFER_BYTES, Advice::LinuxDontNeed) };
    }

    /// Replaces four bytes of code, which must have been appended.
    pub(crate) fn patch(&mut self, offset: usize, value: i32) {
        assert!(offset + 4 <= self.used, "a patch outside the code");
        let bytes = value.to_le_bytes();
        // SAFETY: as in `append`.
        unsafe {
            let place = self.writable.as_ptr().add(offset);
            place.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        }
        self.wrote(PAGE_BYTES);
    }

    /// Forgets all code from an offset on.
    pub(crate) fn truncate(&mut self, offset: usize) {
        self.used = self.used.min(offset);
    }
}

fn unmap(address: NonNull<u8>) {
    // SAFETY: a mapping of this length that the caller owns and never uses again.
    let _ = unsafe { munmap(address.as_ptr().cast(), BUFFER_BYTES) };
}

impl Drop for CodeBuffer {
    fn drop(&mut self) {
        unmap(self.writable);
        unmap(self.executable);
    }
}
