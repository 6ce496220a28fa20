//! The pair over TLS: it works like without, and nobody else gets in.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;

use crate::client::{Asker, Counter};
use crate::cluster::{A, B, Cluster, short_run, wait_for};

#[test]
fn one_connection_outlives_losses_and_strangers() {
    let mut vm = Cluster::redis().with_keys();
    vm.bring_up();
    let mut client = Counter::connect(vm.redis.unwrap());
    client.goes_on();

    // Strangers at both doors, who come and stay.
    let mut strangers = Vec::new();
    for channel in vm.file.channels.into_iter().cycle().take(100) {
        let mut stranger = TcpStream::connect(channel).unwrap();
        if strangers.len() % 2 == 0 {
            let _ = stranger.write_all(b"GET / HTTP/1.1\r\n\r\n");
        }
        strangers.push(stranger);
    }
    client.goes_on();
    vm.await_protected(A);

    vm.kill(A);
    client.goes_on();
    vm.await_role(B, "live");
    vm.start(A);
    vm.await_protected(B);
    client.goes_on();

    assert!(vm.ctl(B, "takeover").status.success());
    vm.await_protected(A);
    client.goes_on();

    vm.terminate(A);
    assert_eq!(vm.await_end(A), Some(0));
    client.goes_on();
    vm.await_role(B, "live");
    vm.start(A);
    vm.await_protected(B);
    assert!(client.end() > 100);

    let log = vm.log(A);
    let refused = log
        .lines()
        .filter(|line| line.contains("is not taken for node b"));
    assert!((1..60).contains(&refused.count()), "{log}");
    assert!(log.contains("does not speak TLS"), "{log}");
    drop(strangers);
}

#[test]
fn a_node_of_another_cluster_is_no_peer_until_it_has_the_right_keys() {
    let mut vm = Cluster::echo().with_keys();
    let ours = vm.file.keys.clone();
    vm.start(A);
    vm.await_role(A, "live");
    // The same names, another authority.
    vm.file.keys = Some(vm.issue("other", &["a", "b"]));
    vm.write();
    vm.start(B);
    wait_for("both to say why", || {
        let said = |node: usize| vm.log(node).contains("of another cluster");
        (said(A) && said(B)).then_some(())
    });
    assert_eq!(vm.role(B).as_deref(), Some("cold"));

    // It is mended while both run.
    for name in ["ca.crt", "b.crt", "b.key"] {
        let from = ours.as_ref().unwrap().join(name);
        fs::copy(from, vm.path("other").join(name)).unwrap();
    }
    vm.await_protected(A);
    let mut asker = Asker::connect(&vm.file.lan);
    assert_eq!(asker.ask(), 1);
    vm.kill(A);
    // B goes on from the same memory; the last answer may come twice.
    while asker.ask() < 2 {}
}

#[test]
fn keys_that_cannot_be_used_are_bad_input() {
    let mut vm = Cluster::echo();
    vm.file.keys = Some(vm.path("keys"));
    vm.write();
    let refused = |vm: &Cluster, expected: &str| {
        let done = short_run().args(vm.node_args(A)).output().unwrap();
        let text = String::from_utf8_lossy(&done.stderr);
        assert!(
            text.contains(expected) && text.lines().count() == 1,
            "{text}"
        );
        assert_eq!(done.status.code(), Some(2));
        assert!(!vm.file.state_dir.join("a").exists());
    };
    refused(
        &vm,
        "keys/ca.crt: there is no such file: make it with twinvm keys issue",
    );
    vm.issue("keys", &["b"]);
    fs::rename(vm.path("keys/b.crt"), vm.path("keys/a.crt")).unwrap();
    fs::rename(vm.path("keys/b.key"), vm.path("keys/a.key")).unwrap();
    refused(&vm, "a.crt: is for node b: give the certificate of node a");
}

/// What goes over the wire is not the guest's.
#[test]
fn a_node_says_nothing_to_a_stranger() {
    let mut vm = Cluster::echo().with_keys();
    vm.start(A);
    vm.await_role(A, "live");
    let mut stranger = TcpStream::connect(vm.file.channels[A]).unwrap();
    // A frame as an unencrypted peer begins with.
    stranger.write_all(&[2, 0, 0, 0, 1, 1]).unwrap();
    let mut said = Vec::new();
    let _ = stranger.read_to_end(&mut said);
    assert!(said.len() <= 7, "{said:?}");
}
