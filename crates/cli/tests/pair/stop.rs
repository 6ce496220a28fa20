//! Stopping the VM, and starting it again.

use std::fs::File;
use std::thread;
use std::time::Duration;

use crate::client::Asker;
use crate::cluster::{A, B, Cluster, NAMES, echo};

/// Long enough for a takeover that must not come.
const QUIET: Duration = Duration::from_secs(2);

#[test]
fn stop_ends_both_nodes_and_no_takeover_follows() {
    let mut vm = Cluster::echo();
    vm.start_pair();
    let before = vm.generation();
    let done = vm.ctl(A, "stop");
    assert!(done.status.success(), "{done:?}");
    assert_eq!((vm.await_end(A), vm.await_end(B)), (Some(0), Some(0)));
    assert!(vm.halted());
    assert_eq!(vm.generation(), before + 1);
    assert!(!vm.log(B).contains("-> live"), "{}", vm.log(B));
    for name in NAMES {
        assert!(!vm.file.state_dir.join(name).join("ctl.sock").exists());
    }

    // The other one does not start what was live elsewhere; the one named live does.
    vm.start(B);
    vm.await_note(B, "waiting to join node a (id ");
    thread::sleep(QUIET);
    assert_eq!(vm.role(B).as_deref(), Some("cold"));
    vm.start(A);
    vm.await_protected(A);
    assert_eq!(Asker::connect(&vm.file.lan).ask(), 1);
}

#[test]
fn the_guests_poweroff_ends_both_nodes() {
    let mut vm = Cluster::echo();
    vm.start_pair();
    let mut asker = Asker::connect(&vm.file.lan);
    assert_eq!(asker.ask(), 1);
    asker.send(&echo::power_off());
    assert_eq!((vm.await_end(A), vm.await_end(B)), (Some(0), Some(0)));
    assert!(vm.halted());
}

#[test]
fn after_the_loss_of_both_only_the_id_named_live_starts() {
    let mut vm = Cluster::echo();
    vm.start_pair();
    vm.kill(B);
    vm.await_solo(A);
    vm.kill(A);
    vm.start(B);
    vm.await_note(B, "waiting to join node");
    thread::sleep(QUIET);
    assert_eq!(vm.role(B).as_deref(), Some("cold"));
    vm.start(A);
    vm.await_protected(A);

    // Both at once: the record names a backup too, which may have held a newer machine. The
    // one named live asks it first.
    vm.kill(A);
    vm.kill(B);
    vm.start(A);
    vm.await_note(A, "which may hold a newer state");
    assert_eq!(vm.role(A).as_deref(), Some("cold"));
    vm.start(B);
    vm.await_protected(A);
}

#[test]
fn a_stop_that_comes_to_nothing_is_not_called_done() {
    let mut vm = Cluster::echo();
    vm.file.more = "[[disk]]\npath = \"{name}.img\"\nsize = \"1M\"\n".to_owned();
    vm.write();
    let disk = File::create(vm.path("a.img")).unwrap();
    disk.set_len(1 << 20).unwrap();
    vm.start_pair();
    // As on a file system that is full: the node can't write down what its disk is worth.
    vm.limit_files(A, Some(0));
    let output = vm.ctl(A, "stop");
    assert_eq!(vm.await_end(A), Some(2));
    vm.await_role(B, "live");
    assert!(!vm.halted());
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("was ended before it said that the VM is off"),
        "{said}"
    );
    // What it has left is in nobody's way.
    vm.limit_files(B, None);
    vm.start(A);
    vm.await_protected(B);
}
