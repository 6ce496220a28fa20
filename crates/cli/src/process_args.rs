//! Options of commands that listen: what their process gives up before it does, and how its lines
//! look.

use clap::ValueEnum;
use twinvm_host::journal::LogFormat;
use twinvm_host::sandbox::{Confinement, User};

use crate::BAD_INPUT;

/// The value of `--sandbox`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sandbox {
    /// Only the system calls that it needs; no debugger, no core file
    On,
    /// For finding faults
    Off,
}

/// What `--log-format` can be.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum LogFormatArg {
    Text,
    Json,
}

impl From<LogFormatArg> for LogFormat {
    fn from(arg: LogFormatArg) -> Self {
        match arg {
            LogFormatArg::Text => Self::Text,
            LogFormatArg::Json => Self::Json,
        }
    }
}

/// Options of what stays as it was started.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct SandboxArgs {
    /// Whether the kernel refuses system calls that this process never needs, and keeps debuggers
    /// and core files away from its memory
    #[arg(
        long,
        value_name = "ON|OFF",
        default_value = "on",
        hide_possible_values = true
    )]
    sandbox: Sandbox,
}

/// Options of what root may start.
#[derive(Debug, clap::Args)]
pub(crate) struct ProcessArgs {
    /// Started as root: become this user for good before anything is opened or listened to. Names
    /// or numbers; without a group, the user's
    #[arg(long, value_name = "NAME[:GROUP]")]
    user: Option<String>,
    #[command(flatten)]
    sandbox: SandboxArgs,
}

impl SandboxArgs {
    /// What is to be given up.
    pub(crate) fn confinement(self) -> Confinement {
        Confinement {
            user: None,
            sandbox: self.sandbox == Sandbox::On,
        }
    }
}

impl ProcessArgs {
    /// Whom it becomes, as it was said.
    pub(crate) fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// What is to be given up, if there is such a user.
    pub(crate) fn confinement(&self) -> Result<Confinement, (u8, String)> {
        let find = |text: &String| User::find(text);
        let user = self.user.as_ref().map(find).transpose();
        Ok(Confinement {
            user: user.map_err(|error| (BAD_INPUT, error.to_string()))?,
            ..self.sandbox.confinement()
        })
    }
}
