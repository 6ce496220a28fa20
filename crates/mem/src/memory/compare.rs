//! Where two memories differ. Reading only: page states stay as they are.

use super::{Memory, state};
use crate::digest::page_hash;
use crate::{PAGE_BYTES, PAGE_SHIFT, RAM_BASE};
use std::ops::Range;

impl Memory {
    /// Physical address of the first byte in which two memories differ. Pages that both sides
    /// have hashed since they were last stored to are compared by their hashes, all others byte
    /// by byte. Behind the smaller of the two nothing is compared.
    pub fn first_difference(&self, other: &Memory) -> Option<u64> {
        (0..self.pages().min(other.pages())).find_map(|page| {
            if let (Some(ours), Some(theirs)) = (self.page_hash(page), other.page_hash(page))
                && ours == theirs
            {
                return None;
            }
            let (ours, theirs) = (self.page(page)?, other.page(page)?);
            // At once first: pages are mostly equal.
            if ours == theirs {
                return None;
            }
            let at = ours.iter().zip(theirs).position(|(a, b)| a != b)?;
            Some(RAM_BASE + ((page as u64) << PAGE_SHIFT) + at as u64)
        })
    }

    /// The page's hash, if it is current: the page was not stored to since the last digest. 0 for
    /// a page of zeroes.
    pub fn page_hash(&self, page: usize) -> Option<u128> {
        let current = self.page_state(page) & state::HASHED != 0;
        self.hashes.get(page).filter(|_| current)
    }

    /// Hash of the page's content as it stands, with the number of which the page was last known
    /// by a digest (0 before the first, and for zeroes). Equal ones: it is as it was there.
    pub fn content_hash(&self, page: usize) -> Option<(u128, u128)> {
        let now = page_hash(page as u64, self.page(page)?);
        Some((now, self.hashes.get(page)?))
    }

    /// Hashes these pages once more, also those that nobody has stored to since they were hashed.
    /// One that has changed all the same, by a fault of the host's memory, is noted like one that
    /// was stored to, and the digest tells it from now on. Pages that nobody ever stored to are
    /// left alone.
    pub fn rehash(&mut self, pages: Range<usize>) {
        for page in pages.start..pages.end.min(self.pages()) {
            if self.ram.state(page) & state::FRESH == 0 {
                self.hashes.update(page, self.ram.page(page));
                self.set_state(page, state::HASHED);
            }
        }
    }

    /// Whether the page's content is what its hash says, if that is current. Pages that were stored
    /// to since, or never, have none to be held against.
    pub fn is_as_hashed(&self, page: usize) -> bool {
        let states = self.page_state(page);
        let is_hashed = states & state::HASHED != 0 && states & state::FRESH == 0;
        !is_hashed
            || self
                .content_hash(page)
                .is_none_or(|(now, last)| now == last)
    }

    /// Changes one bit behind the stores' back, as a fault of the host's memory would. False if
    /// there is no such byte.
    #[doc(hidden)]
    pub fn decay(&mut self, pa: u64, bit: u32) -> bool {
        let Ok(&[byte]) = self.slice(pa, 1) else {
            return false;
        };
        let changed = byte ^ 1u8.wrapping_shl(bit);
        self.ram
            .store_released((pa - RAM_BASE) as usize, &[changed]);
        true
    }

    /// From now on, digests note which pages' hashes change, for
    /// [`Memory::take_changed_hashes`]. With `stored` they note all pages that were stored to,
    /// also if that has changed nothing, or no longer does. Costs a byte a page.
    pub fn note_changed_hashes(&mut self, stored: bool) {
        self.hashes.note_changes(stored);
    }

    /// The pages whose hash a digest has changed since the last call, in order, with their
    /// hashes. Hashes nothing by itself. Empty without [`Memory::note_changed_hashes`].
    pub fn take_changed_hashes(&mut self) -> Vec<(u32, u128)> {
        self.hashes.take_changes()
    }
}

const _: () = assert!(PAGE_BYTES == 1 << PAGE_SHIFT);

#[cfg(test)]
mod tests {
    use super::*;

    fn ram() -> Memory {
        Memory::new(64 * PAGE_BYTES as u64).unwrap()
    }

    #[test]
    fn the_first_differing_byte_is_found_hashed_or_not() {
        for digests in 0..4 {
            let (mut a, mut b) = (ram(), ram());
            for m in [&mut a, &mut b] {
                m.store_u64(RAM_BASE + 0x1000, 5).unwrap();
            }
            assert_eq!(a.first_difference(&b), None);
            b.store_u64(RAM_BASE + 0x5008, 1 << 24).unwrap();
            b.store_u64(RAM_BASE + 0x7000, 1).unwrap();
            if digests & 1 != 0 {
                a.digest();
            }
            if digests & 2 != 0 {
                b.digest();
            }
            assert_eq!(a.first_difference(&b), Some(RAM_BASE + 0x500b));
            assert_eq!(b.first_difference(&a), Some(RAM_BASE + 0x500b));
        }
    }

    #[test]
    fn changed_hashes_are_those_of_pages_that_changed() {
        let mut m = ram();
        m.store_u64(RAM_BASE + 0x1000, 5).unwrap();
        m.digest();
        assert_eq!(m.take_changed_hashes(), []);
        m.note_changed_hashes(false);
        m.store_u64(RAM_BASE + 0x3000, 7).unwrap();
        // The same as before: rehashed, but not changed.
        m.store_u64(RAM_BASE + 0x1000, 5).unwrap();
        assert_eq!(m.take_changed_hashes(), []);
        m.digest();
        let hash = m.page_hash(3).unwrap();
        assert_eq!(m.take_changed_hashes(), [(3, hash)]);
        assert_eq!(m.take_changed_hashes(), []);
        m.store_u64(RAM_BASE + 0x3000, 8).unwrap();
        assert_eq!(m.page_hash(3), None);
        // A reset makes every page zero.
        m.clear();
        assert_eq!(m.take_changed_hashes(), [(1, 0), (3, 0)]);
        // All that was stored to, on request, also if it is as before.
        m.digest();
        m.take_changed_hashes();
        m.note_changed_hashes(true);
        for value in [9, 0] {
            m.store_u64(RAM_BASE + 0x2000, value).unwrap();
        }
        m.digest();
        assert_eq!(m.take_changed_hashes(), [(2, 0)]);
    }

    #[test]
    fn a_page_that_changed_behind_the_stores_back_is_found_by_hashing_it_again() {
        let mut m = ram();
        for page in [1, 3] {
            m.store_u64(RAM_BASE + 0x1000 * page, 5).unwrap();
        }
        let before = m.digest();
        m.note_changed_hashes(false);
        m.rehash(0..64);
        assert_eq!((m.digest(), m.take_changed_hashes()), (before, vec![]));
        assert_eq!(m.content_hash(3).map(|(now, last)| now == last), Some(true));
        assert!((0..64).all(|page| m.is_as_hashed(page)));
        assert!(m.decay(RAM_BASE + 0x3000, 1));
        assert_eq!(m.digest(), before);
        let decayed: Vec<usize> = (0..64).filter(|page| !m.is_as_hashed(*page)).collect();
        assert_eq!(decayed, [3]);
        assert_eq!(
            m.content_hash(3).map(|(now, last)| now == last),
            Some(false)
        );
        m.rehash(0..3);
        assert_eq!(m.take_changed_hashes(), []);
        m.rehash(3..4);
        assert_eq!(m.take_changed_hashes(), [(3, m.page_hash(3).unwrap())]);
        assert_ne!(m.digest(), before);
        // What was stored to since has no hash to be held against; nor has what never was.
        assert!(m.decay(RAM_BASE + 0x1000, 0));
        m.store_u64(RAM_BASE + 0x1008, 5).unwrap();
        assert!(m.is_as_hashed(1) && m.decay(RAM_BASE + 0x9000, 0) && m.is_as_hashed(9));
        assert!(!m.decay(RAM_BASE + 64 * PAGE_BYTES as u64, 0));
    }
}
