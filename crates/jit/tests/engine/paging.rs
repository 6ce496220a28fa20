//! The Sv39 walk: permissions, accessed and dirty bits, superpages, addresses.

use crate::asm::*;
use crate::tables::*;
use crate::world::*;
use twinvm_cpu::Mode::{self, Machine, Supervisor, User};
use twinvm_mem::RAM_BASE;

const SUM: u64 = 1 << 18;
const MXR: u64 = 1 << 19;
const MPRV: u64 = 1 << 17;
const ADUE: u64 = 1 << 61;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Load,
    Store,
    Fetch,
}

/// One access of `kind` to page 0 by `mode`; the cause, or 0, and the entry then.
fn access(kind: Kind, mode: Mode, status: u64, flags: u64, adue: bool) -> (u64, u64) {
    let mut world = World::new(|_| {});
    world.paged(mode).map(0, data_page(0), flags);
    world.set_csr("menvcfg", if adue { ADUE } else { 0 });
    world.set_csr("mstatus", world.csr("mstatus") | status);
    // U-mode code through its own mapping of RAM.
    world.word(slot(ROOT, 3), pte(RAM_BASE, V | R | W | X | U | A | D));
    if mode == User {
        world.hart.pc = 0xc000_0000;
    }
    world.set_x(10, page(0) + 8);
    world.code(CODE, |a| {
        a.op(match kind {
            Kind::Load => ld(1, 10, 0),
            Kind::Store => sd(1, 10, 0),
            Kind::Fetch => jalr(0, 10, 0),
        });
    });
    world.word(data_page(0) + 8, SPIN.into());
    let mut result = (0, 0);
    world.check(2, |after| {
        result = (after.csr("mcause"), after.word(LEAF));
        if result.0 != 0 {
            assert_eq!(after.csr("mtval"), page(0) + 8);
        }
    });
    result
}

#[test]
fn permissions() {
    for bits in 0..16 {
        for user in [0, U] {
            let flags = V | bits << 1 & 14 | user;
            let (r, w, x) = (flags & R != 0, flags & W != 0, flags & X != 0);
            // The others are pointers or reserved.
            let leaf = r || (x && !w);
            let flags = flags | A | D;
            for mode in [User, Supervisor] {
                for status in [0, SUM, MXR, SUM | MXR] {
                    let mine = if mode == User {
                        user != 0
                    } else {
                        user == 0 || status & SUM != 0
                    };
                    let readable = r || (status & MXR != 0 && x);
                    let fetchable = (mode == User) == (user != 0);
                    for (kind, ok, cause) in [
                        (Kind::Load, leaf && mine && readable, 13),
                        (Kind::Store, leaf && mine && w, 15),
                        (Kind::Fetch, leaf && fetchable && x, 12),
                    ] {
                        let want = if ok { 0 } else { cause };
                        let (got, entry) = access(kind, mode, status, flags, true);
                        assert_eq!(got, want, "{kind:?} {mode:?} {status:#x} {flags:#x}");
                        assert_eq!(entry, pte(data_page(0), flags));
                    }
                }
            }
        }
    }
}

#[test]
fn accessed_and_dirty_bits() {
    let page = V | R | W | X;
    for (kind, set, cause) in [
        (Kind::Load, A, 13),
        (Kind::Fetch, A, 12),
        (Kind::Store, A | D, 15),
    ] {
        for bits in [0, A, D, A | D] {
            let entry = |bits| pte(data_page(0), page | bits);
            let got = access(kind, Supervisor, 0, page | bits, true);
            assert_eq!(got, (0, entry(bits | set)), "{kind:?} {bits:#x}");
            // Without Svadu a clear bit faults.
            let got = access(kind, Supervisor, 0, page | bits, false);
            let want = if bits & set == set { 0 } else { cause };
            assert_eq!(got, (want, entry(bits)), "{kind:?} {bits:#x} ADUE = 0");
        }
        // A walk that faults changes nothing.
        let refused = [V | X | U, V | R | U, V | R | W | X | U][kind as usize];
        let (got, entry) = access(kind, Supervisor, 0, refused, true);
        assert_eq!((got, entry), (cause, pte(data_page(0), refused)));
    }
}

#[test]
fn reserved_bits_and_pointers() {
    let leaf = pte(data_page(0), DATA_PAGE);
    for (slot_at, entry, cause) in [
        (LEAF, leaf | 1 << 54, 13),
        (LEAF, leaf | 1 << 60, 13),
        (LEAF, leaf | 1 << 61, 13),
        (LEAF, leaf | 1 << 63, 13),
        // The software's bits and G are free.
        (LEAF, leaf | 3 << 8 | 1 << 5, 0),
        // A pointer at the lowest level.
        (LEAF, pte(LEAF2, V), 13),
        // Pointers with U, A or D.
        (MID, pte(LEAF, V | U), 13),
        (MID, pte(LEAF, V | A), 13),
        (MID, pte(LEAF, V | D), 13),
        (MID, pte(LEAF, V | 3 << 8), 0),
        // Tables outside RAM.
        (MID, pte(0x1000, V), 5),
        (slot(ROOT, 1), pte(DEVICE, V), 5),
        // A page outside RAM: the translation is fine, the access isn't.
        (LEAF, pte(0x1000, DATA_PAGE), 5),
    ] {
        let mut world = World::new(|a| {
            a.op(ld(1, 10, 0));
        });
        world.paged(Supervisor).map(0, data_page(0), DATA_PAGE);
        world.word(slot_at, entry).set_x(10, page(0));
        world.check(2, |after| {
            assert_eq!(after.csr("mcause"), cause, "{entry:#x} at {slot_at:#x}");
        });
    }
}

#[test]
fn superpages_and_their_alignment() {
    for (at, pa, ok) in [
        (MID, RAM_BASE, true),
        (MID, RAM_BASE + 0x1000, false),
        (MID, RAM_BASE + 0x10_0000, false),
        (slot(ROOT, 1), RAM_BASE, true),
        (slot(ROOT, 1), RAM_BASE + 0x20_0000, false),
    ] {
        let mut world = World::new(|a| {
            a.ops(&[ld(1, 10, 0), sd(1, 10, 8)]);
        });
        world.paged(Supervisor).word(at, pte(pa, V | R | W));
        world.set_x(10, VIRTUAL + (data_page(3) - RAM_BASE));
        world.check(3, |after| {
            if ok {
                assert_eq!(after.x(1), 0x103);
                assert_eq!(after.word(data_page(3) + 8), 0x103);
                assert_eq!(after.word(at), pte(pa, DATA_PAGE));
            } else {
                assert_eq!(after.csr("mcause"), 13);
                assert_eq!(after.word(at), pte(pa, V | R | W));
            }
        });
    }
}

#[test]
fn addresses_that_are_not_canonical() {
    for va in [
        1 << 39,
        1 << 38,
        0xffff_ffbf_ffff_f000,
        1 << 63,
        0x7fff_ffff_ffff_f000,
    ] {
        for (op, cause) in [(ld(1, 10, 0), 13), (sd(1, 10, 0), 15), (jalr(0, 10, 0), 12)] {
            let mut world = World::new(|a| {
                a.op(op);
            });
            world.paged(Supervisor).set_x(10, va);
            // Both halves of the root are mapped: only the address is at fault.
            for n in [0, 256, 511] {
                world.word(slot(ROOT, n), pte(RAM_BASE, DATA_PAGE | X));
            }
            world.check(2, |after| {
                assert_eq!(after.csr("mcause"), cause, "{va:#x}");
                assert_eq!(after.csr("mtval"), va);
            });
        }
    }
    // The highest page is fine.
    let mut world = World::new(|a| {
        a.op(ld(1, 10, 0));
    });
    world.paged(Supervisor);
    world.word(slot(ROOT, 511), pte(RAM_BASE, DATA_PAGE));
    world.set_x(10, 0xffff_ffff_c000_0000 + (data_page(2) - RAM_BASE));
    world.check(1, |after| assert_eq!(after.x(1), 0x102));
}

#[test]
fn an_access_on_two_pages_stores_both_or_none() {
    for (second, ok) in [(DATA_PAGE, true), (V | R | A, false), (0, false)] {
        for shift in 1..8 {
            let mut world = World::new(|a| {
                a.ops(&[sd(1, 10, 0), ld(2, 10, 0)]);
            });
            world.paged(Supervisor).map(0, data_page(0), DATA_PAGE);
            // Not the next page in memory.
            world.map(1, data_page(5), second);
            let va = page(1) - shift;
            world.set_x(1, 0x0807_0605_0403_0201).set_x(10, va);
            let mut bytes = [0u8; 16];
            bytes[8..].copy_from_slice(&0x105u64.to_le_bytes());
            world.check(2, |after| {
                if ok {
                    assert_eq!(after.x(2), 0x0807_0605_0403_0201);
                    assert_ne!(after.word(data_page(5)), 0x105);
                } else {
                    assert_eq!(after.csr("mcause"), 15);
                    assert_eq!(after.csr("mtval"), page(1));
                    assert_eq!(after.csr("mepc"), CODE);
                    assert_eq!(after.word(data_page(1) - 8), 0);
                    assert_eq!(after.word(data_page(5)), 0x105);
                }
            });
        }
    }
}

#[test]
fn an_instruction_on_two_pages_whose_second_faults() {
    for (second, cause) in [(CODE_PAGE, 0), (DATA_PAGE, 12), (0, 12)] {
        let mut world = World::new(|_| {});
        world.paged(Supervisor);
        world
            .map(0, data_page(0), CODE_PAGE)
            .map(1, data_page(5), second);
        let op = addi(5, 0, 0x123).to_le_bytes();
        world.ram.push((data_page(1) - 2, op[..2].to_vec()));
        world.ram.push((data_page(5), op[2..].to_vec()));
        world
            .ram
            .push((data_page(5) + 2, SPIN.to_le_bytes().to_vec()));
        world.hart.pc = page(1) - 2;
        world.check(2, |after| {
            assert_eq!(after.csr("mcause"), cause);
            if cause == 0 {
                assert_eq!(after.x(5), 0x123);
            } else {
                assert_eq!(after.csr("mepc"), page(1) - 2);
                assert_eq!(after.csr("mtval"), page(1));
            }
        });
    }
}

#[test]
fn machine_mode_translates_for_mprv_only() {
    for (mprv, mpp, flags, want) in [
        (0, 1, DATA_PAGE, Some(5)),
        (MPRV, 1, DATA_PAGE, None),
        (MPRV, 3, DATA_PAGE, Some(5)),
        (MPRV, 0, DATA_PAGE, Some(13)),
        (MPRV, 0, DATA_PAGE | U, None),
        (MPRV, 1, DATA_PAGE | U, Some(13)),
    ] {
        let mut world = World::new(|a| {
            a.ops(&[ld(1, 10, 0), csrrc(0, 0x300, 11), ld(2, 12, 0)]);
        });
        world.paged(Machine).map(0, data_page(4), flags);
        world.set_csr("mstatus", mprv | mpp << 11);
        world
            .set_x(10, page(0))
            .set_x(11, MPRV)
            .set_x(12, data_page(2));
        world.check(3, |after| match want {
            None => assert_eq!([after.x(1), after.x(2)], [0x104, 0x102]),
            Some(cause) => assert_eq!(after.csr("mcause"), cause),
        });
    }
}
