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
