//! The Sv39 page-table walk (RISC-V Privileged Architecture 1.12, section 4.3.2)
//! with hardware update of accessed and dirty bits (Svadu).

use crate::hart::SATP_SV39;
use twinvm_mem::{Memory, PAGE_SHIFT, RAM_BASE};

/// Why memory is accessed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Fetch,
    Load,
    Store,
}

/// Why a translation does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WalkFault {
    /// Page fault.
    Page,
    /// A page table lies outside RAM.
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
}

impl Space {
    /// Physical addressing.
    pub(crate) const BARE: Space = Space {
        root: 0,
        user: false,
        sum: false,
        mxr: false,
        adue: false,
    };

    /// The space of `satp`, for U or S accesses.
    pub(crate) fn new(satp: u64, user: bool, sum: bool, mxr: bool, adue: bool) -> Self {
        if satp >> 60 == SATP_SV39 {
            // SUM means nothing in U-mode: don't make two spaces of one.
            Self {
                root: satp & !(0xffff << 44),
                user,
                sum: sum && !user,
                mxr,
                adue,
            }
        } else {
            Self::BARE
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
    pub(super) const RESERVED: u64 = 0xffc0_0000_0000_0000;
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
}

/// Levels of Sv39.
pub(crate) const LEVELS: usize = 3;

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
/// set as the access needs; a walk that faults changes nothing. `visited` gets
/// each table read, also when the walk faults part-way.
pub(crate) fn walk(
    mem: &mut Memory,
    space: &Space,
    va: u64,
    access: Access,
    visited: &mut Vec<Visit>,
) -> Result<Translation, WalkFault> {
    visited.clear();
    if (va as i64) << 25 >> 25 != va as i64 {
        return Err(WalkFault::Page);
    }
    let mut table = (space.root & ((1 << 44) - 1)) << PAGE_SHIFT;
    for level in (0..LEVELS as u32).rev() {
        let shift = PAGE_SHIFT + 9 * level;
        let entry_pa = table + ((va >> shift) & 511) * 8;
        let entry = mem.load_u64(entry_pa).map_err(|_| WalkFault::Access)?;
        visited.push(Visit {
            page: ((table - RAM_BASE) >> PAGE_SHIFT) as u32,
            level: level as u8,
            // The root maps both halves of the address space: its base is 0.
            base: if level as usize == LEVELS - 1 {
                0
            } else {
                va & !((1u64 << (shift + 9)) - 1)
            },
        });
        if entry & pte::V == 0 || entry & (pte::R | pte::W) == pte::W || entry & pte::RESERVED != 0
        {
            return Err(WalkFault::Page);
        }
        if entry & (pte::R | pte::X) == 0 {
            if entry & (pte::A | pte::D | pte::U) != 0 {
                return Err(WalkFault::Page);
            }
            table = (entry >> 10) << PAGE_SHIFT;
            continue;
        }
        return leaf(mem, space, va, access, entry, entry_pa, shift);
    }
    Err(WalkFault::Page)
}

fn leaf(
    mem: &mut Memory,
    space: &Space,
    va: u64,
    access: Access,
    mut entry: u64,
    entry_pa: u64,
    shift: u32,
) -> Result<Translation, WalkFault> {
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
    let offset_mask = (1u64 << shift) - 1;
    let frame = (entry >> 10) << PAGE_SHIFT;
    if !allowed || frame & offset_mask != 0 {
        return Err(WalkFault::Page);
    }
    let need = pte::A | if access == Access::Store { pte::D } else { 0 };
    if entry & need != need {
        if !space.adue {
            return Err(WalkFault::Page);
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
