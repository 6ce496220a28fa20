//! The commands in packaging/fence: nbdkit, which knows no generations, serves a pair's disk, and
//! whoever goes live is let in by `twinvm-storage`. ssh is left out.

use std::fs::{self, File};
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::cluster::{A, B, Cluster, NAMES, free_ports, wait_for};
use crate::executable::executable;
use crate::server::{self, Counting, DISK_BYTES};
use crate::shared::await_line;

/// The storage host; its servers end with it.
struct Storage {
    folder: TempDir,
    ports: [SocketAddr; 2],
}

impl Storage {
    fn new() -> Self {
        let storage = Self {
            folder: TempDir::new().unwrap(),
            ports: free_ports(),
        };
        let vm = storage.folder.path().join("test");
        fs::create_dir(&vm).unwrap();
        let disk = File::create(vm.join("disk.img")).unwrap();
        disk.set_len(DISK_BYTES).unwrap();
        let [a, b] = storage.ports.map(|address| address.port());
        fs::write(vm.join("nodes"), format!("a {a}\nb {b}\n")).unwrap();
        storage
    }

    fn program() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/fence/twinvm-storage")
    }

    /// What a node has asked for, or what is done when the host starts.
    fn does(&self, asked: Option<&str>) -> Output {
        let mut command = Command::new(Self::program());
        command
            .arg(self.folder.path())
            .args(asked.is_none().then_some("test"))
            .env("LISTEN", "127.0.0.1")
            .stdin(Stdio::null());
        if let Some(asked) = asked {
            command.env("SSH_ORIGINAL_COMMAND", asked);
        }
        // Servers keep what they inherit.
        let said = self.folder.path().join("said");
        command.stdout(File::create(&said).unwrap());
        command.stderr(File::create(&said).unwrap());
        let status = command.status().unwrap();
        Output {
            status,
            stdout: Vec::new(),
            stderr: fs::read(said).unwrap(),
        }
    }

    #[track_caller]
    fn refuses(&self, asked: &str, why: &str) {
        let done = self.does(Some(asked));
        let said = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(1), "{said}");
        assert!(said.contains(why), "{said}");
    }

    /// The disk in VM.toml of a node, and who reads it.
    fn disk(&self, node: usize, reads: &str) -> String {
        let fence = self.folder.path().join("fence");
        let text = format!(
            "#!/bin/sh\nexport LISTEN=127.0.0.1\n\
             SSH_ORIGINAL_COMMAND=\"$TWINVM_VM $TWINVM_NODE $TWINVM_GENERATION\" exec {:?} {:?}\n",
            Self::program(),
            self.folder.path()
        );
        executable(&fence, text.as_bytes());
        let address = self.ports[node];
        format!("[[disk]]\nnbd = \"nbd://{address}/\"\nfence = {fence:?}\nreads = {reads:?}\n")
    }

    fn start(&self, vm: &mut Cluster, node: usize, reads: &str) {
        vm.file.more = self.disk(node, reads);
        vm.write();
        vm.start(node);
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        let ports = self.ports.map(|address| format!("{}/tcp", address.port()));
        let mut command = Command::new("fuser");
        command.args(["-s", "-k", "-KILL"]).args(ports);
        let _ = command.stderr(Stdio::null()).status();
    }
}

/// Bytes of log for an answer of the guest, which reads its disk for each: the least of some, since
/// time is logged, too.
fn log_of_an_answer(vm: &Cluster, node: usize, counting: &mut Counting) -> u64 {
    let bytes = || vm.status(node).unwrap()["log_bytes"].as_u64().unwrap();
    wait_for("answers of a protected VM", || {
        vm.await_protected(node);
        let generation = vm.generation();
        let answers = (0..20).map(|_| {
            let before = bytes();
            counting.add();
            bytes() - before
        });
        let least = answers.min();
        least.filter(|_| vm.generation() == generation)
    })
}

#[test]
fn a_disk_at_nbdkit_goes_from_node_to_node() {
    let logged = goes_from_node_to_node("log");
    // A command that leaves the other node the right to read, and a server of which it reads what
    // the live node writes at another one.
    let own = goes_from_node_to_node("own");
    eprintln!("log bytes for an answer: {logged} with reads in the log, {own} without");
    assert!(own + 256 < logged, "{own} and {logged} bytes");
}

/// Bytes of log for an answer.
fn goes_from_node_to_node(reads: &str) -> u64 {
    let storage = Storage::new();
    let done = storage.does(None);
    assert!(
        done.status.success(),
        "scripts/setup.sh test installs nbdkit and psmisc: {done:?}"
    );
    let mut vm = server::cluster();
    storage.start(&mut vm, A, reads);
    await_line(&vm, A, "fence has kept the other node off");
    vm.await_role(A, "live");
    let mut counting = Counting::connect(&vm);
    counting.add();
    // A node that is started looks at the disk, and gets no further.
    storage.start(&mut vm, B, reads);
    vm.await_protected(A);
    let log_bytes = log_of_an_answer(&vm, A, &mut counting);
    // The live node stands still, and asks again when another one has gone on.
    counting.begin();
    vm.signal(A, Signal::STOP);
    vm.await_role(B, "live");
    counting.end();
    vm.signal(A, Signal::CONT);
    vm.await_protected(B);
    counting.add();
    // What it reads as a backup now goes through the port that refuses writes.
    assert_eq!(vm.status(A).unwrap()["divergence"], Value::Null);
    // The storage host is started again.
    let holder = storage.folder.path().join("test/holder");
    let had = fs::read_to_string(&holder).unwrap();
    assert!(had.ends_with(" b\n"), "{had}");
    assert!(storage.does(None).status.success());
    counting.add();
    vm.kill(B);
    vm.await_role(A, "live");
    counting.add();

    let now = fs::read_to_string(&holder).unwrap();
    let generation: u64 = now.split(' ').next().unwrap().parse().unwrap();
    assert_eq!(now, format!("{generation} {}\n", NAMES[A]));
    storage.refuses(
        &format!("test b {generation}"),
        "comes too late: a has the disk",
    );
    storage.refuses(&format!("test b {}", generation - 1), "comes too late");
    storage.refuses("test c 1000", "has no node c");
    storage.refuses("../test a 1000", "no name of a VM");
    storage.refuses("test a 1000 b", "found 4 words");
    storage.refuses("test a 0x99", "no generation");
    assert_eq!(fs::read_to_string(&holder).unwrap(), now);
    counting.add();
    log_bytes
}

/// A program whose first thread has ended while another one has a file open: so is a server that was
/// killed in the middle of a write.
const HEADLESS: &str = "
import ctypes, sys, threading, time
disk = open(sys.argv[1], 'r+b')
threading.Thread(target=lambda: (print(flush=True), time.sleep(600))).start()
ctypes.CDLL(None).pthread_exit(None)
";

#[test]
fn who_has_the_disk_open_is_ended_to_his_last_thread() {
    let storage = Storage::new();
    let mut writer = Command::new("python3")
        .args(["-c", HEADLESS])
        .arg(storage.folder.path().join("test/disk.img"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut begun = [0];
    let said = writer.stdout.as_mut().unwrap().read_exact(&mut begun);
    said.unwrap();
    let state = format!("/proc/{}/stat", writer.id());
    wait_for("its first thread's end", || {
        let state = fs::read_to_string(&state).unwrap();
        state.contains(") Z ").then_some(())
    });
    let done = storage.does(Some("test a 5"));
    let lives = writer.try_wait().unwrap().is_none();
    let _ = writer.kill();
    assert!(done.status.success(), "{done:?}");
    assert!(!lives, "it still had the disk open");
    writer.wait().unwrap();
}
