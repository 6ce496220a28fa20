//! `twinvm demo`: a pair on this host, its live node killed again and again, and one client
//! that counts.
//!
//! The client holds one TCP connection to the guest's Redis, sends INCR, waits for the answer,
//! and sends the next. Each answer must be the number after the last one, so an answer that is
//! lost, made twice or out of turn shows at once. Everything runs as real processes, which are
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
pub(crate) mod error;
pub(crate) mod play;
pub(crate) mod processes;
mod report;
pub(crate) use crate::lab::resp;
pub(crate) mod rng;
pub(crate) mod status;
mod svg;
pub(crate) mod timeline;
pub(crate) mod vm;

use std::path::PathBuf;

use crate::Outcome;

/// Most kills of one run: each takes seconds, and the times of all answers are kept.
pub(crate) const MAX_KILLS: u32 = 1000;

/// Runs a protected VM on this host and kills its live node again and again
///
/// Starts a guest with a Redis server on two nodes and a client that counts on one TCP
/// connection. Then the process of the live node is ended with SIGKILL at random moments; the
/// other node goes on, the dead one joins again, and the next kill hits the other one. Not one
/// answer may be lost, doubled or out of order.
///
/// The system closes a killed process's connections at once, so the other node knows at once;
/// a host that loses its power is noticed by its silence, after suspect_ms (300 by default).
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Example:
  twinvm demo --kills 4
  twinvm demo --kills 50 --seed 7 --out /tmp/demo

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
    /// Where the VM's files, the logs and the report go
    #[arg(long, value_name = "DIR", default_value = "target/demo")]
    pub(crate) out: PathBuf,
    /// Where the guest's image is, or is made if it isn't there
    #[arg(long, value_name = "DIR", default_value = "target/image/redis")]
    pub(crate) image: PathBuf,
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
