//! What a listener is told of translated code: all of it, each piece once, by its addresses.

use crate::asm::*;
use crate::tables::*;
use crate::world::*;
use std::sync::{Arc, Mutex, PoisonError};
use twinvm_cpu::Mode::{Supervisor, User};
use twinvm_cpu::tier::{CodePiece, CodeRole};
use twinvm_mem::{PAGE_BYTES, RAM_BASE};

/// Where U-mode finds RAM.
const VA: u64 = 0xc000_0000;
const WAY: Way = (Cut::Never, Between::Nothing, Tier::Translated(0));

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
#[test]
fn pieces_of_code_have_names_and_lie_side_by_side() {
    // A loop over two pages.
    let other = CODE + PAGE_BYTES as u64;
    let mut world = World::new(|a| {
        a.op(addi(1, 1, 1)).op(jal(0, PAGE_BYTES as i32 - 4));
    });
    world.code(other, |a| {
        a.op(addi(2, 2, 1)).op(jal(0, -(PAGE_BYTES as i32) - 4));
    });
    world.paged(User);
    world.word(slot(ROOT, 3), pte(RAM_BASE, V | R | W | X | U | A | D));
    world.hart.pc = VA;
    let told: Arc<Mutex<Vec<CodePiece>>> = Arc::default();
    let mut run = Run::new(&world, WAY);
    let tell = Arc::clone(&told);
    run.listen(Box::new(move |piece| {
        tell.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(*piece);
    }));
    let after = run.go(401);
    assert_eq!((after.x(1), after.x(2)), (101, 100));

    let told = told.lock().unwrap_or_else(PoisonError::into_inner);
    assert_eq!(told[0].role, CodeRole::Common);
    for (piece, next) in told.iter().zip(&told[1..]) {
        assert!(piece.bytes > 0, "{piece:?}");
        assert_eq!(piece.address + piece.bytes, next.address);
    }
    let all: u64 = told.iter().map(|piece| piece.bytes).sum();
    let memory = after.engine.counters().memory.expect("a second engine");
    assert_eq!(all, memory.code_bytes);
    let mut roles = told[1..].iter().map(|piece| piece.role).collect::<Vec<_>>();
    roles.sort_by_key(|role| format!("{role:?}"));
    let block = |at| CodeRole::Block {
        pa: at,
        va: at - RAM_BASE + VA,
    };
    let jump = |page| CodeRole::Jump { page };
    assert_eq!(
        roles,
        [block(CODE), block(other), jump(CODE), jump(other)],
        "{told:?}"
    );
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
#[test]
fn a_jump_that_leads_to_two_pages_in_turn_is_checked_by_two_pieces() {
    let (here, one, other) = (DATA, DATA + 0x1000, DATA + 0x2000);
    let entries = [one, other].map(|page| pte(page, CODE_PAGE));
    let mut world = World::new(|_| {});
    world.code(here, |a| {
        a.ops(&[sd(21, 20, 0), jal(5, PAGE_BYTES as i32 - 4)]);
        a.ops(&[r(0, 22, 21, 4, 21, 0x33), jal(0, -12)]);
    });
    world.code(one, |a| {
        a.op(addi(1, 1, 1)).op(jalr(0, 5, 0));
    });
    world.code(other, |a| {
        a.op(addi(2, 2, 1)).op(jalr(0, 5, 0));
    });
    world.paged(Supervisor);
    world
        .ram
        .retain(|(at, bytes)| *at < DATA || *at >= DATA + 0x3000 || bytes.len() > 8);
    world.map(16, here, CODE_PAGE).map(17, one, CODE_PAGE);
    world.hart.pc = page(16);
    world.set_x(20, slot(LEAF, 17));
    world
        .set_x(21, entries[0])
        .set_x(22, entries[0] ^ entries[1]);
    let told: Arc<Mutex<u32>> = Arc::default();
    let mut run = Run::new(&world, WAY);
    let tell = Arc::clone(&told);
    run.listen(Box::new(move |piece| {
        let jump = matches!(piece.role, CodeRole::Jump { .. });
        *tell.lock().unwrap_or_else(PoisonError::into_inner) += u32::from(jump);
    }));
    let after = run.go(600);
    assert_eq!((after.x(1), after.x(2)), (50, 50));
    assert_eq!(*told.lock().unwrap_or_else(PoisonError::into_inner), 2);
}
