//! CSR reads and writes (RISC-V Privileged Architecture 1.12, chapter 2).

use crate::clock::Clock;
use crate::extensions::implements;
use crate::hart::{Hart, Mode, SATP_SV39, SATP_SV48, envcfg, irq, status};

/// Exceptions a supervisor may be handed: all but ECALL from M and the reserved.
pub(crate) const MEDELEG_MASK: u64 = 0xb3ff;

const MSTATUS_MASK: u64 = status::SIE
    | status::MIE
    | status::SPIE
    | status::MPIE
    | status::SPP
    | status::FS
    | status::MPRV
    | status::SUM
    | status::MXR
    | status::TVM
    | status::TW
    | status::TSR;
pub(crate) const SSTATUS_MASK: u64 =
    status::SIE | status::SPIE | status::SPP | status::FS | status::SUM | status::MXR;
const MENVCFG_MASK: u64 = envcfg::COMMON | envcfg::ADUE | envcfg::STCE;
/// MXL = 64, A C D F I M S U, and B if its three parts are there.
const MISA: u64 = {
    let b = implements("zba") && implements("zbb") && implements("zbs");
    (2 << 62) | 0x0014_112d | if b { 1 << 1 } else { 0 }
};

pub(crate) mod addr {
    pub(crate) const FFLAGS: u16 = 0x001;
    pub(crate) const FRM: u16 = 0x002;
    pub(crate) const FCSR: u16 = 0x003;
    pub(crate) const SSTATUS: u16 = 0x100;
    pub(crate) const SIE: u16 = 0x104;
    pub(crate) const STVEC: u16 = 0x105;
    pub(crate) const SCOUNTEREN: u16 = 0x106;
    pub(crate) const SENVCFG: u16 = 0x10a;
    pub(crate) const SSCRATCH: u16 = 0x140;
    pub(crate) const SEPC: u16 = 0x141;
    pub(crate) const SCAUSE: u16 = 0x142;
    pub(crate) const STVAL: u16 = 0x143;
    pub(crate) const SIP: u16 = 0x144;
    pub(crate) const STIMECMP: u16 = 0x14d;
    pub(crate) const SATP: u16 = 0x180;
    pub(crate) const MSTATUS: u16 = 0x300;
    pub(crate) const MISA: u16 = 0x301;
    pub(crate) const MEDELEG: u16 = 0x302;
    pub(crate) const MIDELEG: u16 = 0x303;
    pub(crate) const MIE: u16 = 0x304;
    pub(crate) const MTVEC: u16 = 0x305;
    pub(crate) const MCOUNTEREN: u16 = 0x306;
    pub(crate) const MENVCFG: u16 = 0x30a;
    pub(crate) const MCOUNTINHIBIT: u16 = 0x320;
    pub(crate) const MSCRATCH: u16 = 0x340;
    pub(crate) const MEPC: u16 = 0x341;
    pub(crate) const MCAUSE: u16 = 0x342;
    pub(crate) const MTVAL: u16 = 0x343;
    pub(crate) const MIP: u16 = 0x344;
    pub(crate) const PMPCFG0: u16 = 0x3a0;
    pub(crate) const PMPCFG2: u16 = 0x3a2;
    pub(crate) const PMPADDR0: u16 = 0x3b0;
    pub(crate) const PMPADDR15: u16 = 0x3bf;
    pub(crate) const TSELECT: u16 = 0x7a0;
    pub(crate) const TDATA3: u16 = 0x7a3;
    pub(crate) const MCYCLE: u16 = 0xb00;
    pub(crate) const MINSTRET: u16 = 0xb02;
    pub(crate) const CYCLE: u16 = 0xc00;
    pub(crate) const TIME: u16 = 0xc01;
    pub(crate) const INSTRET: u16 = 0xc02;
    pub(crate) const MVENDORID: u16 = 0xf11;
    pub(crate) const MARCHID: u16 = 0xf12;
    pub(crate) const MIMPID: u16 = 0xf13;
    pub(crate) const MHARTID: u16 = 0xf14;
    pub(crate) const MCONFIGPTR: u16 = 0xf15;

    /// True if a write says nothing about translations, nor about which interrupts are
    /// taken and when: the next instruction is what it would have been.
    pub(crate) fn decides_nothing(csr: u16) -> bool {
        matches!(
            csr,
            FFLAGS
                | FRM
                | FCSR
                | STVEC
                | SSCRATCH
                | SEPC
                | SCAUSE
                | STVAL
                | MTVEC
                | MSCRATCH
                | MEPC
                | MCAUSE
                | MTVAL
        )
    }

    pub(crate) fn is_pmp(csr: u16) -> bool {
        (PMPCFG0..=PMPADDR15).contains(&csr)
    }
}

/// What a CSR access may see beside the hart: as of the step before it.
#[derive(Clone, Copy)]
pub(crate) struct CsrView<'a> {
    pub(crate) clock: &'a Clock,
    pub(crate) icount: u64,
    /// MSIP, MEIP and SEIP as the devices drive them.
    pub(crate) lines: u64,
    pub(crate) mtimecmp: u64,
}

/// The access is an illegal instruction.
pub(crate) struct Illegal;

impl Hart {
    /// Steps of the machine that this hart took.
    pub(crate) fn steps(&self, icount: u64) -> u64 {
        let until = self.away_since.unwrap_or(icount);
        until.wrapping_sub(self.foreign_steps)
    }

    fn retired(&self, icount: u64) -> u64 {
        self.steps(icount).wrapping_sub(self.traps)
    }

    /// mip as software reads it.
    pub(crate) fn pending(&self, view: &CsrView) -> u64 {
        let now = view.clock.mtime(view.icount);
        let mut mip = self.mip | view.lines;
        if now >= view.mtimecmp {
            mip |= irq::MTI;
        }
        if self.menvcfg & envcfg::STCE != 0 {
            mip &= !irq::STI;
            if now >= self.stimecmp {
                mip |= irq::STI;
            }
        }
        mip
    }

    fn mstatus_value(&self) -> u64 {
        let dirty = self.mstatus & status::FS == status::FS;
        self.mstatus | if dirty { status::SD } else { 0 }
    }

    pub(crate) fn fs_off(&self) -> bool {
        self.mstatus & status::FS == 0
    }

    pub(crate) fn set_fs_dirty(&mut self) {
        self.mstatus |= status::FS;
    }

    fn counter_enabled(&self, bit: u32) -> bool {
        let m = self.mode == Mode::Machine || self.mcounteren >> bit & 1 != 0;
        let s = self.mode != Mode::User || self.scounteren >> bit & 1 != 0;
        m && s
    }

    /// Checks that the CSR may be named at all in this mode (and written, if
    /// `write`): address bits 9:8 are the lowest mode, 11:10 = 3 is read-only.
    fn check_access(&self, csr: u16, write: bool) -> Result<(), Illegal> {
        let lowest = u64::from(csr >> 8 & 3);
        if (self.mode as u64) < lowest || (write && csr >> 10 == 3) {
            return Err(Illegal);
        }
        Ok(())
    }

    pub(crate) fn read_csr(&self, csr: u16, write: bool, view: &CsrView) -> Result<u64, Illegal> {
        use addr::*;
        self.check_access(csr, write)?;
        Ok(match csr {
            FFLAGS | FRM | FCSR => {
                if self.fs_off() {
                    return Err(Illegal);
                }
                match csr {
                    FFLAGS => u64::from(self.fflags),
                    FRM => u64::from(self.frm),
                    _ => u64::from(self.frm) << 5 | u64::from(self.fflags),
                }
            }
            SSTATUS => self.mstatus_value() & (SSTATUS_MASK | status::UXL | status::SD),
            SIE => self.mie & self.mideleg,
            STVEC => self.stvec,
            SCOUNTEREN => self.scounteren,
            SENVCFG => self.senvcfg,
            SSCRATCH => self.sscratch,
            SEPC => self.sepc,
            SCAUSE => self.scause,
            STVAL => self.stval,
            SIP => self.pending(view) & self.mideleg,
            STIMECMP => {
                self.check_stimecmp()?;
                self.stimecmp
            }
            SATP => {
                if self.mode == Mode::Supervisor && self.mstatus & status::TVM != 0 {
                    return Err(Illegal);
                }
                self.satp
            }
            MSTATUS => self.mstatus_value(),
            MISA => self::MISA,
            MEDELEG => self.medeleg,
            MIDELEG => self.mideleg,
            MIE => self.mie,
            MTVEC => self.mtvec,
            MCOUNTEREN => self.mcounteren,
            MENVCFG => self.menvcfg,
            MCOUNTINHIBIT => self.mcountinhibit,
            MSCRATCH => self.mscratch,
            MEPC => self.mepc,
            MCAUSE => self.mcause,
            MTVAL => self.mtval,
            MIP => self.pending(view),
            MCYCLE => self.cycle.value(view.icount),
            MINSTRET => self.instret.value(self.retired(view.icount)),
            CYCLE if self.counter_enabled(0) => self.cycle.value(view.icount),
            TIME if self.counter_enabled(1) => view.clock.mtime(view.icount),
            INSTRET if self.counter_enabled(2) => self.instret.value(self.retired(view.icount)),
            MVENDORID | MARCHID | MIMPID | MCONFIGPTR => 0,
            MHARTID => self.id,
            // mhpmcounter3–31, mhpmevent3–31: exist, always zero (Zihpm allows it).
            0xb03..=0xb1f | 0x323..=0x33f => 0,
            0xc03..=0xc1f if self.counter_enabled(u32::from(csr & 31)) => 0,
            // No trigger: tselect holds only 0, and type 0 in tdata1 says that there is
            // none (RISC-V Debug Specification 1.0, chapter Sdtrig). Programs look before they
            // use one, and not all of them expect a trap.
            TSELECT..=TDATA3 => 0,
            PMPCFG0 => self.pmp.cfg(0),
            PMPCFG2 => self.pmp.cfg(1),
            PMPADDR0..=PMPADDR15 => self.pmp.addr(usize::from(csr - PMPADDR0)),
            _ => return Err(Illegal),
        })
    }

    /// stimecmp below M needs menvcfg.STCE and mcounteren.TM (Sstc, section 2.1).
    fn check_stimecmp(&self) -> Result<(), Illegal> {
        let allowed = self.mode == Mode::Machine
            || (self.menvcfg & envcfg::STCE != 0 && self.mcounteren & 2 != 0);
        if allowed { Ok(()) } else { Err(Illegal) }
    }

    /// Writes a CSR that [`Hart::read_csr`] let through with `write`.
    pub(crate) fn write_csr(&mut self, csr: u16, value: u64, view: &CsrView) {
        use addr::*;
        match csr {
            FFLAGS | FRM | FCSR => {
                match csr {
                    FFLAGS => self.fflags = value as u8 & 0x1f,
                    FRM => self.frm = value as u8 & 7,
                    _ => {
                        self.fflags = value as u8 & 0x1f;
                        self.frm = (value >> 5) as u8 & 7;
                    }
                }
                self.set_fs_dirty();
            }
            SSTATUS => self.write_mstatus(SSTATUS_MASK, value),
            SIE => self.mie = (self.mie & !self.mideleg) | legal::mie(value & self.mideleg),
            STVEC => self.stvec = legal::tvec(value),
            SCOUNTEREN => self.scounteren = legal::counteren(value),
            SENVCFG => self.senvcfg = legal::senvcfg(value),
            SSCRATCH => self.sscratch = value,
            SEPC => self.sepc = legal::epc(value),
            SCAUSE => self.scause = value,
            STVAL => self.stval = value,
            SIP => {
                let mask = irq::SSI & self.mideleg;
                self.mip = (self.mip & !mask) | (value & mask);
            }
            STIMECMP => self.stimecmp = value,
            // A mode that doesn't exist: the write has no effect.
            SATP => self.satp = legal::satp(value).unwrap_or(self.satp),
            MSTATUS => self.mstatus = legal::mstatus(value),
            MEDELEG => self.medeleg = legal::medeleg(value),
            MIDELEG => self.mideleg = legal::mideleg(value),
            MIE => self.mie = legal::mie(value),
            MTVEC => self.mtvec = legal::tvec(value),
            MCOUNTEREN => self.mcounteren = legal::counteren(value),
            MENVCFG => self.menvcfg = legal::menvcfg(value),
            MCOUNTINHIBIT => {
                self.mcountinhibit = legal::mcountinhibit(value);
                self.cycle.inhibit(view.icount, value & 1 != 0);
                let retired = self.retired(view.icount);
                self.instret.inhibit(retired, value & 4 != 0);
            }
            MSCRATCH => self.mscratch = value,
            MEPC => self.mepc = legal::epc(value),
            MCAUSE => self.mcause = value,
            MTVAL => self.mtval = value,
            MIP => {
                let mut mask = irq::S_ALL;
                if self.menvcfg & envcfg::STCE != 0 {
                    mask &= !irq::STI;
                }
                self.mip = (self.mip & !mask) | (value & mask);
            }
            // The value is what the counter holds after this instruction retires.
            MCYCLE => self.cycle.write(view.icount.wrapping_add(1), value),
            MINSTRET => {
                let retired = self.retired(view.icount).wrapping_add(1);
                self.instret.write(retired, value);
            }
            PMPCFG0 => self.pmp.write_cfg(0, value),
            PMPCFG2 => self.pmp.write_cfg(1, value),
            PMPADDR0..=PMPADDR15 => self.pmp.write_addr(usize::from(csr - PMPADDR0), value),
            _ => {}
        }
    }

    /// For SEIP, a read-modify-write sees the software bit, not the line
    /// (Privileged Architecture, section 3.1.9).
    pub(crate) fn csr_modify_base(&self, csr: u16, read: u64) -> u64 {
        if csr == addr::MIP {
            (read & !irq::SEI) | (self.mip & irq::SEI)
        } else {
            read
        }
    }

    fn write_mstatus(&mut self, mask: u64, value: u64) {
        self.mstatus = (self.mstatus & !mask) | (value & mask);
    }
}

/// What a CSR holds after a write (WARL fields), whatever it held before. A
/// value is legal if its function returns it as it is.
pub(crate) mod legal {
    use super::{MEDELEG_MASK, MENVCFG_MASK, MSTATUS_MASK, SATP_SV39, SATP_SV48};
    use crate::hart::{envcfg, irq, status};

    pub(crate) fn mstatus(value: u64) -> u64 {
        let mut value = value & (MSTATUS_MASK | status::MPP);
        // MPP = 2 is no mode: the field becomes U.
        if value & status::MPP == status::MPP_RESERVED {
            value &= !status::MPP;
        }
        value | status::UXL | status::SXL
    }

    pub(crate) fn medeleg(value: u64) -> u64 {
        value & MEDELEG_MASK
    }

    pub(crate) fn mideleg(value: u64) -> u64 {
        value & irq::S_ALL
    }

    pub(crate) fn mie(value: u64) -> u64 {
        value & irq::ALL
    }

    /// The bits of mip that software can set.
    pub(crate) fn mip(value: u64) -> u64 {
        value & irq::S_ALL
    }

    pub(crate) fn tvec(value: u64) -> u64 {
        // Mode 0 direct, 1 vectored; 2 and 3 are reserved and read back as direct.
        if value & 3 > 1 { value & !3 } else { value }
    }

    pub(crate) fn epc(value: u64) -> u64 {
        value & !1
    }

    pub(crate) fn counteren(value: u64) -> u64 {
        value & 0xffff_ffff
    }

    /// cycle and instret; the other counters are always zero.
    pub(crate) fn mcountinhibit(value: u64) -> u64 {
        value & 5
    }

    pub(crate) fn menvcfg(value: u64) -> u64 {
        envcfg_value(value, MENVCFG_MASK)
    }

    pub(crate) fn senvcfg(value: u64) -> u64 {
        envcfg_value(value, envcfg::COMMON)
    }

    /// The reserved value of CBIE becomes 0 (CMO extensions, section 2.3: WARL).
    fn envcfg_value(value: u64, mask: u64) -> u64 {
        let value = value & mask;
        if value & envcfg::CBIE == envcfg::CBIE_RESERVED {
            value & !envcfg::CBIE
        } else {
            value
        }
    }

    /// `None` for a mode that doesn't exist. The ASID has 16 bits.
    pub(crate) fn satp(value: u64) -> Option<u64> {
        match value >> 60 {
            0 => Some(0),
            SATP_SV39 | SATP_SV48 => Some(value),
            _ => None,
        }
    }
}
