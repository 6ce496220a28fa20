//! `twinvm demo`: a pair on this host, its live node killed again and again, and clients that
//! count.
//!
//! The Redis guest's client holds one TCP connection to the guest's Redis, sends INCR, waits for the answer,
//! and sends the next. Each answer must be the number after the last one, so an answer that is
//! lost, made twice or out of turn shows at once. The Debian guest has a disk; clients keep a
//! ledger in its PostgreSQL, and other sessions stay open beside it. Everything runs as real processes, which are
//! ended with SIGKILL.
//!
//! ```text
//! image ─> switch, two nodes ─> guest up ─> protected ─> client counts
//!                                              ▲              │
//!                    the dead node joins again │              ▼ at a random moment
//!                                              └── the other takes over ◄── kill
//! ```

mod checker;
pub(crate) mod client;
mod debian;
pub(crate) mod error;
mod ledger;
mod load;
pub(crate) mod play;
pub(crate) mod processes;
mod redis;
mod report;
pub(crate) use crate::lab::resp;
pub(crate) mod rng;
pub(crate) mod sessions;
pub(crate) mod status;
mod svg;
pub(crate) mod timeline;
pub(crate) mod vm;

use std::path::PathBuf;

use clap::ValueEnum;
use twinvm_image::ImageKind;

use crate::Outcome;

/// Most kills of one run: each takes seconds, and the times of all answers are kept.
pub(crate) const MAX_KILLS: u32 = 1000;

/// Runs a protected VM on this host and kills its live node again and again
///
/// Starts a guest with a Redis server on two nodes and a client that counts on one TCP
/// connection; with --guest debian a whole Debian on a disk, whose PostgreSQL keeps a ledger for
/// clients beside pgbench, with nginx and SSH sessions open. Then the process of the live node is ended with SIGKILL at random moments; the
/// other node goes on, the dead one joins again, and the next kill hits the other one. Not one
/// answer may be lost, doubled or out of order, not one acknowledged transaction may be missing,
/// and no connection may end.
///
/// The system closes a killed process's connections at once, so the other node knows at once;
/// a host that loses its power is noticed by its silence, after suspect_ms (300 by default).
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Example:
  twinvm demo --kills 4
  twinvm demo --kills 50 --seed 7 --out /tmp/demo
  twinvm demo --guest debian

Exit codes:
  0    every answer was right
  1    an answer was lost, doubled, out of order or wrong
  2    bad input
  125  a fault of our own, for instance a VM that was never protected
  130  interrupted")]
pub(crate) struct DemoArgs {
    /// How often the live node is killed, 1 to 1000
    #[arg(long, value_name = "N", default_value_t = 4,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_KILLS)))]
    pub(crate) kills: u32,
    /// Seed of the random moments [default: from the clock; it is printed]
    #[arg(long, value_name = "S")]
    pub(crate) seed: Option<u64>,
    /// What runs in the guest
    #[arg(long, value_enum, default_value_t = GuestKind::Redis)]
    pub(crate) guest: GuestKind,
    /// Where the VM's files, the logs and the report go [default: target/demo, or
    /// target/demo-debian]
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Where the guest's image is, or is made if it isn't there [default: target/image/redis, or
    /// target/image/debian, which takes minutes and root to make]
    #[arg(long, value_name = "DIR")]
    pub(crate) image: Option<PathBuf>,
}

/// What runs in the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum GuestKind {
    /// Redis, all in memory
    Redis,
    /// Debian on a disk: PostgreSQL, nginx and SSH
    Debian,
}

impl GuestKind {
    fn image(self) -> ImageKind {
        match self {
            Self::Redis => ImageKind::Redis,
            Self::Debian => ImageKind::Debian,
        }
    }

    fn in_words(self) -> &'static str {
        match self {
            Self::Redis => "Debian with Redis",
            Self::Debian => "Debian on a disk",
        }
    }

    /// What clients ask.
    fn service(self) -> &'static str {
        match self {
            Self::Redis => "Redis",
            Self::Debian => "PostgreSQL",
        }
    }

    /// Its address in the guest's network.
    fn service_address(self) -> &'static str {
        match self {
            Self::Redis => vm::GUEST,
            Self::Debian => vm::POSTGRES,
        }
    }
}

impl DemoArgs {
    fn out(&self) -> PathBuf {
        let usual = match self.guest {
            GuestKind::Redis => "target/demo",
            GuestKind::Debian => "target/demo-debian",
        };
        self.out.clone().unwrap_or_else(|| usual.into())
    }

    fn image(&self) -> PathBuf {
        let usual = match self.guest {
            GuestKind::Redis => "target/image/redis",
            GuestKind::Debian => "target/image/debian",
        };
        self.image.clone().unwrap_or_else(|| usual.into())
    }
}

/// Runs the demonstration: 0 if every answer was right, 1 if not.
pub(crate) fn run(args: &DemoArgs) -> Outcome {
    match play::run(args) {
        Ok(right) => Ok(u8::from(!right)),
        Err(error) => Err((error.exit_code(), error.to_string())),
    }
}

#[cfg(test)]
mod tests;
