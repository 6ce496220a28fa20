//! Instructions fetched from outside RAM.

use crate::asm::*;
use crate::tables::*;
use crate::world::*;
use twinvm_cpu::Mode::{Machine, Supervisor};

fn rom(program: impl FnOnce(&mut Asm)) -> Vec<u8> {
    let mut asm = Asm::at(ROM);
    program(&mut asm);
    asm.bytes
}

#[test]
fn code_runs_from_the_rom_and_leaves_it() {
    let mut world = World::new(|a| {
        a.op(addi(6, 5, 1));
    });
    world.hart.pc = ROM;
    world.device.rom = rom(|a| {
        // A loop, a compressed instruction, and the way out.
        a.ops(&[addi(5, 5, 1), addi(7, 0, 9)]).c(C_NOP);
        a.op(branch(4, 5, 7, -10));
        a.li(8, CODE).op(jalr(0, 8, 0));
    });
    world.check(60, |after| {
        assert_eq!((after.x(5), after.x(6)), (9, 10));
        assert_eq!(after.hart.traps, 0);
    });
}

#[test]
fn past_the_end_of_the_rom_or_beside_it_is_an_access_fault() {
    // The whole instruction, or only its second half.
    for (pc, size, tval) in [
        (ROM, 0, ROM),
        (ROM, 6, ROM + 6),
        (ROM + 2, 4, ROM + 4),
        (DEVICE, 0, DEVICE),
        (ROM - 2, 8, ROM - 2),
    ] {
        let mut world = World::new(|_| {});
        world.hart.pc = pc;
        world.device.rom = rom(|a| {
            a.c(C_NOP).op(NOP).op(NOP);
        });
        world.device.rom.truncate(size);
        let steps = if size == 6 { 3 } else { 1 };
        world.check(steps, |after| {
            assert_eq!(after.csr("mcause"), 1, "{pc:#x} {size}");
            assert_eq!(after.csr("mtval"), tval);
            let at = if size == 6 { ROM + 6 } else { pc };
            assert_eq!(after.csr("mepc"), at);
        });
    }
}

#[test]
fn the_rom_through_page_tables_with_an_instruction_on_two_pages() {
    let mut world = World::new(|_| {});
    world.paged(Supervisor);
    // The instruction's first half is the last parcel of a page in RAM.
    world
        .map(0, data_page(0), CODE_PAGE)
        .map(1, ROM, CODE_PAGE & !A);
    let op = addi(5, 0, 0x123).to_le_bytes();
    world.ram.push((data_page(1) - 2, op[..2].to_vec()));
    world.device.rom = op[2..].to_vec();
    world.device.rom.extend(rom(|a| {
        a.op(addi(6, 5, 1)).op(SPIN);
    }));
    world.hart.pc = page(1) - 2;
    world.check(3, |after| {
        assert_eq!((after.x(5), after.x(6)), (0x123, 0x124));
        assert_eq!(after.word(slot(LEAF, 1)), pte(ROM, CODE_PAGE));
        assert_eq!(after.hart.traps, 0);
    });
    world.mode(Machine).hart.pc = page(0);
    world.check(1, |after| assert_eq!(after.csr("mcause"), 1));
}
