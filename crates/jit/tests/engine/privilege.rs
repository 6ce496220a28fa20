//! Which CSRs exist for whom, and every interrupt in every setting.

use crate::asm::*;
use crate::world::*;
use twinvm_cpu::Mode::{self, Machine, Supervisor, User};

/// For each CSR from `first`: does `op(csr)` pass in `mode`?
fn passes(
    mode: Mode,
    first: u32,
    op: impl Fn(u32) -> u32,
    adjust: impl Fn(&mut World),
) -> Vec<bool> {
    const COUNT: u32 = 256;
    let mut world = World::new(|a| {
        for csr in first..first + COUNT {
            a.ops(&[addi(7, 0, 1), op(csr), store(0, 7, 8, 0), addi(8, 8, 1)]);
        }
        a.op(EBREAK);
    });
    world.code(M_HANDLER, |a| {
        // An illegal instruction: x7 = 0 and on. Anything else: the end.
        a.ops(&[csrr(28, 0x342), addi(28, 28, -2), branch(1, 28, 0, 24)]);
        a.ops(&[csrr(28, 0x341), addi(28, 28, 4), csrw(0x341, 28)]);
        a.ops(&[addi(7, 0, 0), MRET]);
    });
    adjust(&mut world);
    world.mode(mode).set_x(8, DATA);
    let mut result = Vec::new();
    world.check(13 * u64::from(COUNT), |after| {
        assert_eq!(after.csr("mcause"), 3, "from {first:#x} in {mode:?}");
        let mut bytes = [0; COUNT as usize];
        after.memory.read(DATA, &mut bytes).expect("data is RAM");
        result = bytes.iter().map(|b| *b == 1).collect();
    });
    result
}

fn everything_enabled(world: &mut World) {
    world.set_csr("mcounteren", 0xffff_ffff);
    world.set_csr("scounteren", 0xffff_ffff);
    world.set_csr("menvcfg", 1 << 63);
}

fn user_csr(csr: u32) -> bool {
    matches!(csr, 1..=3 | 0xc00..=0xc1f)
}

fn supervisor_csr(csr: u32) -> bool {
    matches!(csr, 0x100 | 0x104..=0x106 | 0x10a | 0x140..=0x144 | 0x14d | 0x180)
}

fn machine_csr(csr: u32) -> bool {
    matches!(
        csr,
        0x300..=0x306 | 0x30a | 0x320 | 0x323..=0x33f | 0x340..=0x344
            | 0x3a0 | 0x3a2 | 0x3b0..=0x3bf | 0x7a0..=0x7a3
            | 0xb00 | 0xb02..=0xb1f | 0xf11..=0xf15
    )
}

#[test]
fn exactly_these_csrs_exist() {
    for mode in [User, Supervisor, Machine] {
        for first in (0..0x1000).step_by(256) {
            let got = passes(mode, first, |csr| csrr(5, csr), everything_enabled);
            for (csr, got) in (first..).zip(got) {
                let want = user_csr(csr)
                    || (mode != User && supervisor_csr(csr))
                    || (mode == Machine && machine_csr(csr));
                assert_eq!(got, want, "{csr:#x} in {mode:?}");
            }
        }
    }
}

#[test]
fn exactly_these_csrs_can_be_written() {
    // Sets no bit (x5 = 0), but it is a write.
    for first in [0xb00, 0xc00, 0xf00] {
        let got = passes(Machine, first, |csr| csrrs(0, csr, 5), everything_enabled);
        for (csr, got) in (first..).zip(got) {
            assert_eq!(got, first == 0xb00 && machine_csr(csr), "{csr:#x}");
        }
    }
}

#[test]
fn floating_point_csrs_need_the_unit() {
    let off = |world: &mut World| {
        world.set_csr("mstatus", 0);
    };
    for mode in [User, Machine] {
        let got = passes(mode, 0, |csr| csrr(5, csr), off);
        assert!(got.iter().all(|got| !got), "{mode:?}");
    }
}

/// Each interrupt alone: where it is taken, by the rules of the specification.
#[test]
fn each_interrupt_by_mode_enable_and_delegation() {
    for number in [1u64, 3, 5, 7, 9, 11] {
        for mode in [User, Supervisor, Machine] {
            for bits in 0..32u64 {
                let on = |n: u64| bits >> n & 1 != 0;
                let (mie, sie, enabled, delegated, vectored) = (on(0), on(1), on(2), on(3), on(4));
                let supervisor = number % 4 == 1;
                if delegated && !supervisor {
                    // Machine interrupts cannot be.
                    continue;
                }
                let mut world = World::new(|a| {
                    a.op(NOP);
                });
                world.mode(mode);
                world.device.lines = match number {
                    3 => 1,
                    11 => 2,
                    9 => 4,
                    _ => 0,
                };
                if number == 7 {
                    world.device.mtimecmp = 0;
                }
                world.set_csr("mip", (1 << number) & 0x22);
                world.set_csr(
                    "mie",
                    if enabled {
                        1 << number
                    } else {
                        !(1 << number) & 0xaaa
                    },
                );
                world.set_csr("mideleg", if delegated { 1 << number } else { 0 });
                world.set_csr("mstatus", u64::from(mie) << 3 | u64::from(sie) << 1);
                world.set_csr("mtvec", M_HANDLER | u64::from(vectored));
                world.set_csr("stvec", S_HANDLER | u64::from(vectored));
                let to_s = delegated && (mode == User || (mode == Supervisor && sie));
                let to_m = !delegated && (mode != Machine || mie);
                let offset = if vectored { 4 * number } else { 0 };
                world.check(1, |after| {
                    let case = format!("{number} {mode:?} {bits:#07b}");
                    let (pc, now) = (after.hart.pc, after.hart.mode);
                    if enabled && to_s {
                        assert_eq!((pc, now), (S_HANDLER + offset, Supervisor), "{case}");
                        assert_eq!(after.csr("scause"), 1 << 63 | number);
                        assert_eq!((after.csr("sepc"), after.csr("stval")), (CODE, 0));
                    } else if enabled && to_m {
                        assert_eq!((pc, now), (M_HANDLER + offset, Machine), "{case}");
                        assert_eq!(after.csr("mcause"), 1 << 63 | number);
                        assert_eq!((after.csr("mepc"), after.csr("mtval")), (CODE, 0));
                    } else {
                        assert_eq!((pc, now, after.hart.traps), (CODE + 4, mode, 0), "{case}");
                    }
                });
            }
        }
    }
}

#[test]
fn wfi_wakes_by_what_is_enabled_and_returns_by_delegation() {
    // Asleep in S; SSI comes later. Taken in S, in M, or only waking.
    for (sie, delegated, taken) in [
        (true, true, Some(Supervisor)),
        (false, true, None),
        (true, false, Some(Machine)),
        (false, false, Some(Machine)),
    ] {
        let mut world = World::new(|a| {
            a.ops(&[WFI, addi(5, 0, 1)]);
        });
        world.mode(Supervisor).set_csr("mie", 1 << 9);
        world.set_csr("mideleg", if delegated { 1 << 9 } else { 0 });
        world.set_csr("mstatus", u64::from(sie) << 1);
        world.events.push((3, Event::Lines(4)));
        world.check(2, |after| {
            let got = (after.hart.traps > 0).then_some(after.hart.mode);
            assert_eq!(got, taken, "{sie} {delegated}");
            assert_eq!(after.x(5), u64::from(taken.is_none()));
            let epc = after.csr(if delegated { "sepc" } else { "mepc" });
            assert_eq!(epc, if taken.is_some() { CODE + 4 } else { 0 });
        });
    }
}

#[test]
fn illegal_instructions_say_what_they_were() {
    for (bits, size) in [
        (0x0000_0000u32, 2),
        (0x0000_8000, 2),
        (0xffff_ffff, 4),
        (0x0000_707b, 4),
        (csrr(5, 0x7c0), 4),
        (MRET, 4),
    ] {
        let mut world = World::new(|a| {
            if size == 2 {
                a.c(bits as u16);
            } else {
                a.op(bits);
            }
        });
        world.mode(User);
        world.check(1, |after| {
            let got = (after.csr("mcause"), after.csr("mtval"));
            assert_eq!(got, (2, u64::from(bits)));
        });
    }
}

#[test]
fn counters_and_their_inhibits_by_mode() {
    // cycle and instret stand still one by one; U reads what M stopped.
    for inhibit in [0u64, 1, 4, 5] {
        let mut world = World::new(|a| {
            a.ops(&[csrw(0x320, 5), csrr(6, 0xb00), csrr(7, 0xb02), MRET]);
        });
        world.code(CODE + 0x100, |a| {
            a.ops(&[NOP, csrr(8, 0xc00), csrr(9, 0xc02), NOP, csrr(10, 0xc00)]);
            a.ops(&[csrr(11, 0xc02), csrr(12, 0xc03), ECALL]);
        });
        everything_enabled(&mut world);
        world
            .set_csr("mepc", CODE + 0x100)
            .set_x(5, inhibit | 2 | 1 << 31);
        world.check(14, |after| {
            let cycle = [6, 8, 10].map(|n| after.x(n));
            let instret = [7, 9, 11].map(|n| after.x(n));
            if inhibit & 1 != 0 {
                assert_eq!(cycle, [0, 0, 0]);
            } else {
                assert_eq!(cycle, [1, 5, 8]);
            }
            if inhibit & 4 != 0 {
                assert_eq!(instret, [0, 0, 0]);
            } else {
                assert_eq!(instret, [2, 6, 9]);
            }
            assert_eq!(after.x(12), 0);
            assert_eq!(after.csr("mcountinhibit"), inhibit);
            assert_eq!(after.csr("mcause"), 8);
        });
    }
}
