//! `twinvm run --from`: a run that goes on from a snapshot.

mod support;

use std::fs;

use support::{Folder, guest, json, refuses, twinvm, twinvm_with};
use twinvm_machine::{Exit, Images, Machine, MachineConfig, OnReset, PowerOn, SlotConfig};

/// The step of the snapshot.
const STEP: u64 = 100_000;
const MEMORY: u64 = 8 << 20;

/// A guest that computes, says so, echoes its keys and powers off at `q`.
fn machine() -> Machine {
    let config = MachineConfig {
        ram_bytes: MEMORY,
        harts: 1,
        slots: vec![SlotConfig::Rng],
        cmdline: String::new(),
        images: Images::new(guest::worker(), None),
        on_reset: OnReset::Restart,
    };
    let power_on = PowerOn {
        rng_seed: [7; 32],
        rtc_base_ns: 1_700_000_000_000_000_000,
    };
    let mut machine = Machine::new(config, power_on).unwrap();
    assert_eq!(machine.run(STEP), Exit::Limit);
    assert_eq!(machine.take_console(), b"working\n");
    machine
}

/// A folder with the snapshot in `snap`; its path.
fn snapshot(folder: &Folder) -> String {
    folder.file("snap", machine().save(true).unwrap())
}

#[test]
fn the_guest_goes_on_with_nothing_but_the_file() {
    let folder = Folder::new();
    let snap = snapshot(&folder);
    let report = folder.text("report.json");
    let done = twinvm_with(&["run", "--from", &snap, "--report", &report], "abcq");
    // What it said before the snapshot is not said again.
    assert_eq!(
        (done.code, done.out.as_str(), done.err.as_str()),
        (Some(0), "abcq", "")
    );
    let icount = json(&folder.path("report.json"))["icount"].as_u64();
    assert!(icount.unwrap() > STEP);
    // Steps are counted since power-on.
    let limit = (STEP + 77).to_string();
    let args = ["run", "--from", &snap, "--report", &report];
    let done = twinvm(&[&args[..], &["--max-instructions", &limit]].concat());
    assert_eq!(done.code, Some(124), "{done:?}");
    assert_eq!(json(&folder.path("report.json"))["icount"], STEP + 77);
    // What is said of the machine may be said if it is so.
    let kernel = folder.file("kernel", guest::worker());
    let same = ["--memory", "8M", "--kernel", &kernel, "--harts", "1"];
    let done = twinvm_with(&[&args[..], &same].concat(), "q");
    assert_eq!(done.code, Some(0), "{done:?}");
}

#[test]
fn a_recording_that_begins_with_a_snapshot_replays_equal_and_perturbed_too() {
    let folder = Folder::new();
    let snap = snapshot(&folder);
    let rec = folder.text("rec");
    let done = twinvm_with(
        &["run", "--from", &snap, "--record", &rec],
        [&b"x".repeat(3000)[..], b"q"].concat(),
    );
    assert_eq!(done.code, Some(0), "{done:?}");
    let plain = twinvm(&["replay", &rec, "--json"]);
    assert_eq!(plain.code, Some(0), "{plain:?}");
    let plain: serde_json::Value = serde_json::from_str(&plain.out).unwrap();
    for seed in ["1", "2"] {
        let done = twinvm(&["replay", &rec, "--json", "--perturb", seed]);
        assert_eq!(done.code, Some(0), "{done:?}");
        let found: serde_json::Value = serde_json::from_str(&done.out).unwrap();
        assert_eq!(
            (&found["icount"], &found["digest"]),
            (&plain["icount"], &plain["digest"])
        );
    }
    let early = (STEP - 1).to_string();
    let done = twinvm(&["replay", &rec, "--until", &early]);
    assert_eq!(done.code, Some(2), "{done:?}");
}

/// Nothing runs and nothing is left.
#[track_caller]
fn from_refuses(folder: &Folder, more: &[&str], line: &str) {
    let before = folder.names();
    let (snap, record) = (folder.text("snap"), folder.text("new-rec"));
    let all = [&["run", "--from", &snap, "--record", &record], more].concat();
    refuses(&all, &format!("twinvm run: {line}"));
    assert_eq!(folder.names(), before);
}

#[test]
fn what_contradicts_the_snapshot_is_named() {
    let folder = Folder::new();
    let snap = snapshot(&folder);
    let differs = |field: &str, theirs: &str, ours: &str, here: &str| {
        format!(
            "--from {snap}: {field} is {theirs:?} in the snapshot, {ours:?} {here}: a snapshot \
             goes on as the machine that it is"
        )
    };
    let options = "by the options";
    for (option, value, field, theirs, ours) in [
        ("--memory", "16M", "memory", "8388608", "16777216"),
        ("--harts", "2", "harts", "1", "2"),
        ("--cmdline", "quiet", "cmdline", "", "quiet"),
        ("--on-reset", "exit", "on_reset", "restart", "exit"),
    ] {
        from_refuses(
            &folder,
            &[option, value],
            &differs(field, theirs, ours, options),
        );
    }
    let other = folder.file("other", guest::hello());
    let hash = |field: &str| {
        let fields = machine().config().fields();
        fields
            .into_iter()
            .find(|(name, _)| name == field)
            .unwrap()
            .1
    };
    let mut theirs = machine().config().clone();
    theirs.images = Images::new(guest::hello(), None);
    let ours = theirs
        .fields()
        .into_iter()
        .find(|(name, _)| name == "kernel");
    from_refuses(
        &folder,
        &["--kernel", &other],
        &differs("kernel", &hash("kernel"), &ours.unwrap().1, options),
    );
    // A VM's file describes all of it, cards too.
    let kernel = folder.file("kernel", guest::worker());
    let vm = folder.file(
        "VM.toml",
        format!(
            "name = \"w\"\nmemory = \"8M\"\nkernel = {kernel:?}\n[[net]]\n\
             mac = \"52:54:00:12:34:56\"\nbackend = \"lan:lan.sock\"\n"
        ),
    );
    from_refuses(
        &folder,
        &[&vm],
        &differs(
            "virtio slot 0",
            "entropy",
            "network card 52:54:00:12:34:56",
            &format!("by {vm} and options"),
        ),
    );
    from_refuses(
        &folder,
        &["--max-instructions", "100000"],
        "--max-instructions 100000: the snapshot is of step 100000 already, and steps are counted \
         since power-on: give more than 100000",
    );
}

#[test]
fn what_is_no_good_snapshot_is_said_in_one_line() {
    let folder = Folder::new();
    let snap = snapshot(&folder);
    let good = fs::read(folder.path("snap")).unwrap();
    let put = |bytes: &[u8]| fs::write(folder.path("snap"), bytes).unwrap();

    let mut damaged = good.clone();
    let middle = damaged.len() - 300;
    damaged[middle] ^= 4;
    put(&damaged);
    let again = "copy the file again, or make a new one";
    let line = format!("--from {snap}: the snapshot is damaged: its checksum is wrong: {again}");
    from_refuses(&folder, &[], &line);

    let cut = &good[..good.len() - 300];
    put(cut);
    let line = format!(
        "--from {snap}: the snapshot is cut short after {} bytes: {again}",
        cut.len()
    );
    from_refuses(&folder, &[], &line);

    let older = "go on from it with the twinvm that made it, or make a new one";
    let name = b"machine_version";
    let at = good.windows(name.len()).position(|w| w == name).unwrap() + name.len() + 1;
    let mut other = good.clone();
    let ours = char::from(other[at]);
    other[at] = b'9';
    put(&other);
    let line = format!(
        "--from {snap}: the snapshot's machine_version is \"9\", this machine's is \"{ours}\"; \
         both must be equal: {older}"
    );
    from_refuses(&folder, &[], &line);

    let foreign = "not a snapshot of twinvm: give a file of `twinvm run --snapshot` or `twinvm \
                   ctl ... snapshot`";
    for bytes in [&b""[..], b"#!/bin/sh\necho hello\n"] {
        put(bytes);
        from_refuses(&folder, &[], &format!("--from {snap}: {foreign}"));
    }
    put(b"twinvmSN\xff\0\0\0\x10\0\0\0");
    let line =
        format!("--from {snap}: a snapshot of format 255, this version reads format 2: {older}");
    from_refuses(&folder, &[], &line);

    put(&machine().save(false).unwrap());
    let line = format!(
        "--from {snap}: the snapshot holds no kernel: make a new one with `twinvm run --snapshot`"
    );
    from_refuses(&folder, &[], &line);

    fs::remove_file(folder.path("snap")).unwrap();
    let line = format!("--from {snap}: can't be read: No such file or directory (os error 2)");
    from_refuses(&folder, &[], &line);
    fs::create_dir(folder.path("snap")).unwrap();
    from_refuses(
        &folder,
        &[],
        &format!("--from {snap}: is no file: give another name"),
    );
}
