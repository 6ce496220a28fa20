//! The architectural state of one hart.

use crate::pmp::Pmp;
use serde::{Deserialize, Serialize};
use twinvm_mem::RAM_BASE;

/// Privilege mode; the numbers are those of mstatus.MPP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[repr(u8)]
pub enum Mode {
    /// User.
    User = 0,
    /// Supervisor.
    Supervisor = 1,
    /// Machine.
    Machine = 3,
}

impl Mode {
    pub(crate) fn from_bits(bits: u64) -> Self {
        match bits & 3 {
            0 => Mode::User,
            1 => Mode::Supervisor,
            _ => Mode::Machine,
        }
    }
}

/// Bits of mstatus.
pub(crate) mod status {
    pub(crate) const SIE: u64 = 1 << 1;
    pub(crate) const MIE: u64 = 1 << 3;
    pub(crate) const SPIE: u64 = 1 << 5;
    pub(crate) const MPIE: u64 = 1 << 7;
    pub(crate) const SPP: u64 = 1 << 8;
    pub(crate) const MPP_SHIFT: u32 = 11;
    pub(crate) const MPP: u64 = 3 << MPP_SHIFT;
    pub(crate) const MPP_RESERVED: u64 = 2 << MPP_SHIFT;
    pub(crate) const FS_SHIFT: u32 = 13;
    pub(crate) const FS: u64 = 3 << FS_SHIFT;
    pub(crate) const MPRV: u64 = 1 << 17;
    pub(crate) const SUM: u64 = 1 << 18;
    pub(crate) const MXR: u64 = 1 << 19;
    pub(crate) const TVM: u64 = 1 << 20;
    pub(crate) const TW: u64 = 1 << 21;
    pub(crate) const TSR: u64 = 1 << 22;
    pub(crate) const UXL: u64 = 2 << 32;
    pub(crate) const SXL: u64 = 2 << 34;
    pub(crate) const SD: u64 = 1 << 63;
}

/// Bits of mip and mie.
pub(crate) mod irq {
    pub(crate) const SSI: u64 = 1 << 1;
    pub(crate) const MSI: u64 = 1 << 3;
    pub(crate) const STI: u64 = 1 << 5;
    pub(crate) const MTI: u64 = 1 << 7;
    pub(crate) const SEI: u64 = 1 << 9;
    pub(crate) const MEI: u64 = 1 << 11;
    pub(crate) const S_ALL: u64 = SSI | STI | SEI;
    pub(crate) const ALL: u64 = S_ALL | MSI | MTI | MEI;
}

/// Bits of menvcfg and senvcfg.
pub(crate) mod envcfg {
    pub(crate) const FIOM: u64 = 1;
    /// cbo.inval below: 0 illegal, 1 flushes, 3 invalidates (2 is reserved).
    pub(crate) const CBIE: u64 = 3 << 4;
    pub(crate) const CBIE_RESERVED: u64 = 2 << 4;
    /// cbo.clean and cbo.flush below.
    pub(crate) const CBCFE: u64 = 1 << 6;
    /// cbo.zero below.
    pub(crate) const CBZE: u64 = 1 << 7;
    /// What both menvcfg and senvcfg have.
    pub(crate) const COMMON: u64 = FIOM | CBIE | CBCFE | CBZE;
    pub(crate) const ADUE: u64 = 1 << 61;
    pub(crate) const STCE: u64 = 1 << 63;
}

/// satp.MODE.
pub(crate) const SATP_SV39: u64 = 8;
pub(crate) const SATP_SV48: u64 = 9;

/// Where writes to x0 go: a register the guest cannot name.
pub(crate) const SINK: u8 = 32;

/// Registers indexed by a byte without a bounds check: entries above those the
/// architecture names are never read.
#[derive(Clone)]
pub(crate) struct Registers(pub(crate) [u64; 256]);

impl Registers {
    fn new() -> Self {
        Self([0; 256])
    }
}

/// A counter CSR: the value is `base + offset`, or held while inhibited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Counter {
    pub(crate) offset: u64,
    pub(crate) held: Option<u64>,
}

impl Counter {
    pub(crate) fn value(&self, base: u64) -> u64 {
        self.held.unwrap_or_else(|| base.wrapping_add(self.offset))
    }

    pub(crate) fn write(&mut self, base: u64, value: u64) {
        match &mut self.held {
            Some(held) => *held = value,
            None => self.offset = value.wrapping_sub(base),
        }
    }

    pub(crate) fn inhibit(&mut self, base: u64, inhibit: bool) {
        match (self.held, inhibit) {
            (None, true) => self.held = Some(self.value(base)),
            (Some(value), false) => {
                self.held = None;
                self.offset = value.wrapping_sub(base);
            }
            _ => {}
        }
    }
}

/// What LR has reserved for SC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Reservation {
    /// From the start of RAM.
    pub(crate) place: u64,
    /// Bytes; 0: there is no reservation.
    pub(crate) size: u64,
}

impl Reservation {
    pub(crate) const NONE: Self = Self { place: 0, size: 0 };

    /// Of `size` bytes at a physical address.
    pub(crate) fn at(pa: u64, size: u8) -> Self {
        Self {
            place: pa.wrapping_sub(RAM_BASE),
            size: u64::from(size),
        }
    }

    /// Physical address and size.
    pub(crate) fn get(self) -> Option<(u64, u8)> {
        (self.size != 0).then_some((self.place.wrapping_add(RAM_BASE), self.size as u8))
    }
}

/// One hart: everything the architecture names, and nothing derived from it.
#[derive(Clone)]
pub struct Hart {
    pub(crate) x: Registers,
    pub(crate) f: Registers,
    pub(crate) pc: u64,
    pub(crate) mode: Mode,
    /// WFI has retired and no enabled interrupt is pending since.
    pub(crate) waiting: bool,
    pub(crate) reservation: Reservation,
    pub(crate) id: u64,
    /// Steps of the machine that other harts took, up to the start of this
    /// hart's last turn.
    pub(crate) foreign_steps: u64,
    /// Step count at which this hart's turn ended, while others have theirs.
    pub(crate) away_since: Option<u64>,
    pub(crate) traps: u64,
    /// fflags and frm, as in fcsr.
    pub(crate) fflags: u8,
    pub(crate) frm: u8,
    pub(crate) mstatus: u64,
    pub(crate) medeleg: u64,
    pub(crate) mideleg: u64,
    pub(crate) mie: u64,
    /// The bits of mip that software sets (SSIP, STIP without Sstc, SEIP).
    pub(crate) mip: u64,
    pub(crate) mtvec: u64,
    pub(crate) mscratch: u64,
    pub(crate) mepc: u64,
    pub(crate) mcause: u64,
    pub(crate) mtval: u64,
    pub(crate) mcounteren: u64,
    pub(crate) mcountinhibit: u64,
    pub(crate) menvcfg: u64,
    pub(crate) cycle: Counter,
    pub(crate) instret: Counter,
    pub(crate) stvec: u64,
    pub(crate) sscratch: u64,
    pub(crate) sepc: u64,
    pub(crate) scause: u64,
    pub(crate) stval: u64,
    pub(crate) scounteren: u64,
    pub(crate) senvcfg: u64,
    pub(crate) satp: u64,
    pub(crate) stimecmp: u64,
    pub(crate) pmp: Pmp,
}

impl Hart {
    /// A hart at power-on: M-mode, at address `pc`.
    pub fn new(id: u64, pc: u64) -> Self {
        Self {
            x: Registers::new(),
            f: Registers::new(),
            pc,
            mode: Mode::Machine,
            waiting: false,
            reservation: Reservation::NONE,
            id,
            foreign_steps: 0,
            away_since: None,
            traps: 0,
            fflags: 0,
            frm: 0,
            mstatus: status::UXL | status::SXL,
            medeleg: 0,
            mideleg: 0,
            mie: 0,
            mip: 0,
            mtvec: 0,
            mscratch: 0,
            mepc: 0,
            mcause: 0,
            mtval: 0,
            mcounteren: 0,
            mcountinhibit: 0,
            menvcfg: envcfg::ADUE,
            cycle: Counter::default(),
            instret: Counter::default(),
            stvec: 0,
            sscratch: 0,
            sepc: 0,
            scause: 0,
            stval: 0,
            scounteren: 0,
            senvcfg: 0,
            satp: 0,
            stimecmp: u64::MAX,
            pmp: Pmp::new(),
        }
    }

    /// Starts the hart as SBI firmware does for a supervisor, at power-on or by
    /// HSM: S-mode at `entry` with a0 = hart id and a1 = `opaque` (the device
    /// tree), interrupts and translation off; all exceptions and interrupts that a
    /// supervisor can take delegated; counters, Sstc and cache-block operations
    /// enabled, and the floating-point unit, which small kernels use without
    /// turning it on (OpenSBI leaves it so); all memory open (RISC-V SBI 2.0, chapter 9
    /// and the boot protocol of Linux). Steps and counters go on, all else is as after reset.
    pub fn enter_supervisor(&mut self, entry: u64, opaque: u64) {
        let was = self.clone();
        let reset = Self::new(was.id, entry & !1);
        *self = Self {
            mode: Mode::Supervisor,
            mstatus: reset.mstatus | status::FS,
            medeleg: crate::csr::MEDELEG_MASK & !(1 << crate::trap::cause::ECALL_S),
            mideleg: irq::S_ALL,
            mcounteren: 7,
            scounteren: 7,
            menvcfg: envcfg::STCE | envcfg::ADUE | envcfg::CBIE | envcfg::CBCFE | envcfg::CBZE,
            pmp: Pmp::open(),
            foreign_steps: was.foreign_steps,
            away_since: was.away_since,
            traps: was.traps,
            cycle: was.cycle,
            instret: was.instret,
            mcountinhibit: was.mcountinhibit,
            ..reset
        };
        self.x.0[10] = self.id;
        self.x.0[11] = opaque;
    }

    /// Hart id as in mhartid.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Program counter of the next instruction.
    pub fn pc(&self) -> u64 {
        self.pc
    }

    /// Sets the program counter (bit 0 is cleared).
    pub fn set_pc(&mut self, pc: u64) {
        self.pc = pc & !1;
    }

    /// Current privilege mode.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Traps taken so far.
    pub fn traps(&self) -> u64 {
        self.traps
    }

    /// True while the hart waits for an interrupt.
    pub fn waiting(&self) -> bool {
        self.waiting
    }

    /// Integer register `n` (0–31).
    pub fn x(&self, n: u8) -> u64 {
        self.x.0[usize::from(n & 31)]
    }

    /// Sets integer register `n` (1–31; x0 stays 0).
    pub fn set_x(&mut self, n: u8, value: u64) {
        if n & 31 != 0 {
            self.x.0[usize::from(n & 31)] = value;
        }
    }

    /// Sstc compare value in ticks; `u64::MAX` means never.
    pub fn stimecmp(&self) -> u64 {
        self.stimecmp
    }

    /// Sets the Sstc compare value, as the SBI TIME extension does.
    pub fn set_stimecmp(&mut self, ticks: u64) {
        self.stimecmp = ticks;
    }

    /// Sets or clears the supervisor software interrupt, as the SBI IPI
    /// extension does.
    pub fn set_ssip(&mut self, pending: bool) {
        if pending {
            self.mip |= irq::SSI;
        } else {
            self.mip &= !irq::SSI;
        }
    }

    /// Whether the supervisor software interrupt is set.
    pub fn ssip(&self) -> bool {
        self.mip & irq::SSI != 0
    }

    /// Sets the hart up to go on at `entry` when it wakes, as SBI's non-retentive
    /// suspend does (SBI 2.0, section 9.4): S-mode without translation, interrupts
    /// off, floating point on, a0 = hart id and a1 = `opaque`. What wakes it stays as it is.
    pub fn resume_at(&mut self, entry: u64, opaque: u64) {
        self.mode = Mode::Supervisor;
        self.set_pc(entry);
        self.x.0[10] = self.id;
        self.x.0[11] = opaque;
        self.satp = 0;
        self.mstatus = self.mstatus & !status::SIE | status::FS;
    }

    /// Waits for an interrupt, as WFI does (SBI retentive suspend).
    pub fn wait(&mut self) {
        self.waiting = true;
    }

    /// Takes over the counters' base of the hart that this one replaces after a
    /// reset: steps go on, cycle and instret start at 0.
    pub fn follow(&mut self, before: &Hart, icount: u64) {
        self.foreign_steps = before.foreign_steps;
        self.away_since = before.away_since;
        self.traps = before.traps;
        let steps = self.steps(icount);
        self.cycle.write(icount, 0);
        self.instret.write(steps.wrapping_sub(self.traps), 0);
    }

    /// Ends this hart's turn after step `icount`: another hart goes on, and its
    /// steps are not this one's. The reservation ends. Does nothing if the turn
    /// has ended already. A new hart has the turn; end it at power-on for all
    /// harts but the first.
    pub fn end_turn(&mut self, icount: u64) {
        self.reservation = Reservation::NONE;
        self.away_since.get_or_insert(icount);
    }

    /// Starts this hart's turn before step `icount + 1`: the steps since
    /// [`Hart::end_turn`] were others'. Only the hart that has the turn may be
    /// given to [`crate::Engine::run`], and only one may have it. Does nothing if
    /// this hart has it already.
    pub fn begin_turn(&mut self, icount: u64) {
        if let Some(since) = self.away_since.take() {
            let others = icount.wrapping_sub(since);
            self.foreign_steps = self.foreign_steps.wrapping_add(others);
        }
    }

    /// True while this hart has the turn.
    pub fn has_turn(&self) -> bool {
        self.away_since.is_none()
    }

    /// Ends a reservation (DMA, hart switch).
    pub fn end_reservation(&mut self) {
        self.reservation = Reservation::NONE;
    }

    /// A cheap 16-bit tell-tale over pc and x1–x31.
    pub fn tell_tale(&self) -> u16 {
        let mut h = self.pc ^ 0x9e37_79b9_7f4a_7c15;
        for v in &self.x.0[1..32] {
            h = (h.rotate_left(5) ^ v).wrapping_mul(0x517c_c1b7_2722_0a95);
        }
        (h >> 48) as u16
    }
}
