//! SYSTEM instructions: environment calls, returns, WFI, fences, CSRs.

use crate::csr::addr;
use crate::engine::Env;
use crate::exec::{Core, Flow};
use crate::hart::{Hart, Mode, status};
use crate::op::{Kind, Op};
use crate::trap::{Exception, cause};

impl Core {
    pub(crate) fn system(
        &mut self,
        hart: &mut Hart,
        env: &mut Env,
        op: &Op,
        steps: usize,
        block_pc: u64,
    ) -> Flow {
        let illegal = Flow::Trap(Exception::illegal(op.raw));
        let pc = block_pc.wrapping_add(u64::from(op.off));
        let set = |bit: u64| hart.mstatus & bit != 0;
        match op.kind {
            // Fetch always sees memory as it is: nothing to do.
            Kind::FenceI => Flow::Next,
            Kind::Ecall => match hart.mode {
                Mode::Supervisor if env.builtin_sbi => Flow::Sbi,
                Mode::User => Flow::Trap(Exception::new(cause::ECALL_U, 0)),
                Mode::Supervisor => Flow::Trap(Exception::new(cause::ECALL_S, 0)),
                Mode::Machine => Flow::Trap(Exception::new(cause::ECALL_M, 0)),
            },
            Kind::Ebreak => Flow::Trap(Exception::new(cause::BREAKPOINT, pc)),
            Kind::Sret => {
                if hart.mode == Mode::User || (hart.mode == Mode::Supervisor && set(status::TSR)) {
                    return illegal;
                }
                hart.sret();
                self.mode_changed();
                Flow::Jumped
            }
            Kind::Mret => {
                if hart.mode != Mode::Machine {
                    return illegal;
                }
                hart.mret();
                self.mode_changed();
                Flow::Jumped
            }
            Kind::Wfi => {
                // With TW, WFI below M traps at once (the bound on its wait may
                // be 0). In U-mode it always does, since S-mode is there and a
                // wait has no bound (Privileged Architecture, section 3.3.3).
                if hart.mode == Mode::User || (hart.mode == Mode::Supervisor && set(status::TW)) {
                    return illegal;
                }
                hart.waiting = true;
                Flow::Look
            }
            // Translation always sees the tables as they are: nothing to do.
            Kind::SfenceVma | Kind::SinvalVma => {
                if hart.mode == Mode::User || (hart.mode == Mode::Supervisor && set(status::TVM)) {
                    return illegal;
                }
                Flow::Next
            }
            Kind::SfenceWInval | Kind::SfenceInvalIr => {
                // TVM doesn't matter here (Svinval, section 12 of the
                // Privileged Architecture).
                if hart.mode == Mode::User {
                    return illegal;
                }
                Flow::Next
            }
            // The wait ends in bounded time, so TW has no say over wrs.nto
            // (Zawrs; stalls may end for any reason).
            Kind::Pause | Kind::WrsNto | Kind::WrsSto => Flow::Yield,
            _ => self.csr(hart, env, op, steps),
        }
    }

    fn mode_changed(&mut self) {
        self.reselect = true;
    }

    fn csr(&mut self, hart: &mut Hart, env: &mut Env, op: &Op, steps: usize) -> Flow {
        let csr = op.aux;
        let register = hart.x.0[usize::from(op.rs1)];
        let (source, modify): (u64, bool) = match op.kind {
            Kind::Csrrw => (register, false),
            Kind::Csrrwi => (u64::from(op.rs1), false),
            Kind::Csrrs | Kind::Csrrc => (register, true),
            _ => (u64::from(op.rs1), true),
        };
        // csrrs and csrrc with x0 or a zero immediate don't write.
        let write = !modify || op.rs1 != 0;
        let clock = env.clock;
        let view = self.view(&clock, env.icount + steps as u64);
        let Ok(old) = hart.read_csr(csr, write, &view) else {
            return Flow::Trap(Exception::illegal(op.raw));
        };
        if write {
            let base = hart.csr_modify_base(csr, old);
            let value = match op.kind {
                Kind::Csrrs | Kind::Csrrsi => base | source,
                Kind::Csrrc | Kind::Csrrci => base & !source,
                _ => source,
            };
            let status = hart.mstatus;
            hart.write_csr(csr, value, &view);
            let look = match csr {
                _ if addr::decides_nothing(csr) => false,
                // Nor does most of sstatus, while no interrupt waits for its being let in.
                addr::SSTATUS => {
                    let changed = status ^ hart.mstatus;
                    changed & (status::SUM | status::MXR) != 0 || hart.interrupt(&view).is_some()
                }
                _ => true,
            };
            if look {
                // satp, mstatus, menvcfg and the PMP decide translations.
                self.reselect = true;
                self.pmp_changed |= addr::is_pmp(csr);
                hart.x.0[usize::from(op.rd)] = old;
                return Flow::Look;
            }
        }
        hart.x.0[usize::from(op.rd)] = old;
        Flow::Next
    }
}
