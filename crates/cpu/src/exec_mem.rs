//! Loads and stores that miss the fast path, and atomics.

use crate::engine::Env;
use crate::exec::Core;
use crate::hart::{Hart, Reservation};
use crate::op::{Kind, Op};
use crate::trap::{Exception, cause};
use crate::walk::{Access, WalkFault};
use twinvm_mem::{PAGE_BYTES, PAGE_SHIFT, RAM_BASE, state};

fn fault(access: Access, fault: WalkFault, va: u64) -> Exception {
    let cause = match (access, fault) {
        (Access::Fetch, WalkFault::Page) => cause::FETCH_PAGE,
        (Access::Fetch, WalkFault::Access) => cause::FETCH_ACCESS,
        (Access::Load, WalkFault::Page) => cause::LOAD_PAGE,
        (Access::Load, WalkFault::Access) => cause::LOAD_ACCESS,
        (Access::Store, WalkFault::Page) => cause::STORE_PAGE,
        (Access::Store, WalkFault::Access) => cause::STORE_ACCESS,
    };
    Exception::new(cause, va)
}

fn crosses_page(va: u64, size: usize) -> bool {
    (va as usize & (PAGE_BYTES - 1)) + size > PAGE_BYTES
}

impl Core {
    /// Physical address of `len` bytes at `va`, which are within one page.
    pub(crate) fn translate(
        &mut self,
        env: &mut Env,
        va: u64,
        len: usize,
        access: Access,
    ) -> Result<u64, Exception> {
        if let Some(pa) = self.mmu.cached(va, access) {
            return Ok(pa);
        }
        self.mmu
            .data(env.mem, va, len, access)
            .map_err(|f| fault(access, f, va))
    }

    /// A load that the fast path refused: no translation yet, misaligned, or a
    /// device. `steps` ops of the block have retired before it.
    #[cold]
    #[inline(never)]
    pub(crate) fn load_slow(
        &mut self,
        env: &mut Env,
        va: u64,
        size: usize,
        steps: usize,
    ) -> Result<u64, Exception> {
        let mut bytes = [0u8; 8];
        if crosses_page(va, size) {
            let split = PAGE_BYTES - (va as usize & (PAGE_BYTES - 1));
            let next = va.wrapping_add(split as u64);
            let bad = |va| move |_| Exception::new(cause::LOAD_ACCESS, va);
            let first = self.translate(env, va, split, Access::Load)?;
            env.mem.read(first, &mut bytes[..split]).map_err(bad(va))?;
            let second = self.translate(env, next, size - split, Access::Load)?;
            env.mem
                .read(second, &mut bytes[split..size])
                .map_err(bad(next))?;
            return Ok(u64::from_le_bytes(bytes));
        }
        let pa = self.translate(env, va, size, Access::Load)?;
        if env.mem.read(pa, &mut bytes[..size]).is_ok() {
            return Ok(u64::from_le_bytes(bytes));
        }
        let bad = Exception::new(cause::LOAD_ACCESS, va);
        if !pa.is_multiple_of(size as u64) {
            return Err(bad);
        }
        let mtime = env.clock.mtime(env.icount + steps as u64);
        self.touched_bus = true;
        env.bus.read(pa, size, mtime).map_err(|_| bad)
    }

    /// A store that the fast path refused.
    #[cold]
    #[inline(never)]
    pub(crate) fn store_slow(
        &mut self,
        env: &mut Env,
        va: u64,
        bytes: &[u8],
        steps: usize,
    ) -> Result<(), Exception> {
        let size = bytes.len();
        let bad = Exception::new(cause::STORE_ACCESS, va);
        if crosses_page(va, size) {
            let split = PAGE_BYTES - (va as usize & (PAGE_BYTES - 1));
            let next = va.wrapping_add(split as u64);
            // Both halves or none; xtval names the half that cannot be stored.
            let first = self.translate(env, va, split, Access::Store)?;
            if !env.mem.contains(first, split as u64) {
                return Err(bad);
            }
            let second = self.translate(env, next, size - split, Access::Store)?;
            if !env.mem.contains(second, (size - split) as u64) {
                return Err(Exception::new(cause::STORE_ACCESS, next));
            }
            env.mem.store(first, &bytes[..split]).map_err(|_| bad)?;
            return env.mem.store(second, &bytes[split..]).map_err(|_| bad);
        }
        let pa = self.translate(env, va, size, Access::Store)?;
        if env.mem.contains(pa, size as u64) {
            self.store_ram(env, va, pa, bytes);
            return Ok(());
        }
        if !pa.is_multiple_of(size as u64) {
            return Err(bad);
        }
        let mut value = [0u8; 8];
        value[..size].copy_from_slice(bytes);
        let mtime = env.clock.mtime(env.icount + steps as u64);
        self.touched_bus = true;
        env.bus
            .write(env.mem, pa, size, u64::from_le_bytes(value), mtime)
            .map_err(|_| bad)
    }

    /// Stores to RAM through the page states; `va` has just been translated.
    pub(crate) fn store_ram(&mut self, env: &mut Env, va: u64, pa: u64, bytes: &[u8]) {
        let page = (pa.wrapping_sub(RAM_BASE) >> PAGE_SHIFT) as usize;
        let stored = env.mem.store(pa, bytes);
        debug_assert!(stored.is_ok(), "the caller checked that it is RAM");
        if env.mem.page_state(page) & state::TABLE != 0 {
            self.mmu.note_table_store(env.mem, page);
        } else {
            self.mmu.upgrade_store(env.mem, va, pa);
        }
    }

    /// LR, SC and AMOs (RISC-V Unprivileged ISA, chapter "A"). They work on RAM
    /// only and must be naturally aligned.
    pub(crate) fn atomic(
        &mut self,
        hart: &mut Hart,
        env: &mut Env,
        op: &Op,
    ) -> Result<(), Exception> {
        use Kind::*;
        let va = hart.x.0[usize::from(op.rs1)];
        let source = hart.x.0[usize::from(op.rs2)];
        let word = matches!(
            op.kind,
            LrW | ScW
                | AmoSwapW
                | AmoAddW
                | AmoXorW
                | AmoAndW
                | AmoOrW
                | AmoMinW
                | AmoMaxW
                | AmoMinuW
                | AmoMaxuW
        );
        let size = if word { 4 } else { 8 };
        let load = matches!(op.kind, LrW | LrD);
        let (access, misaligned, outside) = if load {
            (Access::Load, cause::LOAD_MISALIGNED, cause::LOAD_ACCESS)
        } else {
            (Access::Store, cause::STORE_MISALIGNED, cause::STORE_ACCESS)
        };
        if !va.is_multiple_of(size) {
            return Err(Exception::new(misaligned, va));
        }
        let pa = self.translate(env, va, size as usize, access)?;
        let bad = |_| Exception::new(outside, va);
        let old = if word {
            env.mem.load_u32(pa).map_err(bad)? as i32 as i64 as u64
        } else {
            env.mem.load_u64(pa).map_err(bad)?
        };
        let rd = usize::from(op.rd);
        let new = match op.kind {
            LrW | LrD => {
                hart.reservation = Reservation::at(pa, size as u8);
                hart.x.0[rd] = old;
                return Ok(());
            }
            ScW | ScD => {
                let success = hart.reservation == Reservation::at(pa, size as u8);
                hart.end_reservation();
                hart.x.0[rd] = u64::from(!success);
                if !success {
                    return Ok(());
                }
                return {
                    self.store_sized(env, va, pa, source, word);
                    Ok(())
                };
            }
            AmoSwapW | AmoSwapD => source,
            AmoAddW | AmoAddD => old.wrapping_add(source),
            AmoXorW | AmoXorD => old ^ source,
            AmoAndW | AmoAndD => old & source,
            AmoOrW | AmoOrD => old | source,
            AmoMinW => u64::from((old as i32).min(source as i32) as u32),
            AmoMaxW => u64::from((old as i32).max(source as i32) as u32),
            AmoMinuW => u64::from((old as u32).min(source as u32)),
            AmoMaxuW => u64::from((old as u32).max(source as u32)),
            AmoMinD => (old as i64).min(source as i64) as u64,
            AmoMaxD => (old as i64).max(source as i64) as u64,
            AmoMinuD => old.min(source),
            _ => old.max(source),
        };
        self.store_sized(env, va, pa, new, word);
        hart.x.0[rd] = old;
        Ok(())
    }

    fn store_sized(&mut self, env: &mut Env, va: u64, pa: u64, value: u64, word: bool) {
        let bytes = value.to_le_bytes();
        self.store_ram(env, va, pa, if word { &bytes[..4] } else { &bytes });
    }
}
