//! AMOs, LR and SC.

use crate::asm::*;
use crate::world::*;

const OPS: [u32; 9] = [1, 0, 4, 0xc, 8, 0x10, 0x14, 0x18, 0x1c];

fn meaning(f5: u32, a: u64, b: u64, double: bool) -> u64 {
    let (sa, sb) = if double {
        (a as i64, b as i64)
    } else {
        (i64::from(a as i32), i64::from(b as i32))
    };
    let (ua, ub) = if double {
        (a, b)
    } else {
        (a & 0xffff_ffff, b & 0xffff_ffff)
    };
    match f5 {
        1 => b,
        0 => a.wrapping_add(b),
        4 => a ^ b,
        0xc => a & b,
        8 => a | b,
        0x10 => sa.min(sb) as u64,
        0x14 => sa.max(sb) as u64,
        0x18 => ua.min(ub),
        _ => ua.max(ub),
    }
}

/// What makes a page's translation known for stores before the atomics come, or not.
const BEFORE: [&[u32]; 2] = [&[], &[0x0401_3023]];

/// The end of a block, to the next instruction: only where as many steps are to be made as a block
/// has does translated code run.
const END: u32 = 0x0040_006f;

#[test]
fn what_comes_before_is_a_store() {
    assert_eq!(BEFORE[1], [sd(0, 2, 64)]);
    assert_eq!(END, jal(0, 4));
}

#[test]
fn read_modify_write() {
    let values = [
        0,
        1,
        u64::MAX,
        0x8000_0000,
        0x7fff_ffff,
        1 << 63,
        0xffff_ffff_0000_0000,
    ];
    for f5 in OPS {
        for double in [false, true] {
            for x in values {
                for (y, before) in values
                    .into_iter()
                    .flat_map(|y| BEFORE.map(|before| (y, before)))
                {
                    let mut world = World::new(|a| {
                        a.ops(before);
                        a.ops(&[amo(f5, double, 1, 2, 3), END]);
                    });
                    world.set_x(2, DATA).set_x(3, y).word(DATA, x);
                    world.check(before.len() as u64 + 2, |after| {
                        let new = meaning(f5, x, y, double);
                        let (old, want) = if double {
                            (x, new)
                        } else {
                            let kept = x & !0xffff_ffff;
                            (x as i32 as u64, kept | (new & 0xffff_ffff))
                        };
                        let name = format!("amo {f5:#x} {double} {x:#x} {y:#x}");
                        assert_eq!(after.x(1), old, "{name}");
                        assert_eq!(after.word(DATA), want, "{name}");
                    });
                }
            }
        }
    }
}

#[test]
fn misaligned_and_foreign_addresses_trap() {
    for f5 in OPS.into_iter().chain([2, 3]) {
        let load = f5 == 2;
        for (double, at, cause) in [
            (false, DATA + 2, if load { 4 } else { 6 }),
            (true, DATA + 4, if load { 4 } else { 6 }),
            (true, DATA + 0xffc, if load { 4 } else { 6 }),
            (true, DEVICE, if load { 5 } else { 7 }),
            (false, 0, if load { 5 } else { 7 }),
        ] {
            let mut world = World::new(|a| {
                a.op(amo(f5, double, 1, 2, if load { 0 } else { 3 }));
            });
            world.set_x(2, at).set_x(1, 9).set_x(3, u64::MAX);
            let size = if double { 8 } else { 4 };
            world.hart.reservation = Some((at & !(size - 1), size as u8));
            world.check(2, |after| {
                assert_eq!(after.csr("mcause"), cause, "{f5:#x} at {at:#x}");
                assert_eq!(after.csr("mtval"), at);
                assert_eq!(after.x(1), 9);
                assert_eq!(after.word(DATA), 0);
                assert!(after.device.log.is_empty());
            });
        }
    }
}

#[test]
fn misaligned_addresses_trap_in_a_page_that_was_stored_to() {
    for f5 in OPS.into_iter().chain([2, 3]) {
        for (double, offset) in [(false, 2), (true, 4), (true, 0xffc), (false, 1)] {
            let mut world = World::new(|a| {
                a.op(sd(0, 7, 64));
                a.op(amo(f5, double, 1, 2, if f5 == 2 { 0 } else { 3 }));
                a.op(END);
            });
            world.set_x(2, DATA + offset).set_x(7, DATA);
            world.check(3, |after| {
                assert_eq!(after.csr("mcause"), if f5 == 2 { 4 } else { 6 });
                assert_eq!(after.csr("mtval"), DATA + offset);
            });
        }
    }
}

#[test]
fn store_conditional_needs_its_reservation() {
    let lr = |double| amo(2, double, 1, 2, 0);
    let sc = |rd, double| amo(3, double, rd, 2, 3);
    let cases: [(&[u32], u64, u64); 7] = [
        (&[lr(true), sc(4, true)], 0, 55),
        (&[sc(4, true)], 1, 0x77),
        // SC ends the reservation whether it succeeds or not.
        (&[lr(true), sc(5, true), sc(4, true)], 1, 55),
        (&[lr(true), sc(5, false), sc(4, true)], 1, 0x77),
        (&[lr(false), sc(4, true)], 1, 0x77),
        (&[lr(true), lr(false), sc(4, false)], 0, 55),
        // The hart's own stores and traps leave it.
        (&[lr(true), sd(6, 2, 0), sc(4, true)], 0, 55),
    ];
    let cases = cases
        .into_iter()
        .flat_map(|case| BEFORE.map(|before| (before, case)));
    for (n, (before, (program, result, memory))) in cases.enumerate() {
        let mut world = World::new(|a| {
            a.ops(before).ops(program).op(END);
        });
        world.set_x(2, DATA).set_x(3, 55).set_x(4, 9).set_x(6, 0x66);
        world.word(DATA, 0x77);
        let steps = before.len() + program.len() + 1;
        world.check(steps as u64, |after| {
            assert_eq!(after.x(4), result, "case {n}");
            assert_eq!(after.word(DATA), memory, "case {n}");
            assert_eq!(after.hart.reservation, None);
        });
    }
}

#[test]
fn a_failed_store_conditional_at_another_address() {
    for before in BEFORE {
        let mut world = World::new(|a| {
            a.ops(before)
                .ops(&[amo(2, true, 1, 2, 0), amo(3, true, 4, 5, 3), END]);
        });
        world.set_x(2, DATA).set_x(5, DATA + 8).set_x(3, 55);
        world.check(before.len() as u64 + 3, |after| {
            assert_eq!(after.x(4), 1);
            assert_eq!(after.word(DATA + 8), 0);
        });
    }
}

#[test]
fn dma_ends_the_reservation() {
    let mut world = World::new(|a| {
        a.ops(&[amo(2, true, 1, 2, 0), NOP, NOP, amo(3, true, 4, 2, 3)]);
    });
    world.set_x(2, DATA).set_x(3, 55);
    world.events.push((2, Event::Store(DATA, vec![1])));
    world.check(5, |after| {
        assert_eq!(after.x(4), 1);
        assert_eq!(after.word(DATA), 1);
    });
}

#[test]
fn the_results_of_sc_and_amo_can_go_nowhere() {
    let mut world = World::new(|a| {
        a.ops(&[
            amo(0, true, 0, 2, 3),
            amo(2, true, 0, 2, 0),
            amo(3, true, 0, 2, 3),
        ]);
    });
    world.set_x(2, DATA).set_x(3, 5);
    world.check(4, |after| assert_eq!(after.word(DATA), 5));
}
