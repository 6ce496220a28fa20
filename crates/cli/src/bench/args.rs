//! What is to be measured, and how often.

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Args, ValueEnum};

use super::cpu::programs::PROGRAMS;
use super::cpu::{Image, Plan};
use super::guests::Kind;
use crate::engine_arg::EngineArg;

/// Most runs of one row: each is a boot of some seconds, and all samples are kept.
const MAX_RUNS: u32 = 100;
/// Most takeovers of one run: each takes seconds, and all that clients were answered is kept.
const MAX_TAKEOVERS: u32 = 1000;
/// Of the usual work, with `--quick`.
pub(super) const QUICK_SCALE: f64 = 0.1;
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
  twinvm bench takeover --kills 200 --silences 50 --planned 50
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
    pub(super) what: What,
    /// How often each thing is measured (pairs of `record`: twice and one more; boots of Debian: at
    /// most three) [default: 5, `cpu` and --quick 3]
    #[arg(long, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_RUNS)))]
    pub(super) runs: Option<u32>,
    /// What `cpu`, `boot` and `net` compare with
    #[arg(long, value_enum, default_value_t = Against::Qemu)]
    pub(super) against: Against,
    /// What executes the guests of `twinvm run` [default: as `twinvm run` does]
    #[arg(long, value_name = "NAME")]
    pub(super) engine: Option<EngineArg>,
    /// Programs of `cpu`, separated by commas [default: all]
    #[arg(long, value_name = "NAMES", value_delimiter = ',', value_parser = program_names())]
    pub(super) programs: Vec<String>,
    /// How much work each program of `cpu` gets, times its usual amount (that is 2 to 5 seconds of
    /// QEMU's processor time)
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0, value_parser = scale,
          conflicts_with = "quick")]
    pub(super) scale: f64,
    /// A tenth of the work in `cpu`, and fewer runs
    #[arg(long)]
    pub(super) quick: bool,
    /// How long the guest's clock is watched, once idle and once busy
    #[arg(long, value_name = "SECONDS", default_value_t = 30,
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(super) clock_for: u64,
    /// How often `takeover` kills the live node's process
    #[arg(long, value_name = "N", default_value_t = 40,
          value_parser = clap::value_parser!(u32).range(..=i64::from(MAX_TAKEOVERS)))]
    pub(super) kills: u32,
    /// How often `takeover` silences the live node's host
    #[arg(long, value_name = "N", default_value_t = 10,
          value_parser = clap::value_parser!(u32).range(..=i64::from(MAX_TAKEOVERS)))]
    pub(super) silences: u32,
    /// How often `takeover` asks the live node to hand the VM over
    #[arg(long, value_name = "N", default_value_t = 10,
          value_parser = clap::value_parser!(u32).range(..=i64::from(MAX_TAKEOVERS)))]
    pub(super) planned: u32,
    /// Seed of the random moments of `takeover` and of what its clients ask
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub(super) seed: u64,
    /// Where the samples go [default: bench.json in --dir]
    #[arg(long, value_name = "FILE.json")]
    pub(super) out: Option<PathBuf>,
    /// Print the samples as JSON instead of tables
    #[arg(long, conflicts_with = "markdown")]
    pub(super) json: bool,
    /// Print the tables as Markdown
    #[arg(long)]
    pub(super) markdown: bool,
    /// Measure nothing: print the samples of an earlier run
    #[arg(long, value_name = "FILE.json", conflicts_with_all = ["what", "runs", "out", "clock_for", "debian", "against", "engine", "programs", "scale", "quick", "kills", "silences", "planned", "seed"])]
    pub(super) from: Option<PathBuf>,
    /// Where the guests' files and logs go
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    pub(super) dir: PathBuf,
    /// Where the guest's image is, or is made if it isn't there
    #[arg(long, value_name = "DIR", default_value = "target/image/redis")]
    pub(super) image: PathBuf,
    /// The Debian image (of `twinvm image build debian`) for `cpu`, the second part of `boot`, and
    /// iperf3 in `tap`; its disk is copied and stays as it is [default: none, `cpu`, `disk` and
    /// `postgres` target/image/debian]
    #[arg(long, value_name = "DIR")]
    pub(super) debian: Option<PathBuf>,
    /// The bench that another one has started in a network namespace
    #[arg(long, hide = true)]
    pub(super) in_namespace: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum What {
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
    /// What an answer spends on each hop of its way: protected, with a backup that has its core for
    /// itself and with one that has not, and alone; hosts as for `takeover`
    Hops,
    /// What clients wait through TAP when the live node's process is killed, when its host falls
    /// silent, and when it is asked to hand the VM over: two nodes and an arbiter on three hosts,
    /// network namespaces (root, or `unshare -Urn`; nftables)
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
    pub(super) fn compares(self) -> bool {
        matches!(self, Self::Cpu | Self::Boot | Self::Net)
    }

    /// Stands for the yardstick where none is needed.
    pub(super) fn without_qemu(self) -> Option<PathBuf> {
        matches!(
            self,
            Self::Protect | Self::Output | Self::Hops | Self::Takeover
        )
        .then(PathBuf::new)
    }

    /// Nothing of it can be measured without the Debian image.
    pub(super) fn needs_debian(self) -> bool {
        matches!(self, Self::Disk | Self::Postgres)
    }

    /// Whether a run of `self` measures `part`.
    pub(super) fn has(self, part: Self, debian: bool) -> bool {
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
pub(super) enum Against {
    /// QEMU as it is
    Qemu,
    /// QEMU that records for a deterministic replay (-icount shift=auto,rr=record)
    QemuRr,
}

impl Against {
    pub(super) fn kind(self) -> Kind {
        match self {
            Self::Qemu => Kind::Qemu,
            Self::QemuRr => Kind::QemuRr,
        }
    }

    /// On the command line and in the JSON.
    pub(super) fn name(self) -> &'static str {
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
    pub(super) fn runs(&self) -> u32 {
        let usual = if self.quick || self.what == What::Cpu {
            3
        } else {
            5
        };
        self.runs.unwrap_or(usual)
    }

    pub(super) fn plan(&self) -> Plan {
        let scale = if self.quick { QUICK_SCALE } else { self.scale };
        Plan::new(&self.programs, scale)
    }

    /// Everything but some of the programs needs the Redis image.
    pub(super) fn needs_redis_image(&self, programs_of: &Result<Image, String>) -> bool {
        match self.what {
            What::Debian | What::Disk | What::Postgres => false,
            What::Cpu => matches!(programs_of, Ok(Image::Redis)),
            _ => true,
        }
    }
}
