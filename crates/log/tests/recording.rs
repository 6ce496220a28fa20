//! Recordings: round trips, damage, torn ends.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use proptest::prelude::*;
use twinvm_log::*;

const CONFIG: &[u8] = b"board virt";
const SNAPSHOT: &[u8] = b"registers and memory";

fn batches() -> Vec<EncodedBatch> {
    let mut builder = BatchBuilder::new(40);
    let mut out = Vec::new();
    let push = |builder: &mut BatchBuilder, icount, body| {
        builder.push(&Record { icount, body }).unwrap();
    };
    let anchor = Body::Anchor {
        mtime: 77,
        rate: 1 << 28,
        span: 1000,
        tell_tale: 3,
    };
    push(&mut builder, 1000, anchor);
    push(
        &mut builder,
        1000,
        Body::NetRx {
            device: 0,
            frame: b"ping".to_vec(),
        },
    );
    out.push(builder.take().unwrap());
    push(&mut builder, 2000, Body::Output { hash: 5 });
    out.push(builder.take().unwrap());
    push(&mut builder, 2500, Body::Digest { digest: 1 << 100 });
    push(&mut builder, 2500, Body::End { reason: 2 });
    out.push(builder.take().unwrap());
    out
}

fn write(dir: &Path, batches: &[EncodedBatch]) {
    let mut writer = RecordingWriter::create(dir, CONFIG, 40, SNAPSHOT).unwrap();
    for batch in batches {
        writer.append(batch).unwrap();
    }
    writer.finish().unwrap();
}

type Outcome = Result<(Vec<Entry>, Ending), RecordingError>;

fn read(dir: &Path) -> Outcome {
    let mut reader = RecordingReader::open(dir)?;
    let entries = reader.by_ref().collect::<Result<Vec<_>, _>>()?;
    Ok((
        entries,
        reader.ending().expect("ending after the last record"),
    ))
}

fn expect(batches: &[EncodedBatch]) -> Vec<Entry> {
    let mut entries = Vec::new();
    for batch in batches {
        let batch = Batch::decode(batch.bytes()).unwrap();
        for (i, record) in batch.records.into_iter().enumerate() {
            entries.push(Entry {
                position: batch.first_position + i as u64,
                record,
            });
        }
    }
    entries
}

#[test]
fn round_trip() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("new/recording");
    let batches = batches();
    write(&dir, &batches);
    let mut reader = RecordingReader::open(&dir).unwrap();
    assert_eq!(reader.config(), CONFIG);
    assert_eq!(reader.first_position(), 40);
    assert_eq!(reader.snapshot(), SNAPSHOT);
    assert_eq!(reader.take_snapshot(), SNAPSHOT);
    assert_eq!(reader.ending(), None);
    let (entries, ending) = read(&dir).unwrap();
    assert_eq!(entries, expect(&batches));
    assert_eq!(entries[0].position, 40);
    assert_eq!(ending, Ending::Finished { reason: 2 });
}

proptest! {
    #[test]
    fn any_cut_into_batches_reads_the_same(sizes in proptest::collection::vec(1..9usize, 0..12)) {
        let dir = tempfile::tempdir().unwrap();
        let mut builder = BatchBuilder::new(0);
        let mut batches = Vec::new();
        for size in sizes {
            for _ in 0..size {
                let icount = builder.next_position() * 17;
                builder.push(&Record { icount, body: Body::Output { hash: icount } }).unwrap();
            }
            batches.push(builder.take().unwrap());
        }
        let mut writer = RecordingWriter::create(dir.path(), &[], 0, &[]).unwrap();
        for batch in &batches {
            writer.append(batch).unwrap();
        }
        writer.finish().unwrap();
        let (entries, ending) = read(dir.path()).unwrap();
        prop_assert_eq!(ending, Ending::Open);
        prop_assert_eq!(entries, expect(&batches));
    }

    #[test]
    fn garbage_logs_and_tails_are_total(
        tail in proptest::collection::vec(any::<u8>(), 0..300),
        cut in any::<prop::sample::Index>(),
    ) {
        let _ = LogReader::new(&tail[..]).map(|reader| reader.count());
        let mut log = Vec::new();
        let header =
            LogHeader { config: CONFIG.to_vec(), first_position: 40, snapshot_checksum: 0 };
        let mut writer = LogWriter::new(&mut log, &header).unwrap();
        for batch in batches() {
            writer.append(&batch).unwrap();
        }
        log.truncate(cut.index(log.len()));
        log.extend_from_slice(&tail);
        if let Ok(reader) = LogReader::new(&log[..]) {
            // An error ends the iterator.
            let results: Vec<_> = reader.collect();
            prop_assert!(results.iter().rev().skip(1).all(Result::is_ok));
        }
    }
}

#[test]
fn every_bit_flip_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &batches());
    for name in [SNAPSHOT_FILE, LOG_FILE] {
        let path = dir.path().join(name);
        let good = fs::read(&path).unwrap();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, &bad).unwrap();
            match read(dir.path()) {
                Err(error) => assert!(error.to_string().contains(name), "{error}"),
                Ok((_, ending)) => panic!("{name}: bit {bit} flipped, read as {ending:?}"),
            }
        }
        fs::write(&path, &good).unwrap();
    }
    read(dir.path()).unwrap();
}

#[test]
fn every_cut_keeps_the_whole_batches() {
    let dir = tempfile::tempdir().unwrap();
    let batches = batches();
    write(dir.path(), &batches);
    let path = dir.path().join(LOG_FILE);
    let good = fs::read(&path).unwrap();
    let mut ends = vec![good.len() - batches.iter().map(|b| b.bytes().len()).sum::<usize>()];
    for batch in &batches {
        ends.push(ends.last().unwrap() + batch.bytes().len());
    }
    for len in 0..good.len() {
        fs::write(&path, &good[..len]).unwrap();
        if len < ends[0] {
            assert!(
                matches!(read(dir.path()), Err(RecordingError::Read { .. })),
                "cut at {len}"
            );
            continue;
        }
        let whole = ends.iter().rposition(|end| *end <= len).unwrap();
        let kept = expect(&batches[..whole]);
        let (entries, ending) = read(dir.path()).unwrap();
        let torn = Torn {
            at_byte: ends[whole] as u64,
            records_kept: kept.len() as u64,
        };
        let expected = if ends[whole] == len {
            Ending::Open
        } else {
            Ending::Torn(torn)
        };
        assert_eq!(ending, expected, "cut at {len}");
        assert_eq!(entries, kept, "cut at {len}");
    }
    fs::write(&path, &good).unwrap();

    let path = dir.path().join(SNAPSHOT_FILE);
    let good = fs::read(&path).unwrap();
    for len in 0..good.len() {
        fs::write(&path, &good[..len]).unwrap();
        assert!(read(dir.path()).is_err(), "snapshot cut at {len}");
    }
    fs::write(&path, [&good[..], b"x"].concat()).unwrap();
    let text = read(dir.path()).unwrap_err().to_string();
    assert!(
        text.contains("snapshot is longer than its header says"),
        "{text}"
    );
}

#[test]
fn damage_in_the_middle_names_its_byte() {
    let dir = tempfile::tempdir().unwrap();
    let batches = batches();
    write(dir.path(), &batches);
    let path = dir.path().join(LOG_FILE);
    let mut log = fs::read(&path).unwrap();
    let second = log.len() - batches[1].bytes().len() - batches[2].bytes().len();
    log[second + HEADER_BYTES] ^= 1;
    fs::write(&path, &log).unwrap();
    let mut reader = RecordingReader::open(dir.path()).unwrap();
    assert_eq!(reader.by_ref().take(2).filter(Result::is_ok).count(), 2);
    let text = reader.next().unwrap().unwrap_err().to_string();
    assert!(
        text.contains(&format!("damaged batch at byte {second}")),
        "{text}"
    );
    assert!(reader.next().is_none());
    assert_eq!(reader.ending(), None);
}

#[test]
fn missing_doubled_and_late_batches_are_refused() {
    let mut past = BatchBuilder::new(42);
    past.push(&Record {
        icount: 999,
        body: Body::Output { hash: 0 },
    })
    .unwrap();
    let mut all = batches();
    all.push(past.take().unwrap());
    let refused = |order: &[usize]| {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &[]);
        let path = dir.path().join(LOG_FILE);
        let mut log = fs::read(&path).unwrap();
        for i in order {
            log.extend_from_slice(all[*i].bytes());
        }
        fs::write(&path, &log).unwrap();
        match read(dir.path()) {
            Err(RecordingError::Read { source, .. }) => source,
            other => panic!("expected a refusal, got {other:?}"),
        }
    };
    assert!(matches!(
        refused(&[1]),
        ReadError::Gap {
            expected: 40,
            found: 42,
            ..
        }
    ));
    assert!(matches!(
        refused(&[0, 2]),
        ReadError::Gap {
            expected: 42,
            found: 43,
            ..
        }
    ));
    assert!(matches!(
        refused(&[0, 0]),
        ReadError::Gap {
            expected: 42,
            found: 40,
            ..
        }
    ));
    let late = refused(&[0, 3]);
    assert!(
        matches!(
            late,
            ReadError::Backwards {
                last: 1000,
                found: 999,
                ..
            }
        ),
        "{late}"
    );
    assert!(matches!(refused(&[0, 1, 2, 2]), ReadError::AfterEnd { .. }));
}

#[test]
fn the_writer_keeps_the_order() {
    let dir = tempfile::tempdir().unwrap();
    let batches = batches();
    let mut writer = RecordingWriter::create(dir.path(), CONFIG, 40, SNAPSHOT).unwrap();
    let mut append = |batch: &EncodedBatch| match writer.append(batch) {
        Err(RecordingError::Append { source, .. }) => Some(source),
        Err(other) => panic!("{other}"),
        Ok(()) => None,
    };
    let early = append(&batches[1]).unwrap();
    assert!(
        matches!(
            early,
            AppendError::Position {
                expected: 40,
                found: 42
            }
        ),
        "{early}"
    );
    assert!(append(&batches[0]).is_none());
    let mut past = BatchBuilder::new(42);
    past.push(&Record {
        icount: 999,
        body: Body::Output { hash: 0 },
    })
    .unwrap();
    let past = append(&past.take().unwrap()).unwrap();
    assert!(
        matches!(
            past,
            AppendError::Backwards {
                last: 1000,
                found: 999
            }
        ),
        "{past}"
    );
    assert!(append(&batches[1]).is_none());
    assert!(append(&batches[2]).is_none());
    let mut late = BatchBuilder::new(45);
    late.push(&Record {
        icount: 9999,
        body: Body::Output { hash: 0 },
    })
    .unwrap();
    assert!(matches!(
        append(&late.take().unwrap()),
        Some(AppendError::Ended)
    ));
    assert_eq!(read(dir.path()).unwrap().0.len(), 5);
}

#[test]
fn a_failed_write_closes_the_log() {
    struct Full(usize);
    impl std::io::Write for Full {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let n = bytes.len().min(self.0);
            self.0 -= n;
            if n == 0 {
                Err(std::io::ErrorKind::StorageFull.into())
            } else {
                Ok(n)
            }
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let header = LogHeader {
        config: vec![],
        first_position: 40,
        snapshot_checksum: 0,
    };
    let mut writer = LogWriter::new(Full(60), &header).unwrap();
    assert!(matches!(
        writer.append(&batches()[0]),
        Err(AppendError::Io(_))
    ));
    assert!(matches!(
        writer.append(&batches()[0]),
        Err(AppendError::Failed)
    ));
    let config = vec![0; MAX_CONFIG_BYTES + 1];
    let header = LogHeader { config, ..header };
    assert!(matches!(
        LogWriter::new(Full(1), &header),
        Err(AppendError::Config { .. })
    ));
}

#[test]
fn nothing_is_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &batches());
    let before = fs::read(dir.path().join(LOG_FILE)).unwrap();
    for gone in [None, Some(SNAPSHOT_FILE)] {
        if let Some(name) = gone {
            fs::remove_file(dir.path().join(name)).unwrap();
        }
        let error = RecordingWriter::create(dir.path(), b"", 0, b"").unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("never overwritten; give another directory"),
            "{text}"
        );
    }
    assert_eq!(fs::read(dir.path().join(LOG_FILE)).unwrap(), before);
    assert!(!dir.path().join(SNAPSHOT_FILE).exists());

    let half = tempfile::tempdir().unwrap();
    fs::write(half.path().join(SNAPSHOT_FILE), b"").unwrap();
    let error = RecordingWriter::create(half.path(), b"", 0, b"").unwrap_err();
    assert!(matches!(error, RecordingError::Exists { .. }), "{error}");
}

#[test]
fn what_is_missing_or_mixed_up_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let text = RecordingReader::open(dir.path()).unwrap_err().to_string();
    assert!(text.contains("snapshot is missing"), "{text}");
    write(dir.path(), &batches());
    let other = tempfile::tempdir().unwrap();
    RecordingWriter::create(other.path(), CONFIG, 40, b"another machine").unwrap();
    fs::copy(
        other.path().join(SNAPSHOT_FILE),
        dir.path().join(SNAPSHOT_FILE),
    )
    .unwrap();
    let text = RecordingReader::open(dir.path()).unwrap_err().to_string();
    assert!(text.contains("starts from another snapshot"), "{text}");
    fs::remove_file(dir.path().join(LOG_FILE)).unwrap();
    let text = RecordingReader::open(dir.path()).unwrap_err().to_string();
    assert!(text.contains("log is missing"), "{text}");
}

#[test]
fn the_snapshot_may_be_written_while_the_log_grows() {
    let dir = tempfile::tempdir().unwrap();
    let batches = batches();
    let (mut log, mut snapshot) = RecordingWriter::begin(dir.path(), CONFIG, 40).unwrap();
    log.append(&batches[0]).unwrap();
    snapshot.write(&SNAPSHOT[..5]).unwrap();
    // Ended here it is no recording: the machine is not whole.
    let error = RecordingReader::open(dir.path()).unwrap_err().to_string();
    assert!(error.contains("incomplete"), "{error}");
    log.append(&batches[1]).unwrap();
    snapshot.write(&SNAPSHOT[5..]).unwrap();
    let checksum = snapshot.finish().unwrap();
    // Nor here: nothing says yet that the two belong together.
    assert!(RecordingReader::open(dir.path()).is_err());
    log.seal(checksum).unwrap();
    // From now on it is one, whenever the process dies.
    let reader = RecordingReader::open(dir.path()).unwrap();
    assert_eq!(reader.snapshot(), SNAPSHOT);
    assert_eq!(reader.config(), CONFIG);
    log.append(&batches[2]).unwrap();
    log.finish().unwrap();
    let (entries, ending) = read(dir.path()).unwrap();
    assert_eq!(
        (entries, ending),
        (expect(&batches), Ending::Finished { reason: 2 })
    );
}

#[test]
fn a_folder_with_anything_in_it_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("notes"), b"mine").unwrap();
    let error = RecordingWriter::create(dir.path(), b"", 0, b"").unwrap_err();
    assert!(
        matches!(&error, RecordingError::NotEmpty { found, .. } if found.as_os_str() == "notes"),
        "{error}"
    );
    let names: Vec<_> = fs::read_dir(dir.path()).unwrap().collect();
    assert_eq!(names.len(), 1, "{names:?}");
}

/// It holds the guest's memory, as a snapshot does.
#[test]
fn only_its_owner_may_read_a_recording() {
    let dir = tempfile::tempdir().unwrap();
    drop(RecordingWriter::create(dir.path(), b"", 0, b"memory").unwrap());
    StatesWriter::create(dir.path()).unwrap();
    for name in [SNAPSHOT_FILE, LOG_FILE, STATES_FILE] {
        let about = fs::metadata(dir.path().join(name)).unwrap();
        assert_eq!(about.permissions().mode() & 0o777, 0o600, "{name}");
    }
}
