//! `twinvm replay`: runs a recording again and checks it, step by step.

mod explain;
mod progress;
mod report;
mod source;

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use twinvm_host::time::mono_ns;
use twinvm_machine::Machine;
use twinvm_replica::{Divergence, Perturbation, Replay, ReplayExit};

use crate::engine_arg::EngineArg;
use crate::say;
use crate::{BAD_INPUT, FAULT, Outcome, perf_map};
use explain::Explained;
use progress::Progress;
use report::Report;
use source::{Source, SourceError};

/// The replay is not what was recorded.
const DIVERGED: u8 = 1;
/// Steps between two looks at the clock when nothing is perturbed: about 0.1 s.
const CHUNK_STEPS: u64 = 30_000_000;

/// Runs a recording again and checks that it comes out the same
///
/// Every output, tell-tale and digest in the log is compared with what this run makes. A
/// recording whose end is cut short is replayed up to its last whole batch.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  twinvm run VM.toml --record rec
  twinvm replay rec
  twinvm replay rec --perturb 7 --json
  twinvm replay rec --engine interp
  twinvm replay rec --until 1000000000

A replay that has diverged looks for where it went wrong first. One with --perturb runs again
beside a plain replay, until a single step is left; a plain one is compared with what the recording
holds of its digests (its file \"states\"). This replays the recording several times and keeps two
machines in memory; --no-explain leaves it out. What it finds is told on standard error, and with
--json in divergence.explanation:
  found         disturbance: between two steps, what was done to the machine there mattered
                step: this step came out differently
                slice: only if the slice is not cut into steps
                check: the machines are equal, the replay's own check is not
                recording: compared with the recording, at the record that failed
                vanished: the same seed doesn't diverge again
  position      records applied before it
  icount        the step at which it shows
  slice         first and last step of the slice it lies in
  item, hart    what differs first: registers, whose turn it is, devices, memory
  left, right   its values: in the plain replay or the recording, and in the one that diverged
  instructions  the last ones before it: icount, hart, pc, raw, text, trap (the step was a trap)
  notes         what else is to be known

Exit codes:
  0    equal, to the end of the recording or the step of --until
  1    diverged: position in the log, step and what differs are named
  2    the recording can't be read, or was made by another machine_version")]
pub(crate) struct ReplayArgs {
    /// The folder that `twinvm run --record` has made
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Stop after this step, and tell the digest there
    #[arg(long, value_name = "N")]
    until: Option<u64>,
    /// Disturb the replay in every way that must not matter (slice lengths, flushed caches, engines
    /// and when they translate, snapshots restored on the way, extra digests), as this number says
    #[arg(long, value_name = "SEED")]
    perturb: Option<u64>,
    /// What executes the guest, whatever executed it when it was recorded; jit where the host can.
    /// With interp a disturbed replay changes no engine on the way
    #[arg(long, value_name = "NAME")]
    engine: Option<EngineArg>,
    /// Name translated code for `perf`, in /tmp/perf-PID.map, as `twinvm run --perf-map` does
    #[arg(long, conflicts_with = "perturb")]
    perf_map: bool,
    /// Give the guest a key that is not in the log, to see that the replay finds it
    #[arg(long, value_name = "STEP", hide = true, requires = "perturb")]
    sabotage: Option<u64>,
    /// Don't look for where a replay that has diverged went wrong first
    #[arg(long)]
    no_explain: bool,
    /// Print what the guest printed
    #[arg(long, conflicts_with = "json")]
    console: bool,
    /// Tell the outcome as JSON
    #[arg(long)]
    json: bool,
}

/// Replays, tells the outcome, and gives its exit code.
pub(crate) fn run(args: ReplayArgs) -> Outcome {
    let bad = |error: SourceError| (BAD_INPUT, error.to_string());
    let (mut source, mut machine) = Source::open(&args.dir).map_err(bad)?;
    if let Some(engine) = args.engine {
        machine
            .set_engine(engine.into())
            .map_err(|error| (BAD_INPUT, error.to_string()))?;
    }
    if args.perf_map {
        perf_map::start(&mut machine).map_err(|error| (BAD_INPUT, error.to_string()))?;
    }
    let until = match args.until {
        Some(until) if !(machine.icount()..=source.last_icount()).contains(&until) => {
            let why = format!(
                "--until {until}: the recording goes from step {} to step {}",
                machine.icount(),
                source.last_icount()
            );
            return Err((BAD_INPUT, why));
        }
        until => until.unwrap_or(u64::MAX),
    };
    if let Some(torn) = source.torn() {
        say::line(format_args!(
            "twinvm replay: the log is cut short inside a batch: replaying the {} records before \
             byte {}",
            torn.records_kept, torn.at_byte
        ));
    }

    let from = machine.icount();
    let mut perturbation = args
        .perturb
        .map(|seed| disturb(seed, args.sabotage, &machine));
    let began_ns = mono_ns();
    let mut progress = Progress::new(from, until.min(source.last_icount()));
    let mut replay = Replay::new(machine, source.first_position());
    let result = follow(
        &mut replay,
        &mut source,
        perturbation.as_mut(),
        until,
        &mut |machine| {
            let text = machine.take_console();
            if args.console {
                // Nobody need read it.
                let _ = std::io::stdout().write_all(&text);
            }
            progress.show(machine.icount());
        },
    );
    progress.clear();
    let divergence = match result {
        Ok(()) => None,
        Err(Stop::Diverged(divergence)) => Some(divergence),
        Err(Stop::Source(error)) => return Err(bad(error)),
    };
    let mut report = Report::new(
        &mut replay,
        &source,
        from,
        began_ns,
        args.perturb.zip(perturbation.map(|p| p.counts())),
        divergence.clone(),
    );
    if !args.json && !report.is_equal() {
        say::line(format_args!("twinvm replay: {report}"));
    }
    if let Some(divergence) = divergence.filter(|_| !args.no_explain) {
        // A search needs room for two machines of its own.
        drop((replay, source));
        match Explained::search(&args, until, &divergence) {
            Ok(found) => {
                if !args.json {
                    say::part(format_args!("{found}"));
                }
                report.explain(found);
            }
            // The divergence is told all the same.
            Err(error) => say::line(format_args!(
                "twinvm replay: what differs first is not known: {error}"
            )),
        }
    }
    if args.json {
        let text = serde_json::to_string_pretty(&report)
            .map_err(|error| (FAULT, format!("the outcome as JSON: {error}")))?;
        say::answer(text)?;
    } else if report.is_equal() && args.console {
        say::line(format_args!("{report}"));
    } else if report.is_equal() {
        say::answer(&report)?;
    }
    Ok(if report.is_equal() { 0 } else { DIVERGED })
}

/// The disturbance of a seed, as often as it is asked for.
fn disturb(seed: u64, sabotage: Option<u64>, machine: &Machine) -> Perturbation {
    let mut perturbation = Perturbation::new(seed, machine);
    if let Some(step) = sabotage {
        perturbation.sabotage(step);
    }
    perturbation
}

/// Why a replay stopped before its end.
enum Stop {
    Diverged(Divergence),
    Source(SourceError),
}

impl From<Divergence> for Stop {
    fn from(divergence: Divergence) -> Self {
        Self::Diverged(divergence)
    }
}

/// Runs to the end of the log, or to the step `until` with all that applies there.
fn follow(
    replay: &mut Replay,
    source: &mut Source,
    mut perturbation: Option<&mut Perturbation>,
    until: u64,
    each_slice: &mut dyn FnMut(&mut Machine),
) -> Result<(), Stop> {
    loop {
        source.feed(replay).map_err(Stop::Source)?;
        let budget = until.saturating_sub(replay.machine().icount());
        let exit = match &mut perturbation {
            Some(perturbation) => perturbation.run(replay, budget)?,
            None => replay.run(budget.min(CHUNK_STEPS))?,
        };
        each_slice(replay.machine_mut());
        match exit {
            ReplayExit::Busy if replay.machine().icount() >= until => return Ok(()),
            ReplayExit::Busy | ReplayExit::Output { .. } => {}
            ReplayExit::Starved if source.is_dry() => return Ok(()),
            ReplayExit::Starved => {}
            // The last two need a disk, which is not given here.
            ReplayExit::End { .. } | ReplayExit::Waits | ReplayExit::DiskDiffers { .. } => {
                return Ok(());
            }
        }
    }
}
