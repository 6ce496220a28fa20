//! Bad input: one line that says what to do, exit code 2, and nothing left behind.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;

use crate::client::Asker;
use crate::cluster::{A, B, Cluster, short_run};

/// Everything below a folder, sorted.
fn tree(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut todo = vec![folder.to_owned()];
    while let Some(folder) = todo.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                todo.push(path.clone());
            }
            found.push(path.to_str().unwrap().to_owned());
        }
    }
    found.sort();
    found
}

/// Asserts that node `name` refuses with one line that says all of `words`, and that it leaves
/// nothing behind.
#[track_caller]
fn refuses(vm: &Cluster, name: &str, words: &[&str]) {
    vm.write();
    let before = tree(vm.root());
    let mut command = short_run();
    command.arg("node").arg(vm.path("VM.toml"));
    let done = command.args(["--name", name]).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(2), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.starts_with("twinvm node: "), "{said}");
    for word in words {
        assert!(said.contains(word), "{word:?} is not in: {said}");
    }
    assert_eq!(done.stdout, b"");
    let after = tree(vm.root());
    let left: Vec<&String> = after.iter().filter(|file| !before.contains(file)).collect();
    assert!(left.is_empty(), "left behind: {left:?}");
}

#[test]
fn what_a_node_cannot_start_with() {
    let mut vm = Cluster::echo();
    let good = vm.file.clone();

    refuses(
        &vm,
        "c",
        &["VM.toml: no node is named c: the nodes are a and b"],
    );

    vm.file.names = ["a", "a"];
    refuses(
        &vm,
        "a",
        &["VM.toml:17: both nodes are named a: give each its own name"],
    );
    vm.file = good.clone();

    let taken = TcpListener::bind(vm.file.channels[A]).unwrap();
    let port = format!("channel port {}", vm.file.channels[A].port());
    refuses(&vm, "a", &[&port, "in use by another process"]);
    drop(taken);

    vm.file.lan = vm.path("absent.sock");
    let socket = vm.file.lan.display().to_string();
    refuses(&vm, "a", &[&socket, "twinvm lan --listen"]);
    vm.file = good.clone();

    vm.file.arbiter = vm.path("a-file");
    fs::write(&vm.file.arbiter, "").unwrap();
    let folder = format!("arbiter folder {}", vm.file.arbiter.display());
    refuses(
        &vm,
        "a",
        &[&folder, "name a folder that whoever uses it can write"],
    );
    vm.file = good.clone();

    vm.file.state_dir = vm.path("a-file");
    let folder = vm.file.state_dir.display().to_string();
    refuses(
        &vm,
        "a",
        &[&folder, "can't make the folder", "choose another state_dir"],
    );
    vm.file = good.clone();

    vm.file.state_dir = vm.path(&"long-name-".repeat(10));
    refuses(
        &vm,
        "a",
        &[
            "ctl.sock",
            "at most 107 bytes",
            "choose a shorter state_dir",
        ],
    );
    vm.file = good.clone();

    vm.file.lan = vm.path(&"long-name-".repeat(10));
    refuses(&vm, "a", &["long-name-", "at most 107 bytes"]);
    vm.file = good;

    // And with all that mended it starts.
    vm.write();
    vm.start(A);
    vm.await_role(A, "live");
}

#[test]
fn folders_without_the_right_to_write() {
    const NOBODY: u32 = 65534;
    let mut vm = Cluster::echo();
    let closed = vm.path("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o555)).unwrap();
    let open = vm.path("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
    fs::set_permissions(vm.root(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&vm.file.lan, fs::Permissions::from_mode(0o777)).unwrap();
    let mut run = |state: &Path, arbiter: &Path| {
        vm.file.state_dir = state.to_owned();
        vm.file.arbiter = arbiter.to_owned();
        vm.write();
        let mut command = short_run();
        command.args(vm.node_args(A));
        // Root may write everywhere.
        if rustix::process::geteuid().is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        let done = command.output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(
            (done.status.code(), said.lines().count()),
            (Some(2), 1),
            "{said}"
        );
        said
    };
    let said = run(&closed.join("state"), &open.join("arbiter"));
    assert!(
        said.contains("closed/state: can't make the folder"),
        "{said}"
    );
    let said = run(&open.join("state"), &closed);
    assert!(said.contains("closed: can't write there"), "{said}");
    assert_eq!(tree(&closed), Vec::<String>::new());
}

#[test]
fn nodes_whose_files_differ_do_not_join() {
    let mut vm = Cluster::echo();
    vm.start(A);
    vm.await_role(A, "live");
    let mut asker = Asker::connect(&vm.file.lan);
    assert_eq!(asker.ask(), 1);
    vm.file.cmdline = "quiet".to_owned();
    vm.write();
    vm.start(B);
    vm.await_note(B, "cmdline");
    assert_eq!(asker.ask(), 2);
    assert_eq!(vm.role(A).as_deref(), Some("live"));
    assert_ne!(vm.role(B).as_deref(), Some("live"));
    assert!(vm.runs(A) && vm.runs(B));
    // With the same file it is welcome.
    vm.kill(B);
    vm.file.cmdline = String::new();
    vm.write();
    vm.start(B);
    vm.await_protected(A);
}
