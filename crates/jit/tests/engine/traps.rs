//! Entry into and return from handlers; what may be done in which mode.

use crate::asm::*;
use crate::world::*;
use twinvm_cpu::Mode::{self, Machine, Supervisor, User};

const MPP: u64 = 3 << 11;
const TVM: u64 = 1 << 20;
const TW: u64 = 1 << 21;
const TSR: u64 = 1 << 22;
/// With registers: rs1 = x5, rs2 = x6.
const SINVAL_VMA: u32 = 0x1662_8073;
const SFENCE_W_INVAL: u32 = 0x1800_0073;
const SFENCE_INVAL_IR: u32 = 0x1810_0073;

fn one(op: u32) -> World {
    World::new(|a| {
        a.ops(&[NOP, op]);
    })
}

#[test]
fn each_exception_in_each_mode_delegated_or_not() {
    for mode in [User, Supervisor, Machine] {
        let call = [8, 9, 0, 11][mode as usize];
        for (op, cause, tval) in [
            (ILLEGAL, 2, u64::from(ILLEGAL)),
            (EBREAK, 3, CODE + 4),
            (ld(1, 0, 8), 5, 8),
            (sd(1, 0, 8), 7, 8),
            (amo(2, true, 1, 9, 0), 4, DATA + 4),
            (amo(0, true, 1, 9, 0), 6, DATA + 4),
            (ECALL, call, 0),
            (jalr(0, 0, 0x100), 1, 0x100),
        ] {
            for delegate in [false, true] {
                let mut world = one(op);
                world.mode(mode).set_x(9, DATA + 4);
                world.set_csr("mstatus", world.csr("mstatus") | 0xa);
                if delegate {
                    world.set_csr("medeleg", 1 << cause & 0xb3ff);
                }
                let epc = if cause == 1 { 0x100 } else { CODE + 4 };
                // The jump itself retires.
                world.check(if cause == 1 { 3 } else { 2 }, |after| {
                    let status = after.csr("mstatus");
                    if delegate && mode != Machine {
                        assert_eq!(after.csr("scause"), cause);
                        assert_eq!(after.csr("stval"), tval);
                        assert_eq!(after.csr("sepc"), epc);
                        assert_eq!((after.hart.pc, after.hart.mode), (S_HANDLER, Supervisor));
                        // SIE went to SPIE, the mode to SPP; MIE is as it was.
                        assert_eq!(status & 0x2a, 0x28);
                        assert_eq!(status >> 8 & 1, u64::from(mode == Supervisor));
                        assert_eq!(after.csr("mcause"), 0);
                    } else {
                        assert_eq!(after.csr("mcause"), cause);
                        assert_eq!(after.csr("mtval"), tval);
                        assert_eq!(after.csr("mepc"), epc);
                        assert_eq!((after.hart.pc, after.hart.mode), (M_HANDLER, Machine));
                        assert_eq!(status & 0x8a, 0x82);
                        assert_eq!(status >> 11 & 3, mode as u64);
                        assert_eq!(after.csr("scause"), 0);
                    }
                    assert_eq!(after.hart.traps, 1);
                });
            }
        }
    }
}

#[test]
fn interrupts_by_priority_delegation_and_vector() {
    // Most urgent first: MEI, MSI, MTI, SEI, SSI, STI.
    let order = [11u64, 3, 7, 9, 1, 5];
    for from in 0..6 {
        let pending: u64 = order[from..].iter().map(|n| 1 << n).sum();
        let mut world = one(NOP);
        world.device.lines = [(3, 1), (11, 2), (9, 4)]
            .iter()
            .filter(|(n, _)| pending >> n & 1 != 0)
            .map(|(_, line)| line)
            .sum();
        world.device.mtimecmp = if pending >> 7 & 1 != 0 { 0 } else { u64::MAX };
        world.set_csr("mip", pending & 0x22).set_csr("mie", 0xaaa);
        world.set_csr("mstatus", 8).set_csr("mtvec", M_HANDLER | 1);
        world.check(1, |after| {
            assert_eq!(after.csr("mcause"), 1 << 63 | order[from]);
            assert_eq!(after.hart.pc, M_HANDLER + 4 * order[from]);
            assert_eq!(after.csr("mepc"), CODE);
            assert_eq!(after.csr("mtval"), 0);
        });
        // Exceptions are not vectored.
        if from == 0 {
            let mut world = one(ECALL);
            world.set_csr("mtvec", M_HANDLER | 1);
            world.check(2, |after| assert_eq!(after.hart.pc, M_HANDLER));
        }
    }
}

#[test]
fn when_an_interrupt_is_taken() {
    // (mode, MIE, SIE, delegated) -> the mode it is taken in.
    for (mode, mie, sie, delegated, taken) in [
        (Machine, false, true, false, None),
        (Machine, true, false, false, Some(Machine)),
        (Machine, true, true, true, None),
        (Supervisor, false, false, false, Some(Machine)),
        (Supervisor, false, false, true, None),
        (Supervisor, false, true, true, Some(Supervisor)),
        (User, false, false, true, Some(Supervisor)),
        (User, false, false, false, Some(Machine)),
    ] {
        let mut world = one(NOP);
        world.mode(mode).set_csr("mip", 2).set_csr("mie", 2);
        world.set_csr("mideleg", if delegated { 2 } else { 0 });
        let enables = u64::from(mie) << 3 | u64::from(sie) << 1;
        world.set_csr("mstatus", enables);
        world.check(1, |after| {
            let got = (after.hart.traps > 0).then_some(after.hart.mode);
            assert_eq!(got, taken, "{mode:?} {mie} {sie} {delegated}");
        });
    }
    // An M interrupt goes before a delegated one.
    let mut world = one(NOP);
    world.mode(User).set_csr("mip", 0x22).set_csr("mie", 0x22);
    world.set_csr("mideleg", 2);
    world.check(1, |after| assert_eq!(after.csr("mcause"), 1 << 63 | 5));
}

#[test]
fn returns_restore_mode_and_enables() {
    for (previous, mpie) in [(User, true), (Supervisor, false), (Machine, true)] {
        let mut world = one(MRET);
        let mprv = 1 << 17;
        let status = (previous as u64) << 11 | u64::from(mpie) << 7 | mprv;
        world
            .set_csr("mstatus", status)
            .set_csr("mepc", CODE + 0x40);
        world.check(2, |after| {
            let now = after.csr("mstatus");
            assert_eq!((after.hart.mode, after.hart.pc), (previous, CODE + 0x40));
            assert_eq!(now & 8 != 0, mpie);
            assert_eq!(now & (MPP | 0x80), 0x80);
            assert_eq!(now & mprv != 0, previous == Machine);
        });
    }
    for (mode, spp) in [(Supervisor, 0), (Supervisor, 1), (Machine, 1)] {
        let mut world = one(SRET);
        world.mode(mode).set_csr("sepc", CODE + 0x42);
        world.set_csr("mstatus", spp << 8 | 0x20 | 1 << 17);
        world.check(2, |after| {
            let want = if spp == 1 { Supervisor } else { User };
            assert_eq!((after.hart.mode, after.hart.pc), (want, CODE + 0x42));
            assert_eq!(after.csr("mstatus") & (0x122 | 1 << 17), 0x22);
        });
    }
}

fn allowed(op: u32, mode: Mode, status: u64) -> bool {
    let mut world = one(op);
    world.mode(mode).set_csr("mstatus", status);
    let mut legal = false;
    world.check(2, |after| {
        legal = after.hart.traps == 0;
        assert!(legal || after.csr("mcause") == 2);
    });
    legal
}

#[test]
fn privileged_instructions_by_mode() {
    // Legal in U, S, M.
    for (op, status, want) in [
        (SRET, 0, [false, true, true]),
        (SRET, TSR, [false, false, true]),
        (MRET, 0, [false, false, true]),
        (WFI, 0, [false, true, true]),
        (WFI, TW, [false, false, true]),
        (SFENCE, 0, [false, true, true]),
        (SFENCE, TVM, [false, false, true]),
        (SINVAL_VMA, 0, [false, true, true]),
        (SINVAL_VMA, TVM, [false, false, true]),
        (SFENCE_W_INVAL, TVM, [false, true, true]),
        (SFENCE_INVAL_IR, TVM, [false, true, true]),
        (csrr(1, 0x180), 0, [false, true, true]),
        (csrr(1, 0x180), TVM, [false, false, true]),
        (csrw(0x180, 0), TVM, [false, false, true]),
        (csrr(1, 0x100), 0, [false, true, true]),
        (csrr(1, 0x300), 0, [false, false, true]),
        (csrr(1, 0xf14), 0, [false, false, true]),
        (csrw(0xf14, 0), 0, [false; 3]),
        (csrrs(1, 0xf14, 2), 0, [false; 3]),
        (csrr(1, 0x7ff), 0, [false; 3]),
        (csrr(1, 0x200), 0, [false; 3]),
        (csrr(1, 0x001), 0, [false; 3]),
        (csrr(1, 0x001), 1 << 13, [true; 3]),
        (FENCE, 0, [true; 3]),
        (FENCE_I, 0, [true; 3]),
    ] {
        let got = [User, Supervisor, Machine].map(|mode| allowed(op, mode, status));
        assert_eq!(got, want, "{op:#010x} with mstatus {status:#x}");
    }
}
