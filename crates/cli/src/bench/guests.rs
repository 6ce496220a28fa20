//! Single guests, ours and QEMU's, started the same way and watched the same way.

use std::fs;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use serde::Deserialize;
use twinvm_log::{LOG_FILE, SNAPSHOT_FILE};

use super::Bench;
use super::machine::cpu_s;
use crate::demo::client::ping;
use crate::demo::error::DemoError;
use crate::demo::processes::{Process, read_end};
use crate::demo::vm::{
    CONSOLE_BYTES, GUEST, READY, absolute, free_channels, parse_forward, quoted,
};

/// The switch only has to bind its sockets.
pub(crate) const LAN_LIMIT: Duration = Duration::from_secs(10);
/// The guest boots: some seconds on a fast host, more on a busy one.
pub(crate) const BOOT_LIMIT: Duration = Duration::from_secs(240);
/// How long one question to the guest's Redis may take while it starts.
pub(crate) const PING_LIMIT: Duration = Duration::from_secs(2);
/// A run that is asked to end writes its report first.
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// What runs a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// QEMU with its user-mode network.
    Qemu,
    /// `twinvm run`.
    Run,
    /// `twinvm run --record`.
    Record,
}

impl Kind {
    /// The row's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Qemu => "QEMU",
            Self::Run => "twinvm run",
            Self::Record => "twinvm run --record",
        }
    }

    fn folder(self) -> &'static str {
        match self {
            Self::Qemu => "qemu",
            Self::Run => "run",
            Self::Record => "record",
        }
    }
}

/// A guest that runs. It ends, at the latest, when this value does.
pub(crate) struct Guest {
    kind: Kind,
    /// Ends before the switch it is plugged into.
    process: Process,
    /// What is written here is typed on the guest's console.
    stdin: Option<ChildStdin>,
    lan: Option<Process>,
    address: SocketAddr,
    began: Instant,
    files: Files,
}

/// What was measured up to the first PONG.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Up {
    /// Since the process was started.
    pub(crate) wall_s: f64,
    /// Of the process, all threads.
    pub(crate) cpu_s: f64,
}

/// What a run's own report says.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) struct Steps {
    /// Since power-on.
    pub(crate) icount: u64,
    /// Million steps for each second of processor time.
    pub(crate) mips: f64,
}

/// How a guest ended.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Ended {
    /// Of our own runs.
    pub(crate) steps: Option<Steps>,
    /// Of the recording, if one was made.
    pub(crate) log_bytes: Option<u64>,
}

/// The files of one guest.
struct Files(PathBuf);

impl Files {
    /// Removes what an earlier guest has left; nothing else in the folder is touched.
    fn new(folder: PathBuf) -> Result<Self, DemoError> {
        fs::create_dir_all(&folder).map_err(DemoError::io(&folder))?;
        let files = Self(folder);
        for name in [
            "console.log",
            "process.log",
            "lan.log",
            "lan.sock",
            "report.json",
        ] {
            files.remove(&files.0.join(name))?;
        }
        files.remove_recording()?;
        Ok(files)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn recording(&self) -> PathBuf {
        self.0.join("recording")
    }

    /// A recording holds the whole of the guest's RAM.
    fn remove_recording(&self) -> Result<(), DemoError> {
        for name in [LOG_FILE, SNAPSHOT_FILE] {
            self.remove(&self.recording().join(name))?;
        }
        Ok(())
    }

    fn remove(&self, path: &Path) -> Result<(), DemoError> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(DemoError::io(path)(error))
            }
            _ => Ok(()),
        }
    }
}

impl Guest {
    /// Powers a guest on.
    pub(crate) fn start(bench: &Bench, kind: Kind) -> Result<Self, DemoError> {
        let files = Files::new(bench.dir.join(kind.folder()))?;
        match kind {
            Kind::Qemu => Self::start_qemu(bench, files),
            Kind::Run | Kind::Record => Self::start_ours(bench, kind, files),
        }
    }

    fn start_qemu(bench: &Bench, files: Files) -> Result<Self, DemoError> {
        let [address, _] = free_channels()?;
        let (_, guest_port) = GUEST.split_once(':').unwrap_or((GUEST, "6379"));
        let mut command = Command::new(&bench.qemu);
        command.args([
            "-M", "virt", "-m", "256M", "-display", "none", "-monitor", "none",
        ]);
        command
            .arg("-serial")
            .arg(format!("file:{}", files.path("console.log").display()));
        command
            .args(["-bios", "default", "-kernel"])
            .arg(&bench.image.kernel);
        command.arg("-initrd").arg(&bench.image.initrd);
        command.args(["-append", &bench.image.cmdline]);
        command.args(["-global", "virtio-mmio.force-legacy=false"]);
        command.arg("-netdev").arg(format!(
            "user,id=net,hostfwd=tcp:{}:{}-:{guest_port}",
            address.ip(),
            address.port()
        ));
        command.args(["-device", "virtio-net-device,netdev=net"]);
        command.args(["-device", "virtio-rng-device"]);
        let began = Instant::now();
        Ok(Self {
            kind: Kind::Qemu,
            stdin: None,
            process: Process::start("QEMU", &mut command, &files.path("process.log"))?,
            lan: None,
            address,
            began,
            files,
        })
    }

    fn start_ours(bench: &Bench, kind: Kind, files: Files) -> Result<Self, DemoError> {
        let toml = files.path("VM.toml");
        let socket = files.path("lan.sock");
        fs::write(&toml, vm_toml(bench, &socket)?).map_err(DemoError::io(&toml))?;
        let (lan, address) = start_lan(bench, &socket, &files.path("lan.log"))?;
        let mut command = Command::new(&bench.program);
        command.arg("run").arg(&toml);
        command.arg("--report").arg(files.path("report.json"));
        if kind == Kind::Record {
            command.arg("--record").arg(files.recording());
        }
        let began = Instant::now();
        let log = files.path("console.log");
        let mut process = Process::start_reading(kind.name(), &mut command, &log, Stdio::piped())?;
        Ok(Self {
            kind,
            stdin: process.take_stdin(),
            process,
            lan: Some(lan),
            address,
            began,
            files,
        })
    }

    /// Waits until the guest says that its Redis answers, and until it does.
    pub(crate) fn await_pong(&mut self, bench: &Bench) -> Result<Up, DemoError> {
        let console = self.files.path("console.log");
        let what = format!("Redis answers in the guest of {}", self.kind.name());
        bench.wait_for(&what, BOOT_LIMIT, &console, || {
            self.check()?;
            let says_ready =
                read_end(&console, CONSOLE_BYTES).is_ok_and(|text| text.contains(READY));
            if !says_ready || !ping(self.address, PING_LIMIT) {
                return Ok(None);
            }
            Ok(Some(Up {
                wall_s: self.began.elapsed().as_secs_f64(),
                cpu_s: self.cpu_s()?,
            }))
        })
    }

    /// Processor time so far, without the switch's.
    pub(crate) fn cpu_s(&self) -> Result<f64, DemoError> {
        cpu_s(self.process.pid())
    }

    /// Types a line on the console of one of our own guests.
    pub(crate) fn type_line(&mut self, line: &str) -> Result<(), DemoError> {
        let Some(stdin) = &mut self.stdin else {
            return Err(DemoError::failed("this guest has no console to type on"));
        };
        stdin
            .write_all(line.as_bytes())
            .and_then(|()| stdin.flush())
            .map_err(|error| DemoError::failed(format!("the guest's console: {error}")))
    }

    /// Where its Redis answers.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// An error if one of the processes has ended by itself.
    pub(crate) fn check(&mut self) -> Result<(), DemoError> {
        self.process.check()?;
        self.lan.iter_mut().try_for_each(Process::check)
    }

    /// Ends the guest; what its run has to say.
    pub(crate) fn finish(mut self) -> Result<Ended, DemoError> {
        self.process.terminate();
        let ended = self.process.wait(Instant::now() + STOP_LIMIT);
        if self.kind == Kind::Qemu {
            return Ok(Ended::default());
        }
        let path = self.files.path("report.json");
        if !ended {
            let what = format!("{} doesn't end", self.kind.name());
            return Err(DemoError::failed_see(what, self.process.log()));
        }
        let report = fs::read_to_string(&path).map_err(DemoError::io(&path))?;
        let steps = serde_json::from_str(&report)
            .map_err(|error| DemoError::failed(format!("{}: {error}", path.display())))?;
        let log_bytes = match self.kind {
            Kind::Record => {
                let log = self.files.recording().join(LOG_FILE);
                let about = fs::metadata(&log).map_err(DemoError::io(&log))?;
                self.files.remove_recording()?;
                Some(about.len())
            }
            _ => None,
        };
        Ok(Ended {
            steps: Some(steps),
            log_bytes,
        })
    }
}

/// The same machine as QEMU's.
fn vm_toml(bench: &Bench, socket: &Path) -> Result<String, DemoError> {
    let utf8 = |path: &Path| match path.to_str() {
        Some(text) => Ok(text.to_owned()),
        None => Err(DemoError::Input(format!(
            "--dir {}: a VM.toml is UTF-8, so the path must be too",
            path.display()
        ))),
    };
    Ok(format!(
        "# Written by `twinvm bench`.\n\
         name = \"bench\"\n\
         memory = \"256M\"\n\
         harts = 1\n\
         kernel = {}\n\
         initrd = {}\n\
         cmdline = {}\n\
         \n\
         [[net]]\n\
         mac = \"52:54:00:12:34:56\"\n\
         backend = {}\n",
        quoted(&absolute(&bench.image.kernel)?),
        quoted(&absolute(&bench.image.initrd)?),
        quoted(&bench.image.cmdline),
        quoted(&format!("lan:{}", utf8(socket)?)),
    ))
}

fn start_lan(bench: &Bench, socket: &Path, log: &Path) -> Result<(Process, SocketAddr), DemoError> {
    let mut command = Command::new(&bench.program);
    command.arg("lan").arg("--listen").arg(socket);
    command.arg("--forward").arg(format!("127.0.0.1:0={GUEST}"));
    let mut lan = Process::start("the switch (twinvm lan)", &mut command, log)?;
    let address = bench.wait_for("the switch listens", LAN_LIMIT, log, || {
        lan.check()?;
        let text = read_end(log, CONSOLE_BYTES).unwrap_or_default();
        Ok(parse_forward(&text))
    })?;
    Ok((lan, address))
}
