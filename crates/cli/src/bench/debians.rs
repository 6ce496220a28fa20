//! A whole Debian on a disk, three times: QEMU's, a pair of ours that is alone or protected, in turns,
//! and a neighbour of that, which nobody protects and which does the same work while the pair's VM
//! does it alone. All on TAP: the pair's nodes on hosts of their own (network namespaces) with TLS
//! between them, the others beside the client.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{ChildStdin, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use std::io::Write as _;

use super::debian::{DiskCopy, await_login, spec};
use super::guests::{Guest, Kind, Tap, Wire};
use super::machine::cpu_s;
use super::report::{Row, Section};
use super::{Bench, join, netns, say};
use crate::demo::error::DemoError;
use crate::demo::processes::{Process, read_end};
use crate::demo::sessions::{keep_to_ourselves, make_key};
use crate::lab::pair::{Pair, Parts};

/// The rows: the yardstick first.
pub(super) const ROWS: [&str; 4] = ["QEMU", "alone", "beside a neighbour", "protected"];
pub(super) const QEMU: usize = 0;
pub(super) const ALONE: usize = 1;
pub(super) const BESIDE: usize = 2;
pub(super) const PROTECTED: usize = 3;
/// Not a row: the neighbour itself.
pub(super) const NEIGHBOUR: usize = ROWS.len();
/// QEMU's own network, beside the pair's.
const QEMU_TAP: Tap = Tap {
    name: "bench-qemu",
    host: Ipv4Addr::new(10, 0, 3, 2),
    guest: Ipv4Addr::new(10, 0, 3, 15),
};
const NEIGHBOUR_TAP: Tap = Tap {
    name: "bench-beside",
    host: Ipv4Addr::new(10, 0, 4, 2),
    guest: Ipv4Addr::new(10, 0, 4, 15),
};
/// Services start on a busy host; a disk goes over.
const LIMIT: Duration = Duration::from_secs(600);
/// A command in a guest.
const COMMAND_LIMIT: Duration = Duration::from_secs(300);
/// After a change of state the nodes have other things to do.
const SETTLE: Duration = Duration::from_millis(1500);
/// What a command prints is at the end of a shell's log.
const LOG_BYTES: u64 = 256 << 10;
const UP: &str = "twinvm: guest is up";
const SUSPECT_MS: u64 = 300;

/// Measures in namespaces of its own, or says why it can't.
pub(super) fn measure(
    bench: &Bench,
    (name, title): (&'static str, &str),
    inside: impl Fn(&Bench) -> Result<Vec<Section>, DemoError>,
) -> Result<Vec<Section>, DemoError> {
    if bench.in_namespace {
        netns::end_with_parent()?;
        return inside(bench);
    }
    if bench.debian.is_none() {
        say(&format!(
            "{name:<11}not measured: no --debian DIR with the Debian image"
        ));
        return Ok(Vec::new());
    }
    say(&format!("{name:<11}on hosts that are network namespaces"));
    match netns::bench_on_hosts(bench, &[name])? {
        Ok(sections) => Ok(sections),
        Err(why) => {
            say(&format!("{name:<11}not measured: {why}"));
            Ok(vec![Section::skipped(name, title, &why)])
        }
    }
}

/// How the first protection came about, or a later one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Join {
    /// From the start of the joining node.
    pub(super) seconds: f64,
    /// The guest stood still for it.
    pub(super) pause_ms: Option<f64>,
}

/// All machines.
pub(super) struct Debians<'a> {
    bench: &'a Bench,
    name: &'static str,
    qemu: Guest,
    neighbour: Guest,
    /// They go after the guests.
    _disks: [DiskCopy; 2],
    pub(super) pair: Pair,
    live: usize,
    key: PathBuf,
}

impl<'a> Debians<'a> {
    /// Boots all; nobody protects ours yet.
    pub(super) fn start(bench: &'a Bench, name: &'static str) -> Result<Self, DemoError> {
        let image = bench.debian.as_ref();
        let image = image.ok_or_else(|| DemoError::failed("no Debian image"))?;
        let key = bench.dir.join("ssh_key");
        let public = make_key(&key)?;
        let disk = DiskCopy::make(bench, image, Kind::Qemu)?;
        let own_disk = DiskCopy::make(bench, image, Kind::Run)?;
        let dir = bench.dir.join("lab");
        match fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(DemoError::io(&dir)(error));
            }
            _ => fs::create_dir_all(&dir).map_err(DemoError::io(&dir))?,
        }
        let with_key = |cmdline: &str| {
            format!("{cmdline} systemd.set_credential_binary=ssh.authorized_keys.root:{public}")
        };
        let ours = spec(image, &disk, Wire::User)?;
        let pair = Pair::new(Parts {
            program: bench.program.clone(),
            dir: dir.clone(),
            kernel: ours.kernel,
            initrd: ours.initrd,
            cmdline: with_key(&ours.cmdline),
            memory: format!("{}M", ours.memory_mib),
            disk: Some(disk.0.clone()),
            ready: UP,
            output: twinvm_protocol::OutputFrom::Live,
            delay: Duration::ZERO,
            pinned: false,
            suspect_ms: SUSPECT_MS,
        })?;
        netns::settle(bench, &[QEMU_TAP, NEIGHBOUR_TAP])?;
        say(&format!(
            "{name:<11}Debian boots, QEMU's, ours and its neighbour"
        ));
        let boot = |kind, disk, tap| {
            let mut vm = spec(image, disk, Wire::Tap(tap))?;
            vm.cmdline = with_key(&vm.cmdline);
            let mut guest = Guest::power_on(bench, kind, &vm)?;
            await_login(bench, &mut guest, kind)?;
            Ok::<_, DemoError>(guest)
        };
        let mut debians = Self {
            bench,
            name,
            pair,
            live: 0,
            key,
            qemu: boot(Kind::Qemu, &disk, QEMU_TAP)?,
            neighbour: boot(Kind::Run, &own_disk, NEIGHBOUR_TAP)?,
            _disks: [disk, own_disk],
        };
        debians.pair.start_arbiter()?;
        debians.pair.start_node(0)?;
        debians.pair.await_ready(LIMIT)?;
        Ok(debians)
    }

    /// Does something while the other guests stand still: even idle ones take their part of the
    /// cores.
    pub(super) fn without_others<T>(
        &mut self,
        what: impl FnOnce(&mut Self) -> Result<T, DemoError>,
    ) -> Result<T, DemoError> {
        self.qemu.stand_still();
        self.neighbour.stand_still();
        let done = what(self);
        self.neighbour.go_on();
        self.qemu.go_on();
        done
    }

    /// Inside [`Self::without_others`]: the neighbour alone runs again.
    pub(super) fn neighbour_goes_on(&mut self) {
        self.neighbour.go_on();
    }

    /// The end of that.
    pub(super) fn neighbour_stands_still(&mut self) {
        self.neighbour.stand_still();
    }

    /// Where a row's guest is, or the neighbour.
    pub(super) fn address(&self, row: usize, port: u16) -> SocketAddr {
        let guest = match row {
            QEMU => QEMU_TAP.guest,
            NEIGHBOUR => NEIGHBOUR_TAP.guest,
            _ => crate::lab::hosts::GUEST,
        };
        SocketAddr::from((guest, port))
    }

    /// Processor time so far of what runs a row's guest; of a pair, of the live node.
    pub(super) fn cpu_s(&self, row: usize) -> Result<f64, DemoError> {
        match row {
            QEMU => self.qemu.cpu_s(),
            _ => {
                let pid = self.pair.pid(self.live);
                cpu_s(pid.ok_or_else(|| DemoError::failed("the live node doesn't run"))?)
            }
        }
    }

    /// Brings our VM into a row's state: alone or protected. How it was protected, if it wasn't.
    pub(super) fn become_(&mut self, row: usize) -> Result<Option<Join>, DemoError> {
        let (live, other) = (self.live, 1 - self.live);
        let mut join = None;
        if row == PROTECTED && self.pair.protected().is_none() {
            join = Some(self.join()?);
        } else if row != PROTECTED && self.pair.pid(other).is_some() {
            self.pair.kill(other);
            self.pair
                .wait_for("the live node is alone", LIMIT, |pair| {
                    let status = pair.status(live);
                    Ok(status.is_ok_and(|it| it["link"] == "solo").then_some(()))
                })?;
        }
        thread::sleep(SETTLE);
        self.bench.check()?;
        Ok(join)
    }

    /// Starts the other node and waits until it protects ours.
    pub(super) fn join(&mut self) -> Result<Join, DemoError> {
        let (live, other) = (self.live, 1 - self.live);
        let began = Instant::now();
        self.pair.start_node(other)?;
        let found = self.pair.await_protected(LIMIT)?;
        if found != live {
            return Err(DemoError::failed("the backup took over"));
        }
        let status = self.pair.status(live).map_err(DemoError::failed)?;
        Ok(Join {
            seconds: began.elapsed().as_secs_f64(),
            pause_ms: status["join_pause_us"].as_f64().map(|us| us / 1e3),
        })
    }

    /// Whether ours is protected now.
    pub(super) fn is_protected(&self) -> bool {
        self.pair.protected().is_some()
    }

    /// Bytes that the live node has sent so far for joining nodes' disks.
    pub(super) fn disk_bytes_sent(&self) -> Result<f64, DemoError> {
        let status = self.pair.status(self.live).map_err(DemoError::failed)?;
        let sent = status["disk_copies_bytes"]["sent"].as_f64();
        sent.ok_or_else(|| DemoError::failed("the status has no disk_copies_bytes"))
    }

    /// Bytes that the live node's disk takes of its host's.
    pub(super) fn disk_bytes_used(&self) -> Result<f64, DemoError> {
        let name = format!("disk-{}.img", crate::lab::pair::NAMES[self.live]);
        join::bytes_used(&self.pair.path(&name))
    }

    /// Calls `turn` for every row in every round, rows in turns that begin with another one each
    /// time.
    pub(super) fn in_turns(
        &mut self,
        mut turn: impl FnMut(&mut Self, usize, &mut Row) -> Result<(), DemoError>,
    ) -> Result<[Row; ROWS.len()], DemoError> {
        let mut rows = ROWS.map(Row::new);
        for round in 0..self.bench.runs {
            for step in 0..ROWS.len() {
                let row = (round as usize + step) % ROWS.len();
                if row != QEMU {
                    let join = self.become_(row)?;
                    if let Some(join) = join {
                        rows[row].sample("re-join", "s", join.seconds);
                        rows[row].sample("its pause", "ms", join.pause_ms.unwrap_or(f64::NAN));
                    }
                }
                turn(self, row, &mut rows[row])?;
                // What was measured counts only if nothing has changed.
                let protected = self.pair.protected().is_some();
                if row != QEMU && protected != (row == PROTECTED) {
                    let logs = self.pair.logs();
                    let what = format!("protected: {protected} at the end of a turn\n{logs}");
                    return Err(DemoError::failed(what));
                }
                say(&format!(
                    "{:<8}{:>2}/{:<3}{}",
                    self.name,
                    round + 1,
                    self.bench.runs,
                    ROWS[row]
                ));
            }
        }
        Ok(rows)
    }

    /// A shell in a row's guest, or in the neighbour.
    pub(super) fn shell(&self, row: usize) -> Result<Shell, DemoError> {
        let log = self.bench.dir.join(format!("shell-{row}.log"));
        match fs::remove_file(&log) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(DemoError::io(&log)(error));
            }
            _ => {}
        }
        let mut command = Command::new("ssh");
        keep_to_ourselves(&mut command, &self.key);
        command.arg(format!("root@{}", self.address(row, 22).ip()));
        command.arg("sh");
        let mut process = Process::start_reading("ssh", &mut command, &log, Stdio::piped())?;
        let stdin = process.take_stdin();
        Ok(Shell {
            stdin: stdin.ok_or_else(|| DemoError::failed("ssh has no input"))?,
            process,
            asked: 0,
        })
    }
}

/// A shell in a guest, over SSH.
pub(super) struct Shell {
    process: Process,
    stdin: ChildStdin,
    /// Of the last command.
    asked: u32,
}

impl Shell {
    /// Runs a command to its end, which must be a good one; what it printed.
    pub(super) fn run(&mut self, bench: &Bench, command: &str) -> Result<String, DemoError> {
        self.asked += 1;
        let (begin, end) = (
            format!("<begin:{}>", self.asked),
            format!("<end:{}:", self.asked),
        );
        let line = format!("echo '{begin}'; {command}; echo \"{end}$?>\"\n");
        let log = self.process.log().to_owned();
        let sent = self.stdin.write_all(line.as_bytes());
        sent.map_err(|error| DemoError::failed_see(format!("the guest's shell: {error}"), &log))?;
        let said = bench.wait_for(&format!("{command} ends"), COMMAND_LIMIT, &log, || {
            self.process.check()?;
            let text = read_end(&log, LOG_BYTES).unwrap_or_default();
            let inside = text.split_once(&begin).map(|(_, rest)| rest);
            let ended = inside.and_then(|rest| rest.split_once(&end));
            Ok(ended.and_then(|(said, rest)| {
                let status = rest.split_once('>')?.0.to_owned();
                Some((said.trim().to_owned(), status))
            }))
        })?;
        match said {
            (said, status) if status == "0" => Ok(said),
            (_, status) => {
                let what = format!("exit code {status} of: {command}");
                Err(DemoError::failed_see(what, &log))
            }
        }
    }
}
