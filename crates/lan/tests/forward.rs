//! Forwards to a guest with a real TCP/IP stack.

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use twinvm_lan::Impairment;

use support::echo::{EchoGuest, REFUSED, SERVER};
use support::{SOON, TestLan, is_reset};

fn wait_until(counter: &AtomicUsize, value: usize) {
    let start = Instant::now();
    while counter.load(Ordering::Relaxed) != value {
        let now = counter.load(Ordering::Relaxed);
        assert!(start.elapsed() < SOON, "it is {now}, expected {value}");
        thread::sleep(Duration::from_millis(1));
    }
}

fn pattern(length: usize, seed: usize) -> Vec<u8> {
    (0..length)
        .map(|at| (at * 31 + at / 251 + seed) as u8)
        .collect()
}

fn echo(client: &mut TcpStream, bytes: &[u8]) {
    let mut writer = client.try_clone().unwrap();
    thread::scope(|scope| {
        scope.spawn(move || writer.write_all(bytes).unwrap());
        let mut back = vec![0; bytes.len()];
        client.read_exact(&mut back).unwrap();
        assert!(back == bytes, "the bytes came back changed");
    });
}

#[test]
fn bytes_go_both_ways() {
    let lan = TestLan::start(&[SERVER]);
    let guest = EchoGuest::start(&lan.socket);
    let mut client = lan.client(0);
    echo(&mut client, b"hello");
    echo(&mut client, &pattern(1 << 20, 0));
    drop(client);
    wait_until(&guest.seen.ended_in_order, 1);
    let stats = lan.stop();
    assert_eq!((stats.connections, stats.frames_dropped), (1, 0));
    assert_eq!(stats.connections_reset_by_guest, 0);
}

#[test]
fn late_and_lost_frames_are_what_tcp_is_for() {
    let delay = Duration::from_millis(20);
    let loss_ppm = 30_000;
    let lan = TestLan::impaired(&[SERVER], Impairment { delay, loss_ppm });
    let _guest = EchoGuest::start(&lan.socket);
    let mut client = lan.client(0);
    // The same segment may be lost several times.
    client.set_read_timeout(Some(10 * SOON)).unwrap();
    echo(&mut client, b"until the connection stands");
    let start = Instant::now();
    echo(&mut client, b"there and back");
    assert!(start.elapsed() >= 2 * delay, "{:?}", start.elapsed());
    echo(&mut client, &pattern(1 << 18, 0));
    drop(client);
    let stats = lan.stop();
    assert!(stats.frames_lost > 0, "{stats:?}");
    assert_eq!(stats.connections_reset_by_guest, 0);
}

#[test]
fn many_connections_one_after_another_and_together() {
    let lan = TestLan::start(&[SERVER]);
    let guest = EchoGuest::start(&lan.socket);
    for round in 0..100 {
        echo(&mut lan.client(0), &pattern(100, round));
    }
    wait_until(&guest.seen.ended_in_order, 100);
    let mut clients: Vec<TcpStream> = (0..50).map(|_| lan.client(0)).collect();
    thread::scope(|scope| {
        for (index, client) in clients.iter_mut().enumerate() {
            scope.spawn(move || echo(client, &pattern(20_000, index)));
        }
    });
    drop(clients);
    wait_until(&guest.seen.ended_in_order, 150);
    assert_eq!(lan.stop().connections, 150);
}

#[test]
fn a_client_that_ends_its_side_still_gets_the_rest() {
    let lan = TestLan::start(&[SERVER]);
    let guest = EchoGuest::start(&lan.socket);
    let sent = pattern(300_000, 1);
    let mut client = lan.client(0);
    let mut writer = client.try_clone().unwrap();
    let bytes = sent.clone();
    let writing = thread::spawn(move || {
        writer.write_all(&bytes).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut back = Vec::new();
    client.read_to_end(&mut back).unwrap();
    assert!(back == sent);
    writing.join().unwrap();
    wait_until(&guest.seen.ended_in_order, 1);
}

#[test]
fn a_client_can_send_after_the_guest_ended_its_side() {
    let lan = TestLan::start(&[SERVER]);
    let guest = EchoGuest::start(&lan.socket);
    let mut client = lan.client(0);
    client.write_all(b"BYE").unwrap();
    let mut back = Vec::new();
    client.read_to_end(&mut back).unwrap();
    assert_eq!(back, b"bye");
    // No reset: the guest's stack takes these.
    client.write_all(&pattern(200_000, 2)).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    wait_until(&guest.seen.ended_in_order, 1);
    assert_eq!(lan.stop().connections_reset_by_guest, 0);
}

#[test]
fn a_reset_by_the_guest_resets_the_client_and_nothing_reconnects() {
    let lan = TestLan::start(&[SERVER]);
    let guest = EchoGuest::start(&lan.socket);
    let mut client = lan.client(0);
    echo(&mut client, b"hello");
    client.write_all(b"RESET").unwrap();
    assert!(is_reset(&mut client));
    thread::sleep(Duration::from_millis(200));
    assert_eq!(guest.seen.accepted.load(Ordering::Relaxed), 1);
    // A new client gets a new connection.
    echo(&mut lan.client(0), b"again");
    assert_eq!(lan.stop().connections_reset_by_guest, 1);
}

#[test]
fn a_reset_by_the_client_resets_the_guest() {
    let lan = TestLan::start(&[SERVER]);
    let guest = EchoGuest::start(&lan.socket);
    let mut client = lan.client(0);
    echo(&mut client, b"hello");
    rustix::net::sockopt::set_socket_linger(&client, Some(Duration::ZERO)).unwrap();
    drop(client);
    wait_until(&guest.seen.reset_by_peer, 1);
    assert_eq!(guest.seen.ended_in_order.load(Ordering::Relaxed), 0);
}

#[test]
fn a_guest_that_refuses_resets_the_client() {
    let lan = TestLan::start(&[REFUSED]);
    let _guest = EchoGuest::start(&lan.socket);
    assert!(is_reset(&mut lan.client(0)));
}

#[test]
fn a_guest_that_never_answers_costs_ten_seconds() {
    let lan = TestLan::start(&[SERVER]);
    let mut client = lan.client(0);
    client.set_read_timeout(Some(3 * SOON)).unwrap();
    let start = Instant::now();
    assert!(is_reset(&mut client));
    let waited = start.elapsed().as_secs_f64();
    assert!((9.5..12.0).contains(&waited), "it took {waited} s");
    let stats = lan.stop();
    assert_eq!(stats.connections_reset_by_guest, 1);
    assert!(stats.turns < 100, "{} turns while waiting", stats.turns);
}

#[test]
fn slow_clients_hold_the_guest_back_and_lose_nothing() {
    let lan = TestLan::start(&[SERVER]);
    let _guest = EchoGuest::start(&lan.socket);
    let mut client = lan.client(0);
    let bytes = pattern(8 << 20, 3);
    let mut writer = client.try_clone().unwrap();
    let copy = bytes.clone();
    let writing = thread::spawn(move || writer.write_all(&copy).unwrap());
    // Everything on the way fills up.
    thread::sleep(Duration::from_millis(300));
    let mut back = vec![0; bytes.len()];
    client.read_exact(&mut back).unwrap();
    assert!(back == bytes);
    writing.join().unwrap();
    assert_eq!(lan.stop().frames_dropped, 0);
}

#[test]
fn an_idle_switch_sleeps() {
    let lan = TestLan::start(&[SERVER]);
    let _guest = EchoGuest::start(&lan.socket);
    let mut client = lan.client(0);
    echo(&mut client, b"hello");
    thread::sleep(Duration::from_millis(1500));
    echo(&mut client, b"hello");
    let stats = lan.stop();
    assert!(stats.turns < 60, "{} turns", stats.turns);
}

#[test]
fn stopping_ends_both_sides() {
    let lan = TestLan::start(&[SERVER]);
    let guest = EchoGuest::start(&lan.socket);
    let socket = lan.socket.clone();
    let mut client = lan.client(0);
    echo(&mut client, b"hello");
    lan.stop();
    assert!(is_reset(&mut client));
    wait_until(&guest.seen.reset_by_peer, 1);
    assert!(!socket.exists());
}
