use twinvm_machine::{Images, MachineConfig, OnReset};

use twinvm_protocol::Config;

use super::*;
use crate::arbiter::ArbiterAddress;

#[test]
fn a_machine_that_no_message_can_describe_is_refused_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let state_dir = folder.path().join("state");
    let address = "127.0.0.1:0".parse().unwrap();
    let started = NodeLoop::start(NodeOptions {
        vm: "vm".to_owned(),
        name: "a".to_owned(),
        peer_name: "b".to_owned(),
        state_dir: state_dir.clone(),
        listen: address,
        peer: address,
        tls: None,
        arbiter: ArbiterAddress::File(folder.path().join("arbiter")),
        arbiter_tls: None,
        machine: MachineConfig {
            ram_bytes: 16 << 20,
            harts: 1,
            slots: Vec::new(),
            // Longer than Linux reads, but with a device tree of its own a guest may have it.
            cmdline: "x".repeat(2000),
            images: Images::default(),
            on_reset: OnReset::Exit,
        },
        engine: None,
        wires: Vec::new(),
        disks: Vec::new(),
        shared: Vec::new(),
        flush: Flush::default(),
        sync_bytes_s: None,
        protect: Config::default(),
        operation: Operation::default(),
        forced: None,
        confinement: Default::default(),
    });
    let error = started.err().expect("it starts");
    assert!(error.is_bad_input());
    assert_eq!(
        error.to_string(),
        "the value of cmdline has 2000 bytes, at most 1024 are allowed"
    );
    assert!(!state_dir.join("a").exists());
}
