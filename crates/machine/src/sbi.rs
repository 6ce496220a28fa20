//! The built-in SBI: what firmware would answer a supervisor
//! (RISC-V Supervisor Binary Interface 2.0). An ECALL is one step.

use crate::harts::HartStatus;
use crate::machine::Machine;
use twinvm_cpu::{Hart, peek_data};
use twinvm_devices::{Now, map};

const SUCCESS: i64 = 0;
const ERR_FAILED: i64 = -1;
const ERR_NOT_SUPPORTED: i64 = -2;
const ERR_INVALID_PARAM: i64 = -3;
const ERR_INVALID_ADDRESS: i64 = -5;
const ERR_ALREADY_AVAILABLE: i64 = -6;

const EXT_BASE: u64 = 0x10;
const EXT_TIME: u64 = 0x5449_4d45;
const EXT_IPI: u64 = 0x0073_5049;
const EXT_RFENCE: u64 = 0x5246_4e43;
const EXT_HSM: u64 = 0x0048_534d;
const EXT_SRST: u64 = 0x5352_5354;
const EXT_DBCN: u64 = 0x4442_434e;

/// Extensions of SBI 0.1 (SBI 2.0, chapter 5), which answer in a0 alone. Many small kernels know
/// no others.
mod legacy {
    pub(super) const SET_TIMER: u64 = 0;
    pub(super) const PUTCHAR: u64 = 1;
    pub(super) const GETCHAR: u64 = 2;
    pub(super) const CLEAR_IPI: u64 = 3;
    pub(super) const SEND_IPI: u64 = 4;
    pub(super) const REMOTE_FENCE_I: u64 = 5;
    pub(super) const REMOTE_SFENCE_VMA_ASID: u64 = 7;
    pub(super) const SHUTDOWN: u64 = 8;
    /// The numbers that are kept for them.
    pub(super) const LAST: u64 = 15;
}

const SPEC_VERSION: u64 = 2 << 24;
/// Not in the register of implementation ids: "TV".
const IMPLEMENTATION_ID: u64 = 0x5456;
const HSM_START: u64 = 0;
const HSM_STOP: u64 = 1;
const HSM_STATUS: u64 = 2;
const HSM_SUSPEND: u64 = 3;
/// Kinds of suspend: the defaults, with and without the hart's registers.
const RETENTIVE: u32 = 0;
const NON_RETENTIVE: u32 = 0x8000_0000;

/// Most bytes one console write takes; the call says how many it took.
const MAX_CONSOLE_WRITE: u64 = 4096;

/// What a call asks of the machine beyond its registers.
pub(crate) enum SbiEffect {
    None,
    PowerOff,
    Reset,
    /// The hart waits for an interrupt.
    Suspend,
    /// The hart waits for an interrupt, and then goes on elsewhere.
    SuspendTo {
        entry: u64,
        opaque: u64,
    },
}

type Answer = (i64, u64, SbiEffect);

fn done(value: u64) -> Answer {
    (SUCCESS, value, SbiEffect::None)
}

fn fail(error: i64) -> Answer {
    (error, 0, SbiEffect::None)
}

impl Machine {
    /// Answers the ECALL at pc: sets a0 and a1, moves behind it, counts a step.
    pub(crate) fn sbi_call(&mut self) -> SbiEffect {
        let hart = self.harts.running();
        let args: [u64; 6] = std::array::from_fn(|n| hart.x(10 + n as u8));
        let (function, extension) = (hart.x(16), hart.x(17));
        let (error, value, effect) = match extension {
            ..=legacy::LAST => self.legacy(extension, &args),
            _ => self.dispatch(extension, function, &args),
        };
        self.icount += 1;
        let hart = self.harts.running_mut();
        hart.set_x(10, error as u64);
        if extension > legacy::LAST {
            hart.set_x(11, value);
        }
        hart.set_pc(hart.pc().wrapping_add(4));
        if let SbiEffect::SuspendTo { entry, opaque } = effect {
            hart.resume_at(entry, opaque);
        }
        effect
    }

    fn dispatch(&mut self, extension: u64, function: u64, args: &[u64; 6]) -> Answer {
        match (extension, function) {
            (EXT_BASE, 0) => done(SPEC_VERSION),
            (EXT_BASE, 1) => done(IMPLEMENTATION_ID),
            (EXT_BASE, 2) => done(u64::from(crate::MACHINE_VERSION)),
            (EXT_BASE, 3) => done(u64::from(matches!(
                args[0],
                0..=legacy::SHUTDOWN
                    | EXT_BASE
                    | EXT_TIME
                    | EXT_IPI
                    | EXT_RFENCE
                    | EXT_HSM
                    | EXT_SRST
                    | EXT_DBCN
            ))),
            // mvendorid, marchid, mimpid.
            (EXT_BASE, 4..=6) => done(0),
            (EXT_TIME, 0) => {
                self.harts.running_mut().set_stimecmp(args[0]);
                done(0)
            }
            (EXT_IPI, 0) => match self.selected_harts(args[0], args[1]) {
                Some(harts) => {
                    self.send_ipi(harts);
                    done(0)
                }
                None => fail(ERR_INVALID_PARAM),
            },
            // Remote fences: translation and fetch are coherent anyway.
            (EXT_RFENCE, 0..=2) => match self.selected_harts(args[0], args[1]) {
                Some(_) => done(0),
                None => fail(ERR_INVALID_PARAM),
            },
            (EXT_HSM, _) => self.hart_state(function, args),
            (EXT_SRST, 0) => match (args[0] as u32, args[1] as u32) {
                (0, 0 | 1) => (SUCCESS, 0, SbiEffect::PowerOff),
                (1 | 2, 0 | 1) => (SUCCESS, 0, SbiEffect::Reset),
                _ => fail(ERR_INVALID_PARAM),
            },
            (EXT_DBCN, 0) => self.console_write(args),
            // Nothing to read here: the console's input is the UART's.
            (EXT_DBCN, 1) => done(0),
            (EXT_DBCN, 2) => {
                self.console.push(args[0] as u8);
                done(0)
            }
            _ => fail(ERR_NOT_SUPPORTED),
        }
    }

    fn legacy(&mut self, extension: u64, args: &[u64; 6]) -> Answer {
        match extension {
            legacy::SET_TIMER => self.harts.running_mut().set_stimecmp(args[0]),
            legacy::PUTCHAR => self.console.push(args[0] as u8),
            legacy::GETCHAR => return (self.console_byte(), 0, SbiEffect::None),
            legacy::CLEAR_IPI => {
                let hart = self.harts.running_mut();
                let pending = hart.ssip();
                hart.set_ssip(false);
                return (pending.into(), 0, SbiEffect::None);
            }
            legacy::SEND_IPI => match self.legacy_harts(args[0]) {
                Some(harts) => self.send_ipi(harts),
                None => return fail(ERR_INVALID_ADDRESS),
            },
            legacy::REMOTE_FENCE_I..=legacy::REMOTE_SFENCE_VMA_ASID => {}
            legacy::SHUTDOWN => return (SUCCESS, 0, SbiEffect::PowerOff),
            _ => return fail(ERR_NOT_SUPPORTED),
        }
        done(0)
    }

    fn send_ipi(&mut self, harts: u64) {
        for id in (0..self.harts.len()).filter(|id| harts >> id & 1 != 0) {
            self.harts.get_mut(id).set_ssip(true);
        }
    }

    /// The harts in the mask at a virtual address of the caller; zero stands for all of them, as
    /// in OpenSBI. Those that don't exist are left out.
    fn legacy_harts(&self, mask_at: u64) -> Option<u64> {
        if mask_at == 0 {
            return Some(u64::MAX);
        }
        peek_data(self.harts.running(), &self.mem, mask_at)
    }

    /// The next byte that was typed at the UART, taken from it as a driver would, or -1.
    fn console_byte(&mut self) -> i64 {
        const DATA: u64 = map::UART_BASE;
        const LINE_STATUS: u64 = map::UART_BASE + 5;
        const DATA_READY: u64 = 1;
        let mtime = self.mtime();
        let mut read = |at| self.board.read(at, 1, Now { mtime });
        match read(LINE_STATUS) {
            Ok(status) if status & DATA_READY != 0 => read(DATA).map_or(-1, |byte| byte as i64),
            _ => -1,
        }
    }

    /// Hart state management (SBI 2.0, chapter 9).
    fn hart_state(&mut self, function: u64, args: &[u64; 6]) -> Answer {
        let named = usize::try_from(args[0])
            .ok()
            .and_then(|id| Some((id, self.harts.status(id)?)));
        let code = |address: u64| address & 1 == 0 && self.mem.contains(address, 2);
        match (function, named) {
            (HSM_START, Some((_, HartStatus::Started | HartStatus::Suspended))) => {
                fail(ERR_ALREADY_AVAILABLE)
            }
            (HSM_START, Some(_)) if !code(args[1]) => fail(ERR_INVALID_ADDRESS),
            (HSM_START, Some((id, HartStatus::Stopped))) => {
                let mut hart = Hart::new(id as u64, args[1]);
                hart.enter_supervisor(args[1], args[2]);
                self.harts.start(hart, self.icount);
                done(0)
            }
            // Nobody could start the last one again.
            (HSM_STOP, _) => match self.harts.stop() {
                true => done(0),
                false => fail(ERR_FAILED),
            },
            (HSM_STATUS, Some((_, status))) => done(match status {
                HartStatus::Started => 0,
                HartStatus::Stopped => 1,
                HartStatus::Suspended => 4,
            }),
            (HSM_START | HSM_STATUS, None) => fail(ERR_INVALID_PARAM),
            (HSM_SUSPEND, _) => match args[0] as u32 {
                RETENTIVE => (SUCCESS, 0, SbiEffect::Suspend),
                NON_RETENTIVE if !code(args[1]) => fail(ERR_INVALID_ADDRESS),
                NON_RETENTIVE => {
                    let (entry, opaque) = (args[1], args[2]);
                    (SUCCESS, 0, SbiEffect::SuspendTo { entry, opaque })
                }
                _ => fail(ERR_INVALID_PARAM),
            },
            _ => fail(ERR_NOT_SUPPORTED),
        }
    }

    fn console_write(&mut self, args: &[u64; 6]) -> Answer {
        let len = args[0].min(MAX_CONSOLE_WRITE);
        if len == 0 {
            return done(0);
        }
        match self.mem.slice(args[1], len as usize) {
            Ok(bytes) if args[2] == 0 => {
                self.console.extend_from_slice(bytes);
                done(len)
            }
            _ => fail(ERR_INVALID_ADDRESS),
        }
    }

    /// The harts that a mask names (SBI 2.0, section 3.1, "Hart list parameter"), a bit each;
    /// `None` if it names one that doesn't exist.
    fn selected_harts(&self, mask: u64, base: u64) -> Option<u64> {
        let all = (1 << self.harts.len()) - 1;
        if base == u64::MAX {
            return Some(all);
        }
        if mask == 0 {
            return Some(0);
        }
        let base = u32::try_from(base).ok()?;
        let harts = mask.checked_shl(base)?;
        (harts >> base == mask && harts & !all == 0).then_some(harts)
    }
}
