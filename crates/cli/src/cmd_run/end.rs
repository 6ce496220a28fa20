//! How a run ends, and with which exit code.

use twinvm_machine::Halt;

/// The largest code of a failure; above are ours.
const MAX_FAILURE: u16 = 119;

/// How a run has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The machine has ended by itself.
    Halted(Halt),
    /// The step limit was reached.
    Limit,
    /// A person or a signal ended it.
    Stopped,
    /// It could not go on.
    Fault,
}

impl End {
    /// The process's exit code. It is the reason in a recording's last record, too.
    pub(crate) fn exit_code(self) -> u8 {
        match self {
            Self::Halted(Halt::PowerOff) => 0,
            Self::Halted(Halt::Fail(code)) => code.clamp(1, MAX_FAILURE) as u8,
            Self::Halted(Halt::Reset) => 120,
            Self::Limit => 124,
            Self::Fault => crate::FAULT,
            Self::Stopped => 130,
        }
    }

    /// The reason as the report names it.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Halted(Halt::PowerOff) => "poweroff",
            Self::Halted(Halt::Fail(_)) => "failure",
            Self::Halted(Halt::Reset) => "reset",
            Self::Limit => "limit",
            Self::Stopped => "stopped",
            Self::Fault => "fault",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failure_codes_stay_below_our_own() {
        let code = |code| End::Halted(Halt::Fail(code)).exit_code();
        assert_eq!([code(0), code(1), code(7)], [1, 1, 7]);
        assert_eq!([code(119), code(120), code(65535)], [119, 119, 119]);
    }
}
