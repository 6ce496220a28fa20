//! One client's connection to Redis in the guest, through everything that happens to the pair.

use std::fs;
use std::thread;
use std::time::Duration;

use crate::client::Counter;
use crate::cluster::{A, B, Cluster};

/// One boot, one connection: each stage begins with a protected VM and ends with one, and the
/// replies count on without a gap all the while.
#[test]
fn one_connection_outlives_every_loss_of_a_node() {
    let mut vm = Cluster::redis();
    vm.bring_up();
    let mut client = Counter::connect(vm.redis.unwrap());
    client.goes_on();

    // kill -9 of the live node: the backup goes on; the killed one joins again.
    vm.kill(A);
    client.goes_on();
    vm.await_role(B, "live");
    vm.start(A);
    vm.await_protected(B);
    client.goes_on();

    // kill -9 of the backup: the VM goes on alone, and is protected again when it is back.
    vm.kill(A);
    client.goes_on();
    vm.await_solo(B);
    vm.start(A);
    vm.await_protected(B);
    client.goes_on();

    // A planned takeover, asked for.
    assert!(vm.ctl(B, "takeover").status.success());
    vm.await_protected(A);
    client.goes_on();

    // The backup is sent away.
    assert!(vm.ctl(A, "detach").status.success());
    assert_eq!(vm.await_end(B), Some(0));
    vm.await_solo(A);
    client.goes_on();
    vm.start(B);
    vm.await_protected(A);

    // SIGTERM to the backup: it leaves.
    vm.terminate(B);
    assert_eq!(vm.await_end(B), Some(0));
    vm.await_solo(A);
    client.goes_on();
    vm.start(B);
    vm.await_protected(A);
    client.goes_on();

    // A settled pair needs no arbiter.
    let away = vm.path("arbiter-away");
    fs::rename(&vm.file.arbiter, &away).unwrap();
    client.goes_on();
    thread::sleep(Duration::from_secs(1));
    client.goes_on();
    vm.await_protected(A);
    fs::rename(&away, &vm.file.arbiter).unwrap();

    // SIGTERM to the live node: a planned takeover, and its process ends.
    vm.terminate(A);
    assert_eq!(vm.await_end(A), Some(0));
    client.goes_on();
    vm.await_role(B, "live");
    assert!(client.end() > 200);

    // SIGTERM to the only node: the VM is off, and the one named live may start it again.
    vm.terminate(B);
    assert_eq!(vm.await_end(B), Some(0));
    assert!(vm.halted());
    vm.start(A);
    vm.await_note(A, "waiting to join node");
    vm.start(B);
    vm.await_role(B, "live");
    assert!(!vm.halted());
}
