//! Who may run: one process for each state folder, and nobody without the arbiter's record.

use std::fs;
use std::thread;
use std::time::Duration;

use crate::client::Asker;
use crate::cluster::{A, B, Cluster, free_ports, short_run};

#[test]
fn a_second_process_with_the_same_state_folder_refuses() {
    let mut vm = Cluster::echo();
    vm.start(A);
    vm.await_role(A, "live");
    // Other ports, so that nothing but the folder is in its way.
    vm.file.channels = free_ports();
    vm.write();
    let done = short_run().args(vm.node_args(A)).output().unwrap();
    let folder = vm.file.state_dir.join("a");
    assert_eq!(
        String::from_utf8_lossy(&done.stderr),
        format!(
            "twinvm node: {}: in use by process {}: stop that node first, or give this one \
             another state_dir\n",
            folder.display(),
            vm.pid(A)
        )
    );
    assert_eq!(done.status.code(), Some(2));
    // The first one is not disturbed, its socket not removed.
    assert_eq!(vm.role(A).as_deref(), Some("live"));
}

#[test]
fn without_the_arbiters_record_nobody_who_has_run_starts() {
    let mut vm = Cluster::echo();
    vm.start_pair();
    let mut asker = Asker::connect(&vm.file.lan);
    assert_eq!(asker.ask(), 1);
    fs::remove_dir_all(&vm.file.arbiter).unwrap();
    // The pair goes on.
    thread::sleep(Duration::from_secs(1));
    assert!(asker.ask() >= 2);
    vm.await_protected(A);

    vm.kill(A);
    vm.kill(B);
    for node in [A, B] {
        vm.start(node);
        vm.await_note(node, "the arbiter has no record, but");
    }
    thread::sleep(Duration::from_secs(2));
    assert_eq!(vm.generation(), 0);
    for node in [A, B] {
        assert_eq!(vm.role(node).as_deref(), Some("cold"));
    }
}
