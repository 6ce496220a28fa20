//! What recording costs a guest that only computes: the same steps with and without it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Deserialize;
use twinvm_log::{LOG_FILE, SNAPSHOT_FILE, STATES_FILE};

use super::report::{Row, Section};
use super::stats::{digits, median_interval};
use super::{Bench, say};
use crate::demo::error::DemoError;
use crate::demo::processes::Process;

/// The most that recording may add to the processor time, in percent.
const MOST_PERCENT: f64 = 3.0;
/// Pairs for each run that was asked for, and one more: the interval needs them.
const PAIRS_PER_RUN: u32 = 2;
/// One run's time: seconds on a quiet host.
const RUN_LIMIT: Duration = Duration::from_secs(180);
const PLAIN: &str = "alone";
const RECORDED: &str = "recorded";
const COST: &str = "recording's cost";
/// Steps of the program without an operating system.
const BARE_STEPS: u64 = 1_000_000_000;
/// Steps with Linux: half of them are its boot.
const LINUX_STEPS: u64 = 3_000_000_000;

/// A guest that computes and never ends.
struct Work {
    name: &'static str,
    steps: u64,
    args: Vec<String>,
}

/// Measures each work in pairs, the order within a pair changing from one to the next.
pub(crate) fn measure(bench: &Bench) -> Result<Section, DemoError> {
    let files = Files::new(&bench.dir.join("cpu-bound"))?;
    let works = works(bench, &files)?;
    let pairs = bench.runs * PAIRS_PER_RUN + 1;
    let mut rows: Vec<Row> = works.iter().map(|work| Row::new(work.name)).collect();
    for pair in 0..pairs {
        for (work, row) in works.iter().zip(&mut rows) {
            let mut ns = [0.0; 2];
            for turn in 0..2 {
                let recorded = (pair + turn) % 2 == 1;
                ns[usize::from(recorded)] = run(bench, &files, work, recorded)?;
            }
            let [plain, recorded] = ns;
            row.sample(PLAIN, "ns/step", plain);
            row.sample(RECORDED, "ns/step", recorded);
            row.sample(COST, "%", (recorded / plain - 1.0) * 100.0);
        }
        say(&format!("record {:>2}/{pairs}", pair + 1));
    }
    let bars = rows.iter().filter_map(|row| row.bar(COST, MOST_PERCENT));
    Ok(Section {
        name: "record".to_owned(),
        title: "what recording costs work on the processor".to_owned(),
        bars: bars.collect(),
        notes: notes(&rows),
        compared: Vec::new(),
        rows,
    })
}

fn notes(rows: &[Row]) -> Vec<String> {
    let mut notes = vec![
        "Processor time of the process, all threads, for each of the guest's steps; pairs with \
         and without --record of the same number of steps, in turns. What a recording does at its \
         beginning and end, writing the snapshot too, is counted."
            .to_owned(),
    ];
    notes.extend(rows.iter().filter_map(|row| {
        let interval = median_interval(row.samples(COST))?;
        Some(format!(
            "{}: {:.1} % confidence interval of the median cost, from the order of the {} pairs: \
             {} to {} %.",
            row.name,
            interval.confidence * 100.0,
            row.samples(COST).len(),
            digits(interval.from),
            digits(interval.to)
        ))
    }));
    notes
}

fn works(bench: &Bench, files: &Files) -> Result<[Work; 2], DemoError> {
    let words = |path: &Path| match path.to_str() {
        Some(text) => Ok(text.to_owned()),
        None => Err(DemoError::Input(format!(
            "{}: the path must be UTF-8",
            path.display()
        ))),
    };
    let program: Vec<u8> = PROGRAM
        .iter()
        .flat_map(|word: &u32| word.to_le_bytes())
        .collect();
    fs::write(&files.program, program).map_err(DemoError::io(&files.program))?;
    let bare = ["--firmware", &words(&files.program)?, "--memory", "16M"].map(str::to_owned);
    let linux = [
        "--kernel",
        &words(&bench.image()?.kernel)?,
        "--initrd",
        &words(&bench.image()?.initrd)?,
        "--memory",
        "256M",
        "--cmdline",
        "console=ttyS0 rdinit=/bin/sh -- -c \"while :; do :; done\"",
    ]
    .map(str::to_owned);
    Ok([
        Work {
            name: "a loop without an operating system",
            steps: BARE_STEPS,
            args: bare.into(),
        },
        Work {
            name: "Linux boots and runs a shell's loop",
            steps: LINUX_STEPS,
            args: linux.into(),
        },
    ])
}

/// A raw program at the start of RAM: xorshift, and with each number a load, an addition and a
/// store in the 2 KiB at its table.
pub(super) const PROGRAM: [u32; 14] = [
    0x0010_0417, // auipc s0, 0x100: the table
    0x0010_0293, // addi t0, x0, 1
    0x00d2_9313, // loop: slli t1, t0, 13
    0x0062_c2b3, // xor t0, t0, t1
    0x0072_d313, // srli t1, t0, 7
    0x0062_c2b3, // xor t0, t0, t1
    0x0112_9313, // slli t1, t0, 17
    0x0062_c2b3, // xor t0, t0, t1
    0x7f82_f393, // andi t2, t0, 0x7f8
    0x0083_83b3, // add t2, t2, s0
    0x0003_be03, // ld t3, 0(t2)
    0x005e_0e33, // add t3, t3, t0
    0x01c3_b023, // sd t3, 0(t2)
    0xfd5f_f06f, // jal x0, loop
];

/// What a run's report says of it.
#[derive(Deserialize)]
struct Told {
    icount: u64,
    cpu_s: f64,
}

/// One run; processor time for each step in nanoseconds.
fn run(bench: &Bench, files: &Files, work: &Work, recorded: bool) -> Result<f64, DemoError> {
    files.clear()?;
    let mut command = bench.run_command();
    command.args(&work.args);
    command
        .arg("--max-instructions")
        .arg(work.steps.to_string());
    command.arg("--report").arg(&files.report);
    if recorded {
        command.arg("--record").arg(&files.recording);
    }
    let mut process = Process::start(work.name, &mut command, &files.log)?;
    let limit = RUN_LIMIT;
    bench.wait_for("the steps are made", limit, &files.log, || {
        Ok(process.wait(Instant::now()).then_some(()))
    })?;
    let text = fs::read_to_string(&files.report)
        .map_err(|_| DemoError::failed_see(format!("{}: no report", work.name), &files.log))?;
    let told: Told = serde_json::from_str(&text)
        .map_err(|error| DemoError::failed(format!("{}: {error}", files.report.display())))?;
    if told.icount != work.steps {
        let what = format!("{}: {} steps were made", work.name, told.icount);
        return Err(DemoError::failed_see(what, &files.log));
    }
    files.clear()?;
    Ok(told.cpu_s * 1e9 / told.icount as f64)
}

struct Files {
    program: PathBuf,
    log: PathBuf,
    report: PathBuf,
    recording: PathBuf,
}

impl Files {
    fn new(dir: &Path) -> Result<Self, DemoError> {
        fs::create_dir_all(dir).map_err(DemoError::io(dir))?;
        Ok(Self {
            program: dir.join("program"),
            log: dir.join("console.log"),
            report: dir.join("report.json"),
            recording: dir.join("recording"),
        })
    }

    /// Removes what a run leaves.
    fn clear(&self) -> Result<(), DemoError> {
        let recording =
            [LOG_FILE, SNAPSHOT_FILE, STATES_FILE].map(|name| self.recording.join(name));
        for path in [&self.log, &self.report].into_iter().chain(&recording) {
            match fs::remove_file(path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(DemoError::io(path)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }
}
