use super::guest::*;
use crate::*;
use twinvm_log::{Body, Record};

#[test]
fn a_restored_machine_goes_on_like_the_original() {
    let mut a = machine(counter());
    a.run(5000);
    let bytes = a.save(false).unwrap();
    let mut b = Machine::restore(&bytes, Some(config(counter()))).unwrap();
    assert_eq!(a.digest(), b.digest());
    assert_eq!((a.run(9000), b.run(9000)), (Exit::Limit, Exit::Limit));
    assert_eq!(a.digest(), b.digest());
    // With its images it needs nothing else, and resets from them.
    let bytes = a.save(true).unwrap();
    let mut c = Machine::restore(&bytes, None).unwrap();
    assert_eq!(a.digest(), c.digest());
    assert_eq!(c.config().fields(), a.config().fields());
}

#[test]
fn a_snapshot_is_of_its_step_though_the_guest_goes_on() {
    let mut a = machine(counter());
    a.run(5000);
    let want = a.digest();
    let mut stream = a.snapshot(false).unwrap();
    let mut restore = Restore::new(Some(config(counter())));
    let mut piece = Vec::new();
    loop {
        let more = stream.read(1000, &mut piece);
        for part in piece.chunks(333) {
            restore.push(part).unwrap();
        }
        piece.clear();
        if !more {
            break;
        }
        let until = a.icount() + 500;
        a.run(until);
    }
    assert_ne!(a.digest(), want);
    assert_eq!(restore.finish().unwrap().digest(), want);
}

/// A machine with an initial RAM disk of two pieces and a bit, of bytes that don't repeat.
fn with_initrd() -> Machine {
    let mut config = config(counter());
    let initrd: Vec<u8> = (0..600_000u32).flat_map(u32::to_le_bytes).collect();
    config.images = config.images.with(ImageKind::Initrd, &initrd);
    Machine::new(config, POWER_ON).unwrap()
}

#[test]
fn images_are_sent_and_restored_a_piece_at_a_time() {
    let mut a = with_initrd();
    let want = a.digest();
    let mut stream = a.snapshot(true).unwrap();
    let mut restore = Restore::new(None);
    let mut piece = Vec::new();
    let mut longest = 0;
    let mut more = true;
    while more {
        more = stream.read(1000, &mut piece);
        longest = longest.max(piece.len());
        restore.push(&piece).unwrap();
        piece.clear();
    }
    assert!(longest < 1_200_000, "{longest} bytes at one time");
    let mut restored = restore.finish().unwrap();
    assert_eq!(restored.config().fields(), a.config().fields());
    assert_eq!(restored.digest(), want);
    restored.reset();
    a.reset();
    assert_eq!(restored.digest(), a.digest());
}

#[test]
fn pages_that_are_as_they_were_loaded_are_loaded_again() {
    let mut a = with_initrd();
    let loaded = a.ram_touched_bytes();
    assert!(loaded > 2_400_000);
    let length = |m: &mut Machine| m.save(false).unwrap().len();
    // At power-on that is all of RAM.
    let head = length(&mut a);
    assert!(head < 4096, "{head} bytes");
    let plan = loader::plan(&a.config.images, a.config.ram_bytes).unwrap();
    let (from, to) = plan.initrd.unwrap();
    let mut numbers = Numbers(0x0123_4567_89ab_cdef);
    let mut held = std::collections::BTreeSet::new();
    for round in 0..40 {
        // A word here and there, as often as not a zero; at times a page of zeroes; RAM's first and
        // last pages, and the initial RAM disk's.
        let page = match round % 8 {
            0 => twinvm_mem::RAM_BASE >> 12,
            1 => from >> 12,
            2 => (to - 1) >> 12,
            3 => (twinvm_mem::RAM_BASE + a.config.ram_bytes - 1) >> 12,
            _ => (from >> 12) + numbers.below((to - from) >> 12),
        };
        let data = match round % 3 {
            0 => vec![0; 4096],
            1 => vec![0; 8],
            _ => numbers.below(u64::MAX).to_le_bytes().to_vec(),
        };
        a.mem.store(page << 12, &data).unwrap();
        held.insert(page);
        for with_images in [true, false] {
            let bytes = a.save(with_images).unwrap();
            let config = (!with_images).then(|| a.config.clone());
            let mut b = Machine::restore(&bytes, config).unwrap();
            assert_eq!(b.digest(), a.digest(), "round {round}");
            assert_eq!(b.save(with_images).unwrap(), bytes, "round {round}");
            assert!(b.ram_touched_bytes() <= a.ram_touched_bytes());
        }
        let bytes = length(&mut a);
        assert!(
            bytes < head + (held.len() + 1) * 4200,
            "round {round}: {bytes} bytes"
        );
    }
    // What a reset loads counts as loaded, too.
    a.reset();
    assert!(length(&mut a) <= head + 16);
    assert_eq!(a.ram_touched_bytes(), loaded);
}

#[test]
fn hostile_lists_of_loaded_pages_are_refused() {
    let mut m = with_initrd();
    m.run(5000);
    let last = m.mem.pages() as u32;
    let good = m.save(false).unwrap();
    let len = u32::from_le_bytes(*good[12..].first_chunk().unwrap()) as usize;
    let runs = m.mem.begin_snapshot().unwrap().loaded().to_vec();
    let tail = |runs: &[std::ops::Range<u32>]| {
        let none: Option<[Option<u64>; 4]> = None;
        postcard::to_stdvec(&(runs, none)).unwrap()
    };
    let head = good[16..16 + len].strip_suffix(&tail(&runs)[..]).unwrap();
    let restore = |runs: &[std::ops::Range<u32>]| {
        let tail = tail(runs);
        let mut bad = good[..12].to_vec();
        bad.extend_from_slice(&((head.len() + tail.len()) as u32).to_le_bytes());
        bad.extend_from_slice(head);
        bad.extend_from_slice(&tail);
        bad.extend_from_slice(&good[16 + len..good.len() - 8]);
        bad.extend_from_slice(&xxhash_rust::xxh3::xxh3_64(&bad).to_le_bytes());
        Machine::restore(&bad, Some(m.config.clone())).map(|mut m| m.digest())
    };
    let error = |runs: &[std::ops::Range<u32>]| restore(runs).unwrap_err().to_string();
    assert!(restore(&runs).is_ok());
    let list = "the snapshot holds a bad list of loaded pages";
    // Reversed, empty, twice, behind RAM.
    for bad in [
        [4..6, 1..2],
        [4..4, 5..6],
        [4..6, 5..7],
        [1..2, last..last + 1],
    ] {
        assert_eq!(error(&bad), list, "{bad:?}");
    }
    let one = |run| error(std::slice::from_ref(&run));
    assert_eq!(one(0..last + 1), list);
    // One that the snapshot holds; one to which nothing is loaded.
    let stored = (0x8040_0000 - twinvm_mem::RAM_BASE) as u32 >> 12;
    for page in [stored, stored + 2] {
        let bad = format!("the snapshot holds a bad loaded page {page}");
        assert_eq!(one(page..page + 1), bad);
    }
}

#[test]
fn touched_ram_is_what_was_stored_to_since_power_on_or_reset() {
    const PAGE: u64 = 4096;
    // Nothing but zeroes are stored.
    let guest = || {
        Asm::default()
            .address(T0, 0x8040_0000)
            .sd(0, T0, 0)
            .system_reset(1)
    };
    let mut m = machine(guest());
    let loaded = m.ram_touched_bytes();
    assert!(
        loaded >= 2 * PAGE && loaded.is_multiple_of(PAGE),
        "{loaded}"
    );
    // The header's jump, then three for the address, the store.
    assert_eq!(m.run(5), Exit::Limit);
    assert_eq!(m.ram_touched_bytes(), loaded + PAGE);
    // It is the host's business alone: a machine that doesn't know it is the same.
    let bytes = m.save(true).unwrap();
    let mut restored = Machine::restore(&bytes, None).unwrap();
    assert!(restored.ram_touched_bytes() <= loaded);
    assert_eq!(restored.digest(), m.digest());
    assert_eq!(restored.save(true).unwrap(), bytes);
    assert_eq!(m.run(1_000_000), Exit::Reset);
    assert_eq!(m.ram_touched_bytes(), loaded);
}

#[test]
fn another_thread_reads_a_snapshot_while_the_guest_runs_or_is_gone() {
    for gone in [false, true] {
        let mut a = machine(counter());
        a.run(5000);
        let want = a.digest();
        let mut stream = a.snapshot(true).unwrap();
        let reader = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            while stream.read(100, &mut bytes) {}
            bytes
        });
        if gone {
            drop(a);
        } else {
            a.run(50_000);
            assert_ne!(a.digest(), want);
        }
        let bytes = reader.join().unwrap();
        assert_eq!(Machine::restore(&bytes, None).unwrap().digest(), want);
    }
}

#[test]
fn damaged_or_foreign_snapshots_are_refused() {
    let mut m = machine(counter());
    m.run(1000);
    let good = m.save(true).unwrap();
    let restore = |bytes: &[u8]| Machine::restore(bytes, None);
    assert!(restore(&good).is_ok());
    for len in (0..good.len()).step_by(97).chain([good.len() - 1]) {
        assert!(restore(&good[..len]).is_err(), "cut at {len}");
    }
    for at in (0..good.len()).step_by(61) {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        assert!(restore(&bad).is_err(), "byte {at}");
    }
    let mut long = good.clone();
    long.push(0);
    assert!(restore(&long).is_err());
    let mut other = config(counter());
    other.cmdline = "other".to_owned();
    let error = Machine::restore(&good, Some(other))
        .err()
        .unwrap()
        .to_string();
    assert_eq!(
        error,
        "the snapshot's cmdline is \"test\", this machine's is \"other\"; both must be equal"
    );
    let without = m.save(false).unwrap();
    assert!(matches!(restore(&without), Err(SnapshotError::NoImages)));
}

#[test]
fn a_snapshot_without_what_a_reset_needs_is_refused() {
    let mut m = machine(counter());
    m.run(1000);
    let initrd = vec![7; 100];
    for images in [
        Images::default(),
        Images::new(b"no kernel".to_vec(), None),
        Images::default().with(ImageKind::Initrd, &initrd),
    ] {
        m.config.images = images;
        let bytes = m.save(true).unwrap();
        assert!(matches!(
            Machine::restore(&bytes, None),
            Err(SnapshotError::Machine(MachineError::Load(_)))
        ));
    }
}

#[test]
fn a_sender_does_not_choose_how_much_is_received() {
    let mut m = machine(counter());
    m.run(1000);
    let content = |error: Option<SnapshotError>| match error {
        Some(SnapshotError::Content(what)) => what,
        other => panic!("{other:?}"),
    };
    // Page records without end.
    let good = m.save(false).unwrap();
    let pages = 16 + u32::from_le_bytes(*good[12..].first_chunk().unwrap()) as usize;
    let mut restore = Restore::new(Some(config(counter())));
    restore.push(&good[..pages]).unwrap();
    let record = &good[pages..pages + 4 + 4096];
    let error = (0..m.mem.pages() + 1).find_map(|_| restore.push(record).err());
    assert_eq!(content(error), "number of pages: more than RAM has");
    // A kernel that is said to be longer than ours.
    let mut bad = m.save(true).unwrap();
    let head = 16 + u32::from_le_bytes(*bad[12..].first_chunk().unwrap()) as usize;
    let len = m.config.images.len(ImageKind::Kernel);
    let tail = postcard::to_stdvec(&Some([None, len, None, None])).unwrap();
    assert!(bad[..head].ends_with(&tail));
    let longer = postcard::to_stdvec(&Some([None, len.map(|n| n ^ 1), None, None])).unwrap();
    bad[head - tail.len()..head].copy_from_slice(&longer);
    let mut restore = Restore::new(Some(config(counter())));
    let error = restore.push(&bad[..head]).err();
    assert_eq!(content(error), "length of an image");
}

#[test]
fn whatever_a_hostile_head_says_is_refused_or_runs() {
    let several = MachineConfig {
        harts: 3,
        ..config(counter())
    };
    let mut several = Machine::new(several, POWER_ON).unwrap();
    several.run(40_000);
    let mut numbers = Numbers(0x1234_5678_9abc_def1);
    for mut m in [super::disk::busy(), several] {
        let good = m.save(true).unwrap();
        let head = u64::from(u32::from_le_bytes(*good[12..].first_chunk().unwrap()));
        let end = good.len() - 8;
        let mut ran = 0;
        for _ in 0..200 {
            let mut bad = good.clone();
            let at = 16 + numbers.below(head) as usize;
            bad[at] = match numbers.below(3) {
                0 => 0xff,
                1 => bad[at] ^ 1 << numbers.below(8),
                _ => numbers.below(256) as u8,
            };
            let sum = xxhash_rust::xxh3::xxh3_64(&bad[..end]);
            bad[end..].copy_from_slice(&sum.to_le_bytes());
            if let Ok(mut m) = Machine::restore(&bad, None) {
                ran += 1;
                live_on(&mut m);
            }
        }
        assert!((20..180).contains(&ran), "{ran} of 200 ran");
    }
}

/// Runs, takes records for each device, resets, and restores once more.
fn live_on(m: &mut Machine) {
    for _ in 0..3 {
        m.run(m.icount().saturating_add(1000));
        m.take_output();
        for request in m.disk_requests(&mut [0; VIRTIO_SLOTS]) {
            let data = match request.op {
                DiskOp::Read => vec![1; request.bytes as usize],
                _ => Vec::new(),
            };
            let (device, id, status) = (request.device, request.id, 0);
            let done = Body::BlockDone {
                device,
                id,
                status,
                data,
            };
            record(m, done).unwrap();
        }
        let (frame, bytes) = (vec![0; 100], vec![0; 100]);
        let _ = record(m, Body::NetRx { device: 0, frame });
        let _ = record(m, Body::Entropy { device: 1, bytes });
        m.reset();
    }
    let want = m.digest();
    let own = m.save(true).unwrap();
    assert_eq!(Machine::restore(&own, None).unwrap().digest(), want);
}

fn record(m: &mut Machine, body: Body) -> Result<(), InjectError> {
    let icount = m.icount();
    m.inject(&Record { icount, body })
}
