//! How this process's allocator gives memory back.

#![allow(unsafe_code)]

/// What is at least so large is mapped by itself, and given back when it is freed. Well above what
/// comes and goes while a guest runs: frames, pieces of disks and batches.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const MAPPED_BYTES: std::ffi::c_int = 512 << 10;

/// Settles for the whole life of the process from which size on memory is mapped by itself. To be
/// called before there is a second thread.
///
/// Left alone, glibc raises that size to that of whatever mapped memory is freed (mallopt(3),
/// `M_MMAP_THRESHOLD`): after a guest's files were read, a megabyte at a time, tables that grow up to
/// that size lie in the heap, and what they outgrow stays with the process.
pub fn settle() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        const M_MMAP_THRESHOLD: std::ffi::c_int = -3;
        // SAFETY: declared as in glibc's malloc.h.
        unsafe extern "C" {
            fn mallopt(parameter: std::ffi::c_int, value: std::ffi::c_int) -> std::ffi::c_int;
        }
        // SAFETY: it takes the allocator's own lock and changes a number. A refusal changes nothing.
        let _ = unsafe { mallopt(M_MMAP_THRESHOLD, MAPPED_BYTES) };
    }
}

#[cfg(all(test, target_os = "linux", target_env = "gnu"))]
mod tests {
    use super::*;

    /// Mapped memory begins behind a header of 16 bytes on a page of its own.
    fn is_mapped(bytes: &[u8]) -> bool {
        bytes.as_ptr().addr() % 4096 == 16
    }

    #[test]
    fn what_is_large_is_mapped_also_after_something_larger_was_freed() {
        settle();
        drop(std::hint::black_box(vec![1u8; 4 << 20]));
        let large: Vec<Vec<u8>> = (0..8).map(|n| vec![1; (600 << 10) + n * 1000]).collect();
        assert!(large.iter().all(|bytes| is_mapped(bytes)));
        let small: Vec<Vec<u8>> = (0..8).map(|n| vec![1; (300 << 10) + n * 1000]).collect();
        assert!(!small.iter().all(|bytes| is_mapped(bytes)));
    }
}
