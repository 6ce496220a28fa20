//! The digest: one number that is equal on two machines in the same state.

use crate::difference::page_address;
use crate::machine::Machine;
use twinvm_devices::Persist;
use xxhash_rust::xxh3::xxh3_128;

/// A machine's state as hashes of its parts, so that a difference can be named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digest {
    /// Step count, anchor of virtual time, and whether the machine has ended.
    pub time: u128,
    /// Registers and CSRs of all harts, and whose turn it is.
    pub hart: u128,
    /// All devices.
    pub devices: u128,
    /// RAM: the order-free sum over pages.
    pub ram: u128,
}

impl Digest {
    /// All parts in one number, as it is logged.
    pub fn total(&self) -> u128 {
        let mut bytes = [0u8; 64];
        for (place, part) in
            bytes
                .chunks_exact_mut(16)
                .zip([self.time, self.hart, self.devices, self.ram])
        {
            place.copy_from_slice(&part.to_le_bytes());
        }
        xxh3_128(&bytes)
    }

    /// The name of the first part that differs.
    pub fn first_difference(&self, other: &Digest) -> Option<&'static str> {
        [
            (self.time != other.time, "time"),
            (self.hart != other.hart, "hart registers"),
            (self.devices != other.devices, "devices"),
            (self.ram != other.ram, "RAM"),
        ]
        .into_iter()
        .find_map(|(differs, name)| differs.then_some(name))
    }
}

/// A state's explicit encoding, for digests and files.
pub(crate) fn encoded<T: serde::Serialize>(state: &T) -> Vec<u8> {
    match postcard::to_stdvec(state) {
        Ok(bytes) => bytes,
        Err(error) => unreachable!("encoding to memory failed: {error}"),
    }
}

/// Hash of a state's explicit encoding.
fn hash_of<T: serde::Serialize>(state: &T) -> u128 {
    xxh3_128(&encoded(state))
}

impl Machine {
    /// The digest of the whole state. Rehashes only pages written since the last
    /// one; never changes what the guest sees.
    pub fn digest(&mut self) -> Digest {
        Digest {
            time: hash_of(&(self.icount, self.clock, self.halted, self.power_on)),
            hart: hash_of(&self.harts.save()),
            devices: hash_of(&self.board.save()),
            ram: self.mem.digest().0,
        }
    }

    /// From now on digests note which pages of RAM have changed.
    pub fn note_changed_pages(&mut self) {
        self.mem.note_changed_hashes(false);
    }

    /// From now on digests note which pages of RAM were stored to, also if they are as before.
    pub fn note_stored_pages(&mut self) {
        self.mem.note_changed_hashes(true);
    }

    /// Numbers (from the start of RAM) and hashes of the pages that digests have found changed
    /// since the last call, in order. Costs no hashing.
    pub fn take_changed_pages(&mut self) -> Vec<(u32, u128)> {
        self.mem.take_changed_hashes()
    }

    /// Number of RAM's pages.
    pub fn pages(&self) -> usize {
        self.mem.pages()
    }

    /// The content of a page, counted from the start of RAM.
    pub fn page(&self, page: u32) -> Option<&[u8]> {
        self.mem.page(page as usize)
    }

    /// Hash of the page's content as it stands, and the one that the last digest knew it by.
    pub fn page_content_hash(&self, page: u32) -> Option<(u128, u128)> {
        self.mem.content_hash(page as usize)
    }

    /// Hashes pages once more that nobody seems to have stored to: what a fault of the host's
    /// memory has changed is found by the next [`Machine::take_changed_pages`] and told by the
    /// next digest.
    pub fn rehash_pages(&mut self, pages: std::ops::Range<usize>) {
        self.mem.rehash(pages);
    }

    /// Whether the page's content is still what the last digest has hashed. Pages that were stored
    /// to since, or never, have nothing to be held against.
    pub fn page_is_as_hashed(&self, page: usize) -> bool {
        self.mem.is_as_hashed(page)
    }

    /// The page's content counts as stored just now, whatever it is: the next digest tells it, a
    /// snapshot holds it, code in it is decoded again.
    pub fn take_page_as_it_is(&mut self, page: u32) {
        let pa = page_address(page);
        if let Some(Ok(first)) = self.ram(pa, 8).map(<[u8; 8]>::try_from) {
            // There is such a page.
            let _ = self.mem.store(pa, &first);
        }
    }

    /// Hash of each page of RAM, from its start; `None` where a page was stored to since the last
    /// digest.
    pub fn page_hashes(&self) -> impl Iterator<Item = Option<u128>> + '_ {
        (0..self.mem.pages()).map(|page| self.mem.page_hash(page))
    }
}
