//! Where the fast write tags of a page of RAM are, so that they are withdrawn without looking
//! at all translations.

use crate::space::data_index;
use twinvm_mem::Memory;

/// No place, so that the host gives memory only for pages that were written to.
const NOWHERE: u16 = 0;
/// There are more than are noted.
const MANY: u16 = u16::MAX;

/// Of each page, the indices, from 1, of data entries that may have a write tag of it, in any space: a
/// kernel maps a page at one address, and mostly one process at another.
#[derive(Default)]
pub(crate) struct WriteTags {
    places: Vec<[u16; 2]>,
}

impl WriteTags {
    /// The translation of `va` to a page of RAM got a write tag.
    pub(crate) fn note(&mut self, mem: &Memory, page: u32, va: u64) {
        if self.places.is_empty() {
            self.places = vec![[NOWHERE; 2]; mem.pages()];
        }
        let Some(places) = self.places.get_mut(page as usize) else {
            return;
        };
        let place = data_index(va) as u16 + 1;
        if places.contains(&place) {
            return;
        }
        match places.iter_mut().find(|place| **place == NOWHERE) {
            Some(free) => *free = place,
            None => *places = [MANY; 2],
        }
    }

    /// Indices of the entries that a page's tags are in, which are withdrawn then; `None`:
    /// anywhere.
    pub(crate) fn take(&mut self, page: u32) -> Option<impl Iterator<Item = usize> + Clone> {
        let places = self.places.get_mut(page as usize)?;
        let taken = std::mem::replace(places, [NOWHERE; 2]);
        let noted = taken.into_iter().filter(|place| *place != NOWHERE);
        let indices = noted.map(|place| usize::from(place) - 1);
        (!taken.contains(&MANY)).then_some(indices)
    }
}

#[cfg(test)]
mod tests;
