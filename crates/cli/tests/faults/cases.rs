//! The faults, one function each.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::thread;

use rustix::process::Signal;
use twinvm_protocol::OutputFrom;

use crate::capture::Capture;
use crate::cgroup::Group;
use crate::lab::pair::{Pair, REDIS};
use crate::memory::Ram;
use crate::scene::{self, Case, LIMIT, SUSPECT, Scene, wall_us};

/// In the order in which they are played.
pub(crate) const ALL: [Case; 19] = [
    ("the live node is killed", live_killed),
    ("the backup is killed", backup_killed),
    ("the live host falls silent and comes back", live_silent),
    ("the live node's processor thread is stuck", live_stuck),
    ("the backup's host falls silent", backup_silent),
    ("the channel is cut, all else is not", channel_cut),
    (
        "nothing reaches the backup from the live node",
        channel_cut_to_backup,
    ),
    (
        "nothing reaches the live node from the backup",
        channel_cut_to_live,
    ),
    (
        "the live host is cut off from all but clients",
        live_isolated,
    ),
    ("the arbiter is cut off", arbiter_cut),
    (
        "the arbiter is cut off, the live node killed",
        arbiter_cut_live_killed,
    ),
    ("everything is cut", everything_cut),
    ("loss of 30 % everywhere", loss),
    ("the live host's disk is full", live_disk_full),
    (
        "the backup's disk is full, the live killed",
        backup_disk_full,
    ),
    (
        "the arbiter's disk is full, the live killed",
        arbiter_disk_full,
    ),
    ("the live host has no memory left", live_memory_short),
    ("the backup gets no memory", backup_memory_short),
    ("a bit of the backup's memory flips", backup_bit_flips),
];

/// Those in which it matters most whose frames are on the wire.
pub(crate) const SPOKEN: [Case; 4] = [ALL[0], ALL[1], ALL[2], ALL[5]];

fn live_killed(scene: &mut Scene) {
    let (live, other) = (scene.live, scene.backup());
    scene.pair.kill(live);
    scene.await_role(other, "live");
    scene.flows();
    scene.pair.start_node(live).unwrap();
}

fn backup_killed(scene: &mut Scene) {
    let (live, other) = (scene.live, scene.backup());
    scene.pair.kill(other);
    scene.await_alone(live);
    scene.flows();
    scene.pair.start_node(other).unwrap();
}

/// Stops a node's whole process for longer than it may be silent.
fn silence(scene: &mut Scene, node: usize, meanwhile: fn(&mut Scene)) {
    scene.pair.silent = Some(node);
    scene.pair.signal(node, Signal::STOP).unwrap();
    meanwhile(scene);
    thread::sleep(SUSPECT);
    scene.pair.signal(node, Signal::CONT).unwrap();
    scene.pair.silent = None;
}

/// What a stopped node still has to say when it goes on must be in the winner's log: the winner
/// has sent it, too, since nobody told it that it had left.
fn live_silent(scene: &mut Scene) {
    let (live, other) = (scene.live, scene.backup());
    let capture = |scene: &Scene, node: usize| {
        let file = scene.pair.path(&format!("{node}.pcap"));
        Capture::start(&scene.pair.hosts.hosts[node], &file)
    };
    let (loser, winner) = (capture(scene, live), capture(scene, other));
    scene.flows();
    silence(scene, live, |scene| {
        let other = scene.backup();
        scene.await_role(other, "live");
        scene.flows();
    });
    // To the microsecond before it: what left the node before it was stopped came long before.
    let went_on_us = wall_us() - SUSPECT.as_micros() as u64 / 2;
    let loses_until_us = until_backup(scene, live);
    scene.flows();
    // A capture's file has frames some time after their client.
    let captured = |_: &mut Pair| {
        let (loser, winner) = (loser.frames(), winner.frames());
        Ok((loser.len() > 10 && winner.len() > 10).then_some(()))
    };
    let what = "both captures have frames";
    scene.pair.wait_for(what, LIMIT, captured).unwrap();
    let (loser, winner) = (loser.end(), winner.end());
    let sent: BTreeSet<&[u8]> = winner.iter().map(|frame| &frame.bytes[..]).collect();
    let late: Vec<_> = loser
        .iter()
        .filter(|frame| frame.at_us > went_on_us && frame.at_us < loses_until_us)
        .collect();
    for frame in &late {
        assert!(
            sent.contains(&frame.bytes[..]),
            "the loser has sent {frame:x?}"
        );
    }
    eprintln!(
        "    {} frames came out of the loser's queue, all known",
        late.len()
    );
}

/// Waits until a node is the backup; until when what it sends can only be of before. Where backups
/// send the guest's frames, that is the last time that it was seen not to be one yet.
fn until_backup(scene: &mut Scene, node: usize) -> u64 {
    let mut before_us = 0;
    let found = scene.pair.wait_for("it is the backup", LIMIT, |pair| {
        let now_us = wall_us();
        // One that is still joining says nothing either.
        let is_named = |it: &serde_json::Value| it["role"] == "backup" && it["protected"] == true;
        let is_backup = pair.status(node).is_ok_and(|it| is_named(&it));
        if !is_backup {
            before_us = now_us;
        }
        Ok(is_backup.then_some(()))
    });
    found.unwrap();
    match scene.output {
        OutputFrom::Live => u64::MAX,
        OutputFrom::Backup => before_us,
    }
}

fn live_stuck(scene: &mut Scene) {
    let (live, other) = (scene.live, scene.backup());
    let Some(mut group) = Group::new("freezer") else {
        assert!(
            std::env::var_os("CI").is_none(),
            "no freezer group can be made"
        );
        return eprintln!("    left out: no freezer group can be made");
    };
    // The first thread of a node's process runs the guest.
    let thread = scene.pair.pid(live).unwrap();
    scene.pair.silent = Some(live);
    group.freeze(thread);
    scene.await_role(other, "live");
    scene.flows();
    group.thaw();
    scene.pair.silent = None;
    scene.await_role(live, "backup");
}

fn backup_silent(scene: &mut Scene) {
    let other = scene.backup();
    silence(scene, other, |scene| {
        let live = scene.live;
        scene.await_alone(live);
        scene.flows();
    });
}

const PORTS: [&str; 2] = ["back-a", "back-b"];

fn one_way(from: usize, to: usize) -> String {
    format!("iifname {} oifname {}", PORTS[from], PORTS[to])
}

/// Cuts, waits until nobody is protected and one node goes on alone, and heals.
fn cut(scene: &mut Scene, rules: &[&str]) {
    scene.pair.hosts.drop_what(rules).unwrap();
    let alone = |pair: &mut Pair| {
        let is = |node: usize| {
            let status = pair.status(node);
            status.is_ok_and(|it| it["role"] == "live" && it["protected"] == false)
        };
        Ok((is(0) || is(1)).then_some(()))
    };
    scene
        .pair
        .wait_for("a node is live alone", LIMIT, alone)
        .unwrap();
    scene.flows();
    thread::sleep(SUSPECT);
    scene.flows();
    scene.pair.hosts.drop_what(&[]).unwrap();
}

fn channel_cut(scene: &mut Scene) {
    cut(scene, &[&one_way(0, 1), &one_way(1, 0)]);
}

fn channel_cut_to_backup(scene: &mut Scene) {
    let rule = one_way(scene.live, scene.backup());
    cut(scene, &[&rule]);
}

fn channel_cut_to_live(scene: &mut Scene) {
    let rule = one_way(scene.backup(), scene.live);
    cut(scene, &[&rule]);
}

/// The other one takes over: it alone can win the record.
fn live_isolated(scene: &mut Scene) {
    let (live, other) = (scene.live, scene.backup());
    let [from, to] = ["iifname", "oifname"].map(|way| format!("{way} {}", PORTS[live]));
    cut(scene, &[&from, &to]);
    scene.await_role(other, "live");
    scene.await_role(live, "backup");
}

const ARBITER_CUT: [&str; 2] = ["iifname back-r", "oifname back-r"];

fn arbiter_cut(scene: &mut Scene) {
    let live = scene.live;
    scene.pair.hosts.drop_what(&ARBITER_CUT).unwrap();
    thread::sleep(2 * SUSPECT);
    scene.flows();
    // Whoever had lost it would not have it again without the arbiter.
    assert_eq!(scene.pair.await_protected(LIMIT).unwrap(), live);
    scene.pair.kill_arbiter();
    scene.flows();
    scene.pair.start_arbiter().unwrap();
    scene.pair.hosts.drop_what(&[]).unwrap();
}

/// Nobody may go live without the arbiter, however long it takes.
fn nobody_goes_on(scene: &mut Scene) {
    thread::sleep(2 * SUSPECT);
    let from_ns = scene.clients.now_ns();
    thread::sleep(2 * SUSPECT);
    assert_eq!(scene.answered_since(from_ns), 0);
    let other = scene.backup();
    assert!(!scene.pair.is(other, "live"));
}

fn arbiter_cut_live_killed(scene: &mut Scene) {
    let (live, other) = (scene.live, scene.backup());
    scene.pair.hosts.drop_what(&ARBITER_CUT).unwrap();
    scene.pair.kill(live);
    nobody_goes_on(scene);
    scene.pair.hosts.drop_what(&[]).unwrap();
    scene.await_role(other, "live");
    scene.flows();
    scene.pair.start_node(live).unwrap();
}

fn everything_cut(scene: &mut Scene) {
    scene.pair.hosts.drop_what(&["meta protocol != 0"]).unwrap();
    nobody_has_answers(scene);
    scene.pair.hosts.drop_what(&[]).unwrap();
}

fn nobody_has_answers(scene: &Scene) {
    thread::sleep(SUSPECT / 4);
    let from_ns = scene.clients.now_ns();
    thread::sleep(3 * SUSPECT);
    assert_eq!(scene.answered_since(from_ns), 0);
}

fn loss(scene: &mut Scene) {
    let rule = "numgen random mod 100 < 30";
    scene.pair.hosts.drop_what(&[rule]).unwrap();
    let from_ns = scene.clients.now_ns();
    thread::sleep(6 * SUSPECT);
    // With bad luck a takeover is being settled all that time.
    let clients = &scene.clients;
    let answered = |_: &mut Pair| {
        let answered: usize = clients.answered_since(from_ns).iter().sum();
        Ok((answered > 0).then_some(()))
    };
    let what = "something gets through";
    scene.pair.wait_for(what, LIMIT, answered).unwrap();
    scene.pair.hosts.drop_what(&[]).unwrap();
}

/// A file that takes all the room that a file system has.
struct Filler(PathBuf);

impl Filler {
    fn fill(folder: &Path) -> Self {
        let path = folder.join("filler");
        let mut file = File::create(&path).unwrap();
        for size in [64 << 10, 4096, 512, 1] {
            while file.write_all(&vec![1; size]).is_ok() {}
        }
        assert!(
            fs::write(folder.join("more"), "x").is_err(),
            "there is room"
        );
        let _ = fs::remove_file(folder.join("more"));
        Self(path)
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// It is live, and must write down that it loses its backup.
fn live_disk_full(scene: &mut Scene) {
    let (live, other) = (scene.live, scene.backup());
    let filler = Filler::fill(&scene.pair.state(live));
    scene.flows();
    scene.pair.kill(other);
    scene.await_alone(live);
    scene.flows();
    scene.pair.start_node(other).unwrap();
    scene.pair.await_protected(LIMIT).unwrap();
    drop(filler);
}

fn backup_disk_full(scene: &mut Scene) {
    let (live, other) = (scene.live, scene.backup());
    let filler = Filler::fill(&scene.pair.state(other));
    scene.pair.kill(live);
    scene.await_role(other, "live");
    scene.flows();
    drop(filler);
    scene.pair.start_node(live).unwrap();
}

fn arbiter_disk_full(scene: &mut Scene) {
    let (live, other) = (scene.live, scene.backup());
    let filler = Filler::fill(&scene.pair.records());
    scene.flows();
    scene.pair.kill(live);
    nobody_goes_on(scene);
    drop(filler);
    scene.await_role(other, "live");
    scene.flows();
    scene.pair.start_node(live).unwrap();
}

fn redis() -> TcpStream {
    let redis = TcpStream::connect(REDIS).unwrap();
    redis.set_read_timeout(Some(LIMIT)).unwrap();
    redis
}

fn set(redis: &mut TcpStream, value: &[u8]) {
    let head = format!("*3\r\n$3\r\nSET\r\n$4\r\nlump\r\n${}\r\n", value.len());
    redis
        .write_all(&[head.as_bytes(), value, b"\r\n"].concat())
        .unwrap();
    let mut ok = [0; 5];
    redis.read_exact(&mut ok).unwrap();
    assert_eq!(&ok, b"+OK\r\n");
}

/// The kernel kills the live node's process when the guest writes to pages it has not used yet.
fn live_memory_short(scene: &mut Scene) {
    let (live, other) = (scene.live, scene.backup());
    let Some(group) = Group::new("memory") else {
        assert!(
            std::env::var_os("CI").is_none(),
            "no memory group can be made"
        );
        return eprintln!("    left out: no memory group can be made");
    };
    group.bound(scene.pair.pid(live).unwrap(), 4 << 20);
    let mut redis = redis();
    let mut set = |value: &[u8]| set(&mut redis, value);
    // On one connection, which outlives the process.
    for megabytes in [8, 16, 24] {
        set(&vec![b'x'; megabytes << 20]);
    }
    scene.await_role(other, "live");
    // Its connections end before it does; or it was suspected while the kernel looked for memory, and
    // has too little for joining.
    let ended = |pair: &mut Pair| Ok(pair.has_ended(live).then_some(()));
    let what = "the kernel kills it";
    scene.pair.wait_for(what, LIMIT, ended).unwrap();
    set(b"");
    drop(group);
    scene.flows();
    scene.pair.start_node(live).unwrap();
}

/// Too little for the guest's memory: it can't join, and the live node doesn't mind.
fn backup_memory_short(scene: &mut Scene) {
    let (live, other) = (scene.live, scene.backup());
    scene.pair.kill(other);
    scene.await_alone(live);
    let limit = format!("--as={}", 200 << 20);
    scene
        .pair
        .start_node_by(other, &["prlimit", &limit])
        .unwrap();
    let ended = |pair: &mut Pair| Ok(pair.has_ended(other).then_some(()));
    scene.pair.wait_for("it ends", LIMIT, ended).unwrap();
    scene.await_alone(live);
    scene.flows();
    scene.pair.start_node(other).unwrap();
}

/// Of a value that Redis keeps. The guest reads it and says something else: the alarm names the
/// byte, the backup is made anew, and the client gets what it has put there.
fn backup_bit_flips(scene: &mut Scene) {
    let (live, other) = (scene.live, scene.backup());
    let Some(ram) = Ram::open(scene.pair.pid(other).unwrap(), scene::RAM_BYTES) else {
        assert!(
            std::env::var_os("CI").is_none(),
            "no other process's memory can be written"
        );
        return eprintln!("    left out: no other process's memory can be written");
    };
    // Longer than a page, so that no neighbour changes what is on the mark's page.
    let mark = b"in the middle of many pages, and nowhere else";
    let filling = vec![b'.'; 64 << 10];
    let value = [&filling[..], &mark[..], &filling[..]].concat();
    let mut redis = redis();
    set(&mut redis, &value);
    // From here on both nodes know all pages by their hashes.
    scene.digest();
    let flipped = ram.flip_behind(mark);
    assert!(!flipped.is_empty(), "the value is nowhere");
    redis
        .write_all(b"*2\r\n$3\r\nGET\r\n$4\r\nlump\r\n")
        .unwrap();
    let head = format!("${}\r\n", value.len());
    let mut answer = vec![0; head.len() + value.len() + 2];
    redis.read_exact(&mut answer).unwrap();
    assert_eq!(answer, [head.as_bytes(), &value, b"\r\n"].concat());
    let alarm = scene.await_alarm(other);
    let named = |pa: &u64| alarm.contains(&format!("(physical address {pa:#x},"));
    assert!(
        flipped.iter().any(named),
        "{alarm}: not one of {flipped:x?}"
    );
    // The live node hears of it a moment later.
    for node in [live, other] {
        let log = scene.pair.log(node);
        let says_so = |_: &mut Pair| {
            let log = fs::read_to_string(&log).unwrap();
            Ok(log.contains(&alarm).then_some(()))
        };
        scene
            .pair
            .wait_for("its log has the alarm", LIMIT, says_so)
            .unwrap();
    }
    eprintln!("    {alarm}");
    assert!(scene.pair.is(live, "live"));
    set(&mut redis, b"");
}
