//! Decoded basic blocks, found by physical address.

use crate::codes::Codes;
use crate::decode::{crossing, decode, is_long};
use crate::op::Op;
use crate::page_map::PageMap;
use std::cell::Cell;
use twinvm_mem::{Memory, PAGE_BYTES, PAGE_SHIFT, RAM_BASE};

/// Most instructions in a block: bounds decode-ahead.
pub(crate) const MAX_BLOCK_OPS: usize = 48;
/// Decoded ops kept (16 bytes each) until all are dropped: at least, and at most.
const MAX_OPS: [usize; 2] = [1 << 18, 1 << 20];
/// Pages of RAM from which on there are more.
const SMALL_RAM_PAGES: usize = 48 << 10;
/// And how many, for each page above.
const OPS_PER_PAGE: usize = 16;

/// A block: where its ops are. Ops of a block never cross a page.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Block {
    pub(crate) start: u32,
    /// 0: its ops were dropped, only its translation is left.
    pub(crate) len: u16,
    /// Index in [`Blocks::known`].
    pub(crate) id: u32,
}

impl Block {
    /// The block after its ops were dropped.
    pub(crate) fn without_ops(self) -> Self {
        Self {
            start: 0,
            len: 0,
            ..self
        }
    }
}

/// What is known of a block besides its ops.
#[derive(Default)]
struct Known {
    /// How often it was entered, up to 254: while it is in [`Codes`], what it was before.
    heat: u8,
    /// Where its translation starts; 0: nowhere yet.
    code: u64,
}

/// Blocks of a page.
#[derive(Default)]
struct PageBlocks {
    /// Where they start in the page, in order. By themselves: they are searched.
    offsets: Vec<u16>,
    blocks: Vec<Block>,
}

/// All decoded code. Derived from memory; may be dropped at any time.
pub(crate) struct Blocks {
    ops: Vec<Op>,
    /// Of each page with code.
    pages: PageMap<PageBlocks>,
    /// Those that are found at once.
    codes: Codes,
    known: Vec<Known>,
    /// Entries of `known` that are free.
    unknown: Vec<u32>,
    /// Entries after which a block is hot; 255: never.
    hot_at: u8,
    /// Where blocks without a translation go in `codes`.
    cold: u64,
    /// Most instructions in a block from now on.
    pub(crate) most_ops: usize,
    pub(crate) decoded: u64,
}

impl Blocks {
    pub(crate) fn new() -> Self {
        Self {
            ops: vec![crate::decode::illegal()],
            pages: PageMap::new(),
            codes: Codes::new(),
            known: vec![Known::default()],
            unknown: Vec::new(),
            hot_at: u8::MAX,
            cold: 0,
            most_ops: MAX_BLOCK_OPS,
            decoded: 0,
        }
    }

    /// Blocks entered this often are hot; 255: none is.
    pub(crate) fn set_hot_at(&mut self, entries: u8) {
        self.hot_at = entries;
    }

    /// Where translated code goes for a block without a translation. Only while there is
    /// no block.
    pub(crate) fn set_cold(&mut self, cold: u64) {
        self.cold = cold;
    }

    /// The block that is `place` bytes from the start of RAM, if that is known at once.
    #[inline(always)]
    pub(crate) fn at(&self, place: u64) -> Option<Block> {
        Some(self.codes.get(place)?.0)
    }

    /// The same, if the interpreter is to run it: it isn't hot, which counts as an entry.
    #[inline(always)]
    pub(crate) fn cold_at(&self, place: u64) -> Option<Block> {
        let (block, heat) = self.codes.get(place)?;
        (block.len != 0 && !self.warm(heat)).then_some(block)
    }

    #[inline(always)]
    fn warm(&self, heat: &Cell<u8>) -> bool {
        let now = heat.get();
        if now >= self.hot_at {
            return true;
        }
        heat.set(now + u8::from(now < u8::MAX - 1));
        false
    }

    /// Counts an entry of the block at a place; true if it is hot.
    pub(crate) fn is_hot(&self, place: u64) -> bool {
        let heat = self.codes.get(place);
        heat.is_some_and(|(_, heat)| self.warm(heat))
    }

    /// Where the block's translation starts; 0: nowhere yet.
    pub(crate) fn code(&self, block: Block) -> u64 {
        self.known[block.id as usize].code
    }

    /// The block at a place has a translation.
    pub(crate) fn set_code(&mut self, place: u64, block: Block, code: u64) {
        self.known[block.id as usize].code = code;
        if let Some((_, heat)) = self.codes.get(place) {
            self.known[block.id as usize].heat = heat.get();
        }
        self.set_at(place, block);
    }

    /// The blocks that are known at once, for machine code.
    pub(crate) fn codes(&self) -> &Codes {
        &self.codes
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
        self.codes.clear();
        for page in self.pages.clear() {
            mem.clear_code(page as usize);
        }
        // The first is that of [`Blocks::single`].
        self.ops.truncate(1);
        self.known.truncate(1);
        self.unknown.clear();
    }

    /// Drops what was decoded from one page (its CODE state is cleared already).
    /// Returns where translations of its blocks start.
    pub(crate) fn drop_page(&mut self, page: u32) -> Vec<u64> {
        let Some(blocks) = self.pages.get_mut(page) else {
            return Vec::new();
        };
        let PageBlocks { offsets, blocks } = std::mem::take(blocks);
        let start = u64::from(page) << PAGE_SHIFT;
        let mut codes = Vec::new();
        for (offset, block) in offsets.into_iter().zip(blocks) {
            self.codes.remove(start + u64::from(offset));
            codes.push(self.code(block));
            self.known[block.id as usize] = Known::default();
            self.unknown.push(block.id);
        }
        codes.retain(|code| *code != 0);
        codes
    }

    /// True if there may be no room for one more block: the ops of all must be dropped.
    pub(crate) fn is_full(&self, mem: &Memory) -> bool {
        let [least, most] = MAX_OPS;
        let above = mem.pages().saturating_sub(SMALL_RAM_PAGES);
        self.ops.len() + MAX_BLOCK_OPS > (above * OPS_PER_PAGE).clamp(least, most)
    }

    /// Drops all ops, and the blocks that have no translation.
    pub(crate) fn drop_ops(&mut self) {
        self.ops.truncate(1);
        self.codes.forget_decoded(self.cold);
        let (known, unknown) = (&mut self.known, &mut self.unknown);
        for PageBlocks { offsets, blocks } in self.pages.values() {
            let mut kept = 0;
            for at in 0..blocks.len() {
                let block = blocks[at].without_ops();
                if known[block.id as usize].code != 0 {
                    (offsets[kept], blocks[kept]) = (offsets[at], block);
                    kept += 1;
                } else {
                    known[block.id as usize] = Known::default();
                    unknown.push(block.id);
                }
            }
            offsets.truncate(kept);
            blocks.truncate(kept);
        }
    }

    fn set_at(&mut self, place: u64, block: Block) {
        let Known { heat, code } = self.known[block.id as usize];
        let code = if code == 0 { self.cold } else { code };
        if let Some((gone, heat)) = self.codes.set(place, block, code, heat) {
            self.known[gone.id as usize].heat = heat;
        }
    }

    /// The block at a physical address in RAM, with its ops, decoded if need be. `None` if
    /// a 32-bit instruction starts there whose second half is on the next page.
    pub(crate) fn find(&mut self, mem: &mut Memory, pa: u64) -> Option<Block> {
        let place = pa - RAM_BASE;
        if let Some(block) = self.at(place)
            && block.len != 0
        {
            return Some(block);
        }
        let page = (place >> PAGE_SHIFT) as u32;
        let offset = (pa as usize & (PAGE_BYTES - 1)) as u16;
        let PageBlocks { offsets, blocks } = self.pages.get_or_default(mem, page)?;
        let at = offsets.binary_search(&offset);
        let old = at.ok().map(|at| blocks[at]);
        if let Some(block) = old
            && block.len != 0
        {
            self.set_at(place, block);
            return Some(block);
        }
        let (start, len) = self.decode_block(mem.page(page as usize)?, usize::from(offset))?;
        let id = match old {
            Some(block) => block.id,
            None => self.new_id(),
        };
        let block = Block { start, len, id };
        let bytes = self.ops_of(block, u64::MAX).last().map_or(0, Op::next_off) as usize;
        // What is on the next page is fetched each time.
        mem.mark_code(pa, bytes.min(PAGE_BYTES - usize::from(offset)));
        let PageBlocks { offsets, blocks } = self.pages.get_mut(page)?;
        match at {
            Ok(at) => blocks[at] = block,
            Err(at) => {
                offsets.insert(at, offset);
                blocks.insert(at, block);
            }
        }
        self.set_at(place, block);
        Some(block)
    }

    fn new_id(&mut self) -> u32 {
        self.unknown.pop().unwrap_or_else(|| {
            self.known.push(Known::default());
            (self.known.len() - 1) as u32
        })
    }

    /// Decodes a block: where its ops start, and how many there are.
    fn decode_block(&mut self, page: &[u8], offset: usize) -> Option<(u32, u16)> {
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
                if at > offset {
                    self.ops.push(crossing(first, (at - offset) as u16));
                }
                break;
            };
            let op = decode(raw, (at - offset) as u16);
            self.ops.push(op);
            at += len;
            if op.ends_block() {
                break;
            }
        }
        let len = self.ops.len() - start;
        self.decoded += len as u64;
        (len != 0).then_some((start as u32, len as u16))
    }
}
