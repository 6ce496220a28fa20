//! A disk in memory that takes its time, and the copy of one to another.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use twinvm_machine::{DiskOp, DiskRequest};
use twinvm_replica::{DisksIn, DisksOut, SyncProgress, SyncWords};

/// Bytes of the disk.
pub(crate) const DISK_BYTES: usize = 24 * 512;
/// Bytes of one word of a copy: a disk takes several.
const WORD_BYTES: usize = 5000;
/// Words of a copy.
const ASK: u8 = 1;
const LAST: u8 = 3;

/// What a disk has to do.
#[derive(Debug)]
pub(crate) enum Work {
    Request(DiskRequest),
    Flush(u64),
}

/// What comes of it.
#[derive(Debug)]
pub(crate) enum Done {
    Request {
        device: u8,
        id: u64,
        status: u8,
        data: Vec<u8>,
    },
    Flush(u64),
}

/// One node's disk. It outlives the node's processes.
#[derive(Debug, Default)]
pub(crate) struct Toy {
    pub(crate) bytes: Vec<u8>,
    /// With the time at which it is done.
    under_way: VecDeque<(u64, Work)>,
    /// Every request fails.
    pub(crate) fails: bool,
    /// The guest's flushes that were carried out here.
    pub(crate) flushed: Vec<u64>,
    /// Takes so much longer.
    pub(crate) slower_ns: u64,
}

impl Toy {
    pub(crate) fn new() -> Self {
        Self {
            bytes: vec![0; DISK_BYTES],
            ..Self::default()
        }
    }

    pub(crate) fn begin(&mut self, now_ns: u64, takes_ns: u64, work: Work) {
        let at = now_ns + takes_ns + self.slower_ns;
        self.under_way.push_back((at, work));
    }

    /// The next thing that is done by now.
    pub(crate) fn done(&mut self, now_ns: u64) -> Option<Done> {
        let at = self.under_way.iter().position(|(at, _)| *at <= now_ns)?;
        let (_, work) = self.under_way.remove(at)?;
        let request = match work {
            Work::Flush(flush) => return Some(Done::Flush(flush)),
            Work::Request(request) => request,
        };
        let (device, id) = (request.device, request.id);
        let (status, data) = match self.fails {
            true => (1, Vec::new()),
            false => (0, self.carry_out(&request)),
        };
        Some(Done::Request {
            device,
            id,
            status,
            data,
        })
    }

    fn carry_out(&mut self, request: &DiskRequest) -> Vec<u8> {
        let at = request.offset as usize..(request.offset + request.bytes) as usize;
        match request.op {
            DiskOp::Read => return self.bytes[at].to_vec(),
            DiskOp::Write { .. } => self.bytes[at].copy_from_slice(&request.data),
            DiskOp::Flush => self.flushed.push(request.id),
            DiskOp::Discard | DiskOp::WriteZeroes { .. } => self.bytes[at].fill(0),
        }
        Vec::new()
    }

    /// Nobody waits for what is under way: some of it still happens.
    pub(crate) fn forget(&mut self, mut happens: impl FnMut() -> bool) {
        for (_, work) in std::mem::take(&mut self.under_way) {
            if let Work::Request(request) = work
                && happens()
            {
                self.carry_out(&request);
            }
        }
    }
}

/// The disk as it was when it was frozen, in words.
pub(crate) struct ToyOut {
    toy: Rc<RefCell<Toy>>,
    asked: bool,
    answered: bool,
    words: Option<VecDeque<Vec<u8>>>,
}

impl ToyOut {
    pub(crate) fn new(toy: &Rc<RefCell<Toy>>) -> Self {
        Self {
            toy: Rc::clone(toy),
            asked: false,
            answered: false,
            words: None,
        }
    }
}

impl DisksOut for ToyOut {
    fn heard(&mut self, bytes: &[u8]) -> Result<(), String> {
        assert_eq!(bytes, [ASK]);
        self.answered = true;
        Ok(())
    }

    fn next(&mut self) -> SyncWords {
        if !self.asked {
            self.asked = true;
            return SyncWords::Ready(vec![ASK]);
        }
        match &mut self.words {
            Some(words) => match words.pop_front() {
                Some(bytes) => SyncWords::Ready(bytes),
                None => SyncWords::Done,
            },
            None => SyncWords::Later,
        }
    }

    fn is_level(&mut self) -> bool {
        self.answered
    }

    fn freeze(&mut self) {
        let toy = self.toy.borrow();
        let pieces = toy.bytes.chunks(WORD_BYTES);
        let mut words: VecDeque<Vec<u8>> = pieces.map(|piece| [&[2], piece].concat()).collect();
        words.push_back(vec![LAST]);
        self.words = Some(words);
    }

    fn progress(&self) -> SyncProgress {
        SyncProgress::default()
    }
}

/// A disk that becomes the copy.
pub(crate) struct ToyIn {
    toy: Rc<RefCell<Toy>>,
    asked: bool,
    bytes: Vec<u8>,
    /// Looks until it is durable.
    left: Option<u32>,
}

impl ToyIn {
    pub(crate) fn new(toy: &Rc<RefCell<Toy>>) -> Self {
        toy.borrow_mut().bytes.fill(0x55);
        Self {
            toy: Rc::clone(toy),
            asked: false,
            bytes: Vec::new(),
            left: None,
        }
    }
}

impl DisksIn for ToyIn {
    fn heard(&mut self, bytes: &[u8]) -> Result<(), String> {
        match bytes[0] {
            ASK => self.asked = true,
            LAST => self.left = Some(20),
            _ => self.bytes.extend_from_slice(&bytes[1..]),
        }
        Ok(())
    }

    fn next(&mut self) -> SyncWords {
        if std::mem::take(&mut self.asked) {
            return SyncWords::Ready(vec![ASK]);
        }
        if self.toy.borrow().fails {
            return SyncWords::Broken("no room".to_owned());
        }
        let Some(left) = &mut self.left else {
            return SyncWords::Later;
        };
        *left = left.saturating_sub(1);
        if *left > 0 {
            return SyncWords::Later;
        }
        self.toy.borrow_mut().bytes.clone_from(&self.bytes);
        SyncWords::Done
    }

    fn overwrites(&self) -> bool {
        true
    }

    fn progress(&self) -> SyncProgress {
        SyncProgress::default()
    }
}
