//! `twinvm bench`: what twinvm costs, with QEMU beside it as the yardstick.
//!
//! All but `devices` is measured from outside, on processes as a user would start them: processor time
//! from /proc, the guest's readiness by a PONG that came through the network. The host may be
//! busy, so what is compared is measured in turns within one run, and every number has its
//! spread. All samples go into a JSON file, from which the tables can be made again.

mod args;
mod boot;
mod clock;
mod compare;
mod cpu;
mod debian;
mod debians;
mod devices;
mod disk;
mod guests;
mod idle;
mod iperf;
mod join;
mod load;
mod log;
mod machine;
mod memory;
mod net;
mod netns;
mod pair;
mod plot;
mod postgres;
pub(crate) mod protect;
mod qemu;
mod record;
mod redis;
mod report;
mod stats;
mod table;
mod takeover;
mod tap;

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use twinvm_image::{BuiltImage, ImageKind};

use crate::Outcome;
use crate::demo::error::DemoError;
use crate::demo::play::{make_image, watch_signals};
use crate::engine_arg::EngineArg;
use crate::say;
pub(crate) use args::BenchArgs;
use args::{Against, What};
use cpu::{Image, Plan};
use report::{Report, Section};

/// How often a stage looks whether it is over.
const LOOK: Duration = Duration::from_millis(20);
/// The yardstick.
const QEMU: &str = "qemu-system-riscv64";

/// Measures, or prints what was measured.
pub(crate) fn run(args: &BenchArgs) -> Outcome {
    let fail = |error: DemoError| (error.exit_code(), error.to_string());
    if let Some(path) = &args.from {
        let report = Report::read(path).map_err(fail)?;
        show(args, &report).map_err(fail)?;
        return Ok(0);
    }
    let (report, outcome) = measure(args).map_err(fail)?;
    if !report.sections.is_empty() {
        let path = out_path(args);
        report.write(&path).map_err(fail)?;
        if !args.in_namespace {
            show(args, &report).map_err(fail)?;
            say(&format!("samples    {}", path.display()));
        }
    }
    outcome.map(|()| 0).map_err(fail)
}

fn out_path(args: &BenchArgs) -> PathBuf {
    match &args.out {
        Some(path) => path.clone(),
        None => args.dir.join("bench.json"),
    }
}

/// Runs what was asked for; what was measured, and what ended it early.
fn measure(args: &BenchArgs) -> Result<(Report, Result<(), DemoError>), DemoError> {
    if args.what == What::Debian && args.debian.is_none() {
        return Err(DemoError::Input(
            "debian needs --debian DIR, the image that `make image-debian` makes (as root) in \
             target/image/debian"
                .to_owned(),
        ));
    }
    let qemu = find_program(QEMU).or_else(|| args.what.without_qemu());
    let qemu = qemu.ok_or_else(|| {
        DemoError::Input(format!(
            "no {QEMU} in PATH, the yardstick of the benchmarks: `make bench` installs it (Debian's \
             package qemu-system-riscv or qemu-system-misc)"
        ))
    })?;
    let usual = Path::new("target/image/debian");
    let debian = match &args.debian {
        Some(dir) => Some(debian::check(dir)?),
        None if args.what.needs_debian() => Some(debian::check(usual)?),
        None => None,
    };
    let plan = args.plan();
    let programs_of = match Image::choose(debian.as_deref(), &plan) {
        Err(error) if args.what == What::Cpu => return Err(error),
        other => other.map_err(|error| error.to_string()),
    };
    let _lock = claim(&args.dir)?;
    check_out(&out_path(args))?;
    let image = match args.needs_redis_image(&programs_of) {
        true => Some(make_image(ImageKind::Redis, &args.image)?),
        false => None,
    };
    let bench = Bench {
        dir: args.dir.canonicalize().map_err(DemoError::io(&args.dir))?,
        program: std::env::current_exe()
            .map_err(|error| DemoError::failed(format!("this program's own path: {error}")))?,
        image,
        image_dir: std::path::absolute(&args.image).map_err(DemoError::io(&args.image))?,
        debian,
        programs_of,
        plan,
        against: args.against,
        engine: args.engine,
        in_namespace: args.in_namespace,
        qemu,
        // A signal ends the making of an image at once; only from here on is there something
        // to stop.
        interrupted: watch_signals()?,
        runs: args.runs(),
        clock_for: Duration::from_secs(args.clock_for),
        kills: args.kills,
        silences: args.silences,
        planned: args.planned,
        seed: args.seed,
    };
    let mut report = Report::new(machine::look(&bench)?);
    say(&format!("machine    {}", report.machine));
    // What is complete is kept when what comes after fails.
    type Measure = fn(&Bench, &mut Vec<Section>) -> Result<(), DemoError>;
    let all: [(What, Measure); 18] = [
        (What::Cpu, cpu::measure),
        (What::Boot, |bench, done| {
            done.push(boot::measure(bench)?);
            done.extend(debian::measure(bench)?);
            Ok(())
        }),
        (What::Net, |bench, done| add(done, net::measure(bench)?)),
        (What::Idle, |bench, done| add(done, [idle::measure(bench)?])),
        (What::Redis, |bench, done| {
            add(done, [redis::measure(bench)?])
        }),
        (What::Tap, |bench, done| add(done, tap::measure(bench)?)),
        (What::Log, |bench, done| add(done, [log::measure(bench)?])),
        (What::Record, |bench, done| {
            add(done, [record::measure(bench)?])
        }),
        (What::Memory, |bench, done| {
            add(done, [memory::measure(bench)?])
        }),
        (What::Devices, |bench, done| {
            add(done, [devices::measure(bench)?])
        }),
        (What::Clock, |bench, done| {
            add(done, [clock::measure(bench)?])
        }),
        (What::Protect, |bench, done| {
            add(done, protect::measure(bench)?)
        }),
        (What::Output, |bench, done| {
            add(done, protect::sites::measure(bench)?)
        }),
        (What::Hops, |bench, done| {
            add(done, protect::hops::measure(bench)?)
        }),
        (What::Takeover, |bench, done| {
            add(done, takeover::measure(bench)?)
        }),
        (What::Disk, |bench, done| add(done, disk::measure(bench)?)),
        (What::Postgres, |bench, done| {
            add(done, postgres::measure(bench)?)
        }),
        (What::Debian, |bench, done| {
            add(done, debian::measure(bench)?)
        }),
    ];
    // What fails doesn't take the others' measurements away; it is told at the end.
    let mut outcome = Ok(());
    for (what, measure) in all {
        if !args.what.has(what, bench.debian.is_some()) {
            continue;
        }
        match measure(&bench, &mut report.sections) {
            Ok(()) => {}
            Err(DemoError::Interrupted) => return Ok((report, Err(DemoError::Interrupted))),
            Err(error) => {
                say(&format!("{error}"));
                outcome = outcome.and(Err(error));
            }
        }
    }
    Ok((report, outcome))
}

fn add(done: &mut Vec<Section>, more: impl IntoIterator<Item = Section>) -> Result<(), DemoError> {
    done.extend(more);
    Ok(())
}

/// What every measurement needs.
struct Bench {
    /// Absolute.
    dir: PathBuf,
    program: PathBuf,
    /// The Redis image, unless nothing needs it.
    image: Option<BuiltImage>,
    /// Where it is, or would be; absolute.
    image_dir: PathBuf,
    /// The folder of the Debian image; absolute.
    debian: Option<PathBuf>,
    /// Whose programs `cpu` runs, or why there are none.
    programs_of: Result<Image, String>,
    /// What `cpu` measures.
    plan: Plan,
    /// The yardstick's mode in `cpu`, `boot` and `net`.
    against: Against,
    /// Of `twinvm run`, if not its own choice.
    engine: Option<EngineArg>,
    /// This process is the one in the network namespace.
    in_namespace: bool,
    qemu: PathBuf,
    interrupted: Arc<AtomicBool>,
    runs: u32,
    clock_for: Duration,
    /// Of `takeover`.
    kills: u32,
    silences: u32,
    planned: u32,
    seed: u64,
}

impl Bench {
    /// The Redis image.
    fn image(&self) -> Result<&BuiltImage, DemoError> {
        let image = self.image.as_ref();
        image.ok_or_else(|| DemoError::failed("the Redis image wasn't made for this measurement"))
    }

    /// `twinvm run`, with the engine that was asked for.
    fn run_command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("run");
        if let Some(engine) = self.engine {
            command.arg("--engine").arg(engine.name());
        }
        command
    }

    fn check(&self) -> Result<(), DemoError> {
        match self.interrupted.load(Ordering::Relaxed) {
            true => Err(DemoError::Interrupted),
            false => Ok(()),
        }
    }

    /// Waits until `look` finds something, at most for `limit`; `log` is where to look if it
    /// never does.
    fn wait_for<T>(
        &self,
        what: &str,
        limit: Duration,
        log: &Path,
        mut look: impl FnMut() -> Result<Option<T>, DemoError>,
    ) -> Result<T, DemoError> {
        let deadline = Instant::now() + limit;
        loop {
            self.check()?;
            if let Some(found) = look()? {
                return Ok(found);
            }
            if Instant::now() >= deadline {
                let what = format!("waited {} s until {what}: it never came", limit.as_secs());
                return Err(DemoError::failed_see(what, log));
            }
            thread::sleep(LOOK);
        }
    }

    /// Sleeps, and wakes early only for a signal that asks for the end.
    fn sleep_until(&self, end: Instant) -> Result<(), DemoError> {
        loop {
            self.check()?;
            let rest = end.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                return Ok(());
            }
            thread::sleep(rest.min(Duration::from_millis(100)));
        }
    }
}

/// Finds a program as a shell would.
fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// Takes the folder for this run alone.
fn claim(dir: &Path) -> Result<File, DemoError> {
    let unusable = |error: std::io::Error| {
        DemoError::Input(format!(
            "--dir {}: {error}: choose a folder that can be written",
            dir.display()
        ))
    };
    fs::create_dir_all(dir).map_err(unusable)?;
    let lock = File::create(dir.join("bench.lock")).map_err(unusable)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(DemoError::Input(format!(
            "--dir {}: another bench is using it: choose another folder",
            dir.display()
        ))),
        Err(TryLockError::Error(error)) => Err(unusable(error)),
    }
}

/// Samples that can't be written must not come to light after minutes of measuring.
fn check_out(path: &Path) -> Result<(), DemoError> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    if path.is_dir() || !parent.is_dir() {
        return Err(DemoError::Input(format!(
            "--out {}: expected a file in a folder that exists",
            path.display()
        )));
    }
    Ok(())
}

/// Prints the report in the form that was asked for.
fn show(args: &BenchArgs, report: &Report) -> Result<(), DemoError> {
    use std::io::Write as _;
    let text = if args.json && args.from.is_none() && args.what.compares() {
        let engine = args.engine.map_or("default", EngineArg::name);
        compare::to_json(report, args.against.name(), engine)?
    } else if args.json {
        report.to_json()?
    } else if args.markdown {
        table::markdown(report)
    } else {
        table::text(report)
    };
    // A reader that has gone away is no failure.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    Ok(())
}

/// A line of progress.
fn say(line: &str) {
    say::line(format_args!("{line}"));
}

#[cfg(test)]
mod tests;
