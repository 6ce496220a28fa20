//! `twinvm replay`: equal, diverged, unreadable.

mod support;

use std::fs::{self, File};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{Folder, LIMIT, Running, guest, refuses, twinvm, twinvm_with};
use twinvm_log::{BatchBuilder, Body, RecordingReader, RecordingWriter};

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
    for line in [
        "  uart fifo",
        "    plain replay  []",
        "    this replay   [0x78]",
    ] {
        assert!(done.err.lines().any(|it| it == line), "{}", done.err);
    }
    let (code, found) = outcome(&[&sabotage[..], &["--json"]].concat());
    assert_eq!(code, Some(1));
    assert_eq!(found["outcome"], "diverged");
    let divergence = &found["divergence"];
    assert!(!divergence["what"].as_str().unwrap().is_empty());
    // The key came at the first slice end from step 20,000,000 on; slices have at most 600,000.
    let explanation = &divergence["explanation"];
    let step = explanation["icount"].as_u64().unwrap();
    assert!((20_000_000..20_600_000).contains(&step), "{explanation}");
    assert!(step <= divergence["icount"].as_u64().unwrap());
    assert_eq!(explanation["found"], "disturbance");
    assert_eq!(explanation["item"], "uart fifo");
    assert_eq!(explanation["left"], "[]");
    assert_eq!(explanation["right"], "[0x78]");
    let instructions = explanation["instructions"].as_array().unwrap();
    assert_eq!(instructions.len(), 16);
    assert_eq!(instructions[15]["icount"], step);
    let text = |it: &Value| it["text"].as_str().unwrap().to_owned();
    assert!(
        instructions.iter().any(|it| text(it) == "rdtime t0"),
        "{explanation}"
    );

    let (code, short) = outcome(&[&sabotage[..], &["--json", "--no-explain"]].concat());
    assert_eq!(code, Some(1));
    assert!(short["divergence"]["explanation"].is_null());
    assert_eq!(short["divergence"]["what"], divergence["what"]);
}

/// The recording in `dir` again in `to`, but its first key is another.
fn with_another_key(dir: &str, to: &Path) {
    let mut reader = RecordingReader::open(Path::new(dir)).unwrap();
    let (config, first) = (reader.config().to_vec(), reader.first_position());
    let snapshot = reader.take_snapshot();
    let mut writer = RecordingWriter::create(to, &config, first, &snapshot).unwrap();
    let mut other = Some(b'H');
    for entry in reader {
        let mut record = entry.unwrap().record;
        if let Body::ConsoleRx { bytes } = &mut record.body {
            bytes[0] = other.take().unwrap_or(bytes[0]);
        }
        let mut builder = BatchBuilder::new(writer.next_position());
        builder.push(&record).unwrap();
        writer.append(&builder.take().unwrap()).unwrap();
    }
    writer.finish().unwrap();
    assert_eq!(other, None, "nobody typed anything");
}

#[test]
fn a_plain_replay_that_diverges_is_compared_with_the_recording() {
    let folder = Folder::new();
    let dir = record(&folder);
    let (other, states) = (folder.text("other"), folder.path("other/states"));
    with_another_key(&dir, Path::new(&other));
    fs::copy(folder.path("rec/states"), &states).unwrap();

    let (code, found) = outcome(&["replay", &other, "--json"]);
    let explanation = &found["divergence"]["explanation"];
    assert_eq!(
        (code, &explanation["found"]),
        (Some(1), &"recording".into())
    );
    assert_eq!(explanation["icount"], 30_000_000);
    let item = explanation["item"].as_str().unwrap();
    // The guest keeps its keys from 0x80400000 on.
    assert!(item.starts_with("RAM page 0x80"), "{explanation}");
    assert!(explanation["left"].as_str().unwrap().starts_with("hash 0x"));
    assert_eq!(explanation["instructions"].as_array().unwrap().len(), 16);
    // A disturbed one finds that the plain one doesn't fit either.
    let (_, disturbed) = outcome(&["replay", &other, "--json", "--perturb", "3"]);
    assert_eq!(
        disturbed["divergence"]["explanation"]["item"],
        explanation["item"]
    );

    // Damaged, junk or missing, it only says less.
    flip(&states, |len| len / 2);
    let mut poorer = vec![outcome(&["replay", &other, "--json"])];
    fs::write(&states, "junk").unwrap();
    poorer.push(outcome(&["replay", &other, "--json"]));
    fs::remove_file(&states).unwrap();
    poorer.push(outcome(&["replay", &other, "--json"]));
    let notes = [
        "states: damaged at byte ",
        "states: not a file of states ",
        "the recording has no file states",
    ];
    for ((code, found), note) in poorer.into_iter().zip(notes) {
        assert_eq!(code, Some(1));
        let explanation = &found["divergence"]["explanation"];
        assert!(explanation["item"].is_null(), "{explanation}");
        let told = |it: &Value| it.as_str().unwrap().starts_with(note);
        assert!(
            explanation["notes"].as_array().unwrap().iter().any(told),
            "{explanation}"
        );
    }
    // And it is never in a good replay's way.
    fs::write(folder.path("rec/states"), "junk").unwrap();
    assert_eq!(outcome(&["replay", &dir, "--json"]).0, Some(0));
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

/// The step of the last record of a recording that may still grow.
fn recorded(dir: &Path) -> u64 {
    let records = RecordingReader::open(dir).ok().into_iter().flatten();
    let records = records.map_while(Result::ok);
    records.last().map_or(0, |entry| entry.record.icount)
}

#[test]
fn a_run_that_was_killed_leaves_a_good_recording() {
    let folder = Folder::new();
    let kernel = folder.file("kernel", guest::worker());
    let dir = folder.text("rec");
    let mut run = Running::start(&["run", "--kernel", &kernel, "--record", &dir]);
    run.line_with("working");
    // What is in the file now outlives it.
    let until = Instant::now() + LIMIT;
    while recorded(Path::new(&dir)) <= 1_000_000 {
        assert!(Instant::now() < until, "the recording doesn't grow");
        thread::sleep(Duration::from_millis(10));
    }
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

    fs::write(&log, &good[..20]).unwrap();
    refuses(
        &["replay", &dir],
        &format!(
            "twinvm replay: {}: log header is cut short: copy the file again; if it was always \
             so, record again",
            log.display()
        ),
    );

    fs::write(&log, good).unwrap();
    let snapshot = folder.path("rec/snapshot");
    flip(&snapshot, |len| len / 2);
    refuses(
        &["replay", &dir],
        &format!(
            "twinvm replay: {}: snapshot is damaged: its checksum differs; copy it again",
            snapshot.display()
        ),
    );
    cut(&snapshot, 100);
    refuses(
        &["replay", &dir],
        &format!(
            "twinvm replay: {}: snapshot is cut short: copy it again",
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
            &format!(
                "twinvm replay: {dir}/snapshot is missing: {dir} is not a complete recording; give \
                 the folder of --record"
            ),
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
