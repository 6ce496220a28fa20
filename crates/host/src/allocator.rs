//! How this process's allocator gives memory back.

#![allow(unsafe_code)]

/// What is at least so large is mapped by itself, and given back when it is freed. Well above what
/// comes and goes while a guest runs: frames, pieces of disks and batches.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const MAPPED_BYTES: std::ffi::c_int = 512 << 10;
/// Free memory at a heap's end that the process keeps. glibc's own 128 KiB are two frames: under
/// traffic in bulk each batch would be given back and be faulted in again, page by page, for a
/// seventh of the live node's processor time. A burst of frames and its batches are below this.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const KEPT_BYTES: std::ffi::c_int = 4 << 20;

/// Settles for the whole life of the process from which size on memory is mapped by itself, and how
/// much of what is free is kept. To be called before there is a second thread.
///
/// Left alone, glibc raises that size to that of whatever mapped memory is freed (mallopt(3),
/// `M_MMAP_THRESHOLD`): after a guest's files were read, a megabyte at a time, tables that grow up to
/// that size lie in the heap, and what they outgrow stays with the process.
pub fn settle() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        const M_TRIM_THRESHOLD: std::ffi::c_int = -1;
        const M_MMAP_THRESHOLD: std::ffi::c_int = -3;
        // SAFETY: declared as in glibc's malloc.h.
        unsafe extern "C" {
            fn mallopt(parameter: std::ffi::c_int, value: std::ffi::c_int) -> std::ffi::c_int;
        }
        for (parameter, value) in [
            (M_MMAP_THRESHOLD, MAPPED_BYTES),
            (M_TRIM_THRESHOLD, KEPT_BYTES),
        ] {
            // SAFETY: it takes the allocator's own lock and changes a number. A refusal changes
            // nothing.
            let _ = unsafe { mallopt(parameter, value) };
        }
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
        // What an earlier thread has left free is taken first: a few of them fit there.
        let large: Vec<Vec<u8>> = (0..16).map(|n| vec![1; (600 << 10) + n * 1000]).collect();
        let fit = KEPT_BYTES as usize / (600 << 10);
        let mapped = large.iter().filter(|bytes| is_mapped(bytes)).count();
        assert!(mapped >= large.len() - fit, "{mapped} are mapped");
        let small: Vec<Vec<u8>> = (0..8).map(|n| vec![1; (300 << 10) + n * 1000]).collect();
        assert!(!small.iter().all(|bytes| is_mapped(bytes)));
    }

    /// Pages that were mapped in for this thread so far (proc(5), `minflt`).
    fn faults() -> u64 {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        fields.split(' ').nth(7).unwrap().parse().unwrap()
    }

    /// What traffic in bulk does: frames come, go, and come again.
    fn burst() {
        let frames: Vec<Vec<u8>> = (0..16).map(|n| vec![n; 64 << 10]).collect();
        drop(std::hint::black_box(frames));
    }

    #[test]
    fn what_comes_and_goes_is_not_faulted_in_each_time() {
        settle();
        burst();
        let before = faults();
        for _ in 0..20 {
            burst();
        }
        // A burst has 256 pages.
        let faults = faults() - before;
        assert!(faults < 1000, "{faults} faults for 20 bursts");
    }
}
