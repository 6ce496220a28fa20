//! How the host provides guest RAM. The guest never sees the difference.

#![allow(unsafe_code)]

use rustix::mm::{Advice, madvise};

/// Zeroed bytes, on huge pages where the host has them: the guest's first touches
/// cost less, and a dead process's RAM is freed sooner, so that its peer hears
/// sooner that it died.
pub(crate) fn zeroed(len: usize) -> Vec<u8> {
    let mut bytes = vec![0u8; len];
    let page = rustix::param::page_size();
    let start = bytes.as_mut_ptr();
    let skip = start.align_offset(page);
    if skip < len {
        let whole = (len - skip) / page * page;
        // SAFETY: the range lies inside the vector's own allocation, begins at a page
        // and is whole pages long; this advice changes neither contents nor mapping.
        // A host that refuses it (no huge pages) leaves everything as it was.
        let _ = unsafe { madvise(start.add(skip).cast(), whole, Advice::LinuxHugepage) };
    }
    bytes
}
