//! Loads and stores: widths, signs, misalignment, page borders.

use crate::asm::*;
use crate::world::*;
use twinvm_mem::RAM_BASE;

const END: u64 = RAM_BASE + RAM_BYTES;

#[test]
fn widths_signs_and_every_alignment() {
    let bytes: Vec<u8> = (0..32u8).map(|n| n.wrapping_mul(23) ^ 0x85).collect();
    for at in (0..10).chain(4085..4097) {
        for f3 in 0..7 {
            let mut world = World::new(|a| {
                a.ops(&[load(f3, 1, 2, 0), load(f3, 3, 2, 0)]);
            });
            world.ram.push((DATA + at, bytes.clone()));
            world.set_x(2, DATA + at);
            let eight = u64::from_le_bytes(bytes[..8].try_into().unwrap());
            let want = match f3 {
                0 => eight as i8 as u64,
                1 => eight as i16 as u64,
                2 => eight as i32 as u64,
                3 => eight,
                4 => eight & 0xff,
                5 => eight & 0xffff,
                _ => eight & 0xffff_ffff,
            };
            world.check(3, |after| {
                assert_eq!([after.x(1), after.x(3)], [want; 2], "{f3} at {at}");
            });
        }
        for f3 in 0..4 {
            let mut world = World::new(|a| {
                a.ops(&[store(f3, 1, 2, 0), store(0, 3, 2, 0), store(f3, 1, 2, 0)]);
            });
            world.ram.push((DATA + at, bytes.clone()));
            world.set_x(2, DATA + at).set_x(1, 0x0102_0304_0506_0708);
            let mut want = bytes.clone();
            let size = 1 << f3;
            want[..size].copy_from_slice(&0x0102_0304_0506_0708u64.to_le_bytes()[..size]);
            world.check(4, |after| {
                let got = after.memory.slice(DATA + at, 32).unwrap();
                assert_eq!(got, want, "{f3} at {at}");
            });
        }
    }
}

#[test]
fn accesses_outside_ram_fault_and_store_nothing() {
    // The access's address, and that of the part which faults.
    for (at, bad) in [
        (END, END),
        (END - 4, END),
        (END - 1, END),
        (RAM_BASE - 8, RAM_BASE - 8),
        (RAM_BASE - 4, RAM_BASE - 4),
        (u64::MAX - 3, u64::MAX - 3),
        (0, 0),
    ] {
        let mut world = World::new(|a| {
            a.op(ld(1, 2, 0));
        });
        world.set_x(1, 77).set_x(2, at);
        world.check(3, |after| {
            assert_eq!(after.csr("mcause"), 5);
            assert_eq!(after.csr("mtval"), bad);
            assert_eq!(after.x(1), 77);
        });
        let mut world = World::new(|a| {
            a.op(sd(1, 2, 0));
        });
        world.set_x(1, u64::MAX).set_x(2, at);
        world.check(3, |after| {
            assert_eq!(after.csr("mcause"), 7);
            assert_eq!(after.csr("mtval"), bad);
            assert_eq!(after.word(END - 8), 0);
            assert_eq!(after.csr("mepc"), CODE);
        });
    }
}

#[test]
fn a_load_to_x0_still_faults() {
    let mut world = World::new(|a| {
        a.ops(&[ld(0, 2, 0), ld(0, 3, 0)]);
    });
    world.set_x(2, DATA).set_x(3, 0);
    world.check(4, |after| {
        assert_eq!(after.csr("mcause"), 5);
        assert_eq!(after.csr("mepc"), CODE + 4);
    });
}

#[test]
fn misaligned_accesses_to_page_zero_fault_too() {
    for va in 0..16 {
        for f3 in 0..7 {
            let mut ops = vec![(load(f3, 1, 2, 0), 5)];
            if f3 < 4 {
                ops.push((store(f3, 1, 2, 0), 7));
            }
            for (op, cause) in ops {
                let mut world = World::new(|a| {
                    a.op(op);
                });
                world.set_x(1, u64::MAX).set_x(2, va);
                world.check(3, |after| {
                    assert_eq!(after.csr("mcause"), cause, "{op:#010x} at {va}");
                    assert_eq!(after.csr("mtval"), va);
                    assert_eq!(after.x(1), u64::MAX);
                    assert_eq!(after.word(CODE), u64::from(SPIN) << 32 | u64::from(op));
                });
            }
        }
    }
}
