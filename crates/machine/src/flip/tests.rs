use super::*;
use crate::tests::guest::{POWER_ON, config, counter};
use crate::{Exit, first_difference};

/// What is told of two machines after one bit of one of them has changed.
fn told(flip: Flip<'_>) -> String {
    let machine = || {
        let mut machine = Machine::new(config(counter()), POWER_ON).unwrap();
        assert_eq!(machine.run(1000), Exit::Limit);
        machine
    };
    let (left, mut right) = (machine(), machine());
    right.flip(flip).unwrap();
    first_difference(&left, &right).unwrap().to_string()
}

#[test]
fn the_flipped_bit_is_the_only_difference() {
    let ram = Flip::Ram {
        pa: 0x8050_2013,
        bit: 2,
    };
    assert!(told(ram).ends_with("00 00 00 00 00 00 00 00 / 00 00 00 04 00 00 00 00"));
    for (pointer, item) in [
        ("/registers/harts/harts/0/x/20", "hart 0 s5"),
        ("/registers/harts/harts/0/f/3", "hart 0 ft3"),
        ("/registers/harts/harts/0/csrs/6", "hart 0 mscratch"),
        ("/board/uart/scratch", "uart scratch"),
    ] {
        let told = told(Flip::State { pointer, bit: 4 });
        assert!(told.starts_with(item), "{told}");
    }
}

#[test]
fn what_is_not_there_is_refused() {
    let mut machine = Machine::new(config(counter()), POWER_ON).unwrap();
    for (pointer, why) in [
        ("/board/uart/nothing", "nothing at"),
        ("/board/uart", "no number at"),
        // x0 is no register, and pc is even.
        ("/registers/harts/harts/0/pc", "hart state: bad pc"),
    ] {
        let error = machine.flip(Flip::State { pointer, bit: 0 }).unwrap_err();
        assert!(error.to_string().starts_with(why), "{error}");
    }
    assert!(machine.flip(Flip::Ram { pa: 0, bit: 0 }).is_err());
    assert!(machine.flip(Flip::Decay { pa: 0, bit: 0 }).is_err());
}

#[test]
fn no_digest_shows_a_bit_that_decays_and_its_page_says_so_until_it_is_taken_as_it_is() {
    let mut machine = Machine::new(config(counter()), POWER_ON).unwrap();
    assert_eq!(machine.run(1000), Exit::Limit);
    let before = machine.digest();
    let bad = |machine: &Machine| -> Vec<usize> {
        let pages = 0..machine.pages();
        pages.filter(|n| !machine.page_is_as_hashed(*n)).collect()
    };
    assert!(bad(&machine).is_empty());
    // Behind what it has stored.
    let pa = 0x8040_0ff5;
    machine.flip(Flip::Decay { pa, bit: 2 }).unwrap();
    assert_eq!(machine.digest(), before);
    assert!(bad(&machine) == vec![0x400]);
    machine.take_page_as_it_is(0x400);
    assert!(bad(&machine).is_empty());
    assert_ne!(machine.digest(), before);
    assert!(bad(&machine).is_empty());
}
