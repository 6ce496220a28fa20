//! The page-table walk of Sv39 and Sv48 (RISC-V Privileged Architecture, chapter
//! "Supervisor-Level ISA", section "Virtual Address Translation Process"), with
//! hardware update of accessed and dirty bits (Svadu) and 64 KiB pages (Svnapot).

use crate::hart::{SATP_SV39, SATP_SV48};
use crate::pmp::{PmpMap, perm};
use twinvm_mem::{Memory, PAGE_SHIFT, RAM_BASE};

/// Why memory is accessed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Fetch,
    Load,
    Store,
}

impl Access {
    /// What the PMP must allow for it.
    pub(crate) fn perm(self) -> u8 {
        match self {
            Access::Fetch => perm::X,
            Access::Load => perm::R,
            Access::Store => perm::W,
        }
    }
}

/// Why a translation does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WalkFault {
    /// Page fault.
    Page,
    /// A page table lies outside RAM or the PMP keeps the walk out of it, or the
    /// PMP refuses the access itself.
    Access,
}

/// What decides a translation beside the virtual address: an address space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Space {
    /// satp without the ASID; 0 is bare.
    pub(crate) root: u64,
    /// True for U-mode accesses.
    pub(crate) user: bool,
    pub(crate) sum: bool,
    pub(crate) mxr: bool,
    pub(crate) adue: bool,
    /// Number of the PMP's map for this mode ([`crate::mmu::Mmu::pmp_maps`]).
    pub(crate) pmp: u8,
}

impl Space {
    /// Physical addressing.
    pub(crate) const fn bare(pmp: u8) -> Self {
        Self {
            root: 0,
            user: false,
            sum: false,
            mxr: false,
            adue: false,
            pmp,
        }
    }

    /// The same for fetches, to which SUM and MXR don't matter.
    pub(crate) const fn of_fetches(self) -> Self {
        Self {
            sum: false,
            mxr: false,
            ..self
        }
    }

    /// The space of `satp`, for U or S accesses.
    pub(crate) fn new(satp: u64, user: bool, sum: bool, mxr: bool, adue: bool, pmp: u8) -> Self {
        if satp >> 60 == 0 {
            return Self::bare(pmp);
        }
        Self {
            root: satp & !(0xffff << 44),
            user,
            // SUM means nothing in U-mode: don't make two spaces of one.
            sum: sum && !user,
            mxr,
            adue,
            pmp,
        }
    }

    pub(crate) fn is_bare(&self) -> bool {
        self.root == 0
    }

    /// Levels of the page tables.
    fn levels(&self) -> u32 {
        match self.root >> 60 {
            SATP_SV48 => 4,
            mode => {
                debug_assert_eq!(mode, SATP_SV39);
                3
            }
        }
    }
}

/// Bits of a page-table entry.
mod pte {
    pub(super) const V: u64 = 1;
    pub(super) const R: u64 = 2;
    pub(super) const W: u64 = 4;
    pub(super) const X: u64 = 8;
    pub(super) const U: u64 = 16;
    pub(super) const A: u64 = 64;
    pub(super) const D: u64 = 128;
    /// A contiguous range (Svnapot).
    pub(super) const N: u64 = 1 << 63;
    /// Bits 60:54, and 62:61, which Svpbmt would use.
    pub(super) const RESERVED: u64 = 0x7fc0_0000_0000_0000;
    pub(super) const PPN: u64 = ((1 << 44) - 1) << 10;
}

/// One entry that the walk read: what a later store to it must drop.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Visit {
    /// Page index of the table in RAM.
    pub(crate) page: u32,
    /// Level of the entries (0 maps 4 KiB).
    pub(crate) level: u8,
    /// Virtual address that the table's first entry maps.
    pub(crate) base: u64,
    /// Bits of a virtual address: 39 or 48.
    pub(crate) bits: u8,
}

/// Most levels of page tables.
pub(crate) const MAX_LEVELS: usize = 4;

/// A successful walk.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Translation {
    /// Physical address of the access.
    pub(crate) pa: u64,
    /// Loads are allowed in this space.
    pub(crate) load: bool,
    /// Stores are allowed and the entry is dirty already.
    pub(crate) store: bool,
}

/// Walks the tables of `space` for `va`. On success accessed and dirty bits are
/// set as the access needs; a walk that faults changes nothing. `last` is the table that
/// maps the 4 KiB page, if it is known that a walk leads there. `visited` gets
/// each table read, also when the walk faults part-way.
pub(crate) fn walk(
    mem: &mut Memory,
    space: &Space,
    pmp: &PmpMap,
    va: u64,
    access: Access,
    last: Option<u64>,
    visited: &mut Vec<Visit>,
) -> Result<Translation, WalkFault> {
    visited.clear();
    let levels = space.levels();
    let bits = PAGE_SHIFT + 9 * levels;
    if extend(va, bits) != va {
        return Err(WalkFault::Page);
    }
    let root = (space.root & ((1 << 44) - 1)) << PAGE_SHIFT;
    let (mut table, first) = last.map_or((root, levels), |table| (table, 1));
    for level in (0..first).rev() {
        let shift = PAGE_SHIFT + 9 * level;
        let entry_pa = table + ((va >> shift) & 511) * 8;
        if pmp.allowed(entry_pa, 8) & perm::R == 0 {
            return Err(WalkFault::Access);
        }
        let place = entry_pa.wrapping_sub(RAM_BASE) as usize;
        let bytes = mem.load_at(place).ok_or(WalkFault::Access)?;
        let entry = u64::from_le_bytes(bytes);
        visited.push(Visit {
            page: ((table - RAM_BASE) >> PAGE_SHIFT) as u32,
            level: level as u8,
            // The root maps both halves of the address space: its base is 0.
            base: if level == levels - 1 {
                0
            } else {
                va & !((1u64 << (shift + 9)) - 1)
            },
            bits: bits as u8,
        });
        if entry & pte::V == 0 || entry & (pte::R | pte::W) == pte::W || entry & pte::RESERVED != 0
        {
            return Err(WalkFault::Page);
        }
        if entry & (pte::R | pte::X) == 0 {
            if entry & (pte::A | pte::D | pte::U | pte::N) != 0 {
                return Err(WalkFault::Page);
            }
            table = frame_of(entry);
            continue;
        }
        let found = Leaf {
            entry,
            entry_pa,
            shift,
        };
        return leaf(mem, space, pmp, va, access, found);
    }
    Err(WalkFault::Page)
}

/// Where the tables of `satp` lead for `va`, for a reader that changes nothing and may see
/// everything: permissions, accessed and dirty bits are not looked at.
pub(crate) fn peek(mem: &Memory, satp: u64, va: u64) -> Option<u64> {
    let space = Space::new(satp, false, false, false, false, 0);
    if space.is_bare() {
        return Some(va);
    }
    let levels = space.levels();
    if extend(va, PAGE_SHIFT + 9 * levels) != va {
        return None;
    }
    let mut table = (space.root & ((1 << 44) - 1)) << PAGE_SHIFT;
    for level in (0..levels).rev() {
        let shift = PAGE_SHIFT + 9 * level;
        let entry = mem.load_u64(table + ((va >> shift) & 511) * 8).ok()?;
        if entry & pte::V == 0 {
            return None;
        }
        if entry & (pte::R | pte::X) == 0 {
            table = frame_of(entry);
            continue;
        }
        let napot = entry & pte::N != 0 && level == 0;
        let mask = (1u64 << (shift + if napot { 4 } else { 0 })) - 1;
        return Some(frame_of(entry) & !mask | (va & mask));
    }
    None
}

/// Physical address that an entry points to.
fn frame_of(entry: u64) -> u64 {
    (entry & pte::PPN) >> 10 << PAGE_SHIFT
}

/// Sign-extends a virtual address of `bits` bits.
pub(crate) fn extend(va: u64, bits: u32) -> u64 {
    let unused = 64 - bits;
    ((va << unused) as i64 >> unused) as u64
}

/// An entry that ends a walk: where it is, and the bits of the offset in its page.
struct Leaf {
    entry: u64,
    entry_pa: u64,
    shift: u32,
}

fn leaf(
    mem: &mut Memory,
    space: &Space,
    pmp: &PmpMap,
    va: u64,
    access: Access,
    found: Leaf,
) -> Result<Translation, WalkFault> {
    let Leaf {
        mut entry,
        entry_pa,
        shift,
    } = found;
    let user_page = entry & pte::U != 0;
    let data_ok = if space.user {
        user_page
    } else {
        !user_page || space.sum
    };
    let fetch_ok = user_page == space.user && entry & pte::X != 0;
    let load_ok = data_ok && (entry & pte::R != 0 || (space.mxr && entry & pte::X != 0));
    let store_ok = data_ok && entry & pte::W != 0;
    let allowed = match access {
        Access::Fetch => fetch_ok,
        Access::Load => load_ok,
        Access::Store => store_ok,
    };
    let mut offset_mask = (1u64 << shift) - 1;
    let mut frame = frame_of(entry);
    if !allowed || frame & offset_mask != 0 {
        return Err(WalkFault::Page);
    }
    if entry & pte::N != 0 {
        // One of 16 equal entries of a 64 KiB page: the low bits of its frame
        // say the size, and no other is defined. The walk always reads the
        // entry at the address's own index, so each of the 16 translations
        // depends on one entry only, like any other page's.
        if shift != PAGE_SHIFT || frame >> PAGE_SHIFT & 15 != 8 {
            return Err(WalkFault::Page);
        }
        offset_mask = (16 << PAGE_SHIFT) - 1;
        frame &= !offset_mask;
    }
    let need = pte::A | if access == Access::Store { pte::D } else { 0 };
    if entry & need != need {
        if !space.adue {
            return Err(WalkFault::Page);
        }
        if pmp.allowed(entry_pa, 8) & perm::W == 0 {
            return Err(WalkFault::Access);
        }
        entry |= need;
        mem.store_walk_bits(entry_pa, entry)
            .map_err(|_| WalkFault::Access)?;
    }
    Ok(Translation {
        pa: frame | (va & offset_mask),
        load: load_ok,
        store: store_ok && entry & pte::D != 0,
    })
}
