//! Fetch always sees memory as it is: no `fence.i` is needed anywhere.

use crate::asm::*;
use crate::world::*;
use twinvm_mem::RAM_BASE;

const NEW: u32 = 7 << 20 | 5 << 7 | 0x13; // addi x5, x0, 7

#[test]
fn a_store_to_the_next_instructions() {
    for ahead in 1..20u64 {
        let mut world = World::new(|a| {
            a.op(sw(6, 7, 0));
            for _ in 0..20 {
                a.op(addi(5, 5, 1));
            }
        });
        world.set_x(6, NEW.into()).set_x(7, CODE + 4 * ahead);
        world.check(22, |after| assert_eq!(after.x(5), 7 + 20 - ahead));
        // Half an instruction: the immediate.
        let mut world = world.clone();
        world.code(CODE, |a| {
            a.op(store(1, 6, 7, 2));
            for _ in 0..20 {
                a.op(addi(5, 5, 1));
            }
        });
        world.set_x(6, u64::from(addi(5, 5, 0x70)) >> 16);
        world.check(22, |after| assert_eq!(after.x(5), 19 + 0x70, "{ahead}"));
    }
}

#[test]
fn stores_of_every_kind_reach_code() {
    let double = u64::from(NEW) << 32 | u64::from(addi(6, 0, 1));
    for (op, at) in [
        (sd(6, 7, 0), 0),
        (amo(1, true, 0, 7, 6), 0),
        (amo(3, true, 9, 7, 6), 0),
        (s(0, 6, 7, 3, 0x27), 0),
        // Misaligned, over the chunk's border.
        (sd(6, 7, 0), 60),
    ] {
        let target = CODE + 0x1000 + at;
        let mut world = World::new(|a| {
            a.ops(&[jalr(1, 7, 0), op, jalr(1, 7, 0)]);
        });
        world.code(target, |a| {
            a.ops(&[addi(8, 8, 1), addi(5, 0, 1), jalr(0, 1, 0)]);
        });
        world.hart.f[6] = double;
        world.hart.reservation = target.is_multiple_of(8).then_some((target, 8));
        world.set_x(6, double).set_x(7, target);
        world.check(9, |after| {
            assert_eq!(after.x(5), 7, "{op:#010x}");
            assert_eq!(after.x(8), 1);
        });
    }
}

#[test]
fn a_store_across_a_page_border_into_code() {
    let border = CODE + 0x2000;
    let mut world = World::new(|a| {
        a.ops(&[jalr(1, 7, 0), sd(6, 8, 0), jalr(1, 7, 0)]);
    });
    world.code(border - 4, |a| {
        a.ops(&[addi(5, 5, 1), addi(5, 5, 1), jalr(0, 1, 0)]);
    });
    world.set_x(7, border - 4).set_x(8, border - 4);
    world.set_x(
        6,
        u64::from(addi(5, 5, 16)) << 32 | u64::from(addi(5, 5, 32)),
    );
    world.check(10, |after| assert_eq!(after.x(5), 50));
}

#[test]
fn an_instruction_on_two_pages_is_rewritten_half_by_half() {
    let at = CODE + 0x2000 - 2;
    for (offset, value) in [(0u64, 0x0313u64), (2, 0x0050)] {
        // addi x5, x0, 3 becomes addi x6, x0, 3 or addi x5, x0, 5.
        let mut world = World::new(|a| {
            a.ops(&[
                jalr(1, 7, 0),
                store(1, 6, 8, 0),
                addi(5, 0, 0),
                jalr(1, 7, 0),
            ]);
        });
        world.code(at, |a| {
            a.ops(&[addi(5, 0, 3), jalr(0, 1, 0)]);
        });
        world.set_x(6, value).set_x(7, at).set_x(8, at + offset);
        world.check(9, |after| {
            let want = if offset == 0 { (0, 3) } else { (5, 0x50) };
            assert_eq!((after.x(5), after.x(6)), want);
        });
    }
}

/// A subroutine of which the third instruction, after four bytes and two, is on two pages.
fn with_third_on_two_pages(calls: &[u32], third: u32, rest: &[u32]) -> World {
    let border = CODE + 0x2000;
    let mut world = World::new(|a| {
        a.ops(calls);
    });
    world.code(border - 8, |a| {
        a.op(addi(5, 5, 1)).c(0x0001).op(third).ops(rest);
    });
    world.set_x(7, border - 8).set_x(8, border);
    world
}

#[test]
fn the_end_of_a_block_on_two_pages_is_rewritten_half_by_half() {
    let call = jalr(1, 7, 0);
    for (offset, value, want) in [(0, 0x0504, (3 + 3 + 0x50, 0)), (-2, 0x8513, (6, 9))] {
        // addi x9, x9, 3 becomes addi x9, x9, 0x50 or addi x10, x9, 3.
        let calls = [call, call, store(1, 6, 8, offset), call];
        let mut world = with_third_on_two_pages(&calls, addi(9, 9, 3), &[jalr(0, 1, 0)]);
        world.set_x(6, value);
        world.check(16, |after| {
            assert_eq!((after.x(9), after.x(10)), want);
            assert_eq!(after.x(5), 3);
        });
    }
}

#[test]
fn jumps_on_two_pages_at_the_end_of_a_block() {
    let call = jalr(1, 7, 0);
    for (third, skips) in [
        (jal(0, 8), true),
        (branch(0, 0, 0, 8), true),
        (branch(1, 0, 0, 8), false),
    ] {
        let rest = [addi(11, 11, 1), addi(12, 12, 1), jalr(0, 1, 0)];
        let world = with_third_on_two_pages(&[call, call, call], third, &rest);
        let steps = if skips { 18 } else { 21 };
        world.check(steps, |after| {
            assert_eq!(after.x(11), if skips { 0 } else { 3 });
            assert_eq!(after.x(12), 3);
        });
    }
}

#[test]
fn a_fault_on_two_pages_at_the_end_of_a_block() {
    let call = jalr(1, 7, 0);
    let world = with_third_on_two_pages(&[call], ld(6, 0, 64), &[jalr(0, 1, 0)]);
    world.check(4, |after| {
        assert_eq!(after.csr("mcause"), 5);
        assert_eq!(after.csr("mtval"), 64);
        assert_eq!(after.csr("mepc"), CODE + 0x2000 - 2);
        assert_eq!(after.x(5), 1);
    });
}

#[test]
fn dma_into_code_between_steps() {
    for at in 1..12 {
        let mut world = World::new(|a| {
            a.ops(&[addi(5, 5, 1), addi(6, 6, 1), branch(0, 0, 0, -8)]);
        });
        let new = addi(5, 5, 100).to_le_bytes().to_vec();
        world.events.push((at, Event::Store(CODE, new)));
        world.check(30, |after| {
            let before = at.div_ceil(3);
            assert_eq!(after.x(5), before + 100 * (10 - before), "at {at}");
            assert_eq!(after.x(6), 10);
        });
    }
}

#[test]
fn a_device_writes_the_next_instruction() {
    let mut world = World::new(|a| {
        a.ops(&[sd(7, 8, 48), sw(6, 8, 40), addi(5, 0, 1), addi(9, 9, 1)]);
    });
    world
        .set_x(6, NEW.into())
        .set_x(7, CODE + 8)
        .set_x(8, DEVICE);
    world.check(5, |after| {
        assert_eq!(after.x(5), 7);
        assert_eq!(after.x(9), 1);
    });
}

#[test]
fn data_beside_code_is_data() {
    // Stores to the same page, also fast ones, next to the loop that makes them.
    let mut world = World::new(|a| {
        a.ops(&[
            sd(5, 7, 0),
            addi(5, 5, 1),
            addi(7, 7, 8),
            branch(1, 7, 8, -12),
        ]);
    });
    world.set_x(7, CODE + 0x100).set_x(8, CODE + 0x1100);
    world.check(4 * 512 + 1, |after| {
        assert_eq!(after.x(5), 512);
        for n in 0..512 {
            assert_eq!(after.word(CODE + 0x100 + 8 * n), n);
        }
    });
}

#[test]
fn a_page_written_fast_becomes_code_and_is_written_again() {
    let target = RAM_BASE + 0x5000;
    let mut world = World::new(|a| {
        a.ops(&[
            // Twice: the second store is a fast one.
            sw(6, 7, 0),
            sw(6, 7, 0),
            sw(9, 7, 4),
            jalr(1, 7, 0),
            add(10, 5, 0),
            sw(8, 7, 0),
            jalr(1, 7, 0),
        ]);
    });
    world.set_x(6, NEW.into()).set_x(7, target);
    world
        .set_x(8, addi(5, 5, 5).into())
        .set_x(9, jalr(0, 1, 0).into());
    world.check(12, |after| {
        assert_eq!(after.x(10), 7);
        assert_eq!(after.x(5), 12);
    });
}
