//! `twinvm replay`: equal, diverged, unreadable.

mod support;

use std::fs::{self, File};
use std::path::Path;
use std::thread;
use std::time::Duration;

use serde_json::Value;
use support::{Folder, Running, guest, refuses, twinvm, twinvm_with};
use twinvm_log::RecordingWriter;

/// A recording of the worker with some keys; its folder inside `folder`.
fn record(folder: &Folder) -> String {
    let kernel = folder.file("kernel", guest::worker());
    let dir = folder.text("rec");
    let args = [
        "run", "--kernel", &kernel, "--memory", "8M", "--record", &dir,
    ];
    let limit = ["--max-instructions", "30000000"];
    let done = twinvm_with(&[&args[..], &limit].concat(), "hello");
    assert_eq!(done.code, Some(124), "{done:?}");
    dir
}

fn outcome(args: &[&str]) -> (Option<i32>, Value) {
    let done = twinvm(args);
    let value = serde_json::from_str(&done.out).unwrap_or_else(|error| panic!("{error}: {done:?}"));
    (done.code, value)
}

/// Cuts a file off; its length before.
fn cut(path: &Path, by: u64) -> u64 {
    let len = fs::metadata(path).unwrap().len();
    File::options()
        .write(true)
        .open(path)
        .unwrap()
        .set_len(len - by)
        .unwrap();
    len
}

fn flip(path: &Path, at: impl Fn(usize) -> usize) -> usize {
    let mut bytes = fs::read(path).unwrap();
    let at = at(bytes.len());
    bytes[at] ^= 0x10;
    fs::write(path, bytes).unwrap();
    at
}

#[test]
fn a_recording_replays_equal_and_perturbed_too() {
    let folder = Folder::new();
    let dir = record(&folder);
    let (code, plain) = outcome(&["replay", &dir, "--json"]);
    assert_eq!(code, Some(0));
    assert_eq!(plain["outcome"], "equal");
    assert_eq!(plain["recording"], "finished");
    assert_eq!(plain["icount"], 30_000_000);
    let (code, perturbed) = outcome(&["replay", &dir, "--perturb", "5", "--json"]);
    assert_eq!(code, Some(0));
    assert_eq!(perturbed["digest"], plain["digest"]);
    assert_eq!(perturbed["perturbation"]["seed"], 5);

    let console = twinvm(&["replay", &dir, "--console"]);
    assert_eq!(console.out, "working\nhello");
    assert!(
        console.err.starts_with("equal: 30000000 steps, "),
        "{}",
        console.err
    );
}

#[test]
fn until_stops_at_the_step_whatever_the_slices() {
    let folder = Folder::new();
    let dir = record(&folder);
    let until = ["replay", &dir, "--json", "--until", "12345678"];
    let (code, plain) = outcome(&until);
    assert_eq!((code, &plain["icount"]), (Some(0), &12_345_678.into()));
    let (_, perturbed) = outcome(&[&until[..], &["--perturb", "9"]].concat());
    assert_eq!(perturbed["digest"], plain["digest"]);
    assert_eq!(perturbed["position"], plain["position"]);
    refuses(
        &["replay", &dir, "--until", "30000001"],
        "twinvm replay: --until 30000001: the recording goes from step 0 to step 30000000",
    );
}

#[test]
fn input_that_is_not_in_the_log_is_found() {
    let folder = Folder::new();
    let dir = record(&folder);
    let sabotage = ["replay", &dir, "--perturb", "1", "--sabotage", "20000000"];
    let done = twinvm(&sabotage);
    assert_eq!((done.code, done.out.as_str()), (Some(1), ""));
    assert!(
        done.err.starts_with("twinvm replay: diverged at position "),
        "{}",
        done.err
    );
    let (code, found) = outcome(&[&sabotage[..], &["--json"]].concat());
    assert_eq!(code, Some(1));
    assert_eq!(found["outcome"], "diverged");
    assert!(found["divergence"]["icount"].as_u64().unwrap() >= 20_000_000);
    assert!(!found["divergence"]["what"].as_str().unwrap().is_empty());
}

#[test]
fn a_torn_end_is_left_out() {
    let folder = Folder::new();
    let dir = record(&folder);
    cut(&folder.path("rec/log"), 3);
    let (code, torn) = outcome(&["replay", &dir, "--json"]);
    assert_eq!((code, &torn["recording"]), (Some(0), &"torn".into()));
    let done = twinvm(&["replay", &dir]);
    assert!(
        done.err
            .starts_with("twinvm replay: the log is cut short inside a batch: replaying the "),
        "{}",
        done.err
    );
    assert!(done.out.starts_with("equal: "), "{}", done.out);
}

#[test]
fn a_run_that_was_killed_leaves_a_good_recording() {
    let folder = Folder::new();
    let kernel = folder.file("kernel", guest::worker());
    let dir = folder.text("rec");
    let mut run = Running::start(&["run", "--kernel", &kernel, "--record", &dir]);
    run.line_with("working");
    thread::sleep(Duration::from_millis(300));
    run.signal("KILL");
    assert_eq!(run.wait(), None);
    let (code, replay) = outcome(&["replay", &dir, "--json"]);
    assert_eq!(code, Some(0), "{replay}");
    assert!(replay["icount"].as_u64().unwrap() > 1_000_000, "{replay}");
    assert_ne!(replay["recording"], "finished");
}

#[test]
fn damage_is_refused_before_anything_runs() {
    let folder = Folder::new();
    let dir = record(&folder);
    let log = folder.path("rec/log");
    let good = fs::read(&log).unwrap();
    flip(&log, |len| len - 20);
    let done = twinvm(&["replay", &dir]);
    assert_eq!((done.code, done.out.as_str()), (Some(2), ""), "{done:?}");
    let start = format!("twinvm replay: {}: damaged batch at byte ", log.display());
    assert!(done.err.starts_with(&start), "{}", done.err);
    assert_eq!(done.err.lines().count(), 1);

    fs::write(&log, good).unwrap();
    let snapshot = folder.path("rec/snapshot");
    flip(&snapshot, |len| len / 2);
    refuses(
        &["replay", &dir],
        &format!(
            "twinvm replay: {}: snapshot is damaged: its checksum differs",
            snapshot.display()
        ),
    );
    cut(&snapshot, 100);
    refuses(
        &["replay", &dir],
        &format!(
            "twinvm replay: {}: snapshot is cut short",
            snapshot.display()
        ),
    );
}

#[test]
fn what_is_no_recording_is_refused() {
    let folder = Folder::new();
    fs::create_dir(folder.path("empty")).unwrap();
    for name in ["empty", "absent"] {
        let dir = folder.text(name);
        refuses(
            &["replay", &dir],
            &format!("twinvm replay: {dir}/snapshot is missing: {dir} is not a complete recording"),
        );
    }
    fs::create_dir(folder.path("junk")).unwrap();
    let file = folder.file("junk/snapshot", "something else");
    refuses(
        &["replay", &folder.text("junk")],
        &format!(
            "twinvm replay: {file}: snapshot is not one of twinvm's: it doesn't start with \
             \"twinvsnp\""
        ),
    );
}

#[test]
fn another_machine_version_is_refused_by_name() {
    let folder = Folder::new();
    let dir = folder.path("rec");
    let config = r#"[["machine_version","9999"],["memory","8388608"]]"#;
    RecordingWriter::create(&dir, config.as_bytes(), 0, b"of another format")
        .unwrap()
        .finish()
        .unwrap();
    refuses(
        &["replay", &folder.text("rec")],
        &format!(
            "twinvm replay: {}/log: machine_version is 9999 in the recording, {} here: replay it \
             with the twinvm that made it",
            dir.display(),
            twinvm_machine::MACHINE_VERSION
        ),
    );
}
