use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::time::Duration;

use tempfile::TempDir;

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crossbeam_channel::{Receiver, bounded};
use twinvm_machine::{DiskOp, DiskRequest, MAX_DISK_REQUESTS};

use crate::worker::{DONE, FAILED};
use crate::{Disk, DiskDone, DiskError, DiskFile};

const MIB: u64 = 1 << 20;

fn file(dir: &TempDir, name: &str, bytes: u64) -> PathBuf {
    let path = dir.path().join(name);
    File::create(&path).unwrap().set_len(bytes).unwrap();
    path
}

/// A disk of 1 MiB full of ones, at work.
struct Bench {
    _dir: TempDir,
    path: PathBuf,
    disk: Disk,
    done: Receiver<DiskDone>,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        fs::write(&path, vec![1; MIB as usize]).unwrap();
        let (done_in, done) = bounded(MAX_DISK_REQUESTS);
        let disk = Disk::start(DiskFile::open(&path, false).unwrap(), &done_in).unwrap();
        Self {
            _dir: dir,
            path,
            disk,
            done,
        }
    }

    fn submit(&self, id: u64, op: DiskOp, offset: u64, bytes: u64, data: &[u8]) {
        self.disk.submit(DiskRequest {
            device: 4,
            id,
            op,
            offset,
            bytes,
            data: data.into(),
        });
    }

    fn next(&self) -> DiskDone {
        self.done.recv_timeout(Duration::from_secs(30)).unwrap()
    }

    /// Carries out one request; its status and data.
    fn one(&self, op: DiskOp, offset: u64, bytes: u64, data: &[u8]) -> DiskDone {
        self.submit(9, op, offset, bytes, data);
        let done = self.next();
        assert_eq!((done.device, done.id), (4, 9));
        done
    }

    fn read(&self, offset: u64, bytes: u64) -> Vec<u8> {
        let done = self.one(DiskOp::Read, offset, bytes, &[]);
        assert_eq!((done.status, done.trouble), (DONE, None));
        done.data
    }
}

const WRITE: DiskOp = DiskOp::Write { durable: false };

#[test]
fn what_is_written_is_read() {
    let bench = Bench::new();
    for (n, op) in [WRITE, DiskOp::Write { durable: true }]
        .into_iter()
        .enumerate()
    {
        let data = vec![7 + n as u8; 4096];
        let done = bench.one(op, 512, 4096, &data);
        assert_eq!((done.status, done.data.len()), (DONE, 0));
        assert_eq!(bench.read(512, 4096), data);
    }
    assert_eq!(bench.read(0, 512), [1; 512]);
    assert_eq!(bench.one(DiskOp::Flush, 0, 0, &[]).status, DONE);
    drop(bench.disk);
    let bytes = fs::read(&bench.path).unwrap();
    assert_eq!(bytes.len() as u64, MIB);
    assert_eq!((bytes[511], bytes[512], bytes[4608]), (1, 8, 1));
}

#[test]
fn as_many_requests_as_may_be_in_flight() {
    let bench = Bench::new();
    let count = MAX_DISK_REQUESTS as u64;
    for id in 0..count {
        bench.submit(id, WRITE, id * 4096, 4096, &[id as u8; 4096]);
    }
    let mut ids: Vec<u64> = (0..count).map(|_| bench.next().id).collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..count).collect::<Vec<_>>());
    for id in 0..count {
        bench.submit(id, DiskOp::Read, id * 4096, 4096, &[]);
    }
    for _ in 0..count {
        let done = bench.next();
        assert_eq!(done.data, [done.id as u8; 4096]);
    }
}

#[test]
fn a_disk_at_rest_has_done_all_that_it_was_asked() {
    let mut bench = Bench::new();
    for id in 0..MAX_DISK_REQUESTS as u64 {
        bench.submit(
            id,
            DiskOp::Write { durable: false },
            id * 512,
            512,
            &[2; 512],
        );
    }
    bench.disk.rest().unwrap();
    assert_eq!(bench.done.try_iter().count(), MAX_DISK_REQUESTS);
    let bytes = MAX_DISK_REQUESTS * 512;
    assert_eq!(fs::read(&bench.path).unwrap()[..bytes], vec![2; bytes]);
    let locked = DiskFile::open(&bench.path, false).err().unwrap();
    assert!(matches!(locked, DiskError::Locked { .. }), "{locked}");
}

#[test]
fn what_is_cleared_reads_as_zero() {
    let ops = [
        DiskOp::Discard,
        DiskOp::WriteZeroes { unmap: true },
        DiskOp::WriteZeroes { unmap: false },
    ];
    for op in ops {
        let bench = Bench::new();
        // Neither end is that of a page.
        assert_eq!(bench.one(op, 512, 9 * 4096, &[]).status, DONE);
        assert_eq!(bench.read(512, 9 * 4096), [0; 9 * 4096], "{op:?}");
        assert_eq!(bench.read(0, 512), [1; 512]);
        assert_eq!(bench.read(512 + 9 * 4096, 512), [1; 512]);
        let about = fs::metadata(&bench.path).unwrap();
        assert_eq!(about.len(), MIB, "{op:?}");
    }
    // Where the file system can't, zeros are written.
    let bench = Bench::new();
    let path = bench.path.with_file_name("other");
    fs::write(&path, vec![1; MIB as usize]).unwrap();
    let other = DiskFile::open(&path, false).unwrap();
    other.write_zeros(1024, 150 << 10).unwrap();
    drop(other);
    let bytes = fs::read(&path).unwrap();
    assert_eq!(bytes[..1024], [1; 1024]);
    assert_eq!(bytes[1024..][..150 << 10], vec![0; 150 << 10]);
    assert_eq!(bytes[1024 + (150 << 10)..][..512], [1; 512]);
}

#[test]
fn a_discard_gives_space_back() {
    let bench = Bench::new();
    let before = fs::metadata(&bench.path).unwrap().blocks();
    bench.one(DiskOp::Discard, 0, MIB / 2, &[]);
    let after = fs::metadata(&bench.path).unwrap().blocks();
    assert!(after < before, "{before} blocks, then {after}");
}

#[test]
fn a_file_that_becomes_shorter_fails_what_is_behind_its_end() {
    let bench = Bench::new();
    File::options()
        .write(true)
        .open(&bench.path)
        .unwrap()
        .set_len(MIB / 2)
        .unwrap();
    let said = |doing: &str| {
        format!(
            "disk {}: a {doing} failed: the file has become shorter than the disk; the guest gets \
             an I/O error (said once)",
            bench.path.display()
        )
    };
    let ops = [
        (DiskOp::Read, "read"),
        (WRITE, "write"),
        (DiskOp::Discard, "discard"),
        (DiskOp::WriteZeroes { unmap: false }, "write of zeros"),
    ];
    for (op, doing) in ops {
        // One that crosses the end, and one behind it: told once.
        let done = bench.one(op, MIB / 2 - 512, 1024, &[2; 1024]);
        assert_eq!((done.status, done.data.len()), (FAILED, 0), "{op:?}");
        assert_eq!(done.trouble, Some(said(doing)));
        let done = bench.one(op, MIB - 512, 512, &[2; 512]);
        assert_eq!((done.status, done.trouble), (FAILED, None), "{op:?}");
    }
    assert_eq!(fs::metadata(&bench.path).unwrap().len(), MIB / 2);
    assert_eq!(bench.read(MIB / 2 - 512, 512), [1; 512], "the rest is good");
    assert_eq!(bench.one(DiskOp::Flush, 0, 0, &[]).status, DONE);
}

fn refused(path: &Path, read_only: bool) -> String {
    let error = DiskFile::open(path, read_only).expect_err("refused");
    error.to_string().replace(path.to_str().unwrap(), "FILE")
}

#[test]
fn files_that_are_no_disks() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(
        refused(&dir.path().join("absent"), false),
        "disk FILE: there is no such file: make it, for instance with truncate -s 4G FILE"
    );
    assert_eq!(
        refused(&file(&dir, "empty", 0), false),
        "disk FILE: the file is empty: give it a size, for instance with truncate -s 4G FILE"
    );
    assert_eq!(
        refused(&file(&dir, "odd", 1000), true),
        "disk FILE: 1000 bytes are not a multiple of 512: a raw disk image is whole sectors"
    );
    assert_eq!(
        refused(dir.path(), false),
        "disk FILE: a folder, not a regular file: give a raw disk image"
    );
    assert_eq!(
        refused(Path::new("/dev/null"), true),
        "disk FILE: a device or socket, not a regular file: give a raw disk image"
    );
    let path = file(&dir, "fixed", 512);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).unwrap();
    assert_eq!(
        refused(&path, false),
        "disk FILE: the file is read-only: make it writable, or set readonly = true"
    );
    let disk = DiskFile::open(&path, true).unwrap();
    assert_eq!((disk.sectors(), disk.read_only()), (1, true));
}

#[test]
fn a_disk_belongs_to_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(&dir, "disk", MIB);
    let link = dir.path().join("link");
    symlink(&path, &link).unwrap();
    let first = DiskFile::open(&path, false).unwrap();
    for read_only in [false, true] {
        assert_eq!(
            refused(&link, read_only),
            "disk FILE: locked by another disk of this VM: a disk belongs to one VM at a time"
        );
    }
    drop(first);
    // Readers go together, and keep writers out.
    let readers = [(); 2].map(|()| DiskFile::open(&path, true).unwrap());
    assert!(refused(&path, false).contains("locked by"));
    drop(readers);
    DiskFile::open(&path, false).unwrap();
}
