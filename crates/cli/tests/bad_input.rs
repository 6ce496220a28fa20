//! What is wrong with the input is said in one line, nothing runs, and nothing is left behind.

mod support;

use std::fs::File;

use support::{Folder, Running, guest, refuses, twinvm};

/// Runs with everything that could leave something behind, and asserts that nothing does.
#[track_caller]
fn run_refuses(folder: &Folder, args: &[&str], line: &str) {
    let before = folder.names();
    let record = folder.text("new-rec");
    let report = folder.text("new-report");
    let all = [&["run", "--record", &record, "--report", &report], args].concat();
    refuses(&all, &format!("twinvm run: {line}"));
    assert_eq!(folder.names(), before);
}

#[test]
fn kernels() {
    let folder = Folder::new();
    run_refuses(
        &folder,
        &[],
        "no kernel: add kernel = \"FILE\" to the VM's file, or give --kernel FILE to twinvm run \
         (firmware = \"FILE\" or --firmware FILE for a program that needs none)",
    );
    let kernel = folder.text("absent");
    run_refuses(
        &folder,
        &["--kernel", &kernel],
        &format!(
            "kernel {kernel}: there is no such file: give another path (in a VM's file it is \
             relative to that file)"
        ),
    );
    run_refuses(
        &folder,
        &["--kernel", "/dev/zero"],
        "kernel /dev/zero: not a regular file",
    );
    let kernel = folder.file("empty", "");
    run_refuses(
        &folder,
        &["--kernel", &kernel],
        &format!("{kernel}: the kernel file is empty: leave it out, or give one with content"),
    );

    let mut cut = vec![0; 40];
    cut[..2].copy_from_slice(b"MZ");
    let kernel = folder.file("cut", cut);
    run_refuses(
        &folder,
        &["--kernel", &kernel],
        &format!(
            "{kernel}: the kernel file is cut short: it has 40 bytes, its headers ask for 64; \
             copy it again"
        ),
    );
    let mut bzimage = vec![0; 4096];
    bzimage[0x202..0x206].copy_from_slice(b"HdrS");
    let kernel = folder.file("bzImage", bzimage);
    run_refuses(
        &folder,
        &["--kernel", &kernel],
        &format!(
            "{kernel}: the kernel is for x86 (a bzImage), this machine is riscv64: give a file for \
             riscv64"
        ),
    );
}

#[test]
fn an_initrd_that_does_not_fit() {
    let folder = Folder::new();
    let kernel = folder.file("kernel", guest::hello());
    let initrd = folder.text("initrd");
    File::create(folder.path("initrd"))
        .unwrap()
        .set_len(20 << 20)
        .unwrap();
    run_refuses(
        &folder,
        &["--kernel", &kernel, "--initrd", &initrd, "--memory", "16M"],
        &format!(
            "{initrd}: the initrd doesn't fit: it has 20 MiB, the kernel takes 4096 bytes and \
             memory is 16 MiB: set memory = \"23M\" or more"
        ),
    );
    let empty = folder.file("empty", "");
    run_refuses(
        &folder,
        &["--kernel", &kernel, "--initrd", &empty],
        &format!("{empty}: the initrd file is empty: leave it out, or give one with content"),
    );
}

#[test]
fn numbers() {
    let folder = Folder::new();
    let kernel = folder.file("kernel", guest::hello());
    for memory in ["12X", "0", "0M", "4097K", "1000001", "65G"] {
        run_refuses(
            &folder,
            &["--kernel", &kernel, "--memory", memory],
            &format!(
                "--memory {memory}: expected whole pages of 4096 bytes, from \"1M\" to \"64G\""
            ),
        );
    }
    for harts in ["0", "9"] {
        run_refuses(
            &folder,
            &["--kernel", &kernel, "--harts", harts],
            &format!("harts = {harts}: expected 1 to 8"),
        );
    }
    let long = "x".repeat(2000);
    run_refuses(
        &folder,
        &["--kernel", &kernel, "--cmdline", &long],
        "device tree: the kernel command line has 2000 bytes, Linux reads at most 1023: shorten it",
    );
}

#[test]
fn device_trees() {
    let folder = Folder::new();
    let kernel = folder.file("kernel", guest::hello());
    let refused = |tree: &[u8], why: &str| {
        let file = folder.file("tree", tree);
        run_refuses(
            &folder,
            &["--kernel", &kernel, "--dtb", &file],
            &format!("{file}: the device tree {why}"),
        );
    };
    refused(
        b"/dts-v1/;",
        "is no flattened device tree (0xd00dfeed at its start): make one with dtc -O dtb",
    );
    let mut tree = vec![0xd0, 0x0d, 0xfe, 0xed, 0, 0, 1, 0];
    refused(
        &tree,
        "file is cut short: it has 8 bytes, its headers ask for 256; copy it again",
    );
    tree.resize(65537, 0);
    refused(
        &tree,
        "file has 65537 bytes, and 65536 are the most that fit",
    );
    let absent = folder.text("absent");
    run_refuses(
        &folder,
        &["--kernel", &kernel, "--dtb", &absent],
        &format!(
            "device tree {absent}: there is no such file: give another path (in a VM's file it is \
             relative to that file)"
        ),
    );
}

#[test]
fn vm_files() {
    let folder = Folder::new();
    let file = folder.file("VM.toml", "name = \"x\"\n\nmemroy = \"1G\"\n");
    run_refuses(
        &folder,
        &[&file],
        &format!("{file}:3: unknown key \"memroy\", did you mean \"memory\"?"),
    );
    let file = folder.file("VM.toml", "name = \"x\"\nmemory = \n");
    let done = twinvm(&["run", &file]);
    assert_eq!(done.code, Some(2));
    assert!(
        done.err
            .starts_with(&format!("twinvm run: {file}:2: not valid TOML: ")),
        "{}",
        done.err
    );
    assert_eq!(done.err.lines().count(), 1, "{}", done.err);
    let absent = folder.text("absent.toml");
    run_refuses(
        &folder,
        &[&absent],
        &format!("{absent}: cannot read the file: there is none: give the path of a VM's file"),
    );
    let file = folder.file(
        "VM.toml",
        "name = \"x\"\n[[net]]\nmac = \"52:54:00:12:34:56\"\n",
    );
    run_refuses(
        &folder,
        &[&file],
        &format!("{file}:2: backend is missing in [[net]]"),
    );
}

#[test]
fn command_lines() {
    refuses(
        &["lan"],
        "twinvm lan: the following required arguments were not provided: --listen <SOCK>; see \
         twinvm lan --help",
    );
    refuses(
        &["run", "--engine", "qemu"],
        "twinvm run: invalid value 'qemu' for '--engine <NAME>' [possible values: interp, jit]; \
         see twinvm run --help",
    );
    refuses(
        &["walk"],
        "twinvm: unrecognized subcommand 'walk'; see twinvm --help",
    );
    // The command within a command is the one whose --help says what there is.
    refuses(
        &["keys", "issue", "--ca", "ca", "--out", "out"],
        "twinvm keys: the following required arguments were not provided: <--name <NAME>|--arbiter>; \
         see twinvm keys issue --help",
    );
    // A file has the VM's name in it: another one beside it would be a record of another VM.
    refuses(
        &[
            "arbiter", "reset", "VM.toml", "--vm", "other", "--live", "a", "--yes",
        ],
        "twinvm arbiter: the argument '[FILE]' cannot be used with '--vm <NAME>'; \
         see twinvm arbiter reset --help",
    );
    refuses(
        &["bench", "debian"],
        "twinvm bench: debian needs --debian DIR, the image that `make image-debian` makes (as \
         root) in target/image/debian",
    );
}

#[test]
fn a_switch_that_is_not_there() {
    let folder = Folder::new();
    let kernel = folder.file("kernel", guest::hello());
    let file = folder.file(
        "VM.toml",
        "name = \"x\"\n[[net]]\nmac = \"52:54:00:12:34:56\"\nbackend = \"lan:lan.sock\"\n",
    );
    let socket = folder.text("lan.sock");
    run_refuses(
        &folder,
        &[&file, "--kernel", &kernel],
        &format!(
            "{socket}: no switch listens there (No such file or directory (os error 2)): start \
             `twinvm lan --listen {socket} ...` first"
        ),
    );
}

#[test]
fn sockets_and_ports_in_use() {
    let folder = Folder::new();
    let socket = folder.text("lan.sock");
    let forward = "127.0.0.1:0=10.0.2.15:80";
    let mut lan = Running::start(&["lan", "--listen", &socket, "--forward", forward]);
    assert_eq!(lan.line_with("listening"), format!("listening on {socket}"));
    let bound = lan.line_with("forward ");
    let bound = bound.strip_prefix("forward ").unwrap();
    refuses(
        &["lan", "--listen", &socket],
        &format!(
            "twinvm lan: {socket}: another switch is listening there: stop it, or choose another path"
        ),
    );
    let nowhere = folder.text("absent/lan.sock");
    refuses(
        &["lan", "--listen", &nowhere],
        &format!("twinvm lan: {nowhere}: its folder is not there: make it first"),
    );
    let second = folder.text("second.sock");
    let address = bound.split('=').next().unwrap();
    refuses(
        &["lan", "--listen", &second, "--forward", bound],
        &format!(
            "twinvm lan: forward {bound}: {address} is in use by another program: stop it, or \
             choose another port (0 takes a free one)"
        ),
    );
    refuses(
        &["lan", "--listen", &second, "--forward", "80"],
        "twinvm lan: forward `80`: expected HOST:PORT=GUEST:PORT, as in \
         127.0.0.1:5432=10.0.2.15:5432",
    );
    refuses(
        &["lan", "--listen", &second, "--loss", "101"],
        "twinvm lan: a loss of 101 percent: expected 0 to 100",
    );
    refuses(
        &["lan", "--listen", &second, "--delay", "10001"],
        "twinvm lan: a delay of 10001 ms: at most 10000 ms",
    );
    assert_eq!(folder.names(), ["lan.sock"]);
    lan.signal("TERM");
    assert_eq!(lan.wait(), Some(0));
    assert_eq!(folder.names(), [""; 0]);
}

#[test]
fn places_to_write_to() {
    let folder = Folder::new();
    let kernel = folder.file("kernel", guest::hello());
    let dir = folder.text("rec");
    let record = ["run", "--kernel", &kernel, "--record", &dir];
    assert_eq!(twinvm(&record).code, Some(0));
    let before = std::fs::read(folder.path("rec/log")).unwrap();
    refuses(
        &record,
        &format!(
            "twinvm run: {dir}/log already exists: a recording is never overwritten; give another \
             directory or remove this one"
        ),
    );
    assert_eq!(std::fs::read(folder.path("rec/log")).unwrap(), before);

    std::fs::create_dir(folder.path("mine")).unwrap();
    let mine = folder.text("mine");
    let record = ["run", "--kernel", &kernel, "--record", &mine];
    folder.file("mine/notes", "mine");
    refuses(
        &record,
        &format!(
            "twinvm run: {mine} is not empty (notes is in it): a recording gets a folder of its \
             own; give an empty one or a new name"
        ),
    );
    assert_eq!(std::fs::read_dir(&mine).unwrap().count(), 1);
    std::fs::remove_file(folder.path("mine/notes")).unwrap();
    assert_eq!(twinvm(&record).code, Some(0), "an empty folder will do");

    refuses(
        &["run", "--kernel", &kernel, "--record", &kernel],
        &format!("twinvm run: {kernel} is a file, and a recording is a folder: give another name"),
    );
    let inside = format!("{kernel}/rec");
    refuses(
        &["run", "--kernel", &kernel, "--record", &inside],
        &format!("twinvm run: cannot create {inside}: Not a directory (os error 20)"),
    );
    let report = folder.text("absent/report.json");
    refuses(
        &["run", "--kernel", &kernel, "--report", &report],
        &format!(
            "twinvm run: --report {report}: there is no folder {}: make it first",
            folder.text("absent")
        ),
    );
}

#[test]
fn images() {
    refuses(
        &["image", "build", "nonesuch", "--out", "unused"],
        "twinvm image: there is no image `nonesuch`; known: redis, debian",
    );
    let folder = Folder::new();
    let file = folder.file("file", "");
    refuses(
        &["image", "build", "redis", "--out", &file],
        &format!(
            "twinvm image: {file}: a file, and an image goes into a folder: give another name"
        ),
    );
    let (out, lock) = (folder.text("out"), folder.text("nosuch"));
    refuses(
        &["image", "build", "redis", "--out", &out, "--lock", &lock],
        &format!(
            "twinvm image: {lock}: there is no such lock file: leave --lock out to take the \
             built-in one, or make one there with `twinvm image build redis --out {out} --lock \
             {lock} --update-lock`"
        ),
    );
    assert_eq!(folder.names(), ["file"]);
}
