//! The guest's RAM in a node's process, written as a fault of the host's memory would: nobody is
//! told.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

/// Read at once.
const CHUNK: usize = 1 << 20;
/// Guest-physical address of RAM's first byte.
const RAM_BASE: u64 = 0x8000_0000;

/// RAM of `bytes` in a process.
pub(crate) struct Ram {
    memory: File,
    at: u64,
    bytes: u64,
}

impl Ram {
    /// Of this process; none if the kernel doesn't let us.
    pub(crate) fn open(process: u32, bytes: u64) -> Option<Self> {
        let maps = fs::read_to_string(format!("/proc/{process}/maps")).ok()?;
        let at = maps.lines().find_map(|line| {
            let (range, rest) = line.split_once(' ')?;
            let (from, to) = range.split_once('-')?;
            let number = |text| u64::from_str_radix(text, 16).ok();
            let (from, to) = (number(from)?, number(to)?);
            (to - from == bytes && rest.starts_with("rw-p")).then_some(from)
        });
        let mut options = File::options();
        let memory = options.read(true).write(true);
        Some(Self {
            memory: memory.open(format!("/proc/{process}/mem")).ok()?,
            at: at.expect("a mapping of RAM's size"),
            bytes,
        })
    }

    /// Flips the lowest bit of the first byte behind `pattern` wherever that stands; physical
    /// addresses.
    pub(crate) fn flip_behind(&self, pattern: &[u8]) -> Vec<u64> {
        let mut found = Vec::new();
        let mut chunk = vec![0; CHUNK + pattern.len()];
        for from in (0..self.bytes).step_by(CHUNK) {
            let len = chunk.len().min((self.bytes - from) as usize);
            let bytes = &mut chunk[..len];
            self.memory.read_exact_at(bytes, self.at + from).unwrap();
            let windows = bytes.windows(pattern.len()).enumerate();
            // One that begins in the next chunk is found there.
            let here = windows.filter(|(at, window)| *at < CHUNK && *window == pattern);
            found.extend(here.map(|(at, _)| from + (at + pattern.len()) as u64));
        }
        for offset in &found {
            let mut byte = [0];
            self.memory
                .read_exact_at(&mut byte, self.at + offset)
                .unwrap();
            self.memory
                .write_all_at(&[byte[0] ^ 1], self.at + offset)
                .unwrap();
        }
        found.into_iter().map(|offset| RAM_BASE + offset).collect()
    }
}
