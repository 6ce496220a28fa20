//! Cache-block operations (RISC-V Unprivileged ISA, chapter "CMO": Zicbom and
//! Zicboz). There is no cache to see, so of the management instructions only the
//! checks are left.

use crate::engine::Env;
use crate::exec::Core;
use crate::extensions::CACHE_BLOCK_BYTES;
use crate::hart::{Hart, Mode, envcfg};
use crate::op::{Kind, Op};
use crate::trap::{Exception, cause};
use crate::walk::Access;

impl Core {
    pub(crate) fn cache_block(
        &mut self,
        hart: &Hart,
        env: &mut Env,
        op: &Op,
    ) -> Result<(), Exception> {
        let enable = match op.kind {
            Kind::CboInval => envcfg::CBIE,
            Kind::CboZero => envcfg::CBZE,
            _ => envcfg::CBCFE,
        };
        let enabled = match hart.mode {
            Mode::Machine => true,
            Mode::Supervisor => hart.menvcfg & enable != 0,
            Mode::User => hart.menvcfg & enable != 0 && hart.senvcfg & enable != 0,
        };
        if !enabled {
            return Err(Exception::illegal(op.raw));
        }
        let given = hart.x.0[usize::from(op.rs1)];
        let va = given & !(CACHE_BLOCK_BYTES - 1);
        // Management is allowed where a load or a store is; where a store is, a load
        // is too (write-only is reserved in page tables and in PMP). Any fault is
        // that of a store, and xtval is the address as the register gives it.
        let access = if op.kind == Kind::CboZero {
            Access::Store
        } else {
            Access::Load
        };
        let pa = self.block_address(env, va, access).map_err(|fault| {
            let cause = match fault.cause {
                cause::LOAD_PAGE => cause::STORE_PAGE,
                cause::LOAD_ACCESS => cause::STORE_ACCESS,
                other => other,
            };
            Exception::new(cause, given)
        })?;
        if !env.mem.contains(pa, CACHE_BLOCK_BYTES) {
            return Err(Exception::new(cause::STORE_ACCESS, given));
        }
        if op.kind == Kind::CboZero {
            self.store_ram(env, va, pa, &[0; CACHE_BLOCK_BYTES as usize]);
        }
        Ok(())
    }
    /// Physical address of the block at `va`. A block is not one access: where PMP
    /// entries meet within it, each may decide for its own words.
    fn block_address(&mut self, env: &mut Env, va: u64, access: Access) -> Result<u64, Exception> {
        const WORD: usize = 4;
        let bytes = CACHE_BLOCK_BYTES as usize;
        match self.translate(env, va, bytes, access) {
            Err(fault) if matches!(fault.cause, cause::LOAD_ACCESS | cause::STORE_ACCESS) => {
                let first = self.translate(env, va, WORD, access)?;
                for offset in (WORD..bytes).step_by(WORD) {
                    self.translate(env, va + offset as u64, WORD, access)?;
                }
                Ok(first)
            }
            other => other,
        }
    }
}
