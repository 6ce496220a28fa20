use super::*;
use crate::testing::saves_every_bit;

const NOW: Now = Now {
    mtime: 0x1122_3344_5566_7788,
};

#[test]
fn software_interrupts_are_one_bit_per_hart() {
    let mut clint = Clint::new(2);
    clint.write(4, 4, 0xffff_ffff).unwrap();
    assert_eq!((clint.msip(0), clint.msip(1)), (false, true));
    assert_eq!(clint.read(4, 4, NOW), Ok(1));
    clint.write(4, 4, 0xffff_fffe).unwrap();
    assert!(!clint.msip(1));
    assert_eq!(clint.read(0, 8, NOW), Err(AccessFault));
    assert_eq!(clint.write(0, 2, 1), Err(AccessFault));
}

#[test]
fn timer_compare_takes_words_and_halves() {
    let mut clint = Clint::new(2);
    assert_eq!(clint.mtimecmp(1), u64::MAX, "no timer interrupt at reset");
    clint.write(0x4008, 8, 0x1_0000_0002).unwrap();
    assert_eq!(clint.mtimecmp(1), 0x1_0000_0002);
    clint.write(0x400c, 4, 7).unwrap();
    assert_eq!(clint.mtimecmp(1), 0x7_0000_0002);
    clint.write(0x4008, 4, 9).unwrap();
    assert_eq!(clint.read(0x4008, 8, NOW), Ok(0x7_0000_0009));
    assert_eq!(clint.read(0x400c, 4, NOW), Ok(7));
    assert_eq!(clint.mtimecmp(0), u64::MAX);
    assert_eq!(clint.read(0x4000, 2, NOW), Err(AccessFault));
}

#[test]
fn mtime_is_read_only() {
    let mut clint = Clint::new(1);
    let before = clint.save();
    clint.write(0xbff8, 8, 0).unwrap();
    clint.write(0xbffc, 4, 0).unwrap();
    assert_eq!(clint.save(), before);
    assert_eq!(clint.read(0xbff8, 8, NOW), Ok(NOW.mtime));
    assert_eq!(clint.read(0xbff8, 4, NOW), Ok(0x5566_7788));
    assert_eq!(clint.read(0xbffc, 4, NOW), Ok(0x1122_3344));
}

#[test]
fn registers_of_absent_harts_are_inert_and_the_rest_is_a_hole() {
    let mut clint = Clint::new(1);
    clint.write(4, 4, 1).unwrap();
    clint.write(0x4008, 8, 1).unwrap();
    assert_eq!(clint.read(4, 4, NOW), Ok(0));
    assert_eq!(clint.read(0x4008, 8, NOW), Ok(0));
    assert_eq!(clint.read(0xc000, 4, NOW), Err(AccessFault));
    assert_eq!(clint.write(0xfff8, 8, 0), Err(AccessFault));
}

#[test]
fn saves() {
    let mut clint = Clint::new(3);
    clint.write(8, 4, 1).unwrap();
    saves_every_bit(clint, |clint| {
        clint.write(0, 4, 1).unwrap();
        clint.write(0x4010, 8, 77).unwrap();
    });
}

#[test]
fn refuses_states_that_contradict_themselves() {
    let state = Clint::new(2).save();
    let mut short = state.clone();
    short.mtimecmp.pop();
    assert!(Clint::restore(short).is_err());
    let none = ClintState {
        msip: vec![],
        mtimecmp: vec![],
    };
    assert!(Clint::restore(none).is_err());
    let many = ClintState {
        msip: vec![false; MAX_HARTS + 1],
        mtimecmp: vec![0; MAX_HARTS + 1],
    };
    assert!(Clint::restore(many).is_err());
}
