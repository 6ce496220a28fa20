//! The small file in which a node keeps the highest generation that it knows, on a disk that loses
//! power: what was written but not synced may be there, torn, or gone.
//!
//! The steps are those of the host's own way to replace a file: a temporary file is written, synced
//! and renamed, then the folder is synced.

use crate::rng::Rng;

/// The steps, in order.
const STEPS: u64 = 4;

/// A file's content and how much of it is sure.
#[derive(Clone, Debug)]
struct File {
    bytes: Vec<u8>,
    synced: bool,
}

/// Ways to write the file wrongly, for tests of the tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskFault {
    /// The temporary file is renamed before it is synced.
    RenameBeforeSync,
    /// The file is written where it is, without a temporary one.
    InPlace,
    /// Nothing is synced.
    NoSync,
}

/// A node's folder.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    /// As the running system sees it.
    file: File,
    /// What the name still points at on the medium, until the folder is synced.
    before: Option<File>,
    /// A replacement under way: the new content and the steps done.
    writing: Option<(Vec<u8>, u64)>,
    fault: Option<DiskFault>,
}

fn content(generation: u64) -> Vec<u8> {
    format!("{generation}\n").into_bytes()
}

impl Disk {
    pub(crate) fn new(fault: Option<DiskFault>) -> Self {
        Self {
            file: File {
                bytes: content(0),
                synced: true,
            },
            before: None,
            writing: None,
            fault,
        }
    }

    pub(crate) fn begin(&mut self, generation: u64) {
        self.writing = Some((content(generation), 0));
    }

    /// The replacement has come as far as `part` of `whole`.
    pub(crate) fn advance(&mut self, part: u64, whole: u64) {
        let Some((_, done)) = self.writing else {
            return;
        };
        let upto = (part.min(whole) * STEPS).checked_div(whole);
        for step in done..upto.unwrap_or(STEPS) {
            self.step(step);
        }
        if part >= whole {
            self.writing = None;
        }
    }

    fn step(&mut self, step: u64) {
        let Some((bytes, done)) = &mut self.writing else {
            return;
        };
        *done = step + 1;
        let late = self.fault == Some(DiskFault::RenameBeforeSync);
        let in_place = self.fault == Some(DiskFault::InPlace);
        let rename = if in_place {
            0
        } else if late {
            1
        } else {
            2
        };
        if step == rename {
            // Unless the old content is overwritten, the medium still has it.
            let new = File {
                bytes: bytes.clone(),
                synced: !late && !in_place && self.fault != Some(DiskFault::NoSync),
            };
            let old = std::mem::replace(&mut self.file, new);
            if !in_place && self.before.is_none() {
                self.before = Some(old);
            }
        }
        if step + 1 == STEPS && self.fault != Some(DiskFault::NoSync) {
            self.file.synced = true;
            self.before = None;
        }
    }

    /// The host loses its power: what was not synced is there, torn, or gone.
    pub(crate) fn lose_power(&mut self, rng: &mut Rng) {
        self.writing = None;
        if let Some(before) = self.before.take()
            && rng.one_in(2)
        {
            self.file = before;
        }
        if !self.file.synced {
            let len = self.file.bytes.len() as u64;
            self.file.bytes.truncate(rng.below(len + 1) as usize);
            self.file.synced = true;
        }
    }

    /// The process ends, the host goes on: what was written stays, what was begun ends there.
    pub(crate) fn process_ended(&mut self) {
        self.writing = None;
    }

    /// What a starting node reads; `None` if it is not what a node writes.
    pub(crate) fn read(&self) -> Option<u64> {
        let text = std::str::from_utf8(&self.file.bytes).ok()?;
        text.strip_suffix('\n')?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after_power_loss(fault: Option<DiskFault>, upto: u64, seed: u64) -> Option<u64> {
        let mut disk = Disk::new(fault);
        disk.begin(41);
        disk.advance(1, 1);
        disk.begin(1042);
        disk.advance(upto, 4);
        disk.lose_power(&mut Rng::new(seed));
        disk.read()
    }

    #[test]
    fn the_old_or_the_new_generation_survives_a_loss_of_power() {
        for seed in 0..50 {
            for upto in 0..3 {
                assert_eq!(after_power_loss(None, upto, seed), Some(41));
            }
            assert!(matches!(after_power_loss(None, 3, seed), Some(41 | 1042)));
            assert_eq!(after_power_loss(None, 4, seed), Some(1042));
        }
    }

    #[test]
    fn files_that_are_not_synced_in_time_are_torn_or_old() {
        for fault in [
            DiskFault::RenameBeforeSync,
            DiskFault::InPlace,
            DiskFault::NoSync,
        ] {
            let mut seeds = (0..50).flat_map(|seed| (1..=4).map(move |upto| (seed, upto)));
            assert!(
                seeds.any(|(seed, upto)| {
                    let read = after_power_loss(Some(fault), upto, seed);
                    read.is_none() || upto == 4 && read != Some(1042)
                }),
                "{fault:?}"
            );
        }
    }
}
