//! Memory for code, seen twice: once to write, once to execute. No address is ever
//! both.
//!
//! A larger buffer is in huge pages where the host gives them: code that runs briefly is spread
//! over all of it, and the host's processor finds few small pages at once.
//!
//! It is memory without a name, not a file's: profilers look for the names of what is
//! executed there in a map (`perf` in `/tmp/perf-PID.map`), which they don't do for files.

#![allow(unsafe_code)]

use rustix::mm::{
    Advice, MapFlags, MprotectFlags, MremapFlags, ProtFlags, madvise, mmap_anonymous, mprotect,
    mremap_fixed, munmap,
};
use std::ffi::{c_int, c_void};
use std::io;
use std::ptr::{NonNull, null_mut};

/// Most bytes of code. Reserved only: the host gives pages as they are used.
const BUFFER_BYTES: usize = 64 << 20;
/// Written pages are unmapped from where they were written when they are such a part of those
/// for code: the code is in memory once, and should count once.
const WRITTEN_PART: usize = 8;
/// The same for a small buffer.
const WRITTEN_PAGES: usize = 256;
const PAGE_BYTES: usize = 4096;
const HUGE_BYTES: usize = 2 << 20;
/// A buffer for less code has small pages: huge ones would mostly be empty.
const LEAST_HUGE: usize = 16 << 20;
/// Both views, and what brings them to the start of a huge page.
const ROOM_BYTES: usize = 2 * BUFFER_BYTES + HUGE_BYTES;
/// `MADV_COLLAPSE` of Linux (madvise(2)): what is in the range goes to a huge page.
const COLLAPSE: c_int = 25;

// SAFETY: the declaration is that of madvise(2); the wrapper in rustix has no such advice.
unsafe extern "C" {
    #[link_name = "madvise"]
    fn advise(address: *mut c_void, len: usize, advice: c_int) -> c_int;
}

/// See the module's documentation.
pub(crate) struct CodeBuffer {
    /// All that is mapped: [`ROOM_BYTES`].
    room: NonNull<u8>,
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
    /// A bit for each [`HUGE_BYTES`]: a huge page was asked for.
    huge: u64,
}

// SAFETY: the addresses of two mappings that this value owns; bound to no thread.
unsafe impl Send for CodeBuffer {}

impl CodeBuffer {
    /// For `limit` bytes at most.
    pub(crate) fn new(limit: usize) -> io::Result<Self> {
        // SAFETY: a new mapping at a place of the kernel's choice touches nothing that
        // exists. Nothing may be done there yet.
        let room = unsafe {
            mmap_anonymous(
                null_mut(),
                ROOM_BYTES,
                ProtFlags::empty(),
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )
        }
        .map_err(io::Error::from)
        .and_then(non_null)?;
        match views(room) {
            Ok((writable, executable)) => Ok(Self {
                room,
                writable,
                executable,
                limit: limit.min(BUFFER_BYTES),
                used: 0,
                peak: 0,
                written: [0; BUFFER_BYTES / PAGE_BYTES / 64],
                written_pages: 0,
                huge: 0,
            }),
            Err(error) => {
                unmap(room);
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
        self.ask_for_huge_pages();
        true
    }

    /// Where the last code is: it has a small page there already, from which the host makes a
    /// huge one.
    fn ask_for_huge_pages(&mut self) {
        let chunk = (self.used - 1) / HUGE_BYTES;
        if self.limit < LEAST_HUGE || self.huge >> chunk & 1 != 0 {
            return;
        }
        self.huge |= 1 << chunk;
        // SAFETY: the range lies in the writable mapping, and this advice changes neither
        // contents nor protection. A host that refuses it leaves everything as it was.
        let _ = unsafe {
            let from = self.writable.as_ptr().add(chunk * HUGE_BYTES);
            advise(from.cast(), HUGE_BYTES, COLLAPSE)
        };
    }

    /// Notes a write; at times unmaps what was written.
    fn wrote(&mut self, start: usize, end: usize) {
        let noted = |at: usize| {
            let page = at / PAGE_BYTES;
            self.written[page / 64] >> (page % 64) & 1 != 0
        };
        if end - start <= PAGE_BYTES && noted(start) && noted(end - 1) {
            return;
        }
        let huge = |at: usize| self.huge >> (at / HUGE_BYTES) & 1 != 0;
        let start = if huge(start) {
            start & !(HUGE_BYTES - 1)
        } else {
            start
        };
        let end = if huge(end - 1) {
            end.next_multiple_of(HUGE_BYTES)
        } else {
            end
        };
        for page in start / PAGE_BYTES..end.div_ceil(PAGE_BYTES) {
            let (word, bit) = (&mut self.written[page / 64], 1 << (page % 64));
            self.written_pages += usize::from(*word & bit == 0);
            *word |= bit;
        }
        if self.written_pages < WRITTEN_PAGES.max(self.limit / PAGE_BYTES / WRITTEN_PART) {
            return;
        }
        self.written.fill(0);
        self.written_pages = 0;
        let from = self.writable.as_ptr().cast();
        // SAFETY: the mapping is shared, and the other one keeps the contents: the next access
        // to these addresses finds them as they are. No reference to them exists.
        let _ = unsafe { madvise(from, BUFFER_BYTES, Advice::LinuxDontNeed) };
    }

    /// Replaces four bytes of code, which must have been appended. Nothing is written where
    /// they are there already: a jump is often joined again to where it leads.
    pub(crate) fn patch(&mut self, offset: usize, value: i32) {
        assert!(offset + 4 <= self.used, "a patch outside the code");
        let bytes = value.to_le_bytes();
        // SAFETY: the range lies in the executable mapping, which may be read, and nobody
        // writes meanwhile.
        let old = unsafe {
            self.executable
                .as_ptr()
                .add(offset)
                .cast::<[u8; 4]>()
                .read()
        };
        if old == bytes {
            return;
        }
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

/// Two mappings of the same memory in the room, to write and to execute.
fn views(room: NonNull<u8>) -> io::Result<(NonNull<u8>, NonNull<u8>)> {
    let before = room.as_ptr().align_offset(HUGE_BYTES).min(HUGE_BYTES);
    let place = room.as_ptr().wrapping_add(before);
    // SAFETY: the range lies in the room, which nobody else knows.
    let writable = unsafe {
        mmap_anonymous(
            place.cast(),
            BUFFER_BYTES,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::SHARED | MapFlags::NORESERVE | MapFlags::FIXED,
        )
    }?;
    let writable = non_null(writable)?;
    // SAFETY: of a shared mapping a move of no bytes makes another one (mremap(2)), here in
    // the rest of the room; the old one stays as it is.
    let executable = unsafe {
        mremap_fixed(
            writable.as_ptr().cast(),
            0,
            BUFFER_BYTES,
            MremapFlags::MAYMOVE,
            place.wrapping_add(BUFFER_BYTES).cast(),
        )
    }?;
    let executable = non_null(executable)?;
    let protection = MprotectFlags::READ | MprotectFlags::EXEC;
    // SAFETY: the mapping was made just now, and nobody else knows it.
    unsafe { mprotect(executable.as_ptr().cast(), BUFFER_BYTES, protection) }?;
    Ok((writable, executable))
}

fn unmap(room: NonNull<u8>) {
    // SAFETY: mappings of this length that the caller owns and never uses again.
    let _ = unsafe { munmap(room.as_ptr().cast(), ROOM_BYTES) };
}

impl Drop for CodeBuffer {
    fn drop(&mut self) {
        unmap(self.room);
    }
}

#[cfg(test)]
mod tests;
