//! Sv48 beside Sv39, and 64 KiB pages (Svnapot).

use crate::asm::*;
use crate::tables::*;
use crate::world::*;
use twinvm_cpu::Mode::{Machine, Supervisor};
use twinvm_mem::RAM_BASE;

const ADUE: u64 = 1 << 61;
const MPRV: u64 = 1 << 17;
const N: u64 = 1 << 63;
/// The root of Sv48: its entry 0 points to [`ROOT`], entry 1 to [`HIGH`].
const TOP: u64 = RAM_BASE + 0x4_4000;
const HIGH: u64 = RAM_BASE + 0x4_5000;
const SATP: u32 = 0x180;

fn satp48(root: u64) -> u64 {
    9 << 60 | root >> 12
}

/// Sv48 with everything where Sv39 has it.
fn world48(program: impl FnOnce(&mut Asm)) -> World {
    let mut world = World::new(program);
    world.paged(Supervisor).set_csr("satp", satp48(TOP));
    world.word(slot(TOP, 0), pte(ROOT, V));
    world
}

#[test]
fn four_levels_and_their_superpages() {
    // (where the leaf is, the virtual address it starts at, what it must be aligned to)
    for (at, start, bits) in [
        (LEAF, page(0), 12),
        (MID, VIRTUAL, 21),
        (slot(ROOT, 1), VIRTUAL, 30),
        (slot(TOP, 1), 1 << 39, 39),
        (slot(TOP, 511), 0xffff_ff80_0000_0000, 39),
        (slot(TOP, 255), 0x7f80_0000_0000, 39),
    ] {
        let pa = RAM_BASE >> bits << bits;
        let mut world = world48(|a| {
            a.ops(&[ld(1, 10, 0), sd(1, 10, 8)]);
        });
        world.word(at, pte(pa, V | R | W));
        let target = if bits == 12 { RAM_BASE } else { data_page(3) };
        let offset = target & ((1 << bits) - 1);
        world.set_x(10, start + offset);
        if bits == 12 {
            world.word(slot(LEAF, 0), pte(data_page(3), V | R | W));
        }
        world.check(2, |after| {
            assert_eq!(after.csr("mcause"), 0, "{at:#x}");
            assert_eq!(after.x(1), 0x103);
            assert_eq!(after.word(data_page(3) + 8), 0x103);
            // A and D were set in the leaf, wherever it is.
            assert_eq!(after.word(at) & (A | D), A | D);
        });
        if bits > 12 {
            world.word(at, pte(pa | 1 << (bits - 1), V | R | W));
            world.check(2, |after| assert_eq!(after.csr("mcause"), 13));
        }
    }
}

#[test]
fn canonical_addresses_by_mode() {
    for (va, in_39, in_48) in [
        (1 << 39, false, true),
        (1 << 38, false, true),
        (0x7fff_ffff_f000, false, true),
        (1 << 47, false, false),
        (0xffff_8000_0000_0000, false, true),
        (0xffff_7fff_ffff_f000, false, false),
        (0xffff_ffc0_0000_0000, true, true),
        (0x1_0000_0000_0000, false, false),
        (1 << 63, false, false),
    ] {
        for (root, ok) in [(satp(ROOT), in_39), (satp48(TOP), in_48)] {
            for (op, cause) in [(LOAD, 13), (STORE, 15), (JUMP, 12)] {
                let mut world = World::new(|a| {
                    a.op(op);
                });
                world.paged(Supervisor).set_csr("satp", root);
                // Everything is mapped: only the address can be at fault.
                for n in (0..512).filter(|n| !(1..3).contains(n)) {
                    world.word(slot(ROOT, n), pte(0, DATA_PAGE | X));
                }
                for n in 0..512 {
                    world.word(slot(TOP, n), pte(0, DATA_PAGE | X));
                }
                world.word(slot(TOP, 0), pte(ROOT, V));
                world.set_x(10, va);
                world.check(2, |after| {
                    let got = after.csr("mcause");
                    if ok {
                        // Physical address 0 and such: nothing is there.
                        assert!([1, 5, 7].contains(&got), "{va:#x} {got}");
                    } else {
                        assert_eq!((got, after.csr("mtval")), (cause, va));
                    }
                });
            }
        }
    }
}

const LOAD: u32 = 0x0005_3083; // ld x1, 0(x10)
const STORE: u32 = 0x0015_3023; // sd x1, 0(x10)
const JUMP: u32 = 0x0005_0067; // jr x10

#[test]
fn a_changed_entry_at_each_level_is_seen_by_the_next_access() {
    for (at, entry) in [
        (LEAF, pte(data_page(1), DATA_PAGE)),
        (MID, pte(LEAF2, V)),
        (slot(ROOT, 1), pte(MID + 0x6000, V)),
        (slot(TOP, 0), pte(HIGH, V)),
    ] {
        for dma in [false, true] {
            let mut world = world48(|a| {
                a.ops(&[ld(1, 10, 0), sd(11, 12, 0), ld(2, 10, 0), sd(13, 10, 8)]);
            });
            world.map(0, data_page(0), DATA_PAGE);
            world.word(LEAF2, pte(data_page(1), DATA_PAGE));
            world.word(MID + 0x6000, pte(LEAF2, V));
            world.word(slot(HIGH, 1), pte(MID + 0x6000, V));
            world.word(slot(HIGH, 2), pte(RAM_BASE, DATA_PAGE | X));
            world.set_x(10, page(0)).set_x(11, entry).set_x(13, 0x55);
            world.set_x(12, if dma { DATA + 0x8000 } else { at });
            if dma {
                let bytes = entry.to_le_bytes().to_vec();
                world.events.push((2, Event::Store(at, bytes)));
            }
            world.check(5, |after| {
                assert_eq!(after.csr("mcause"), 0, "{at:#x}");
                assert_eq!((after.x(1), after.x(2)), (0x100, 0x101), "{at:#x}");
                assert_eq!(after.word(data_page(1) + 8), 0x55);
            });
        }
    }
}

/// The same table is the root of Sv39 and a lower one of Sv48, where its upper
/// half maps other addresses: a change must reach both.
#[test]
fn one_table_in_both_modes() {
    let negative = 0xffff_ffc0_0000_0000u64; // Entry 256 as the root of Sv39.
    let positive = 0x40_0000_0000u64; // The same entry under Sv48.
    let in_data = data_page(0) - RAM_BASE;
    let mut world = World::new(|a| {
        for _ in 0..2 {
            a.ops(&[csrw(SATP, 20), ld(5, 10, 0), csrw(SATP, 21), ld(6, 11, 0)]);
            a.ops(&[add(7, 7, 5), add(8, 8, 6), sd(12, 13, 0)]);
        }
        // 48 → 39 → 48 with the new entry.
        a.ops(&[ld(14, 11, 0), csrw(SATP, 20), ld(15, 10, 0)]);
    });
    world.paged(Supervisor);
    world.word(slot(TOP, 0), pte(ROOT, V));
    world.word(slot(ROOT, 256), pte(RAM_BASE, DATA_PAGE));
    world.set_x(20, satp(ROOT)).set_x(21, satp48(TOP));
    world
        .set_x(10, negative + in_data)
        .set_x(11, positive + in_data);
    // Afterwards both see nothing there.
    world.set_x(12, 0).set_x(13, slot(ROOT, 256));
    world.check(9, |after| {
        assert_eq!([after.x(7), after.x(8)], [0x100, 0x100]);
        assert_eq!(
            (after.csr("mcause"), after.csr("mtval")),
            (13, negative + in_data)
        );
    });
    // Or another frame, through a table.
    world
        .word(HIGH, pte(LEAF2, V))
        .word(LEAF2, pte(data_page(5), DATA_PAGE));
    world.set_x(12, pte(HIGH, V));
    world.set_x(10, negative).set_x(11, positive);
    world.check(17, |after| {
        assert_eq!(after.csr("mcause"), 0);
        assert_eq!([after.x(14), after.x(15)], [0x105, 0x105]);
    });
}

#[test]
fn tables_of_sv48_that_take_many_stores_are_still_seen() {
    // 100 stores beside the entry in use, then one to it, at each level.
    for (at, entry) in [
        (LEAF, pte(data_page(1), DATA_PAGE)),
        (MID, pte(LEAF2, V)),
        (slot(ROOT, 1), pte(MID + 0x6000, V)),
        (slot(TOP, 0), pte(HIGH, V)),
    ] {
        let mut world = world48(|a| {
            a.op(ld(1, 10, 0));
            for _ in 0..100 {
                a.op(sd(0, 14, 0));
            }
            a.ops(&[ld(3, 10, 0), sd(11, 12, 0), ld(2, 10, 0)]);
        });
        world.map(0, data_page(0), DATA_PAGE);
        world.word(LEAF2, pte(data_page(1), DATA_PAGE));
        world.word(MID + 0x6000, pte(LEAF2, V));
        world.word(slot(HIGH, 1), pte(MID + 0x6000, V));
        world.word(slot(HIGH, 2), pte(RAM_BASE, DATA_PAGE | X));
        world.set_x(10, page(0)).set_x(11, entry).set_x(12, at);
        world.set_x(14, (at & !0xfff) + 0x800);
        world.check(104, |after| {
            assert_eq!(after.csr("mcause"), 0, "{at:#x}");
            assert_eq!([1, 3, 2].map(|n| after.x(n)), [0x100, 0x100, 0x101]);
        });
    }
}

#[test]
fn the_upper_half_of_a_root_that_takes_many_stores_is_still_seen() {
    for (root, start) in [
        (satp(ROOT), 0xffff_ffff_c000_0000u64),
        (satp48(TOP), 0xffff_ff80_0000_0000),
    ] {
        let table = (root & 0xfff_ffff_ffff) << 12;
        let mut world = World::new(|a| {
            // M stores by physical address, so that no walk reads the root between.
            a.ops(&[ld(1, 10, 0), csrrc(0, 0x300, 9)]);
            for _ in 0..100 {
                a.op(sd(0, 14, 0));
            }
            a.ops(&[sd(11, 12, 0), csrrs(0, 0x300, 9), ld(2, 10, 0)]);
        });
        world.paged(Machine).set_csr("satp", root);
        world.set_csr("mstatus", MPRV | 1 << 11).set_x(9, MPRV);
        world.word(slot(TOP, 0), pte(ROOT, V));
        // The entry maps RAM or, by a table, another page at the same address.
        let in_data = data_page(0) - RAM_BASE;
        let superpage = if table == ROOT { RAM_BASE } else { 0 };
        world.word(slot(table, 511), pte(superpage, DATA_PAGE));
        let at = start + in_data + if table == ROOT { 0 } else { RAM_BASE };
        world.set_x(10, at).set_x(11, 0).set_x(12, slot(table, 511));
        world.set_x(14, slot(table, 400));
        world.check(105, |after| {
            assert_eq!(after.x(1), 0x100, "{root:#x}");
            assert_eq!((after.csr("mcause"), after.csr("mtval")), (13, at));
        });
    }
}

#[test]
fn supported_modes_of_satp() {
    let value = |mode: u64| mode << 60 | 0xabcd << 44 | 0xfff_ffff_1234;
    for mode in 0..16 {
        let mut world = World::new(|a| {
            a.ops(&[csrw(SATP, 5), csrw(SATP, 6), csrr(7, SATP)]);
        });
        world.set_x(5, value(8) ^ 1).set_x(6, value(mode));
        world.check(3, |after| {
            let want = match mode {
                0 => 0,
                8 | 9 => value(mode),
                _ => value(8) ^ 1,
            };
            assert_eq!(after.x(7), want, "{mode}");
        });
    }
}

/// The entry of a 64 KiB page at `pa`.
fn napot(pa: u64, flags: u64) -> u64 {
    N | pte(pa | 0x8000, flags)
}

#[test]
fn sixteen_entries_map_sixteen_pages() {
    for satp48 in [false, true] {
        let mut world = World::new(|a| {
            for n in 0..16 {
                a.ops(&[load(3, 12, 10, 0), add(13, 13, 12), sd(11, 10, 8)]);
                a.op(add(10, 10, 14)).op(addi(11, 11, n - n + 1));
            }
        });
        world.paged(Supervisor);
        if satp48 {
            world.set_csr("satp", self::satp48(TOP));
            world.word(slot(TOP, 0), pte(ROOT, V));
        }
        for n in 0..16 {
            world.map(16 + n, 0, 0);
            world.word(slot(LEAF, 16 + n), napot(DATA, DATA_PAGE));
            world.word(data_page(n), 0x100 + n);
        }
        world.set_x(10, page(16)).set_x(11, 1).set_x(14, 4096);
        world.check(80, |after| {
            assert_eq!(after.csr("mcause"), 0);
            assert_eq!(after.x(13), (0x100..0x110).sum::<u64>());
            for n in 0..16 {
                assert_eq!(after.word(data_page(n) + 8), n + 1);
            }
        });
    }
}

#[test]
fn each_entry_of_a_64_kib_page_stands_for_itself() {
    // One entry is changed: its 4 KiB follow at once, the others stay.
    let mut world = World::new(|a| {
        a.ops(&[ld(1, 10, 0), ld(2, 11, 0), sd(12, 13, 0)]);
        a.ops(&[ld(3, 10, 0), ld(4, 11, 0)]);
    });
    world.paged(Supervisor);
    for n in 16..32 {
        world.word(slot(LEAF, n), napot(DATA, V | R | W));
    }
    world.set_x(10, page(17)).set_x(11, page(18));
    world
        .set_x(12, pte(data_page(5), DATA_PAGE))
        .set_x(13, slot(LEAF, 18));
    world.check(5, |after| {
        assert_eq!(
            [1, 2, 3, 4].map(|n| after.x(n)),
            [0x101, 0x102, 0x101, 0x105]
        );
        // A was set where the walk was, and nowhere else.
        assert_eq!(after.word(slot(LEAF, 17)), napot(DATA, V | R | W | A));
        assert_eq!(after.word(slot(LEAF, 16)), napot(DATA, V | R | W));
    });
    // Without Svadu a clear bit faults.
    world.set_csr("menvcfg", 0);
    world.check(1, |after| {
        assert_eq!((after.csr("mcause"), after.csr("mtval")), (13, page(17)));
    });
    world.set_csr("menvcfg", ADUE);
    // The whole range by another frame through the table above.
    world.word(slot(LEAF2, 17), pte(data_page(6), DATA_PAGE));
    world.word(slot(LEAF2, 18), pte(data_page(7), DATA_PAGE));
    world.set_x(12, pte(LEAF2, V)).set_x(13, MID);
    world.check(5, |after| {
        assert_eq!(
            [1, 2, 3, 4].map(|n| after.x(n)),
            [0x101, 0x102, 0x106, 0x107]
        );
    });
}

#[test]
fn other_encodings_are_reserved() {
    let leaf = pte(data_page(0), DATA_PAGE);
    let size = |low: u64| N | (leaf & !(15 << 10)) | low << 10;
    for (at, entry, cause) in [
        (LEAF, size(0), 13),
        (LEAF, size(1), 13),
        (LEAF, size(4), 13),
        (LEAF, size(8), 0),
        (LEAF, size(9), 13),
        (LEAF, size(12), 13),
        // Svpbmt isn't there, with N or without; bits 60:54.
        (LEAF, size(8) | 1 << 61, 13),
        (LEAF, leaf | 1 << 62, 13),
        (LEAF, size(8) | 1 << 54, 13),
        (LEAF, leaf | 1 << 59, 13),
        // Not in superpages and not in pointers.
        (MID, N | pte(RAM_BASE, DATA_PAGE), 13),
        (MID, N | pte(RAM_BASE | 0x8000, DATA_PAGE), 13),
        (MID, N | pte(LEAF, V), 13),
        (slot(ROOT, 1), N | pte(MID, V), 13),
    ] {
        let mut world = World::new(|a| {
            a.op(ld(1, 10, 0));
        });
        world.paged(Supervisor).map(0, data_page(0), DATA_PAGE);
        world.word(at, entry).set_x(10, page(0));
        world.check(2, |after| {
            assert_eq!(after.csr("mcause"), cause, "{entry:#x} at {at:#x}");
        });
    }
}
