//! The proof by perturbation on a real guest: Debian's kernel boots, Redis serves clients and a disk
//! is written and read, all of it recorded. In the middle of that the guest is frozen, goes on from
//! its snapshot with the same clients, and is recorded again. Then both recordings are replayed with
//! everything disturbed that must not matter, and each engine replays what the other has recorded;
//! every digest is equal.

mod support;

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use serde_json::Value;
use support::redis::{SWITCHED, switch, vm_toml};
use support::{Folder, LIMIT, PROGRAM, Running, json};
use twinvm_host::snapshot_file;
use twinvm_machine::VIRTIO_SLOTS;

/// The recordings, the seeds of each, and what they are recorded with. Each seed disturbs in its own
/// way. To look into one that fails: `twinvm replay DIR --perturb SEED`.
const RECORDINGS: [(&str, std::ops::RangeInclusive<u64>, &str); 2] = [
    ("from-power-on", 1..=6, "jit"),
    ("from-snapshot", 1..=2, "interp"),
];
/// Replays without a disturbance: by the same engine, and by the other.
const ENGINES: [&str; 2] = ["interp", "jit"];
/// Processes at a time.
const WORKERS: usize = 2;
/// Requests of the clients before the guest is frozen, and after.
const REQUESTS: u32 = 400;
/// Rounds of the disk before the guest is frozen, and those that the second recording sees: 100
/// million steps and more each.
const ROUNDS: [u32; 2] = [2, 8];
const DISK_BYTES: u64 = 16 << 20;

/// For ever: four writers at a time fill one half of the disk, then four others the other half,
/// while what the first have written is read past the page cache and compared. Each round has
/// bytes of its own.
const DISK_LOAD: &str = "
n=0; while :; do
  n=$((n+1)); same=0
  dd if=/dev/urandom of=/tmp/r bs=64k count=8
  for i in 0 1 2 3; do dd if=/tmp/r of=/dev/vda bs=64k seek=$((i*32)) conv=fsync & done; wait
  for i in 0 1 2 3; do
    dd if=/tmp/r of=/dev/vda bs=64k seek=$((i*32+16)) conv=fsync &
    dd if=/dev/vda bs=64k skip=$((i*32)) count=8 iflag=direct | cmp - /tmp/r && same=$((same+1))
  done; wait
  echo round $n: $same same
done 2>/dev/null &
";

/// Sends a command and asserts the answer.
fn ask(redis: &mut BufReader<TcpStream>, command: &str, answer: &str) {
    redis
        .get_mut()
        .write_all(format!("{command}\r\n").as_bytes())
        .unwrap();
    for line in answer.lines() {
        let mut got = String::new();
        redis.read_line(&mut got).unwrap();
        assert_eq!(got.trim_end(), line, "{command}");
    }
}

/// Clients at work until they are told to end, on connections that outlive the guest's freezing.
struct Clients {
    ended: Arc<AtomicBool>,
    /// The number of each request that was answered.
    answered: Receiver<u32>,
    thread: JoinHandle<()>,
}

impl Clients {
    fn start(address: &str) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let (told, answered) = channel();
        let (address, until) = (address.to_owned(), Arc::clone(&ended));
        Self {
            ended,
            answered,
            thread: thread::spawn(move || load(&address, &until, &told)),
        }
    }

    /// Waits for so many more requests.
    #[track_caller]
    fn await_more(&self, requests: u32) {
        let earlier = self.answered.try_iter().count();
        for _ in 0..requests {
            let why = format!("no answer for long, after {earlier}");
            self.answered.recv_timeout(LIMIT).expect(&why);
        }
    }

    fn end(self) {
        self.ended.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
    }
}

fn load(address: &str, ended: &AtomicBool, told: &Sender<u32>) {
    let connect = |_| {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        BufReader::new(stream)
    };
    let mut clients: Vec<_> = (0..3).map(connect).collect();
    for n in 1.. {
        if ended.load(Ordering::Relaxed) {
            return;
        }
        let count = clients.len();
        let redis = &mut clients[n as usize % count];
        ask(redis, "INCR counter", &format!(":{n}"));
        let value = format!("{n}").repeat(1 + n as usize % 300);
        ask(redis, &format!("SET key:{} {value}", n % 50), "+OK");
        ask(
            redis,
            &format!("GET key:{}", n % 50),
            &format!("${}\n{value}", value.len()),
        );
        // Nobody counts any more when the test has failed.
        let _ = told.send(n);
    }
}

/// Reads the console until the disk has gone through so many more rounds. Which they are depends on
/// how many went by until the guest was frozen.
#[track_caller]
fn await_rounds(run: &mut Running, rounds: u32) {
    for _ in 0..rounds {
        // The shell's echo of the load itself has the words too.
        let line = loop {
            let line = run.line_with("round ");
            if !line.contains('$') {
                break line;
            }
        };
        assert!(line.ends_with(": 4 same"), "{line}");
    }
}

/// A recording that was made: how it ended, and the step at which it began.
struct Recorded {
    dir: String,
    report: Value,
    from: u64,
}

/// Makes both recordings.
fn record(folder: &Folder) -> Vec<Recorded> {
    let (mut lan, address) = switch(folder);

    let vm = vm_toml(folder, SWITCHED);
    let (disk, snap) = (folder.text("disk"), folder.text("snap"));
    File::create(&disk).unwrap().set_len(DISK_BYTES).unwrap();
    let dirs = RECORDINGS.map(|(name, ..)| folder.text(name));
    let reports = RECORDINGS.map(|(name, ..)| folder.text(&format!("{name}.json")));
    let start = |n: usize, disk: &str, more: &[&str]| {
        let own = ["run", &vm, "--record", &dirs[n], "--report", &reports[n]];
        let with = ["--disk", disk, "--engine", RECORDINGS[n].2];
        Running::start(&[&own[..], &with, more].concat())
    };

    let mut run = start(0, &disk, &["--snapshot", &snap]);
    run.line_with("twinvm: redis ready");
    let keys = run.child.stdin.as_mut().unwrap();
    keys.write_all(DISK_LOAD.as_bytes()).unwrap();
    let clients = Clients::start(&address);
    clients.await_more(REQUESTS);
    await_rounds(&mut run, ROUNDS[0]);
    // Into the next round.
    clients.await_more(REQUESTS / 20);
    run.signal("TERM");
    assert_eq!(run.wait(), Some(130));
    let frozen = snapshot_file::restore(Path::new(&snap)).unwrap();
    let in_flight = frozen.disk_requests(&mut [0; VIRTIO_SLOTS]).len();
    say(&format!(
        "frozen at step {} with {in_flight} disk requests in flight",
        frozen.icount()
    ));

    // As people do it: the snapshot's disk stays as it was.
    let copy = folder.text("copy");
    fs::copy(&disk, &copy).unwrap();
    let mut run = start(1, &copy, &["--from", &snap]);
    await_rounds(&mut run, 1);
    clients.await_more(REQUESTS);
    await_rounds(&mut run, ROUNDS[1] - 1);
    clients.end();
    let keys = run.child.stdin.as_mut().unwrap();
    keys.write_all(b"poweroff -f\n").unwrap();
    run.line_with("reboot: Power down");
    assert_eq!(run.wait(), Some(0));
    lan.signal("TERM");
    assert_eq!(lan.wait(), Some(0));
    let reports = RECORDINGS.map(|(name, ..)| json(&folder.path(&format!("{name}.json"))));
    assert_eq!(reports[0]["exit"]["reason"], "stopped");
    assert_eq!(reports[1]["exit"]["reason"], "poweroff");
    let all = dirs.into_iter().zip(reports).zip([0, frozen.icount()]);
    all.map(|((dir, report), from)| Recorded { dir, report, from })
        .collect()
}

/// Tells whoever watches the tests, also if nothing fails.
fn say(what: &str) {
    let _ = writeln!(io::stderr(), "perturb: {what}");
}

/// Replays in this way, in a process of its own; what it found, or its messages.
fn replay(dir: &str, way: &[String]) -> Result<Value, String> {
    let output = std::process::Command::new(PROGRAM)
        .args(["replay", dir, "--json"])
        .args(way)
        .output()
        .unwrap();
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    match output.status.code() {
        Some(0) => Ok(serde_json::from_str(&out).unwrap()),
        code => Err(format!(
            "exit code {code:?}: {out}{}",
            String::from_utf8_lossy(&output.stderr)
        )),
    }
}

#[test]
fn every_seed_gives_the_digests_of_the_recording() {
    let folder = Folder::new();
    let recorded = record(&folder);
    let all = RECORDINGS.into_iter().zip(&recorded);
    let mut work = all.flat_map(|((name, seeds, _), recorded)| {
        let way = |option: &str, value: String| vec![option.to_owned(), value];
        let engines = ENGINES.map(|engine| way("--engine", engine.to_owned()));
        seeds
            .map(move |seed| way("--perturb", seed.to_string()))
            .chain(engines)
            .map(move |way| (name, way, recorded))
    });

    let failures = Mutex::new(Vec::new());
    let next = Mutex::new(&mut work);
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                loop {
                    let Some((name, way, recorded)) = next.lock().unwrap().next() else {
                        return;
                    };
                    let wrong = match replay(&recorded.dir, &way) {
                        Err(why) => Some(why),
                        Ok(found) => check(recorded, &found),
                    };
                    let wrong = wrong.map(|why| format!("{name}, {}: {why}", way.join(" ")));
                    failures.lock().unwrap().extend(wrong);
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    if !failures.is_empty() {
        // The recordings are all that is needed to look into it.
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("perturb-failed");
        for (name, ..) in RECORDINGS {
            fs::create_dir_all(kept.join(name)).unwrap();
            for file in ["snapshot", "log", "states"] {
                fs::copy(folder.path(name).join(file), kept.join(name).join(file)).unwrap();
            }
        }
        panic!(
            "{}\nthe recordings are kept: twinvm replay {}/NAME --perturb SEED",
            failures.join("\n"),
            kept.display()
        );
    }
    for ((name, seeds, engine), recorded) in RECORDINGS.into_iter().zip(&recorded) {
        let steps = recorded.report["icount"].as_u64().unwrap() - recorded.from;
        let seeds = seeds.count() as u64;
        let all = seeds + ENGINES.len() as u64;
        say(&format!(
            "{name}, recorded with {engine}: {steps} steps, {seeds} seeds and both engines: {} steps \
             compared",
            steps * all
        ));
    }
}

/// What is wrong with a replay's outcome, if anything.
fn check(recorded: &Recorded, found: &Value) -> Option<String> {
    let report = &recorded.report;
    let done = &found["perturbation"];
    let at_least = |what: &str, least: u64| done[what].as_u64().unwrap_or(0) >= least;
    let end = report["icount"].as_u64().unwrap();
    if found["digest"] != report["digest"]
        || found["icount"] != end
        || found["steps"] != end - recorded.from
    {
        Some(format!(
            "begins or ends elsewhere than the run: {found}, the run {report}"
        ))
    } else if found["digests_checked"].as_u64().unwrap_or(0) < 5 {
        Some(format!("too few digests to prove anything: {found}"))
    } else if done.is_null() {
        None
    } else if !(at_least("slices", 100_000)
        && at_least("flushes", 50)
        && at_least("switches", 150)
        && at_least("restores", 1)
        && at_least("snapshots", 1)
        && at_least("digests", 1))
    {
        Some(format!("disturbs too little to prove anything: {found}"))
    } else {
        None
    }
}
