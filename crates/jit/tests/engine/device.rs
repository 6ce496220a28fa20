//! The devices as the hart sees them: accesses, lines, alarms, attention.

use crate::asm::*;
use crate::world::*;
use twinvm_cpu::Exit;

#[test]
fn an_access_is_part_of_its_step_and_sees_the_time_before_it() {
    let mut world = World::new(|a| {
        a.ops(&[NOP, ld(1, 8, 0), NOP, NOP, ld(2, 8, 0), sd(2, 8, 48)]);
    });
    world.set_x(8, DEVICE);
    world.check(8, |after| {
        assert_eq!([after.x(1), after.x(2)], [1, 2]);
        let times: Vec<u64> = after.device.log.iter().map(|(mtime, ..)| *mtime).collect();
        assert_eq!(times, [1, 4, 5]);
    });
}

#[test]
fn addresses_and_alignments_the_device_refuses() {
    for (op, at, cause) in [
        (ld(1, 8, 0), DEVICE + 0x1000, 5),
        (sd(1, 8, 0), DEVICE + 0x1000, 7),
        (ld(1, 8, 0), DEVICE + 4, 5),
        (sd(1, 8, 0), DEVICE + 4, 7),
        (ld(1, 8, 0), DEVICE - 4, 5),
        (sd(1, 8, 0), DEVICE + 0xffc, 7),
    ] {
        let mut world = World::new(|a| {
            a.op(op);
        });
        world.set_x(8, at);
        world.check(3, |after| {
            assert_eq!(after.csr("mcause"), cause, "{op:#010x} at {at:#x}");
            assert_eq!(after.csr("mtval"), at);
            assert!(after.device.log.is_empty());
        });
    }
}

#[test]
fn attention_leaves_right_after_the_step() {
    let mut world = World::new(|a| {
        a.ops(&[NOP, sd(0, 8, 32), NOP, sd(0, 8, 32), sd(0, 8, 32)]);
    });
    world.set_x(8, DEVICE);
    world.check(9, |after| {
        let exits = after.exits();
        assert_eq!(exits, [2, 4, 5].map(|at| (at, Exit::Attention)));
    });
}

#[test]
fn an_alarm_comes_at_its_time_and_may_ask_for_attention() {
    for at in 3..14 {
        let mut world = World::new(|a| {
            a.op(sd(9, 8, 24));
            for _ in 0..20 {
                a.op(addi(5, 5, 1));
            }
        });
        world.set_x(8, DEVICE).set_x(9, at);
        world.set_csr("mie", 8).set_csr("mstatus", 8);
        // The alarm raises msip: the interrupt is the step after.
        world.check(16, |after| {
            assert_eq!(after.csr("mepc"), CODE + 4 * at);
            assert_eq!(after.csr("mcause"), 1 << 63 | 3);
            assert_eq!(after.x(5), at - 1);
            assert_eq!(after.exits(), [(at, Exit::Attention)]);
        });
    }
}

#[test]
fn lines_raised_from_outside_interrupt_the_next_step() {
    for at in 0..9 {
        let mut world = World::new(|a| {
            for _ in 0..20 {
                a.op(addi(5, 5, 1));
            }
        });
        world.set_csr("mie", 0x800).set_csr("mstatus", 8);
        world.events.push((at, Event::Lines(2)));
        world.check(12, |after| {
            assert_eq!(after.x(5), at);
            assert_eq!(after.csr("mcause"), 1 << 63 | 11);
        });
    }
}

#[test]
fn an_ecall_for_the_built_in_sbi_is_left_to_the_machine() {
    let mut world = World::new(|a| {
        a.ops(&[addi(5, 5, 1), ECALL, addi(5, 5, 1), ECALL, ECALL]);
    });
    world.builtin_sbi = true;
    world.mode(twinvm_cpu::Mode::Supervisor);
    world.check(9, |after| {
        assert_eq!(after.x(5), 2);
        assert_eq!(after.exits(), [1, 3, 4].map(|at| (at, Exit::Sbi)));
        assert_eq!(after.hart.traps, 0);
    });
}
