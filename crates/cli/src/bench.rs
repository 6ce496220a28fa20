//! `twinvm bench`: what twinvm costs, with QEMU beside it as the yardstick.
//!
//! All but `devices` is measured from outside, on processes as a user would start them: processor time
//! from /proc, the guest's readiness by a PONG that came through the network. The host may be
//! busy, so what is compared is measured in turns within one run, and every number has its
//! spread. All samples go into a JSON file, from which the tables can be made again.

mod boot;
mod clock;
mod compare;
mod cpu;
mod debian;
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
mod trio;

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::builder::PossibleValuesParser;
use clap::{Args, ValueEnum};
use twinvm_image::{BuiltImage, ImageKind};

use crate::Outcome;
use crate::demo::error::DemoError;
use crate::demo::play::{make_image, watch_signals};
use crate::engine_arg::EngineArg;
use crate::say;
use cpu::programs::PROGRAMS;
use cpu::{Image, Plan};
use guests::Kind;
use report::{Report, Section};

/// Most runs of one row: each is a boot of some seconds, and all samples are kept.
const MAX_RUNS: u32 = 100;
/// Most takeovers of one run: each takes seconds, and all that clients were answered is kept.
const MAX_TAKEOVERS: u32 = 1000;
/// How often a stage looks whether it is over.
const LOOK: Duration = Duration::from_millis(20);
/// Of the usual work, with `--quick`.
const QUICK_SCALE: f64 = 0.1;
/// The yardstick.
const QEMU: &str = "qemu-system-riscv64";

/// Measures twinvm on this host, with QEMU beside it
///
/// Runs the same guest image under both, in turns. `cpu`, `boot` and `net` compare the processor
/// time of the same work, ours while it records; the others measure single properties: an idle
/// guest, round trips and bytes through the network, memory, devices, what recording costs. Needs
/// qemu-system-riscv64. What goes through TAP is measured in a network namespace of its own, for
/// which root, or `unshare -Urn`, is needed; without either that part alone is left out.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  twinvm bench
  twinvm bench cpu --debian target/image/debian
  twinvm bench cpu --quick --programs ash,gzip --json
  twinvm bench boot --runs 10
  twinvm bench net --against qemu-rr
  twinvm bench clock --clock-for 600
  twinvm bench takeover --kills 200 --silences 50
  twinvm bench debian --debian target/image/debian
  twinvm bench disk
  twinvm bench --from target/bench/bench.json --markdown

Progress goes to standard error, the tables to standard output, every sample into the JSON file.
A bar that is missed is printed as FAIL and is no failure of the command.

With cpu, boot or net, --json prints the comparison: {geomean, rows: [{name, ours_cpu_s,
other_cpu_s, ratio, ...}], against, engine, machine}. ratio is other_cpu_s / ours_cpu_s: above 1 we are
faster. Both are medians of processor seconds for the program, the boot or one request; rows also
have ratio_min, ratio_max and all samples, and where known ours_steps, ours_mips, and for net
requests_s, p50_ms and p99_ms of both. With anything else --json prints the samples.

Exit codes:
  0    everything was measured
  2    bad input, or no QEMU
  125  something didn't run; everything else was measured and is printed
  130  interrupted; what was measured is printed")]
pub(crate) struct BenchArgs {
    /// What to measure
    #[arg(value_enum, default_value_t = What::All)]
    what: What,
    /// How often each thing is measured (pairs of `record`: twice and one more; boots of Debian: at
    /// most three) [default: 5, `cpu` and --quick 3]
    #[arg(long, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_RUNS)))]
    runs: Option<u32>,
    /// What `cpu`, `boot` and `net` compare with
    #[arg(long, value_enum, default_value_t = Against::Qemu)]
    against: Against,
    /// What executes the guests of `twinvm run` [default: as `twinvm run` does]
    #[arg(long, value_name = "NAME")]
    engine: Option<EngineArg>,
    /// Programs of `cpu`, separated by commas [default: all]
    #[arg(long, value_name = "NAMES", value_delimiter = ',', value_parser = program_names())]
    programs: Vec<String>,
    /// How much work each program of `cpu` gets, times its usual amount (that is 2 to 5 seconds of
    /// QEMU's processor time)
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0, value_parser = scale,
          conflicts_with = "quick")]
    scale: f64,
    /// A tenth of the work in `cpu`, and fewer runs
    #[arg(long)]
    quick: bool,
    /// How long the guest's clock is watched, once idle and once busy
    #[arg(long, value_name = "SECONDS", default_value_t = 30,
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    clock_for: u64,
    /// How often `takeover` kills the live node's process
    #[arg(long, value_name = "N", default_value_t = 40,
          value_parser = clap::value_parser!(u32).range(..=i64::from(MAX_TAKEOVERS)))]
    kills: u32,
    /// How often `takeover` silences the live node's host
    #[arg(long, value_name = "N", default_value_t = 10,
          value_parser = clap::value_parser!(u32).range(..=i64::from(MAX_TAKEOVERS)))]
    silences: u32,
    /// Seed of the random moments of `takeover` and of what its clients ask
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Where the samples go [default: bench.json in --dir]
    #[arg(long, value_name = "FILE.json")]
    out: Option<PathBuf>,
    /// Print the samples as JSON instead of tables
    #[arg(long, conflicts_with = "markdown")]
    json: bool,
    /// Print the tables as Markdown
    #[arg(long)]
    markdown: bool,
    /// Measure nothing: print the samples of an earlier run
    #[arg(long, value_name = "FILE.json", conflicts_with_all = ["what", "runs", "out", "clock_for", "debian", "against", "engine", "programs", "scale", "quick", "kills", "silences", "seed"])]
    from: Option<PathBuf>,
    /// Where the guests' files and logs go
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    dir: PathBuf,
    /// Where the guest's image is, or is made if it isn't there
    #[arg(long, value_name = "DIR", default_value = "target/image/redis")]
    image: PathBuf,
    /// The Debian image (of `twinvm image build debian`) for `cpu`, the second part of `boot`, and
    /// iperf3 in `tap`; its disk is copied and stays as it is [default: none, `cpu`, `disk` and
    /// `postgres` target/image/debian]
    #[arg(long, value_name = "DIR")]
    debian: Option<PathBuf>,
    /// The bench that another one has started in a network namespace
    #[arg(long, hide = true)]
    in_namespace: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// Processor time of eleven programs in a Debian guest
    Cpu,
    /// Processor time from power-on to Redis's PONG; with --debian also of a whole Debian to its
    /// login
    Boot,
    /// Processor time of requests to the guest's Redis through TAP: one connection, and 50 with
    /// 16 requests under way on each
    Net,
    /// Processor time of a guest that does nothing, alone and as a pair, and the pair's log
    Idle,
    /// Round trips to the guest's Redis, in user-mode networks
    Redis,
    /// Like `net` without a recording, and bytes in bulk
    Tap,
    /// How fast a recording's log grows: idle, serving, busy
    Log,
    /// What recording costs work on the processor
    Record,
    /// What a process has in RAM, beside what its guest has touched
    Memory,
    /// What an access to a device takes, and how long input waits for a busy guest
    Devices,
    /// What a backup costs: one VM alone and protected, in turns, and with a channel that takes its
    /// time; hosts as for `takeover`
    Protect,
    /// Round trips of a protected VM by distance, with its frames sent by the live node or by the
    /// backup, for clients beside either; hosts as for `takeover`
    Output,
    /// What clients wait through TAP when the live node's process is killed, and when its host
    /// falls silent: two nodes and an arbiter on three hosts, network namespaces (root, or
    /// `unshare -Urn`; nftables)
    Takeover,
    /// fio in a Debian guest: processor time of requests and latency of flushes under QEMU, and
    /// under a pair of ours alone and protected; hosts as for `takeover`
    Disk,
    /// pgbench and a server in a Debian guest, likewise
    Postgres,
    /// The second part of `boot` alone; needs --debian
    Debian,
    /// How far the guest's clock goes off, idle and busy
    Clock,
    /// All of these, `cpu`, `disk` and `postgres` only with --debian
    All,
}

impl What {
    /// A comparison with the yardstick: what `--json` prints then is made for that.
    fn compares(self) -> bool {
        matches!(self, Self::Cpu | Self::Boot | Self::Net)
    }

    /// Stands for the yardstick where none is needed.
    fn without_qemu(self) -> Option<PathBuf> {
        matches!(self, Self::Protect | Self::Output | Self::Takeover).then(PathBuf::new)
    }

    /// Nothing of it can be measured without the Debian image.
    fn needs_debian(self) -> bool {
        matches!(self, Self::Disk | Self::Postgres)
    }

    /// Whether a run of `self` measures `part`.
    fn has(self, part: Self, debian: bool) -> bool {
        match self {
            // A boot of Debian is in `boot` already.
            Self::All => match part {
                Self::Debian => false,
                Self::Cpu | Self::Disk | Self::Postgres => debian,
                _ => true,
            },
            _ => part == self,
        }
    }
}

/// The yardstick's mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Against {
    /// QEMU as it is
    Qemu,
    /// QEMU that records for a deterministic replay (-icount shift=auto,rr=record)
    QemuRr,
}

impl Against {
    fn kind(self) -> Kind {
        match self {
            Self::Qemu => Kind::Qemu,
            Self::QemuRr => Kind::QemuRr,
        }
    }

    /// On the command line and in the JSON.
    fn name(self) -> &'static str {
        match self {
            Self::Qemu => "qemu",
            Self::QemuRr => "qemu-rr",
        }
    }
}

fn program_names() -> PossibleValuesParser {
    PossibleValuesParser::new(PROGRAMS.iter().map(|program| program.name))
}

/// A factor that leaves every program something to do, and an end in sight.
fn scale(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(factor) if (0.01..=100.0).contains(&factor) => Ok(factor),
        _ => Err("expected a number from 0.01 to 100".to_owned()),
    }
}

impl BenchArgs {
    fn runs(&self) -> u32 {
        let usual = if self.quick || self.what == What::Cpu {
            3
        } else {
            5
        };
        self.runs.unwrap_or(usual)
    }

    fn plan(&self) -> Plan {
        let scale = if self.quick { QUICK_SCALE } else { self.scale };
        Plan::new(&self.programs, scale)
    }

    /// Everything but some of the programs needs the Redis image.
    fn needs_redis_image(&self, programs_of: &Result<Image, String>) -> bool {
        match self.what {
            What::Debian | What::Disk | What::Postgres => false,
            What::Cpu => matches!(programs_of, Ok(Image::Redis)),
            _ => true,
        }
    }
}

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
        seed: args.seed,
    };
    let mut report = Report::new(machine::look(&bench)?);
    say(&format!("machine    {}", report.machine));
    // What is complete is kept when what comes after fails.
    type Measure = fn(&Bench, &mut Vec<Section>) -> Result<(), DemoError>;
    let all: [(What, Measure); 17] = [
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
