//! Single guests, ours and QEMU's, started the same way and watched the same way.

use std::fs;
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde::Deserialize;
use twinvm_log::{LOG_FILE, SNAPSHOT_FILE, STATES_FILE};

use super::machine::{cpu_s, peak_rss_bytes};
use super::{Bench, qemu};
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
/// What QEMU writes down for a repetition, in its own format.
const RR_FILE: &str = "rr.bin";
/// A run that is asked to end writes its report first.
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// What runs a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// QEMU.
    Qemu,
    /// QEMU that writes down what it would need to repeat the run.
    QemuRr,
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
            Self::QemuRr => "QEMU rr=record",
            Self::Run => "twinvm run",
            Self::Record => "twinvm run --record",
        }
    }

    /// It is the yardstick.
    pub(crate) fn is_qemu(self) -> bool {
        matches!(self, Self::Qemu | Self::QemuRr)
    }

    fn folder(self) -> &'static str {
        match self {
            Self::Qemu | Self::QemuRr => "qemu",
            Self::Run => "run",
            Self::Record => "record",
        }
    }
}

/// Where a guest's network card leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wire {
    /// QEMU's user-mode network or `twinvm lan`: needs no rights.
    User,
    /// A TAP interface of the network namespace that this process is in.
    Tap(Tap),
}

/// A TAP interface with a network of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tap {
    /// The interface.
    pub(crate) name: &'static str,
    /// The host's address there.
    pub(crate) host: Ipv4Addr,
    /// The guest's.
    pub(crate) guest: Ipv4Addr,
}

/// What a guest is made of. Both kinds of machine are given the same.
#[derive(Debug, Clone)]
pub(crate) struct Spec {
    pub(crate) kernel: PathBuf,
    pub(crate) initrd: PathBuf,
    pub(crate) cmdline: String,
    /// Whole MiB.
    pub(crate) memory_mib: u64,
    pub(crate) disk: Option<PathBuf>,
    pub(crate) wire: Wire,
}

impl Spec {
    /// The Redis image, with its network card on `wire`.
    pub(crate) fn redis(bench: &Bench, wire: Wire) -> Result<Self, DemoError> {
        let image = bench.image()?;
        Ok(Self {
            kernel: image.kernel.clone(),
            initrd: image.initrd.clone(),
            cmdline: wire.cmdline(&image.cmdline),
            memory_mib: 256,
            disk: None,
            wire,
        })
    }
}

impl Wire {
    /// A guest's command line with the addresses of this wire's network.
    pub(crate) fn cmdline(self, cmdline: &str) -> String {
        let Self::Tap(tap) = self else {
            return cmdline.to_owned();
        };
        let others = cmdline
            .split(' ')
            .filter(|word| !word.starts_with("ADDR=") && !word.starts_with("GW="));
        let own = [format!("ADDR={}/24", tap.guest), format!("GW={}", tap.host)];
        let words: Vec<&str> = others.chain(own.iter().map(String::as_str)).collect();
        words.join(" ")
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
    /// Of the process, when the run had ended.
    pub(crate) peak_rss_bytes: Option<u64>,
    /// Pages of RAM that are not zero.
    pub(crate) ram_touched_bytes: u64,
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
        for name in ["console.log", "lan.log", "lan.sock", "report.json", RR_FILE] {
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
        for name in [LOG_FILE, SNAPSHOT_FILE, STATES_FILE] {
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
    /// Powers a guest of the Redis image on.
    pub(crate) fn start(bench: &Bench, kind: Kind) -> Result<Self, DemoError> {
        Self::power_on(bench, kind, &Spec::redis(bench, Wire::User)?)
    }

    /// Powers a guest on.
    pub(crate) fn power_on(bench: &Bench, kind: Kind, spec: &Spec) -> Result<Self, DemoError> {
        let files = Files::new(bench.dir.join(kind.folder()))?;
        let (_, guest_port) = GUEST.split_once(':').unwrap_or((GUEST, "6379"));
        let guest_port: u16 = guest_port.parse().unwrap_or(6379);
        let (lan, address) = match (spec.wire, kind) {
            (Wire::Tap(tap), _) => (None, SocketAddr::from((tap.guest, guest_port))),
            (Wire::User, Kind::Qemu | Kind::QemuRr) => (None, free_channels()?[0]),
            (Wire::User, _) => {
                let socket = files.path("lan.sock");
                let (lan, address) = start_lan(bench, &socket, &files.path("lan.log"))?;
                (Some(lan), address)
            }
        };
        let mut command = match kind {
            Kind::Qemu => qemu::command(&bench.qemu, spec, address, guest_port, None),
            Kind::QemuRr => {
                let rr = files.path(RR_FILE);
                qemu::command(&bench.qemu, spec, address, guest_port, Some(&rr))
            }
            Kind::Run | Kind::Record => ours(bench, kind, spec, &files)?,
        };
        let began = Instant::now();
        let log = files.path("console.log");
        let mut process = Process::start_reading(kind.name(), &mut command, &log, Stdio::piped())?;
        Ok(Self {
            kind,
            stdin: process.take_stdin(),
            process,
            lan,
            address,
            began,
            files,
        })
    }

    /// Waits until the guest says that its Redis answers, and until it does.
    pub(crate) fn await_pong(&mut self, bench: &Bench) -> Result<Up, DemoError> {
        let what = format!("Redis answers in the guest of {}", self.kind.name());
        self.await_up(bench, &what, BOOT_LIMIT, |console, address| {
            console.contains(READY) && ping(address, PING_LIMIT)
        })
    }

    /// Waits until `is_up` says so of the end of the console and of the guest's address.
    pub(crate) fn await_up(
        &mut self,
        bench: &Bench,
        what: &str,
        limit: Duration,
        is_up: impl Fn(&str, SocketAddr) -> bool,
    ) -> Result<Up, DemoError> {
        let address = self.address;
        self.await_console(bench, what, limit, |console| {
            is_up(console, address).then_some(())
        })?;
        Ok(Up {
            wall_s: self.began.elapsed().as_secs_f64(),
            cpu_s: self.cpu_s()?,
        })
    }

    /// Waits until `look` finds something at the end of the console.
    pub(crate) fn await_console<T>(
        &mut self,
        bench: &Bench,
        what: &str,
        limit: Duration,
        mut look: impl FnMut(&str) -> Option<T>,
    ) -> Result<T, DemoError> {
        let console = self.console_log();
        bench.wait_for(what, limit, &console, || {
            self.check()?;
            let text = read_end(&console, CONSOLE_BYTES).unwrap_or_default();
            Ok(look(&text))
        })
    }

    /// The most memory the process has had in RAM so far.
    pub(crate) fn peak_rss_bytes(&self) -> Result<u64, DemoError> {
        peak_rss_bytes(self.process.pid())
    }

    /// Bytes of log that the recording holds so far.
    pub(crate) fn log_bytes(&self) -> Result<u64, DemoError> {
        let log = self.files.recording().join(LOG_FILE);
        Ok(fs::metadata(&log).map_err(DemoError::io(&log))?.len())
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Processor time so far, without the switch's.
    pub(crate) fn cpu_s(&self) -> Result<f64, DemoError> {
        cpu_s(self.process.pid())
    }

    /// Has it do nothing until [`Self::go_on`].
    pub(crate) fn stand_still(&mut self) {
        self.process.signal(Signal::STOP);
    }

    /// Has it do what it does.
    pub(crate) fn go_on(&mut self) {
        self.process.signal(Signal::CONT);
    }

    /// Types a line on the guest's console.
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

    /// What it has printed, and its process.
    pub(crate) fn console_log(&self) -> PathBuf {
        self.files.path("console.log")
    }

    /// How much that is.
    pub(crate) fn console_bytes(&self) -> Result<u64, DemoError> {
        let log = self.console_log();
        Ok(fs::metadata(&log).map_err(DemoError::io(&log))?.len())
    }

    /// What runs it.
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// Ends the guest; what its run has to say.
    pub(crate) fn finish(self) -> Result<Ended, DemoError> {
        self.finish_reading(|_| Ok(()))
    }

    /// Ends the guest; `read` gets the log of its recording, if one was made, before that goes.
    pub(crate) fn finish_reading(
        mut self,
        read: impl FnOnce(&Path) -> Result<(), DemoError>,
    ) -> Result<Ended, DemoError> {
        self.process.terminate();
        let ended = self.process.wait(Instant::now() + STOP_LIMIT);
        if self.kind.is_qemu() {
            self.files.remove(&self.files.path(RR_FILE))?;
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
                let bytes = self.log_bytes()?;
                read(&self.files.recording().join(LOG_FILE))?;
                self.files.remove_recording()?;
                Some(bytes)
            }
            _ => None,
        };
        Ok(Ended {
            steps: Some(steps),
            log_bytes,
        })
    }
}

/// `twinvm run` of the same machine.
fn ours(bench: &Bench, kind: Kind, spec: &Spec, files: &Files) -> Result<Command, DemoError> {
    let backend = match spec.wire {
        Wire::User => {
            let socket = files.path("lan.sock");
            let socket = socket.to_str().ok_or_else(|| {
                DemoError::Input(format!(
                    "--dir {}: a VM.toml is UTF-8, so the path must be too",
                    socket.display()
                ))
            })?;
            format!("lan:{socket}")
        }
        Wire::Tap(tap) => format!("tap:{}", tap.name),
    };
    let text = format!(
        "# Written by `twinvm bench`.\n\
         name = \"bench\"\n\
         memory = \"{}M\"\n\
         harts = 1\n\
         kernel = {}\n\
         initrd = {}\n\
         cmdline = {}\n\
         \n\
         [[net]]\n\
         mac = \"52:54:00:12:34:56\"\n\
         backend = {}\n",
        spec.memory_mib,
        quoted(&absolute(&spec.kernel)?),
        quoted(&absolute(&spec.initrd)?),
        quoted(&spec.cmdline),
        quoted(&backend),
    );
    let toml = files.path("VM.toml");
    fs::write(&toml, text).map_err(DemoError::io(&toml))?;
    let mut command = bench.run_command();
    command.arg(&toml);
    if let Some(disk) = &spec.disk {
        command.arg("--disk").arg(disk);
    }
    command.arg("--report").arg(files.path("report.json"));
    if kind == Kind::Record {
        command.arg("--record").arg(files.recording());
    }
    Ok(command)
}

fn start_lan(bench: &Bench, socket: &Path, log: &Path) -> Result<(Process, SocketAddr), DemoError> {
    let mut command = Command::new(&bench.program);
    command.arg("lan").arg("--listen").arg(socket);
    command.arg("--forward").arg(format!("127.0.0.1:0={GUEST}"));
    let mut lan = Process::start("the switch (twinvm lan)", &mut command, log)?;
    let address = bench.wait_for("the switch listens", LAN_LIMIT, log, || {
        lan.check()?;
        let text = read_end(log, CONSOLE_BYTES).unwrap_or_default();
        Ok(parse_forward(&text, GUEST))
    })?;
    Ok((lan, address))
}
