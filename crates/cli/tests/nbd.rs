//! Disks on a server: `twinvm disk serve`, `twinvm run --disk nbd://…`, and what goes wrong between
//! the two.

mod support;

use std::fs::{self, File};
use std::io::Write;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{
    Folder, LIMIT, LISTEN, PROGRAM, Running, Server, guest, json, refuses, shell_with_disk, twinvm,
};

/// `twinvm disk serve`.
fn serve(args: &[&str]) -> Server {
    Server::start(&[&["disk", "serve"], args].concat())
}

fn disk(folder: &Folder, name: &str, bytes: u64) -> String {
    File::create(folder.path(name))
        .unwrap()
        .set_len(bytes)
        .unwrap();
    folder.text(name)
}

#[test]
fn servers_that_are_refused_and_refuse() {
    let folder = Folder::new();
    let kernel = folder.file("kernel", guest::sleep());
    let run = |disk: &str, why: &str| {
        let args = ["run", "--kernel", &kernel, "--disk", disk];
        refuses(&args, &format!("twinvm run: {why}"));
    };
    run(
        "nbd://h:0/x",
        "--disk nbd://h:0/x: expected \"nbd://HOST:PORT/EXPORT\", \"nbds://HOST:PORT/EXPORT\" or \
         \"nbd+unix:///EXPORT?socket=PATH\"",
    );
    let gone = format!("nbd+unix:///?socket={}", folder.text("gone"));
    run(
        &gone,
        &format!("disk {gone}: nobody listens there: start the server"),
    );

    let path = disk(&folder, "disk.img", 4096);
    let server = serve(&[&path, "--listen", "127.0.0.1:0"]);
    let at = |export: &str| format!("nbd://{}/{export}", server.address);
    run(
        &at("other"),
        &format!(
            "disk {}: the server has no export of this name",
            at("other")
        ),
    );
    // One VM at a time, and no second server.
    let good = at("disk.img");
    let mut holder = Running::start(&["run", "--kernel", &kernel, "--disk", &good]);
    holder.line_with("asleep");
    run(
        &good,
        &format!("disk {good}: the server refuses: somebody else uses the disk"),
    );
    holder.signal("TERM");
    assert_eq!(holder.wait(), Some(130));
    let mut again = Running::start(&["run", "--kernel", &kernel, "--disk", &good]);
    again.line_with("asleep");
    again.signal("TERM");
    assert_eq!(again.wait(), Some(130));
    assert_eq!(folder.names(), ["disk.img", "kernel"]);

    let pid = server.running.child.id();
    refuses(
        &["disk", "serve", &path, "--listen", "127.0.0.1:0"],
        &format!(
            "twinvm disk: disk {path}: locked by process {pid}: a disk belongs to one VM at a time"
        ),
    );
    let second = disk(&folder, "second", 512);
    refuses(
        &["disk", "serve", &second, "--listen", "192.0.2.1:1"],
        "twinvm disk: 192.0.2.1:1: without --keys it listens on a loopback address only, such as \
         127.0.0.1: make keys as twinvm keys --help shows",
    );
    refuses(
        &["disk", "serve", "=x", "--listen", "127.0.0.1:0"],
        "twinvm disk: =x: expected FILE or NAME=FILE",
    );

    let records = folder.text("records");
    let mut read_only = serve(&[
        &second,
        "--read-only",
        "--listen",
        "127.0.0.1:0",
        "--arbiter",
        "127.0.0.1:0",
        "--records",
        &records,
    ]);
    let good = format!("nbd://{}/second", read_only.address);
    run(
        &good,
        &format!(
            "disk {good}: the export is read-only: export it for writing, or set readonly = true"
        ),
    );
    // It is an arbiter as well.
    let line = read_only.running.line_with("arbiter");
    let arbiter = line.strip_prefix("arbiter listening on ").unwrap();
    let file = folder.file(
        "VM.toml",
        format!(
            "name = \"x\"\nkernel = \"kernel\"\narbiter = \"tcp:{arbiter}\"\n\
             [[node]]\nname = \"a\"\nchannel = \"127.0.0.1:7001\"\n\
             [[node]]\nname = \"b\"\nchannel = \"127.0.0.1:7002\"\n\
             [[disk]]\nnbd = \"{good}\"\nreadonly = true\n"
        ),
    );
    assert_eq!(twinvm(&["arbiter", "show", &file]).code, Some(0));
    let mut reading = Running::start(&["run", &file]);
    reading.line_with("asleep");
    reading.signal("TERM");
    assert_eq!(reading.wait(), Some(130));
}

/// The nodes' keys open the server, and nothing else does.
#[test]
fn a_disk_over_tls() {
    let folder = Folder::new();
    let kernel = folder.file("kernel", guest::sleep());
    let (ca, keys) = (folder.text("ca"), folder.text("keys"));
    assert_eq!(twinvm(&["keys", "init", "--out", &ca]).code, Some(0));
    for whom in [&["--name", "a"][..], &["--arbiter"]] {
        let done = twinvm(&[&["keys", "issue", "--ca", &ca, "--out", &keys][..], whom].concat());
        assert_eq!(done.code, Some(0), "{}", done.err);
    }
    let path = disk(&folder, "disk.img", 4096);
    let server = serve(&[&path, "--listen", "127.0.0.1:0", "--keys", &keys]);
    let plain = format!("nbd://{}/disk.img", server.address);
    let tls = format!("nbds://{}/disk.img", server.address);
    let run = ["run", "--kernel", &kernel, "--disk"];
    refuses(
        &[&run[..], &[&plain]].concat(),
        &format!("twinvm run: disk {plain}: the server wants TLS: use nbds://"),
    );
    refuses(
        &[&run[..], &[&tls]].concat(),
        &format!("twinvm run: disk {tls}: nbds:// takes the keys of [tls] in VM.toml"),
    );
    let file = folder.file(
        "VM.toml",
        format!(
            "name = \"x\"\nkernel = \"kernel\"\n\
             [tls]\nca = \"keys/ca.crt\"\ncert = \"keys/{{name}}.crt\"\nkey = \"keys/{{name}}.key\"\n\
             [[node]]\nname = \"a\"\nchannel = \"127.0.0.1:7001\"\n\
             [[node]]\nname = \"b\"\nchannel = \"127.0.0.1:7002\"\n\
             [[disk]]\nnbd = \"{tls}\"\n"
        ),
    );
    let mut running = Running::start(&["run", &file]);
    running.line_with("asleep");
    running.signal("TERM");
    assert_eq!(running.wait(), Some(130));
}

const MIB: u64 = 1 << 20;

/// Four writers at a time; while they are at it the server is killed and comes back.
const LOAD: &str = "
dd if=/dev/urandom of=/tmp/r bs=64k count=32
for i in 0 1 2 3; do for n in 0 1 2 3 4 5 6 7; do dd if=/tmp/r of=/dev/vda bs=64k seek=$((i*64)) \
 conv=fsync; done & done 2>/dev/null; echo begun=$?; wait
for i in 0 1 2 3; do dd if=/dev/vda bs=128k skip=$((i*32)) count=16 iflag=direct | md5sum & done; wait
dd if=/dev/vda bs=4k count=512 | cmp - /tmp/r && echo same=$?
poweroff -f
";

#[test]
fn a_guest_whose_server_is_killed_goes_on_and_replays() {
    let folder = Folder::new();
    let path = disk(&folder, "disk.img", 64 * MIB);
    let mut server = serve(&[&path, "--listen", LISTEN]);
    let address = server.address.clone();
    let args = shell_with_disk(&folder, &format!("nbd://{address}/disk.img"));
    let script = format!(
        "exec timeout --foreground 200 \"$0\" \"$@\" 2>'{}'",
        folder.text("err")
    );
    let mut run = Running::spawn(Command::new("sh").args(["-c", &script, PROGRAM]).args(args));
    run.line_with("twinvm: shell ready");
    run.line_with("Enter 'help'");
    let mut keys = run.child.stdin.take().unwrap();
    keys.write_all(LOAD.as_bytes()).unwrap();
    run.line_with("begun=0");
    server.kill();
    let until = Instant::now() + LIMIT;
    let lost = "the connection is lost (the server closed it)";
    while !fs::read_to_string(folder.path("err"))
        .unwrap()
        .contains(lost)
    {
        assert!(Instant::now() < until, "nobody says {lost:?}");
        thread::sleep(Duration::from_millis(10));
    }
    let _server = serve(&[&path, "--listen", &address]);
    let sum = |line: &str| line.split_whitespace().next().unwrap().to_owned();
    let sums: Vec<String> = (0..4).map(|_| sum(&run.line_with("  -"))).collect();
    assert!(sums.iter().all(|other| *other == sums[0]), "{sums:?}");
    run.line_with("same=0");
    run.line_with("reboot: Power down");
    assert_eq!(run.wait(), Some(0));
    let err = fs::read_to_string(folder.path("err")).unwrap();
    assert!(err.contains(": the server is there again"), "{err}");
    assert!(!err.contains("I/O error"), "{err}");

    let done = twinvm(&["replay", &folder.text("rec"), "--json"]);
    assert_eq!(done.code, Some(0), "{}", done.err);
    let (found, report): (Value, _) = (
        serde_json::from_str(&done.out).unwrap(),
        json(&folder.path("report.json")),
    );
    assert_eq!(found["digest"], report["digest"]);
    assert_eq!(found["icount"], report["icount"]);
}
