//! `cargo xtask simulate`: run after run with new seeds, until time or runs are used up or
//! something is found.

use std::io::IsTerminal;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use clap::Parser;
use twinvm_sim::{Broken, DriverFault, Finding, Tally, run};

/// Runs production replicas, with a small guest and its clients, in a simulated world of faults.
///
/// A seed decides all of a run: machines, delays, crashes, pauses, cuts, losses of power, clocks,
/// outages of the arbiter. What the clients see must be linearizable over all takeovers, what has
/// left must be in every later live state, and the pair must be protected again once faults end.
/// The last line is a summary; the exit code is 1 if something was found.
#[derive(Parser)]
#[command(
    name = "cargo xtask simulate",
    after_help = "Examples:\n  cargo xtask simulate --minutes 10\n  cargo xtask simulate --seed 4711 --runs 1 --trace"
)]
struct Args {
    /// Ends after so many minutes, unless --runs says when
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// Ends after so many runs
    #[arg(long)]
    runs: Option<u64>,
    /// The first run's seed; the following runs count up from it [default: chosen by the clock]
    #[arg(long)]
    seed: Option<u64>,
    /// Runs at the same time [default: one for each processor]
    #[arg(long)]
    jobs: Option<usize>,
    /// Neglects one duty of a driver on purpose, to see what a finding looks like
    #[arg(long, value_name = "DUTY", value_parser = duty)]
    neglect: Option<DriverFault>,
    /// Prints the last events of the run that found something; of a single run always
    #[arg(long)]
    trace: bool,
    /// How many events that are
    #[arg(long, default_value_t = 80)]
    lines: usize,
}

/// The names of what can be neglected.
const DUTIES: [(&str, DriverFault); 4] = [
    ("cas", DriverFault::CasUnasked),
    ("order", DriverFault::SendsFirst),
    ("first-outputs", DriverFault::FirstOutputsDropped),
    ("flush", DriverFault::FlushesNothing),
];

fn duty(name: &str) -> Result<DriverFault, String> {
    let known = DUTIES.iter().find(|(known, _)| *known == name);
    known.map(|(_, fault)| *fault).ok_or_else(|| {
        let names: Vec<_> = DUTIES.iter().map(|(name, _)| *name).collect();
        format!("one of {}", names.join(", "))
    })
}

/// Progress is printed this often.
const PROGRESS: Duration = Duration::from_secs(10);

/// What the workers share.
struct Shared {
    next: AtomicU64,
    stop: AtomicBool,
    tally: Mutex<Tally>,
    runs: AtomicU64,
    finding: Mutex<Option<Box<Finding>>>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let first = args.seed.unwrap_or_else(|| {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        since.map_or(0, |since| since.as_secs() % 1_000_000 * 1_000_000)
    });
    let shared = Shared {
        next: AtomicU64::new(first),
        stop: AtomicBool::new(false),
        tally: Mutex::new(Tally::default()),
        runs: AtomicU64::new(0),
        finding: Mutex::new(None),
    };
    let began = Instant::now();
    let budget = Duration::from_secs_f64(args.minutes.max(0.0) * 60.0);
    let broken = args.neglect.map(Broken::Driver);
    let last = args.runs.map(|runs| first.saturating_add(runs));
    let jobs = args.jobs.unwrap_or_else(processors).max(1);
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| work(&shared, last, broken));
        }
        watch(&shared, began, args.runs.is_none().then_some(budget), last);
    });
    let finding = lock(&shared.finding).take();
    if let Some(finding) = &finding {
        tell(finding, &args, broken);
    } else if args.runs == Some(1) && args.trace {
        print_trace(&twinvm_sim::trace(first, broken), args.lines);
    }
    let runs = shared.runs.load(Ordering::Relaxed);
    let tally = *lock(&shared.tally);
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "simulate: {runs} runs, seeds {first} to {}, {} takeovers, {} operations checked ({} not \
         judged), {} digests equal, {} findings, {seconds:.0} s, {:.0} runs/s",
        first + runs.saturating_sub(1),
        tally.takeovers,
        tally.operations,
        tally.unjudged,
        tally.digests,
        u8::from(finding.is_some()),
        runs as f64 / seconds.max(0.001),
    );
    ExitCode::from(u8::from(finding.is_some()))
}

fn processors() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One worker: the next seed, again and again.
fn work(shared: &Shared, last: Option<u64>, broken: Option<Broken>) {
    while !shared.stop.load(Ordering::Relaxed) {
        let seed = shared.next.fetch_add(1, Ordering::Relaxed);
        if last.is_some_and(|last| seed >= last) {
            return;
        }
        match run(seed, broken) {
            Ok(tally) => lock(&shared.tally).add(&tally),
            Err(finding) => {
                shared.stop.store(true, Ordering::Relaxed);
                let mut found = lock(&shared.finding);
                if found.as_ref().is_none_or(|other| finding.seed < other.seed) {
                    *found = Some(finding);
                }
            }
        }
        shared.runs.fetch_add(1, Ordering::Relaxed);
    }
}

/// Prints progress until the workers have nothing more to do.
fn watch(shared: &Shared, began: Instant, budget: Option<Duration>, last: Option<u64>) {
    let mut told = Instant::now();
    while !shared.stop.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(50));
        if budget.is_some_and(|budget| began.elapsed() >= budget) {
            shared.stop.store(true, Ordering::Relaxed);
        }
        let next = shared.next.load(Ordering::Relaxed);
        if last.is_some_and(|last| next >= last) {
            return;
        }
        if told.elapsed() >= PROGRESS {
            told = Instant::now();
            let (runs, tally) = (shared.runs.load(Ordering::Relaxed), *lock(&shared.tally));
            eprintln!(
                "{:>5} s: {runs} runs, {} takeovers, {} operations",
                began.elapsed().as_secs(),
                tally.takeovers,
                tally.operations
            );
        }
    }
}

/// What was found, and how to see it again.
fn tell(finding: &Finding, args: &Args, broken: Option<Broken>) {
    let kind = if finding.safety { "wrong" } else { "stuck" };
    println!(
        "FINDING ({kind}), seed {}, at {} ms of virtual time: {}",
        finding.seed, finding.at_ms, finding.what
    );
    println!("commit {}", commit());
    let neglect = DUTIES
        .iter()
        .find(|(_, fault)| broken == Some(Broken::Driver(*fault)))
        .map_or_else(String::new, |(name, _)| format!(" --neglect {name}"));
    println!(
        "again: cargo xtask simulate --seed {} --runs 1 --trace{neglect}",
        finding.seed
    );
    if args.trace || !std::io::stdout().is_terminal() {
        print_trace(&twinvm_sim::trace(finding.seed, broken), args.lines);
    }
}

fn print_trace(lines: &[String], count: usize) {
    for line in &lines[lines.len().saturating_sub(count)..] {
        println!("{line}");
    }
}

/// The commit that the working tree stands on.
fn commit() -> String {
    let git = Command::new("git")
        .args(["describe", "--always", "--dirty", "--abbrev=40"])
        .output();
    let text = git.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    match text {
        Ok(text) if !text.is_empty() => text,
        _ => "unknown".to_owned(),
    }
}
