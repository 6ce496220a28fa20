//! Trap causes and the entry into and return from handlers
//! (RISC-V Privileged Architecture 1.12, sections 3.1.6 to 3.1.16, 3.3.2, 4.1).

use crate::hart::{Hart, Mode, status};

/// A synchronous exception: cause and the value for xtval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exception {
    /// Exception code as in mcause.
    pub cause: u64,
    /// Value for mtval or stval.
    pub tval: u64,
}

/// Exception codes of mcause.
pub(crate) mod cause {
    pub(crate) const FETCH_ACCESS: u64 = 1;
    pub(crate) const ILLEGAL: u64 = 2;
    pub(crate) const BREAKPOINT: u64 = 3;
    pub(crate) const LOAD_MISALIGNED: u64 = 4;
    pub(crate) const LOAD_ACCESS: u64 = 5;
    pub(crate) const STORE_MISALIGNED: u64 = 6;
    pub(crate) const STORE_ACCESS: u64 = 7;
    pub(crate) const ECALL_U: u64 = 8;
    pub(crate) const ECALL_S: u64 = 9;
    pub(crate) const ECALL_M: u64 = 11;
    pub(crate) const FETCH_PAGE: u64 = 12;
    pub(crate) const LOAD_PAGE: u64 = 13;
    pub(crate) const STORE_PAGE: u64 = 15;
    pub(crate) const INTERRUPT: u64 = 1 << 63;
}

impl Exception {
    pub(crate) fn new(cause: u64, tval: u64) -> Self {
        Self { cause, tval }
    }

    pub(crate) fn illegal(raw: u32) -> Self {
        Self::new(cause::ILLEGAL, u64::from(raw))
    }
}

impl Hart {
    /// Enters the handler for `cause` (with the interrupt bit, if one). The trap
    /// is the step; the caller counts it.
    pub(crate) fn enter_trap(&mut self, cause: u64, tval: u64, pc: u64) {
        self.traps = self.traps.wrapping_add(1);
        self.waiting = false;
        let interrupt = cause & cause::INTERRUPT != 0;
        let bit = 1u64 << (cause & 63);
        let delegated = if interrupt {
            self.mideleg & bit
        } else {
            self.medeleg & bit
        } != 0;
        if delegated && self.mode != Mode::Machine {
            self.sepc = pc;
            self.scause = cause;
            self.stval = tval;
            let was = self.mstatus;
            self.mstatus &= !(status::SIE | status::SPIE | status::SPP);
            if was & status::SIE != 0 {
                self.mstatus |= status::SPIE;
            }
            if self.mode == Mode::Supervisor {
                self.mstatus |= status::SPP;
            }
            self.mode = Mode::Supervisor;
            self.pc = vector(self.stvec, cause);
        } else {
            self.mepc = pc;
            self.mcause = cause;
            self.mtval = tval;
            let was = self.mstatus;
            self.mstatus &= !(status::MIE | status::MPIE | status::MPP);
            if was & status::MIE != 0 {
                self.mstatus |= status::MPIE;
            }
            self.mstatus |= (self.mode as u64) << status::MPP_SHIFT;
            self.mode = Mode::Machine;
            self.pc = vector(self.mtvec, cause);
        }
    }

    pub(crate) fn sret(&mut self) {
        let was = self.mstatus;
        self.mstatus &= !(status::SIE | status::SPP);
        if was & status::SPIE != 0 {
            self.mstatus |= status::SIE;
        }
        self.mstatus |= status::SPIE;
        self.mode = if was & status::SPP != 0 {
            Mode::Supervisor
        } else {
            Mode::User
        };
        self.mstatus &= !status::MPRV;
        self.pc = self.sepc;
    }

    pub(crate) fn mret(&mut self) {
        let was = self.mstatus;
        self.mstatus &= !(status::MIE | status::MPP);
        if was & status::MPIE != 0 {
            self.mstatus |= status::MIE;
        }
        self.mstatus |= status::MPIE;
        self.mode = Mode::from_bits(was >> status::MPP_SHIFT);
        if self.mode != Mode::Machine {
            self.mstatus &= !status::MPRV;
        }
        self.pc = self.mepc;
    }
}

fn vector(tvec: u64, cause: u64) -> u64 {
    let base = tvec & !3;
    if tvec & 1 != 0 && cause & cause::INTERRUPT != 0 {
        base.wrapping_add(4 * (cause & 63))
    } else {
        base
    }
}
