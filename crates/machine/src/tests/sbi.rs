//! The calls of SBI 0.1 (SBI 2.0, chapter 5), which small kernels make.

use super::guest::*;
use crate::*;
use twinvm_log::{Body, Record};

const S0: u32 = 8;
const S1: u32 = 9;
const S2: u32 = 18;

/// mv rd, rs
fn copy(guest: Asm, rd: u32, rs: u32) -> Asm {
    guest.addi(rd, rs, 0)
}

#[test]
fn a_kernel_that_knows_only_the_old_calls_prints_and_powers_off() {
    let guest = Asm::default()
        .li(A1, 55)
        .li(A0, i32::from(b'o'))
        .sbi(1, 0)
        .li(A0, i32::from(b'k'))
        .sbi(1, 0);
    let guest = copy(copy(guest, S0, A0), S1, A1).sbi(8, 0);
    let mut m = machine(guest);
    assert_eq!(m.run(1000), Exit::Output);
    let output = m.take_output().unwrap();
    assert_eq!(output.items, [OutputItem::Halt(Halt::PowerOff)]);
    assert_eq!(m.take_console(), b"ok");
    // The answer is in a0 alone.
    let x = |n: u32| m.harts.running().x(n as u8);
    assert_eq!((x(S0), x(S1)), (0, 55));
}

#[test]
fn typed_bytes_are_read_one_by_one() {
    let guest = copy(Asm::default().sbi(2, 0), S0, A0);
    let guest = copy(guest.sbi(2, 0), S1, A0);
    let mut m = machine(copy(guest.sbi(2, 0), S2, A0).loop_back(0));
    // The jump of the header, and the first call: nothing is there.
    assert_eq!(m.run(6), Exit::Limit);
    let typed = Record {
        icount: m.icount(),
        body: Body::ConsoleRx {
            bytes: b"x".to_vec(),
        },
    };
    m.inject(&typed).unwrap();
    assert_eq!(m.run(100), Exit::Limit);
    let x = |n: u32| m.harts.running().x(n as u8) as i64;
    assert_eq!([x(S0), x(S1), x(S2)], [-1, i64::from(b'x'), -1]);
}

#[test]
fn interrupts_of_other_harts_are_named_by_a_mask_in_memory() {
    const MASK: u32 = 0x8040_0000;
    let sip = |guest: Asm, rd: u32| guest.op(0x1440_2073 | rd << 7);
    let guest = Asm::default()
        .address(T0, MASK)
        .li(T1, 2)
        .sd(T1, T0, 0)
        .addi(A0, T0, 0)
        .sbi(4, 0);
    // Hart 1 does not exist.
    let guest = sip(guest, S0).li(T1, 3).sd(T1, T0, 0).addi(A0, T0, 0);
    let guest = sip(guest.sbi(4, 0), S1).sbi(3, 0);
    let guest = sip(copy(guest, T1, A0), S2).addi(A0, T0, 4).sbi(4, 0);
    let mut m = machine(guest.loop_back(0));
    assert_eq!(m.run(200), Exit::Limit);
    let x = |n: u32| m.harts.running().x(n as u8);
    assert_eq!([x(S0), x(S1), x(T1), x(S2)], [0, 2, 1, 0]);
    assert_eq!(x(A0) as i64, -5, "no mask at an odd place");
}

#[test]
fn the_old_calls_are_found_by_those_who_ask() {
    for (extension, there) in [(0, 1), (8, 1), (9, 0), (15, 0), (0x10, 1)] {
        let guest = Asm::default().li(A0, extension).sbi(0x10, 3).loop_back(0);
        let mut m = machine(guest);
        m.run(100);
        assert_eq!(m.harts.running().x(A1 as u8), there, "{extension}");
    }
    let mut m = machine(Asm::default().sbi(9, 0).loop_back(0));
    m.run(100);
    assert_eq!(m.harts.running().x(A0 as u8) as i64, -2);
}
