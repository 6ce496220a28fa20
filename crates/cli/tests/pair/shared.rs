//! A pair whose guest works on a disk at `twinvm disk serve`: over takeovers it finds what it has
//! written, and what a former live node still had under way comes too late.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::cluster::{A, B, Cluster, PROGRAM, wait_for};
use crate::disks::{cluster_with, rounds_done, works_on};
use crate::executable::executable;

/// Where a server listens that is to come back at the same address: on an address of the loopback
/// that nobody else uses, so that meanwhile nobody is given its port.
pub(crate) const LISTEN: &str = "127.0.0.2:0";

/// `twinvm disk serve`; killed when it is dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: String,
}

impl Server {
    pub(crate) fn start(image: &Path, listen: &str) -> Self {
        Self::serve(&[image.to_str().unwrap(), "--listen", listen])
    }

    pub(crate) fn serve(args: &[&str]) -> Self {
        let mut child = Command::new(PROGRAM)
            .args(["disk", "serve"])
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        out.read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on ").unwrap();
        Self {
            address: address.to_owned(),
            child,
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn image(folder: &Path) -> PathBuf {
    let image = folder.join("shop.img");
    File::create(&image).unwrap().set_len(64 << 20).unwrap();
    image
}

pub(crate) fn disk_at(address: &str) -> String {
    format!("[[disk]]\nnbd = \"nbd://{address}/shop.img\"\n")
}

fn own_reads_at(address: &str) -> String {
    format!("{}reads = \"own\"\n", disk_at(address))
}

/// Waits for a line of a node.
#[track_caller]
pub(crate) fn await_line(vm: &Cluster, node: usize, text: &str) {
    wait_for(text, || vm.log(node).contains(text).then_some(()));
}

#[test]
fn what_was_written_is_there_after_takeovers_and_old_writes_come_too_late() {
    let folder = TempDir::new().unwrap();
    let image = image(folder.path());
    let server = Server::start(&image, LISTEN);
    let address = server.address.clone();
    let mut vm = cluster_with(&disk_at(&address));
    let holder = || fs::read_to_string(folder.path().join("shop.img.holder")).unwrap();
    vm.start(A);
    vm.await_role(A, "live");
    vm.await_redis(A);
    works_on(&vm, 25);
    let first = holder();
    vm.start(B);
    vm.await_protected(A);
    works_on(&vm, 35);
    // The live node stands still with writes under way, and goes on when the other one is live: what
    // it still sends is rejected, or the guest would find it in place of what it has written since.
    vm.signal(A, Signal::STOP);
    vm.await_role(B, "live");
    works_on(&vm, 25);
    vm.signal(A, Signal::CONT);
    vm.await_protected(B);
    works_on(&vm, 35);
    let second = holder();
    assert_ne!(first, second, "the other node has it");
    vm.kill(B);
    vm.await_role(A, "live");
    works_on(&vm, 35);
    assert_ne!(second, holder());
    // The server is killed: the guest waits, and goes on with the next one.
    drop(server);
    await_line(&vm, A, "the connection is lost");
    let _again = Server::start(&image, &address);
    await_line(&vm, A, ": the server is there again");
    works_on(&vm, 25);
    vm.start(B);
    vm.await_protected(A);
    assert_eq!(vm.status(A).unwrap()["divergence"], serde_json::Value::Null);
    vm.await_protected(A);
    wait_for("an orderly end", || {
        vm.ctl(A, "stop").status.success().then_some(())
    });
    assert_eq!((vm.await_end(A), vm.await_end(B)), (Some(0), Some(0)));
}

/// What was sent to a server and held up on the way, if it is: each piece with its connection.
type Held = Arc<Mutex<Option<Vec<(TcpStream, Vec<u8>)>>>>;

/// A way to a server on which requests can be held up; its address.
fn way_to(server: &str, held: &Held) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (server, held) = (server.to_owned(), Arc::clone(held));
    thread::spawn(move || {
        while let Ok((client, _)) = listener.accept() {
            let Ok(up) = TcpStream::connect(&server) else {
                return;
            };
            let down = (up.try_clone().unwrap(), client.try_clone().unwrap());
            let held = Arc::clone(&held);
            thread::spawn(move || pass(&client, &up, &held));
            thread::spawn(move || pass(&down.0, &down.1, &Held::default()));
        }
    });
    address
}

fn pass(mut from: &TcpStream, mut to: &TcpStream, held: &Held) {
    let mut bytes = [0; 65536];
    while let Ok(count) = from.read(&mut bytes)
        && count > 0
    {
        match &mut *held.lock().unwrap() {
            Some(held) => held.push((to.try_clone().unwrap(), bytes[..count].to_vec())),
            None if to.write_all(&bytes[..count]).is_ok() => {}
            None => break,
        }
    }
    if held.lock().unwrap().is_none() {
        let _ = to.shutdown(Shutdown::Write);
    }
}

/// A way to a server on which what comes back is changed, if it is; its address.
fn changing_way_to(server: &str, changed: &Arc<AtomicBool>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (server, changed) = (server.to_owned(), Arc::clone(changed));
    thread::spawn(move || {
        while let Ok((client, _)) = listener.accept() {
            let Ok(up) = TcpStream::connect(&server) else {
                return;
            };
            let (back, to) = (up.try_clone().unwrap(), client.try_clone().unwrap());
            let changed = Arc::clone(&changed);
            thread::spawn(move || pass(&client, &up, &Held::default()));
            thread::spawn(move || change(&back, &to, &changed));
        }
    });
    address
}

fn change(mut from: &TcpStream, mut to: &TcpStream, changed: &AtomicBool) {
    let mut bytes = [0; 65536];
    while let Ok(count) = from.read(&mut bytes)
        && count > 0
    {
        // Behind the head of an answer, as far as can be told.
        if changed.load(Ordering::SeqCst) && count > 4096 {
            bytes[count - 1] ^= 1;
        }
        if to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

#[test]
fn a_write_that_was_delayed_past_a_takeover_is_rejected() {
    let folder = TempDir::new().unwrap();
    let server = Server::start(&image(folder.path()), "127.0.0.1:0");
    let held = Held::default();
    let mut vm = cluster_with(&disk_at(&way_to(&server.address, &held)));
    vm.start(A);
    vm.await_role(A, "live");
    vm.await_redis(A);
    vm.file.more = disk_at(&server.address);
    vm.write();
    vm.start(B);
    vm.await_protected(A);
    works_on(&vm, 20);
    *held.lock().unwrap() = Some(Vec::new());
    // The head of a write (NBD protocol, "Request message").
    let writes = |bytes: &[u8]| {
        let head = |head: &[u8]| head[..4] == [0x25, 0x60, 0x95, 0x13] && head[6..] == [0, 1];
        bytes.windows(8).any(head)
    };
    wait_for("a write on its way", || {
        let held = held.lock().unwrap();
        let held = held.as_ref()?.iter();
        held.clone().any(|(_, bytes)| writes(bytes)).then_some(())
    });
    vm.kill(A);
    vm.await_role(B, "live");
    works_on(&vm, 25);
    for (mut server, bytes) in held.lock().unwrap().take().unwrap() {
        // It may take the bytes, but says nothing to them.
        let _ = server.write_all(&bytes);
        assert!(matches!(server.read(&mut [0; 16]), Ok(0) | Err(_)));
    }
    works_on(&vm, 25);
    assert!(vm.ctl(B, "stop").status.success());
    assert_eq!(vm.await_end(B), Some(0));
}

/// Bytes of log that a node has made since it went live.
fn log_bytes(vm: &Cluster, node: usize) -> u64 {
    vm.status(node).unwrap()["log_bytes"].as_u64().unwrap()
}

/// Bytes of log for each round of the guest's work (128 KiB read, 64 KiB written) while the VM is
/// protected: on a busy host that may end and begin again meanwhile.
fn log_of_a_round(vm: &Cluster, node: usize) -> u64 {
    const ROUNDS: u64 = 10;
    wait_for("rounds of a protected VM", || {
        vm.await_protected(node);
        let (generation, before) = (vm.generation(), log_bytes(vm, node));
        let from = rounds_done(vm);
        works_on(vm, ROUNDS);
        // It may have been more of them.
        let done = rounds_done(vm) - from;
        let after = log_bytes(vm, node);
        (vm.generation() == generation).then(|| (after - before) / done)
    })
}

#[test]
fn a_backup_that_reads_by_itself_needs_no_reads_in_the_log() {
    let folder = TempDir::new().unwrap();
    let server = Server::start(&image(folder.path()), "127.0.0.1:0");
    let mut vm = cluster_with(&disk_at(&server.address));
    vm.start(A);
    vm.await_role(A, "live");
    vm.await_redis(A);
    // Both nodes must say the same.
    vm.file.more = own_reads_at(&server.address);
    vm.write();
    vm.start(B);
    await_line(&vm, B, "contents of virtio slot");
    vm.kill(B);
    vm.file.more = disk_at(&server.address);
    vm.write();
    vm.start(B);
    vm.await_protected(A);
    works_on(&vm, 10);
    let logged = log_of_a_round(&vm, A);
    assert!(logged > 128 << 10, "{logged} bytes for a round");
    vm.await_protected(A);
    assert!(vm.ctl(A, "stop").status.success());
    assert_eq!((vm.await_end(A), vm.await_end(B)), (Some(0), Some(0)));

    vm.file.more = own_reads_at(&server.address);
    vm.write();
    vm.start(A);
    vm.await_role(A, "live");
    vm.await_redis(A);
    vm.start(B);
    vm.await_protected(A);
    works_on(&vm, 10);
    let own = log_of_a_round(&vm, A);
    eprintln!(
        "log bytes for a round of 128 KiB read: {logged} with reads in the log, {own} without"
    );
    assert!(own < 64 << 10, "{own} bytes for a round");
    for (live, next) in [(A, B), (B, A)] {
        vm.await_protected(live);
        vm.kill(live);
        vm.await_role(next, "live");
        works_on(&vm, 20);
        vm.start(live);
        vm.await_protected(next);
        works_on(&vm, 10);
        let status = vm.status(next).unwrap();
        assert_eq!(status["divergence"], serde_json::Value::Null);
    }
    vm.await_protected(A);
    assert!(vm.ctl(A, "stop").status.success());
    assert_eq!((vm.await_end(A), vm.await_end(B)), (Some(0), Some(0)));
}

#[test]
fn bytes_that_are_changed_on_the_way_to_the_backup_are_an_alarm() {
    let folder = TempDir::new().unwrap();
    let server = Server::start(&image(folder.path()), "127.0.0.1:0");
    let changed = Arc::new(AtomicBool::new(false));
    let mut vm = cluster_with(&own_reads_at(&server.address));
    vm.start(A);
    vm.await_role(A, "live");
    vm.await_redis(A);
    vm.file.more = own_reads_at(&changing_way_to(&server.address, &changed));
    vm.write();
    vm.start(B);
    vm.await_protected(A);
    works_on(&vm, 20);
    changed.store(true, Ordering::SeqCst);
    await_line(&vm, A, "the backup differs: diverged at position");
    changed.store(false, Ordering::SeqCst);
    // It says what differs.
    await_line(&vm, A, "a read (request");
    // The guest has noticed nothing, and a new copy of it is a backup again.
    wait_for("another session", || {
        let lines = vm.log(A);
        (lines.matches("node a: protected: ").count() > 1).then_some(())
    });
    vm.await_protected(A);
    works_on(&vm, 25);
    vm.await_protected(A);
    assert!(vm.ctl(A, "stop").status.success());
    assert_eq!((vm.await_end(A), vm.await_end(B)), (Some(0), Some(0)));
}

#[test]
fn a_backup_that_can_not_read_holds_nobody_up_for_long() {
    let folder = TempDir::new().unwrap();
    let server = Server::start(&image(folder.path()), "127.0.0.1:0");
    let held = Held::default();
    let mut vm = cluster_with(&own_reads_at(&server.address));
    vm.start(A);
    vm.await_role(A, "live");
    vm.await_redis(A);
    vm.file.more = own_reads_at(&way_to(&server.address, &held));
    vm.write();
    vm.start(B);
    vm.await_protected(A);
    works_on(&vm, 20);
    *held.lock().unwrap() = Some(Vec::new());
    await_line(&vm, A, "the backup has executed nothing for");
    works_on(&vm, 25);
    assert!(!vm.status(A).unwrap()["protected"].as_bool().unwrap());
    *held.lock().unwrap() = None;
    vm.kill(B);
    vm.start(B);
    vm.await_protected(A);
    works_on(&vm, 25);
    assert_eq!(vm.status(A).unwrap()["divergence"], serde_json::Value::Null);
    vm.await_protected(A);
    assert!(vm.ctl(A, "stop").status.success());
    assert_eq!((vm.await_end(A), vm.await_end(B)), (Some(0), Some(0)));
}

/// Cuts off whoever is there, and serves the node that goes live. What node a writes takes its time.
const FENCE: &str = "
[ -e broken ] && { echo the storage does not answer; exit 1; }
echo $TWINVM_EVENT $TWINVM_NODE >>fenced
for node in a b; do
  [ -e $node.pid ] || continue
  kill -9 $(cat $node.pid)
  while kill -0 $(cat $node.pid) 2>/dev/null; do sleep 0.01; done
  rm $node.pid
done
exec ./serve $TWINVM_NODE
";
const SERVE: &str = "
rm -f $1.sock
case $1 in a) delay=3 ;; b) delay=0 ;; esac
exec nbdkit -U $PWD/$1.sock -P $PWD/$1.pid --filter=delay file shop.img wdelay=$delay
";

/// Ends the servers.
struct Servers<'a>(&'a Path);

impl Drop for Servers<'_> {
    fn drop(&mut self) {
        for name in ["a.pid", "b.pid"] {
            let pid = fs::read_to_string(self.0.join(name)).unwrap_or_default();
            if let Some(pid) = pid.trim().parse().ok().and_then(Pid::from_raw) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }
}

#[test]
fn a_command_keeps_off_a_former_live_node_where_the_server_can_not() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name);
    let _servers = Servers(folder.path());
    image(folder.path());
    for (name, text) in [("fence", FENCE), ("serve", SERVE)] {
        let text = format!("#!/bin/sh\ncd {:?}\n{text}", folder.path());
        executable(&path(name), text.as_bytes());
    }
    let serve = |node: &str| {
        let done = Command::new(path("serve")).arg(node).status();
        assert!(
            done.unwrap().success(),
            "scripts/setup.sh test installs nbdkit"
        );
    };
    // Each node has a way of its own to the same disk.
    let at = |node: &str, more: &str| {
        let socket = path(&format!("{node}.sock"));
        format!(
            "[[disk]]\nnbd = \"nbd+unix:///?socket={}\"\n{more}",
            socket.display()
        )
    };
    let fence = format!("fence = {:?}\n", path("fence"));

    serve("a");
    let mut vm = cluster_with(&at("a", ""));
    vm.start(A);
    assert_eq!(vm.await_end(A), Some(2));
    await_line(
        &vm,
        A,
        "or name a command that does it: fence = \"COMMAND\" in [[disk]]",
    );

    vm.file.more = at("a", &fence);
    vm.write();
    vm.start(A);
    vm.await_role(A, "live");
    vm.await_redis(A);
    works_on(&vm, 3);
    vm.file.more = at("b", &fence);
    vm.write();
    serve("b");
    vm.start(B);
    vm.await_protected(A);
    works_on(&vm, 3);
    // A write of A's waits at its server while B takes over.
    fs::write(path("broken"), "").unwrap();
    vm.kill(A);
    vm.await_role(B, "live");
    await_line(
        &vm,
        B,
        "fence has failed (exit status: 1: the storage does not answer)",
    );
    let waits = wait_for("the status", || vm.status(B));
    let waits = waits["disks"]["waits"][0].as_str().unwrap_or_default();
    assert!(waits.ends_with("the guest's requests wait until it succeeds"));
    fs::remove_file(path("broken")).unwrap();
    await_line(&vm, B, "fence has kept the other node off");
    works_on(&vm, 35);
    let fenced = fs::read_to_string(path("fenced")).unwrap();
    assert_eq!(fenced, "went-live a\ntook-over b\n");
    assert!(vm.ctl(B, "stop").status.success());
    assert_eq!(vm.await_end(B), Some(0));
}
