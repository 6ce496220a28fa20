//! Real faults: a protected Redis on three hosts (network namespaces with bridges and TAP
//! interfaces, TLS between nodes and arbiter), with clients whose calls are recorded all the
//! while. After each fault the VM is protected again, no connection was lost, and at the end one
//! copy of the data explains every answer.
//!
//! `TWINVM_FAULTS=loss,memory` runs only the faults whose names contain one of these words, and
//! `TWINVM_FAULT_ROUNDS=N` all of them N times.

mod capture;
mod cases;
mod cgroup;
mod memory;
mod scene;
mod steer;

#[path = "../../src/lab/mod.rs"]
mod lab;
#[path = "../support/namespace.rs"]
mod namespace;

use lab::hosts::ENTER;

#[test]
fn every_fault_is_survived() {
    let needs = [
        "ip tuntap add dev try0 mode tap",
        "ip link add try1 type bridge",
        "nft add table bridge try",
        "mount -t tmpfs try /mnt",
        "command -v tcpdump nsenter >/dev/null",
    ];
    // The way in has `--net` already.
    namespace::in_namespaces("every_fault_is_survived", &ENTER[1..], &needs, || {
        scene::play(&cases::ALL);
    });
}
