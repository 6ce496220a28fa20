//! `twinvm run`: how it ends, what it writes, what it records.

mod support;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::tcgetattr;
use support::{Folder, PROGRAM, Running, guest, json, twinvm, twinvm_with};

#[test]
fn a_guest_that_powers_off() {
    let folder = Folder::new();
    let kernel = folder.file("kernel", guest::hello());
    let report = folder.path("report.json");
    let done = twinvm(&[
        "run",
        "--kernel",
        &kernel,
        "--report",
        report.to_str().unwrap(),
    ]);
    assert_eq!(
        (done.code, done.out.as_str(), done.err.as_str()),
        (Some(0), "hello\n", "")
    );
    let report = json(&report);
    assert_eq!(report["exit"]["reason"], "poweroff");
    assert_eq!(report["exit"]["code"], 0);
    assert!(report["icount"].as_u64().unwrap() > 10);
    assert!(report["peak_rss_bytes"].as_u64().unwrap() > 1 << 20);
    // The program's own page, its device tree, and not much more.
    let touched = report["ram_touched_bytes"].as_u64().unwrap();
    assert!((2 * 4096..1 << 20).contains(&touched), "{touched}");
    assert_eq!(touched % 4096, 0);
    assert_eq!(report["digest"].as_str().unwrap().len(), 32);
    for key in ["host_s", "cpu_s", "mips"] {
        assert!(report[key].as_f64().unwrap() > 0.0, "{key}");
    }
}

#[test]
fn the_finisher_decides_the_exit_code() {
    let cases = [
        (0x5555, 0, "poweroff"),
        (0x3333, 1, "failure"),
        (7 << 16 | 0x3333, 7, "failure"),
        (119 << 16 | 0x3333, 119, "failure"),
        (0xffff << 16 | 0x3333, 119, "failure"),
        (0x7777, 120, "reset"),
    ];
    for (value, code, reason) in cases {
        let folder = Folder::new();
        let kernel = folder.file("kernel", guest::finish(value));
        let report = folder.text("report.json");
        let args = [
            "run",
            "--kernel",
            &kernel,
            "--on-reset",
            "exit",
            "--report",
            &report,
        ];
        assert_eq!(twinvm(&args).code, Some(code), "{value:#x}");
        let exit = &json(&folder.path("report.json"))["exit"];
        assert_eq!(
            (&exit["reason"], &exit["code"]),
            (&reason.into(), &code.into())
        );
    }
}

#[test]
fn a_limit_is_exact_and_a_restart_is_no_end() {
    for kernel in [guest::worker(), guest::finish(0x7777)] {
        let folder = Folder::new();
        let kernel = folder.file("kernel", kernel);
        let report = folder.text("report.json");
        let done = twinvm(&[
            "run",
            "--kernel",
            &kernel,
            "--memory",
            "8M",
            "--max-instructions",
            "10003",
            "--report",
            &report,
        ]);
        assert_eq!(done.code, Some(124), "{done:?}");
        assert_eq!(
            done.err,
            "twinvm run: stopped after 10003 steps (--max-instructions)\n"
        );
        let report = json(&folder.path("report.json"));
        assert_eq!(report["icount"], 10_003);
        assert_eq!(report["exit"]["reason"], "limit");
    }
}

#[test]
fn the_report_tells_what_executed_the_guest() {
    let report = |engine: &str| {
        let folder = Folder::new();
        let kernel = folder.file("kernel", guest::worker());
        let report = folder.text("report.json");
        let limit = ["--max-instructions", "100003", "--report", &report];
        let args = ["run", "--kernel", &kernel, "--engine", engine];
        let done = twinvm(&[&args[..], &limit].concat());
        assert_eq!(done.code, Some(124), "{done:?}");
        let engine_report = json(&folder.path("report.json"))["engine"].clone();
        assert_eq!(engine_report["name"], engine);
        engine_report
    };
    let interp = report("interp");
    assert_eq!(interp["steps_interpreted"], 100_003);
    assert_eq!(interp["steps_translated"], 0);
    assert_eq!(interp.get("translation"), None);

    let jit = report("jit");
    let number = |path: &str| jit.pointer(path).unwrap().as_u64().unwrap();
    let translated = number("/steps_translated");
    assert_eq!(number("/steps_interpreted") + translated, 100_003);
    assert!(translated > 50_000, "{translated}");
    for key in ["blocks", "code_bytes", "entries", "exits/look"] {
        assert!(number(&format!("/translation/{key}")) > 0, "{key}");
    }
    let calls = jit["translation"]["calls_by_kind"].as_array().unwrap();
    let calls = calls.iter().map(|it| it["calls"].as_u64().unwrap());
    assert_eq!(calls.sum::<u64>(), number("/translation/calls"));
}

#[test]
fn keys_from_a_pipe_reach_the_guest() {
    let folder = Folder::new();
    let kernel = folder.file("kernel", guest::worker());
    // More than the guest's queue holds at once, and Ctrl-] is a byte like any other.
    let mut keys = vec![b'a'; 10_000];
    keys.extend(b"\x1dq");
    let done = twinvm_with(&["run", "--kernel", &kernel], keys);
    assert_eq!(done.code, Some(0), "{}", done.err);
    let expected = format!("working\n{}\x1dq", "a".repeat(10_000));
    assert_eq!(done.out, expected);
}

#[test]
fn signals_end_it_in_good_order() {
    for signal in ["TERM", "INT", "HUP"] {
        let folder = Folder::new();
        let kernel = folder.file("kernel", guest::sleep());
        let recording = folder.text("rec");
        let mut run = Running::start(&["run", "--kernel", &kernel, "--record", &recording]);
        run.line_with("asleep");
        run.signal(signal);
        assert_eq!(run.wait(), Some(130), "{signal}");
        let replay = twinvm(&["replay", &recording, "--json"]);
        assert_eq!(replay.code, Some(0), "{replay:?}");
        assert!(replay.out.contains("\"finished\""), "{}", replay.out);
    }
}

#[test]
fn a_guest_that_sleeps_costs_nothing() {
    let folder = Folder::new();
    let kernel = folder.file("kernel", guest::sleep());
    let report = folder.text("report.json");
    let mut run = Running::start(&["run", "--kernel", &kernel, "--report", &report]);
    run.line_with("asleep");
    let before = ticks(run.child.id());
    thread::sleep(Duration::from_secs(2));
    let cost = ticks(run.child.id()) - before;
    run.signal("TERM");
    assert_eq!(run.wait(), Some(130));
    assert!(cost < 10, "2 s of sleep cost {cost} ticks of 10 ms");
    // What the beginning costs is there too.
    let cpu_s = json(&folder.path("report.json"))["cpu_s"].as_f64().unwrap();
    assert!(cpu_s < 1.0, "{cpu_s} s");
}

/// Processor time of a process, in ticks of 10 ms (proc_pid_stat(5), `utime` and `stime`).
fn ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let [user, system] = [fields[11], fields[12]].map(|it| it.parse::<u64>().unwrap());
    user + system
}

/// A terminal: our end and the program's.
fn terminal() -> (File, OwnedFd) {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    let name = ptsname(&ours, Vec::new()).unwrap();
    let theirs = File::options()
        .read(true)
        .write(true)
        .open(name.to_str().unwrap())
        .unwrap();
    (File::from(ours), theirs.into())
}

#[test]
fn ctrl_bracket_leaves_and_the_terminal_is_as_before() {
    let folder = Folder::new();
    let kernel = folder.file("kernel", guest::worker());
    let (mut ours, theirs) = terminal();
    let before = tcgetattr(&theirs).unwrap();
    let mut child = Command::new(PROGRAM)
        .args(["run", "--kernel", &kernel])
        .stdin(theirs.try_clone().unwrap())
        .stdout(theirs.try_clone().unwrap())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut seen = String::new();
    let mut read_until = |ours: &mut File, text: &str| {
        while !seen.contains(text) {
            let mut piece = [0; 256];
            let count = ours.read(&mut piece).unwrap();
            seen.push_str(&String::from_utf8_lossy(&piece[..count]));
        }
    };
    read_until(&mut ours, "working");
    let raw = tcgetattr(&theirs).unwrap();
    assert_ne!(raw.local_modes, before.local_modes);
    // Ctrl-C is a key; the guest sends it back.
    ours.write_all(b"ab\x03z").unwrap();
    read_until(&mut ours, "ab\x03z");
    ours.write_all(b"\x1d").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let after = tcgetattr(&theirs).unwrap();
    assert_eq!(
        (
            after.local_modes,
            after.input_modes,
            after.output_modes,
            after.control_modes
        ),
        (
            before.local_modes,
            before.input_modes,
            before.output_modes,
            before.control_modes
        )
    );
}

#[test]
fn a_recording_that_cannot_be_written_ends_the_run() {
    let folder = Folder::new();
    let kernel = folder.file("kernel", guest::worker());
    let keys = folder.file("keys", vec![b'a'; 1 << 20]);
    let report = folder.text("report.json");
    // Files of at most 64 KiB, as on a disk that fills up: the write fails.
    let script = format!(
        "ulimit -f 128; exec {PROGRAM} run --kernel {kernel} --record {} \
         --report {report} --memory 8M <{keys} >/dev/null",
        folder.text("rec")
    );
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{err}");
    assert_eq!(
        err,
        format!(
            "twinvm run: the recording has failed, so the run was ended: {}: cannot write the log: \
             File too large (os error 27)\n",
            folder.text("rec/log")
        )
    );
    assert_eq!(json(&folder.path("report.json"))["exit"]["reason"], "fault");
    // What was written is good.
    let replay = twinvm(&["replay", &folder.text("rec")]);
    assert_eq!(replay.code, Some(0), "{replay:?}");
}
