//! `twinvm lan`: the user-mode switch.

use std::io::Write;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use clap::Args;
use crossbeam_channel::bounded;
use twinvm_host::signals::SignalWatch;
use twinvm_lan::{
    BoundAddrs, ConfigError, FixedLease, Forward, Impairment, LanConfig, LanError, stop_pair,
};

use crate::process_args::SandboxArgs;
use crate::{BAD_INPUT, FAULT, Outcome};

/// Runs a network for guests: a switch that needs no rights, with TCP ports of this host
/// forwarded into it
///
/// The guests' gateway is 10.0.2.2/24. A guest that asks by DHCP gets an address for a day: the one
/// kept for it by --lease, else the next of the forwards' guests, else the next from 10.0.2.15 on;
/// there is no name server, and no way out of this network. Clients' connections end in this
/// process, so they outlive the nodes that are plugged into it, and so do leases. SIGTERM or Ctrl-C
/// stops it.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  twinvm lan --listen lan.sock --forward 127.0.0.1:6379=10.0.2.15:6379

and in the VM's file:
  [[net]]
  mac = \"52:54:00:12:34:56\"
  backend = \"lan:lan.sock\"

Once it listens it prints `listening on SOCK` and each forward with the port it got.

Exit codes:
  0    stopped
  2    bad input, or a socket that is in use
  125  a fault of our own")]
pub(crate) struct LanArgs {
    /// The Unix socket that nodes connect to
    #[arg(long, value_name = "SOCK")]
    listen: PathBuf,
    /// A TCP port of this host and where it leads; port 0 takes a free one
    #[arg(long = "forward", value_name = "HOST:PORT=GUEST:PORT")]
    forwards: Vec<String>,
    /// An address that DHCP keeps for one guest
    #[arg(long = "lease", value_name = "MAC=IP")]
    leases: Vec<String>,
    /// Give no addresses by DHCP
    #[arg(long, conflicts_with = "leases")]
    no_dhcp: bool,
    /// Make every frame between the switch and a node late by so many milliseconds, each way
    #[arg(long, value_name = "MS", default_value_t = 0)]
    delay: u64,
    /// Lose so many of 100 frames between the switch and a node, each way, at random
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0)]
    loss: f64,
    #[command(flatten)]
    sandbox: SandboxArgs,
}

/// Runs the switch until a signal.
pub(crate) fn run(args: LanArgs) -> Outcome {
    let mut config = LanConfig::new(args.listen);
    for forward in &args.forwards {
        let forward: Forward = forward
            .parse()
            .map_err(|error| (BAD_INPUT, format!("{error}")))?;
        config.forwards.push(forward);
    }
    config.dhcp.serve = !args.no_dhcp;
    config.impairment =
        impairment(args.delay, args.loss).map_err(|error| (BAD_INPUT, error.to_string()))?;
    for lease in &args.leases {
        let lease: FixedLease = lease
            .parse()
            .map_err(|error| (BAD_INPUT, format!("{error}")))?;
        config.dhcp.fixed.push(lease);
    }
    // Before anybody is listened to. That root runs a switch is nothing to say at each start.
    let confinement = args.sandbox.confinement();
    confinement
        .enter(&[])
        .map_err(|error| (BAD_INPUT, error.to_string()))?;
    let fault = |error: std::io::Error| (FAULT, error.to_string());
    let (stopper, stop) = stop_pair().map_err(fault)?;
    let (signals_in, signals) = bounded(1);
    let _watch = SignalWatch::start(signals_in).map_err(fault)?;
    thread::Builder::new()
        .name("stop".to_owned())
        .spawn(move || {
            if signals.recv().is_ok() {
                stopper.stop();
            }
        })
        .map_err(fault)?;
    match twinvm_lan::run(config, stop, tell) {
        Ok(_) => Ok(0),
        Err(error @ LanError::Poll(_)) => Err((FAULT, error.to_string())),
        Err(error) => Err((BAD_INPUT, error.to_string())),
    }
}

/// How bad the wires are to be.
fn impairment(delay_ms: u64, percent: f64) -> Result<Impairment, ConfigError> {
    if !(0.0..=100.0).contains(&percent) {
        return Err(ConfigError::Loss(percent));
    }
    Ok(Impairment {
        delay: Duration::from_millis(delay_ms),
        // At most a million.
        loss_ppm: (percent * 1e4).round() as u32,
    })
}

/// Tells on standard output where the switch listens. Nobody need read it.
fn tell(bound: &BoundAddrs) {
    let mut out = std::io::stdout().lock();
    let mut text = format!("listening on {}\n", bound.listen.display());
    for forward in &bound.forwards {
        text.push_str(&format!("forward {forward}\n"));
    }
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
