//! A pair whose guest works on a disk at `twinvm disk serve`: over takeovers it finds what it has
//! written, and what a former live node still had under way comes too late.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;

use crate::cluster::{A, B, wait_for};
use crate::disks::{cluster_with, works_on};

/// `twinvm disk serve`; killed when it is dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn what_was_written_is_there_after_takeovers_and_old_writes_come_too_late() {
    let folder = tempfile::TempDir::new().unwrap();
    let image = folder.path().join("shop.img");
    File::create(&image).unwrap().set_len(64 << 20).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_twinvm"))
        .args(["disk", "serve", "--listen", "127.0.0.1:0"])
        .arg(&image)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let server = Server(child);
    out.read_line(&mut line).unwrap();
    let address = line.trim().strip_prefix("listening on ").unwrap();
    let mut vm = cluster_with(&format!("[[disk]]\nnbd = \"nbd://{address}/shop.img\"\n"));
    let holder = || fs::read_to_string(folder.path().join("shop.img.holder")).unwrap();
    vm.start(A);
    vm.await_role(A, "live");
    vm.await_redis(A);
    works_on(&vm, 40);
    let first = holder();
    vm.start(B);
    vm.await_protected(A);
    works_on(&vm, 70);
    // The live node stands still with writes under way, and goes on when the other one is live: what
    // it still sends is rejected, or the guest would find it in place of what it has written since.
    vm.signal(A, Signal::STOP);
    vm.await_role(B, "live");
    works_on(&vm, 40);
    vm.signal(A, Signal::CONT);
    vm.await_protected(B);
    works_on(&vm, 70);
    let second = holder();
    assert_ne!(first, second, "the other node has it");
    vm.kill(B);
    vm.await_role(A, "live");
    works_on(&vm, 70);
    assert_ne!(second, holder());
    // The server is killed: the guest waits, and goes on with the next one.
    drop(server);
    vm.await_note(A, "the connection is lost");
    let listen = address.to_owned();
    let again = Command::new(env!("CARGO_BIN_EXE_twinvm"))
        .args(["disk", "serve", "--listen", &listen])
        .arg(&image)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let _again = Server(again);
    vm.await_note(A, "the server is there again");
    works_on(&vm, 40);
    vm.start(B);
    vm.await_protected(A);
    assert_eq!(vm.status(A).unwrap()["divergence"], serde_json::Value::Null);
    wait_for("an orderly end", || {
        vm.ctl(A, "stop").status.success().then_some(())
    });
    assert_eq!((vm.await_end(A), vm.await_end(B)), (Some(0), Some(0)));
}
