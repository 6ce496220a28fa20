//! Our side: the engine without devices, and the RAM as the reference's stores
//! make it.

use crate::layout::*;
use crate::program::Program;
use twinvm_cpu::{AccessFault, Bus, Clock, Engine, Env, Exit, Hart, HartState, Lines, Mode};
use twinvm_mem::{Memory, RAM_BASE};

/// Nothing but the compare register of the timer, which programs disarm.
struct NoDevices;

impl Bus for NoDevices {
    fn read(&mut self, _: &mut Memory, _: u64, _: usize, _: u64) -> Result<u64, AccessFault> {
        Err(AccessFault)
    }
    fn write(
        &mut self,
        _: &mut Memory,
        pa: u64,
        _: usize,
        _: u64,
        _: u64,
    ) -> Result<(), AccessFault> {
        if pa == 0x200_4000 {
            Ok(())
        } else {
            Err(AccessFault)
        }
    }
    fn fetch(&self, _: u64) -> Option<u16> {
        None
    }
    fn lines(&self, _: u64) -> Lines {
        Lines {
            msip: false,
            meip: false,
            seip: false,
            mtimecmp: u64::MAX,
            alarm: u64::MAX,
        }
    }
    fn alarm(&mut self, _: u64) {}
    fn attention(&self) -> bool {
        false
    }
}

pub(crate) struct Ours {
    pub(crate) hart: Hart,
    pub(crate) memory: Memory,
    engine: Engine,
    pub(crate) icount: u64,
    /// Before and after the last instruction.
    pub(crate) before: HartState,
    pub(crate) state: HartState,
}

impl Ours {
    pub(crate) fn new(program: &Program) -> Result<Self, String> {
        let mut memory = Memory::new(RAM_BYTES).map_err(|e| e.to_string())?;
        memory
            .store(RAM_BASE, &program.ram)
            .map_err(|e| e.to_string())?;
        let hart = Hart::new(0, DRIVER);
        let state = hart.save();
        Ok(Self {
            hart,
            memory,
            engine: Engine::new(),
            icount: 0,
            before: state.clone(),
            state,
        })
    }

    /// Runs to a step count.
    pub(crate) fn run(&mut self, until: u64) -> Result<(), String> {
        while self.icount < until {
            let mut env = Env {
                mem: &mut self.memory,
                bus: &mut NoDevices,
                clock: Clock {
                    icount: 0,
                    mtime: 0,
                    rate: 0,
                    span: 0,
                },
                icount: self.icount,
                builtin_sbi: false,
            };
            let exit = self.engine.run(&mut self.hart, &mut env, until);
            self.icount = env.icount;
            if !matches!(exit, Exit::Limit | Exit::Yield) {
                return Err(format!(
                    "the engine stops with {exit:?} at {:#x}",
                    self.hart.pc()
                ));
            }
        }
        Ok(())
    }

    /// Goes on to the next retired instruction; its mode and pc.
    pub(crate) fn retire(&mut self) -> Result<(Mode, u64), String> {
        for _ in 0..10_000 {
            self.run(self.icount + 1)?;
            std::mem::swap(&mut self.before, &mut self.state);
            self.state = self.hart.save();
            if self.before.traps == self.state.traps {
                return Ok((self.before.mode, self.before.pc));
            }
        }
        Err("only traps".into())
    }

    pub(crate) fn csr(state: &HartState, name: &str) -> Option<u64> {
        let at = twinvm_cpu::CSR_NAMES.iter().position(|n| *n == name)?;
        state.csrs.get(at).copied()
    }

    /// Where the last instruction's access to `va` went, by a plain walk without
    /// any check: it is asked for accesses that were allowed.
    pub(crate) fn physical(&self, va: u64) -> Option<u64> {
        let csr = |name| Self::csr(&self.before, name);
        let status = csr("mstatus")?;
        let mode = if self.before.mode == Mode::Machine && status >> 17 & 1 != 0 {
            status >> 11 & 3
        } else {
            self.before.mode as u64
        };
        let satp = csr("satp")?;
        let levels = match satp >> 60 {
            _ if mode == 3 => return Some(va),
            0 => return Some(va),
            8 => 3,
            _ => 4,
        };
        let mut table = satp << 20 >> 8;
        for level in (0..levels).rev() {
            let shift = 12 + 9 * level;
            let entry = self.memory.load_u64(table + 8 * (va >> shift & 511)).ok()?;
            table = entry << 10 >> 20 << 12;
            if entry & 0xe != 0 {
                let low = if entry & pte::N != 0 { 16 } else { shift };
                let mask = (1u64 << low) - 1;
                return Some(table & !mask | va & mask);
            }
        }
        None
    }
}
