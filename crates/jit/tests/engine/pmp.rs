//! Physical memory protection: who may do what where, to the byte.

use crate::asm::*;
use crate::tables::*;
use crate::world::*;
use twinvm_cpu::Mode::{self, Machine, Supervisor, User};
use twinvm_mem::RAM_BASE;

const MPRV: u64 = 1 << 17;
const TOR: u64 = 1 << 3;
const NA4: u64 = 2 << 3;
const NAPOT: u64 = 3 << 3;
const LOCK: u64 = 1 << 7;
const OPEN: u64 = NAPOT | 7;
/// Holds the whole address space.
const ALL: u64 = !0 >> 10;

const PMPCFG0: u32 = 0x3a0;
const PMPADDR0: u32 = 0x3b0;

impl World {
    /// Entry n of the PMP is the n-th (configuration, pmpaddr); the rest is off.
    fn pmp(&mut self, entries: &[(u64, u64)]) -> &mut Self {
        let mut cfg = [0; 2];
        for n in 0..16 {
            let (entry, addr) = entries.get(n).copied().unwrap_or((0, 0));
            cfg[n / 8] |= entry << (8 * (n % 8));
            self.set_csr(&format!("pmpaddr{n}"), addr);
        }
        self.set_csr("pmpcfg0", cfg[0]).set_csr("pmpcfg2", cfg[1])
    }
}

/// pmpaddr of a naturally aligned region of `len` bytes at `pa`.
fn napot(pa: u64, len: u64) -> u64 {
    pa >> 2 | (len / 8 - 1)
}

/// The cause and xtval after `op` (x10 = `at`) and a loop behind it.
fn outcome(world: &mut World, op: u32, at: u64) -> (u64, u64) {
    world.code(CODE, |a| {
        a.op(op);
    });
    world.set_x(10, at);
    let mut got = (0, 0);
    world.check(2, |after| got = (after.csr("mcause"), after.csr("mtval")));
    got
}

const LOAD: u32 = 0x0005_3083; // ld x1, 0(x10)
const STORE: u32 = 0x0015_3023; // sd x1, 0(x10)
const JUMP: u32 = 0x0005_0067; // jr x10
const FAULTS: [(u32, u64, u64); 3] = [(LOAD, 5, 1), (STORE, 7, 2), (JUMP, 1, 4)];

#[test]
fn registers_and_what_they_hold() {
    for (csr, ones) in [
        (0x3a0, 0x9f9f_9f9f_9f9f_9f9f),
        (0x3a2, 0x9f9f_9f9f_9f9f_9f9f),
        (0x3b0, ALL),
        (0x3bf, ALL),
    ] {
        let mut world = World::new(|a| {
            a.ops(&[csrw(csr, 0), csrr(7, csr), csrw(csr, 5), csrr(6, csr)]);
        });
        world.set_x(5, u64::MAX);
        // The last write may lock M out of its own next instruction.
        world.pmp(&[]);
        world.check(if csr < 0x3b0 { 3 } else { 4 }, |after| {
            let name = match csr {
                0x3a0 => "pmpcfg0",
                0x3a2 => "pmpcfg2",
                0x3b0 => "pmpaddr0",
                _ => "pmpaddr15",
            };
            assert_eq!(after.csr(name), ones);
            assert_eq!((after.x(7), after.hart.traps), (0, 0));
        });
    }
    // The halves of RV32, and entries beyond the 16th.
    for csr in [0x3a1, 0x3a3, 0x3a4, 0x3ae, 0x3c0, 0x3ef, 0x747, 0x757] {
        let world = World::new(|a| {
            a.op(csrr(5, csr));
        });
        world.check(1, |after| assert_eq!(after.csr("mcause"), 2, "{csr:#x}"));
    }
    // Not for S.
    let mut world = World::new(|a| {
        a.op(csrr(5, PMPCFG0));
    });
    world.mode(Supervisor);
    world.check(1, |after| assert_eq!(after.csr("mcause"), 2));
}

#[test]
fn write_without_read_is_no_right_and_locks_are_kept() {
    let mut world = World::new(|a| {
        // W alone is dropped, X stays; bits 5 and 6 don't exist.
        a.ops(&[csrw(PMPCFG0, 5), csrr(6, PMPCFG0)]);
        // Entry 3: locked TOR. Its own and the lower bound hold.
        a.ops(&[csrw(PMPCFG0, 7), csrw(PMPCFG0, 0), csrr(8, PMPCFG0)]);
        for n in 0..5 {
            a.ops(&[csrw(PMPADDR0 + n, 9), csrr(10 + n, PMPADDR0 + n)]);
        }
    });
    world.pmp(&[(0, 1), (0, 2), (0, 3), (0, 4), (0, 5)]);
    world.set_x(5, 0x66_62).set_x(7, 0x8f << 24 | 0x1f);
    world.set_x(9, 77);
    world.check(15, |after| {
        assert_eq!(after.x(6), 0x04_00);
        assert_eq!(after.x(8), 0x8f << 24);
        let addr = [10, 11, 12, 13, 14].map(|n| after.x(n));
        assert_eq!(addr, [77, 77, 3, 4, 77]);
    });
}

#[test]
fn rights_by_mode_lock_and_kind_of_region() {
    let page = data_page(2);
    // The same page in three ways.
    let regions = |cfg: u64| {
        [
            vec![(cfg | NAPOT, napot(page, 4096)), (OPEN, ALL)],
            vec![(0, page >> 2), (cfg | TOR, (page + 4096) >> 2), (OPEN, ALL)],
            // The first two words: an access of 8 bytes is in neither.
            vec![
                (cfg | NA4, page >> 2),
                (cfg | NAPOT, napot(page, 8)),
                (OPEN, ALL),
            ],
        ]
    };
    for rights in [0, 1, 3, 4, 5, 7] {
        for lock in [0, LOCK] {
            for (kind, region) in regions(rights | lock).iter().enumerate() {
                for mode in [User, Supervisor, Machine] {
                    for (op, cause, need) in FAULTS {
                        let mut world = World::new(|_| {});
                        world.mode(mode).pmp(region);
                        world.word(page, u64::from(SPIN));
                        let got = outcome(&mut world, op, page);
                        let free = mode == Machine && lock == 0;
                        // A jump takes 4 bytes, in parcels of 2.
                        let partly = kind == 2 && op != JUMP;
                        let want = if !partly && (free || rights & need != 0) {
                            (0, 0)
                        } else {
                            (cause, page)
                        };
                        assert_eq!(got, want, "{region:x?} {mode:?} {op:#x}");
                    }
                }
            }
        }
    }
}

#[test]
fn without_entries_only_machine_mode_gets_anywhere() {
    for mode in [User, Supervisor, Machine] {
        let mut world = World::new(|a| {
            a.op(NOP);
        });
        world.mode(mode).pmp(&[]);
        world.check(1, |after| {
            let want = if mode == Machine { 0 } else { 1 };
            assert_eq!(after.csr("mcause"), want);
            assert_eq!(after.csr("mtval"), if want == 0 { 0 } else { CODE });
        });
    }
}

#[test]
fn the_first_entry_that_matches_decides() {
    let word = data_page(1) + 0x40;
    for (entries, ok) in [
        ([(NAPOT | 1, napot(word, 64)), (NAPOT, ALL)], true),
        ([(NAPOT, ALL), (NAPOT | 1, napot(word, 64))], false),
        ([(NAPOT, napot(word, 8)), (OPEN, ALL)], false),
        ([(NAPOT, napot(word + 8, 8)), (OPEN, ALL)], true),
        // An empty TOR region matches nothing.
        ([(TOR, 0), (OPEN, ALL)], true),
    ] {
        let mut world = World::new(|_| {});
        world.mode(Machine).pmp(&entries);
        world.set_csr("mstatus", MPRV | 1 << 11);
        let got = outcome(&mut world, LOAD, word);
        assert_eq!(got, if ok { (0, 0) } else { (5, word) }, "{entries:x?}");
    }
}

/// Each size at each address around a bound of 4 bytes.
#[test]
fn an_access_on_both_sides_of_a_bound_fails() {
    let bound = data_page(3) + 0x104;
    for below in [0, 3, 7] {
        for above in [0, 7] {
            for size in 0..4 {
                for back in 1..10u64 {
                    let at = bound + 8 - back - 4;
                    for is_store in [false, true] {
                        let mut world = World::new(|_| {});
                        world.mode(Supervisor);
                        // Below by one entry, above by another.
                        world.pmp(&[
                            (OPEN & !7 | 7, napot(CODE, 0x1_0000)),
                            (TOR | below, bound >> 2),
                            (NAPOT | above, ALL),
                        ]);
                        let op = if is_store {
                            store(size, 1, 10, 0)
                        } else {
                            load(size, 1, 10, 0)
                        };
                        let got = outcome(&mut world, op, at);
                        let end = at + (1 << size);
                        let right = if is_store { 2 } else { 1 };
                        let ok = match (end <= bound, at >= bound) {
                            (true, _) => below & right != 0,
                            (_, true) => above & right != 0,
                            // Rights on both sides don't help.
                            _ => false,
                        };
                        let cause = if is_store { 7 } else { 5 };
                        let want = if ok { (0, 0) } else { (cause, at) };
                        assert_eq!(got, want, "{below} {above} {size} {at:#x} {is_store}");
                    }
                }
            }
        }
    }
}

#[test]
fn an_access_on_two_pages_names_the_part_that_fails() {
    let second = data_page(4);
    for back in 1..8 {
        for (closed, tval) in [(second - 4096, second - back), (second, second)] {
            for (op, cause, _) in &FAULTS[..2] {
                let mut world = World::new(|_| {});
                world.mode(Supervisor);
                world.pmp(&[(NAPOT, napot(closed, 4096)), (OPEN, ALL)]);
                let got = outcome(&mut world, *op, second - back);
                assert_eq!(got, (*cause, tval));
                world.check(2, |after| assert_eq!(after.word(second), 0));
            }
        }
    }
}

#[test]
fn a_page_with_a_hole_is_never_taken_for_open() {
    // Loads and stores beside the hole, then into it.
    let page = data_page(2);
    for hole in [0x200, 0xffc] {
        for (op, cause, _) in &FAULTS[..2] {
            let mut world = World::new(|a| {
                for n in 0..4 {
                    a.ops(&[ld(5, 10, 8 * n), sd(6, 10, 8 * n)]);
                }
                a.ops(&[ld(7, 10, 8), addi(10, 11, 0), *op]);
            });
            world.mode(Supervisor);
            world.pmp(&[(NA4, (page + hole) >> 2), (OPEN, ALL)]);
            world.set_x(10, page).set_x(6, 0x66);
            world.set_x(11, page + hole - 4);
            world.check(11, |after| {
                assert_eq!(after.x(7), 0x66);
                assert_eq!(after.csr("mcause"), *cause);
                assert_eq!(after.csr("mtval"), page + hole - 4);
            });
        }
    }
}

#[test]
fn instructions_are_fetched_in_parcels() {
    // A region's bound in the middle of a 4-byte instruction at CODE + 10.
    for (below, above, want) in [
        (4, 4, (0, 0)),
        (4, 3, (1, CODE + 12)),
        (3, 4, (1, CODE)),
        (5, 0, (1, CODE + 12)),
    ] {
        let mut world = World::new(|a| {
            a.op(addi(5, 5, 1)).op(addi(5, 5, 1)).c(C_NOP);
            a.op(addi(5, 5, 1)).op(addi(5, 5, 1));
        });
        world.mode(Supervisor);
        world.pmp(&[(TOR | below, (CODE + 12) >> 2), (NAPOT | above, ALL)]);
        world.check(5, |after| {
            let got = (after.csr("mcause"), after.csr("mtval"));
            assert_eq!(got, want);
            if want.0 == 0 {
                assert_eq!(after.x(5), 4);
            } else if below & 4 != 0 {
                assert_eq!(after.csr("mepc"), CODE + 10);
                assert_eq!(after.x(5), 2);
            }
        });
    }
}

#[test]
fn loops_in_a_page_that_is_cut() {
    // 30 rounds in a page of which S may execute the first 64 bytes.
    let mut world = World::new(|a| {
        a.ops(&[addi(5, 5, 1), branch(4, 5, 6, -4), jal(0, 56)]);
        a.pad_to(CODE + 64).op(addi(7, 0, 1));
    });
    world.mode(Supervisor).set_x(6, 30);
    world.pmp(&[(NAPOT | 4, napot(CODE, 64)), (NAPOT | 3, ALL)]);
    world.check(62, |after| {
        assert_eq!((after.x(5), after.x(7)), (30, 0));
        assert_eq!((after.csr("mcause"), after.csr("mtval")), (1, CODE + 64));
    });
}

#[test]
fn the_walk_reads_and_writes_tables_as_a_supervisor() {
    // (rights to the table, accessed and dirty already, kind) -> what comes of it.
    for (table, level) in [(LEAF, 0), (MID, 1), (ROOT, 2)] {
        for rights in [0, 1, 3, 4] {
            for ready in [false, true] {
                for (op, access_fault, need) in FAULTS {
                    let flags = V | R | W | X | if ready { A | D } else { 0 };
                    let mut world = World::new(|_| {});
                    world.paged(Supervisor).map(0, data_page(0), flags);
                    world.word(data_page(0), u64::from(SPIN));
                    // The code's own translation is a leaf of the root.
                    if level == 2 {
                        world.mode(Machine).set_csr("mstatus", MPRV | 1 << 11);
                    }
                    world.pmp(&[(NAPOT | rights, napot(table, 4096)), (OPEN, ALL)]);
                    let physical = level == 2 && op == JUMP;
                    if physical {
                        continue;
                    }
                    let got = outcome(&mut world, op, page(0));
                    let writes = !ready && level == 0;
                    let ok = rights & 1 != 0 && (!writes || rights & 2 != 0);
                    let want = if ok { (0, 0) } else { (access_fault, page(0)) };
                    assert_eq!(got, want, "{level} {rights} {ready} {need}");
                    if !ok {
                        world.check(2, |after| {
                            assert_eq!(after.word(LEAF), pte(data_page(0), flags));
                        });
                    }
                }
            }
        }
    }
}

#[test]
fn the_page_behind_a_translation_is_checked_too() {
    for (op, cause, need) in FAULTS {
        for rights in [0, 1, 3, 4, 5] {
            let mut world = World::new(|_| {});
            world.paged(Supervisor);
            world.map(0, data_page(5), V | R | W | X | A | D);
            world.word(data_page(5), u64::from(SPIN));
            let region = napot(data_page(5), 4096);
            world.pmp(&[(NAPOT | rights, region), (OPEN, ALL)]);
            let got = outcome(&mut world, op, page(0));
            let ok = rights & need != 0;
            assert_eq!(got, if ok { (0, 0) } else { (cause, page(0)) });
        }
    }
}

#[test]
fn a_load_that_passes_opens_no_way_for_stores() {
    for paged in [false, true] {
        let mut world = World::new(|a| {
            a.ops(&[ld(5, 10, 0), ld(6, 10, 0), sd(7, 10, 0)]);
        });
        if paged {
            world.paged(Supervisor).map(0, data_page(5), DATA_PAGE);
        }
        let at = if paged { page(0) } else { data_page(5) };
        world.mode(Supervisor).set_x(10, at).set_x(7, 0x77);
        let region = napot(data_page(5), 4096);
        world.pmp(&[(NAPOT | 1, region), (OPEN, ALL)]);
        world.check(3, |after| {
            assert_eq!((after.csr("mcause"), after.csr("mtval")), (7, at));
            assert_ne!(after.word(data_page(5)), 0x77);
        });
    }
}

#[test]
fn machine_mode_accesses_as_mpp_says() {
    for (mpp, ok) in [(User, false), (Supervisor, false), (Machine, true)] {
        for mprv in [0, MPRV] {
            let mut world = World::new(|_| {});
            world.pmp(&[(NAPOT, napot(data_page(0), 4096)), (OPEN, ALL)]);
            world.set_csr("mstatus", mprv | (mpp as u64) << 11);
            let got = outcome(&mut world, LOAD, data_page(0));
            let want = if ok || mprv == 0 { 0 } else { 5 };
            assert_eq!(got.0, want, "{mpp:?} {mprv:#x}");
        }
    }
}

#[test]
fn a_write_holds_from_the_next_instruction_on() {
    // As S by MPRV: open, closed, open again; each load right after the write.
    let mut world = World::new(|a| {
        a.ops(&[ld(5, 10, 0), csrw(PMPCFG0, 0), ld(6, 10, 0)]);
    });
    world.code(M_HANDLER, |a| {
        a.ops(&[addi(9, 9, 1), csrw(PMPCFG0, 11), ld(7, 10, 0)]);
        a.ops(&[csrw(PMPADDR0, 12), ld(8, 10, 0)]);
    });
    let mprv = MPRV | 1 << 11;
    world.pmp(&[(OPEN, ALL)]).set_csr("mstatus", mprv);
    world.word(data_page(0), 0x77).set_x(10, data_page(0));
    world.set_x(11, OPEN).set_x(12, napot(data_page(0), 8));
    // The handler runs as MPP = M: every load of it passes.
    world.check(8, |after| {
        assert_eq!(
            [5, 6, 7, 8, 9].map(|n| after.x(n)),
            [0x77, 0, 0x77, 0x77, 1]
        );
        assert_eq!((after.csr("mcause"), after.csr("mtval")), (5, data_page(0)));
    });
    // M locks itself out of its own code.
    let mut world = World::new(|a| {
        a.ops(&[NOP, csrw(PMPCFG0, 5), addi(6, 0, 1)]);
    });
    world
        .pmp(&[(0, napot(CODE, 4096))])
        .set_x(5, LOCK | NAPOT | 3);
    world.check(3, |after| {
        assert_eq!((after.csr("mcause"), after.csr("mepc")), (1, CODE + 8));
        assert_eq!(after.x(6), 0);
    });
}

#[test]
fn more_configurations_than_are_kept() {
    // 200 different lower bounds; a load as S just above each, and one just below.
    let mut world = World::new(|a| {
        a.ops(&[csrw(PMPADDR0, 5), ld(6, 10, 0), add(7, 7, 6)]);
        a.ops(&[addi(5, 5, 2), addi(10, 10, 8), branch(1, 5, 8, -20)]);
        a.ops(&[addi(10, 10, -16), ld(6, 10, 0)]);
    });
    let start = data_page(0);
    world.pmp(&[(TOR, start >> 2), (OPEN, ALL)]);
    world.set_csr("mstatus", MPRV | 1 << 11);
    world.set_x(5, start >> 2).set_x(8, (start >> 2) + 400);
    world.set_x(10, start);
    for n in 0..200 {
        world.word(start + 8 * n, n);
    }
    world.check(200 * 6 + 2, |after| {
        assert_eq!(after.x(7), 199 * 200 / 2);
        assert_eq!(
            (after.csr("mcause"), after.csr("mtval")),
            (5, start + 198 * 8)
        );
    });
}

#[test]
fn a_configuration_never_meets_what_an_earlier_one_allowed() {
    // A load as S with the page open; `count` configurations that M doesn't use;
    // a load with the page closed. Rights without write: 0, 1, 4, 5.
    let closed = |n: u64| {
        let digit = |at: u64| n >> (2 * at) & 3;
        let rights = |at: u64| digit(at) >> 1 << 2 | digit(at) & 1;
        (1..5).fold(NAPOT, |cfg, at| cfg | (NAPOT | rights(at - 1)) << (8 * at))
    };
    for count in 1..70u64 {
        let mut world = World::new(|a| {
            a.ops(&[ld(6, 10, 0), csrrc(0, 0x300, 9)]);
            for n in 0..count {
                a.ops(&[ld(5, 20, 8 * n as i32), csrw(PMPCFG0, 5)]);
            }
            a.ops(&[csrrs(0, 0x300, 9), ld(7, 10, 0)]);
        });
        world.set_csr("mstatus", MPRV | 1 << 11).set_x(9, MPRV);
        let region = |n: u64| napot(data_page(n), 4096);
        let mut entries: Vec<_> = (0..5).map(|n| (NAPOT, region(n))).collect();
        entries[0].0 |= 7;
        entries.resize(15, (0, 0));
        entries.push((OPEN, ALL));
        world.pmp(&entries);
        world.set_x(10, data_page(0)).set_x(20, data_page(8));
        for n in 0..count {
            world.word(data_page(8) + 8 * n, closed(n));
        }
        world.check(5 + 2 * count, |after| {
            let got = (after.csr("mcause"), after.csr("mtval"));
            assert_eq!(got, (5, data_page(0)), "{count}");
        });
    }
}

fn spin_in(mode: Mode) -> World {
    let mut world = World::new(|_| {});
    world.mode(mode);
    world
}

#[test]
fn devices_and_the_ends_of_memory() {
    for (at, entry, want) in [
        (DEVICE, (OPEN, ALL), 0),
        (DEVICE, (NAPOT | 1, napot(DEVICE, 8)), 0),
        (DEVICE + 8, (NAPOT | 1, napot(DEVICE, 8)), 5),
        // A region of 4 bytes is less than the access.
        (DEVICE, (NA4 | 1, DEVICE >> 2), 5),
        (1 << 56, (OPEN, ALL), 5),
        (!7, (OPEN, ALL), 5),
        (RAM_BASE + RAM_BYTES - 8, (OPEN, ALL), 0),
    ] {
        let mut world = spin_in(Supervisor);
        let code = (NAPOT | 4, napot(CODE, 0x1_0000));
        world.pmp(&[code, entry]);
        let got = outcome(&mut world, LOAD, at);
        assert_eq!(got.0, want, "{at:#x} {entry:x?}");
    }
}
