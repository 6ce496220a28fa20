//! `--perf-map`: names of translated code, for perf.

#![cfg(all(feature = "jit", target_arch = "x86_64", target_os = "linux"))]

mod support;

use std::fs;
use std::ops::Range;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{Folder, LIMIT, Running, guest, refuses, twinvm, twinvm_with};

/// The map of a process; gone at the end.
struct Map(PathBuf);

impl Map {
    fn of(running: &Running) -> Self {
        Self(PathBuf::from(format!(
            "/tmp/perf-{}.map",
            running.child.id()
        )))
    }

    /// Each line: what addresses, and their name.
    fn lines(&self) -> Vec<(Range<u64>, String)> {
        let text = fs::read_to_string(&self.0).unwrap_or_default();
        let hex = |text: &str| u64::from_str_radix(text, 16).unwrap();
        // The last line may be on its way.
        text.split_inclusive('\n')
            .filter_map(|line| line.strip_suffix('\n'))
            .map(|line| {
                let parts: Vec<&str> = line.split(' ').collect();
                let [start, bytes, name] = parts[..] else {
                    panic!("not a line of a map: {line:?}");
                };
                (hex(start)..hex(start) + hex(bytes), name.to_owned())
            })
            .collect()
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// The executable memory of a process that is no file's, as perf sees it.
fn executable(pid: u32) -> Vec<Range<u64>> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let hex = |text: &str| u64::from_str_radix(text, 16).unwrap();
    maps.lines()
        .filter(|line| line.contains(" r-xs ") && line.contains(" /dev/zero"))
        .map(|line| {
            let addresses = line.split(' ').next().unwrap();
            let (start, end) = addresses.split_once('-').unwrap();
            hex(start)..hex(end)
        })
        .collect()
}

#[test]
fn names_of_translated_code_lie_where_perf_looks() {
    let folder = Folder::new();
    let kernel = folder.file("kernel", guest::worker());
    let mut running = Running::start(&[
        "run",
        "--kernel",
        &kernel,
        "--memory",
        "8M",
        "--engine",
        "jit",
        "--perf-map",
    ]);
    let map = Map::of(&running);
    running.line_with("working");
    // The guest's loop has been running for some time when it has its name.
    let until = Instant::now() + LIMIT;
    let looped =
        |name: &String| name.starts_with("guest_0x800000") && name.contains("_pa_0x800000");
    while !map.lines().iter().any(|(_, name)| looped(name)) {
        assert!(
            Instant::now() < until,
            "its name is not there: {:x?}",
            map.lines()
        );
        thread::sleep(Duration::from_millis(10));
    }
    let memory = executable(running.child.id());
    running.signal("INT");
    assert_eq!(running.wait(), Some(130));
    // All that was translated, now that no more comes.
    let mut lines = map.lines();
    for (addresses, name) in &lines {
        assert!(name.starts_with("guest_"), "{name}");
        let inside = |memory: &Range<u64>| {
            memory.contains(&addresses.start) && memory.contains(&(addresses.end - 1))
        };
        assert!(memory.iter().any(inside), "{name}: {addresses:x?}");
    }
    lines.sort_by_key(|(addresses, _)| addresses.start);
    for pair in lines.windows(2) {
        assert!(pair[0].0.end <= pair[1].0.start, "{pair:x?}");
    }
}

#[test]
fn a_replay_with_names_is_equal() {
    let folder = Folder::new();
    let kernel = folder.file("kernel", guest::worker());
    let dir = folder.text("rec");
    let run = ["run", "--kernel", &kernel, "--memory", "8M"];
    let record = ["--record", &dir, "--max-instructions", "3000000"];
    let done = twinvm_with(&[&run[..], &record].concat(), "hello");
    assert_eq!(done.code, Some(124), "{done:?}");
    let plain: Value = serde_json::from_str(&twinvm(&["replay", &dir, "--json"]).out).unwrap();

    let mut running = Running::start(&["replay", &dir, "--json", "--engine", "jit", "--perf-map"]);
    let map = Map::of(&running);
    let digest = running.line_with("\"digest\"");
    assert_eq!(running.wait(), Some(0));
    assert!(digest.contains(plain["digest"].as_str().unwrap()));
    assert!(map.lines().len() > 1);
}

#[test]
fn without_translation_there_are_no_names() {
    let folder = Folder::new();
    let kernel = folder.file("kernel", guest::worker());
    refuses(
        &[
            "run",
            "--kernel",
            &kernel,
            "--engine",
            "interp",
            "--perf-map",
        ],
        "twinvm run: --perf-map: nothing is translated on this host or with this engine",
    );
}
