//! Several harts: turns, what harts send each other, and that a run's cuts don't matter.

use super::guest::*;
use crate::harts::TURN_STEPS;
use crate::*;
use twinvm_log::{Body, Record};

/// Two harts wake each other by IPI for ever; s1 counts.
const PINGPONG: &[u32] = &[
    // start:
    0x0020_0293, // addi t0,zero,2
    0x1042_a073, // csrrs zero,sie,t0
    0x0205_1463, // bne a0,zero,second
    0x0048_58b7, // lui a7,0x485
    0x34d8_889b, // addiw a7,a7,845
    0x0000_0813, // addi a6,zero,0
    0x0010_0513, // addi a0,zero,1
    0x0000_0597, // auipc a1,0x0
    0xfe45_8593, // addi a1,a1,-28
    0x0000_0073, // ecall
    0x0020_0413, // addi s0,zero,2
    0x01c0_006f, // jal zero,send
    // second:
    0x0010_0413, // addi s0,zero,1
    // wait:
    0x1050_0073, // wfi
    0x1440_2373, // csrrs t1,sip,zero
    0x0023_7313, // andi t1,t1,2
    0xfe03_0ae3, // beq t1,zero,wait
    0x1442_b073, // csrrc zero,sip,t0
    // send:
    0x0014_8493, // addi s1,s1,1
    0x0073_58b7, // lui a7,0x735
    0x0498_889b, // addiw a7,a7,73
    0x0000_0813, // addi a6,zero,0
    0x0004_0513, // addi a0,s0,0
    0x0000_0593, // addi a1,zero,0
    0x0000_0073, // ecall
    0xfd1f_f06f, // jal zero,wait
];

/// Two harts take a lock (LR/SC, `pause` while it is taken) ten times each, hold it for 4000
/// steps, count up the word behind it and then wait for ever. s2 counts turns lost at the lock.
const LOCK: &[u32] = &[
    // start:
    0x0005_0a13, // addi s4,a0,0
    0x0205_1063, // bne a0,zero,work
    0x0048_58b7, // lui a7,0x485
    0x34d8_889b, // addiw a7,a7,845
    0x0000_0813, // addi a6,zero,0
    0x0010_0513, // addi a0,zero,1
    0x0000_0597, // auipc a1,0x0
    0xfe85_8593, // addi a1,a1,-24
    0x0000_0073, // ecall
    // work:
    0x8040_0437, // lui s0,0x80400
    0x0204_1413, // slli s0,s0,0x20
    0x0204_5413, // srli s0,s0,0x20
    0x00a0_0493, // addi s1,zero,10
    // acquire:
    0x1004_32af, // lr.d t0,(s0)
    0x0202_9e63, // bne t0,zero,spin
    0x0010_0313, // addi t1,zero,1
    0x1864_33af, // sc.d t2,t1,(s0)
    0xfe03_98e3, // bne t2,zero,acquire
    0x0084_3e03, // ld t3,8(s0)
    0x7d00_0e93, // addi t4,zero,2000
    // delay:
    0xfffe_8e93, // addi t4,t4,-1
    0xfe0e_9ee3, // bne t4,zero,delay
    0x001e_0e13, // addi t3,t3,1
    0x01c4_3423, // sd t3,8(s0)
    0x0a04_302f, // amoswap.d.rl zero,zero,(s0)
    0xfff4_8493, // addi s1,s1,-1
    0xfc04_96e3, // bne s1,zero,acquire
    // end:
    0x1050_0073, // wfi
    0xffdf_f06f, // jal zero,end
    // spin:
    0x0019_0913, // addi s2,s2,1
    0x0100_000f, // pause
    0xfb9f_f06f, // jal zero,acquire
];

/// Hart 0 asks and says all that HSM knows, hart 1 suspends itself, resumes elsewhere and stops.
const HSM: &[u32] = &[
    // start:
    0x0a05_1663, // bne a0,zero,second
    0x0048_58b7, // lui a7,0x485
    0x34d8_889b, // addiw a7,a7,845
    0x0020_0813, // addi a6,zero,2
    0x0010_0513, // addi a0,zero,1
    0x0000_0073, // ecall
    0x0005_8913, // addi s2,a1,0
    0x0000_0813, // addi a6,zero,0
    0x0010_0513, // addi a0,zero,1
    0x0000_0597, // auipc a1,0x0
    0xfdc5_8593, // addi a1,a1,-36
    0x04d0_0613, // addi a2,zero,77
    0x0000_0073, // ecall
    0x0005_0993, // addi s3,a0,0
    0x0010_0513, // addi a0,zero,1
    0x0000_0073, // ecall
    0x0005_0a13, // addi s4,a0,0
    0x0020_0813, // addi a6,zero,2
    0x0090_0513, // addi a0,zero,9
    0x0000_0073, // ecall
    0x0005_0a93, // addi s5,a0,0
    0x0100_000f, // pause
    0x0010_0513, // addi a0,zero,1
    0x0000_0073, // ecall
    0x0005_8b13, // addi s6,a1,0
    0x0073_58b7, // lui a7,0x735
    0x0498_889b, // addiw a7,a7,73
    0x0000_0813, // addi a6,zero,0
    0x0020_0513, // addi a0,zero,2
    0x0000_0593, // addi a1,zero,0
    0x0000_0073, // ecall
    0x0100_000f, // pause
    0x0048_58b7, // lui a7,0x485
    0x34d8_889b, // addiw a7,a7,845
    0x0020_0813, // addi a6,zero,2
    0x0010_0513, // addi a0,zero,1
    0x0000_0073, // ecall
    0x0005_8b93, // addi s7,a1,0
    0x0010_0813, // addi a6,zero,1
    0x0000_0073, // ecall
    0x0005_0c13, // addi s8,a0,0
    // end:
    0x1050_0073, // wfi
    0xffdf_f06f, // jal zero,end
    // second:
    0x0005_8413, // addi s0,a1,0
    0x0020_0293, // addi t0,zero,2
    0x1042_a073, // csrrs zero,sie,t0
    0x0048_58b7, // lui a7,0x485
    0x34d8_889b, // addiw a7,a7,845
    0x0030_0813, // addi a6,zero,3
    0x8000_0537, // lui a0,0x80000
    0x0000_0597, // auipc a1,0x0
    0x0145_8593, // addi a1,a1,20
    0x0630_0613, // addi a2,zero,99
    0x0000_0073, // ecall
    0x0000_006f, // jal zero,second+0x2c
    // resumed:
    0x0005_8493, // addi s1,a1,0
    0x0010_0813, // addi a6,zero,1
    0x0048_58b7, // lui a7,0x485
    0x34d8_889b, // addiw a7,a7,845
    0x0000_0073, // ecall
    0x0000_006f, // jal zero,resumed+0x14
];

/// Hart 1 counts in s1, hart 0 counts its turns there.
const TURNS: &[u32] = &[
    // start:
    0x0205_1663, // bne a0,zero,count
    0x0048_58b7, // lui a7,0x485
    0x34d8_889b, // addiw a7,a7,845
    0x0000_0813, // addi a6,zero,0
    0x0010_0513, // addi a0,zero,1
    0x0000_0597, // auipc a1,0x0
    0xfec5_8593, // addi a1,a1,-20
    0x0000_0073, // ecall
    // again:
    0x0014_8493, // addi s1,s1,1
    0x0100_000f, // pause
    0xff9f_f06f, // jal zero,again
    // count:
    0x0014_8493, // addi s1,s1,1
    0xffdf_f06f, // jal zero,count
];

/// Hart 1 sets a timer for tick 200, hart 0 for tick 500; both wait, then count in s1.
const TIMERS: &[u32] = &[
    // start:
    0x0200_0293, // addi t0,zero,32
    0x1042_a073, // csrrs zero,sie,t0
    0x0c80_0313, // addi t1,zero,200
    0x0205_1263, // bne a0,zero,set
    0x0048_58b7, // lui a7,0x485
    0x34d8_889b, // addiw a7,a7,845
    0x0000_0813, // addi a6,zero,0
    0x0010_0513, // addi a0,zero,1
    0x0000_0597, // auipc a1,0x0
    0xfe05_8593, // addi a1,a1,-32
    0x0000_0073, // ecall
    0x1f40_0313, // addi t1,zero,500
    // set:
    0x14d3_1073, // csrrw zero,stimecmp,t1
    0x1050_0073, // wfi
    0x0014_8493, // addi s1,s1,1
    0xfff0_0313, // addi t1,zero,-1
    0x14d3_1073, // csrrw zero,stimecmp,t1
    0x1050_0073, // wfi
];

/// In machine mode: hart 0 wakes hart 1 by the CLINT, that one hart 2, which ends with pass.
const SOFTWARE_INTERRUPTS: &[u32] = &[
    // start:
    0xf140_2e73, // csrrs t3,mhartid,zero
    0x04ae_1c63, // bne t3,a0,fail
    0x0080_0293, // addi t0,zero,8
    0x3042_a073, // csrrs zero,mie,t0
    0x0200_0437, // lui s0,0x2000
    0x0025_1313, // slli t1,a0,0x2
    0x0064_04b3, // add s1,s0,t1
    0x0005_0c63, // beq a0,zero,pass
    // wait:
    0x1050_0073, // wfi
    0x3440_2373, // csrrs t1,mip,zero
    0x0053_7333, // and t1,t1,t0
    0xfe03_0ae3, // beq t1,zero,wait
    0x0004_a023, // sw zero,0(s1)
    // pass:
    0x0020_0393, // addi t2,zero,2
    0x0075_0863, // beq a0,t2,done
    0x0010_0313, // addi t1,zero,1
    0x0064_a223, // sw t1,4(s1)
    0xfddf_f06f, // jal zero,wait
    // done:
    0x0010_0337, // lui t1,0x100
    0x0000_53b7, // lui t2,0x5
    0x5553_8393, // addi t2,t2,1365
    0x0073_2023, // sw t2,0(t1)
    0x0000_006f, // jal zero,done+0x10
    // fail:
    0x0010_0337, // lui t1,0x100
    0x0000_33b7, // lui t2,0x3
    0x3333_8393, // addi t2,t2,819
    0x0073_2023, // sw t2,0(t1)
    0x0000_006f, // jal zero,fail+0x10
];

const S0: u8 = 8;
const S1: u8 = 9;
const S2: u8 = 18;

fn several(code: &[u32], harts: u32) -> MachineConfig {
    MachineConfig {
        harts,
        ..config(Asm(code.to_vec()))
    }
}

fn start(code: &[u32], harts: u32) -> Machine {
    Machine::new(several(code, harts), POWER_ON).unwrap()
}

/// An anchor at which time stands still.
fn set_time(m: &mut Machine, mtime: u64) {
    m.inject(&Record {
        icount: m.icount(),
        body: Body::Anchor {
            mtime,
            rate: 0,
            span: 0,
            tell_tale: 0,
        },
    })
    .unwrap();
}

/// Register `n` of hart `id`.
fn register(m: &Machine, id: usize, n: u8) -> u64 {
    m.harts.get(id).x(n)
}

/// Runs to `end`, or to where all harts wait, in pieces of `slice` steps; every few pieces the
/// engine forgets everything, or the machine goes through a snapshot.
fn cut(code: &[u32], harts: u32, end: u64, slice: u64) -> Machine {
    let mut m = start(code, harts);
    for n in 1.. {
        let until = end.min(m.icount() + slice);
        match m.run(until) {
            // To be asked twice is to be asked once.
            Exit::Limit if n % 3 == 0 => assert_eq!(m.run(until), Exit::Limit),
            Exit::Limit => assert_eq!(m.icount(), until),
            Exit::Idle { .. } => return m,
            exit => panic!("{exit:?}"),
        }
        if m.icount() == end {
            return m;
        }
        if n % 7 == 0 {
            m.flush_engine();
        }
        if n % 1009 == 0 || (slice > 100 && n % 5 == 0) {
            let bytes = m.save(false).unwrap();
            let again = Machine::restore(&bytes, Some(several(code, harts))).unwrap();
            let mut before = std::mem::replace(&mut m, again);
            assert_eq!(before.digest(), m.digest());
        }
    }
    unreachable!()
}

#[test]
fn cuts_do_not_matter() {
    for (code, end) in [
        (PINGPONG, 5_000),
        (LOCK, 1_000_000),
        (HSM, 1_000_000),
        (TURNS, 100_000),
    ] {
        let mut whole = start(code, 2);
        whole.run(end);
        let want = whole.digest();
        for slice in [
            1,
            2,
            3,
            17,
            1000,
            TURN_STEPS - 1,
            TURN_STEPS,
            TURN_STEPS + 1,
        ] {
            let mut m = cut(code, 2, end, slice);
            assert_eq!(m.icount(), whole.icount(), "slice {slice}");
            assert_eq!(m.digest(), want, "slice {slice}");
            assert_eq!(m.tell_tale(), whole.tell_tale(), "slice {slice}");
        }
    }
}

#[test]
fn harts_wake_each_other() {
    let mut m = start(PINGPONG, 2);
    assert_eq!(m.run(10_000), Exit::Limit);
    let (first, second) = (register(&m, 0, S1), register(&m, 1, S1));
    assert!(
        first > 300 && first.abs_diff(second) <= 1,
        "{first} {second}"
    );
}

#[test]
fn a_lock_holds_though_turns_end_inside() {
    let mut m = start(LOCK, 2);
    assert_eq!(m.run(10_000_000), Exit::Idle { timer: None });
    assert_eq!(m.mem.load_u64(0x8040_0000), Ok(0));
    assert_eq!(m.mem.load_u64(0x8040_0008), Ok(20));
    let lost = register(&m, 0, S2) + register(&m, 1, S2);
    assert!((2..20).contains(&lost), "{lost}");
}

#[test]
fn a_turn_ends_at_its_quantum_or_where_others_may_run() {
    let mut m = start(TURNS, 2);
    // The jump of the header, 8 steps to start hart 1, then a turn of 2 steps.
    assert_eq!(m.run(11), Exit::Limit);
    assert_eq!((register(&m, 0, S1), register(&m, 1, S1)), (1, 0));
    // The turn of hart 1 (one branch, then two steps for each count) and a turn of 3 steps.
    m.run(11 + TURN_STEPS);
    assert_eq!(
        (register(&m, 0, S1), register(&m, 1, S1)),
        (1, TURN_STEPS / 2)
    );
    m.run(11 + TURN_STEPS + 3);
    assert_eq!(
        (register(&m, 0, S1), register(&m, 1, S1)),
        (2, TURN_STEPS / 2)
    );
    m.run(11 + 10 * (TURN_STEPS + 3));
    assert_eq!(
        (register(&m, 0, S1), register(&m, 1, S1)),
        (11, 5 * TURN_STEPS)
    );
}

#[test]
fn what_a_record_changes_at_the_end_of_a_turn_comes_before_the_next() {
    // Hart 0 counts; hart 1 waits for tick 200, then spins.
    let mut code = TURNS[..8].to_vec();
    code[0] = 0x0205_1463; // bne a0, zero, +40
    code.extend([0x0014_8493, 0xffdf_f06f]); // addi s1, s1, 1; jal zero, -4
    code.extend(&TIMERS[..3]);
    code.extend(&TIMERS[12..15]);
    code.push(0x0000_006f); // jal zero, 0
    let at_end = |visits: u32| {
        let mut m = start(&code, 2);
        // Hart 1 gets its first turn after hart 0's, and waits after 6 steps.
        let end = 2 * TURN_STEPS + 6;
        for _ in 0..visits {
            assert_eq!(m.run(end), Exit::Limit);
        }
        assert_eq!(register(&m, 1, S1), 0);
        set_time(&mut m, 200);
        m.run(end + 1);
        assert_eq!(register(&m, 1, S1), 1);
        m.digest()
    };
    let once = at_end(1);
    for visits in 2..4 {
        assert_eq!(at_end(visits), once);
    }
}

#[test]
fn counters_count_the_steps_of_their_own_hart() {
    // csrr s0, instret in place of the count of hart 1.
    let mut code = TURNS.to_vec();
    code[11] = 0xc020_2473;
    let mut m = start(&code, 2);
    m.run(11 + 5 * (TURN_STEPS + 3));
    // As of the step before it, which is this hart's last.
    assert_eq!(register(&m, 1, S0), 5 * TURN_STEPS - 1);
}

#[test]
fn hart_states_are_those_of_the_sbi() {
    let mut m = start(HSM, 2);
    assert_eq!(m.run(1_000_000), Exit::Idle { timer: None });
    let asked: Vec<i64> = (S2..=24).map(|n| register(&m, 0, n) as i64).collect();
    // Stopped; started; already available; no such hart; suspended; stopped; may not stop.
    assert_eq!(asked, [1, 0, -6, -3, 4, 1, -1]);
    // The opaque values of start and resume.
    assert_eq!((register(&m, 1, S0), register(&m, 1, S1)), (77, 99));
}

#[test]
fn the_next_timer_is_that_of_any_hart() {
    let mut m = start(TIMERS, 2);
    assert_eq!(m.run(1000), Exit::Idle { timer: Some(200) });
    set_time(&mut m, 199);
    assert_eq!(m.run(1000), Exit::Idle { timer: Some(200) });
    set_time(&mut m, 200);
    assert_eq!(m.run(1000), Exit::Idle { timer: Some(500) });
    assert_eq!((register(&m, 0, S1), register(&m, 1, S1)), (0, 1));
    set_time(&mut m, 501);
    assert_eq!(m.run(1000), Exit::Idle { timer: None });
    assert_eq!((register(&m, 0, S1), register(&m, 1, S1)), (1, 1));
}

/// Firmware that is these instructions, on three harts.
pub(crate) fn bare(code: &[u32]) -> MachineConfig {
    let bytes: Vec<u8> = code.iter().flat_map(|op| op.to_le_bytes()).collect();
    MachineConfig {
        harts: 3,
        images: Images::default().with(ImageKind::Firmware, &bytes),
        ..config(Asm::default())
    }
}

#[test]
fn firmware_starts_all_harts_from_the_rom() {
    let mut whole = Machine::new(bare(SOFTWARE_INTERRUPTS), POWER_ON).unwrap();
    assert_eq!(whole.pc(), 0x1000);
    assert_eq!(whole.run(100_000), Exit::Output);
    let items = whole.take_output().unwrap().items;
    assert_eq!(items, [OutputItem::Halt(Halt::PowerOff)]);
    for slice in 1..200 {
        let mut m = Machine::new(bare(SOFTWARE_INTERRUPTS), POWER_ON).unwrap();
        while m.run(m.icount() + slice) == Exit::Limit {}
        assert_eq!(m.take_output().unwrap().items, items);
        assert_eq!(m.digest(), whole.digest(), "slice {slice}");
    }
}

#[test]
fn a_reset_starts_all_harts_again() {
    // The last hart says reset in place of pass.
    let mut code = SOFTWARE_INTERRUPTS.to_vec();
    code[19] = 0x0000_73b7; // lui t2, 7
    code[20] = 0x7773_8393; // addi t2, t2, 0x777
    let mut m = Machine::new(bare(&code), POWER_ON).unwrap();
    assert_eq!(m.run(100_000), Exit::Reset);
    let once = m.icount();
    assert_eq!((m.pc(), register(&m, 2, 10)), (0x1000, 0));
    assert_eq!(m.run(100_000), Exit::Reset);
    assert_eq!(m.icount(), 2 * once);
    // Without firmware only the first hart starts.
    let mut code = PINGPONG.to_vec();
    // After the jump: system_reset(cold, no reason) in place of the first IPI.
    code.truncate(18);
    let config = MachineConfig {
        harts: 2,
        ..config(Asm(code).system_reset(1))
    };
    let mut m = Machine::new(config, POWER_ON).unwrap();
    assert_eq!(m.run(100_000), Exit::Reset);
    let once = m.icount();
    assert_eq!(m.pc(), ENTRY);
    assert_eq!(m.run(100_000), Exit::Reset);
    assert_eq!(m.icount(), 2 * once);
}

#[test]
fn hart_masks_select_and_refuse() {
    // ecall; the registers are set here.
    let ipi = |mask: u64, base: u64| {
        let mut m = start(&[0x73], 3);
        m.run(1);
        let hart = m.harts.running_mut();
        for (n, value) in [(10, mask), (11, base), (16, 0), (17, 0x0073_5049)] {
            hart.set_x(n, value);
        }
        m.run(2);
        let pending = (0..3).map(|id| m.harts.get(id).ssip());
        (register(&m, 0, 10) as i64, pending.collect::<Vec<_>>())
    };
    let all = vec![true; 3];
    let none = vec![false; 3];
    assert_eq!(ipi(0b111, 0), (0, all.clone()));
    assert_eq!(ipi(0, u64::MAX), (0, all));
    assert_eq!(ipi(0b101, 0), (0, vec![true, false, true]));
    assert_eq!(ipi(0b11, 1), (0, vec![false, true, true]));
    assert_eq!(ipi(0, 1000), (0, none.clone()));
    for (mask, base) in [
        (0b1000, 0),
        (0b111, 1),
        (1, 3),
        (1, 64),
        (1, 1 << 32),
        (1 << 63, 1),
    ] {
        assert_eq!(ipi(mask, base), (-3, none.clone()), "{mask:b} {base}");
    }
}
