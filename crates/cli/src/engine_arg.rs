//! Which engine executes the guest, as an option of commands.

use clap::ValueEnum;
use twinvm_machine::EngineKind;

/// The value of `--engine`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum EngineArg {
    /// The interpreter alone
    Interp,
    /// The interpreter, and translated code for what runs often
    Jit,
}

impl EngineArg {
    /// On the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Interp => "interp",
            Self::Jit => "jit",
        }
    }
}

impl From<EngineArg> for EngineKind {
    fn from(engine: EngineArg) -> Self {
        match engine {
            EngineArg::Interp => Self::Interp,
            EngineArg::Jit => Self::Jit,
        }
    }
}

impl From<EngineKind> for EngineArg {
    fn from(engine: EngineKind) -> Self {
        match engine {
            EngineKind::Interp => Self::Interp,
            EngineKind::Jit => Self::Jit,
        }
    }
}
