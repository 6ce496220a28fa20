//! Nodes without rights: of another user than the one that started them, with no system call but
//! those they need. They do all that nodes do, and what they gave up is gone.
//!
//! Started by anybody but root they stay who they are; the rest is tried all the same.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::client::{Asker, Counter};
use crate::cluster::{A, B, Cluster, NAMES, PROGRAM, alone, short_run, wait_for};
use crate::namespace::{in_namespaces, inside, ip};

/// A user and a group that nothing on the host belongs to.
pub(crate) const UID: u32 = 4000;
const GID: u32 = 4001;

/// Whether this process can become another user: root, and not root of a small world of its own.
pub(crate) fn may_change_user() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let all = map.split_whitespace().last() == Some("4294967295");
    rustix::process::geteuid().is_root() && all
}

/// From now on nodes start without rights, if root starts them.
pub(crate) fn confine(vm: &mut Cluster) {
    if !may_change_user() {
        eprintln!("nodes keep their user: only root can change it");
        return;
    }
    vm.more_args = vec!["--user".to_owned(), format!("{UID}:{GID}")];
    fs::set_permissions(vm.root(), fs::Permissions::from_mode(0o755)).unwrap();
    if vm.file.lan.exists() {
        give(&vm.file.lan);
    }
    if let Some(keys) = &vm.file.keys {
        for entry in fs::read_dir(keys).unwrap() {
            give(&entry.unwrap().path());
        }
        give(keys);
    }
}

fn give(path: &Path) {
    if may_change_user() {
        chown(path, Some(UID), Some(GID)).unwrap();
    }
}

/// Looks at every thread of a node.
#[track_caller]
fn assert_confined(vm: &Cluster, node: usize) {
    let threads = assert_process_confined(vm.pid(node), !vm.more_args.is_empty());
    assert!(threads > 4, "{threads} threads");
}

/// Looks at every thread of a process, which may be another user's; how many there are.
#[track_caller]
fn assert_process_confined(pid: u32, other_user: bool) -> usize {
    let mut threads = 0;
    for entry in fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
        // It may have ended meanwhile.
        let Ok(status) = fs::read_to_string(entry.unwrap().path().join("status")) else {
            continue;
        };
        threads += 1;
        let mut lines = vec!["Seccomp:\t2".to_owned(), "NoNewPrivs:\t1".to_owned()];
        if other_user {
            for set in ["Inh", "Prm", "Eff", "Bnd", "Amb"] {
                lines.push(format!("Cap{set}:\t0000000000000000"));
            }
            lines.push(format!("Uid:\t{UID}\t{UID}\t{UID}\t{UID}"));
            lines.push(format!("Gid:\t{GID}\t{GID}\t{GID}\t{GID}"));
            lines.push(format!("Groups:\t{GID}"));
        }
        for line in lines {
            let found = status.lines().any(|it| it.trim_end() == line);
            assert!(found, "process {pid}: no {line:?}: {status}");
        }
    }
    threads
}

/// Everything in a node's folder is its user's, and nobody else may look.
#[track_caller]
fn assert_own_files(vm: &Cluster, node: usize) {
    let folder = vm.file.state_dir.join(NAMES[node]);
    let owner = if vm.more_args.is_empty() {
        rustix::process::geteuid().as_raw()
    } else {
        UID
    };
    let entries = fs::read_dir(&folder).unwrap();
    let files = entries.map(|entry| entry.unwrap().path());
    for path in files.chain([folder.clone()]) {
        // A file that is being replaced has its new name by now.
        let meta = match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            found => found.unwrap(),
        };
        assert_eq!(meta.uid(), owner, "{path:?}");
    }
    assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o777, 0o700);
    assert!(folder.join("generation").exists());
}

#[test]
fn a_confined_pair_does_all_that_a_pair_does() {
    let mut vm = Cluster::redis().with_keys();
    confine(&mut vm);
    vm.bring_up();
    let mut client = Counter::connect(vm.redis.unwrap());
    client.goes_on();
    for node in [A, B] {
        assert_confined(&vm, node);
        assert_own_files(&vm, node);
    }

    // A snapshot, which is a file more and a thread more; both nodes' digests.
    for node in [A, B] {
        let done = vm.ctl(node, "snapshot");
        assert!(done.status.success(), "{done:?}");
        assert!(vm.ctl(node, "digest").status.success());
    }

    // New keys, which the next connection uses: the files of the old ones can't be read any more.
    let keys = vm.file.keys.clone().unwrap();
    let folder = keys.to_str().unwrap();
    for name in NAMES {
        let old = fs::read(keys.join(format!("{name}.crt"))).unwrap();
        let args = [
            "keys", "issue", "--ca", folder, "--name", name, "--out", folder, "--force",
        ];
        let done = Command::new(PROGRAM).args(args).output().unwrap();
        assert!(done.status.success(), "{done:?}");
        for file in [format!("{name}.crt"), format!("{name}.key")] {
            give(&keys.join(file));
        }
        assert_ne!(fs::read(keys.join(format!("{name}.crt"))).unwrap(), old);
    }

    // A dead live node, and one that joins again.
    vm.kill(A);
    client.goes_on();
    vm.await_role(B, "live");
    vm.start(A);
    vm.await_protected(B);
    client.goes_on();
    assert!(!vm.log(B).contains("new credentials are not used"));

    // One that is asked for, and one at the live node's end.
    assert!(vm.ctl(B, "takeover").status.success());
    vm.await_protected(A);
    client.goes_on();
    vm.terminate(A);
    assert_eq!(vm.await_end(A), Some(0));
    client.goes_on();
    vm.start(A);
    vm.await_protected(B);
    for node in [A, B] {
        assert_confined(&vm, node);
        assert_own_files(&vm, node);
    }
    assert!(client.end() > 100);
    assert!(vm.ctl(B, "stop").status.success());
    assert_eq!(vm.await_end(B), Some(0));
    assert!(vm.halted());
}

#[test]
fn a_folder_of_another_user_is_named_with_the_mend() {
    let mut vm = Cluster::echo();
    // As it is after the node ran as whoever runs this test.
    vm.start(A);
    vm.await_role(A, "live");
    let root = rustix::process::geteuid().is_root();
    assert_eq!(
        vm.log(A)
            .contains("runs as root, and needs none of root's rights"),
        root
    );
    vm.kill(A);
    if !may_change_user() {
        return;
    }
    confine(&mut vm);
    let done = short_run()
        .args(vm.node_args(A))
        .args(&vm.more_args)
        .output()
        .unwrap();
    let folder = vm.file.state_dir.join("a");
    assert_eq!(
        String::from_utf8_lossy(&done.stderr),
        format!(
            "twinvm node: {0}: belongs to user 0, but this process is to run as {UID}: chown -R {UID} \
             {0}\n",
            folder.display()
        )
    );
    assert_eq!(done.status.code(), Some(2));
    // The mend mends it; the arbiter's folder is the other half.
    let done = Command::new("chown")
        .args(["-R", &UID.to_string()])
        .args([&folder, &vm.file.arbiter])
        .status();
    assert!(done.unwrap().success());
    vm.start(A);
    vm.await_role(A, "live");
    let mut asker = Asker::connect(&vm.file.lan);
    assert_eq!(asker.ask(), 1);

    // From then on root doesn't go in by itself: it would leave files that the user can't read.
    vm.kill(A);
    vm.more_args.clear();
    let done = short_run().args(vm.node_args(A)).output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&done.stderr),
        format!(
            "twinvm node: {}: belongs to user {UID}, who can't read what a process of root's leaves \
             there: add --user {UID}\n",
            folder.display()
        )
    );
    assert_eq!(done.status.code(), Some(2));
}

#[test]
fn the_arbiters_server_and_the_switch_are_confined_too() {
    let mut vm = Cluster::echo();
    assert!(assert_process_confined(vm.lan_pid(), false) > 1);
    let user = may_change_user();
    fs::set_permissions(vm.root(), fs::Permissions::from_mode(0o755)).unwrap();
    let records = vm.path("records");
    let mut command = Command::new(PROGRAM);
    command
        .args(["arbiter", "serve", "--listen", "127.0.0.1:0", "--dir"])
        .arg(&records)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if user {
        command.args(["--user", &format!("{UID}:{GID}")]);
    }
    let mut server = Server(command.spawn().unwrap());
    let mut line = String::new();
    let mut out = BufReader::new(server.0.stdout.take().unwrap());
    out.read_line(&mut line).unwrap();
    let address = line.trim().strip_prefix("listening on ").unwrap();
    // It serves a pair, and each record is its user's.
    vm.file.arbiter_server = Some(address.to_owned());
    vm.write();
    vm.start_pair();
    let mut asker = Asker::connect(&vm.file.lan);
    assert_eq!(asker.ask(), 1);
    assert!(assert_process_confined(server.0.id(), user) > 1);
    let owner = fs::metadata(records.join("vm.test")).unwrap().uid();
    assert_eq!(owner == UID, user);
}

/// A process that ends with its value.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const TAPS: [&str; 2] = ["tap-a", "tap-b"];

#[test]
fn an_interface_that_goes_and_comes_back_is_attached_to_without_rights() {
    let test = "sandbox::an_interface_that_goes_and_comes_back_is_attached_to_without_rights";
    let needs = ["ip tuntap add dev tap-a mode tap"];
    let _alone = (!inside()).then(alone);
    in_namespaces(test, &[], &needs, on_interfaces);
}

fn add(tap: &str) {
    let user = if may_change_user() {
        format!(" user {UID}")
    } else {
        String::new()
    };
    ip(&format!("tuntap add dev {tap} mode tap{user}"));
    ip(&format!("link set {tap} up"));
}

fn on_interfaces() {
    for tap in TAPS {
        add(tap);
    }
    let mut vm = Cluster::echo_on(TAPS);
    let tun = fs::metadata("/dev/net/tun").unwrap();
    match tun.mode() & 0o006 {
        0o006 => confine(&mut vm),
        _ => eprintln!("nodes keep their user: others may not open /dev/net/tun on this host"),
    }
    vm.start_pair();
    for (node, tap) in [(A, TAPS[A]), (B, TAPS[B])] {
        assert_confined(&vm, node);
        ip(&format!("link del {tap}"));
        wait_for("the interface to be missed", || {
            vm.log(node)
                .contains("the interface has gone")
                .then_some(())
        });
        // It looks for it in vain for a while.
        std::thread::sleep(Duration::from_millis(300));
        add(tap);
        wait_for("the interface to be found again", || {
            vm.log(node)
                .contains(&format!("tap:{tap} is there again"))
                .then_some(())
        });
    }
    vm.kill(A);
    vm.await_role(B, "live");
}
