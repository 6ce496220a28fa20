//! Random programs of three harts in machine mode, which store to the CLINT, wait, trap, fight for
//! words, change the PMP and their own code: where a run is cut must not matter.

use super::guest::*;
use super::harts::bare;
use crate::*;
use twinvm_log::{Body, Record};

const S1: u32 = 9;
const S2: u32 = 18;
/// Words that all harts share.
const SHARED: u32 = 20;
const CLINT: u32 = 21;
/// The hart's own compare value, and that of its software interrupt.
const COMPARE: u32 = 22;
const MSIP: u32 = 23;
/// The body's first instruction.
const BODY: u32 = 24;
/// The PMP's value for all of memory.
const ONES: u32 = 25;
const TRAPS: u32 = 26;
const T2: u32 = 7;

const MCAUSE: u32 = 0x342;
const MIE: u32 = 0x304;
const TIME: u32 = 0xc01;
const MINSTRET: u32 = 0xb02;
const MCYCLE: u32 = 0xb00;
const PMPCFG0: u32 = 0x3a0;
const PMPADDR0: u32 = 0x3b0;

fn csr(op: u32, rd: u32, csr: u32, rs1: u32) -> u32 {
    csr << 20 | rs1 << 15 | op << 12 | rd << 7 | 0x73
}

fn read(rd: u32, number: u32) -> u32 {
    csr(2, rd, number, 0)
}

fn write(number: u32, rs1: u32) -> u32 {
    csr(1, 0, number, rs1)
}

fn amo(funct5: u32, rd: u32, rs1: u32, rs2: u32) -> u32 {
    funct5 << 27 | rs2 << 20 | rs1 << 15 | 3 << 12 | rd << 7 | 0x2f
}

fn add(rd: u32, rs1: u32, rs2: u32) -> u32 {
    rs2 << 20 | rs1 << 15 | rd << 7 | 0x33
}

fn sw(rs2: u32, rs1: u32, imm: u32) -> u32 {
    (imm >> 5 & 0x7f) << 25 | rs2 << 20 | rs1 << 15 | 2 << 12 | (imm & 31) << 7 | 0x23
}

fn slli(rd: u32, rs1: u32, by: u32) -> u32 {
    by << 20 | rs1 << 15 | 1 << 12 | rd << 7 | 0x13
}

/// One of the things that a hart does; jumps nowhere.
fn action(asm: Asm, n: &mut Numbers) -> Asm {
    let hart = n.below(3) as u32;
    let soon = n.below(300) as i32;
    // Sets this hart's or another's timer.
    let timer =
        |asm: Asm, base: u32, at: i32| asm.op(read(T0, TIME)).addi(T0, T0, soon).sd(T0, base, at);
    match n.below(12) {
        0 => asm.op(amo(0, S2, SHARED, S1)).op(add(S1, S1, S2)),
        1 => asm.li(T0, 1).op(sw(T0, CLINT, 4 * hart)),
        2 => timer(asm, COMPARE, 0),
        3 => asm
            .op(add(T2, CLINT, 0))
            .op(4 << 12 | T0 << 7 | 0x37)
            .op(add(T2, T2, T0))
            .sd(S1, T2, 8 * hart as i32),
        4 | 5 => timer(asm, COMPARE, 0).wfi(),
        6 => asm.op(0x0100_000f),
        // lr, addi, sc
        7 => asm
            .op(amo(2, T0, SHARED, 0))
            .addi(T0, T0, 1)
            .op(amo(3, T1, SHARED, T0))
            .op(add(S1, S1, T1)),
        8 => asm
            .op(read(T0, MINSTRET))
            .op(add(S1, S1, T0))
            .op(read(T0, MCYCLE))
            .op(add(S1, S1, T0)),
        // An instruction of the body becomes addi s1,s1,1.
        9 => asm
            .li32(T0, 0x0014_8493)
            .op(sw(T0, BODY, 4 * (n.below(3) as u32 * 4 + hart))),
        10 => asm
            .op(write(PMPADDR0 + 1 + hart, S1))
            .li(T0, 0x1f | (n.below(4) as i32) << 8)
            .op(write(PMPCFG0, T0)),
        // Interrupts off and on.
        _ => asm
            .op(csr(7, 0, 0x300, 8))
            .addi(S1, S1, soon)
            .op(csr(6, 0, 0x300, 8)),
    }
}

fn program(n: &mut Numbers) -> Vec<u32> {
    let trap = Asm::default()
        .op(read(T0, MCAUSE))
        .op(add(S1, S1, T0))
        .op(sw(0, MSIP, 0))
        .li(T0, -1)
        .sd(T0, COMPARE, 0)
        .addi(TRAPS, TRAPS, 1)
        .op(0x3020_0073)
        .0;
    let mut asm = Asm::default()
        // auipc t0: the trap's code is behind the first six instructions.
        .op(T0 << 7 | 0x17)
        .addi(T0, T0, 20)
        .op(write(0x305, T0))
        .li(T0, 0x88)
        .op((4 + 4 * trap.len() as u32) << 20 | 0x6f);
    for op in &trap {
        asm = asm.op(*op);
    }
    asm = asm
        .op(write(MIE, T0))
        // At a multiple of 8 bytes, like the words.
        .li(ONES, -1)
        .op(0x0040_0000 | SHARED << 7 | 0x17)
        .op(0x0200_0000 | CLINT << 7 | 0x37)
        .op(slli(MSIP, A0, 2))
        .op(add(MSIP, MSIP, CLINT))
        .op(0x0200_4000 | COMPARE << 7 | 0x37)
        .op(slli(T0, A0, 3))
        .op(add(COMPARE, COMPARE, T0))
        .op(write(PMPADDR0, ONES))
        .op(csr(6, 0, 0x300, 8))
        .op(BODY << 7 | 0x17)
        .addi(BODY, BODY, 8);
    let body = asm.0.len();
    // Slots for new instructions.
    for _ in 0..12 {
        asm = asm.addi(S1, S1, 3);
    }
    for _ in 0..40 {
        asm = action(asm, n);
    }
    let back = (asm.0.len() - body) as u32 * 4;
    let imm = back.wrapping_neg();
    let jump = (imm >> 20 & 1) << 31
        | (imm >> 1 & 0x3ff) << 21
        | (imm >> 11 & 1) << 20
        | (imm >> 12 & 0xff) << 12
        | 0x6f;
    asm.op(jump).0
}

/// Runs with anchors now and then; gives them, each with the digest before it.
fn live(mut m: Machine, n: &mut Numbers) -> Vec<(Record, Digest)> {
    let mut records = Vec::new();
    for _ in 0..60 {
        let until = m.icount() + 1 + n.below(4000);
        let exit = m.run(until);
        let forward = match exit {
            Exit::Limit => n.below(40),
            Exit::Idle { timer } => timer.map_or(50, |timer| timer - m.mtime()),
            other => panic!("{other:?}"),
        };
        let record = Record {
            icount: m.icount(),
            body: Body::Anchor {
                mtime: m.mtime() + forward,
                rate: n.below(1 << 32),
                span: n.below(2000),
                tell_tale: m.tell_tale(),
            },
        };
        records.push((record.clone(), m.digest()));
        m.inject(&record).unwrap();
    }
    records
}

#[test]
fn random_programs_of_several_harts_can_be_cut_anywhere() {
    let seeds = 6u64;
    let (mut traps, mut sharers) = (0, 0);
    for seed in 1..=seeds {
        let mut n = Numbers(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let config = bare(&program(&mut n));
        let records = live(Machine::new(config.clone(), POWER_ON).unwrap(), &mut n);
        for most in [1, 30, 1000] {
            let mut m = Machine::new(config.clone(), POWER_ON).unwrap();
            for (at, (record, digest)) in records.iter().enumerate() {
                while m.icount() < record.icount {
                    let until = record.icount.min(m.icount() + 1 + n.below(most));
                    let exit = m.run(until);
                    assert_eq!(exit, Exit::Limit, "seed {seed}, record {at}");
                    match n.below(40 + 400 / most) {
                        0 => m.flush_engine(),
                        1 => drop(m.digest()),
                        2 if most > 1 => {
                            let bytes = m.save(false).unwrap();
                            m = Machine::restore(&bytes, Some(config.clone())).unwrap();
                        }
                        _ => {}
                    }
                }
                let own = m.digest();
                let differs = digest.first_difference(&own);
                assert_eq!(differs, None, "seed {seed}, cuts of {most}, record {at}");
                m.inject(record).unwrap();
            }
            if most == 30 {
                traps += m.harts.get(0).x(TRAPS as u8);
                sharers += (0..3).filter(|id| m.harts.get(*id).x(S2 as u8) > 0).count();
            }
        }
    }
    assert!(
        traps > 100 && sharers > 3,
        "{traps} traps, {sharers} sharers"
    );
}
