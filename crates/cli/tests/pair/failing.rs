//! A disk that is full, on either node and alone. What the guest's disk has no room for is a write
//! behind the length that files may have; everything else that nodes keep is far shorter.

use crate::cluster::{A, B, Cluster, NAMES, wait_for};
use crate::server::{self, Counting};

/// Below the guest's sector, above all other files of a node.
const FULL: Option<u64> = Some(16 << 20);

/// Waits for a line of a node.
#[track_caller]
fn says(vm: &Cluster, node: usize, text: &str) {
    let name = NAMES[node];
    wait_for(&format!("node {name} to say {text:?}"), || {
        vm.log(node).contains(text).then_some(())
    });
}

/// The node that stays out joins again once somebody has mended its disk and started it.
fn mended(vm: &mut Cluster, node: usize) {
    let stays_out = "stays out until it is started again: mend the disk first";
    // In whatever order they come.
    for line in [stays_out, "error: disk 0 fails", "a write failed: "] {
        says(vm, node, line);
    }
    let told = vm.log(node);
    let lines = told
        .lines()
        .filter(|line| line.contains("error: disk 0 fails"));
    assert_eq!(lines.count(), 1, "{told}");
    assert_eq!(vm.log(node).matches("a write failed: ").count(), 1, "once");
    vm.await_solo(1 - node);
    vm.await_note(node, stays_out);
    let told = vm.log(node);
    // Before that it may have waited to join.
    let since = told
        .rsplit("error: disk 0 fails")
        .next()
        .unwrap_or_default();
    assert!(!since.contains("waiting to join"), "{told}");
    vm.kill(node);
    vm.start(node);
    vm.await_protected(1 - node);
}

#[test]
fn a_full_disk_costs_a_node_of_a_pair_and_alone_an_error_of_the_guests() {
    let mut vm = server::cluster();
    vm.start_pair();
    let mut counting = Counting::connect(&vm);
    counting.add();

    // The backup's: it leaves, and the guest sees nothing.
    vm.limit_files(B, FULL);
    assert_eq!(counting.add(), 2);
    mended(&mut vm, B);
    assert_eq!(counting.add(), 3);

    // The live node's: the backup goes on, and the guest sees nothing.
    vm.limit_files(A, FULL);
    assert_eq!(counting.add(), 4);
    vm.await_role(B, "live");
    mended(&mut vm, A);
    assert_eq!(counting.add(), 5);

    // Alone it is the guest's error. This one tries again for ever.
    vm.kill(A);
    vm.await_solo(B);
    vm.limit_files(B, FULL);
    counting.begin();
    says(
        &vm,
        B,
        "a write failed: File too large (os error 27) (said once)",
    );
    assert!(counting.is_silence());
    assert_eq!(vm.role(B).as_deref(), Some("live"));
    vm.limit_files(B, None);
    assert_eq!(counting.end(), 6);
}
