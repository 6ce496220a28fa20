//! A node's copy of the guest's disk in memory, and the ends of its copies to and from the other one.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use twinvm_machine::{DiskConfig, DiskOp, DiskRequest, SECTOR_BYTES, SlotConfig};
use twinvm_replica::{DisksIn, DisksOut, SyncProgress, SyncWords};

const SECTOR: usize = SECTOR_BYTES as usize;
const SECTORS: usize = 8;
/// The live node's question and its answer, a sector, the end.
const ASK: u8 = 1;
const DATA: u8 = 2;
const LAST: u8 = 3;

/// What outlives sessions.
pub(super) type Copy = Rc<RefCell<Vec<u8>>>;

pub(super) fn copy() -> Copy {
    Rc::new(RefCell::new(vec![0; SECTORS * SECTOR]))
}

pub(super) fn slot() -> SlotConfig {
    SlotConfig::Disk(DiskConfig {
        sectors: SECTORS as u64,
        read_only: false,
        number: 0,
    })
}

/// Carries a request out; what a read has read.
pub(super) fn carry_out(copy: &Copy, request: &DiskRequest) -> Vec<u8> {
    let mut bytes = copy.borrow_mut();
    let at = request.offset as usize..(request.offset + request.bytes) as usize;
    match request.op {
        DiskOp::Read => return bytes[at].to_vec(),
        DiskOp::Write { .. } => bytes[at].copy_from_slice(&request.data),
        DiskOp::Flush => {}
        DiskOp::Discard | DiskOp::WriteZeroes { .. } => bytes[at].fill(0),
    }
    Vec::new()
}

/// The live node's end.
pub(super) struct Out {
    copy: Copy,
    asked: bool,
    answered: bool,
    words: Option<VecDeque<Vec<u8>>>,
}

impl Out {
    pub(super) fn new(copy: &Copy) -> Self {
        Self {
            copy: Rc::clone(copy),
            asked: false,
            answered: false,
            words: None,
        }
    }
}

impl DisksOut for Out {
    fn heard(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.answered |= bytes == [ASK];
        match bytes {
            [ASK] => Ok(()),
            _ => Err("no word of a joining node".to_owned()),
        }
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
        let bytes = self.copy.borrow();
        let sectors = (0..).zip(bytes.chunks(SECTOR));
        let words = sectors.map(|(n, sector)| [&[DATA, n], sector].concat());
        self.words = Some(words.chain([vec![LAST]]).collect());
    }

    fn progress(&self) -> SyncProgress {
        SyncProgress::default()
    }
}

/// The joining node's end.
pub(super) struct In {
    copy: Copy,
    asked: bool,
    begun: bool,
    whole: bool,
}

impl In {
    pub(super) fn new(copy: &Copy) -> Self {
        Self {
            copy: Rc::clone(copy),
            asked: false,
            begun: false,
            whole: false,
        }
    }
}

impl DisksIn for In {
    fn heard(&mut self, bytes: &[u8]) -> Result<(), String> {
        match bytes {
            [ASK] => (self.asked, self.begun) = (true, true),
            [LAST] => self.whole = true,
            [DATA, n, sector @ ..] if sector.len() == SECTOR && usize::from(*n) < SECTORS => {
                let at = usize::from(*n) * SECTOR;
                self.copy.borrow_mut()[at..at + SECTOR].copy_from_slice(sector);
            }
            _ => return Err("no word of a live node".to_owned()),
        }
        Ok(())
    }

    fn next(&mut self) -> SyncWords {
        if std::mem::take(&mut self.asked) {
            return SyncWords::Ready(vec![ASK]);
        }
        match self.whole {
            true => SyncWords::Done,
            false => SyncWords::Later,
        }
    }

    fn overwrites(&self) -> bool {
        self.begun
    }

    fn progress(&self) -> SyncProgress {
        SyncProgress::default()
    }
}
