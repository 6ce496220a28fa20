//! The pair as it is on a real network: each node on a TAP interface of its own, both on one
//! bridge, which learns where the guest is from the frames that it sees.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use crate::client::Counter;
use crate::cluster::{A, B, Cluster, GUEST_MAC, alone, wait_for};
use crate::namespace::{in_namespaces, inside, ip};

const TAPS: [&str; 2] = ["tap-a", "tap-b"];
const REDIS: SocketAddr = SocketAddr::new(
    std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 2, 15)),
    6379,
);

#[test]
fn one_connection_through_a_bridge_outlives_both_nodes() {
    let test = "bridge::one_connection_through_a_bridge_outlives_both_nodes";
    let needs = [
        "ip tuntap add dev tap-a mode tap",
        "ip link add br0 type bridge",
    ];
    let _alone = (!inside()).then(alone);
    in_namespaces(test, &[], &needs, through_a_bridge);
}

#[test]
fn a_bridge_is_not_misled_by_a_backup_that_emits() {
    let test = "bridge::a_bridge_is_not_misled_by_a_backup_that_emits";
    let needs = [
        "ip tuntap add dev tap-a mode tap",
        "ip link add br0 type bridge",
    ];
    let _alone = (!inside()).then(alone);
    in_namespaces(test, &[], &needs, with_a_backup_that_emits);
}

/// Waits until the bridge would send a frame for the guest to this node.
#[track_caller]
fn await_guest_at(node: usize) {
    await_station_at(GUEST_MAC, node);
}

#[track_caller]
fn await_station_at(mac: &str, node: usize) {
    wait_for("the bridge to know where the guest is", || {
        let shown = Command::new("bridge")
            .args(["fdb", "show", "br", "br0", "dynamic"])
            .output()
            .expect("bridge (iproute2)");
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        let line = format!("{mac} dev {} ", TAPS[node]);
        shown.lines().any(|it| it.starts_with(&line)).then_some(())
    });
}

/// kill -9 of the live node, which joins again.
#[track_caller]
fn kill_live(vm: &mut Cluster, client: &mut Counter, (live, backup): (usize, usize)) {
    client.longest_wait();
    vm.kill(live);
    client.goes_on();
    eprintln!(
        "a live node was killed: a reply took {:?}",
        client.longest_wait()
    );
    vm.await_role(backup, "live");
    await_guest_at(backup);
    vm.start(live);
    vm.await_protected(backup);
}

fn with_a_backup_that_emits() {
    lay_bridge();
    let mut vm = Cluster::redis_on(TAPS);
    vm.file.output = Some("backup");
    vm.write();
    vm.start(A);
    vm.await_role(A, "live");
    vm.start(B);
    vm.await_redis(A);
    vm.await_protected(A);
    let mut client = Counter::connect(REDIS);
    let voice = format!("76:6d:62{}", &GUEST_MAC[8..]);
    for (live, backup) in [(A, B), (B, A)] {
        // Answers come from the backup, questions go to the live node.
        client.goes_on();
        await_station_at(&voice, backup);
        await_guest_at(live);
        // A bridge that has forgotten where the guest is sends to both.
        ip("link set br0 type bridge fdb_flush");
        client.goes_on();
        await_station_at(&voice, backup);
        kill_live(&mut vm, &mut client, (live, backup));
    }
    client.goes_on();
    vm.kill(B);
    client.goes_on();
    vm.start(B);
    vm.await_protected(A);
    assert!(vm.ctl(A, "takeover").status.success());
    vm.await_protected(B);
    client.goes_on();
    client.end();
}

fn lay_bridge() {
    ip("link add br0 type bridge");
    ip("addr add 10.0.2.2/24 dev br0");
    ip("link set br0 up");
    for tap in TAPS {
        ip(&format!("tuntap add dev {tap} mode tap"));
        ip(&format!("link set {tap} master br0"));
        ip(&format!("link set {tap} up"));
    }
}

fn through_a_bridge() {
    lay_bridge();
    let mut vm = Cluster::redis_on(TAPS);
    // A guest that says nothing by itself: looks for no routers, and never again for the client.
    vm.file.cmdline +=
        " ipv6.disable=1 sysctl.net.ipv4.neigh.default.base_reachable_time_ms=3600000";
    vm.write();
    vm.bring_up();
    let mut client = Counter::connect(REDIS);
    client.goes_on();
    await_guest_at(A);

    // One after the other.
    for (live, backup) in [(A, B), (B, A)] {
        kill_live(&mut vm, &mut client, (live, backup));
        client.goes_on();
    }

    // Both live on when a takeover is asked for.
    client.longest_wait();
    assert!(vm.ctl(A, "takeover").status.success());
    vm.await_protected(B);
    client.goes_on();
    await_guest_at(B);
    eprintln!(
        "a takeover was asked for: a reply took {:?}",
        client.longest_wait()
    );
    let count = client.end();

    // The guest says nothing now: the bridge knows where it is because the new live node says so.
    assert!(vm.ctl(B, "takeover").status.success());
    vm.await_protected(A);
    await_guest_at(A);
    let mut other = BufReader::new(TcpStream::connect(REDIS).unwrap());
    other.get_mut().write_all(b"GET n\r\n").unwrap();
    let mut lines = other.lines().map(Result::unwrap);
    assert_eq!(lines.next(), Some(format!("${}", count.to_string().len())));
    assert_eq!(lines.next(), Some(count.to_string()));
}
