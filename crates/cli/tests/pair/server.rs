//! A pair whose guest keeps a counter on a disk of which each node has a copy: it answers when the
//! new value is durable, and takes it from there when it starts. It is a few hundred instructions and
//! boots in no time.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use twinvm_machine::NET_HEADER_BYTES;
use twinvm_sim::guest::{self, Op};

use crate::client::framed;
use crate::cluster::{A, Cluster, NAMES, wait_for};

/// The disk's sector that the guest uses: behind all that a node keeps in other files.
const SECTOR: u32 = 48 << 11;
/// Bytes of the disk.
pub(crate) const DISK_BYTES: u64 = 64 << 20;
/// The guest keeps one client's last answers.
const CLIENT: u64 = 1;
/// An answer that takes longer than this is asked for again.
const PATIENCE: Duration = Duration::from_millis(500);

/// The pair; A has an empty disk, B has none.
pub(crate) fn cluster() -> Cluster {
    let mut vm = Cluster::with_kernel(&guest::image(Some(SECTOR)));
    vm.file.more = "[[disk]]\npath = \"{name}.img\"\nsize = \"64M\"\n".to_owned();
    vm.write();
    let disk = File::create(vm.path("a.img")).unwrap();
    disk.set_len(DISK_BYTES).unwrap();
    vm
}

/// Who counts.
pub(crate) struct Counting {
    lan: UnixStream,
    /// Questions that were answered: the counter's value, if nothing is lost.
    pub(crate) count: u64,
    seq: u64,
}

impl Counting {
    pub(crate) fn connect(vm: &Cluster) -> Self {
        let lan = UnixStream::connect(&vm.file.lan).unwrap();
        lan.set_read_timeout(Some(PATIENCE)).unwrap();
        Self {
            lan,
            count: 0,
            seq: 0,
        }
    }

    fn send(&mut self) {
        let question = guest::question(CLIENT, self.seq, 0, Op::Add(1));
        let frame = framed(&question[NET_HEADER_BYTES..]);
        self.lan.write_all(&frame).unwrap();
    }

    /// The next answer to the question that was asked last.
    fn hear(&mut self) -> Option<guest::Answer> {
        loop {
            let mut length = [0; 4];
            match self.lan.read_exact(&mut length) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(error) => panic!("the switch: {error}"),
            }
            let mut packet = vec![0; NET_HEADER_BYTES + u32::from_be_bytes(length) as usize];
            self.lan
                .read_exact(&mut packet[NET_HEADER_BYTES..])
                .unwrap();
            let answer = guest::answer(&packet).filter(|answer| answer.seq == self.seq);
            if answer.is_some() {
                return answer;
            }
        }
    }

    /// Asks for one more. Nobody may answer.
    pub(crate) fn begin(&mut self) {
        self.seq += 1;
        self.send();
    }

    /// Waits for the answer, asking again; it must be what the answers before it have left. The
    /// number of this answer since the guest was powered on, from 1.
    #[track_caller]
    pub(crate) fn end(&mut self) -> u64 {
        let answer = wait_for("an answer of the guest", || {
            self.hear().or_else(|| {
                self.send();
                self.hear()
            })
        });
        assert_eq!(answer.value, self.count, "what was answered before");
        self.count += 1;
        answer.number
    }

    /// One more.
    #[track_caller]
    pub(crate) fn add(&mut self) -> u64 {
        self.begin();
        self.end()
    }

    /// What was acknowledged since then is lost, by a person's decision.
    pub(crate) fn lose(&mut self, count: u64) {
        self.count -= count;
        // Its last questions are new ones to what it was.
    }

    /// Whether nobody answers for a while.
    pub(crate) fn is_silence(&mut self) -> bool {
        (0..4).all(|_| self.hear().is_none())
    }
}

/// Bytes of a node's copy.
pub(crate) fn copy(vm: &Cluster, node: usize) -> Vec<u8> {
    fs::read(vm.path(&format!("{}.img", NAMES[node]))).unwrap()
}

/// Fills A's disk with what can't be compressed, but for the guest's part.
pub(crate) fn fill(vm: &Cluster) {
    let mut bytes = vec![0; DISK_BYTES as usize];
    let mut word: u64 = 1;
    for chunk in bytes.chunks_exact_mut(8).take(SECTOR as usize * 64) {
        word = word
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        chunk.copy_from_slice(&(word ^ word >> 29).to_le_bytes());
    }
    fs::write(vm.path(&format!("{}.img", NAMES[A])), bytes).unwrap();
}
