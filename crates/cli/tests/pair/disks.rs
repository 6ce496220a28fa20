//! A pair whose guest works on a disk: what it has written is there after takeovers and after the
//! other node has come back, on both nodes to the byte.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::cluster::{A, B, Cluster, LIMIT, wait_for};

/// Counts its boots on the disk. Then for ever writes one of 16 places of 64 KiB through to the disk, reads it back past the cache,
/// and another that was written earlier, and compares. Redis knows how often, and how often
/// something was not as it was written. (A login shell reads it.)
const WORK: &str = "
[ -e /tmp/once ] && return
touch /tmp/once
head -c 65500 /dev/urandom >/tmp/random
boots=$(dd if=/dev/vda bs=512 skip=12800 count=1 iflag=direct 2>/dev/null | head -c 4)
[ \"$boots\" -ge 1000 ] 2>/dev/null || boots=1000
boots=$((boots+1))
printf '%-512s' $boots >/tmp/boots
dd if=/tmp/boots of=/dev/vda bs=512 seek=12800 count=1 conv=fsync 2>/dev/null
redis-cli SET boots $boots >/dev/null
work() {
  n=0
  while [ \"$(redis-cli GET rest)\" != 1 ]; do
    n=$((n+1)); place=$((n%16)); other=$(((n*7)%16))
    { printf '%036d' $n; cat /tmp/random; } >/tmp/new
    dd if=/tmp/new of=/dev/vda bs=64k seek=$place count=1 conv=fsync || redis-cli INCR failed
    md5sum </tmp/new >/tmp/sum$place
    for at in $place $other; do
      [ -e /tmp/sum$at ] || continue
      dd if=/dev/vda bs=64k skip=$at count=1 iflag=direct | md5sum >/tmp/read
      cmp -s /tmp/read /tmp/sum$at || redis-cli INCR wrong
    done
    redis-cli SET rounds $n
  done
  redis-cli SET rests 1
}
work >/dev/null 2>&1 </dev/null &
";
const DISK_BYTES: u64 = 64 << 20;

/// An archive with these files (cpio, new portable format), for behind another one.
fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = Vec::new();
    let mut entry = |name: &str, mode: u32, content: &[u8]| {
        let fields = [
            1,
            mode,
            0,
            0,
            1,
            0,
            content.len() as u32,
            0,
            0,
            0,
            0,
            name.len() as u32 + 1,
            0,
        ];
        archive.extend_from_slice(b"070701");
        for field in fields {
            archive.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        archive.extend_from_slice(name.as_bytes());
        archive.push(0);
        archive.resize(archive.len().next_multiple_of(4), 0);
        archive.extend_from_slice(content);
        archive.resize(archive.len().next_multiple_of(4), 0);
    };
    for (name, content) in files {
        entry(name, 0o100_755, content);
    }
    entry("TRAILER!!!", 0, b"");
    archive
}

/// Gives the guest these files beside its own.
pub(crate) fn add_files(vm: &mut Cluster, files: &[(&str, &[u8])]) {
    let mut initrd = fs::read(vm.file.initrd.as_ref().unwrap()).unwrap();
    initrd.resize(initrd.len().next_multiple_of(4), 0);
    initrd.extend(archive(files));
    let path = vm.path("initrd");
    fs::write(&path, initrd).unwrap();
    vm.file.initrd = Some(path);
}

/// The guest with its work, and A's disk; B has none.
fn cluster() -> Cluster {
    let vm = cluster_with("[[disk]]\npath = \"{name}.img\"\nsize = \"64M\"\n");
    let disk = File::create(vm.path("a.img")).unwrap();
    disk.set_len(DISK_BYTES).unwrap();
    vm
}

/// The guest with its work on the disk that this is in VM.toml.
pub(crate) fn cluster_with(disk: &str) -> Cluster {
    let mut vm = Cluster::redis();
    add_files(&mut vm, &[("root/.profile", WORK.as_bytes())]);
    vm.file.more = disk.to_owned();
    vm.write();
    vm
}

/// A number that the guest's Redis keeps; 0 if it has none.
fn number(redis: SocketAddr, key: &str) -> Option<u64> {
    let mut stream = TcpStream::connect(redis).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    write!(stream, "GET {key}\r\n").ok()?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    match line.trim() {
        "$-1" => Some(0),
        length => {
            let mut text = vec![0; length.strip_prefix('$')?.parse().ok()?];
            reader.read_exact(&mut text).ok()?;
            String::from_utf8(text).ok()?.parse().ok()
        }
    }
}

/// Rounds so far.
#[track_caller]
pub(crate) fn rounds_done(vm: &Cluster) -> u64 {
    let redis = vm.redis.unwrap();
    wait_for("the guest's count", || number(redis, "rounds"))
}

/// Waits for some more rounds, in which nothing may be wrong.
#[track_caller]
pub(crate) fn works_on(vm: &Cluster, rounds: u64) {
    let redis = vm.redis.unwrap();
    let from = rounds_done(vm);
    wait_for("more rounds", || {
        (number(redis, "rounds")? >= from + rounds).then_some(())
    });
    for what in ["wrong", "failed"] {
        let count = wait_for("the guest's count", || number(redis, what));
        assert_eq!(count, 0, "{what} after {from} rounds");
    }
}

fn bytes(vm: &Cluster, node: &str) -> Vec<u8> {
    fs::read(vm.path(&format!("{node}.img"))).unwrap()
}

/// Has the guest rest; then both copies are the same.
#[track_caller]
fn rest_and_compare(vm: &Cluster, live: usize) {
    vm.await_protected(live);
    let redis = vm.redis.unwrap();
    let mut stream = TcpStream::connect(redis).unwrap();
    stream.write_all(b"SET rest 1\r\nQUIT\r\n").unwrap();
    stream.read_to_string(&mut String::new()).unwrap();
    wait_for("the guest to rest", || {
        (number(redis, "rests")? == 1).then_some(())
    });
    let compare = || {
        let (a, b) = (bytes(vm, "a"), bytes(vm, "b"));
        assert_eq!((a.len(), b.len()), (DISK_BYTES as usize, a.len()));
        assert!(a.iter().any(|byte| *byte != 0));
        a.iter().zip(&b).position(|(a, b)| a != b)
    };
    // The backup is some milliseconds behind.
    let until = Instant::now() + LIMIT;
    while let Some(at) = compare() {
        assert!(Instant::now() < until, "the copies differ at byte {at}");
        std::thread::sleep(Duration::from_millis(100));
    }
    let status = wait_for("the live node's status", || vm.status(live));
    assert_eq!(status["protected"], true);
    assert!(status["lag_ms"].as_f64().unwrap() < 1000.0);
}

#[test]
fn what_was_written_is_there_after_takeovers_and_after_a_join() {
    assert!(LIMIT > Duration::from_secs(30));
    let mut vm = cluster();
    vm.start(A);
    vm.await_role(A, "live");
    vm.await_redis(A);
    works_on(&vm, 20);
    // B's disk is made, and filled while the guest works on.
    vm.start(B);
    vm.await_protected(A);
    assert!(Path::new(&vm.path("b.img")).exists());
    works_on(&vm, 20);
    vm.kill(A);
    vm.await_role(B, "live");
    works_on(&vm, 20);
    // A comes back: what differs is made equal again.
    vm.start(A);
    vm.await_protected(B);
    works_on(&vm, 20);
    vm.kill(B);
    vm.await_role(A, "live");
    works_on(&vm, 20);
    vm.start(B);
    vm.await_protected(A);
    // In good order, too.
    assert!(vm.ctl(A, "takeover").status.success());
    vm.await_protected(B);
    works_on(&vm, 20);
    rest_and_compare(&vm, B);
    assert_eq!(vm.status(B).unwrap()["divergence"], serde_json::Value::Null);
    let boots = |vm: &Cluster| number(vm.redis.unwrap(), "boots");
    assert_eq!(boots(&vm), Some(1001));
    assert!(vm.ctl(B, "stop").status.success());
    assert_eq!((vm.await_end(A), vm.await_end(B)), (Some(0), Some(0)));
    // The node that was live last starts the VM from its disk, the other one joins it.
    vm.start(A);
    vm.await_note(A, "waiting to join");
    vm.start(B);
    vm.await_protected(B);
    works_on(&vm, 5);
    assert_eq!(boots(&vm), Some(1002));
}
