//! `twinvm run`: one VM on this host alone, its console on this terminal.

mod console;
mod disks;
mod drive;
mod end;
mod from;
mod recorder;
mod report;
mod signature;
mod snapshot;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use crossbeam_channel::bounded;
use twinvm_config::{ConsoleKind, Disk, MEMORY_EXPECTED, VmConfig, memory_bytes};
use twinvm_host::console::{RawTerminal, read_stdin};
use twinvm_host::node::Reads;
use twinvm_host::port::{Port, PortError};
use twinvm_host::random::fill_random;
use twinvm_host::signals::SignalWatch;
use twinvm_host::snapshot_file;
use twinvm_host::time::wall_ns;
use twinvm_machine::{EngineKind, Machine, OnReset, PowerOn};
use twinvm_nbd::address::Address;

use crate::engine_arg::EngineArg;
use crate::guest::{OpenDisk, blame, disk_slots, machine_config, open_disks};
use crate::say;
use crate::{BAD_INPUT, FAULT, Outcome, perf_map};
use console::Console;
use disks::Disks;
use drive::{Drive, Ended, Frozen, Wire};
use end::End;
use recorder::Recorder;
use report::{Meter, Report};
use signature::Signature;
use snapshot::Written;

/// Packets from the wire that wait for the guest: a burst of a few round trips, 16 MiB at most.
const FRAME_QUEUE: usize = 256;
/// Pieces of typed input that wait for the guest.
const CONSOLE_QUEUE: usize = 16;
/// Signals that wait to be looked at; the first one ends the run.
const SIGNAL_QUEUE: usize = 4;

/// Runs one VM on this host, its console on this terminal
///
/// What it boots is named by a VM's file, by options, or by both: an option wins over the file.
/// Without a backup nothing is protected: this is for trying a guest out, for recordings and for
/// measurements. Ctrl-] ends the run; every other key goes to the guest.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  twinvm run VM.toml
  twinvm run --kernel vmlinux --initrd initrd.cpio --cmdline console=ttyS0 --memory 256M
  twinvm run VM.toml --disk disk.img
  twinvm run VM.toml --disk nbd://127.0.0.1:10809/disk
  twinvm run VM.toml --record rec && twinvm replay rec
  twinvm run VM.toml --console virtio --cmdline 'console=hvc0 ADDR=dhcp'
  twinvm run VM.toml --snapshot warm.snap     end it with Ctrl-] when it is warm
  twinvm run VM.toml --from warm.snap --record rec
  twinvm run --firmware fw_dynamic.bin --kernel vmlinux --cmdline console=ttyS0
  twinvm run --firmware test.elf --memory 16M --max-instructions 1000000 --signature test.sig
  twinvm run VM.toml --dump-dtb vm.dtb && dtc vm.dtb
  perf record twinvm run VM.toml --perf-map; perf report --sort symbol

Exit codes:
  0      the guest powered itself off, or the finisher said pass
  1-119  the finisher's failure code (0 counts as 1, more than 119 as 119)
  2      bad input: nothing ran, and nothing was written
  120    the guest reset itself, under on_reset = \"exit\"
  124    the limit of --max-instructions was reached
  125    a fault of our own, or the recording, report or snapshot could not be written
  130    ended from outside: Ctrl-], SIGINT, SIGTERM or SIGHUP

A --snapshot is written when the run has ended by Ctrl-], a signal or --max-instructions, under
its name when it is complete. It holds no disk's contents: copy the disks' files before anything
starts from it, and start it with copies again, in the same order:
  twinvm run VM.toml --disk disk.img --snapshot warm.snap
  cp --sparse=always disk.img warm.img
  cp --sparse=always warm.img try.img; twinvm run VM.toml --disk try.img --from warm.snap

A run --from a snapshot is that machine with its own memory, files and command line. VM.toml is
needed only for its network, whose cards are unplugged without it. What VM.toml or options say of
the machine must be what the snapshot says. The guest doesn't notice the time in between: its
clocks go on from the snapshot's moment and lag behind the world's by that much, until something
in the guest sets them (NTP). Connections of that moment have most likely ended at the other end.

--perf-map lets perf name what the guest executed, a block of instructions at a time:
guest_VA_pa_PA, with the virtual address at which the block was first met (another process of the
guest may have the same code elsewhere) and its physical address, or guest_jump_to_page_PA. What
the interpreter does is twinvm's own code. The file stays for perf report. It only grows: when all
translations are forgotten (translation.flushes in the report), new code comes to lie where other
code was, and names of both are in the file. The guest notices nothing.

The report is JSON: icount (steps since power-on), host_s, cpu_s, mips (million steps per second
of processor time), peak_rss_bytes, ram_touched_bytes (pages of the guest's RAM that were written
to since power-on or reset, by the guest or by loading its files; after --from also those that the
snapshot holds), digest (of the guest's final state), nets (what went through each network card's
port), engine (what executed the guest, below), exit{reason, code} with the reason poweroff, failure,
reset, limit, stopped or fault.

engine counts from the run's beginning and is for finding out where time goes:
  steps_interpreted, steps_translated   the steps of the run
  interpreter    blocks_entered, instructions_decoded, page_walks, fetches_dropped (times that what
                 was known of addresses of code was withdrawn)
  translation    blocks and instructions translated; blocks_retired as their page was written to;
                 flushes of everything; links of jumps; code_bytes, peak_code_bytes and table_bytes
                 of memory; entries; exits by reason (tail: fewer steps are left than the block has;
                 lookup: a jump to what isn't known to be translated; link: a jump not linked yet;
                 look: interrupts, devices or memory want attention; trap; sbi: a firmware call; turn:
                 another hart's); steps_outside, those of the interpreter between exit and entry (cold
                 code, tail, single: instructions on two pages or outside RAM); calls of the interpreter for one instruction, and which")]
pub(crate) struct RunArgs {
    /// The VM's file
    #[arg(value_name = "VM.toml")]
    file: Option<PathBuf>,
    /// Linux Image or ELF file for riscv64, or a raw binary for 0x80200000
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// Machine-mode firmware such as OpenSBI, or a program for a bare machine: an ELF file, or
    /// bytes for the start of RAM (0x80000000)
    #[arg(long, value_name = "FILE")]
    firmware: Option<PathBuf>,
    /// Initial RAM disk
    #[arg(long, value_name = "FILE")]
    initrd: Option<PathBuf>,
    /// Device tree (as dtc writes it) that the guest gets as it is, in place of the machine's own:
    /// command line and initrd are what it says
    #[arg(long, value_name = "FILE")]
    dtb: Option<PathBuf>,
    /// Write the device tree that the guest would get there (all but rng-seed), and end
    #[arg(long, value_name = "FILE", conflicts_with_all = ["from", "record", "signature", "report", "snapshot"])]
    dump_dtb: Option<PathBuf>,
    /// Disk that the guest reads and writes: a raw image, or an NBD server's export (nbd://HOST/NAME).
    /// May be given more than once. Comes behind the file's disks
    #[arg(long, value_name = "FILE|URI")]
    disk: Vec<PathBuf>,
    /// Command line of the kernel
    #[arg(long, value_name = "TEXT")]
    cmdline: Option<String>,
    /// Size of RAM, such as 256M [default: the file's, else 512M]
    #[arg(long, value_name = "SIZE")]
    memory: Option<String>,
    /// Number of harts, 1 to 8 [default: the file's, else 1]. They run in turn, on one host thread
    #[arg(long, value_name = "N")]
    harts: Option<u32>,
    /// What a reset of the guest does [default: the file's, else restart]
    #[arg(long, value_name = "WHAT")]
    on_reset: Option<ResetArg>,
    /// Which console gets the keys [default: the file's, else uart]. What the guest prints on
    /// either is shown
    #[arg(long, value_name = "NAME")]
    console: Option<ConsoleArg>,
    /// What executes the guest, which can't tell; jit where the host can
    #[arg(long, value_name = "NAME")]
    engine: Option<EngineArg>,
    /// Translate a block of the guest's code when it has been entered N times, 0 to 254 [default: 8].
    /// With 0 translated code runs what runs once, as in tests that are a straight line
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(..=254), conflicts_with = "dump_dtb")]
    hot_at: Option<u8>,
    /// Name translated code for `perf`, in /tmp/perf-PID.map
    #[arg(long, conflicts_with = "dump_dtb")]
    perf_map: bool,
    /// Write a report of the run there, as JSON
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Go on from this snapshot (of --snapshot or `twinvm ctl snapshot`) instead of a power-on
    #[arg(long, value_name = "SNAPSHOT", conflicts_with = "signature")]
    from: Option<PathBuf>,
    /// When the run is ended from outside or by --max-instructions, write the machine's whole
    /// state there, for --from. Disks are brought to rest first: copy their files with it
    #[arg(long, value_name = "FILE")]
    snapshot: Option<PathBuf>,
    /// Let --snapshot replace a file of that name
    #[arg(long, requires = "snapshot")]
    force: bool,
    /// Record the run from its beginning in this folder, new or empty, for `twinvm replay`
    #[arg(long, value_name = "DIR")]
    record: Option<PathBuf>,
    /// End after exactly this many steps since power-on
    #[arg(long, value_name = "N")]
    max_instructions: Option<u64>,
    /// At the end, write the memory from begin_signature to end_signature there (symbols of the
    /// firmware's or kernel's ELF file), as the RISC-V architecture tests want it
    #[arg(long, value_name = "FILE")]
    signature: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ConsoleArg {
    /// The serial port (Linux: ttyS0)
    Uart,
    /// A virtio console (Linux: the last hvc), which only then is on the board
    Virtio,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ResetArg {
    /// The machine starts again
    Restart,
    /// The run ends with code 120
    Exit,
}

/// Runs the VM.
pub(crate) fn run(args: RunArgs) -> Outcome {
    let bad = |error: &dyn std::fmt::Display| (BAD_INPUT, error.to_string());
    let fault = |error: &dyn std::fmt::Display| (FAULT, error.to_string());
    let vm = describe(&args).map_err(|why| (BAD_INPUT, why))?;
    if let Some(path) = &args.report {
        check_output("--report", path).map_err(|why| (BAD_INPUT, why))?;
    }
    if let Some(path) = &args.snapshot {
        snapshot_file::try_out(path, args.force)
            .map_err(|error| (BAD_INPUT, format!("--snapshot {error}")))?;
    }
    let files = open_disks(&vm).map_err(|error| bad(&error))?;
    if let Some(path) = &args.dump_dtb {
        return dump_tree(path, &vm, &files);
    }
    let (mut machine, signature) = match &args.from {
        Some(path) => (
            from::machine(path, &args, &vm, &files).map_err(|error| bad(&error))?,
            None,
        ),
        None => power_on(&args, &vm, &files)?,
    };
    if let Some(engine) = args.engine {
        machine
            .set_engine(engine.into())
            .map_err(|error| bad(&error))?;
    }
    if args.hot_at.is_some() {
        if machine.engine_kind() != EngineKind::Jit {
            let why = "--hot-at: nothing is translated on this host or with this engine";
            return Err(bad(&why));
        }
        machine.set_translation(args.hot_at);
    }
    if args.perf_map {
        perf_map::start(&mut machine).map_err(|error| bad(&error))?;
    }
    let wires = plug(&vm).map_err(|error| bad(&error))?;
    let disks = Disks::start(machine.config(), files).map_err(|error| fault(&error))?;
    let recording = match &args.record {
        Some(dir) => Some(Recorder::start(&mut machine, dir).map_err(|error| bad(&error))?),
        None => None,
    };

    let (signals_in, signals) = bounded(SIGNAL_QUEUE);
    let watch = SignalWatch::start(signals_in).map_err(|error| fault(&error))?;
    let (typed_in, typed) = bounded(CONSOLE_QUEUE);
    let console = Console::new(typed).map_err(|error| fault(&error))?;
    let terminal = RawTerminal::enter().map_err(|error| fault(&error))?;
    read_stdin(typed_in).map_err(|error| fault(&error))?;

    let meter = Meter::start(machine.icount());
    let mut drive = Drive::new(machine, console, signals, wires, disks, recording)
        .map_err(|error| fault(&error))?;
    let result = drive.run(args.max_instructions);
    let end = match &result {
        Ok(end) => *end,
        Err(_) => End::Fault,
    };
    let signature = signature.map(|signature| signature.write(drive.machine()));
    let (mut ended, frozen) = drive.end(end);
    drop(terminal);
    let written = keep(&args, end, frozen, &mut ended);
    let report = Report::new(&meter, &ended, end);
    drop(watch);

    if let Some(path) = &args.report {
        report
            .write(path)
            .map_err(|error| (FAULT, format!("report {}: {error}", path.display())))?;
    }
    result.map_err(|error| fault(&error))?;
    if let Some(signature) = signature {
        signature.map_err(|error| fault(&error))?;
    }
    if let Some(error) = ended.trouble {
        return Err(fault(&error));
    }
    let steps = ended.icount;
    match end {
        End::Stopped => say::line(format_args!(
            "twinvm run: ended from outside after {steps} steps"
        )),
        End::Limit => say::line(format_args!(
            "twinvm run: stopped after {steps} steps (--max-instructions)"
        )),
        End::Halted(_) | End::Fault => {}
    }
    match (&args.snapshot, written) {
        (Some(path), Some(Written::File { icount, bytes })) => say::line(format_args!(
            "twinvm run: snapshot {}: step {icount}, {bytes} bytes",
            path.display()
        )),
        (Some(path), Some(Written::None)) => say::line(format_args!(
            "twinvm run: no snapshot {}: the guest has ended by itself, it can't go on",
            path.display()
        )),
        _ => {}
    }
    Ok(end.exit_code())
}

/// Writes the snapshot that is asked for, if the run has not failed.
fn keep(args: &RunArgs, end: End, frozen: Frozen, ended: &mut Ended) -> Option<Written> {
    let path = args.snapshot.as_ref()?;
    if end == End::Fault || ended.trouble.is_some() {
        return None;
    }
    match snapshot::write(frozen, path, args.force) {
        Ok(written) => Some(written),
        Err(error) => {
            ended.trouble = Some(error.into());
            None
        }
    }
}

/// Writes the device tree that the guest would get.
fn dump_tree(path: &Path, vm: &VmConfig, disks: &[OpenDisk]) -> Outcome {
    let bad = |error: &dyn std::fmt::Display| (BAD_INPUT, error.to_string());
    check_output("--dump-dtb", path).map_err(|why| (BAD_INPUT, why))?;
    let config = machine_config(vm, disk_slots(disks).collect()).map_err(|error| bad(&error))?;
    let tree = config
        .device_tree()
        .map_err(|error| bad(&blame(vm, error)))?;
    fs::write(path, tree).map_err(|error| (FAULT, format!("{}: {error}", path.display())))?;
    Ok(0)
}

/// The VM as file and options together describe it.
fn describe(args: &RunArgs) -> Result<VmConfig, String> {
    let mut vm = match &args.file {
        Some(path) => VmConfig::load(path),
        // What the defaults are is said in one place.
        None => VmConfig::parse(Path::new("command line"), "name = \"guest\""),
    }
    .map_err(|error| error.to_string())?;
    if let Some(firmware) = &args.firmware {
        vm.firmware = Some(firmware.clone());
    }
    if let Some(dtb) = &args.dtb {
        vm.dtb = Some(dtb.clone());
    }
    if let Some(kernel) = &args.kernel {
        vm.kernel = Some(kernel.clone());
    }
    if let Some(initrd) = &args.initrd {
        vm.initrd = Some(initrd.clone());
    }
    for disk in &args.disk {
        vm.disks.push(disk_named(disk)?);
    }
    if let Some(cmdline) = &args.cmdline {
        vm.cmdline.clone_from(cmdline);
    }
    if let Some(text) = &args.memory {
        vm.memory_bytes = memory_bytes(text)
            .ok_or_else(|| format!("--memory {text}: expected {MEMORY_EXPECTED}"))?;
    }
    if let Some(harts) = args.harts {
        vm.harts = harts;
    }
    match args.on_reset {
        Some(ResetArg::Restart) => vm.on_reset = OnReset::Restart,
        Some(ResetArg::Exit) => vm.on_reset = OnReset::Exit,
        None => {}
    }
    match args.console {
        Some(ConsoleArg::Uart) => vm.console = ConsoleKind::Uart,
        Some(ConsoleArg::Virtio) => vm.console = ConsoleKind::Virtio,
        None => {}
    }
    Ok(vm)
}

/// What `--disk` names: a file, or an export.
fn disk_named(path: &Path) -> Result<Disk, String> {
    let read_only = false;
    match path.to_str().filter(|text| Address::is_meant(text)) {
        None => Ok(Disk::File {
            bytes: None,
            path: path.to_owned(),
            read_only,
        }),
        Some(text) => match Address::parse(text) {
            Ok(address) => Ok(Disk::Nbd {
                address,
                read_only,
                fence: None,
                reads: Reads::default(),
            }),
            Err(error) => Err(format!("--disk {text}: {error}")),
        },
    }
}

/// A file that can't be written must not come to light after hours of running.
fn check_output(option: &str, path: &Path) -> Result<(), String> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    if path.is_dir() {
        return Err(format!("{option} {}: this is a folder", path.display()));
    }
    if !parent.is_dir() {
        return Err(format!(
            "{option} {}: there is no folder {}: make it first",
            path.display(),
            parent.display()
        ));
    }
    try_to_write(path).map_err(|error| {
        format!(
            "{option} {}: can't be written: {error}: give another path",
            path.display()
        )
    })
}

/// Leaves a file that is there as it is, and none that is not. What is neither (a pipe, a
/// terminal) is not touched.
fn try_to_write(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(about) if about.is_file() => File::options().write(true).open(path).map(drop),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // A link that leads nowhere is not a name to try.
            if fs::symlink_metadata(path).is_ok() {
                return Ok(());
            }
            File::create_new(path)?;
            fs::remove_file(path)
        }
        Err(error) => Err(error),
    }
}

/// The machine at its first step, and where it will leave its signature.
fn power_on(
    args: &RunArgs,
    vm: &VmConfig,
    disks: &[OpenDisk],
) -> Result<(Machine, Option<Signature>), (u8, String)> {
    let bad = |error: &dyn std::fmt::Display| (BAD_INPUT, error.to_string());
    let config = machine_config(vm, disk_slots(disks).collect()).map_err(|error| bad(&error))?;
    let signature = match &args.signature {
        Some(path) => {
            check_output("--signature", path).map_err(|why| (BAD_INPUT, why))?;
            Some(Signature::find(path, vm, &config).map_err(|error| bad(&error))?)
        }
        None => None,
    };
    let drawn = draw().map_err(|error| (FAULT, error.to_string()))?;
    let machine = Machine::new(config, drawn).map_err(|error| bad(&blame(vm, error)))?;
    Ok((machine, signature))
}

/// What is drawn anew at each power-on.
fn draw() -> std::io::Result<PowerOn> {
    let mut rng_seed = [0; 32];
    fill_random(&mut rng_seed)?;
    Ok(PowerOn {
        rng_seed,
        rtc_base_ns: wall_ns(),
    })
}

/// Plugs each network card in.
fn plug(vm: &VmConfig) -> Result<Vec<Wire>, PortError> {
    let wires = (0..).zip(&vm.nets).map(|(slot, net)| {
        let (frames_in, frames) = bounded(FRAME_QUEUE);
        let address = net.backend.clone();
        let port = Port::open(&address, frames_in)?;
        Ok(Wire {
            slot,
            address,
            port,
            frames,
        })
    });
    wires.collect()
}
