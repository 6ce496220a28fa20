//! Our side: the engine without devices, and the RAM as the reference's stores
//! make it.

use crate::layout::*;
use crate::program::Program;
use crate::store;
use twinvm_cpu::{AccessFault, Bus, Clock, Engine, Env, Exit, Hart, HartState, Lines, Mode};
use twinvm_mem::{Memory, RAM_BASE};

/// Nothing but the compare register of the timer, which programs disarm.
struct NoDevices;

impl Bus for NoDevices {
    fn read(&mut self, _: u64, _: usize, _: u64) -> Result<u64, AccessFault> {
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

/// Bytes of a store that faulted.
pub(crate) struct Half {
    pub(crate) pa: u64,
    pub(crate) bytes: Vec<u8>,
}

pub(crate) struct Ours {
    pub(crate) hart: Hart,
    pub(crate) memory: Memory,
    engine: Engine,
    pub(crate) icount: u64,
    /// The instruction at which the last trap was taken.
    pub(crate) trapped: Option<u32>,
    /// Before and after the last instruction.
    pub(crate) before: HartState,
    pub(crate) state: HartState,
}

impl Ours {
    /// With the interpreter alone, or blocks translated when they have been entered
    /// this often.
    pub(crate) fn new(program: &Program, hot_at: Option<u8>) -> Result<Self, String> {
        let mut memory = Memory::new(RAM_BYTES).map_err(|e| e.to_string())?;
        memory
            .store(RAM_BASE, &program.ram)
            .map_err(|e| e.to_string())?;
        let mut engine = Engine::new();
        if let Some(hot_at) = hot_at {
            let tier = twinvm_jit::tier(RAM_BYTES).map_err(|e| e.to_string())?;
            engine.set_tier(&mut memory, tier, hot_at);
        }
        let hart = Hart::new(0, DRIVER);
        let state = hart.save();
        Ok(Self {
            hart,
            memory,
            engine,
            icount: 0,
            trapped: None,
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

    /// Goes on to the next retired instruction; its mode and pc. `halves` gets the
    /// first halves of stores of which the second faulted.
    pub(crate) fn retire(&mut self, halves: &mut Vec<Half>) -> Result<(Mode, u64), String> {
        for _ in 0..10_000 {
            self.run(self.icount + 1)?;
            std::mem::swap(&mut self.before, &mut self.state);
            self.state = self.hart.save();
            if self.before.traps == self.state.traps {
                return Ok((self.before.mode, self.before.pc));
            }
            self.trapped = self.raw();
            halves.extend(self.half());
        }
        Err("only traps".into())
    }

    /// The instruction of the last step, if it can be fetched.
    fn raw(&self) -> Option<u32> {
        let fetch = |va| {
            let mut bytes = [0; 2];
            self.memory
                .read(self.translate(va, true)?, &mut bytes)
                .ok()?;
            Some(u32::from(u16::from_le_bytes(bytes)))
        };
        let pc = self.before.pc;
        let mut raw = fetch(pc)?;
        if raw & 3 == 3 {
            raw |= fetch(pc.wrapping_add(2))? << 16;
        }
        Some(raw)
    }

    /// If the last step was the trap of a store whose second page faulted: what it
    /// would have put on the first.
    fn half(&self) -> Option<Half> {
        let mut names = ["mcause", "mtval"];
        if self.state.mode != Mode::Machine {
            names = ["scause", "stval"];
        }
        let [cause, tval] = names.map(|name| Self::csr(&self.state, name));
        let (cause, tval) = (cause?, tval?);
        if !matches!(cause, 7 | 15) || tval & 0xfff != 0 {
            return None;
        }
        let (at, value) = store::decode(self.trapped?, &self.before)?;
        let count = tval.wrapping_sub(at);
        if !(1..8).contains(&count) {
            return None;
        }
        let pa = self.physical(at)?;
        Some(Half {
            pa,
            bytes: value.to_le_bytes()[..count as usize].to_vec(),
        })
    }

    pub(crate) fn csr(state: &HartState, name: &str) -> Option<u64> {
        let at = twinvm_cpu::CSR_NAMES.iter().position(|n| *n == name)?;
        state.csrs.get(at).copied()
    }

    /// Where the last instruction's access to `va` went, by a plain walk without
    /// any check: it is asked for accesses that were allowed.
    pub(crate) fn physical(&self, va: u64) -> Option<u64> {
        self.translate(va, false)
    }

    fn translate(&self, va: u64, fetch: bool) -> Option<u64> {
        let csr = |name| Self::csr(&self.before, name);
        let status = csr("mstatus")?;
        let mprv = !fetch && status >> 17 & 1 != 0;
        let mode = if self.before.mode == Mode::Machine && mprv {
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
