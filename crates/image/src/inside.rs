//! What this crate makes of what package managers and packages say: its parsers without the programs
//! and files around them, for those who try to break them.

use crate::{apt, elf};

/// The libraries that a RISC-V program or library needs.
pub fn needed_libraries(file: &[u8]) -> Option<Vec<String>> {
    elf::needed(file).ok()
}

/// How many of these packages an index (as `apt-cache show` prints it) offers.
pub fn offered(index: &str, wanted: &[&str]) -> usize {
    apt::in_index(index, wanted)
}
