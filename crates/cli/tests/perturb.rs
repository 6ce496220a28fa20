//! The proof by perturbation on a real guest: Debian's kernel boots and Redis serves clients, all
//! of it recorded; then the recording is replayed with everything disturbed that must not matter,
//! and every digest is equal.

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;

use serde_json::Value;
use support::{Folder, PROGRAM, Running, json};

/// Each disturbs in its own way. To look into one that fails: `twinvm replay DIR --perturb SEED`.
const SEEDS: std::ops::RangeInclusive<u64> = 1..=10;
/// Processes at a time.
const WORKERS: usize = 2;
/// Requests that the clients make while the guest is recorded.
const REQUESTS: u32 = 400;

/// The image that `make image` leaves.
fn image() -> PathBuf {
    let image = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/image/redis");
    assert!(
        image.join("image.toml").exists(),
        "no guest image: run `make image` first (`make test` does)"
    );
    image.canonicalize().unwrap()
}

/// The VM's file, beside the switch's socket.
fn vm_toml(folder: &Folder) -> String {
    let image = image();
    let text = fs::read_to_string(image.join("image.toml")).unwrap();
    let lines: toml::Table = text.parse().unwrap();
    let path = |key: &str| image.join(lines[key].as_str().unwrap());
    folder.file(
        "VM.toml",
        format!(
            "name = \"perturb\"\nmemory = \"256M\"\nkernel = {:?}\ninitrd = {:?}\ncmdline = {:?}\n\
             [[net]]\nmac = \"52:54:00:12:34:56\"\nbackend = \"lan:lan.sock\"\n",
            path("kernel"),
            path("initrd"),
            lines["cmdline"].as_str().unwrap()
        ),
    )
}

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

fn load(address: &str) {
    let mut clients: Vec<_> = (0..3)
        .map(|_| BufReader::new(TcpStream::connect(address).unwrap()))
        .collect();
    for n in 1..=REQUESTS {
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
    }
}

/// Boots, loads and powers off, recorded; the run's report.
fn record(folder: &Folder) -> Value {
    let socket = folder.text("lan.sock");
    let forward = "127.0.0.1:0=10.0.2.15:6379";
    let mut lan = Running::start(&["lan", "--listen", &socket, "--forward", forward]);
    let bound = lan.line_with("forward ");
    let address = bound["forward ".len()..].split('=').next().unwrap();

    let vm = vm_toml(folder);
    let (dir, report) = (folder.text("rec"), folder.text("report.json"));
    let mut run = Running::start(&["run", &vm, "--record", &dir, "--report", &report]);
    run.line_with("twinvm: redis ready");
    load(address);
    run.child
        .stdin
        .take()
        .unwrap()
        .write_all(b"poweroff -f\n")
        .unwrap();
    run.line_with("reboot: Power down");
    assert_eq!(run.wait(), Some(0));
    lan.signal("TERM");
    assert_eq!(lan.wait(), Some(0));
    json(&folder.path("report.json"))
}

/// Replays with this seed, in a process of its own; what it found, or its messages.
fn replay(dir: &str, seed: u64) -> Result<Value, String> {
    let output = std::process::Command::new(PROGRAM)
        .args(["replay", dir, "--json", "--perturb", &seed.to_string()])
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
    let report = record(&folder);
    assert_eq!(report["exit"]["reason"], "poweroff");
    let dir = folder.text("rec");

    let seeds = Mutex::new(SEEDS);
    let failures = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                loop {
                    let Some(seed) = seeds.lock().unwrap().next() else {
                        return;
                    };
                    let wrong = match replay(&dir, seed) {
                        Err(why) => Some(why),
                        Ok(found) => check(&report, &found),
                    };
                    failures
                        .lock()
                        .unwrap()
                        .extend(wrong.map(|why| format!("seed {seed}: {why}")));
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    if !failures.is_empty() {
        // The recording is all that is needed to look into it.
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("perturb-failed");
        fs::create_dir_all(&kept).unwrap();
        for name in ["snapshot", "log", "states"] {
            fs::copy(folder.path("rec").join(name), kept.join(name)).unwrap();
        }
        panic!(
            "{}\nthe recording is kept: twinvm replay {} --perturb SEED",
            failures.join("\n"),
            kept.display()
        );
    }
}

/// What is wrong with a replay's outcome, if anything.
fn check(report: &Value, found: &Value) -> Option<String> {
    let done = &found["perturbation"];
    let at_least = |what: &str, least: u64| done[what].as_u64().unwrap_or(0) >= least;
    if found["digest"] != report["digest"] || found["icount"] != report["icount"] {
        Some(format!(
            "ends elsewhere than the run: {found}, the run {report}"
        ))
    } else if found["digests_checked"].as_u64().unwrap_or(0) < 5 {
        Some(format!("too few digests to prove anything: {found}"))
    } else if !(at_least("slices", 100_000)
        && at_least("flushes", 50)
        && at_least("restores", 1)
        && at_least("snapshots", 1)
        && at_least("digests", 1))
    {
        Some(format!("disturbs too little to prove anything: {found}"))
    } else {
        None
    }
}
