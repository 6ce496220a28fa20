//! Disks of `twinvm run`: files that are refused, and a Linux guest that reads and writes one, with
//! a host whose file fails; all of it recorded and replayed without the file. What is typed and
//! printed goes through a virtio console.

mod support;

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::process::Command;
use std::thread;

use serde_json::Value;
use support::{Folder, PROGRAM, Running, guest, json, refuses, shell_with_disk, twinvm};

fn disk(folder: &Folder, name: &str, bytes: u64) -> String {
    let path = folder.path(name);
    File::create(&path).unwrap().set_len(bytes).unwrap();
    folder.text(name)
}

#[test]
fn files_that_are_refused() {
    let folder = Folder::new();
    let kernel = folder.file("kernel", guest::hello());
    let record = folder.text("rec");
    let refused = |path: &str, why: &str| {
        let before = folder.names();
        refuses(
            &[
                "run", "--kernel", &kernel, "--record", &record, "--disk", path,
            ],
            &format!("twinvm run: disk {path}: {why}"),
        );
        assert_eq!(folder.names(), before);
    };
    refused(
        &folder.text("absent"),
        "there is no such file: make it, for instance with truncate -s 4G FILE",
    );
    refused(
        &disk(&folder, "empty", 0),
        "the file is empty: give it a size, for instance with truncate -s 4G FILE",
    );
    refused(
        &disk(&folder, "odd", 513),
        "513 bytes are not a multiple of 512: a raw disk image is whole sectors",
    );
    fs::create_dir(folder.path("folder")).unwrap();
    refused(
        &folder.text("folder"),
        "a folder, not a regular file: give a raw disk image",
    );
    let fixed = disk(&folder, "fixed", 512);
    fs::set_permissions(&fixed, Permissions::from_mode(0o444)).unwrap();
    refused(
        &fixed,
        "the file is read-only: make it writable, or set readonly = true",
    );
    let file = folder.file(
        "VM.toml",
        "name = \"x\"\nkernel = \"kernel\"\n[[disk]]\npath = \"fixed\"\nreadonly = true\n",
    );
    assert_eq!(twinvm(&["run", &file]).code, Some(0));

    let good = disk(&folder, "good", 512);
    refuses(
        &["run", &file, "--disk", &good, "--disk", &good],
        &format!(
            "twinvm run: disk {good}: locked by another disk of this VM: a disk belongs to one VM \
             at a time"
        ),
    );
    let mut many = vec!["run", "--kernel", &kernel];
    let disks: Vec<String> = (0..8)
        .map(|n| disk(&folder, &format!("disk{n}"), 512))
        .collect();
    for disk in &disks {
        many.extend(["--disk", disk]);
    }
    refuses(
        &many,
        "twinvm run: 0 network cards and 8 disks: at most 7 devices fit beside the entropy device \
         on the board's eight slots",
    );
    assert_eq!(twinvm(&many[..many.len() - 2]).code, Some(0));
    many.truncate(many.len() - 2);
    many.extend(["--console", "virtio"]);
    refuses(
        &many,
        "twinvm run: 0 network cards and 7 disks: at most 6 devices fit beside the entropy device \
         and the console on the board's eight slots",
    );
}

#[test]
fn a_disk_that_another_vm_has() {
    let folder = Folder::new();
    let kernel = folder.file("kernel", guest::sleep());
    let path = disk(&folder, "disk", 4096);
    let args = ["run", "--kernel", &kernel, "--disk", &path];
    let mut holder = Running::start(&args);
    holder.line_with("asleep");
    refuses(
        &args,
        &format!(
            "twinvm run: disk {path}: locked by process {}: a disk belongs to one VM at a time",
            holder.child.id()
        ),
    );
    holder.signal("TERM");
    assert_eq!(holder.wait(), Some(130));
}

#[test]
fn a_node_without_a_file_needs_to_know_its_size() {
    let folder = Folder::new();
    let text = "name = \"x\"\nkernel = \"k\"\narbiter = \"file:arbiter\"\n\
         [[node]]\nname = \"a\"\nchannel = \"127.0.0.1:7001\"\n\
         [[node]]\nname = \"b\"\nchannel = \"127.0.0.1:7002\"\n\
         [[disk]]\npath = \"disk\"\n";
    let file = folder.file("VM.toml", text);
    let path = folder.text("disk");
    refuses(
        &["node", &file, "--name", "a"],
        &format!(
            "twinvm node: disk {path}: there is no such file: make it, for instance with truncate \
             -s 4G FILE; a node that is to get it from the other one needs its size: size = \"4G\" \
             in [[disk]]"
        ),
    );
    assert_eq!(folder.names(), ["VM.toml"]);
    folder.file("VM.toml", text.to_owned() + "size = \"8M\"\n");
    disk(&folder, "disk", 4096);
    refuses(
        &["node", &file, "--name", "a"],
        &format!("twinvm node: disk {path}: 4096 bytes, but size says 8388608: make them equal"),
    );
}

const MIB: u64 = 1 << 20;
/// Larger than a file may become in this run, and sparse.
const DISK_BYTES: u64 = 1024 * MIB;
/// The most that a file may become: above snapshot, log and the parts of the disk that are to be
/// written.
const FILE_BYTES: u64 = 512 * MIB;

/// Four writers and four readers at a time, then a write where the host's file has no room, and,
/// once the host has made the file shorter, a read behind its end.
const LOAD: &str = "
head -n 1 /proc/consoles
dd if=/dev/urandom of=/tmp/r bs=64k count=32
for i in 0 1 2 3; do dd if=/tmp/r of=/dev/vda bs=64k seek=$((i*64)) conv=fsync & done; wait
for i in 0 1 2 3; do dd if=/dev/vda bs=128k skip=$((i*32)) count=16 iflag=direct | md5sum & done; wait
dd if=/dev/vda bs=4k count=512 | cmp - /tmp/r && echo same=$?
dd if=/tmp/r of=/dev/vda bs=64k count=1 seek=9600 conv=fsync; echo full=$?
";
const BEHIND_THE_END: &str = "
dd if=/dev/vda of=/dev/null bs=64k skip=128 count=1 iflag=direct; echo short=$?
dd if=/dev/vda bs=128k count=16 iflag=direct | md5sum
poweroff -f
";

/// Runs the load, recorded; the run's report.
fn record(folder: &Folder) -> Value {
    let path = disk(folder, "disk", DISK_BYTES);
    let args = shell_with_disk(folder, &path);
    // As on a file system that is full. A guest that hangs is a failure and not a test without end.
    let script = format!(
        "ulimit -f {}; exec timeout --foreground 200 \"$0\" \"$@\" 2>'{}'",
        FILE_BYTES / 512,
        folder.text("err")
    );
    let mut run = Running::spawn(Command::new("sh").args(["-c", &script, PROGRAM]).args(args));
    run.line_with("twinvm: shell ready");
    run.line_with("Enter 'help'");
    let mut keys = run.child.stdin.take().unwrap();
    keys.write_all(LOAD.as_bytes()).unwrap();

    // The console that the shell reads, once the driver has found it.
    run.line_with("hvc0  ");
    let sum = |line: &str| line.split_whitespace().next().unwrap().to_owned();
    let sums: Vec<String> = (0..4).map(|_| sum(&run.line_with("  -"))).collect();
    assert!(sums.iter().all(|other| *other == sums[0]), "{sums:?}");
    run.line_with("same=0");
    run.line_with("full=1");
    let open = File::options().read(true).write(true).open(&path).unwrap();
    let part = |at: u64| {
        let mut bytes = vec![0; 2 * MIB as usize];
        open.read_exact_at(&mut bytes, at).unwrap();
        bytes
    };
    let first = part(0);
    assert!(first.iter().any(|byte| *byte != 0));
    for n in 1..4 {
        assert!(
            part(n * 4 * MIB) == first,
            "what the guest has synced is in the file"
        );
    }
    open.set_len(8 * MIB).unwrap();
    keys.write_all(BEHIND_THE_END.as_bytes()).unwrap();
    run.line_with("short=1");
    assert_eq!(sum(&run.line_with("  -")), sums[0], "the rest is good");
    run.line_with("reboot: Power down");
    assert_eq!(run.wait(), Some(0));

    let err = fs::read_to_string(folder.path("err")).unwrap();
    let line = |doing: &str, why: &str| {
        format!(
            "twinvm run: disk {path}: a {doing} failed: {why}; the guest gets an I/O error (said \
             once)\n"
        )
    };
    let full = line("write", "File too large (os error 27)");
    let short = line("read", "the file has become shorter than the disk");
    assert_eq!(err, full + &short);
    fs::remove_file(path).unwrap();
    json(&folder.path("report.json"))
}

#[test]
fn a_recording_replays_without_the_disk() {
    let folder = Folder::new();
    let report = record(&folder);
    let dir = folder.text("rec");
    thread::scope(|scope| {
        for seed in ["1", "2"] {
            let (dir, report) = (&dir, &report);
            scope.spawn(move || {
                let done = Command::new(PROGRAM)
                    .args(["replay", dir, "--json", "--perturb", seed])
                    .output()
                    .unwrap();
                let (out, err) = (&done.stdout, String::from_utf8_lossy(&done.stderr));
                assert_eq!(done.status.code(), Some(0), "seed {seed}: {err}");
                let found: Value = serde_json::from_slice(out).unwrap();
                assert_eq!(found["digest"], report["digest"], "seed {seed}");
                assert_eq!(found["icount"], report["icount"], "seed {seed}");
                assert!(found["digests_checked"].as_u64().unwrap() > 5, "{found}");
                assert!(found["perturbation"]["restores"].as_u64().unwrap() > 0);
            });
        }
    });
}
