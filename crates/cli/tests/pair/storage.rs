//! The commands in packaging/fence: nbdkit, which knows no generations, serves a pair's disk, and
//! whoever goes live is let in by `twinvm-storage`. ssh is left out.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::cluster::{A, B, Cluster, NAMES, free_ports, script};
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

    /// The disk in VM.toml of a node.
    fn disk(&self, node: usize) -> String {
        let fence = self.folder.path().join("fence");
        let text = format!(
            "#!/bin/sh\nexport LISTEN=127.0.0.1\n\
             SSH_ORIGINAL_COMMAND=\"$TWINVM_VM $TWINVM_NODE $TWINVM_GENERATION\" exec {:?} {:?}\n",
            Self::program(),
            self.folder.path()
        );
        script(&fence, &text);
        let address = self.ports[node];
        format!("[[disk]]\nnbd = \"nbd://{address}/\"\nfence = {fence:?}\n")
    }

    fn start(&self, vm: &mut Cluster, node: usize) {
        vm.file.more = self.disk(node);
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

#[test]
fn a_disk_at_nbdkit_goes_from_node_to_node() {
    let storage = Storage::new();
    let done = storage.does(None);
    assert!(
        done.status.success(),
        "scripts/setup.sh test installs nbdkit and psmisc: {done:?}"
    );
    let mut vm = server::cluster();
    storage.start(&mut vm, A);
    await_line(&vm, A, "fence has kept the other node off");
    vm.await_role(A, "live");
    let mut counting = Counting::connect(&vm);
    counting.add();
    // A node that is started looks at the disk, and gets no further.
    storage.start(&mut vm, B);
    vm.await_protected(A);
    counting.add();
    // The live node stands still, and asks again when another one has gone on.
    counting.begin();
    vm.signal(A, Signal::STOP);
    vm.await_role(B, "live");
    counting.end();
    vm.signal(A, Signal::CONT);
    vm.await_protected(B);
    counting.add();
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
    assert_eq!(counting.count, 7);
}
