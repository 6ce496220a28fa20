//! The VM, its clients, and what each fault has done to them.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tempfile::TempDir;
use twinvm_protocol::OutputFrom;

use twinvm_host::ctl_socket::{self, CtlRequest};

use crate::lab::clients::{Clients, Load};
use crate::lab::history::Verdict;
use crate::lab::pair::{NAMES, Pair, Parts, READY, REDIS};

/// For everything that happens within seconds when all is well, on a very busy host within a minute.
pub(crate) const LIMIT: Duration = Duration::from_secs(180);
/// Answers that each client gets before clients are said to go on.
const SOME: usize = 5;
/// A loaded host must not look like a dead one.
pub(crate) const SUSPECT: Duration = Duration::from_millis(1500);
/// The guest's memory.
pub(crate) const RAM_BYTES: u64 = 256 << 20;
/// Room for a node's own files, in KiB.
const STATE_KIB: u32 = 2048;

/// A fault: its name, and what happens. It begins and ends with a protected VM.
pub(crate) type Case = (&'static str, fn(&mut Scene));

/// One fault's line in the table.
struct Row {
    name: &'static str,
    /// From the last sign of life to the suspicion, and from there to the announcement.
    detect_ms: Option<f64>,
    takeover_ms: Option<f64>,
    pause: Duration,
    protected: Duration,
}

/// The VM under its clients.
pub(crate) struct Scene {
    pub(crate) pair: Pair,
    pub(crate) clients: Clients,
    /// The node that was live and protected at last.
    pub(crate) live: usize,
    /// Which node sends the guest's frames.
    pub(crate) output: OutputFrom,
    /// The alarm that a fault has led to, as it should.
    alarm: Option<String>,
    rows: Vec<Row>,
    folder: TempDir,
}

/// Plays all faults that were asked for, with the guest's output from one node or the other.
pub(crate) fn play(cases: &[Case], output: OutputFrom) {
    let asked = std::env::var("TWINVM_FAULTS").unwrap_or_default();
    let words: Vec<&str> = asked.split(',').collect();
    let is_asked = |name: &str| words.iter().any(|word| name.contains(word));
    let cases: Vec<&Case> = cases.iter().filter(|(name, _)| is_asked(name)).collect();
    assert!(!cases.is_empty(), "no fault is called {asked:?}");
    let rounds = std::env::var("TWINVM_FAULT_ROUNDS").ok();
    let rounds: u32 = rounds.map_or(1, |n| n.parse().expect("a number of rounds"));

    let mut scene = Scene::begin(output);
    for _ in 0..rounds {
        for (name, case) in &cases {
            scene.run(name, *case);
        }
    }
    scene.end();
}

impl Scene {
    fn begin(output: OutputFrom) -> Self {
        let folder = TempDir::new().unwrap();
        let image = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/image/redis");
        let file = |name: &str| {
            let path = image.join(name);
            path.canonicalize()
                .unwrap_or_else(|_| panic!("{path:?}: run `make image` first"))
        };
        let parts = Parts {
            memory: format!("{}M", RAM_BYTES >> 20),
            disk: None,
            ready: READY,
            delay: Duration::ZERO,
            output,
            pinned: false,
            program: env!("CARGO_BIN_EXE_twinvm").into(),
            dir: folder.path().to_owned(),
            kernel: file("kernel"),
            initrd: file("initrd.cpio"),
            cmdline: "console=ttyS0 earlycon=sbi panic=-1 ADDR=10.0.2.15/24 GW=10.0.2.2".into(),
            suspect_ms: SUSPECT.as_millis() as u64,
        };
        let mut pair = Pair::new(parts).unwrap();
        // Each host has a small disk of its own.
        for place in [pair.state(0), pair.state(1), pair.records()] {
            fs::create_dir_all(&place).unwrap();
            let size = format!("size={STATE_KIB}k,mode=700");
            let mut mount = Command::new("mount");
            mount.args(["-t", "tmpfs", "-o", &size, "lab"]).arg(&place);
            assert!(mount.status().unwrap().success(), "{mount:?}");
        }
        let live = pair.bring_up(LIMIT).unwrap();
        let clients = Clients::start(&Load {
            address: REDIS,
            clients: 4,
            think: Duration::from_millis(8),
            seed: 1,
        });
        let clients = clients.unwrap();
        Self {
            pair,
            clients,
            live,
            output,
            alarm: None,
            rows: Vec::new(),
            folder,
        }
    }

    fn run(&mut self, name: &'static str, case: fn(&mut Self)) {
        let began = Instant::now();
        self.live = self.pair.await_protected(LIMIT).unwrap();
        self.flows();
        let (from_ns, wall_ms) = (self.clients.now_ns(), wall_us() as f64 / 1000.0);
        eprintln!("fault {name}: node {} is live", NAMES[self.live]);
        case(self);
        let healed = Instant::now();
        self.live = self.pair.await_protected(LIMIT).unwrap();
        let protected = healed.elapsed();
        self.flows();
        let waits = self.clients.longest_waits(from_ns, self.clients.now_ns());
        let status = self.pair.status(self.live).unwrap();
        let alarm = status["divergence"].as_str();
        assert!(
            alarm.is_none() || alarm == self.alarm.as_deref(),
            "{name}: {status}"
        );
        let takeover = &status["last_takeover"];
        let is_new = takeover["at_unix_ms"]
            .as_f64()
            .is_some_and(|at| at >= wall_ms.floor());
        let sum = |parts: &[&str]| {
            let known = parts.iter().filter_map(|part| takeover[part].as_f64());
            is_new.then(|| known.sum::<f64>())
        };
        self.rows.push(Row {
            name,
            detect_ms: sum(&["detect_ms"]),
            takeover_ms: sum(&["drain_ms", "arbitrate_ms", "announce_ms"]),
            pause: waits.into_iter().max().unwrap_or_default(),
            protected,
        });
        eprintln!(
            "fault {name}: over after {:.1} s",
            began.elapsed().as_secs_f64()
        );
    }

    /// The verdict on everything.
    fn end(self) {
        let Self {
            pair,
            clients,
            rows,
            folder,
            ..
        } = self;
        let seen = clients.finish(REDIS).unwrap();
        table(&rows);
        eprintln!("{} answers to 4 clients", seen.answers());
        let verdict = seen.verdict();
        assert_eq!(verdict, Verdict::Linearizable, "{verdict}");
        assert!(
            seen.lost.is_empty(),
            "connections were lost: {:?}",
            seen.lost
        );
        assert_eq!(seen.answers(), seen.calls.len());
        drop((pair, folder));
    }

    /// The node that is not live.
    pub(crate) fn backup(&self) -> usize {
        1 - self.live
    }

    /// Waits until every client has got answers to new questions.
    #[track_caller]
    pub(crate) fn flows(&mut self) {
        let from_ns = self.clients.now_ns();
        let clients = &self.clients;
        let flow = self.pair.wait_for("every client goes on", LIMIT, |_| {
            let answered = clients.answered_since(from_ns);
            Ok(answered.iter().all(|n| *n >= SOME).then_some(()))
        });
        flow.unwrap();
    }

    /// How many questions from after `from_ns` have been answered.
    pub(crate) fn answered_since(&self, from_ns: u64) -> usize {
        self.clients.answered_since(from_ns).iter().sum()
    }

    /// Waits until a node is this.
    #[track_caller]
    pub(crate) fn await_role(&mut self, node: usize, role: &str) {
        let what = format!("node {} is {role}", NAMES[node]);
        let is = |pair: &mut Pair| Ok(pair.is(node, role).then_some(()));
        self.pair.wait_for(&what, LIMIT, is).unwrap();
    }

    /// Has the backup compare digests, and waits until it has.
    pub(crate) fn digest(&mut self) {
        let live = self.live;
        let equal = |pair: &Pair| pair.status(1 - live).ok()?["digests_equal"].as_u64();
        let before = equal(&self.pair).unwrap();
        let socket = self.pair.state(live).join("ctl.sock");
        ctl_socket::request(&socket, &CtlRequest::Digest {}).unwrap();
        let more = |pair: &mut Pair| Ok(equal(pair).is_some_and(|now| now > before).then_some(()));
        self.pair.wait_for("an equal digest", LIMIT, more).unwrap();
    }

    /// Waits until a node has raised the alarm, which is expected.
    pub(crate) fn await_alarm(&mut self, node: usize) -> String {
        let alarm = |pair: &mut Pair| {
            let status = pair.status(node);
            Ok(status
                .ok()
                .and_then(|it| it["divergence"].as_str().map(str::to_owned)))
        };
        let alarm = self.pair.wait_for("the alarm", LIMIT, alarm).unwrap();
        self.alarm = Some(alarm.clone());
        alarm
    }

    /// Waits until a node is live without a backup.
    #[track_caller]
    pub(crate) fn await_alone(&mut self, node: usize) {
        let what = format!("node {} is live alone", NAMES[node]);
        let alone = |pair: &mut Pair| {
            let status = pair.status(node);
            let is = |status: &serde_json::Value| {
                status["role"] == "live" && status["protected"] == false
            };
            Ok(status.is_ok_and(|status| is(&status)).then_some(()))
        };
        self.pair.wait_for(&what, LIMIT, alone).unwrap();
    }
}

pub(crate) fn wall_us() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("a clock").as_micros() as u64
}

fn table(rows: &[Row]) {
    let ms = |ms: Option<f64>| ms.map_or("-".to_owned(), |ms| format!("{ms:.1}"));
    eprintln!(
        "{:<44}{:>10}{:>12}{:>14}{:>18}",
        "fault (ms)", "detect", "take over", "client waits", "protected again"
    );
    for row in rows {
        eprintln!(
            "{:<44}{:>10}{:>12}{:>14}{:>18}",
            row.name,
            ms(row.detect_ms),
            ms(row.takeover_ms),
            row.pause.as_millis(),
            row.protected.as_millis()
        );
    }
}
