//! `twinvm disk import`, `info` and `grow`.

mod support;

use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use support::twinvm;

const CLUSTER: usize = 64 << 10;

/// A qcow2 image of version 3 whose disk has three clusters, the middle one of `fill` and the
/// others without content.
fn qcow2(path: &Path, fill: u8) {
    let mut image = vec![0; 6 * CLUSTER];
    let at = |cluster: u64| cluster * CLUSTER as u64;
    let mut header = Vec::new();
    header.extend(b"QFI\xfb");
    header.extend(3u32.to_be_bytes()); // version
    header.extend(0u64.to_be_bytes()); // backing file offset
    header.extend(0u32.to_be_bytes()); // and length
    header.extend(16u32.to_be_bytes()); // cluster bits
    header.extend((3 * CLUSTER as u64).to_be_bytes()); // size
    header.extend(0u32.to_be_bytes()); // encryption
    header.extend(1u32.to_be_bytes()); // entries of L1
    header.extend(at(1).to_be_bytes()); // L1
    header.extend(at(4).to_be_bytes()); // refcount table
    header.extend(1u32.to_be_bytes()); // its clusters
    header.extend(0u32.to_be_bytes()); // snapshots
    header.extend(0u64.to_be_bytes());
    header.extend([0; 24]); // features
    header.extend(4u32.to_be_bytes()); // refcount order
    header.extend(104u32.to_be_bytes()); // header length
    image[..104].copy_from_slice(&header);
    let copied = 1u64 << 63;
    image[CLUSTER..][..8].copy_from_slice(&(copied | at(2)).to_be_bytes());
    image[2 * CLUSTER + 8..][..8].copy_from_slice(&(copied | at(3)).to_be_bytes());
    image[3 * CLUSTER..][..CLUSTER].fill(fill);
    image[4 * CLUSTER..][..8].copy_from_slice(&at(5).to_be_bytes());
    for cluster in 0..6 {
        image[5 * CLUSTER + 2 * cluster + 1] = 1;
    }
    fs::write(path, image).unwrap();
}

#[test]
fn images_become_disks() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let text = |name: &str| path(name).to_str().unwrap().to_owned();
    qcow2(&path("in.qcow2"), 7);
    let done = twinvm(&["disk", "import", &text("in.qcow2"), &text("out.img")]);
    assert_eq!((done.code, done.err.as_str()), (Some(0), ""));
    let mut expected = vec![0; 3 * CLUSTER];
    expected[CLUSTER..2 * CLUSTER].fill(7);
    assert!(fs::read(path("out.img")).unwrap() == expected);
    assert!(
        done.out.contains("196608 bytes, 65536 of them"),
        "{}",
        done.out
    );

    // Larger, and from a raw image that is no whole number of sectors; what is empty takes no
    // room.
    fs::write(path("in.raw"), &expected[..2 * CLUSTER - 100]).unwrap();
    let args = [
        "disk",
        "import",
        &text("in.raw"),
        &text("big.img"),
        "--size",
        "1G",
    ];
    let done = twinvm(&args);
    assert_eq!(done.code, Some(0), "{}", done.err);
    let about = fs::metadata(path("big.img")).unwrap();
    assert_eq!(about.len(), 1 << 30);
    assert!(about.blocks() * 512 <= 4 * CLUSTER as u64);
    let done = twinvm(&["disk", "import", &text("in.raw"), &text("small.img")]);
    assert_eq!(done.code, Some(0), "{}", done.err);
    assert_eq!(
        fs::metadata(path("small.img")).unwrap().len(),
        2 * CLUSTER as u64
    );

    // An image with a backing file, other kinds, a file that is there, sizes.
    let mut image = fs::read(path("in.qcow2")).unwrap();
    image[8..16].copy_from_slice(&104u64.to_be_bytes());
    image[16..20].copy_from_slice(&4u32.to_be_bytes());
    image[104..112].fill(0);
    image[112..116].copy_from_slice(b"base");
    image[8..16].copy_from_slice(&112u64.to_be_bytes());
    fs::write(path("backed.qcow2"), image).unwrap();
    fs::write(
        path("cut.qcow2"),
        &fs::read(path("in.qcow2")).unwrap()[..50],
    )
    .unwrap();
    // The middle of what is on the disk, its tables and the end of its last cluster are missing.
    let whole = fs::read(path("in.qcow2")).unwrap();
    for (name, clusters) in [("l1", 1), ("l2", 2), ("data", 3)] {
        fs::write(path(name), &whole[..clusters * CLUSTER + 100]).unwrap();
    }
    fs::write(path("x.vmdk"), b"KDMV and so on").unwrap();
    fs::write(path("x.xz"), b"\xfd7zXZ\0 and so on").unwrap();
    fs::write(path("empty"), b"").unwrap();
    for (args, why) in [
        (vec![text("backed.qcow2"), text("new.img")], "backing"),
        (vec![text("cut.qcow2"), text("new.img")], "can't be read"),
        (
            vec![text("l1"), text("new.img")],
            "has 65636 bytes, and what is in the image goes to",
        ),
        (
            vec![text("l2"), text("new.img")],
            "131172 bytes, and what is in the image goes to 196608 at least: it was cut short",
        ),
        (
            vec![text("data"), text("new.img")],
            "goes to 262144 at least",
        ),
        (vec![text("x.vmdk"), text("new.img")], "a VMDK file"),
        (
            vec![text("x.xz"), text("new.img")],
            "a xz file, not qcow2 or raw: unpack it first (unxz)",
        ),
        (vec![text("empty"), text("new.img")], "the image is empty"),
        (
            vec![text("in.raw"), text("none/new.img")],
            "its folder is not there: make it first",
        ),
        (vec![text("in.raw"), text("out.img")], "it is there already"),
        (vec![text("none"), text("new.img")], "there is no such file"),
        (
            vec![
                text("in.raw"),
                text("new.img"),
                "--size".into(),
                "4K".into(),
            ],
            "has 130972 bytes",
        ),
        (
            vec![
                text("in.raw"),
                text("new.img"),
                "--size".into(),
                "9x".into(),
            ],
            "expected bytes",
        ),
    ] {
        let mut all = vec!["disk", "import"];
        all.extend(args.iter().map(String::as_str));
        let done = twinvm(&all);
        assert_eq!(done.code, Some(2), "{args:?}: {}", done.err);
        assert!(done.err.contains(why), "{args:?}: {}", done.err);
        assert_eq!(done.err.lines().count(), 1, "{}", done.err);
        assert!(!path("new.img").exists() && !path("new.img.new").exists());
    }

    // Somebody's own file where the image would be made.
    fs::write(path("mine.img.new"), b"mine").unwrap();
    let done = twinvm(&["disk", "import", &text("in.raw"), &text("mine.img")]);
    assert_eq!(done.code, Some(2), "{}", done.err);
    let why = "mine.img.new: it is there already, and is where the image is made: remove it";
    assert!(done.err.contains(why), "{}", done.err);
    assert_eq!(fs::read(path("mine.img.new")).unwrap(), b"mine");
    assert!(!path("mine.img").exists());
}

#[test]
fn an_import_that_is_interrupted_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    // Nothing in it, and minutes to find that out.
    let image = fs::File::create(path("in.raw")).unwrap();
    image.set_len(1 << 40).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_twinvm"))
        .args(["disk", "import"])
        .args([path("in.raw"), path("out.img")])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    while !path("out.img.new").exists() {
        assert!(Instant::now() < until, "it does not begin");
        thread::sleep(Duration::from_millis(5));
    }
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let mut said = String::new();
    child.stderr.unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("interrupted, it is not made"), "{said}");
    assert!(!path("out.img").exists() && !path("out.img.new").exists());
}

#[test]
fn an_image_that_is_not_raw_is_no_disk() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("debian.img");
    qcow2(&image, 7);
    let before = fs::read(&image).unwrap();
    let text = image.to_str().unwrap();
    let why = "debian.img: a qcow2 image, and a disk has to be raw: make one of it with twinvm disk \
               import";
    let program = dir.path().join("program");
    fs::write(&program, [0; 64]).unwrap();
    for args in [
        &["run", "--kernel", program.to_str().unwrap(), "--disk", text][..],
        &["disk", "grow", text, "1G"],
        &["disk", "serve", text, "--listen", "127.0.0.1:0"],
    ] {
        let done = twinvm(args);
        assert_eq!(done.code, Some(2), "{args:?}: {}", done.err);
        assert!(done.err.contains(why), "{args:?}: {}", done.err);
    }
    assert!(fs::read(&image).unwrap() == before);
    let shown = twinvm(&["disk", "info", text]);
    assert!(
        shown.out.contains("holds       a qcow2 image"),
        "{}",
        shown.out
    );
}

#[test]
fn a_disk_is_shown_and_made_larger() {
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("disk");
    let text = disk.to_str().unwrap();
    fs::write(&disk, [1; 8192]).unwrap();
    let shown = twinvm(&["disk", "info", text]);
    assert_eq!(shown.code, Some(0), "{}", shown.err);
    assert!(
        shown.out.contains("size        8192 bytes"),
        "{}",
        shown.out
    );
    assert!(shown.out.contains("in use      no"), "{}", shown.out);
    let folder = dir.path().to_str().unwrap();
    let shown = twinvm(&["disk", "info", text, "--node", folder]);
    assert_eq!(shown.code, Some(2));
    assert!(shown.err.contains("no disks.mark"), "{}", shown.err);

    let grown = twinvm(&["disk", "grow", text, "1M"]);
    assert_eq!(grown.code, Some(0), "{}", grown.err);
    assert_eq!(fs::metadata(&disk).unwrap().len(), 1 << 20);
    let grown = twinvm(&["disk", "grow", text, "8K"]);
    assert_eq!(grown.code, Some(2));
    assert!(
        grown.err.contains("can only become larger"),
        "{}",
        grown.err
    );
}
