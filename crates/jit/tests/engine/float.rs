//! Floating point as instructions: boxing, FS, flags, rounding modes. The
//! arithmetic itself is tested against SoftFloat in the fp crate.

use crate::asm::*;
use crate::world::*;

const FADD_S: u32 = 0;
const FADD_D: u32 = 1;
const ONE: u64 = 0xffff_ffff_3f80_0000;
const NAN: u64 = 0xffff_ffff_7fc0_0000;

fn fop(f7: u32, rm: u32) -> u32 {
    r(f7, 2, 1, rm, 3, 0x53)
}

#[test]
fn singles_are_boxed_and_unboxed() {
    let mut world = World::new(|a| {
        a.ops(&[
            fop(FADD_S, 0),
            // An operand that isn't boxed is the canonical NaN.
            r(FADD_S, 4, 1, 0, 5, 0x53),
            // fsgnj.s of the same.
            r(0x10, 4, 4, 0, 6, 0x53),
            // fmv.x.w and fsw take the bits as they are.
            r(0x70, 0, 4, 0, 5, 0x53),
            s(0, 4, 10, 2, 0x27),
            i(8, 10, 2, 7, 0x07),
            // fmv.w.x
            r(0x78, 0, 11, 0, 8, 0x53),
        ]);
    });
    world.hart.f[1] = ONE;
    world.hart.f[2] = ONE;
    world.hart.f[4] = 0x1234_5678_bf80_0000;
    world.set_x(10, DATA).word(DATA + 8, 0x1111_1111_4000_0000);
    world.set_x(11, 0x7777_7777_8888_8888);
    world.check(7, |after| {
        let f = &after.hart.f;
        assert_eq!(f[3], 0xffff_ffff_4000_0000);
        assert_eq!([f[5], f[6]], [NAN, NAN]);
        assert_eq!(after.x(5), 0xffff_ffff_bf80_0000);
        assert_eq!(after.word(DATA), 0xbf80_0000);
        assert_eq!(f[7], 0xffff_ffff_4000_0000);
        assert_eq!(f[8], 0xffff_ffff_8888_8888);
        assert_eq!(after.hart.fcsr, 0);
    });
}

#[test]
fn nothing_works_with_the_unit_off() {
    for op in [
        fop(FADD_S, 0),
        fop(FADD_D, 0),
        i(0, 10, 3, 1, 0x07),
        s(0, 1, 10, 3, 0x27),
        r(0x70, 0, 4, 0, 5, 0x53),
        csrr(5, 3),
    ] {
        let mut world = World::new(|a| {
            a.op(op);
        });
        world.set_x(10, DATA).set_csr("mstatus", 0);
        world.check(1, |after| {
            assert_eq!(after.csr("mcause"), 2, "{op:#010x}");
            assert_eq!(after.csr("mtval"), op.into());
        });
    }
}

#[test]
fn rounding_modes_and_flags() {
    // 1 + 2^-24: a tie, inexact. Modes RNE, RTZ, RDN, RUP, RMM.
    let up = 0xffff_ffff_3f80_0001;
    for (rm, frm, want) in [
        (0, 3, Some(ONE)),
        (1, 3, Some(ONE)),
        (2, 3, Some(ONE)),
        (3, 0, Some(up)),
        (4, 0, Some(up)),
        (5, 0, None),
        (6, 0, None),
        (7, 0, Some(ONE)),
        (7, 3, Some(up)),
        (7, 4, Some(up)),
        (7, 5, None),
        (7, 6, None),
        (7, 7, None),
    ] {
        let mut world = World::new(|a| {
            a.op(csrrwi(0, 2, frm)).op(fop(FADD_S, rm)).op(csrr(5, 3));
        });
        world.hart.f[1] = ONE;
        world.hart.f[2] = 0xffff_ffff_3380_0000;
        world.check(3, |after| match want {
            Some(value) => {
                assert_eq!(after.hart.f[3], value, "rm {rm} frm {frm}");
                assert_eq!(after.x(5), u64::from(frm) << 5 | 1);
            }
            None => {
                assert_eq!(after.csr("mcause"), 2, "rm {rm} frm {frm}");
                assert_eq!(after.hart.f[3], 0);
                assert_eq!(after.hart.fcsr, (frm << 5) as u8);
            }
        });
    }
}

#[test]
fn what_makes_the_state_dirty() {
    for (op, dirty) in [
        (fop(FADD_S, 0), true),
        (i(0, 10, 3, 1, 0x07), true),
        (s(0, 1, 10, 3, 0x27), false),
        (r(0x70, 0, 1, 0, 5, 0x53), false),
        (r(0x70, 0, 1, 1, 5, 0x53), false),
        // feq without and with flags: a signalling NaN.
        (r(0x50, 2, 1, 2, 5, 0x53), false),
        (r(0x50, 4, 1, 2, 5, 0x53), true),
        (csrr(5, 3), false),
        (csrrwi(0, 1, 0), true),
    ] {
        let mut world = World::new(|a| {
            a.op(op).op(csrr(6, 0x300));
        });
        world.hart.f[1] = ONE;
        world.hart.f[2] = ONE;
        world.hart.f[4] = 0xffff_ffff_7f80_0001;
        world.set_x(10, DATA);
        world.check(2, |after| {
            assert_eq!(after.x(6) >> 63 == 1, dirty, "{op:#010x}");
            assert_eq!(after.x(6) >> 13 & 3, if dirty { 3 } else { 1 });
        });
    }
}

#[test]
fn operands_are_boxed_only_if_somebody_has_looked() {
    // The first is rounded in another mode than the unit's, and the interpreter does it: it
    // says nothing of what the operands are to the second.
    let both = |f7| [(f7, 2), (f7 + 4, 2), (f7 + 8, 2), (f7 + 0xc, 2)];
    let others = [(0x2c, 0), (0x60, 0), (0x60, 2)];
    for (f7, second) in both(0).into_iter().chain(others) {
        let mut world = World::new(|a| {
            a.ops(&[
                r(f7, second, 1, 1, 3, 0x53),
                r(FADD_S, 2, 1, 0, 4, 0x53),
                r(FADD_S, 2, 1, 7, 5, 0x53),
            ]);
        });
        world.set_csr("mstatus", world.csr("mstatus") | 3 << 13);
        world.hart.f[1] = 1.5f64.to_bits();
        world.hart.f[2] = ONE;
        // With the jump behind them they are a block, which runs as a whole.
        world.check(4, |after| {
            assert_eq!(after.hart.f[4], NAN, "{f7:#x}");
            assert_eq!(after.hart.f[5], NAN, "{f7:#x}");
        });
    }
}

#[test]
fn a_group_of_accesses_around_the_first_instruction_of_the_unit_that_is_translated() {
    // The host has no such rounding mode, so the interpreter adds; the unit's state is
    // loaded for the access after it.
    for (load, width) in [(true, 2), (true, 3), (false, 2), (false, 3)] {
        let mut world = World::new(|a| {
            a.ops(&[r(FADD_S, 2, 1, 4, 3, 0x53), sd(11, 10, 0), ld(12, 10, 16)]);
            a.op(match load {
                true => i(24, 10, width, 4, 0x07),
                false => s(24, 1, 10, width, 0x27),
            });
            a.op(ld(13, 10, 24));
            // Again, when the page's entry is known.
            a.op(branch(1, 12, 0, -20));
        });
        world.set_csr("mstatus", world.csr("mstatus") | 3 << 13);
        world.hart.f[1] = ONE;
        world.hart.f[2] = ONE;
        world.set_x(10, DATA).set_x(11, 7);
        world.word(DATA + 16, 0x1234).word(DATA + 24, 0x5678);
        world.check(40, |after| {
            assert_eq!(after.x(12), 0x1234);
            assert_eq!(after.word(DATA), 7);
        });
    }
}
