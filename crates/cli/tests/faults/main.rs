//! Real faults: a protected Redis on three hosts (network namespaces with bridges and TAP
//! interfaces, TLS between nodes and arbiter), with clients whose calls are recorded all the
//! while. After each fault the VM is protected again, no connection was lost, and at the end one
//! copy of the data explains every answer.
//!
//! `TWINVM_FAULTS=loss,memory` runs only the faults whose names contain one of these words, and
//! `TWINVM_FAULT_ROUNDS=N` all of them N times. With `TWINVM_FAULTS_OUTPUT=backup` the backup sends the guest's frames.

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

use std::sync::{Mutex, PoisonError};

use lab::hosts::ENTER;
use twinvm_protocol::OutputFrom;

/// Each of them takes the whole host.
static ALONE: Mutex<()> = Mutex::new(());

fn in_namespaces(test: &str, body: fn()) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let needs = [
        "ip tuntap add dev try0 mode tap",
        "ip link add try1 type bridge",
        "nft add table bridge try",
        "mount -t tmpfs try /mnt",
        "command -v tcpdump nsenter >/dev/null",
    ];
    // The way in has `--net` already.
    namespace::in_namespaces(test, &ENTER[1..], &needs, body);
}

#[test]
fn every_fault_is_survived() {
    in_namespaces("every_fault_is_survived", || {
        let output = match std::env::var("TWINVM_FAULTS_OUTPUT").as_deref() {
            Ok("backup") => OutputFrom::Backup,
            _ => OutputFrom::Live,
        };
        scene::play(&cases::ALL, output);
    });
}

#[test]
fn faults_are_survived_where_the_backup_speaks() {
    in_namespaces("faults_are_survived_where_the_backup_speaks", || {
        scene::play(&cases::SPOKEN, OutputFrom::Backup);
    });
}
