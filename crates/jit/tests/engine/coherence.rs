//! Translation always sees the page tables as they are: no fence is needed
//! anywhere, whoever changes an entry and wherever it lies.

use crate::asm::*;
use crate::tables::*;
use crate::world::*;
use twinvm_cpu::Mode;
use twinvm_mem::RAM_BASE;

/// Loads from `va`, stores `entry` to `slot`, loads again: x1 and x2.
fn change(world: &mut World, va: u64, slot: u64, entry: u64) {
    world.code(CODE, |a| {
        a.ops(&[ld(1, 10, 0), sd(11, 12, 0), ld(2, 10, 0), sd(13, 10, 8)]);
    });
    world.set_x(10, va).set_x(11, entry).set_x(12, slot);
    world.set_x(13, 0x55);
}

#[test]
fn a_changed_entry_is_seen_by_the_next_access() {
    let big = RAM_BASE + 0x20_0000 - 0x20_0000;
    // (what, slot, new entry, where the page is then)
    for (what, slot, entry, want) in [
        (
            "leaf",
            slot(LEAF, 0),
            pte(data_page(1), DATA_PAGE),
            data_page(1),
        ),
        ("table", slot(MID, 0), pte(LEAF2, V), data_page(2)),
        ("root", slot(ROOT, 1), pte(MID + 0x4000, V), data_page(3)),
        ("superpage", slot(MID, 0), pte(big, DATA_PAGE), big),
        (
            "gigapage",
            slot(ROOT, 1),
            pte(RAM_BASE, DATA_PAGE),
            RAM_BASE,
        ),
    ] {
        let mut world = World::new(|_| {});
        world.paged(Mode::Supervisor);
        world.map(0, data_page(0), DATA_PAGE);
        world.word(LEAF2, pte(data_page(2), DATA_PAGE));
        world.word(MID + 0x4000, pte(MID + 0x5000, V));
        world.word(MID + 0x5000, pte(data_page(3), DATA_PAGE));
        change(&mut world, page(0), slot, entry);
        world.check(5, |after| {
            assert_eq!(after.csr("mcause"), 0, "{what}");
            assert_eq!(after.x(1), 0x100, "{what}");
            let low = after.word(want);
            assert_eq!(after.x(2), low, "{what}");
            assert_eq!(after.word(want + 8), 0x55, "{what}");
            assert_eq!(after.word(data_page(0) + 8), 0, "{what}");
        });
        // The same from outside.
        let mut dma = world.clone();
        dma.set_x(12, DATA + 0x8000);
        dma.events
            .push((2, Event::Store(slot, entry.to_le_bytes().to_vec())));
        dma.check(5, |after| {
            assert_eq!(after.x(2), after.word(want), "{what} by DMA");
            assert_eq!(after.word(want + 8), 0x55, "{what} by DMA");
        });
    }
}

#[test]
fn an_entry_made_invalid_faults_at_once() {
    for slot in [slot(LEAF, 0), slot(MID, 0), slot(ROOT, 1)] {
        for bytes in [vec![0u8], vec![0; 8]] {
            let mut world = World::new(|_| {});
            world.paged(Mode::Supervisor);
            world.map(0, data_page(0), DATA_PAGE);
            change(&mut world, page(0), slot, 0);
            if bytes.len() == 1 {
                world.set_x(12, DATA + 0x8000);
                world.events.push((2, Event::Store(slot, bytes)));
            }
            world.check(5, |after| {
                assert_eq!(after.csr("mcause"), 13);
                assert_eq!(after.csr("mtval"), page(0));
                assert_eq!(after.csr("mepc"), CODE + 8);
            });
        }
    }
}

#[test]
fn accessed_and_dirty_bits_cleared_are_set_again() {
    let mut world = World::new(|a| {
        a.ops(&[
            sd(13, 10, 8),
            ld(1, 12, 0),
            sd(11, 12, 0),
            ld(2, 10, 0),
            ld(3, 12, 0),
            sd(13, 10, 8),
            ld(4, 12, 0),
            // Clear D only, by a byte.
            store(0, 14, 12, 0),
            ld(5, 10, 0),
            ld(6, 12, 0),
            sw(13, 10, 16),
            ld(7, 12, 0),
        ]);
    });
    world.paged(Mode::Supervisor);
    world.map(0, data_page(0), V | R | W);
    world
        .set_x(10, page(0))
        .set_x(11, pte(data_page(0), V | R | W));
    world.set_x(12, slot(LEAF, 0)).set_x(13, 0x55);
    world.set_x(14, V | R | W | A);
    world.check(13, |after| {
        let entry = |bits| pte(data_page(0), V | R | W | bits);
        assert_eq!(after.x(1), entry(A | D));
        assert_eq!(after.x(2), 0x100);
        assert_eq!(after.x(3), entry(A));
        assert_eq!(after.x(4), entry(A | D));
        assert_eq!(after.x(6), entry(A));
        assert_eq!(after.x(7), entry(A | D));
    });
}

#[test]
fn a_table_page_mapped_at_two_bases() {
    // MID[0] and MID[1] name the same table: both views change at once.
    let mut world = World::new(|a| {
        a.ops(&[
            ld(1, 10, 0),
            ld(2, 15, 0),
            sd(11, 12, 0),
            ld(3, 10, 0),
            ld(4, 15, 0),
        ]);
    });
    world.paged(Mode::Supervisor);
    world.map(0, data_page(0), DATA_PAGE);
    world.word(slot(MID, 1), pte(LEAF, V));
    world.set_x(10, page(0)).set_x(15, page(0) + 0x20_0000);
    world.set_x(11, pte(data_page(1), DATA_PAGE));
    world.set_x(12, slot(LEAF, 0));
    world.check(6, |after| {
        let got = [1, 2, 3, 4].map(|n| after.x(n));
        assert_eq!(got, [0x100, 0x100, 0x101, 0x101]);
    });
}

#[test]
fn a_page_of_tables_seen_through_itself() {
    // LEAF maps itself as data; the guest edits it through that mapping.
    let mut world = World::new(|a| {
        a.ops(&[
            ld(1, 10, 0),
            sd(11, 14, 0),
            ld(2, 10, 0),
            // Remap the window itself, then write through it.
            sd(15, 14, 8),
            sd(16, 14, 16),
            ld(3, 10, 0),
        ]);
    });
    world.paged(Mode::Supervisor);
    world.map(0, data_page(0), DATA_PAGE);
    world.map(1, LEAF, DATA_PAGE);
    world.set_x(10, page(0)).set_x(14, page(1));
    world.set_x(11, pte(data_page(1), DATA_PAGE));
    world
        .set_x(15, pte(data_page(2), DATA_PAGE))
        .set_x(16, 0x77);
    world.check(7, |after| {
        assert_eq!([after.x(1), after.x(2), after.x(3)], [0x100, 0x101, 0x101]);
        assert_eq!(after.word(data_page(2) + 16), 0x77);
        assert_eq!(after.word(slot(LEAF, 2)), 0);
    });
}

/// Calls V page 0, stores 0 to `stores` invalid entries, then lets page 0 be
/// another page and calls again.
fn recycled(stores: u64, last: (u64, u64)) -> World {
    let mut world = World::new(|a| {
        a.ops(&[jalr(1, 10, 0), add(6, 5, 0)]);
        let start = a.here();
        a.ops(&[sd(0, 12, 0), addi(12, 12, 8)]);
        let back = start.wrapping_sub(a.here()) as i64 as i32;
        a.op(branch(1, 12, 13, back));
        a.ops(&[sd(15, 14, 0), jalr(1, 10, 0)]);
    });
    world.paged(Mode::Supervisor);
    for n in 0..2 {
        world.code(data_page(n), |a| {
            a.ops(&[addi(5, 0, 1 + n as i32), jalr(0, 1, 0)]);
        });
    }
    world.map(0, data_page(0), CODE_PAGE);
    world.word(LEAF2, pte(data_page(1), CODE_PAGE));
    world.set_x(10, page(0));
    world.set_x(12, slot(LEAF, 100));
    world.set_x(13, slot(LEAF, 100 + stores));
    world.set_x(14, last.0).set_x(15, last.1);
    world
}

#[test]
fn a_table_page_that_takes_many_stores_stays_coherent_for_fetches() {
    for stores in [1, 62, 63, 64, 65, 66, 100, 200] {
        for last in [
            (slot(LEAF, 0), pte(data_page(1), CODE_PAGE)),
            (slot(MID, 0), pte(LEAF2, V)),
        ] {
            let world = recycled(stores, last);
            world.check(3 * stores + 9, |after| {
                assert_eq!(after.csr("mcause"), 0);
                assert_eq!(after.x(6), 1);
                assert_eq!(after.x(5), 2, "after {stores} stores");
            });
        }
    }
}

#[test]
fn data_that_becomes_a_table_and_data_again() {
    let mut world = World::new(|a| {
        a.ops(&[
            // LEAF2 as data, with a fast write tag.
            sd(0, 12, 0),
            sd(0, 12, 8),
            sd(11, 12, 0),
            // In use as a table.
            sd(14, 13, 0),
            ld(1, 10, 0),
            sd(15, 12, 0),
            ld(2, 10, 0),
            // Taken out of use, written as data, and in use again.
            sd(16, 13, 0),
            sd(11, 12, 0),
            ld(3, 10, 0),
            sd(14, 13, 0),
            ld(4, 10, 0),
        ]);
    });
    world.paged(Mode::Supervisor);
    world.map(0, data_page(3), DATA_PAGE);
    world.set_x(10, page(0)).set_x(12, LEAF2).set_x(13, MID);
    world.set_x(14, pte(LEAF2, V)).set_x(16, pte(LEAF, V));
    world.set_x(11, pte(data_page(1), DATA_PAGE));
    world.set_x(15, pte(data_page(2), DATA_PAGE));
    world.check(13, |after| {
        let got = [1, 2, 3, 4].map(|n| after.x(n));
        assert_eq!(got, [0x101, 0x102, 0x103, 0x101]);
    });
}

#[test]
fn remapping_the_page_being_executed() {
    // Code at page(0) stores the entry that maps it elsewhere: the very next
    // instruction comes from the other page.
    for (slot, entry) in [
        (slot(LEAF, 0), pte(data_page(1), CODE_PAGE)),
        (slot(MID, 0), pte(LEAF2, V)),
        (slot(ROOT, 1), pte(MID + 0x4000, V)),
    ] {
        let mut world = World::new(|_| {});
        world.paged(Mode::Supervisor);
        for n in 0..2 {
            world.code(data_page(n), |a| {
                a.ops(&[addi(5, 5, 1), sd(11, 12, 0), addi(6, 0, n as i32 + 7)]);
            });
        }
        world.map(0, data_page(0), CODE_PAGE);
        world.word(LEAF2, pte(data_page(1), CODE_PAGE));
        world.word(MID + 0x4000, pte(LEAF2, V));
        world.hart.pc = page(0);
        world.set_x(11, entry).set_x(12, slot);
        world.check(4, |after| {
            assert_eq!(after.x(5), 1);
            assert_eq!(after.x(6), 8);
        });
    }
}

#[test]
fn permissions_taken_from_the_page_being_executed() {
    let mut world = World::new(|_| {});
    world.paged(Mode::Supervisor);
    world.code(data_page(0), |a| {
        a.ops(&[addi(5, 5, 1), sd(11, 12, 0), addi(6, 0, 7)]);
    });
    world.map(0, data_page(0), CODE_PAGE);
    world.hart.pc = page(0);
    world
        .set_x(11, pte(data_page(0), DATA_PAGE))
        .set_x(12, LEAF);
    world.check(4, |after| {
        assert_eq!(after.csr("mcause"), 12);
        assert_eq!(after.csr("mepc"), page(0) + 8);
        assert_eq!(after.x(6), 0);
    });
}

#[test]
fn address_spaces_that_share_tables() {
    // Two roots, one lower level; more spaces than the engine keeps apart.
    let roots = 24u64;
    let root = |n: u64| RAM_BASE + 0x6_0000 + (n << 12);
    let mut world = World::new(|a| {
        a.ops(&[
            csrrw(0, 0x180, 20),
            ld(1, 10, 0),
            add(2, 2, 1),
            addi(20, 20, 1),
            addi(21, 21, -1),
            branch(1, 21, 0, -20),
            // Through the last root: change the shared leaf, go back to the first.
            sd(11, 12, 0),
            csrrw(0, 0x180, 22),
            ld(3, 10, 0),
        ]);
    });
    world.paged(Mode::Supervisor);
    world.map(0, data_page(0), DATA_PAGE);
    for n in 0..roots {
        world.word(slot(root(n), 2), pte(RAM_BASE, DATA_PAGE | X));
        world.word(slot(root(n), 1), pte(MID, V));
    }
    world.set_x(20, satp(root(0))).set_x(22, satp(root(0)));
    world.set_x(21, roots).set_x(10, page(0)).set_x(12, LEAF);
    world.set_x(11, pte(data_page(1), DATA_PAGE));
    world.check(6 * roots + 4, |after| {
        assert_eq!(after.x(2), 0x100 * roots);
        assert_eq!(after.x(3), 0x101);
    });
}

#[test]
fn code_found_through_an_evicted_translation_is_remapped() {
    // Calls 1100 pages of one code page, more than the fetch translations kept,
    // then remaps the first and calls it again.
    let pages = 1100u64;
    let mut world = World::new(|a| {
        a.ops(&[
            jalr(1, 10, 0),
            add(10, 10, 22),
            addi(21, 21, -1),
            branch(1, 21, 0, -12),
            sd(11, 12, 0),
            jalr(1, 23, 0),
        ]);
    });
    world.paged(Mode::Supervisor);
    for n in 0..2 {
        world.code(data_page(n), |a| {
            a.ops(&[addi(5, 5, 1 + 1000 * n as i32), jalr(0, 1, 0)]);
        });
    }
    for n in 0..pages {
        // The tables of the lowest level lie one after the other.
        world.word(slot(MID, n / 512), pte(LEAF + ((n / 512) << 12), V));
        world.map(n, data_page(0), CODE_PAGE);
    }
    world.set_x(10, page(0)).set_x(23, page(0)).set_x(22, 4096);
    world.set_x(21, pages).set_x(12, LEAF);
    world.set_x(11, pte(data_page(1), CODE_PAGE));
    world.check(6 * pages + 5, |after| {
        assert_eq!(after.x(5), pages + 1001);
    });
}

/// Calls `x10` until `x21` is 0, which the function decrements; `step` is added to x5
/// after each call.
fn calls(step: i32) -> [u32; 4] {
    [
        jalr(1, 10, 0),
        addi(5, 5, step),
        branch(1, 21, 0, -8),
        addi(7, 0, 1),
    ]
}

/// The page of the function.
const CALLED: u64 = 2;

/// The function: stores x11 to where x12 points when x21 has become 0.
fn called(store: u32) -> [u32; 4] {
    [addi(21, 21, -1), branch(1, 21, 0, 8), store, jalr(0, 1, 0)]
}

#[test]
fn the_page_that_a_call_returns_to_is_remapped() {
    let calls_made = 40;
    for (place, entry) in [
        (slot(LEAF, 0), pte(data_page(1), CODE_PAGE)),
        (slot(MID, 0), pte(LEAF2, V)),
        (slot(ROOT, 1), pte(MID + 0x4000, V)),
    ] {
        let mut world = World::new(|_| {});
        world.paged(Mode::Supervisor);
        world.code(data_page(0), |a| {
            a.ops(&calls(1));
        });
        world.code(data_page(1), |a| {
            a.ops(&calls(1001));
        });
        world.code(data_page(CALLED), |a| {
            a.ops(&called(sd(11, 12, 0)));
        });
        world.map(0, data_page(0), CODE_PAGE);
        world.word(LEAF2, pte(data_page(1), CODE_PAGE));
        world.word(MID + 0x4000, pte(LEAF2, V));
        for leaf in [LEAF, LEAF2] {
            world.word(slot(leaf, CALLED), pte(data_page(CALLED), CODE_PAGE));
        }
        world.hart.pc = page(0);
        world.set_x(10, page(CALLED)).set_x(21, calls_made);
        world.set_x(11, entry).set_x(12, place);
        world.check(6 * calls_made + 2, |after| {
            assert_eq!(after.x(5), calls_made + 1000);
            assert_eq!(after.x(7), 1);
        });
    }
}

#[test]
fn the_code_that_a_call_returns_to_is_rewritten() {
    let calls_made = 40;
    let mut world = World::new(|a| {
        a.ops(&calls(1));
    });
    let function = CODE + 0x3000;
    world.code(function, |a| {
        a.ops(&called(sw(11, 12, 0)));
    });
    world.set_x(10, function).set_x(21, calls_made);
    world.set_x(11, u64::from(addi(5, 5, 1001)));
    world.set_x(12, CODE + 4);
    world.check(6 * calls_made + 2, |after| {
        assert_eq!(after.x(5), calls_made + 1000);
        assert_eq!(after.x(7), 1);
    });
}

#[test]
fn the_walk_rewrites_the_instruction_that_it_fetches() {
    // The entry (x8 <- 2 as an instruction) maps the page it lies in. Fetching
    // through it sets A, which makes the instruction x8 <- 18.
    let table = RAM_BASE + 0x1_1000;
    let entry = pte(table, V | X);
    assert_eq!(entry as u16, 0x4409);
    let mut world = World::new(|a| {
        a.op(jalr(0, 20, 0));
    });
    world.paged(Mode::Supervisor);
    world.word(slot(MID, 0), pte(table, V));
    world.word(slot(table, 16), entry);
    world.code(M_HANDLER, |a| {
        a.ops(&[
            slli(9, 9, 8),
            add(9, 9, 8),
            csrw(0x341, 21),
            add(21, 22, 0),
            MRET,
        ]);
    });
    // The rest of the entry traps: FS is off.
    world.set_csr("mstatus", world.csr("mstatus") & !(3 << 13));
    world.set_x(20, slot(table, 16));
    world.set_x(21, page(16) + 8 * 16).set_x(22, CODE + 4);
    world.check(16, |after| assert_eq!(after.x(9), 0x212));
}

#[test]
fn a_table_page_read_at_two_levels() {
    // MID is the middle level and, through its entry 1, a lowest level too: entry
    // 5 is a superpage and a page. Storing to it drops both.
    for first in [1, 2] {
        let mut world = World::new(|a| {
            a.ops(&[ld(1, 9 + first, 0), ld(1, 12 - first, 0)]);
            a.ops(&[sd(0, 12, 0), ld(2, 9 + first, 0), ld(3, 12 - first, 0)]);
        });
        world.code(M_HANDLER, |a| {
            a.ops(&[
                csrr(5, 0x341),
                addi(5, 5, 4),
                csrw(0x341, 5),
                addi(6, 6, 1),
                MRET,
            ]);
        });
        world.paged(Mode::Supervisor);
        world.word(slot(MID, 1), pte(MID, V));
        world.word(slot(MID, 5), pte(RAM_BASE, DATA_PAGE));
        world.set_x(10, VIRTUAL + (5 << 21) + 0x3000);
        world.set_x(11, VIRTUAL + (1 << 21) + 0x5000);
        world.set_x(12, slot(MID, 5));
        world.check(15, |after| assert_eq!(after.x(6), 2));
    }
}
