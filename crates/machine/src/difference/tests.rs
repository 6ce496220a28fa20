use super::*;
use crate::tests::guest::{self, Asm, POWER_ON, config, counter};
use crate::{Digest, DiskConfig, Exit, SlotConfig};
use twinvm_log::{Body, Record};

/// Two equal machines in the middle of a run.
fn pair(harts: u32) -> (Machine, Machine) {
    let machine = || {
        let mut config = config(counter());
        config.harts = harts;
        config.slots.push(SlotConfig::Disk(DiskConfig {
            sectors: 64,
            read_only: false,
            number: 0,
        }));
        let mut machine = Machine::new(config, POWER_ON).unwrap();
        assert_eq!(machine.run(1000), Exit::Limit);
        machine
    };
    (machine(), machine())
}

/// The difference after `change` was done to one of two; the same seen from both sides, and
/// also by the digest.
fn after(change: impl Fn(&mut Machine)) -> Difference {
    let (mut left, mut right) = pair(2);
    assert_eq!(first_difference(&left, &right), None);
    change(&mut right);
    let found = first_difference(&left, &right).expect("one was changed");
    let other = first_difference(&right, &left).expect("one was changed");
    assert_eq!(
        (&found.item, &found.left, &found.right),
        (&other.item, &other.right, &other.left)
    );
    let part = Digest::first_difference(&left.digest(), &right.digest());
    assert!(part.is_some(), "{found}");
    found
}

#[test]
fn one_bit_of_ram_is_named() {
    let found = after(|machine| {
        let byte = machine.ram(0x8050_2013, 1).unwrap()[0];
        machine.mem.store(0x8050_2013, &[byte ^ 4]).unwrap();
    });
    assert_eq!(
        found.item,
        "RAM page 0x80502, offset 0x13 (physical address 0x80502013, bytes from 0x80502010)"
    );
    assert_eq!(found.left, "00 00 00 00 00 00 00 00");
    assert_eq!(found.right, "00 00 00 04 00 00 00 00");
    assert_eq!(found.hart, None);
}

#[test]
fn one_bit_of_a_register_is_named_with_its_hart() {
    let found = after(|machine| {
        let hart = machine.harts.get_mut(1);
        hart.set_x(15, hart.x(15) ^ 0x10);
    });
    assert_eq!((found.item.as_str(), found.hart), ("hart 1 a5", Some(1)));
    assert_eq!((found.left.as_str(), found.right.as_str()), ("0x0", "0x10"));
    // The program counter comes before what follows from it.
    let found = after(|machine| {
        let hart = machine.harts.get_mut(0);
        hart.set_pc(hart.pc() ^ 4);
        hart.set_x(1, 77);
    });
    assert_eq!(found.item, "hart 0 pc");
    let found = after(|machine| machine.harts.get_mut(0).set_stimecmp(77));
    assert_eq!(found.item, "hart 0 stimecmp");
    assert_eq!(found.right, "0x4d");
    let found = after(|machine| machine.harts.get_mut(1).wait());
    assert_eq!(found.item, "hart 1 waiting");
}

#[test]
fn time_and_turns_are_named() {
    let found = after(|machine| machine.clock.rate += 1);
    assert_eq!(
        (found.item.as_str(), found.right.as_str()),
        ("anchor rate", "1")
    );
    let found = after(|machine| machine.harts.yield_turn(1000));
    assert_eq!(found.item, "end of the turn");
    let found = after(|machine| machine.halted = Some(Halt::Fail(3)));
    assert_eq!(found.item, "halted");
    assert_eq!(found.right, "Some(Fail(3))");
}

#[test]
fn fields_of_devices_are_named() {
    let found = after(|machine| {
        let body = Body::ConsoleRx {
            bytes: b"x".to_vec(),
        };
        machine.inject(&Record { icount: 1000, body }).unwrap();
    });
    assert_eq!(found.item, "uart fifo");
    assert_eq!(
        (found.left.as_str(), found.right.as_str()),
        ("[]", "[0x78]")
    );

    let board = |change: fn(&mut BoardState)| {
        after(move |machine| {
            let mut state = machine.board.save();
            change(&mut state);
            machine.board = twinvm_devices::Board::restore(state).unwrap();
        })
    };
    use twinvm_devices::SlotState;
    let found = board(|state| {
        if let SlotState::Net(net) = &mut state.slots[0] {
            net.queues[1].next_avail ^= 1;
        }
    });
    assert_eq!(found.item, "virtio slot 0 (net): queue 1 next_avail");
    let found = board(|state| {
        if let SlotState::Disk(disk) = &mut state.slots[2] {
            disk.device.next_id = 5;
        }
    });
    assert_eq!(found.item, "virtio slot 2 (disk): next_id");
    assert_eq!((found.left.as_str(), found.right.as_str()), ("0x0", "0x5"));
    let found = board(|state| state.clint.mtimecmp[1] = 9);
    assert_eq!(found.item, "clint mtimecmp[1]");
}

#[test]
fn a_state_survives_encoding_and_junk_is_refused() {
    let (left, mut right) = pair(2);
    right.harts.get_mut(0).set_x(10, 99);
    let bytes = left.state().encode();
    let state = MachineState::decode(&bytes).unwrap();
    assert_eq!(state, left.state());
    let found = state.first_difference(&right.state()).unwrap();
    assert_eq!(found.item, "hart 0 a0");
    // Whatever is damaged: an answer, and never a panic.
    for at in 0..bytes.len() {
        assert!(MachineState::decode(&bytes[..at]).is_err());
        for bit in [1, 0x80] {
            let mut bytes = bytes.clone();
            bytes[at] ^= bit;
            if let Ok(state) = MachineState::decode(&bytes) {
                state.first_difference(&left.state());
            }
        }
    }
    let longer = [&bytes[..], &[0]].concat();
    assert!(MachineState::decode(&longer).is_err());
}

#[test]
fn the_coming_instruction_is_read_without_being_executed() {
    let mut machine = guest::machine(Asm::default().addi(guest::T0, 0, 7).wfi());
    let entry = machine.upcoming();
    assert_eq!(entry[0].pc, guest::ENTRY);
    assert_eq!(entry[0].raw, Some(0x0400_006f));
    assert_eq!(machine.run(2), Exit::Limit);
    let next = machine.upcoming()[0];
    assert_eq!((next.pc, next.raw), (guest::ENTRY + 68, Some(0x1050_0073)));
    assert_eq!(crate::disassemble(0x1050_0073, next.pc), "wfi");
}
