//! Memory for code, seen twice: once to write, once to execute. No address is ever
//! both.
//!
//! It is memory without a name, not a file's: profilers look for the names of what is
//! executed there in a map (`perf` in `/tmp/perf-PID.map`), which they don't do for files.

#![allow(unsafe_code)]

use rustix::mm::{
    Advice, MapFlags, MprotectFlags, MremapFlags, ProtFlags, madvise, mmap_anonymous, mprotect,
    mremap, munmap,
};
use std::ffi::c_void;
use std::io;
use std::ptr::{NonNull, null_mut};

/// Most bytes of code. Reserved only: the host gives pages as they are used.
const BUFFER_BYTES: usize = 64 << 20;
/// Written pages are unmapped from where they were written when they are so many: the code
/// is in memory once, and should count once.
const WRITTEN_PAGES: usize = 256;
const PAGE_BYTES: usize = 4096;

/// See the module's documentation.
pub(crate) struct CodeBuffer {
    writable: NonNull<u8>,
    executable: NonNull<u8>,
    /// Bytes of code that are kept.
    limit: usize,
    used: usize,
    peak: usize,
    /// A bit for each page: it was written since the last were unmapped.
    written: [u64; BUFFER_BYTES / PAGE_BYTES / 64],
    /// How many those are.
    written_pages: usize,
}

// SAFETY: the addresses of two mappings that this value owns; bound to no thread.
unsafe impl Send for CodeBuffer {}

impl CodeBuffer {
    /// For `limit` bytes at most.
    pub(crate) fn new(limit: usize) -> io::Result<Self> {
        // SAFETY: a new mapping at a place of the kernel's choice touches nothing that
        // exists.
        let writable = unsafe {
            mmap_anonymous(
                null_mut(),
                BUFFER_BYTES,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED | MapFlags::NORESERVE,
            )
        }
        .map_err(io::Error::from)
        .and_then(non_null)?;
        match executable_view(writable) {
            Ok(executable) => Ok(Self {
                writable,
                executable,
                limit: limit.min(BUFFER_BYTES),
                used: 0,
                peak: 0,
                written: [0; BUFFER_BYTES / PAGE_BYTES / 64],
                written_pages: 0,
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
        if code.len() > self.limit - self.used {
            return false;
        }
        // SAFETY: the range lies in the writable mapping, which only this value writes;
        // no reference to it exists.
        unsafe {
            let place = self.writable.as_ptr().add(self.used);
            place.copy_from_nonoverlapping(code.as_ptr(), code.len());
        }
        let start = self.used;
        self.used += code.len();
        self.peak = self.peak.max(self.used);
        self.wrote(start, self.used);
        true
    }

    /// Notes a write; at times unmaps what was written.
    fn wrote(&mut self, start: usize, end: usize) {
        for page in start / PAGE_BYTES..end.div_ceil(PAGE_BYTES) {
            let (word, bit) = (&mut self.written[page / 64], 1 << (page % 64));
            self.written_pages += usize::from(*word & bit == 0);
            *word |= bit;
        }
        if self.written_pages < WRITTEN_PAGES {
            return;
        }
        self.written.fill(0);
        self.written_pages = 0;
        let from = self.writable.as_ptr().cast();
        // SAFETY: the mapping is shared, and the other one keeps the contents: the next access
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
        self.wrote(offset, offset + bytes.len());
    }

    /// Forgets all code from an offset on.
    pub(crate) fn truncate(&mut self, offset: usize) {
        self.used = self.used.min(offset);
    }
}

fn non_null(address: *mut c_void) -> io::Result<NonNull<u8>> {
    NonNull::new(address.cast()).ok_or(io::Error::from(io::ErrorKind::OutOfMemory))
}

/// A second mapping of the same memory, to execute.
fn executable_view(writable: NonNull<u8>) -> io::Result<NonNull<u8>> {
    // SAFETY: of a shared mapping a move of no bytes makes another one, at a place of the
    // kernel's choice (mremap(2)); the old one stays as it is.
    let view = unsafe {
        mremap(
            writable.as_ptr().cast(),
            0,
            BUFFER_BYTES,
            MremapFlags::MAYMOVE,
        )
    }?;
    let view = non_null(view)?;
    let protection = MprotectFlags::READ | MprotectFlags::EXEC;
    // SAFETY: the mapping was made just now, and nobody else knows it.
    if let Err(error) = unsafe { mprotect(view.as_ptr().cast(), BUFFER_BYTES, protection) } {
        unmap(view);
        return Err(error.into());
    }
    Ok(view)
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
