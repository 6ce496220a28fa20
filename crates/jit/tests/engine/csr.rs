//! What CSRs hold, and the counters.

use crate::asm::*;
use crate::world::*;
use twinvm_cpu::Mode::{self, Machine, Supervisor, User};

/// What the list of extensions says: one bit per letter, B for three of them.
fn misa() -> u64 {
    let letter = |name: &&&str| name.len() == 1;
    let letters = twinvm_cpu::EXTENSIONS.iter().filter(letter);
    let has = |name| twinvm_cpu::EXTENSIONS.contains(&name);
    let b = ["zba", "zbb", "zbs"].into_iter().all(has);
    // S and U are modes, not in the list.
    letters.fold(
        2 << 62 | 1 << 18 | 1 << 20 | u64::from(b) << 1,
        |bits, name| bits | 1 << (name.as_bytes()[0] - b'a'),
    )
}

/// Writes all ones and all zeros: the bits that come back.
#[test]
fn writable_bits() {
    for (csr, ones, zeros) in [
        (0x001, 0x1f, 0),
        (0x002, 7, 0),
        (0x003, 0xff, 0),
        (0x104, 0, 0),
        (0x105, !2, 0),
        (0x106, 0xffff_ffff, 0),
        (0x10a, 0xf1, 0),
        (0x140, !0, 0),
        (0x141, !1, 0),
        (0x142, !0, 0),
        (0x144, 0, 0),
        (0x14d, !0, 0),
        // All ones name no mode: satp keeps what it had.
        (0x180, 0, 0),
        (0x302, 0xb3ff, 0),
        (0x303, 0x222, 0),
        (0x304, 0xaaa, 0),
        (0x305, !2, 0),
        (0x306, 0xffff_ffff, 0),
        (0x30a, 5 << 61 | 0xf1, 0),
        (0x320, 5, 0),
        (0x340, !0, 0),
        (0x341, !1, 0),
        (0x342, !0, 0),
        (0x343, !0, 0),
        (0x301, misa(), misa()),
        (0xb03, 0, 0),
        (0x323, 0, 0),
        (0x7a0, 0, 0),
        (0x7a1, 0, 0),
        (0x7a2, 0, 0),
        (0x7a3, 0, 0),
    ] {
        let mut world = World::new(|a| {
            a.ops(&[csrw(csr, 5), csrr(6, csr), csrw(csr, 0), csrr(7, csr)]);
        });
        // tvec modes 2 and 3 don't exist: bit 0 falls too.
        let ones = if ones == !2 { !3 } else { ones };
        world.set_x(5, u64::MAX);
        world.check(4, |after| {
            assert_eq!(after.hart.traps, 0, "{csr:#x}");
            assert_eq!((after.x(6), after.x(7)), (ones, zeros), "{csr:#x}");
        });
    }
}

#[test]
fn the_reserved_value_of_cbie_reads_back_as_0() {
    for csr in [0x10a, 0x30a] {
        for (written, read) in [(0x10, 0x10), (0x20, 0), (0x30, 0x30), (0xe1, 0xc1)] {
            let world = World::new(|a| {
                a.li(5, written).ops(&[csrw(csr, 5), csrr(6, csr)]);
            });
            world.check(4, |after| {
                assert_eq!(after.x(6), read, "{csr:#x} {written:#x}")
            });
        }
    }
}

#[test]
fn status_views() {
    let mut world = World::new(|a| {
        a.ops(&[
            csrw(0x300, 5),
            csrr(6, 0x300),
            csrr(7, 0x100),
            // MPP = 2 is no mode: the field becomes U.
            csrw(0x300, 8),
            csrr(9, 0x300),
            csrw(0x100, 0),
            csrr(10, 0x300),
        ]);
    });
    world.set_x(5, u64::MAX).set_x(8, 2 << 11);
    world.check(7, |after| {
        assert_eq!(after.x(6), 0x8000_000a_007e_79aa);
        assert_eq!(after.x(7), 0x8000_0002_000c_6122);
        assert_eq!(after.x(9), 0xa_0000_0000);
        assert_eq!(after.x(10), 0xa_0000_0000);
    });
}

/// What S-mode reads of mstatus, and the switch of its interrupts, by all ways.
#[test]
fn sstatus_is_read_and_interrupts_switched_in_each_mode() {
    let csrrci = |rd: u32, imm: u32| imm << 15 | 7 << 12 | rd << 7 | 0x73 | 0x100 << 20;
    for mode in [Supervisor, Machine, User] {
        for status in [
            0, 0x22, 0x2, 0x120, 0x2122, 0x6002, 0x4000, 0xc_6122, 0x8_0000,
        ] {
            for set in [0, 2, 0x20, 0x4000, 0x4_0002, 1 << 33, u64::MAX << 32] {
                let mut world = World::new(|a| {
                    // Of a sum with 32 bits, the upper half is put off.
                    a.op(r(0, 9, 9, 0, 9, 0x3b));
                    a.op(csrrci(6, 2)).op(csrr(7, 0x100));
                    a.op(csrrs(8, 0x100, 5)).op(csrr(10, 0x100));
                    a.op(csrrs(5, 0x100, 5)).op(csrrci(0, 2));
                    a.op(csrrci(11, 3)).op(csrr(0, 0x100)).op(csrr(12, 0x300));
                });
                world.hart.mode = mode;
                let whole = status | 0xa_0000_0000;
                world.set_csr("mstatus", whole);
                world.set_x(5, set).set_x(9, 0x7fff_ffff);
                world.check(11, |after| {
                    if mode == User {
                        assert_eq!(after.x(6), 0);
                        return;
                    }
                    let read = |status: u64| {
                        let dirty = status & 0x6000 == 0x6000;
                        status & 0x2_000c_6122 | u64::from(dirty) << 63
                    };
                    let off = whole & !2;
                    let on = off | set & 0xc_6122;
                    assert_eq!([after.x(6), after.x(7)], [read(whole), read(off)]);
                    assert_eq!([after.x(8), after.x(10)], [read(off), read(on)]);
                    assert_eq!([after.x(5), after.x(11)], [read(on), read(on & !2)]);
                });
            }
        }
    }
}

#[test]
fn supported_and_unsupported_translation_modes() {
    let sv39 = 8 << 60 | 0xabcd << 44 | 0x12345;
    let mut world = World::new(|a| {
        a.ops(&[
            csrw(0x180, 5),
            csrr(6, 0x180),
            csrw(0x180, 7),
            csrr(8, 0x180),
        ]);
        a.ops(&[csrw(0x180, 9), csrr(10, 0x180)]);
    });
    world.set_x(5, sv39).set_x(7, 10 << 60 | 1).set_x(9, 5);
    world.check(6, |after| {
        assert_eq!([after.x(6), after.x(8), after.x(10)], [sv39, sv39, 0]);
    });
}

#[test]
fn interrupt_registers_through_delegation() {
    let mut world = World::new(|a| {
        a.ops(&[
            csrr(6, 0x104),
            csrr(7, 0x144),
            csrw(0x104, 5),
            csrr(8, 0x304),
        ]);
        // Only SSIP can be written through sip.
        a.ops(&[
            csrw(0x144, 0),
            csrr(9, 0x344),
            csrw(0x144, 5),
            csrr(10, 0x344),
        ]);
    });
    world.set_csr("mideleg", 0x22).set_csr("mie", 0xa8a);
    world.set_csr("mip", 0x222).set_x(5, u64::MAX);
    world.check(8, |after| {
        assert_eq!([after.x(6), after.x(7)], [0x02, 0x22]);
        assert_eq!(after.x(8), 0xaaa);
        assert_eq!([after.x(9), after.x(10)], [0x220, 0x222]);
    });
}

#[test]
fn an_external_line_is_not_copied_into_the_software_bit() {
    let mut world = World::new(|a| {
        // SEIP reads 1 by the line; the set of SSIP must not make it stick.
        a.ops(&[
            csrrs(6, 0x344, 5),
            csrr(7, 0x344),
            sd(0, 8, 8),
            csrr(9, 0x344),
        ]);
        a.ops(&[csrrs(0, 0x344, 10), csrr(11, 0x344)]);
    });
    world.device.lines = 4;
    world.set_x(5, 2).set_x(8, DEVICE).set_x(10, 0x200);
    world.check(6, |after| {
        let got = [6, 7, 9, 11].map(|n| after.x(n));
        assert_eq!(got, [0x200, 0x202, 2, 0x202]);
    });
}

#[test]
fn set_and_clear_return_the_old_value() {
    let mut world = World::new(|a| {
        a.ops(&[
            csrrw(5, 0x340, 5),
            csrrs(6, 0x340, 7),
            csrrc(8, 0x340, 9),
            csrrwi(10, 0x340, 21),
            csrr(11, 0x340),
        ]);
    });
    world
        .set_csr("mscratch", 1)
        .set_x(5, 0xf0)
        .set_x(7, 0x0f)
        .set_x(9, 0x3c);
    world.check(5, |after| {
        let got = [5, 6, 8, 10, 11].map(|n| after.x(n));
        assert_eq!(got, [1, 0xf0, 0xff, 0xc3, 21]);
    });
}

#[test]
fn counters_count_steps_and_retired_instructions() {
    let mut world = World::new(|a| {
        a.ops(&[csrr(5, 0xb00), csrr(6, 0xb02), ECALL]);
    });
    world.code(M_HANDLER, |a| {
        a.ops(&[csrr(7, 0xb00), csrr(8, 0xb02)]);
        // A write is what the next instruction reads.
        a.ops(&[
            csrw(0xb00, 20),
            csrr(9, 0xb00),
            csrw(0xb02, 20),
            csrr(10, 0xb02),
        ]);
        // Stopped, written while stopped, and on again.
        a.ops(&[csrrwi(0, 0x320, 5), csrr(11, 0xb00), NOP, csrr(12, 0xb00)]);
        a.ops(&[csrw(0xb02, 21), csrr(13, 0xb02), csrrwi(0, 0x320, 0)]);
        a.ops(&[csrr(14, 0xb00), csrr(15, 0xb02)]);
    });
    world.icount = 1000;
    world.set_x(20, 5000).set_x(21, 7);
    world.check(25, |after| {
        assert_eq!([after.x(5), after.x(6)], [1000, 1001]);
        // Steps 3 (the trap) and 3, 4: one retired less than steps.
        assert_eq!([after.x(7), after.x(8)], [1003, 1003]);
        assert_eq!([after.x(9), after.x(10)], [5000, 5000]);
        assert_eq!(after.x(11), after.x(12));
        assert_eq!(after.x(13), 7);
        // The instruction that releases counts itself.
        assert_eq!(after.x(14), after.x(11) + 1);
        assert_eq!(after.x(15), 7 + 2);
    });
}

#[test]
fn counter_enables() {
    let legal = |csr: u32, mode: Mode, m: u64, s: u64| {
        let mut world = World::new(|a| {
            a.op(csrr(5, csr));
        });
        world
            .mode(mode)
            .set_csr("mcounteren", m)
            .set_csr("scounteren", s);
        let mut legal = false;
        world.check(1, |after| legal = after.hart.traps == 0);
        legal
    };
    for (csr, bit) in [(0xc00, 1), (0xc01, 2), (0xc02, 4), (0xc1f, 1 << 31)] {
        assert!(legal(csr, Machine, 0, 0));
        for (m, s, want) in [
            (0, bit, [false, false]),
            (bit, 0, [true, false]),
            (bit, bit, [true, true]),
            (!bit & 0xffff_ffff, 0xffff_ffff, [false, false]),
        ] {
            let got = [legal(csr, Supervisor, m, s), legal(csr, User, m, s)];
            assert_eq!(got, want, "{csr:#x} {m:#x} {s:#x}");
        }
    }
}

#[test]
fn triggers_are_for_machine_mode() {
    let mut world = World::new(|a| {
        a.op(csrr(5, 0x7a0));
    });
    world.mode(Supervisor);
    world.check(1, |after| assert_eq!(after.hart.traps, 1));
}

#[test]
fn the_supervisor_compare_register_needs_permission() {
    for (stce, tm, want) in [(0, 0, false), (1, 0, false), (0, 2, false), (1, 2, true)] {
        let mut world = World::new(|a| {
            a.op(csrw(0x14d, 0));
        });
        world.mode(Supervisor).set_csr("menvcfg", stce << 63);
        world.set_csr("mcounteren", tm);
        world.check(1, |after| assert_eq!(after.hart.traps == 0, want));
    }
}

#[test]
fn software_bits_of_mip() {
    // STIP is software's only while Sstc is off; lines can't be written.
    for (stce, want) in [(0, 0x222), (1u64 << 63, 0x202)] {
        let mut world = World::new(|a| {
            a.ops(&[
                csrw(0x344, 5),
                csrr(6, 0x344),
                csrw(0x344, 0),
                csrr(7, 0x344),
            ]);
        });
        world.set_csr("menvcfg", stce).set_x(5, u64::MAX);
        world.check(4, |after| assert_eq!([after.x(6), after.x(7)], [want, 0]));
    }
}
