//! What a listener is told of translated code: all of it, each piece once, by its addresses.

use crate::asm::*;
use crate::tables::*;
use crate::world::*;
use std::sync::{Arc, Mutex, PoisonError};
use twinvm_cpu::Mode::User;
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
