//! A whole Debian from power-on to its login, in turns.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::compare::Compared;
use super::guests::{Guest, Kind, Spec, Wire};
use super::netns::tool;
use super::report::{Row, Section};
use super::{Bench, say};
use crate::demo::error::DemoError;
use twinvm_config::{Disk, VmConfig};

/// All services start: half a minute on a quiet host.
const BOOT_LIMIT: Duration = Duration::from_secs(600);
/// A gigabyte is copied.
const COPY_LIMIT: Duration = Duration::from_secs(300);
/// Most rounds: each takes minutes.
const MAX_ROUNDS: u32 = 3;
/// What the guest prints when all its services have been started.
const UP: &str = "twinvm: guest is up";
/// What it asks on its console.
pub(crate) const LOGIN: &str = "login:";
const CPU: &str = "CPU";
const RATIO: &str = "CPU ÷ QEMU's";

/// Boots both kinds of guest; nothing without an image.
pub(crate) fn measure(bench: &Bench) -> Result<Vec<Section>, DemoError> {
    let Some(image) = &bench.debian else {
        say("debian     not measured: no --debian DIR with the Debian image");
        return Ok(Vec::new());
    };
    let rounds = bench.runs.min(MAX_ROUNDS);
    let kinds = [bench.against.kind(), Kind::Record];
    let mut rows = kinds.map(|kind| Row::new(kind.name()));
    for round in 0..rounds {
        for step in 0..kinds.len() {
            let index = (round as usize + step) % kinds.len();
            let (kind, row) = (kinds[index], &mut rows[index]);
            let disk = DiskCopy::make(bench, image, kind)?;
            let spec = spec(image, &disk, Wire::User)?;
            let mut guest = Guest::power_on(bench, kind, &spec)?;
            let up = await_login(bench, &mut guest, kind)?;
            say(&format!(
                "debian {:>2}/{rounds:<2}{:<20} {:.2} s of processor time, {:.2} s by the clock",
                round + 1,
                kind.name(),
                up.cpu_s,
                up.wall_s
            ));
            row.sample(CPU, "s", up.cpu_s);
            row.sample("clock", "s", up.wall_s);
            let ended = guest.finish()?;
            if let Some(steps) = ended.steps {
                row.sample("steps", "G", steps.icount as f64 / 1e9);
                row.sample("MIPS", "", steps.mips);
            }
            if let Some(bytes) = ended.log_bytes {
                row.sample("log", "MB", bytes as f64 / 1e6);
            }
        }
    }
    let [qemu, mut ours] = rows;
    ours.compare(CPU, RATIO, &qemu);
    let mut compared = Compared::new("boot of Debian to its login");
    compared.ours_cpu_s = ours.samples(CPU).to_vec();
    compared.other_cpu_s = qemu.samples(CPU).to_vec();
    let speed = compared.note(&qemu.name);
    Ok(vec![Section {
        name: "debian".to_owned(),
        title: "a whole Debian from power-on to its login, all services started".to_owned(),
        rows: vec![qemu, ours],
        bars: Vec::new(),
        notes: speed
            .into_iter()
            .chain([
                "Each boot is the first of a fresh copy of the disk, on which the guest makes its \
             keys and its id. The same kernel, initrd, command line, memory and one hart."
                    .to_owned(),
            ])
            .collect(),
        compared: vec![compared],
    }])
}

/// Waits until somebody can log in and all services have been started.
pub(crate) fn await_login(
    bench: &Bench,
    guest: &mut Guest,
    kind: Kind,
) -> Result<super::guests::Up, DemoError> {
    let what = format!("the Debian guest of {} is up", kind.name());
    guest.await_up(bench, &what, BOOT_LIMIT, |console, _| {
        console.contains(UP) && console.contains(LOGIN)
    })
}

/// The image's machine with that disk.
pub(crate) fn spec(image: &Path, disk: &DiskCopy, wire: Wire) -> Result<Spec, DemoError> {
    let vm = load(image)?;
    let file = |path: Option<PathBuf>, what: &str| {
        path.ok_or_else(|| bad(image, &format!("its VM.toml names no {what}")))
    };
    Ok(Spec {
        kernel: file(vm.kernel, "kernel")?,
        initrd: file(vm.initrd, "initrd")?,
        cmdline: wire.cmdline(&vm.cmdline),
        memory_mib: vm.memory_bytes >> 20,
        disk: Some(disk.0.clone()),
        wire,
    })
}

fn bad(image: &Path, why: &str) -> DemoError {
    DemoError::Input(format!(
        "--debian {}: {why}: expected the folder that `twinvm image build debian` makes",
        image.display()
    ))
}

/// The folder's absolute path, once its VM.toml has been understood.
pub(crate) fn check(image: &Path) -> Result<PathBuf, DemoError> {
    load(image)?;
    image.canonicalize().map_err(DemoError::io(image))
}

fn load(image: &Path) -> Result<VmConfig, DemoError> {
    VmConfig::load(&image.join("VM.toml")).map_err(|error| bad(image, &error.to_string()))
}

/// A copy of the image's disk, removed with this value.
pub(crate) struct DiskCopy(pub(crate) PathBuf);

impl DiskCopy {
    /// Copies what is not empty of it.
    pub(crate) fn make(bench: &Bench, image: &Path, kind: Kind) -> Result<Self, DemoError> {
        let [Disk::File { path, .. }] = &load(image)?.disks[..] else {
            return Err(bad(image, "its VM.toml doesn't name exactly one disk file"));
        };
        let copy = Self(bench.dir.join(match kind {
            Kind::Qemu | Kind::QemuRr => "qemu.disk",
            Kind::Run | Kind::Record => "run.disk",
        }));
        let mut cp = Command::new("cp");
        cp.args(["--sparse=always", "--reflink=auto"]);
        tool(bench, cp.arg(path).arg(&copy.0), COPY_LIMIT)?;
        Ok(copy)
    }
}

impl Drop for DiskCopy {
    fn drop(&mut self) {
        // What is left is overwritten by the next copy.
        let _ = fs::remove_file(&self.0);
    }
}
