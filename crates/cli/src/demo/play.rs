//! The demonstration's stages, one after the other, each with a deadline.

use std::fs;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use twinvm_image::{BuildOptions, BuiltImage, ImageKind, Terminal};

use super::debian::DebianLoad;
use super::error::DemoError;
use super::load::Load;
use super::redis::RedisLoad;
use super::report::{Kill, Report, Told, Work};
use super::rng::Rng;
use super::sessions::{self, Services};
use super::status::{Status, Takeover};
use super::svg::Chart;
use super::timeline::longest_gap;
use super::vm::{Files, GUEST, NODES, POSTGRES, Parts, SSH, Vm, WEB};
use super::{DemoArgs, GuestKind, client};

/// The switch only has to bind its sockets.
const LAN_LIMIT: Duration = Duration::from_secs(10);
/// Both nodes start, one wins the record.
const LIVE_LIMIT: Duration = Duration::from_secs(30);
/// The guest boots: some seconds on a fast host, more on a busy one.
const BOOT_LIMIT: Duration = Duration::from_secs(600);
/// A snapshot of the whole guest goes over, its disk too if it has one, and the backup catches up.
const PROTECT_LIMIT: Duration = Duration::from_secs(120);
const PROTECT_WITH_DISK_LIMIT: Duration = Duration::from_secs(600);
/// The first answer on a new connection.
const FIRST_ANSWER_LIMIT: Duration = Duration::from_secs(20);
/// The other node notices, takes over and answers: well under a second when all is well.
const TAKEOVER_LIMIT: Duration = Duration::from_secs(60);
/// How long one question to the guest's service may take while it starts.
const PING_LIMIT: Duration = Duration::from_secs(2);

/// How often a stage looks whether it is over.
const LOOK: Duration = Duration::from_millis(20);
/// The same where looking costs a question to a node or a read of a file.
const SLOW_LOOK: Duration = Duration::from_millis(100);

/// A kill comes at a random moment between these, counted from protection.
const KILL_AFTER: (Duration, Duration) = (Duration::from_millis(500), Duration::from_millis(3000));
/// The client counts this long without a fault before the first kill and after the last.
const QUIET: Duration = Duration::from_millis(1000);
/// How long the new live node runs alone before the killed one comes back.
const ALONE: Duration = Duration::from_millis(500);

/// Runs everything; true if every answer was right.
pub(crate) fn run(args: &DemoArgs) -> Result<bool, DemoError> {
    let seed = args.seed.unwrap_or_else(seed_of_the_clock);
    say(&format!(
        "demo       {} kills at moments drawn from --seed {seed}",
        args.kills
    ));
    let files = Files::new(&args.out())?;
    let _lock = files.claim()?;
    if args.guest == GuestKind::Debian {
        sessions::look_for_programs()?;
    }
    // A signal ends the making of an image at once; only from here on is there something to stop.
    let image = make_image(args.guest.image(), &args.image())?;
    announce_image(args.guest, &image, &args.image());
    let interrupted = watch_signals()?;
    let parts = match args.guest {
        GuestKind::Redis => Parts::redis(&image),
        GuestKind::Debian => {
            let disk_bytes = copy_disk(&files, &image)?;
            let key = sessions::make_key(&files.path(sessions::KEY))?;
            Parts::debian(&image, &key, disk_bytes)
        }
    };
    let mut demo = Demo {
        guest: args.guest,
        vm: Vm::start(files.clone(), &parts)?,
        load: None,
        interrupted,
        seed,
        rng: Rng::new(seed),
        kills: Vec::new(),
        work: Work::default(),
    };
    let outcome = demo.play(args.kills);
    demo.end(&files, (seed, args.kills), outcome)
}

/// A flag that a signal which asks for the end sets.
pub(crate) fn watch_signals() -> Result<Arc<AtomicBool>, DemoError> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted))
            .map_err(|error| DemoError::failed(format!("signals can't be watched: {error}")))?;
    }
    Ok(interrupted)
}

fn seed_of_the_clock() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    // Six digits are enough, and can be typed again.
    now.map_or(1, |now| now.as_micros() as u64 % 1_000_000)
}

/// Makes a guest's image, or verifies the one that is there.
pub(crate) fn make_image(kind: ImageKind, folder: &Path) -> Result<BuiltImage, DemoError> {
    let mut progress = Terminal::new();
    let image = twinvm_image::build_or_renew(kind, folder, &BuildOptions::default(), &mut progress);
    drop(progress);
    image.map_err(|error| DemoError::failed(format!("the guest's image: {error}")))
}

/// The first node's own copy of the image's disk; the other one gets its from there. How large.
fn copy_disk(files: &Files, image: &BuiltImage) -> Result<u64, DemoError> {
    let disk = image.disk.as_ref();
    let disk = disk.ok_or_else(|| DemoError::failed("the guest's image has no disk"))?;
    let mut cp = Command::new("cp");
    cp.args(["--sparse=always", "--reflink=auto"]);
    let status = cp.arg(disk).arg(files.disk(0)).status();
    match status {
        Ok(status) if status.success() => {
            let found = fs::metadata(disk).map_err(DemoError::io(disk))?;
            Ok(found.len())
        }
        Ok(status) => Err(DemoError::failed(format!("{cp:?}: {status}"))),
        Err(error) => Err(DemoError::failed(format!("{cp:?}: {error}"))),
    }
}

fn announce_image(guest: GuestKind, image: &BuiltImage, folder: &Path) {
    let how = if image.up_to_date {
        "verified"
    } else {
        "built"
    };
    say(&format!(
        "image      {} for riscv64, {how}: {}",
        guest.in_words(),
        folder.display()
    ));
}

/// A line on the terminal. A reader that has gone away is no reason to stop in the middle.
fn say(line: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// A demonstration under way.
struct Demo {
    guest: GuestKind,
    vm: Vm,
    load: Option<Box<dyn Load>>,
    interrupted: Arc<AtomicBool>,
    seed: u64,
    rng: Rng,
    kills: Vec<Kill>,
    work: Work,
}

impl Demo {
    fn play(&mut self, kills: u32) -> Result<(), DemoError> {
        let mut live = self.bring_up()?;
        let began = Instant::now();
        self.await_protection(live)?;
        let after = match self.guest {
            GuestKind::Redis => String::new(),
            GuestKind::Debian => format!(
                ", with a copy of the disk made in {:.1} s",
                began.elapsed().as_secs_f64()
            ),
        };
        say(&format!(
            "protected  node {} follows{after}",
            NODES[1 - live]
        ));
        self.start_clients()?;
        self.count_protected(QUIET, live)?;
        for number in 1..=kills {
            live = self.kill_and_recover(live, (number, kills))?;
        }
        self.count_protected(QUIET, live)
    }

    /// Starts the nodes and waits until the guest's service answers; gives the live node.
    fn bring_up(&mut self) -> Result<usize, DemoError> {
        let lan_log = self.vm.files.lan_log();
        let main = self.guest.service_address();
        let main = self.wait_for("the switch listens", LAN_LIMIT, LOOK, &lan_log, |demo| {
            demo.vm.forward(main)
        })?;
        let began = Instant::now();
        // Without a disk of its own the other node can only join.
        let joins_later = self.guest == GuestKind::Debian;
        self.start_node(0)?;
        if !joins_later {
            self.start_node(1)?;
        }
        let log = self.vm.files.node_log(0);
        let (live, _) = self.wait_for("a node is live", LIVE_LIMIT, SLOW_LOOK, &log, |demo| {
            demo.vm.live()
        })?;
        say(&format!("guest      boots on node {}", NODES[live]));
        let console = self.vm.files.console(live);
        self.wait_for("the guest is up", BOOT_LIMIT, SLOW_LOOK, &console, |demo| {
            (demo.vm.says_ready() && demo.service_answers()).then_some(())
        })?;
        say(&format!(
            "guest      is up after {:.1} s; its {} answers on {main}",
            began.elapsed().as_secs_f64(),
            self.guest.service()
        ));
        if joins_later {
            self.start_node(1)?;
        }
        Ok(live)
    }

    fn start_node(&mut self, node: usize) -> Result<(), DemoError> {
        let pid = self.vm.start_node(node)?;
        say(&format!("node {}     process {pid}", NODES[node]));
        Ok(())
    }

    fn service_answers(&self) -> bool {
        match self.guest {
            GuestKind::Redis => {
                let address = self.vm.forward(GUEST);
                address.is_some_and(|address| client::ping(address, PING_LIMIT))
            }
            GuestKind::Debian => {
                let services = self.services();
                services.is_ok_and(|services| DebianLoad::is_up(&services, PING_LIMIT))
            }
        }
    }

    /// Where the Debian guest's services answer.
    fn services(&self) -> Result<Services, DemoError> {
        Ok(Services {
            postgres: self.forward(POSTGRES)?,
            web: self.forward(WEB)?,
            ssh: self.forward(SSH)?,
        })
    }

    fn forward(&self, guest: &str) -> Result<SocketAddr, DemoError> {
        let forward = self.vm.forward(guest);
        forward.ok_or_else(|| DemoError::failed(format!("the switch has no forward to {guest}")))
    }

    /// Waits until the VM would survive the death of either node.
    fn await_protection(&mut self, live: usize) -> Result<Status, DemoError> {
        let log = self.vm.files.node_log(live);
        let mut last = String::new();
        let limit = self.protect_limit();
        let protected = self.wait_for("the VM is protected", limit, LOOK, &log, |demo| {
            match demo.vm.status(live) {
                Ok(status) if status.protected => return Some(status),
                Ok(status) => last = status.in_words(),
                Err(error) => last = error,
            }
            None
        });
        protected.map_err(|error| match error {
            DemoError::Failed { what, log } => DemoError::Failed {
                what: format!("{what} (node {} is {last})", NODES[live]),
                log,
            },
            other => other,
        })
    }

    /// The node that is live, once the VM would survive its death. A host that is busy for long
    /// enough looks like a dead one: a node may have taken over, or be alone for a moment.
    fn await_live_protected(&mut self) -> Result<usize, DemoError> {
        let log = self.vm.files.node_log(0);
        let limit = self.protect_limit();
        self.wait_for("a live node is protected", limit, LOOK, &log, |demo| {
            let (live, status) = demo.vm.live()?;
            status.protected.then_some(live)
        })
    }

    fn protect_limit(&self) -> Duration {
        match self.guest {
            GuestKind::Redis => PROTECT_LIMIT,
            GuestKind::Debian => PROTECT_WITH_DISK_LIMIT,
        }
    }

    fn start_clients(&mut self) -> Result<(), DemoError> {
        match self.guest {
            GuestKind::Redis => self.start_redis_clients(),
            GuestKind::Debian => self.start_debian_clients(),
        }
    }

    fn start_redis_clients(&mut self) -> Result<(), DemoError> {
        let lan_log = self.vm.files.lan_log();
        let address = self.forward(GUEST)?;
        let mut load = RedisLoad::start(address).map_err(|error| {
            DemoError::failed_see(format!("connecting to {address}: {error}"), &lan_log)
        })?;
        let until = Instant::now() + FIRST_ANSWER_LIMIT;
        while load.answer_after(0, 1).is_none() {
            self.check()?;
            if Instant::now() >= until {
                let what = "the client gets no answers".to_owned();
                return Err(DemoError::failed_see(what, &lan_log));
            }
            thread::sleep(LOOK);
        }
        say("client     INCR on one TCP connection, the next when the last is answered");
        let others = load.start_others(self.seed)?;
        self.load = Some(Box::new(load));
        say(&format!(
            "clients    {others} more: GET, SET, INCR and compare-and-set on keys that they share"
        ));
        Ok(())
    }

    fn start_debian_clients(&mut self) -> Result<(), DemoError> {
        let services = self.services()?;
        let files = self.vm.files.clone();
        sessions::make_tables(&files, services.postgres, || self.check())?;
        say("sessions   pgbench; a web client on a connection that it keeps; a shell over SSH");
        self.load = Some(Box::new(DebianLoad::start(&files, &services, self.seed)?));
        let limit = FIRST_ANSWER_LIMIT;
        self.wait_for(
            "clients get answers",
            limit,
            LOOK,
            &files.lan_log(),
            |demo| demo.load.as_ref()?.answer_after(0, 1),
        )?;
        say("ledger     transfers between accounts, each a transaction of three questions");
        Ok(())
    }

    /// Lets clients work for some time.
    fn count_for(&mut self, time: Duration) -> Result<(), DemoError> {
        let end = Instant::now() + time;
        loop {
            self.check()?;
            let now = Instant::now();
            if now >= end {
                return Ok(());
            }
            thread::sleep(LOOK.min(end - now));
        }
    }

    /// The same while the VM is protected, and measures what the live node does.
    fn count_protected(&mut self, time: Duration, live: usize) -> Result<(), DemoError> {
        let (began, before) = (Instant::now(), self.vm.status(live));
        self.count_for(time)?;
        // A node that gives no answer now has no part in the measurement.
        if let (Ok(before), Ok(after)) = (before, self.vm.status(live)) {
            let more = |from: Option<u64>, to: Option<u64>| to?.checked_sub(from?);
            if let (Some(steps), Some(bytes)) = (
                more(before.icount, after.icount),
                more(before.log_bytes, after.log_bytes),
            ) {
                self.work.seconds += began.elapsed().as_secs_f64();
                self.work.instructions += steps;
                self.work.log_bytes += bytes;
            }
        }
        Ok(())
    }

    /// One round: kill the live node, wait for the other, bring the killed one back. Gives the
    /// node that is live then.
    fn kill_and_recover(&mut self, live: usize, which: (u32, u32)) -> Result<usize, DemoError> {
        let wait = self.rng.between(KILL_AFTER.0, KILL_AFTER.1);
        self.count_protected(wait, live)?;
        let live = self.await_live_protected()?;
        let other = 1 - live;
        let killed = self.kill(live, which);
        let flowing_us = self.await_takeover(other, killed)?;
        self.measure_pause(flowing_us);
        self.audit()?;
        self.count_for(ALONE)?;
        let back = Instant::now();
        self.vm.start_node(live)?;
        self.await_protection(other)?;
        let reprotect_ms = back.elapsed().as_secs_f64() * 1000.0;
        let (now_us, times_us) = (self.now_us(), self.times_us());
        let Some(kill) = self.kills.last_mut() else {
            return Ok(other);
        };
        kill.protected_us = Some(now_us);
        kill.reprotect_ms = Some(reprotect_ms);
        kill.join_pause_ms = longest_gap(&times_us, flowing_us, now_us).map(|gap| gap.ms());
        say(&format!(
            "           {} joins again: protected after {reprotect_ms:.0} ms (longest wait for an \
             answer meanwhile {:.0} ms)",
            NODES[live],
            kill.join_pause_ms.unwrap_or(0.0)
        ));
        self.audit()?;
        Ok(other)
    }

    /// Kills the live node; gives the wall clock's time of it in milliseconds since 1970.
    fn kill(&mut self, live: usize, (number, kills): (u32, u32)) -> f64 {
        let pid = self.vm.pid(live);
        let at_us = self.now_us();
        let wall = SystemTime::now().duration_since(UNIX_EPOCH);
        self.vm.kill_node(live);
        self.kills.push(Kill {
            node: NODES[live],
            at_us,
            pause: None,
            takeover: None,
            protected_us: None,
            reprotect_ms: None,
            join_pause_ms: None,
        });
        say(&format!(
            "kill {:<6}at {:.2} s: kill -9 {} (node {})",
            format!("{number}/{kills}"),
            at_us as f64 / 1e6,
            pid.unwrap_or(0),
            NODES[live]
        ));
        wall.map_or(0.0, |wall| wall.as_secs_f64() * 1000.0)
    }

    /// Waits until the other node answers; gives the time at which it surely does. No node is
    /// asked anything before the client has its answers: that would take time from the pause that
    /// is measured.
    fn await_takeover(&mut self, other: usize, killed_unix_ms: f64) -> Result<u64, DemoError> {
        let at_us = self.kills.last().map_or(0, |kill| kill.at_us);
        let log = self.vm.files.node_log(other);
        let limit = TAKEOVER_LIMIT;
        let flowing_us = self.wait_for("the other node answers", limit, LOOK, &log, |demo| {
            let load = demo.load.as_ref()?;
            load.answer_after(at_us, load.flowing_answers())
        })?;
        let status = self.wait_for("the other node is live", limit, LOOK, &log, |demo| {
            demo.vm.status(other).ok().filter(Status::is_live)
        })?;
        // An older one isn't of this kill.
        let is_new =
            |takeover: &Takeover| takeover.at_unix_ms.is_none_or(|at| at >= killed_unix_ms);
        if let Some(kill) = self.kills.last_mut() {
            kill.takeover = status.last_takeover.filter(is_new);
        }
        Ok(flowing_us)
    }

    /// The pause is the longest wait between the last answer before the kill and the time at
    /// which answers surely flow again.
    fn measure_pause(&mut self, flowing_us: u64) {
        let times_us = self.times_us();
        if let Some(kill) = self.kills.last_mut() {
            kill.pause = longest_gap(&times_us, kill.at_us, flowing_us);
            let parts = kill.takeover.unwrap_or_default().parts();
            say(&format!(
                "           the client waited {:.0} ms for an answer{}",
                kill.pause.map_or(0.0, |gap| gap.ms()),
                if parts.is_empty() {
                    parts
                } else {
                    format!(" ({parts})")
                }
            ));
        }
    }

    /// Whether the guest still has what it has answered for.
    fn audit(&mut self) -> Result<(), DemoError> {
        let Some(load) = &mut self.load else {
            return Ok(());
        };
        if let Some(line) = load.audit().map_err(DemoError::Client)? {
            say(&format!("           {line}"));
        }
        Ok(())
    }

    fn now_us(&self) -> u64 {
        self.load.as_ref().map_or(0, |load| load.now_us())
    }

    fn times_us(&self) -> Vec<u64> {
        let times = self.load.as_ref().map(|load| load.times_us());
        times.unwrap_or_default()
    }

    /// An error if the demonstration can't go on, whatever it is waiting for.
    fn check(&mut self) -> Result<(), DemoError> {
        if self.interrupted.load(Ordering::Relaxed) {
            return Err(DemoError::Interrupted);
        }
        if let Some(fault) = self.load.as_mut().and_then(|load| load.fault()) {
            return Err(DemoError::Client(fault));
        }
        self.vm.check()
    }

    /// Waits until `look` finds something, at most for `limit`; `log` is where to look if it
    /// never does.
    fn wait_for<T>(
        &mut self,
        what: &str,
        limit: Duration,
        every: Duration,
        log: &Path,
        mut look: impl FnMut(&mut Self) -> Option<T>,
    ) -> Result<T, DemoError> {
        let deadline = Instant::now() + limit;
        loop {
            self.check()?;
            if let Some(found) = look(self) {
                return Ok(found);
            }
            if Instant::now() >= deadline {
                let what = format!("waited {} s until {what}: it never came", limit.as_secs());
                return Err(DemoError::failed_see(what, log));
            }
            thread::sleep(every);
        }
    }

    /// The last question to the guest, the end of all processes, and the report. A run that
    /// failed has a report too, as far as it came.
    fn end(
        mut self,
        files: &Files,
        seed_and_kills: (u64, u32),
        outcome: Result<(), DemoError>,
    ) -> Result<bool, DemoError> {
        // Where a client is broken, the others' part is judged all the same.
        let orderly = matches!(outcome, Ok(()) | Err(DemoError::Client(_)));
        let told = match self.load.take() {
            None => Told::default(),
            Some(load) => load.finish(orderly)?,
        };
        self.vm.stop(outcome.is_ok());
        let failure = outcome.as_ref().err().map(first_line);
        let report = Report::new(&told, &self.kills, &self.work, seed_and_kills, failure);
        if !told.times_us.is_empty() {
            say(&report.to_string());
            write_report(files, &report, &told, &self.kills)?;
        }
        match outcome {
            Ok(()) | Err(DemoError::Client(_)) => {
                if let Some(failure) = &report.failure {
                    say(&format!("failed     {failure}"));
                }
                Ok(report.ok)
            }
            Err(error) => Err(error),
        }
    }
}

fn first_line(error: &DemoError) -> String {
    let text = error.to_string();
    text.lines().next().unwrap_or_default().to_owned()
}

fn write_report(
    files: &Files,
    report: &Report,
    told: &Told,
    kills: &[Kill],
) -> Result<(), DemoError> {
    let json = serde_json::to_string_pretty(report)
        .map_err(|error| DemoError::failed(format!("report.json: {error}")))?;
    let chart = Chart {
        times_us: &told.times_us,
        kills,
        title: told.wording.title,
        what: told.wording.what,
        subtitle: subtitle(report, told.wording.what),
    };
    let write = |path: PathBuf, text: String| {
        fs::write(&path, text).map_err(DemoError::io(&path))?;
        Ok::<_, DemoError>(path)
    };
    let json = write(files.report_json(), json + "\n")?;
    let svg = write(files.report_svg(), chart.draw())?;
    say(&format!(
        "report     {}\n           {}",
        json.display(),
        svg.display()
    ));
    Ok(())
}

fn subtitle(report: &Report, what: &str) -> String {
    format!(
        "{} {what} in {:.1} s, {} lost, {} duplicated, {} out \
         of order, {} kills (seed {})",
        report.answers,
        report.seconds,
        report.lost,
        report.duplicated,
        report.out_of_order,
        report.takeovers.len(),
        report.seed
    )
}
