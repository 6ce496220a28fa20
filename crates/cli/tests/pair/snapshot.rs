//! Snapshots of running nodes: into files, and to a backup that joins while the guest writes.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use serde_json::Value;

use crate::client::Asker;
use crate::cluster::{A, B, Cluster, LIMIT, NAMES, PROGRAM, wait_for};

fn snapshot(vm: &Cluster, node: usize, more: &[&str]) -> Output {
    Command::new(PROGRAM)
        .arg("ctl")
        .arg(vm.path("VM.toml"))
        .args(["--name", NAMES[node], "--json", "snapshot"])
        .args(more)
        .output()
        .unwrap()
}

/// The answer of one that is written.
#[track_caller]
fn written(done: &Output) -> Value {
    assert!(done.status.success(), "{done:?}");
    serde_json::from_slice(&done.stdout).unwrap()
}

#[track_caller]
fn refused(done: &Output, words: &str) {
    let said = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(2), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains(words), "{said}");
}

#[test]
fn either_node_writes_one_and_a_run_goes_on_from_it() {
    let mut vm = Cluster::echo();
    vm.start_pair();
    let mut asker = Asker::connect(&vm.file.lan);
    assert_eq!((asker.ask(), asker.ask(), asker.ask()), (1, 2, 3));
    let path = |name: &str| vm.path(name).to_str().unwrap().to_owned();

    let live = path("live.snap");
    let told = written(&snapshot(&vm, A, &["--out", &live]));
    assert_eq!(told["path"], live.as_str());
    assert_eq!(told["bytes"], fs::metadata(&live).unwrap().len());
    assert!(told["icount"].as_u64().unwrap() > 0);
    refused(&snapshot(&vm, A, &["--out", &live]), "exists already");
    written(&snapshot(&vm, A, &["--out", &live, "--force"]));
    refused(
        &snapshot(&vm, A, &["--out", &path("no/such.snap")]),
        "make it first",
    );
    // The backup's own, in its own folder.
    let told = written(&snapshot(&vm, B, &[]));
    let own = told["path"].as_str().unwrap().to_owned();
    assert!(Path::new(&own).starts_with(vm.file.state_dir.join("b")));
    assert_eq!(asker.ask(), 4);
    vm.await_protected(A);

    assert!(vm.ctl(A, "stop").status.success());
    assert_eq!((vm.await_end(A), vm.await_end(B)), (Some(0), Some(0)));
    drop(asker);
    for snap in [live, own] {
        let mut run = Command::new(PROGRAM)
            .arg("run")
            .arg(vm.path("VM.toml"))
            .args(["--from", &snap])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // It has answered three questions, and knows it.
        assert_eq!(Asker::connect(&vm.file.lan).ask(), 4, "{snap}");
        run.kill().unwrap();
        run.wait().unwrap();
    }
    refused(&snapshot(&vm, A, &[]), "node a is not running");
}

/// Writes values of some hundred bytes to Redis on one connection until it is told to end, and
/// reads all of them again.
fn write_values(redis: SocketAddr, ended: &AtomicBool, count: &AtomicU64) {
    let stream = TcpStream::connect(redis).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let mut redis = BufReader::new(stream);
    let mut line = String::new();
    let mut model: BTreeMap<u64, String> = BTreeMap::new();
    while !ended.load(Ordering::Relaxed) {
        let n = count.load(Ordering::Relaxed);
        let (key, value) = (n % 997, format!("{n:08}").repeat(1 + (n % 120) as usize));
        let command = format!("SET key:{key} {value}\r\n");
        redis.get_mut().write_all(command.as_bytes()).unwrap();
        line.clear();
        redis.read_line(&mut line).unwrap();
        assert_eq!(line, "+OK\r\n");
        model.insert(key, value);
        count.fetch_add(1, Ordering::Relaxed);
    }
    for (key, value) in model {
        let command = format!("GET key:{key}\r\n");
        redis.get_mut().write_all(command.as_bytes()).unwrap();
        line.clear();
        redis.read_line(&mut line).unwrap();
        assert_eq!(line, format!("${}\r\n", value.len()));
        let mut got = vec![0; value.len() + 2];
        redis.read_exact(&mut got).unwrap();
        assert_eq!(got, [value.as_bytes(), b"\r\n"].concat());
    }
}

#[test]
fn a_backup_joins_while_the_guest_writes_and_has_all_of_it() {
    let mut vm = Cluster::redis();
    vm.start_pair();
    vm.await_redis(A);
    let ended = Arc::new(AtomicBool::new(false));
    let count = Arc::new(AtomicU64::new(0));
    let writer = {
        let (redis, ended, count) = (vm.redis.unwrap(), Arc::clone(&ended), Arc::clone(&count));
        thread::spawn(move || write_values(redis, &ended, &count))
    };
    let more = |values: u64| {
        let from = count.load(Ordering::Relaxed);
        wait_for("more values", || {
            (count.load(Ordering::Relaxed) >= from + values).then_some(())
        });
    };
    more(500);
    vm.kill(B);
    vm.await_solo(A);
    more(200);
    vm.start(B);
    vm.await_protected(A);
    more(200);
    // A file beside it, while values are written.
    let told = written(&snapshot(
        &vm,
        A,
        &["--out", vm.path("s").to_str().unwrap()],
    ));
    assert!(told["bytes"].as_u64().unwrap() > 10 << 20);
    vm.kill(A);
    vm.await_solo(B);
    more(200);
    ended.store(true, Ordering::Relaxed);
    writer.join().unwrap();
    let status = vm.status(B).unwrap();
    assert!(status["divergence"].is_null(), "{status}");
}
