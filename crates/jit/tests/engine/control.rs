//! Branches and jumps, at the borders of blocks and pages.

use crate::asm::*;
use crate::world::*;
use twinvm_mem::RAM_BASE;

#[test]
fn branches_compare_and_go_both_ways() {
    let values = [0, 1, -1i64 as u64, i64::MIN as u64, i64::MAX as u64];
    type Taken = fn(u64, u64) -> bool;
    let kinds: [(u32, Taken); 6] = [
        (0, |a, b| a == b),
        (1, |a, b| a != b),
        (4, |a, b| (a as i64) < b as i64),
        (5, |a, b| (a as i64) >= b as i64),
        (6, |a, b| a < b),
        (7, |a, b| a >= b),
    ];
    for (f3, taken) in kinds {
        for x in values {
            for y in values {
                let mut world = World::new(|a| {
                    a.ops(&[branch(f3, 1, 2, 8), addi(3, 3, 1), addi(4, 4, 1)]);
                });
                world.set_x(1, x).set_x(2, y);
                world.check(5, |after| {
                    assert_eq!(after.x(3), u64::from(!taken(x, y)), "{f3} {x:#x} {y:#x}");
                    assert_eq!(after.x(4), 1);
                });
            }
        }
    }
}

#[test]
fn jumps_link_and_reach_far() {
    let mut world = World::new(|a| {
        a.op(jal(1, 0xff000));
    });
    world.code(CODE + 0xff000, |a| {
        // jalr clears bit 0 and reads rs1 before it writes rd.
        a.ops(&[addi(1, 1, 1), jalr(1, 1, 0x100)]);
    });
    world.code(CODE + 0x104, |a| {
        a.ops(&[auipc(2, 0), jal(3, 0)]);
    });
    world.check(6, |after| {
        assert_eq!(after.x(1), CODE + 0xff008);
        assert_eq!(after.x(2), CODE + 0x104);
        assert_eq!(after.x(3), CODE + 0x10c);
        assert_eq!(after.hart.pc, CODE + 0x108);
    });
}

#[test]
fn a_page_border_inside_a_loop() {
    // The loop starts in one page, its instructions run over the border at every
    // alignment of 2 bytes.
    for shift in 0..8u64 {
        let start = CODE + 0xff0 + 2 * shift;
        let mut world = World::new(|_| {});
        world.code(start, |a| {
            a.op(addi(1, 1, 1))
                .c(0x0109) // c.addi sp, 2
                .op(add(3, 3, 1))
                .op(addi(4, 4, 3))
                .op(r(0, 4, 3, 4, 5, 0x33))
                .c(0x0109);
            let back = start.wrapping_sub(a.here()) as i64 as i32;
            a.op(branch(1, 1, 6, back));
        });
        world.hart.pc = start;
        world.set_x(6, 9);
        world.check(7 * 9 + 1, |after| {
            assert_eq!(after.x(1), 9);
            assert_eq!(after.x(2), 36);
            assert_eq!(after.x(3), 45);
            assert_eq!(after.x(4), 27);
            assert_eq!(after.x(5), 45 ^ 27);
        });
    }
}

#[test]
fn a_long_run_without_a_branch() {
    let mut world = World::new(|_| {});
    world.code(CODE + 2, |a| {
        for n in 0..2500 {
            a.op(addi(1, 1, n & 7));
        }
    });
    world.hart.pc = CODE + 2;
    world
        .ram
        .retain(|(at, bytes)| *at != CODE || bytes.len() > 4);
    let want = (0..2500).map(|n| n & 7).sum();
    world.check(2501, |after| assert_eq!(after.x(1), want));
}

#[test]
fn fetching_outside_ram_faults() {
    for target in [0, 0x1000, RAM_BASE - 2, RAM_BASE + RAM_BYTES, u64::MAX - 1] {
        let mut world = World::new(|a| {
            a.op(jalr(1, 5, 0));
        });
        world.set_x(5, target);
        world.check(3, |after| {
            assert_eq!(after.csr("mcause"), 1, "{target:#x}");
            assert_eq!(after.csr("mepc"), target);
            assert_eq!(after.csr("mtval"), target);
            assert_eq!(after.x(1), CODE + 4);
        });
    }
}

#[test]
fn an_instruction_half_outside_ram_faults_at_its_second_half() {
    let last = RAM_BASE + RAM_BYTES - 2;
    let mut world = World::new(|a| {
        a.op(jalr(0, 5, 0));
    });
    world.set_x(5, last);
    world.ram.push((last, vec![0x93, 0x00]));
    world.check(3, |after| {
        assert_eq!(after.csr("mcause"), 1);
        assert_eq!(after.csr("mepc"), last);
        assert_eq!(after.csr("mtval"), last + 2);
    });
}

#[test]
fn jumping_into_the_middle_of_an_instruction_decodes_from_there() {
    // lui x1, 0x00092 -> its upper half is 0x0009: c.nop with a hint immediate.
    let mut world = World::new(|a| {
        a.op(lui(1, 0x00092)).op(addi(2, 2, 1));
    });
    world.hart.pc = CODE + 2;
    world.check(3, |after| {
        assert_eq!(after.x(1), 0);
        assert_eq!(after.x(2), 1);
    });
}

#[test]
fn returns_to_odd_addresses_where_no_call_was_noted() {
    // Bit 0 is dropped: whatever the places that calls return to hold while they are empty
    // isn't it.
    for target in (0..8).chain([128, 129, u64::MAX]) {
        let mut world = World::new(|a| {
            a.op(jalr(0, 1, 0));
        });
        world.set_x(1, target);
        world.check(3, |after| {
            assert_eq!(after.csr("mcause"), 1, "{target:#x}");
            assert_eq!(after.csr("mepc"), target & !1);
        });
    }
}
