//! What is kept of some pages of RAM.

use twinvm_mem::Memory;

/// A value for each of some pages, found by the page's number. Costs four bytes for each page
/// of RAM beside the values, and the host has those in memory only where pages have values: of
/// a guest with much RAM most pages hold neither code nor page tables.
pub(crate) struct PageMap<T> {
    /// Of each page, the number of its value, from 1; 0: it has none. Made when it is needed.
    numbers: Vec<u32>,
    values: Vec<(u32, T)>,
}

impl<T: Default> PageMap<T> {
    pub(crate) fn new() -> Self {
        Self {
            numbers: Vec::new(),
            values: Vec::new(),
        }
    }

    fn index(&self, page: u32) -> Option<usize> {
        let number = *self.numbers.get(page as usize)?;
        (number as usize).checked_sub(1)
    }

    /// The value of a page that has one.
    pub(crate) fn get(&self, page: u32) -> Option<&T> {
        Some(&self.values.get(self.index(page)?)?.1)
    }

    /// The value of a page that has one, to change.
    pub(crate) fn get_mut(&mut self, page: u32) -> Option<&mut T> {
        let index = self.index(page)?;
        Some(&mut self.values.get_mut(index)?.1)
    }

    /// The value of a page, which gets one if it has none; `None` if RAM has no such page.
    pub(crate) fn get_or_default(&mut self, mem: &Memory, page: u32) -> Option<&mut T> {
        if self.numbers.is_empty() {
            // Zeroes, which the host gives without memory behind them.
            self.numbers = vec![0; mem.pages()];
        }
        let number = self.numbers.get_mut(page as usize)?;
        if *number == 0 {
            self.values.push((page, T::default()));
            *number = self.values.len() as u32;
        }
        Some(&mut self.values.get_mut(*number as usize - 1)?.1)
    }

    /// All values, to change.
    pub(crate) fn values(&mut self) -> impl Iterator<Item = &mut T> {
        self.values.iter_mut().map(|(_, value)| value)
    }

    /// Takes all values; tells whose they were.
    pub(crate) fn clear(&mut self) -> impl Iterator<Item = u32> + use<T> {
        let values = std::mem::take(&mut self.values);
        for (page, _) in &values {
            self.numbers[*page as usize] = 0;
        }
        values.into_iter().map(|(page, _)| page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use twinvm_mem::PAGE_BYTES;

    #[test]
    fn pages_have_values_of_their_own_until_all_are_taken() {
        let mem = Memory::new(8 * PAGE_BYTES as u64).unwrap();
        let mut map: PageMap<u64> = PageMap::new();
        assert_eq!(map.get(3), None);
        for page in [3, 0, 7] {
            *map.get_or_default(&mem, page).unwrap() += u64::from(page) + 10;
            *map.get_or_default(&mem, page).unwrap() += 100;
        }
        assert_eq!(map.get_or_default(&mem, 8), None);
        *map.get_mut(0).unwrap() += 1000;
        let values = |map: &PageMap<u64>| [0, 1, 3, 7, 8].map(|page| map.get(page).copied());
        assert_eq!(values(&map), [Some(1110), None, Some(113), Some(117), None]);
        assert_eq!(map.get_mut(1), None);
        assert_eq!(map.clear().collect::<Vec<u32>>(), [3, 0, 7]);
        assert_eq!(values(&map), [None; 5]);
        assert_eq!(map.get_or_default(&mem, 3), Some(&mut 0));
    }
}
