//! Every compressed instruction against the 32-bit instruction it stands for.

use crate::asm::*;
use crate::world::*;

/// What both forms of a pair of programs must leave behind.
fn same(half: u16, long: u32) {
    let world = |compressed: bool| {
        let mut world = World::new(|a| {
            // Two bytes before and behind keep both programs of one length.
            a.pad_to(CODE + 0x100);
            if compressed {
                a.c(half).c(C_NOP);
            } else {
                a.op(long);
            }
            a.pad_to(CODE + 0x300);
        });
        world.hart.pc = CODE + 0x100;
        for n in 1..32 {
            world.set_x(n, DATA + 0x800 + 8 * n as u64);
            world.hart.f[n] = 0x4000_0000_0000_0000 + n as u64;
            world.word(DATA + 0x800 + 8 * n as u64, 0x1111 * n as u64);
        }
        // Jumps through registers go into the padding.
        world.set_x(1, CODE + 0x180);
        world.set_x(9, CODE + 0x1a0);
        world
    };
    // One step: the compressed form also leaves another link and next pc.
    world(true).check(1, |short| {
        world(false).check(1, |wide| {
            let mut want = wide.hart.clone();
            let in_line = want.pc == CODE + 0x104;
            if in_line {
                want.pc -= 2;
            }
            if want.x[0] == CODE + 0x104 {
                want.x[0] -= 2;
            }
            if csr(&want, "mcause") == 3 {
                assert_eq!(csr(&short.hart, "mcause"), 3);
            }
            assert_eq!(short.hart, want, "{half:#06x} is not {long:#010x}");
            let data = DATA..DATA + 0x1000;
            for at in data.step_by(8) {
                assert_eq!(short.word(at), wide.word(at), "{half:#06x} {long:#010x}");
            }
        });
    });
}

fn fload(f3: u32, rd: u32, rs1: u32, imm: i32) -> u32 {
    i(imm, rs1, f3, rd, 0x07)
}

fn fstore(f3: u32, rs2: u32, rs1: u32, imm: i32) -> u32 {
    s(imm, rs2, rs1, f3, 0x27)
}

#[test]
fn each_form_expands_as_specified() {
    // As GNU as encodes the assembly in the comment.
    for (half, long) in [
        (0x0040, addi(8, 2, 4)),                  // c.addi4spn s0, sp, 4
        (0x1ffc, addi(15, 2, 1020)),              // c.addi4spn a5, sp, 1020
        (0x2500, fload(3, 8, 10, 8)),             // c.fld fs0, 8(a0)
        (0x3fe4, fload(3, 9, 15, 248)),           // c.fld fs1, 248(a5)
        (0x4148, load(2, 10, 10, 4)),             // c.lw a0, 4(a0)
        (0x5ff0, load(2, 12, 15, 124)),           // c.lw a2, 124(a5)
        (0x6508, ld(10, 10, 8)),                  // c.ld a0, 8(a0)
        (0x7fec, ld(11, 15, 248)),                // c.ld a1, 248(a5)
        (0xbfe4, fstore(3, 9, 15, 248)),          // c.fsd fs1, 248(a5)
        (0xdff0, sw(12, 15, 124)),                // c.sw a2, 124(a5)
        (0xffec, sd(11, 15, 248)),                // c.sd a1, 248(a5)
        (0x0001, NOP),                            // c.nop
        (0x157d, addi(10, 10, -1)),               // c.addi a0, -1
        (0x1501, addi(10, 10, -32)),              // c.addi a0, -32
        (0x057d, addi(10, 10, 31)),               // c.addi a0, 31
        (0x357d, addiw(10, 10, -1)),              // c.addiw a0, -1
        (0x2501, addiw(10, 10, 0)),               // c.addiw a0, 0
        (0x5501, addi(10, 0, -32)),               // c.li a0, -32
        (0x457d, addi(10, 0, 31)),                // c.li a0, 31
        (0x6141, addi(2, 2, 16)),                 // c.addi16sp sp, 16
        (0x7101, addi(2, 2, -512)),               // c.addi16sp sp, -512
        (0x617d, addi(2, 2, 496)),                // c.addi16sp sp, 496
        (0x6505, lui(10, 1)),                     // c.lui a0, 1
        (0x757d, lui(10, 0xfffff)),               // c.lui a0, 0xfffff
        (0x657d, lui(10, 31)),                    // c.lui a0, 31
        (0x9101, i(32, 10, 5, 10, 0x13)),         // c.srli a0, 32
        (0x957d, i(0x400 | 63, 10, 5, 10, 0x13)), // c.srai a0, 63
        (0x9901, i(-32, 10, 7, 10, 0x13)),        // c.andi a0, -32
        (0x8d09, r(0x20, 10, 10, 0, 10, 0x33)),   // c.sub a0, a0
        (0x8d2d, r(0, 11, 10, 4, 10, 0x33)),      // c.xor a0, a1
        (0x8d4d, r(0, 11, 10, 6, 10, 0x33)),      // c.or a0, a1
        (0x8d6d, r(0, 11, 10, 7, 10, 0x33)),      // c.and a0, a1
        (0x9d0d, r(0x20, 11, 10, 0, 10, 0x3b)),   // c.subw a0, a1
        (0x9d2d, r(0, 11, 10, 0, 10, 0x3b)),      // c.addw a0, a1
        (0xa001, jal(0, 0)),                      // c.j .
        (0xbffd, jal(0, -2)),                     // c.j .-2
        (0xa019, jal(0, 6)),                      // c.j .+6
        (0xaffd, jal(0, 2046)),                   // c.j .+2046
        (0xb001, jal(0, -2048)),                  // c.j .-2048
        (0xc119, branch(0, 10, 0, 6)),            // c.beqz a0, .+6
        (0xd101, branch(0, 10, 0, -256)),         // c.beqz a0, .-256
        (0xe119, branch(1, 10, 0, 6)),            // c.bnez a0, .+6
        (0xfd7d, branch(1, 10, 0, -2)),           // c.bnez a0, .-2
        (0xed7d, branch(1, 10, 0, 254)),          // c.bnez a0, .+254
        (0x157e, slli(10, 10, 63)),               // c.slli a0, 63
        (0x0506, slli(10, 10, 1)),                // c.slli a0, 1
        (0x2542, fload(3, 10, 2, 16)),            // c.fldsp fa0, 16(sp)
        (0x357e, fload(3, 10, 2, 504)),           // c.fldsp fa0, 504(sp)
        (0x4512, load(2, 10, 2, 4)),              // c.lwsp a0, 4(sp)
        (0x557e, load(2, 10, 2, 252)),            // c.lwsp a0, 252(sp)
        (0x6522, ld(10, 2, 8)),                   // c.ldsp a0, 8(sp)
        (0x757e, ld(10, 2, 504)),                 // c.ldsp a0, 504(sp)
        (0x8482, jalr(0, 9, 0)),                  // c.jr s1
        (0x9482, jalr(1, 9, 0)),                  // c.jalr s1
        (0x852e, add(10, 0, 11)),                 // c.mv a0, a1
        (0x952e, add(10, 10, 11)),                // c.add a0, a1
        (0x9002, EBREAK),                         // c.ebreak
        (0xbfaa, fstore(3, 10, 2, 504)),          // c.fsdsp fa0, 504(sp)
        (0xdfaa, sw(10, 2, 252)),                 // c.swsp a0, 252(sp)
        (0xffaa, sd(10, 2, 504)),                 // c.sdsp a0, 504(sp)
    ] {
        same(half, long);
    }
}

#[test]
fn reserved_compressed_encodings_are_illegal_with_16_bits_of_tval() {
    for half in [
        0x0000u16, 0x0004, 0x8000, 0x9c41, 0x9c61, 0x6101, 0x6081, 0x2001, 0x4002, 0x6002, 0x8002,
    ] {
        let world = World::new(|a| {
            a.c(C_NOP).c(half).op(ILLEGAL);
        });
        world.check(4, |after| {
            assert_eq!(after.csr("mcause"), 2, "{half:#06x}");
            assert_eq!(after.csr("mtval"), u64::from(half));
            assert_eq!(after.csr("mepc"), CODE + 2);
        });
    }
}

#[test]
fn hints_do_nothing() {
    for half in [
        0x0005u16,
        0x157d & !0xf80 | 4,
        0x4005,
        0x6005,
        0x0006,
        0x1002,
        0x900a | 0x4,
        0x802e,
    ] {
        let mut world = World::new(|a| {
            a.c(half).c(C_NOP);
        });
        world.set_x(10, 5);
        let before = world.hart.x.clone();
        world.check(3, |after| {
            assert_eq!(after.hart.x, before, "{half:#06x}");
            assert_eq!(after.hart.traps, 0, "{half:#06x}");
        });
    }
}
