//! Virtual time: reads, and timer interrupts at the step that can be computed.

use crate::asm::*;
use crate::world::*;
use twinvm_cpu::{Clock, Exit, Mode};

const MTI: u64 = 1 << 7;
const STI: u64 = 1 << 5;
const STCE: u64 = 1 << 63;

/// 400 times x5 += 1.
fn counting() -> World {
    World::new(|a| {
        for _ in 0..400 {
            a.op(addi(5, 5, 1));
        }
    })
}

/// The first step after which virtual time has reached `compare`: the definition,
/// step by step.
fn due(clock: &Clock, compare: u64) -> Option<u64> {
    (0..400u64).find(|i| {
        let steps = i.saturating_sub(clock.icount);
        let ticks = ((u128::from(steps) * u128::from(clock.rate)) >> 32) as u64;
        clock.mtime + ticks.min(clock.span) >= compare
    })
}

fn clocks() -> Vec<Clock> {
    let mut clocks = Vec::new();
    for rate in [
        1 << 32,
        1 << 31,
        1 << 28,
        5 << 30,
        0xffff_ffff,
        0x1999_9999,
        0,
    ] {
        for span in [u64::MAX, 40] {
            clocks.push(Clock {
                icount: 0,
                mtime: 1000,
                rate,
                span,
            });
        }
    }
    clocks
}

#[test]
fn the_supervisor_timer_interrupts_at_its_exact_step() {
    for clock in clocks() {
        for compare in [0, 1000, 1001, 1002, 1007, 1039, 1040, 1041, 1063] {
            let mut world = counting();
            world.clock = clock;
            world.mode(Mode::Supervisor).set_csr("menvcfg", STCE);
            world.set_csr("mideleg", STI).set_csr("mie", STI);
            world.set_csr("mstatus", world.csr("mstatus") | 2);
            world.set_csr("stimecmp", compare);
            world.check(300, |after| {
                match due(&clock, compare).filter(|at| *at < 300) {
                    Some(at) => {
                        assert_eq!(after.x(5), at, "{clock:?} {compare}");
                        assert_eq!(after.csr("sepc"), CODE + 4 * at);
                        assert_eq!(after.csr("scause"), 1 << 63 | 5);
                        assert_eq!(after.hart.pc, S_HANDLER);
                    }
                    None => assert_eq!(after.x(5), 300, "{clock:?} {compare}"),
                }
            });
        }
    }
}

#[test]
fn the_machine_timer_interrupts_at_its_exact_step() {
    for clock in clocks() {
        for compare in [1001, 1013, 1040, 1041] {
            let mut world = counting();
            world.clock = clock;
            world.set_csr("mie", MTI).set_csr("mstatus", 8);
            world.device.mtimecmp = compare;
            world.check(300, |after| {
                match due(&clock, compare).filter(|at| *at < 300) {
                    Some(at) => {
                        assert_eq!(after.csr("mepc"), CODE + 4 * at, "{clock:?} {compare}");
                        assert_eq!(after.csr("mcause"), 1 << 63 | 7);
                    }
                    None => assert_eq!(after.x(5), 300),
                }
            });
        }
    }
}

#[test]
fn an_anchor_moves_the_deadline() {
    let mut world = counting();
    world.set_csr("menvcfg", STCE).set_csr("mie", STI);
    world.set_csr("mstatus", 8).set_csr("stimecmp", 100);
    let slow = Clock {
        icount: 10,
        mtime: 10,
        rate: 1 << 31,
        span: 50,
    };
    // Half the rate; stands still at 60 until the next anchor, at step 150.
    let fast = Clock {
        icount: 150,
        mtime: 70,
        rate: 2 << 32,
        span: 1000,
    };
    world.events.push((10, Event::Clock(slow)));
    world.events.push((150, Event::Clock(fast)));
    world.check(200, |after| {
        assert_eq!(after.csr("mepc"), CODE + 4 * (150 + 15));
    });
}

#[test]
fn a_compare_written_by_the_guest_and_the_pending_bit_it_sees() {
    let mut world = World::new(|a| {
        // One tick per step: pending is set in the read right after it is due.
        a.ops(&[NOP, NOP, csrw(0x14d, 6)]);
        for n in 0..6 {
            a.op(csrr(10 + n, 0x344));
        }
        a.op(csrw(0x14d, 7)).op(csrr(16, 0x344)).op(csrr(17, 0xc01));
    });
    world
        .set_csr("menvcfg", STCE)
        .set_x(6, 5)
        .set_x(7, u64::MAX);
    world.check(14, |after| {
        let seen = [10, 11, 12, 13, 14, 15, 16].map(|n| after.x(n));
        assert_eq!(seen, [0, 0, STI, STI, STI, STI, 0]);
        // The read is step 12: it sees time as of step 11.
        assert_eq!(after.x(17), 11);
    });
}

#[test]
fn wfi_waits_until_something_enabled_is_pending() {
    let program = |a: &mut Asm| {
        a.ops(&[addi(5, 5, 1), WFI, addi(5, 5, 1)]);
    };
    // Nothing can come by itself: idle after WFI has retired.
    World::new(program).check(20, |after| {
        assert_eq!((after.exit, after.icount), (Exit::Idle, 2));
        assert!(after.hart.waiting);
    });
    // An enabled interrupt ends it even with interrupts off.
    let mut world = World::new(program);
    world.set_csr("mie", 8).set_csr("mstatus", 0);
    world.events.push((9, Event::Lines(1)));
    world.check(5, |after| {
        assert_eq!((after.exit, after.x(5)), (Exit::Limit, 2));
        assert!(!after.hart.waiting);
    });
    // Already pending: it doesn't wait.
    let mut world = World::new(program);
    world.set_csr("mie", 8).set_csr("mstatus", 0);
    world.device.lines = 1;
    world.check(5, |after| assert_eq!((after.icount, after.x(5)), (5, 2)));
    // Pending but not enabled: it does.
    let mut world = World::new(program);
    world.device.lines = 1;
    world.check(5, |after| assert_eq!(after.exit, Exit::Idle));
}
