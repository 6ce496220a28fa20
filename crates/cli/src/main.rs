//! `twinvm`: virtual machines that survive the death of their host.
//!
//! Each command is a file of its own; this one only finds out which is meant.

// They panic where a line can't be written: see `say`.
#![cfg_attr(not(test), warn(clippy::print_stdout, clippy::print_stderr))]

mod bench;
mod cmd_arbiter;
mod cmd_ctl;
mod cmd_disk;
mod cmd_image;
mod cmd_keys;
mod cmd_lan;
mod cmd_node;
mod cmd_replay;
mod cmd_run;
mod demo;
mod engine_arg;
mod guest;
mod image_kind;
mod lab;
mod perf_map;
mod process_args;
mod say;
mod usage;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::LazyLock;

use clap::{CommandFactory, Parser, Subcommand};

/// Something in what was given is wrong; nothing was done.
const BAD_INPUT: u8 = 2;
/// A fault of our own.
const FAULT: u8 = 125;

/// How a command ends: with this exit code, or with one and the line that says why.
type Outcome = Result<u8, (u8, String)>;

static VERSION: LazyLock<String> = LazyLock::new(|| {
    format!(
        "{} (machine_version {}, protocol {})",
        env!("CARGO_PKG_VERSION"),
        twinvm_machine::MACHINE_VERSION,
        twinvm_protocol::message::PROTOCOL_VERSION
    )
});

/// Fault tolerance for unmodified software: a virtual machine that runs on two hosts in
/// lockstep, and goes on without a gap when one of them dies
#[derive(Parser)]
#[command(name = "twinvm", version = VERSION.as_str(), after_help = "\
Example:
  twinvm image build redis --out redis
  twinvm run --kernel redis/kernel --initrd redis/initrd.cpio --cmdline console=ttyS0

Each command has its own --help with an example.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Run(Box<cmd_run::RunArgs>),
    Replay(cmd_replay::ReplayArgs),
    Node(cmd_node::NodeArgs),
    Ctl(cmd_ctl::CtlArgs),
    Arbiter(cmd_arbiter::ArbiterArgs),
    Disk(cmd_disk::DiskArgs),
    Keys(cmd_keys::KeysArgs),
    Lan(cmd_lan::LanArgs),
    Image(cmd_image::ImageArgs),
    Demo(demo::DemoArgs),
    Bench(bench::BenchArgs),
    #[command(name = cmd_node::HOOK_RUNNER, hide = true)]
    HookRunner(cmd_node::RunnerArgs),
    #[command(name = cmd_node::FENCE_RUNNER, hide = true)]
    FenceRunner(cmd_node::RunnerArgs),
    #[command(hide = true)]
    LabRelay(bench::protect::relay::RelayArgs),
    #[command(hide = true)]
    LabWire(bench::protect::sites::WireArgs),
}

impl Command {
    fn run(self) -> (&'static str, Outcome) {
        match self {
            Self::Run(args) => ("run", cmd_run::run(*args)),
            Self::Replay(args) => ("replay", cmd_replay::run(args)),
            Self::Node(args) => ("node", cmd_node::run(args)),
            Self::Ctl(args) => ("ctl", cmd_ctl::run(args)),
            Self::Arbiter(args) => ("arbiter", cmd_arbiter::run(args)),
            Self::Disk(args) => ("disk", cmd_disk::run(args)),
            Self::Keys(args) => ("keys", cmd_keys::run(args)),
            Self::Lan(args) => ("lan", cmd_lan::run(args)),
            Self::Image(args) => ("image", cmd_image::run(args)),
            Self::Demo(args) => ("demo", demo::run(&args)),
            Self::Bench(args) => ("bench", bench::run(&args)),
            Self::HookRunner(args) => (cmd_node::HOOK_RUNNER, cmd_node::run_hooks(&args)),
            Self::FenceRunner(args) => (cmd_node::FENCE_RUNNER, cmd_node::run_fence(&args)),
            Self::LabWire(args) => ("lab-wire", bench::protect::sites::run_wire(&args)),
            Self::LabRelay(args) => ("lab-relay", bench::protect::relay::run(&args)),
        }
    }
}

fn main() -> ExitCode {
    twinvm_host::allocator::settle();
    // Without it only such a write ends the program.
    let _ = twinvm_host::signals::outlive_file_limits();
    let command = match Cli::try_parse() {
        Ok(cli) => cli.command,
        Err(error) => {
            let words: Vec<_> = std::env::args_os().skip(1).collect();
            let words: Vec<_> = words.iter().map_while(|word| word.to_str()).collect();
            return ExitCode::from(usage::tell(&error, &Cli::command(), &words));
        }
    };
    // A panic has said on standard error what it is about.
    let code = match catch_unwind(AssertUnwindSafe(|| command.run())) {
        Ok((_, Ok(code))) => code,
        Ok((name, Err((code, why)))) => {
            say::line(format_args!("twinvm {name}: {why}"));
            code
        }
        Err(_) => FAULT,
    };
    ExitCode::from(code)
}
