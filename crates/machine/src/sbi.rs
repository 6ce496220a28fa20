//! The built-in SBI: what firmware would answer a supervisor
//! (RISC-V Supervisor Binary Interface 2.0). An ECALL is one step.

use crate::machine::Machine;

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

const SPEC_VERSION: u64 = 2 << 24;
/// Not in the register of implementation ids: "TV".
const IMPLEMENTATION_ID: u64 = 0x5456;
/// Most bytes one console write takes; the call says how many it took.
const MAX_CONSOLE_WRITE: u64 = 4096;

/// What a call asks of the machine beyond its registers.
pub(crate) enum SbiEffect {
    None,
    PowerOff,
    Reset,
    /// The hart waits for an interrupt.
    Suspend,
}

impl Machine {
    /// Answers the ECALL at pc: sets a0 and a1, moves behind it, counts a step.
    pub(crate) fn sbi_call(&mut self) -> SbiEffect {
        let hart = &self.hart;
        let args: [u64; 6] = std::array::from_fn(|n| hart.x(10 + n as u8));
        let (function, extension) = (hart.x(16), hart.x(17));
        let (error, value, effect) = self.dispatch(extension, function, &args);
        self.hart.set_x(10, error as u64);
        self.hart.set_x(11, value);
        self.hart.set_pc(self.hart.pc().wrapping_add(4));
        self.icount += 1;
        effect
    }

    fn dispatch(
        &mut self,
        extension: u64,
        function: u64,
        args: &[u64; 6],
    ) -> (i64, u64, SbiEffect) {
        let done = |value: u64| (SUCCESS, value, SbiEffect::None);
        let fail = |error: i64| (error, 0, SbiEffect::None);
        match (extension, function) {
            (EXT_BASE, 0) => done(SPEC_VERSION),
            (EXT_BASE, 1) => done(IMPLEMENTATION_ID),
            (EXT_BASE, 2) => done(u64::from(crate::MACHINE_VERSION)),
            (EXT_BASE, 3) => done(u64::from(matches!(
                args[0],
                EXT_BASE | EXT_TIME | EXT_IPI | EXT_RFENCE | EXT_HSM | EXT_SRST | EXT_DBCN
            ))),
            // mvendorid, marchid, mimpid.
            (EXT_BASE, 4..=6) => done(0),
            (EXT_TIME, 0) => {
                self.hart.set_stimecmp(args[0]);
                done(0)
            }
            (EXT_IPI, 0) => match self.selects_this_hart(args[0], args[1]) {
                Some(true) => {
                    self.hart.set_ssip(true);
                    done(0)
                }
                Some(false) => done(0),
                None => fail(ERR_INVALID_PARAM),
            },
            // Remote fences: translation and fetch are coherent anyway.
            (EXT_RFENCE, 0..=2) => match self.selects_this_hart(args[0], args[1]) {
                Some(_) => done(0),
                None => fail(ERR_INVALID_PARAM),
            },
            (EXT_HSM, 0) if args[0] == self.hart.id() => fail(ERR_ALREADY_AVAILABLE),
            (EXT_HSM, 0) => fail(ERR_INVALID_PARAM),
            // The only hart can't stop: nobody could start it again.
            (EXT_HSM, 1) => fail(ERR_FAILED),
            (EXT_HSM, 2) if args[0] == self.hart.id() => done(0),
            (EXT_HSM, 2) => fail(ERR_INVALID_PARAM),
            // Default retentive suspend: as WFI.
            (EXT_HSM, 3) if args[0] == 0 => (SUCCESS, 0, SbiEffect::Suspend),
            (EXT_HSM, 3) => fail(ERR_INVALID_PARAM),
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

    fn console_write(&mut self, args: &[u64; 6]) -> (i64, u64, SbiEffect) {
        let len = args[0].min(MAX_CONSOLE_WRITE);
        if len == 0 {
            return (SUCCESS, 0, SbiEffect::None);
        }
        match self.mem.slice(args[1], len as usize) {
            Ok(bytes) if args[2] == 0 => {
                self.console.extend_from_slice(bytes);
                (SUCCESS, len, SbiEffect::None)
            }
            _ => (ERR_INVALID_ADDRESS, 0, SbiEffect::None),
        }
    }

    /// Whether a hart mask (section 3.1 "hart list parameter") names this hart;
    /// `None` if it names one that doesn't exist.
    fn selects_this_hart(&self, mask: u64, base: u64) -> Option<bool> {
        if base == u64::MAX {
            return Some(true);
        }
        let id = self.hart.id();
        let named = id
            .checked_sub(base)
            .filter(|n| *n < 64)
            .map_or(0, |n| mask & (1 << n));
        if mask & !named != 0 {
            None
        } else {
            Some(named != 0)
        }
    }
}
