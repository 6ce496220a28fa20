//! `twinvm run --snapshot`: a run that ends, and others that go on from there.

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use support::{Folder, PROGRAM, Running, guest, json, refuses, twinvm, twinvm_with};
use twinvm_host::snapshot_file;
use twinvm_machine::{
    DiskConfig, DiskOp, Images, Machine, MachineConfig, OnReset, PowerOn, SlotConfig, VIRTIO_SLOTS,
};

const MEMORY: &str = "8M";

/// The machine in a snapshot's file.
fn machine(path: &Path) -> Machine {
    snapshot_file::restore(path).unwrap()
}

fn digest(machine: &mut Machine) -> String {
    format!("{:032x}", machine.digest().total())
}

#[test]
fn a_limit_freezes_the_guest_and_a_run_goes_on() {
    let folder = Folder::new();
    let kernel = folder.file("kernel", guest::worker());
    let (snap, rec, report) = (
        folder.text("snap"),
        folder.text("rec"),
        folder.text("report.json"),
    );
    let args = [
        "run",
        "--kernel",
        &kernel,
        "--memory",
        MEMORY,
        "--snapshot",
        &snap,
        "--report",
        &report,
    ];
    let limit = ["--max-instructions", "50003", "--record", &rec];
    let done = twinvm(&[&args[..], &limit].concat());
    let bytes = fs::metadata(&snap).unwrap().len();
    assert_eq!(
        (done.code, done.out.as_str(), done.err.as_str()),
        (
            Some(124),
            "working\n",
            format!(
                "twinvm run: stopped after 50003 steps (--max-instructions)\n\
                 twinvm run: snapshot {snap}: step 50003, {bytes} bytes\n"
            )
            .as_str()
        )
    );
    let mut frozen = machine(Path::new(&snap));
    let end = json(&folder.path("report.json"));
    assert_eq!((frozen.icount(), &end["icount"]), (50_003, &50_003.into()));
    assert_eq!(end["digest"], digest(&mut frozen));
    let replay = twinvm(&["replay", &rec]);
    assert_eq!(replay.code, Some(0), "{replay:?}");

    // From one snapshot to the next, which may have the same name; a guest that ends has none.
    let from = ["run", "--from", &snap, "--snapshot", &snap, "--force"];
    let done = twinvm(&[&from[..], &["--max-instructions", "60000"]].concat());
    assert_eq!((done.code, done.out.as_str()), (Some(124), ""), "{done:?}");
    assert_eq!(machine(Path::new(&snap)).icount(), 60_000);
    let next = folder.text("next");
    let done = twinvm_with(&["run", "--from", &snap, "--snapshot", &next], "abq");
    let none =
        format!("twinvm run: no snapshot {next}: the guest has ended by itself, it can't go on\n");
    assert_eq!(
        (done.code, done.out, done.err),
        (Some(0), "abq".to_owned(), none)
    );
    assert_eq!(folder.names(), ["kernel", "rec", "report.json", "snap"]);
}

#[test]
fn a_signal_freezes_the_guest() {
    for signal in ["TERM", "INT", "HUP"] {
        let folder = Folder::new();
        let kernel = folder.file("kernel", guest::worker());
        let snap = folder.text("snap");
        let mut run = Running::start(&["run", "--kernel", &kernel, "--snapshot", &snap]);
        run.line_with("working");
        run.signal(signal);
        assert_eq!(run.wait(), Some(130), "{signal}");
        let done = twinvm_with(&["run", "--from", &snap], "xyzq");
        assert_eq!(
            (done.code, done.out.as_str()),
            (Some(0), "xyzq"),
            "{signal}"
        );
    }
}

/// Step at which the guest's disk request has just been made.
fn step_of_request(sectors: u64) -> u64 {
    let config = MachineConfig {
        ram_bytes: 8 << 20,
        harts: 1,
        slots: vec![SlotConfig::Disk(DiskConfig {
            sectors,
            read_only: false,
            number: 0,
        })],
        cmdline: String::new(),
        images: Images::new(guest::disk_writer(), None),
        on_reset: OnReset::Restart,
    };
    let power_on = PowerOn {
        rng_seed: [7; 32],
        rtc_base_ns: 1,
    };
    let mut machine = Machine::new(config, power_on).unwrap();
    while machine.disk_requests(&mut [0; VIRTIO_SLOTS]).is_empty() {
        assert!(machine.icount() < 10_000, "it asks for nothing");
        machine.run(machine.icount() + 1);
    }
    machine.icount()
}

#[test]
fn a_request_in_flight_is_carried_out_by_whoever_goes_on() {
    let folder = Folder::new();
    let kernel = folder.file("kernel", guest::disk_writer());
    let disk = folder.file("disk", [0; 4096]);
    let snap = folder.text("snap");
    let limit = step_of_request(8).to_string();
    let done = twinvm(&[
        "run",
        "--kernel",
        &kernel,
        "--memory",
        MEMORY,
        "--disk",
        &disk,
        "--snapshot",
        &snap,
        "--max-instructions",
        &limit,
    ]);
    assert_eq!((done.code, done.out.as_str()), (Some(124), ""), "{done:?}");
    let requests = machine(Path::new(&snap)).disk_requests(&mut [0; VIRTIO_SLOTS]);
    let kinds: Vec<_> = requests.iter().map(|r| (r.op, r.offset, r.bytes)).collect();
    assert_eq!(kinds, [(DiskOp::Write { durable: true }, 0, 512)]);
    // The file is at rest: what was under way has been done, and is done again.
    let first = |path: &str| fs::read(path).unwrap()[..4].to_vec();
    assert_eq!(first(&disk), guest::WRITTEN.to_le_bytes());
    for name in ["copy", "other"] {
        let copy = folder.file(name, [0; 4096]);
        let done = twinvm(&["run", "--from", &snap, "--disk", &copy]);
        assert_eq!(
            (done.code, done.out.as_str(), done.err.as_str()),
            (Some(0), "written\n", "")
        );
        assert_eq!(first(&copy), guest::WRITTEN.to_le_bytes());
    }

    let from = format!("twinvm run: --from {snap}: ");
    let count = |given: usize| {
        format!(
            "{from}number of disks: 1 in the snapshot, {given} given: give the file of each, in \
             their order, with --disk FILE or by VM.toml"
        )
    };
    let args = ["run", "--from", &snap];
    refuses(&args, &count(0));
    let copy = folder.text("copy");
    let two = ["--disk", &disk, "--disk", &copy];
    refuses(&[&args[..], &two].concat(), &count(2));
    let larger = folder.file("larger", [0; 8192]);
    let done = twinvm(&[&args[..], &["--disk", &larger]].concat());
    assert_eq!(done.code, Some(2), "{done:?}");
    assert!(
        done.err.starts_with(&format!("{from}virtio slot 0 is ")) && done.err.lines().count() == 1,
        "{done:?}"
    );
}

#[test]
fn files_that_are_refused_before_anything_runs() {
    let folder = Folder::new();
    let kernel = folder.file("kernel", guest::hello());
    let rec = folder.text("rec");
    let refused = |path: &str, why: &str| {
        let before = folder.names();
        refuses(
            &[
                "run",
                "--kernel",
                &kernel,
                "--record",
                &rec,
                "--snapshot",
                path,
            ],
            &format!("twinvm run: --snapshot {path}: {why}"),
        );
        assert_eq!(folder.names(), before);
    };
    let taken = folder.file("taken", "precious");
    refused(
        &taken,
        "exists already: choose another name, or --force to replace it",
    );
    assert_eq!(fs::read(&taken).unwrap(), b"precious");
    fs::create_dir(folder.path("folder")).unwrap();
    refused(&folder.text("folder"), "is no file: give another name");
    let absent = folder.text("absent");
    refused(
        &format!("{absent}/snap"),
        &format!("there is no folder {absent}: make it first"),
    );
    refused(
        &folder.text(&"n".repeat(250)),
        "can't be written: File name too long (os error 36)",
    );
}

#[test]
fn a_file_system_that_is_full_is_said_and_leaves_nothing() {
    let folder = Folder::new();
    let kernel = folder.file("kernel", guest::worker());
    let snap = folder.file("snap", "precious");
    let report = folder.text("report.json");
    // As on a file system that is full.
    let script = "ulimit -f 100; exec \"$0\" \"$@\"";
    let done = Command::new("sh")
        .args(["-c", script, PROGRAM, "run", "--kernel", &kernel])
        .args(["--memory", MEMORY, "--max-instructions", "1000000"])
        .args(["--snapshot", &snap, "--force", "--report", &report])
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&done.stderr),
        format!("twinvm run: --snapshot {snap}: can't be written: File too large (os error 27)\n")
    );
    assert_eq!(done.status.code(), Some(125));
    assert_eq!(fs::read(&snap).unwrap(), b"precious");
    let exit = &json(&folder.path("report.json"))["exit"];
    assert_eq!(
        (&exit["reason"], &exit["code"]),
        (&"fault".into(), &125.into())
    );
    assert_eq!(folder.names(), ["kernel", "report.json", "snap"]);
}
