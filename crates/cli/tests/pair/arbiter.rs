//! The pair with the small server as its arbiter.

use std::fs;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use crate::cluster::{A, B, Cluster, PROGRAM, free_ports, wait_for};

/// A server; killed when it is dropped.
struct Server {
    child: Child,
}

impl Server {
    fn start(vm: &Cluster, listen: &str, keys: &[&str]) -> Self {
        let log = fs::File::create(vm.path("arbiter.log")).unwrap();
        let child = Command::new(PROGRAM)
            .args(["arbiter", "serve", "--listen", listen, "--dir"])
            .arg(vm.path("records"))
            .args(keys)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        wait_for("the arbiter", || {
            let said = fs::read_to_string(vm.path("arbiter.log")).ok()?;
            said.contains("listening on ").then_some(())
        });
        Self { child }
    }
}

impl Cluster {
    /// An address beside those of the nodes, which are free still.
    fn free_port(&self) -> String {
        let _taken = self.file.channels.map(|at| TcpListener::bind(at).unwrap());
        free_ports()[0].to_string()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_pair_outlives_its_live_node_and_its_arbiter() {
    let mut vm = Cluster::echo();
    let listen = vm.free_port();
    vm.file.arbiter = vm.path("records/vm.test");
    vm.file.arbiter_server = Some(listen.clone());
    vm.write();

    // It need not run yet when a node starts.
    vm.start(A);
    vm.await_note(A, "the arbiter does not answer");
    let server = Server::start(&vm, &listen, &[]);
    vm.await_role(A, "live");
    vm.start(B);
    vm.await_protected(A);

    vm.kill(A);
    vm.await_solo(B);
    vm.start(A);
    vm.await_protected(B);
    let generation = vm.generation();

    // A protected VM doesn't need it, until its backup is lost.
    drop(server);
    vm.kill(A);
    vm.await_note(B, "outputs wait until the record is settled");
    assert_eq!(vm.generation(), generation);
    let _server = Server::start(&vm, &listen, &[]);
    vm.await_solo(B);
    vm.start(A);
    vm.await_protected(B);
    assert_eq!(vm.generation(), generation + 2);
}

/// The node that was live last is lost with its folder: the other may not start by itself.
#[test]
fn after_a_reset_the_chosen_node_starts() {
    let mut vm = Cluster::echo();
    vm.start_pair();
    vm.kill(B);
    vm.await_solo(A);
    vm.kill(A);
    fs::remove_dir_all(vm.file.state_dir.join("a")).unwrap();
    vm.start(B);
    vm.await_note(B, "waiting to join");
    let generation = vm.generation();
    let done = Command::new(PROGRAM)
        .args(["arbiter", "reset", "--live", "b", "--yes"])
        .arg(vm.path("VM.toml"))
        .output()
        .unwrap();
    assert!(done.status.success(), "{done:?}");
    // It need not be started again.
    vm.await_solo(B);
    vm.start(A);
    vm.await_protected(B);
    assert_eq!(vm.generation(), generation + 4);
}

/// A record stands under the VM's name: a backup that looks under another could never take over.
#[test]
fn nodes_of_two_names_do_not_go_together() {
    let mut vm = Cluster::echo();
    vm.start_pair();
    vm.kill(B);
    vm.await_solo(A);
    let other = vm
        .file
        .text()
        .replacen("name = \"test\"", "name = \"tset\"", 1);
    fs::write(vm.path("VM.toml"), other).unwrap();
    vm.start(B);
    let differ = "the nodes differ in name: here";
    vm.await_note(
        B,
        &format!("{differ} \"tset\", there \"test\"; make them equal"),
    );
    vm.await_note(
        A,
        &format!("{differ} \"test\", there \"tset\"; make them equal"),
    );
    assert_eq!(vm.role(A).as_deref(), Some("live"));
    vm.kill(B);
    vm.write();
    vm.start(B);
    vm.await_protected(A);
}

/// With keys: nodes with `[tls]` reach the arbiter by TLS, and who has none is not let in.
#[test]
fn a_pair_with_keys_has_an_arbiter_with_keys() {
    let mut vm = Cluster::echo().with_keys();
    let keys = vm.path("keys");
    let keys = keys.to_str().unwrap();
    let issue = ["keys", "issue", "--ca", keys, "--arbiter", "--out", keys];
    assert!(
        Command::new(PROGRAM)
            .args(issue)
            .status()
            .unwrap()
            .success()
    );
    let listen = vm.free_port();
    let _server = Server::start(&vm, &listen, &["--keys", keys]);
    vm.file.arbiter = vm.path("records/vm.test");
    vm.file.arbiter_server = Some(listen.clone());
    vm.write();
    vm.start_pair();
    vm.kill(A);
    vm.await_solo(B);

    let show = |args: &[&str]| {
        let mut command = Command::new(PROGRAM);
        command
            .args(["arbiter", "show"])
            .args(args)
            .output()
            .unwrap()
    };
    let file = vm.path("VM.toml");
    let shown = show(&[file.to_str().unwrap()]);
    let text = String::from_utf8(shown.stdout).unwrap();
    assert!(
        text.contains("node b ") && text.contains("is live, alone"),
        "{text}"
    );
    let stranger = show(&["--arbiter", &format!("tcp:{listen}"), "--vm", "test"]);
    assert_eq!(stranger.status.code(), Some(1));
    let why = String::from_utf8(stranger.stderr).unwrap();
    assert!(why.contains("[tls]"), "{why}");
    // The server's line may come a moment after the stranger's.
    wait_for("the arbiter to name the stranger", || {
        let log = fs::read_to_string(vm.path("arbiter.log")).ok()?;
        log.contains("is refused: ").then_some(())
    });
}
