//! Disks that are not what the nodes take them for: of other sizes, exchanged, without room, at a
//! server that is gone, slow, or exports something else. One line says so; the guest loses nothing.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::cluster::{A, B, Cluster, NAMES, wait_for};
use crate::server::{self, Counting, DISK_BYTES};
use crate::shared::{LISTEN, Server, await_line, disk_at};

/// Lines of a node that say this.
fn lines(vm: &Cluster, node: usize, text: &str) -> usize {
    vm.log(node).matches(text).count()
}

/// A node's end for bad input, after one line that says all of these words.
#[track_caller]
fn refused(vm: &mut Cluster, node: usize, words: &[&str]) {
    let before = vm.log(node).len();
    vm.start(node);
    assert_eq!(vm.await_end(node), Some(2), "{}", vm.log(node));
    let log = vm.log(node);
    let said = &log[before..];
    assert_eq!(said.lines().count(), 1, "{said}");
    for word in words {
        assert!(said.contains(word), "{word:?} is not in: {said}");
    }
}

fn resize(file: &Path, bytes: u64) {
    let file = File::options().create(true).append(true).open(file);
    file.unwrap().set_len(bytes).unwrap();
}

#[test]
fn copies_of_other_sizes_do_not_join() {
    let mut vm = server::cluster();
    vm.start(A);
    vm.await_role(A, "live");
    let mut counting = Counting::connect(&vm);
    counting.add();
    let copy = vm.path("b.img");
    resize(&copy, DISK_BYTES / 2);
    let words = [
        "b.img: 33554432 bytes, but size says 67108864",
        "make them equal",
    ];
    refused(&mut vm, B, &words);
    // And where VM.toml says no size.
    vm.file.more = "[[disk]]\npath = \"{name}.img\"\n".to_owned();
    vm.write();
    vm.start(B);
    vm.await_note(
        B,
        "here \"disk 0 of 65536 sectors\", there \"disk 0 of 131072 sectors\"; make them equal",
    );
    assert_eq!(counting.add(), 2);
    assert_eq!(vm.role(A).as_deref(), Some("live"));
    vm.kill(B);
    resize(&copy, DISK_BYTES);
    vm.start(B);
    vm.await_protected(A);
    assert_eq!(counting.add(), 3);
}

#[test]
fn a_node_without_room_for_its_copy_stays_out() {
    let mut vm = server::cluster();
    server::fill(&vm);
    vm.start(A);
    vm.await_role(A, "live");
    let mut counting = Counting::connect(&vm);
    counting.add();
    // A disk of 16 MiB for a copy of 64.
    vm.start_by(&["prlimit", "--fsize=16777216:"], B, &[], &[]);
    await_line(
        &vm,
        B,
        "b.img: File too large (os error 27): this node can't be the backup and stays out until it \
         is started again: mend the disk first",
    );
    assert_eq!(counting.add(), 2);
    assert_eq!(vm.role(A).as_deref(), Some("live"));
    vm.kill(B);
    vm.start(B);
    vm.await_protected(A);
    assert_eq!(counting.add(), 3);
}

#[test]
fn a_file_that_was_exchanged_is_not_started_from() {
    let mut vm = server::cluster();
    vm.start_pair();
    let mut counting = Counting::connect(&vm);
    counting.add();
    // Another file under the same name, on both hosts, while the nodes have the old ones open.
    for name in NAMES {
        let (path, kept) = (
            vm.path(&format!("{name}.img")),
            vm.path(&format!("{name}.kept")),
        );
        fs::rename(&path, &kept).unwrap();
        fs::copy(&kept, &path).unwrap();
    }
    assert_eq!(counting.add(), 2);
    assert!(vm.status(A).unwrap()["protected"] == true);
    for node in [B, A] {
        vm.kill(node);
        if node == B {
            vm.await_solo(A);
        }
        let name = format!("{}.img", NAMES[node]);
        refused(
            &mut vm,
            node,
            &[&name, "not the file that", "put the disk's own file back"],
        );
        let kept = vm.path(&format!("{}.kept", NAMES[node]));
        fs::rename(kept, vm.path(&name)).unwrap();
    }
    vm.start_pair();
    assert_eq!(counting.add(), 1);
}

#[test]
fn whatever_a_server_does_the_guest_waits_and_loses_nothing() {
    let folder = TempDir::new().unwrap();
    let image = folder.path().join("shop.img");
    resize(&image, DISK_BYTES);
    let mut served = Server::start(&image, LISTEN);
    let address = served.address.clone();
    let mut vm = server::cluster();
    vm.file.more = disk_at(&address);
    vm.write();
    vm.start_pair();
    let mut counting = Counting::connect(&vm);
    counting.add();

    // Slow.
    served.signal(Signal::STOP);
    counting.begin();
    await_line(
        &vm,
        A,
        "the server has not answered for 10 s; the guest's requests wait",
    );
    assert!(counting.is_silence());
    served.signal(Signal::CONT);
    counting.end();
    wait_for("nothing to wait for", || {
        let status = vm.status(A)?;
        (status["disks"]["waits"]
            .as_array()
            .is_none_or(Vec::is_empty))
        .then_some(())
    });

    // Gone, smaller, read-only: the same in all is that the guest waits.
    drop(served);
    counting.begin();
    await_line(&vm, A, "the connection is lost");
    // A node can't be started meanwhile.
    vm.kill(B);
    refused(&mut vm, B, &["nobody listens there: start the server"]);
    let other = folder.path().join("other.img");
    resize(&other, DISK_BYTES / 2);
    let named = format!("shop.img={}", other.display());
    served = Server::serve(&[&named, "--listen", &address]);
    await_line(&vm, A, "the export has 33554432 bytes, and had 67108864");
    drop(served);
    served = Server::serve(&[image.to_str().unwrap(), "--listen", &address, "--read-only"]);
    await_line(&vm, A, "the export is read-only");
    assert!(counting.is_silence());
    drop(served);
    served = Server::start(&image, &address);
    await_line(&vm, A, ": the server is there again");
    counting.end();
    for text in ["has not answered", "had 67108864", "is read-only"] {
        assert_eq!(lines(&vm, A, text), 1, "{text}: {}", vm.log(A));
    }

    // Larger: nobody minds, but for a node whose machine would have another disk.
    drop(served);
    resize(&image, 2 * DISK_BYTES);
    let _served = Server::start(&image, &address);
    counting.add();
    vm.start(B);
    vm.await_note(B, "disk 0 of 262144 sectors");
    counting.add();
    assert_eq!(counting.count, 5);
}

/// What the guest writes to its own disk is its own business.
#[test]
fn an_image_that_is_not_raw_is_no_disk_until_a_guest_has_made_it_so() {
    let mut vm = server::cluster();
    let path = vm.path("a.img");
    let begins = |bytes: &[u8; 4]| {
        let file = File::options().write(true).open(&path).unwrap();
        file.write_all_at(bytes, 0).unwrap();
    };
    begins(b"QFI\xfb");
    refused(
        &mut vm,
        A,
        &["a.img: a qcow2 image, and a disk has to be raw: make one of it with twinvm disk import"],
    );
    begins(&[0; 4]);
    vm.start(A);
    vm.await_role(A, "live");
    vm.kill(A);
    begins(b"QFI\xfb");
    vm.start(A);
    vm.await_role(A, "live");
}
