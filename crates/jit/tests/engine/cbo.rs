//! Cache-block operations: who may use them, what they check, what zeroing does
//! to translations and code.

use crate::asm::*;
use crate::tables::*;
use crate::world::*;
use twinvm_cpu::Mode::{self, Machine, Supervisor, User};
use twinvm_mem::RAM_BASE;

const INVAL: i32 = 0;
const CLEAN: i32 = 1;
const FLUSH: i32 = 2;
const ZERO: i32 = 4;
const ALL: [i32; 4] = [INVAL, CLEAN, FLUSH, ZERO];
const MANAGEMENT: [i32; 3] = [INVAL, CLEAN, FLUSH];

const SUM: u64 = 1 << 18;
const MXR: u64 = 1 << 19;
const MPRV: u64 = 1 << 17;
const ADUE: u64 = 1 << 61;
/// CBIE, CBCFE and CBZE.
const ENABLES: u64 = 0xf0;
/// RAM once more, for U-mode.
const USER: u64 = 0xc000_0000;
const HOLE: u64 = 0x2000_0000;

/// One operation on page 0 at `offset`, in `mode` with paging, everything enabled.
fn on_page(which: i32, mode: Mode, offset: u64, flags: u64) -> World {
    let mut world = World::new(|a| {
        a.op(cbo(which, 10));
    });
    world.paged(mode).map(0, data_page(0), flags);
    world.word(slot(ROOT, 3), pte(RAM_BASE, V | R | W | X | U | A | D));
    if mode == User {
        world.hart.pc = USER;
    }
    world.set_csr("menvcfg", ADUE | ENABLES);
    world.set_csr("senvcfg", ENABLES);
    world.set_x(10, page(0) + offset);
    for n in 0..512 {
        world.word(data_page(0) + 8 * n, !n);
    }
    world
}

#[test]
fn enabled_per_mode() {
    for which in ALL {
        let values: &[u64] = match which {
            INVAL => &[0x10, 0x30],
            ZERO => &[0x80],
            _ => &[0x40],
        };
        let others = ENABLES & !values.iter().fold(0, |all, v| all | v);
        for menvcfg in values.iter().chain([&others]) {
            for senvcfg in values.iter().chain([&others]) {
                for mode in [Machine, Supervisor, User] {
                    let mut world = on_page(which, mode, 0, DATA_PAGE | U);
                    world.set_csr("menvcfg", ADUE | menvcfg);
                    world.set_csr("senvcfg", *senvcfg);
                    world.set_csr("mstatus", world.csr("mstatus") | SUM);
                    if mode == Machine {
                        world.set_x(10, data_page(0));
                    }
                    let allowed = match mode {
                        Machine => true,
                        Supervisor => *menvcfg != others,
                        User => *menvcfg != others && *senvcfg != others,
                    };
                    world.check(2, |after| {
                        let case = format!("{which} in {mode:?}: {menvcfg:#x} {senvcfg:#x}");
                        let zeroed = allowed && which == ZERO;
                        let first = if zeroed { 0 } else { !0 };
                        assert_eq!(after.word(data_page(0)), first, "{case}");
                        if allowed {
                            assert_eq!(after.hart.traps, 0, "{case}");
                        } else {
                            assert_eq!(after.csr("mcause"), 2, "{case}");
                            assert_eq!(after.csr("mtval"), cbo(which, 10).into(), "{case}");
                        }
                    });
                }
            }
        }
    }
}

#[test]
fn illegal_comes_before_the_address() {
    for which in ALL {
        let mut world = on_page(which, Supervisor, 0, 0);
        world.set_csr("menvcfg", ADUE);
        world.check(2, |after| assert_eq!(after.csr("mcause"), 2));
    }
}

#[test]
fn permissions_of_pages() {
    for bits in 0..16u64 {
        let flags = V | (bits & 7) << 1 | if bits & 8 == 0 { 0 } else { U };
        let (r, w, x) = (flags & R != 0, flags & W != 0, flags & X != 0);
        let leaf = r || (x && !w);
        for (mode, status) in [(User, 0), (Supervisor, 0), (Supervisor, SUM), (User, MXR)] {
            let data = leaf
                && ((mode == User) == (flags & U != 0) || (mode == Supervisor && status == SUM));
            let load = data && (r || x && status == MXR);
            let store = data && w;
            for which in [CLEAN, ZERO] {
                let mut world = on_page(which, mode, 0x123, flags | if leaf { A | D } else { 0 });
                world.set_csr("mstatus", world.csr("mstatus") | status);
                let allowed = if which == ZERO { store } else { load };
                world.check(2, |after| {
                    let case = format!("{which} on {flags:#x} in {mode:?} {status:#x}");
                    if allowed {
                        assert_eq!(after.hart.traps, 0, "{case}");
                    } else {
                        assert_eq!(after.csr("mcause"), 15, "{case}");
                        assert_eq!(after.csr("mtval"), page(0) + 0x123, "{case}");
                        assert_eq!(after.word(data_page(0) + 0x100), !32, "{case}");
                    }
                });
            }
        }
    }
}

#[test]
fn accessed_and_dirty_bits() {
    for (which, set) in [(INVAL, A), (CLEAN, A), (FLUSH, A), (ZERO, A | D)] {
        for (flags, adue) in [(0, true), (A, true), (0, false), (A, false), (A | D, false)] {
            let mut world = on_page(which, Supervisor, 0, V | R | W | flags);
            world.set_csr("menvcfg", ENABLES | if adue { ADUE } else { 0 });
            world.check(2, |after| {
                let entry = after.word(LEAF);
                let case = format!("{which} {flags:#x} {adue}");
                if adue || flags & set == set {
                    assert_eq!(after.hart.traps, 0, "{case}");
                    assert_eq!(entry & (A | D), flags | set, "{case}");
                } else {
                    assert_eq!(after.csr("mcause"), 15, "{case}");
                    assert_eq!(entry & (A | D), flags, "{case}");
                }
            });
        }
    }
}

#[test]
fn outside_ram_is_an_access_fault() {
    for which in ALL {
        for at in [
            HOLE + 5,
            DEVICE + 8,
            RAM_BASE + RAM_BYTES,
            RAM_BASE - 1,
            u64::MAX,
        ] {
            let mut world = World::new(|a| {
                a.op(cbo(which, 10));
            });
            world.set_x(10, at);
            world.check(2, |after| {
                assert_eq!(after.csr("mcause"), 7, "{which} at {at:#x}");
                assert_eq!(after.csr("mtval"), at);
                assert!(after.device.log.is_empty());
            });
        }
    }
}

#[test]
fn translated_as_mprv_says_but_allowed_as_the_mode_says() {
    for which in ALL {
        let mut world = on_page(which, Machine, 0, DATA_PAGE);
        world.set_csr("menvcfg", ADUE).set_csr("senvcfg", 0);
        world.set_csr("mstatus", world.csr("mstatus") | MPRV | 1 << 11);
        world.check(2, |after| {
            assert_eq!(after.hart.traps, 0);
            let first = if which == ZERO { 0 } else { !0 };
            assert_eq!(after.word(data_page(0)), first);
        });
    }
}

#[test]
fn zero_clears_its_block_and_nothing_else() {
    for offset in [0u64, 1, 63, 64, 0x7f8, 0xfc0, 0xfff] {
        let block = offset & !63;
        let mut world = on_page(ZERO, Supervisor, offset, DATA_PAGE);
        // Again, after fast stores into the block.
        world.code(CODE, |a| {
            a.ops(&[
                cbo(ZERO, 10),
                store(0, 11, 10, 0),
                store(0, 11, 10, 0),
                cbo(ZERO, 10),
            ]);
        });
        world.set_x(11, 0xff);
        world.check(5, |after| {
            assert_eq!(after.hart.traps, 0);
            for n in 0..512u64 {
                let inside = (8 * n) & !63 == block;
                let want = if inside { 0 } else { !n };
                assert_eq!(after.word(data_page(0) + 8 * n), want, "{n} at {offset:#x}");
            }
            assert_eq!(after.word(data_page(1)), 0x101);
        });
    }
}

#[test]
fn management_leaves_memory_as_it_is() {
    for which in MANAGEMENT {
        let world = on_page(which, Supervisor, 0x48, V | R | A);
        world.check(2, |after| {
            assert_eq!(after.hart.traps, 0);
            for n in 0..512 {
                assert_eq!(after.word(data_page(0) + 8 * n), !n);
            }
        });
    }
}

#[test]
fn zero_over_table_entries_is_seen_by_the_next_access() {
    for (first, hit) in [(0u64, true), (8, false)] {
        let mut world = World::new(|a| {
            a.ops(&[ld(1, 10, 0), cbo(ZERO, 12), ld(2, 10, 0)]);
        });
        world.paged(Supervisor).set_csr("menvcfg", ADUE | ENABLES);
        world.map(7, data_page(7), DATA_PAGE);
        world.set_x(10, page(7)).set_x(12, slot(LEAF, first) + 3);
        world.check(4, |after| {
            assert_eq!(after.x(1), 0x107);
            if hit {
                assert_eq!(after.csr("mcause"), 13);
                assert_eq!(after.csr("mtval"), page(7));
            } else {
                assert_eq!((after.hart.traps, after.x(2)), (0, 0x107));
            }
        });
    }
    // An entry of a higher level takes all below it along; the instruction after
    // the operation is fetched through the entry that it cleared.
    let mut world = World::new(|a| {
        a.op(cbo(ZERO, 12));
    });
    world.paged(Supervisor).set_csr("menvcfg", ADUE | ENABLES);
    world.set_x(12, slot(ROOT, 2));
    world.check(1, |after| assert_eq!(after.hart.traps, 0));
    world.check(2, |after| {
        assert_eq!(after.csr("mcause"), 12);
        assert_eq!(after.csr("mtval"), CODE + 4);
    });
}

#[test]
fn zero_over_code_takes_effect_at_the_next_instruction() {
    for target in [CODE, CODE + 0x40] {
        // The operation is the last instruction of its block of 64 bytes.
        let mut world = World::new(|a| {
            a.op(jal(0, 0x40 - 8)).pad_to(CODE + 0x40 - 8);
            a.op(NOP)
                .op(cbo(ZERO, 10))
                .op(addi(5, 0, 1))
                .op(jal(0, -12));
        });
        world.set_x(10, target + 17);
        world.check(8, |after| {
            assert_eq!(after.csr("mcause"), 2, "{target:#x}");
            assert_eq!(after.csr("mtval"), 0);
            let (at, ran) = if target == CODE {
                (CODE + 0x38, 1)
            } else {
                (target, 0)
            };
            assert_eq!((after.csr("mepc"), after.x(5)), (at, ran));
        });
    }
}

#[test]
fn zero_over_half_of_an_instruction_on_two_pages() {
    let border = CODE + 0x2000;
    for target in [border - 64, border] {
        let mut world = World::new(|a| {
            a.ops(&[jalr(1, 7, 0), cbo(ZERO, 10), jalr(1, 7, 0)]);
        });
        // addi x5, x0, 3: without its high half it is addi x5, x0, 0.
        world.code(border - 2, |a| {
            a.ops(&[addi(5, 0, 3), jalr(0, 1, 0)]);
        });
        world.set_x(7, border - 2).set_x(10, target);
        world.check(9, |after| {
            assert_eq!(after.csr("mcause"), 2);
            assert_eq!(after.csr("mtval"), 0);
            if target == border {
                // addi x5, x0, 0 is whole; c.unimp follows.
                assert_eq!((after.x(5), after.csr("mepc")), (0, border + 2));
            } else {
                assert_eq!((after.x(5), after.csr("mepc")), (3, border - 2));
            }
        });
    }
}

#[test]
fn an_own_zero_leaves_the_reservation() {
    for which in ALL {
        let mut world = World::new(|a| {
            a.ops(&[
                amo(2, true, 5, 10, 0),
                cbo(which, 10),
                amo(3, true, 6, 10, 11),
            ]);
        });
        world.word(DATA, 7).set_x(10, DATA).set_x(11, 9);
        world.set_x(6, 5);
        world.check(4, |after| {
            assert_eq!((after.x(5), after.x(6), after.word(DATA)), (7, 0, 9));
        });
    }
}

#[test]
fn prefetches_are_hints() {
    // prefetch.i, .r and .w at an address that nobody may touch.
    for which in [0, 1, 3] {
        let mut world = World::new(|a| {
            a.op(i(0x7e0 | which, 10, 6, 0, 0x13));
        });
        world.set_x(10, HOLE);
        let before = world.hart.x.clone();
        world.check(2, |after| {
            assert_eq!((after.hart.traps, &after.hart.x), (0, &before));
        });
    }
}

#[test]
fn pmp_decides_for_the_whole_block() {
    // The rule covers only the last 8 bytes of the block; the rest is open.
    for (rights, management, zero) in [(0u64, false, false), (1, true, false), (3, true, true)] {
        for which in ALL {
            let mut world = on_page(which, Supervisor, 0x40, DATA_PAGE);
            let last = data_page(0) + 0x78;
            // NA4 would be too small: NAPOT of 8 bytes, then NAPOT over everything.
            world.set_csr("pmpaddr0", last >> 2);
            world.set_csr("pmpaddr1", (1 << 54) - 1);
            world.set_csr("pmpcfg0", 0x1f << 8 | 0x18 | rights);
            let allowed = if which == ZERO { zero } else { management };
            world.check(2, |after| {
                if allowed {
                    assert_eq!(after.hart.traps, 0, "{which} {rights}");
                } else {
                    assert_eq!(after.csr("mcause"), 7, "{which} {rights}");
                    assert_eq!(after.csr("mtval"), page(0) + 0x40);
                    assert_eq!(after.word(data_page(0) + 0x40), !8);
                }
            });
        }
    }
}
