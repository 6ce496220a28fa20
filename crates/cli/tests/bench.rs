//! `twinvm bench` from outside: what it needs, and a comparison from its beginning to its end. A
//! second `twinvm` stands in for QEMU, so that no yardstick has to be installed.

mod support;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use support::executable::executable;
use support::{Folder, PROGRAM};

/// Two guests boot one after the other, on a host that has other work.
const LIMIT: Duration = Duration::from_secs(240);

/// Understands as much of QEMU's command line as the bench uses.
const STAND_IN: &str = r#"#!/bin/sh
case $1 in
--version) echo "QEMU emulator version 0 (a stand-in)"; exit ;;
esac
while [ $# -gt 0 ]; do
    case $1 in
    -m) memory=$2 ;;
    -kernel) kernel=$2 ;;
    -initrd) initrd=$2 ;;
    -append) cmdline=$2 ;;
    esac
    shift
done
exec "$PROGRAM" run --kernel "$kernel" --initrd "$initrd" --cmdline "$cmdline" --memory "$memory"
"#;

/// The image that `make image` leaves.
fn image() -> PathBuf {
    let image = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/image/redis");
    assert!(
        image.join("image.toml").exists(),
        "no guest image: run `make image` first (`make test` does)"
    );
    image.canonicalize().unwrap()
}

/// A search path on which the stand-in comes first.
fn path_with_stand_in(folder: &Folder) -> OsString {
    let program = folder.path("qemu-system-riscv64");
    executable(&program, STAND_IN.as_bytes());
    let rest = std::env::var_os("PATH").unwrap_or_default();
    let folders = [program.parent().unwrap().to_owned()];
    std::env::join_paths(folders.into_iter().chain(std::env::split_paths(&rest))).unwrap()
}

fn bench(folder: &Folder, path: &OsString, args: &[&str]) -> (Option<i32>, String, String) {
    let output = assert_cmd::Command::new(PROGRAM)
        .arg("bench")
        .args(args)
        .current_dir(folder.path(""))
        .env("PATH", path)
        .env("PROGRAM", PROGRAM)
        .timeout(LIMIT)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    (output.status.code(), out, err)
}

#[test]
fn what_is_missing_is_said_in_one_line_with_what_brings_it() {
    let folder = Folder::new();
    let (code, out, err) = bench(&folder, &OsString::new(), &["cpu"]);
    assert_eq!((code, out.as_str()), (Some(2), ""), "{err}");
    assert!(err.starts_with("twinvm bench: no qemu-system-riscv64 in PATH"));
    assert!(
        err.contains("`make bench` installs it") && err.lines().count() == 1,
        "{err}"
    );

    let path = path_with_stand_in(&folder);
    let (code, out, err) = bench(&folder, &path, &["cpu"]);
    assert_eq!((code, out.as_str()), (Some(2), ""), "{err}");
    assert!(err.starts_with("twinvm bench: no Debian image in target/image/debian"));
    assert!(
        err.contains("make image-debian") && err.lines().count() == 1,
        "{err}"
    );
    assert_eq!(folder.names(), ["qemu-system-riscv64"]);
}

#[test]
fn the_same_work_in_both_guests_with_its_steps() {
    let folder = Folder::new();
    let path = path_with_stand_in(&folder);
    let image = image();
    let args = [
        "cpu",
        "--programs",
        "ash,gzip",
        "--scale",
        "0.02",
        "--runs",
        "2",
        "--json",
        "--dir",
        "bench",
        "--image",
        image.to_str().unwrap(),
    ];
    let (code, out, err) = bench(&folder, &path, &args);
    assert_eq!(code, Some(0), "{err}");
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(report["against"], "qemu");
    assert!(report["geomean"].as_f64().unwrap() > 0.0, "{out}");
    let rows = report["rows"].as_array().unwrap();
    // At this size they are some ten and some hundred million steps.
    for (row, (name, least)) in rows.iter().zip([("ash", 20e6), ("gzip", 50e6)]) {
        assert_eq!(row["name"], name);
        let steps = row["ours_steps"].as_f64().unwrap();
        assert!((least..least * 10.0).contains(&steps), "{row}");
        let seconds = |key: &str| row[key].as_f64().unwrap();
        assert!(
            seconds("ours_cpu_s") > 0.0 && seconds("other_cpu_s") > 0.0,
            "{row}"
        );
        let ratio = seconds("other_cpu_s") / seconds("ours_cpu_s");
        assert!((seconds("ratio") - ratio).abs() < 1e-9, "{row}");
        assert_eq!(row["ours_samples_cpu_s"].as_array().unwrap().len(), 2);
    }
    assert_eq!(rows.len(), 2);
    // What a recording holds doesn't stay; the samples do.
    assert!(!folder.path("bench/record/recording/log").exists());
    assert!(folder.path("bench/bench.json").exists());
}
