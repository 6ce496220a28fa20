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
    fn start(vm: &Cluster, listen: &str) -> Self {
        let log = fs::File::create(vm.path("arbiter.log")).unwrap();
        let child = Command::new(PROGRAM)
            .args(["arbiter", "serve", "--listen", listen, "--dir"])
            .arg(vm.path("records"))
            .stdin(Stdio::null())
            .stdout(log)
            .spawn()
            .unwrap();
        wait_for("the arbiter", || {
            let said = fs::read_to_string(vm.path("arbiter.log")).ok()?;
            said.contains("listening on ").then_some(())
        });
        Self { child }
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
    // Beside those of the nodes, which are free still.
    let taken = vm.file.channels.map(|at| TcpListener::bind(at).unwrap());
    let listen = free_ports()[0].to_string();
    drop(taken);
    vm.file.arbiter = vm.path("records/vm.test");
    vm.file.arbiter_server = Some(listen.clone());
    vm.write();

    // It need not run yet when a node starts.
    vm.start(A);
    vm.await_note(A, "the arbiter does not answer");
    let server = Server::start(&vm, &listen);
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
    let _server = Server::start(&vm, &listen);
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
    assert_eq!(vm.generation(), generation + 3);
}
