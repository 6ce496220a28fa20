//! What a user without rights is told. As root the program is run as another user, since rights
//! don't hold root back.

mod support;

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::process::Command;

use support::executable::executable;
use support::{Folder, PROGRAM, guest};

/// Nobody on every Linux (the kernel's overflow user).
const NOBODY: u32 = 65534;

/// A folder that anyone may search and nobody but its owner change, with the program in it: the
/// way to the original may be closed to others.
fn folder() -> Folder {
    let folder = Folder::new();
    fs::set_permissions(folder.path("."), Permissions::from_mode(0o755)).unwrap();
    fs::hard_link(PROGRAM, folder.path("twinvm"))
        .unwrap_or_else(|_| executable(&folder.path("twinvm"), &fs::read(PROGRAM).unwrap()));
    folder
}

/// Asserts that a user without rights is refused with this line, and that nothing is left.
#[track_caller]
fn refused(folder: &Folder, args: &[&str], line: &str) {
    let before = folder.names();
    let mut command = Command::new(folder.path("twinvm"));
    if fs::metadata("/proc/self").unwrap().uid() == 0 {
        command.uid(NOBODY).gid(NOBODY);
    }
    let kernel = folder.file("kernel", guest::hello());
    let done = command
        .args(["run", "--kernel", &kernel])
        .args(args)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&done.stderr);
    assert_eq!(told, format!("twinvm run: {line}\n"));
    assert_eq!((done.status.code(), &done.stdout[..]), (Some(2), &b""[..]));
    fs::remove_file(kernel).unwrap();
    assert_eq!(folder.names(), before);
}

#[test]
fn disks() {
    let folder = folder();
    let disk = folder.file("disk", [0; 512]);
    let mode = |mode| fs::set_permissions(&disk, Permissions::from_mode(mode)).unwrap();
    mode(0o444);
    refused(
        &folder,
        &["--disk", &disk],
        &format!("disk {disk}: the file is read-only: make it writable, or set readonly = true"),
    );
    mode(0o200);
    refused(
        &folder,
        &["--disk", &disk],
        &format!(
            "disk {disk}: this user may not read it: give the user a right to it (chown, chmod) \
             and to its folders"
        ),
    );
}

#[test]
fn places_to_write_to() {
    let folder = folder();
    let closed = folder.path("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, Permissions::from_mode(0o555)).unwrap();
    let denied = "Permission denied (os error 13)";
    for name in ["report", "dump-dtb", "snapshot"] {
        let (option, file) = (format!("--{name}"), folder.text("closed/file"));
        let mend = match name {
            "snapshot" => "",
            _ => ": give another path",
        };
        refused(
            &folder,
            &[&option, &file],
            &format!("{option} {file}: can't be written: {denied}{mend}"),
        );
    }
    let rec = folder.text("closed/rec");
    refused(
        &folder,
        &["--record", &rec],
        &format!("cannot create {rec}: {denied}"),
    );
    let report = folder.file("kept", "old");
    fs::set_permissions(&report, Permissions::from_mode(0o444)).unwrap();
    refused(
        &folder,
        &["--report", &report],
        &format!("--report {report}: can't be written: {denied}: give another path"),
    );
    assert_eq!(fs::read(&report).unwrap(), b"old");
}
