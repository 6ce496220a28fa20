//! A host's copy of the guest's disk, on a medium that loses power: of what was written and not
//! flushed, each sector is there or as it was before.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use twinvm_machine::{DiskOp, DiskRequest, SECTOR_BYTES};
use twinvm_replica::{DisksIn, DisksOut, SyncProgress, SyncWords};

use crate::guest::DISK_SECTORS;
use crate::rng::Rng;

const SECTOR: usize = SECTOR_BYTES as usize;
/// What the ends of a copy say: a question and its answer, a sector, the end.
const ASK: u8 = 1;
const DATA: u8 = 2;
const LAST: u8 = 3;
/// Looks of a joining node until the copy is durable.
const SETTLE: u32 = 5;

type Sector = [u8; SECTOR];

/// The disk: what is sure, and what the host has in memory.
#[derive(Clone, Debug)]
pub(crate) struct Medium {
    durable: Vec<Sector>,
    cached: BTreeMap<usize, Sector>,
    /// Flushes do nothing: a fault on purpose.
    lies: bool,
}

impl Medium {
    pub(crate) fn new(lies: bool) -> Self {
        Self {
            durable: vec![[0; SECTOR]; DISK_SECTORS as usize],
            cached: BTreeMap::new(),
            lies,
        }
    }

    /// Carries a request out; what a read has read.
    pub(crate) fn carry_out(&mut self, request: &DiskRequest) -> Vec<u8> {
        let first = request.offset as usize / SECTOR;
        let sectors = first..first + request.bytes as usize / SECTOR;
        match request.op {
            DiskOp::Read => sectors.flat_map(|n| *self.sector(n)).collect(),
            DiskOp::Write { durable } => {
                for (n, bytes) in sectors.zip(request.data.chunks_exact(SECTOR)) {
                    self.write(n, bytes);
                }
                if durable {
                    self.flush();
                }
                Vec::new()
            }
            DiskOp::Flush => {
                self.flush();
                Vec::new()
            }
            DiskOp::Discard | DiskOp::WriteZeroes { .. } => {
                for n in sectors {
                    self.write(n, &[0; SECTOR]);
                }
                Vec::new()
            }
        }
    }

    fn sector(&self, n: usize) -> &Sector {
        self.cached.get(&n).unwrap_or(&self.durable[n])
    }

    fn write(&mut self, n: usize, bytes: &[u8]) {
        let mut sector = [0; SECTOR];
        sector.copy_from_slice(bytes);
        self.cached.insert(n, sector);
    }

    pub(crate) fn flush(&mut self) {
        if !self.lies {
            for (n, sector) in std::mem::take(&mut self.cached) {
                self.durable[n] = sector;
            }
        }
    }

    pub(crate) fn lose_power(&mut self, rng: &mut Rng) {
        for (n, sector) in std::mem::take(&mut self.cached) {
            if rng.one_in(2) {
                self.durable[n] = sector;
            }
        }
    }

    /// As the running host sees it.
    pub(crate) fn contents(&self) -> Vec<Sector> {
        (0..self.durable.len()).map(|n| *self.sector(n)).collect()
    }
}

/// The live node's end of a copy: all sectors, as they are when it is frozen.
pub(crate) struct Out {
    medium: Rc<RefCell<Medium>>,
    asked: bool,
    answered: bool,
    words: Option<VecDeque<Vec<u8>>>,
}

impl Out {
    pub(crate) fn new(medium: &Rc<RefCell<Medium>>) -> Self {
        Self {
            medium: Rc::clone(medium),
            asked: false,
            answered: false,
            words: None,
        }
    }
}

impl DisksOut for Out {
    fn heard(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.answered |= bytes == [ASK];
        Ok(())
    }

    fn next(&mut self) -> SyncWords {
        if !std::mem::replace(&mut self.asked, true) {
            return SyncWords::Ready(vec![ASK]);
        }
        match &mut self.words {
            Some(words) => words.pop_front().map_or(SyncWords::Done, SyncWords::Ready),
            None => SyncWords::Later,
        }
    }

    fn is_level(&mut self) -> bool {
        self.answered
    }

    fn freeze(&mut self) {
        let sectors = self.medium.borrow().contents();
        let word = |(n, sector): (u8, Sector)| [&[DATA, n], &sector[..]].concat();
        let words = (0..).zip(sectors).map(word);
        self.words = Some(words.chain([vec![LAST]]).collect());
    }

    fn progress(&self) -> SyncProgress {
        SyncProgress::default()
    }
}

/// The joining node's end: it overwrites the disk as the sectors come.
pub(crate) struct In {
    medium: Rc<RefCell<Medium>>,
    asked: bool,
    begun: bool,
    left: Option<u32>,
}

impl In {
    pub(crate) fn new(medium: &Rc<RefCell<Medium>>) -> Self {
        Self {
            medium: Rc::clone(medium),
            asked: false,
            begun: false,
            left: None,
        }
    }
}

impl DisksIn for In {
    fn heard(&mut self, bytes: &[u8]) -> Result<(), String> {
        match bytes {
            [ASK] => (self.asked, self.begun) = (true, true),
            [LAST] => self.left = Some(SETTLE),
            [DATA, n, sector @ ..] if sector.len() == SECTOR => {
                self.medium.borrow_mut().write(usize::from(*n), sector);
            }
            _ => return Err("no word of a copy".to_owned()),
        }
        Ok(())
    }

    fn next(&mut self) -> SyncWords {
        if std::mem::take(&mut self.asked) {
            return SyncWords::Ready(vec![ASK]);
        }
        let Some(left) = &mut self.left else {
            return SyncWords::Later;
        };
        *left = left.saturating_sub(1);
        if *left > 0 {
            return SyncWords::Later;
        }
        self.medium.borrow_mut().flush();
        SyncWords::Done
    }

    fn overwrites(&self) -> bool {
        self.begun
    }

    fn progress(&self) -> SyncProgress {
        SyncProgress::default()
    }
}
