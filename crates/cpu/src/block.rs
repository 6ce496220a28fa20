//! Decoded basic blocks, found by physical address. By virtual address they are found
//! in the [`crate::space`].

use crate::decode::{decode, is_long};
use crate::op::Op;
use crate::page_map::PageMap;
use std::cell::Cell;
use twinvm_mem::{Memory, PAGE_BYTES, PAGE_SHIFT, RAM_BASE};

/// Most instructions in a block: bounds decode-ahead.
pub(crate) const MAX_BLOCK_OPS: usize = 48;
/// Decoded ops kept (16 bytes each) until all are dropped.
const MAX_OPS: usize = 3 << 17;
/// Blocks found by physical address at once.
const NEAR: usize = 1 << 13;
/// No block starts at an odd address.
const NO_ADDRESS: u64 = 1;
/// An entry that was in use.
const DROPPED: u64 = 3;

/// A block: where its ops are. Ops of a block never cross a page.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Block {
    pub(crate) start: u32,
    pub(crate) len: u16,
    /// Index in [`Blocks::known`].
    pub(crate) id: u32,
}

/// What is known of a block besides its ops.
#[derive(Default)]
struct Known {
    /// How often it was entered, up to 254.
    heat: Cell<u8>,
    /// Where its translation starts; 0: nowhere yet.
    code: u64,
}

/// All decoded code. Derived from memory; may be dropped at any time.
pub(crate) struct Blocks {
    pub(crate) ops: Vec<Op>,
    /// Of each page with code: blocks sorted by offset.
    pages: PageMap<Vec<(u16, Block)>>,
    /// Blocks by physical address, modulo the number of entries.
    near: Vec<(u64, Block)>,
    /// Entries of `near` that are in use or were.
    near_used: Vec<u16>,
    known: Vec<Known>,
    /// Entries after which a block is hot; 255: never.
    hot_at: u8,
    /// Most instructions in a block from now on.
    pub(crate) most_ops: usize,
    pub(crate) decoded: u64,
}

fn near_index(pa: u64) -> usize {
    (pa >> 1) as usize & (NEAR - 1)
}

impl Blocks {
    pub(crate) fn new() -> Self {
        Self {
            ops: vec![crate::decode::illegal()],
            pages: PageMap::new(),
            near: vec![(NO_ADDRESS, Block::default()); NEAR],
            near_used: Vec::new(),
            known: vec![Known::default()],
            hot_at: u8::MAX,
            most_ops: MAX_BLOCK_OPS,
            decoded: 0,
        }
    }

    /// Blocks entered this often are hot; 255: none is.
    pub(crate) fn set_hot_at(&mut self, entries: u8) {
        self.hot_at = entries;
    }

    /// Counts an entry of the block; true if it is hot.
    #[inline(always)]
    pub(crate) fn warm(&self, block: Block) -> bool {
        let heat = &self.known[block.id as usize].heat;
        let now = heat.get();
        if now >= self.hot_at {
            return true;
        }
        heat.set(now + u8::from(now < u8::MAX - 1));
        false
    }

    /// Where the block's translation starts; 0: nowhere yet.
    pub(crate) fn code(&self, block: Block) -> u64 {
        self.known[block.id as usize].code
    }

    pub(crate) fn set_code(&mut self, block: Block, code: u64) {
        self.known[block.id as usize].code = code;
    }

    /// The first `most` ops of a block, or all.
    #[inline(always)]
    pub(crate) fn ops_of(&self, block: Block, most: u64) -> &[Op] {
        let len = u64::from(block.len).min(most) as usize;
        self.ops
            .get(block.start as usize..block.start as usize + len)
            .unwrap_or_default()
    }

    /// A block of one op that is kept nowhere else.
    pub(crate) fn single(&mut self, op: Op) -> Block {
        self.ops[0] = op;
        self.known[0] = Known::default();
        Block {
            start: 0,
            len: 1,
            id: 0,
        }
    }

    /// Drops all that was decoded.
    pub(crate) fn flush(&mut self, mem: &mut Memory) {
        for index in self.near_used.drain(..) {
            self.near[usize::from(index)].0 = NO_ADDRESS;
        }
        for page in self.pages.clear() {
            mem.clear_code(page as usize);
        }
        // The first is that of [`Blocks::single`].
        self.ops.truncate(1);
        self.known.truncate(1);
    }

    /// Drops what was decoded from one page (its CODE state is cleared already).
    /// Returns where translations of its blocks start.
    pub(crate) fn drop_page(&mut self, page: u32) -> Vec<u64> {
        let Some(blocks) = self.pages.get_mut(page) else {
            return Vec::new();
        };
        let blocks = std::mem::take(blocks);
        let start = RAM_BASE + (u64::from(page) << PAGE_SHIFT);
        for (offset, _) in &blocks {
            // Still noted as used: so nothing grows where code changes again and again.
            self.near[near_index(start + u64::from(*offset))].0 = DROPPED;
        }
        let codes = blocks.iter().map(|(_, block)| self.code(*block));
        codes.filter(|code| *code != 0).collect()
    }

    fn set_near(&mut self, pa: u64, block: Block) {
        let index = near_index(pa);
        if self.near[index].0 == NO_ADDRESS {
            self.near_used.push(index as u16);
        }
        self.near[index] = (pa, block);
    }

    /// True if there may be no room for one more block: all must be dropped.
    pub(crate) fn is_full(&self) -> bool {
        self.ops.len() + MAX_BLOCK_OPS > MAX_OPS
    }

    /// The block at a physical address in RAM, decoded if need be. `None` if a
    /// 32-bit instruction starts there whose second half is on the next page.
    pub(crate) fn find(&mut self, mem: &mut Memory, pa: u64) -> Option<Block> {
        let (near, block) = self.near[near_index(pa)];
        if near == pa {
            return Some(block);
        }
        let page = ((pa - RAM_BASE) >> PAGE_SHIFT) as u32;
        let offset = (pa as usize & (PAGE_BYTES - 1)) as u16;
        let blocks = self.pages.get_or_default(mem, page)?;
        let at = match blocks.binary_search_by_key(&offset, |(off, _)| *off) {
            Ok(at) => {
                let block = blocks[at].1;
                self.set_near(pa, block);
                return Some(block);
            }
            Err(at) => at,
        };
        let block = self.decode_block(mem.page(page as usize)?, usize::from(offset))?;
        let bytes = self.ops_of(block, u64::MAX).last().map_or(0, Op::next_off);
        mem.mark_code(pa, bytes as usize);
        self.pages.get_mut(page)?.insert(at, (offset, block));
        self.set_near(pa, block);
        Some(block)
    }

    fn decode_block(&mut self, page: &[u8], offset: usize) -> Option<Block> {
        let start = self.ops.len();
        let mut at = offset;
        while at < PAGE_BYTES && self.ops.len() - start < self.most_ops {
            let first = u16::from_le_bytes([page[at], page[at + 1]]);
            let (raw, len) = if !is_long(first) {
                (u32::from(first), 2)
            } else if at + 4 <= PAGE_BYTES {
                (
                    u32::from_le_bytes([page[at], page[at + 1], page[at + 2], page[at + 3]]),
                    4,
                )
            } else {
                break;
            };
            let op = decode(raw, (at - offset) as u16);
            self.ops.push(op);
            at += len;
            if op.kind.ends_block() {
                break;
            }
        }
        let len = self.ops.len() - start;
        self.decoded += len as u64;
        if len == 0 {
            return None;
        }
        self.known.push(Known::default());
        Some(Block {
            start: start as u32,
            len: len as u16,
            id: (self.known.len() - 1) as u32,
        })
    }
}
