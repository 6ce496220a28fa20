//! Root becomes somebody else for good.
//!
//! Rights are given up by a process with one thread, which a test of the usual kind doesn't have:
//! this program tries each case in a process of its own, itself once more. Only root can try; for
//! anybody else it says that it was skipped.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use twinvm_host::sandbox::{Confinement, OwnFolder, SandboxError, User};

/// Names the case, and its folder.
const CASE: &str = "TWINVM_TEST_RIGHTS";
const FOLDER: &str = "TWINVM_TEST_FOLDER";

/// What is tried, in a folder of its own.
type Case = fn(&Path);

const CASES: [(&str, Case); 4] = [
    ("root becomes somebody else for good", becomes),
    ("a folder of somebody else is not taken away", foreign),
    ("a shared folder may be anybody's", shared),
    ("with other threads nothing is given up", threads),
];

fn main() -> ExitCode {
    if let Ok(name) = std::env::var(CASE) {
        let (_, case) = CASES.iter().find(|(known, _)| *known == name).unwrap();
        case(&PathBuf::from(std::env::var_os(FOLDER).unwrap()));
        return ExitCode::SUCCESS;
    }
    if !is_root() {
        println!("skipped: only root can become another user");
        return ExitCode::SUCCESS;
    }
    let mut failed = 0;
    for (name, _) in CASES {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let done = Command::new(std::env::current_exe().unwrap())
            .env(CASE, name)
            .env(FOLDER, folder.path())
            .output()
            .unwrap();
        println!("{name} ... {}", done.status);
        if !done.status.success() {
            failed += 1;
            print!("{}", String::from_utf8_lossy(&done.stderr));
        }
    }
    ExitCode::from(failed)
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn confinement(user: &str) -> Confinement {
    Confinement {
        user: Some(User::find_in(user, "", "").unwrap()),
        sandbox: false,
    }
}

fn becomes(folder: &Path) {
    let folder = folder.join("state/a");
    let own = [OwnFolder::private(&folder)];
    assert_eq!(confinement("4000:4001").enter(&own).unwrap(), None);
    let status = fs::read_to_string("/proc/self/status").unwrap();
    for line in [
        "Threads:\t1",
        "Uid:\t4000\t4000\t4000\t4000",
        "Gid:\t4001\t4001\t4001\t4001",
        "Groups:\t4001",
        "CapInh:\t0000000000000000",
        "CapPrm:\t0000000000000000",
        "CapEff:\t0000000000000000",
        "CapBnd:\t0000000000000000",
        "CapAmb:\t0000000000000000",
        "NoNewPrivs:\t1",
    ] {
        assert!(
            status.lines().any(|it| it.trim_end() == line),
            "no {line:?}: {status}"
        );
    }
    // Its folder is its own, the one above it is not.
    let meta = fs::metadata(&folder).unwrap();
    let owned = (meta.uid(), meta.gid(), meta.mode() & 0o777);
    assert_eq!(owned, (4000, 4001, 0o700));
    fs::write(folder.join("file"), "x").unwrap();
    assert!(fs::write(folder.parent().unwrap().join("file"), "x").is_err());
    // Once more it has nothing to give up, and it can't become anybody else.
    assert_eq!(confinement("4000:4001").enter(&own).unwrap(), None);
    assert_eq!(
        confinement("4002:4001").enter(&[]).unwrap_err().to_string(),
        "--user 4002: only root can become another user: start it as root, or as 4002"
    );
}

fn foreign(folder: &Path) {
    let folder = folder.join("a");
    fs::create_dir(&folder).unwrap();
    let refused = confinement("4000:4001").enter(&[OwnFolder::private(&folder)]);
    let path = folder.display();
    assert_eq!(
        refused.unwrap_err().to_string(),
        format!(
            "{path}: belongs to user 0, but this process is to run as 4000: chown -R 4000 {path}"
        )
    );
    assert_eq!(fs::metadata(&folder).unwrap().uid(), 0);
    assert!(is_root());
}

fn shared(folder: &Path) {
    let (there, new) = (folder.join("there"), folder.join("new"));
    fs::create_dir(&there).unwrap();
    let folders = [OwnFolder::shared(&there), OwnFolder::shared(&new)];
    confinement("4000:4001").enter(&folders).unwrap();
    assert_eq!(fs::metadata(&there).unwrap().uid(), 0);
    assert_eq!(fs::metadata(&new).unwrap().uid(), 4000);
}

fn threads(_: &Path) {
    let (end, wait) = crossbeam_channel::bounded::<()>(0);
    let other = std::thread::spawn(move || {
        let _ = wait.recv();
    });
    let refused = confinement("4000:4001").enter(&[]).unwrap_err();
    assert!(matches!(refused, SandboxError::Threads(2)), "{refused}");
    assert!(is_root());
    drop(end);
    other.join().unwrap();
}
