//! Programs that compute, under both, in turns: processor time for the same work.
//!
//! Two guests are booted from the same files and wait for commands. Each program runs in one of
//! them while the other does nothing, then the other way round. What counts is the processor time
//! of the virtual machine's process between two marks that the guest prints, so neither boot nor
//! the guest's clock has a part in it. A guest that waits costs less than a hundredth of a core,
//! and its time is not the other's.

pub(crate) mod programs;
mod shell;
mod typed;

use std::path::{Path, PathBuf};

use super::compare::{Compared, mean_note};
use super::debian::{self, DiskCopy};
use super::guests::{Kind, Spec, Wire};
use super::report::{Row, Section};
use super::stats::{Summary, digits};
use super::{Bench, say};
use crate::demo::error::DemoError;
use programs::{PROGRAMS, Program};
use shell::{Shell, Turn, line_after, line_before};
use typed::Typed;

/// Where the Debian image is if nobody says so: `make image-debian` puts it there.
const DEBIAN: &str = "target/image/debian";
/// Our side of the comparison.
const OURS: Kind = Kind::Record;
const STEPS: &str = "steps";
const MIPS: &str = "MIPS";

/// What is to be measured, and how much of it.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) programs: Vec<&'static Program>,
    /// Of each program's usual amount of work.
    pub(crate) scale: f64,
}

impl Plan {
    /// The programs with these names, all if there is none.
    pub(crate) fn new(names: &[String], scale: f64) -> Self {
        let wanted =
            |program: &&Program| names.is_empty() || names.iter().any(|name| name == program.name);
        Self {
            programs: PROGRAMS.iter().filter(wanted).collect(),
            scale,
        }
    }

    /// A guest of the Redis image has them all.
    fn suits_busybox(&self) -> bool {
        self.programs
            .iter()
            .all(|program| program.busybox.is_some())
    }
}

/// Whose programs are run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Image {
    /// Debian's, from the image in this folder.
    Debian(PathBuf),
    /// busybox's, from the Redis image.
    Redis,
}

impl Image {
    /// The Debian image that was named, else the one in its usual place, else the Redis image if
    /// that suffices.
    pub(crate) fn choose(named: Option<&Path>, plan: &Plan) -> Result<Self, DemoError> {
        let usual = Path::new(DEBIAN);
        match named {
            Some(folder) => Ok(Self::Debian(debian::check(folder)?)),
            None if usual.is_dir() => Ok(Self::Debian(debian::check(usual)?)),
            None if plan.suits_busybox() => Ok(Self::Redis),
            None => Err(DemoError::Input(format!(
                "no Debian image in {DEBIAN}: `make image-debian` makes it (as root), --debian DIR \
                 names another; without one, --programs {} can run in the Redis image",
                busybox_names()
            ))),
        }
    }
}

impl Image {
    /// A guest's parts, and the copy of the disk that is its own.
    fn guest(&self, bench: &Bench, kind: Kind) -> Result<(Spec, Option<DiskCopy>), DemoError> {
        match self {
            Self::Debian(folder) => {
                let disk = DiskCopy::make(bench, folder, kind)?;
                Ok((debian::spec(folder, &disk, Wire::User)?, Some(disk)))
            }
            Self::Redis => Ok((Spec::redis(bench, Wire::User)?, None)),
        }
    }
}

/// The programs that busybox has too.
fn busybox_names() -> String {
    let names = PROGRAMS.iter().filter(|program| program.busybox.is_some());
    names
        .map(|program| program.name)
        .collect::<Vec<_>>()
        .join(",")
}

/// A guest of each side.
struct Sides<'a> {
    bench: &'a Bench,
    /// Ours, then the yardstick.
    shells: [Shell; 2],
    /// Of the last run; the same in both guests.
    number: u32,
}

/// One program's samples.
struct Samples {
    program: &'static Program,
    compared: Compared,
    /// Of the runs.
    numbers: Vec<u32>,
}

/// Runs every program of the plan in both guests, as often as was asked for. What was measured
/// before something fails is kept.
pub(crate) fn measure(bench: &Bench, done: &mut Vec<Section>) -> Result<(), DemoError> {
    let (image, plan) = (&bench.programs_of, &bench.plan);
    let input = |why: &String| DemoError::Input(why.clone());
    let image = image.as_ref().map_err(input)?;
    let boot = |kind: Kind| {
        say(&format!("cpu        {} boots", kind.name()));
        Shell::boot(bench, image, kind, plan)
    };
    let mut sides = Sides {
        bench,
        shells: [boot(OURS)?, boot(bench.against.kind())?],
        number: 0,
    };
    let mut all: Vec<Samples> = plan.programs.iter().copied().map(Samples::new).collect();
    let outcome = sides.measure(&mut all);
    let (typed, ended) = match sides.finish() {
        Ok(typed) => (typed, Ok(())),
        Err(error) => (Typed::default(), Err(error)),
    };
    all.retain(|samples| !samples.numbers.is_empty());
    if !all.is_empty() {
        done.push(section(bench, image, &mut all, &typed));
    }
    // What failed first says more.
    outcome.and(ended)
}

impl Sides<'_> {
    /// Warms everything up and takes all samples.
    fn measure(&mut self, all: &mut [Samples]) -> Result<(), DemoError> {
        for samples in all.iter() {
            let program = samples.program;
            self.pair(program, &program.work.warm_up(), 0)?;
        }
        for round in 0..self.bench.runs as usize {
            for (index, samples) in all.iter_mut().enumerate() {
                let argument = samples.program.work.argument(self.bench.plan.scale);
                // Each side comes first in every other pair.
                let turns = self.pair(samples.program, &argument, (round + index) % 2)?;
                samples.take(self.number, &turns);
                say(&self.progress(round, samples, &turns));
            }
        }
        Ok(())
    }

    /// Runs a program in both guests, one after the other, `first` first.
    fn pair(
        &mut self,
        program: &Program,
        argument: &str,
        first: usize,
    ) -> Result<[Turn; 2], DemoError> {
        self.number += 1;
        let (bench, number) = (self.bench, self.number);
        let [ours, other] = &mut self.shells;
        let turn = |shell: &mut Shell| {
            let scale = bench.plan.scale;
            shell.run(bench, program, argument, number, scale)
        };
        let turns = match first {
            0 => {
                let one = turn(ours)?;
                [one, turn(other)?]
            }
            _ => {
                let two = turn(other)?;
                [turn(ours)?, two]
            }
        };
        agree(program, &turns)?;
        Ok(turns)
    }

    fn progress(&self, round: usize, samples: &Samples, turns: &[Turn; 2]) -> String {
        let [ours, other] = turns;
        format!(
            "cpu   {:>2}/{:<3}{:<14} {:.2} s, {} {:.2} s of processor time",
            round + 1,
            self.bench.runs,
            samples.program.name,
            ours.cpu_s,
            self.bench.against.kind().name(),
            other.cpu_s
        )
    }

    /// Ends both guests; what was typed in ours, and when.
    fn finish(self) -> Result<Typed, DemoError> {
        let [ours, other] = self.shells;
        other.finish(|_| Ok(()))?;
        let mut typed = Typed::default();
        ours.finish(|log| {
            typed = Typed::read(log)?;
            Ok(())
        })?;
        Ok(typed)
    }
}

/// What was printed in both guests must be the same.
fn agree(program: &Program, [ours, other]: &[Turn; 2]) -> Result<(), DemoError> {
    match ours.digest == other.digest {
        true => Ok(()),
        false => Err(DemoError::failed(format!(
            "{}: the guests printed different results (SHA-256 {:.16}… in ours, {:.16}… in the \
             other): one of the machines computes wrong",
            program.name, ours.digest, other.digest
        ))),
    }
}

impl Samples {
    fn new(program: &'static Program) -> Self {
        Self {
            program,
            compared: Compared::new(program.name),
            numbers: Vec::new(),
        }
    }

    fn take(&mut self, number: u32, [ours, other]: &[Turn; 2]) {
        self.compared.pair(ours.cpu_s, other.cpu_s);
        self.numbers.push(number);
    }

    /// The program's line of the table; what is known of the steps goes to the comparison too.
    fn row(&mut self, other: &str, typed: &Typed) -> Row {
        let mut row = Row::new(self.program.name);
        let column = |of: &str| format!("{of}: CPU");
        for cpu_s in &self.compared.ours_cpu_s {
            row.sample(&column("twinvm"), "s", *cpu_s);
        }
        for cpu_s in &self.compared.other_cpu_s {
            row.sample(&column(other), "s", *cpu_s);
        }
        row.speed(&format!("× the speed of {other}"), &self.compared);
        for (number, cpu_s) in self.numbers.iter().zip(&self.compared.ours_cpu_s) {
            let lines = [line_before(*number), line_after(*number)];
            let [before, after] = [lines[0].trim_end(), lines[1].trim_end()];
            let Some(steps) = typed.steps_between(before, after) else {
                continue;
            };
            row.sample(STEPS, "G", steps as f64 / 1e9);
            if *cpu_s > 0.0 {
                row.sample(MIPS, "", steps as f64 / 1e6 / cpu_s);
            }
        }
        for (quantity, key, unit) in [(STEPS, "ours_steps", 1e9), (MIPS, "ours_mips", 1.0)] {
            if let Some(summary) = Summary::of(row.samples(quantity)) {
                let more = &mut self.compared.more;
                more.insert(key.to_owned(), (summary.median * unit).round());
            }
        }
        row
    }
}

fn section(bench: &Bench, image: &Image, all: &mut [Samples], typed: &Typed) -> Section {
    let other = bench.against.kind().name();
    let engine = bench
        .engine
        .map(|engine| format!(" --engine {}", engine.name()));
    let rows = all.iter_mut().map(|samples| samples.row(other, typed));
    let mut section = Section {
        name: "cpu".to_owned(),
        title: format!(
            "programs in a guest, twinvm run --record{} beside {other}",
            engine.unwrap_or_default()
        ),
        rows: rows.collect(),
        bars: Vec::new(),
        notes: Vec::new(),
        compared: all.iter().map(|samples| samples.compared.clone()).collect(),
    };
    section.notes.extend(mean_note(&section, other));
    section.notes.push(format!(
        "CPU: user and system time of the process, all threads, to 10 ms, from a mark that the \
         guest prints when the program begins to one when it has ended; in turns, the same {} \
         guest and one hart, {} of the usual work. Speed: {other}'s time over ours, of the \
         medians; in parentheses that of single pairs.",
        match image {
            Image::Debian(_) => "Debian",
            Image::Redis => "busybox",
        },
        digits(bench.plan.scale),
    ));
    section.notes.push(
        "Steps (instructions and traps) are the recording's; MIPS is million steps for each \
         second of processor time."
            .to_owned(),
    );
    section
}

#[cfg(test)]
mod tests;
