//! Decoded basic blocks: found by physical address, and quickly by virtual one.

use crate::decode::{decode, is_long};
use crate::op::Op;
use twinvm_mem::{Memory, PAGE_BYTES, PAGE_SHIFT, RAM_BASE};

/// Most instructions in a block: bounds decode-ahead.
const MAX_BLOCK_OPS: usize = 48;
/// Decoded ops kept (16 bytes each) until all are dropped.
const MAX_OPS: usize = 1 << 19;
const JUMP_BITS: u32 = 14;

/// A block: where its ops are. Ops of a block never cross a page.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Block {
    pub(crate) start: u32,
    pub(crate) len: u16,
}

/// A block known by virtual address within one space and epoch.
#[derive(Clone, Copy)]
struct Jump {
    pc: u64,
    tag: u32,
    block: Block,
}

/// All decoded code. Derived from memory; may be dropped at any time.
pub(crate) struct Blocks {
    pub(crate) ops: Vec<Op>,
    /// Per page of RAM: blocks sorted by offset.
    pages: Vec<Vec<(u16, Block)>>,
    code_pages: Vec<u32>,
    jumps: Box<[Jump]>,
    epoch: u32,
    /// Space number and epoch of the jumps that are valid now.
    tag: u32,
    pub(crate) decoded: u64,
}

fn jump_index(pc: u64) -> usize {
    ((pc >> 1) ^ (pc >> (JUMP_BITS + 1))) as usize & ((1 << JUMP_BITS) - 1)
}

impl Blocks {
    pub(crate) fn new() -> Self {
        let none = Jump {
            pc: 1,
            tag: 0,
            block: Block { start: 0, len: 0 },
        };
        Self {
            ops: vec![crate::decode::illegal()],
            pages: Vec::new(),
            code_pages: Vec::new(),
            jumps: vec![none; 1 << JUMP_BITS].into_boxed_slice(),
            epoch: 1,
            tag: 0,
            decoded: 0,
        }
    }

    /// Code found by virtual address is void (translations or code changed).
    pub(crate) fn void_jumps(&mut self) {
        self.epoch += 1;
        if self.epoch >> 24 != 0 {
            self.epoch = 1;
            for jump in self.jumps.iter_mut() {
                jump.pc = 1;
            }
        }
        self.tag = (self.tag & 0xff00_0000) | self.epoch;
    }

    /// Fetches now happen in space number `space`.
    pub(crate) fn select(&mut self, space: usize) {
        self.tag = (space as u32) << 24 | self.epoch;
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
        Block { start: 0, len: 1 }
    }

    /// The block at virtual address `pc`, if it is known.
    #[inline(always)]
    pub(crate) fn jump(&self, pc: u64) -> Option<Block> {
        let jump = &self.jumps[jump_index(pc)];
        (jump.pc == pc && jump.tag == self.tag).then_some(jump.block)
    }

    pub(crate) fn remember_jump(&mut self, pc: u64, block: Block) {
        self.jumps[jump_index(pc)] = Jump {
            pc,
            tag: self.tag,
            block,
        };
    }

    /// Drops all that was decoded.
    pub(crate) fn flush(&mut self, mem: &mut Memory) {
        for page in std::mem::take(&mut self.code_pages) {
            self.pages[page as usize] = Vec::new();
            mem.clear_code(page as usize);
        }
        // The first is that of [`Blocks::single`].
        self.ops.truncate(1);
        self.void_jumps();
    }

    /// Drops what was decoded from one page (its CODE state is cleared already).
    pub(crate) fn drop_page(&mut self, page: u32) {
        if let Some(blocks) = self.pages.get_mut(page as usize) {
            blocks.clear();
        }
        self.void_jumps();
    }

    /// The block at a physical address in RAM, decoded if need be. `None` if a
    /// 32-bit instruction starts there whose second half is on the next page.
    pub(crate) fn find(&mut self, mem: &mut Memory, pa: u64) -> Option<Block> {
        if self.pages.is_empty() {
            self.pages = vec![Vec::new(); mem.pages()];
        }
        let page = ((pa - RAM_BASE) >> PAGE_SHIFT) as usize;
        let offset = (pa as usize & (PAGE_BYTES - 1)) as u16;
        let at = match self.pages[page].binary_search_by_key(&offset, |(off, _)| *off) {
            Ok(at) => return Some(self.pages[page][at].1),
            Err(at) => at,
        };
        if self.ops.len() + MAX_BLOCK_OPS > MAX_OPS {
            self.flush(mem);
            return self.find(mem, pa);
        }
        let block = self.decode_block(mem.page(page)?, usize::from(offset))?;
        let bytes = self.ops_of(block, u64::MAX).last().map_or(0, Op::next_off);
        mem.mark_code(pa, bytes as usize);
        if self.pages[page].is_empty() {
            if self.code_pages.len() >= self.pages.len() {
                self.code_pages.sort_unstable();
                self.code_pages.dedup();
            }
            self.code_pages.push(page as u32);
        }
        self.pages[page].insert(at, (offset, block));
        Some(block)
    }

    fn decode_block(&mut self, page: &[u8], offset: usize) -> Option<Block> {
        let start = self.ops.len();
        let mut at = offset;
        while at < PAGE_BYTES && self.ops.len() - start < MAX_BLOCK_OPS {
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
        (len > 0).then_some(Block {
            start: start as u32,
            len: len as u16,
        })
    }
}
