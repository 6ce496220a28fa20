//! What a guest pays for reaching a device, and how long what comes from outside waits for a guest
//! that never waits. Machines in this process, driven as `twinvm run` drives one.

mod guest;
mod host;

use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;
use twinvm_host::time::process_cpu_ns;
use twinvm_machine::{ImageKind, Images, MachineConfig, OnReset, SlotConfig};

use super::record::PROGRAM;
use super::report::{Row, Section};
use super::stats::percentile;
use super::{Bench, say};
use crate::demo::error::DemoError;
use guest::{CARD, Turn};
use host::{Driven, bare};

/// The most that a notify may take, there and back, in nanoseconds.
const MOST_NOTIFY_NS: f64 = 1000.0;
/// The most that input may wait for a busy guest, in microseconds.
const MOST_WAIT_US: f64 = 100.0;
const TAKES: &str = "takes";
const P99: &str = "p99";
/// A guest gets into its stride.
const WARM: Duration = Duration::from_millis(100);
/// Time of one sample.
const SAMPLE: Duration = Duration::from_millis(300);
/// Pieces of input in one sample.
const INPUTS: usize = 1000;
/// Inputs that wait.
const INPUT_QUEUE: usize = 16;
/// Between two inputs, in microseconds: the least, and how much more it may be.
const PAUSE_US: (u64, u64) = (100, 800);
/// By then it has booted.
const BOOTED_STEPS: u64 = 2_000_000_000;
/// The guest boots and then computes for ever.
const COMPUTES: &str = "console=ttyS0 rdinit=/bin/sh -- -c \"while :; do :; done\"";

/// Measures accesses and inputs, in turns.
pub(crate) fn measure(bench: &Bench) -> Result<Section, DemoError> {
    let mut accesses = Turn::ALL.map(|turn| Row::new(turn.name()));
    let mut inputs = [
        "input waits for a guest that computes",
        "input waits for Linux while it boots",
        "input waits for Linux while it computes",
    ]
    .map(Row::new);
    for run in 0..bench.runs {
        for (turn, row) in Turn::ALL.into_iter().zip(&mut accesses) {
            row.sample(TAKES, "ns", access_ns(bench, turn)?);
        }
        let program: Vec<u8> = PROGRAM.into_iter().flat_map(u32::to_le_bytes).collect();
        let guests = [
            (bare(&program, vec![SlotConfig::Rng]), 0),
            (linux(bench)?, 0),
            (linux(bench)?, BOOTED_STEPS),
        ];
        for (row, (config, from)) in inputs.iter_mut().zip(guests) {
            let waits = waits_ns(bench, config, from)?;
            let us = |percent| percentile(&waits, percent).map_or(0.0, |ns| f64::from(ns) / 1e3);
            row.sample("p50", "µs", us(50));
            row.sample(P99, "µs", us(99));
            row.sample("longest", "µs", us(100));
        }
        say(&format!("devices {:>2}/{}", run + 1, bench.runs));
    }
    let notifies = accesses[1..]
        .iter()
        .map(|row| row.bar(TAKES, MOST_NOTIFY_NS));
    // What a boot touches first is the host's to find: no promise of ours covers that.
    let waits = [&inputs[0], &inputs[2]].map(|row| row.bar(P99, MOST_WAIT_US));
    Ok(Section {
        name: "devices".to_owned(),
        title: "reaching devices, and being reached".to_owned(),
        bars: notifies.chain(waits).flatten().collect(),
        rows: accesses.into_iter().chain(inputs).collect(),
        notes: notes(),
        compared: Vec::new(),
    })
}

fn notes() -> Vec<String> {
    vec![
        format!(
            "Machines in the bench's own process, driven as `twinvm run` does it. An access: \
             processor time of a turn of a guest's loop in {} ms, less that of the same loop \
             without the access. With a frame it includes the hash and the log's record of the \
             output.",
            SAMPLE.as_millis()
        ),
        format!(
            "Input: a thread hands in {INPUTS} bytes for the serial console, one every {} to {} \
             µs; from then until the guest has it and the log its record. p99 and longest of each \
             sample. While Linux boots the host has to find memory for what the guest touches \
             first, up to 2 MiB in one step.",
            PAUSE_US.0,
            PAUSE_US.0 + PAUSE_US.1
        ),
    ]
}

/// Linux from its power-on, whose one process then computes for ever.
fn linux(bench: &Bench) -> Result<MachineConfig, DemoError> {
    let image = bench.image()?;
    let read = |path| std::fs::read(path).map_err(DemoError::io(path));
    let images = Images::default()
        .with(ImageKind::Kernel, &read(&image.kernel)?)
        .with(ImageKind::Initrd, &read(&image.initrd)?);
    Ok(MachineConfig {
        ram_bytes: 256 << 20,
        harts: 1,
        slots: vec![CARD, SlotConfig::Rng],
        cmdline: COMPUTES.to_owned(),
        images,
        on_reset: OnReset::Exit,
    })
}

/// Nanoseconds of processor time that the access of a turn takes.
fn access_ns(bench: &Bench, turn: Turn) -> Result<f64, DemoError> {
    Ok(turn_ns(bench, turn, true)? - turn_ns(bench, turn, false)?)
}

fn turn_ns(bench: &Bench, turn: Turn, access: bool) -> Result<f64, DemoError> {
    let (program, steps_of_turn) = turn.program(access);
    let mut driven = Driven::new(bench, bare(&program, vec![CARD, SlotConfig::Rng]))?;
    run_for(bench, &mut driven, WARM)?;
    let (icount, frames, cpu_ns) = (driven.icount(), driven.frames, process_cpu_ns());
    run_for(bench, &mut driven, SAMPLE)?;
    let cpu_ns = process_cpu_ns() - cpu_ns;
    let turns = (driven.icount() - icount) / steps_of_turn;
    let frames = driven.frames - frames;
    let wanted = if access && turn == Turn::Send {
        turns
    } else {
        0
    };
    // The last turn may be half done.
    if frames.abs_diff(wanted) > 1 {
        let what = format!("{}: {turns} turns, and {frames} frames came", turn.name());
        return Err(DemoError::failed(what));
    }
    Ok(cpu_ns as f64 / turns.max(1) as f64)
}

fn run_for(bench: &Bench, driven: &mut Driven, time: Duration) -> Result<(), DemoError> {
    let begun = Instant::now();
    while begun.elapsed() < time {
        bench.check()?;
        // A look at the clock for each slice would count.
        for _ in 0..100 {
            driven.slice()?;
        }
    }
    Ok(())
}

/// How long each input has waited from a step on, in ascending order.
fn waits_ns(bench: &Bench, config: MachineConfig, from: u64) -> Result<Vec<u32>, DemoError> {
    let mut driven = Driven::new(bench, config)?;
    while driven.icount() < from {
        bench.check()?;
        driven.slice()?;
    }
    let (arrive, arrived) = bounded::<Instant>(INPUT_QUEUE);
    // It ends with the channel, if not before.
    let sender = thread::spawn(move || {
        let mut number = 1_u64;
        for _ in 0..INPUTS {
            number = number
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let pause = PAUSE_US.0 + (number >> 33) % PAUSE_US.1;
            thread::sleep(Duration::from_micros(pause));
            if arrive.send(Instant::now()).is_err() {
                return;
            }
        }
    });
    let mut waits = Vec::with_capacity(INPUTS);
    while waits.len() < INPUTS {
        bench.check()?;
        for came in arrived.try_iter() {
            if !driven.type_byte()? {
                return Err(DemoError::failed("a guest's console has no room for input"));
            }
            let ns = came.elapsed().as_nanos();
            waits.push(u32::try_from(ns).unwrap_or(u32::MAX));
        }
        driven.slice()?;
    }
    let _ = sender.join();
    waits.sort_unstable();
    Ok(waits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use twinvm_machine::{Machine, PowerOn};

    /// Each program does what its row says: frames leave with every turn, or never.
    #[test]
    fn guests_do_what_is_measured() {
        for turn in Turn::ALL {
            for access in [true, false] {
                let (program, steps) = turn.program(access);
                let power_on = PowerOn {
                    rng_seed: [0; 32],
                    rtc_base_ns: 0,
                };
                let config = bare(&program, vec![CARD, SlotConfig::Rng]);
                let mut machine = Machine::new(config, power_on).unwrap();
                let mut frames_until = |icount| {
                    let mut frames = 0;
                    while machine.icount() < icount {
                        machine.run(icount);
                        frames += machine.take_output().map_or(0, |output| output.items.len());
                    }
                    frames
                };
                // By then the card is set up.
                frames_until(1000);
                let frames = frames_until(1000 + 100 * steps);
                let wanted = if access && turn == Turn::Send { 100 } else { 0 };
                assert_eq!(frames, wanted, "{turn:?}, {access}");
            }
        }
    }
}
