//! Batches: round trips, sizes, bounds, and bytes that are no batch.

use proptest::prelude::*;
use twinvm_log::*;
use xxhash_rust::xxh3::xxh3_64;

fn body() -> impl Strategy<Value = Body> {
    let bytes = proptest::collection::vec(any::<u8>(), 0..200);
    prop_oneof![
        (any::<u64>(), 0..3u64, 0..3u64, any::<u16>()).prop_map(
            |(mtime, rate, span, tell_tale)| Body::Anchor {
                mtime,
                rate,
                span,
                tell_tale
            }
        ),
        (any::<u64>(), any::<u64>(), any::<u64>(), any::<u16>()).prop_map(
            |(mtime, rate, span, tell_tale)| Body::Anchor {
                mtime,
                rate,
                span,
                tell_tale
            }
        ),
        (any::<u8>(), bytes.clone()).prop_map(|(device, frame)| Body::NetRx { device, frame }),
        bytes.clone().prop_map(|bytes| Body::ConsoleRx { bytes }),
        (any::<u8>(), bytes.clone()).prop_map(|(device, bytes)| Body::PortRx { device, bytes }),
        (any::<u8>(), bytes.clone()).prop_map(|(device, bytes)| Body::Entropy { device, bytes }),
        (any::<u8>(), any::<u64>(), any::<u8>(), bytes).prop_map(|(device, id, status, data)| {
            Body::BlockDone {
                device,
                id,
                status,
                data,
            }
        }),
        (any::<u8>(), any::<u64>(), any::<u64>()).prop_map(|(device, id, hash)| Body::DiskWrite {
            device,
            id,
            hash
        }),
        (any::<u8>(), any::<u64>(), any::<u8>(), any::<u64>()).prop_map(
            |(device, id, status, hash)| Body::BlockEnded {
                device,
                id,
                status,
                hash
            }
        ),
        any::<u64>().prop_map(|hash| Body::Output { hash }),
        any::<u128>().prop_map(|digest| Body::Digest { digest }),
    ]
}

fn records() -> impl Strategy<Value = Vec<Record>> {
    let step = prop_oneof![Just(0u64), 0..1000u64, 0..(u64::MAX / 64)];
    (
        proptest::collection::vec((step, body()), 1..40),
        proptest::option::of(any::<u8>()),
    )
        .prop_map(|(steps, end)| {
            let mut icount = 0;
            let mut records: Vec<_> = steps
                .into_iter()
                .map(|(step, body)| {
                    icount += step;
                    Record { icount, body }
                })
                .collect();
            if let Some(reason) = end {
                records.push(Record {
                    icount,
                    body: Body::End { reason },
                });
            }
            records
        })
}

proptest! {
    #[test]
    fn round_trip(first_position in 0..u64::MAX - 100, records in records()) {
        let batch = Batch { first_position, records };
        let encoded = batch.encode().unwrap();
        prop_assert_eq!(&Batch::decode(encoded.bytes()).unwrap(), &batch);
        let (again, decoded) = EncodedBatch::from_bytes(encoded.bytes().to_vec()).unwrap();
        prop_assert_eq!(&again, &encoded);
        prop_assert_eq!(&decoded, &batch);
        prop_assert_eq!(encoded.next_position(), batch.next_position());
        prop_assert_eq!(encoded.first_icount(), batch.records[0].icount);
        prop_assert_eq!(encoded.last_icount(), batch.records.last().unwrap().icount);
        // Behind it may come anything.
        let mut stream = encoded.bytes().to_vec();
        stream.push(0x55);
        prop_assert_eq!(Batch::decode_prefix(&stream).unwrap(), (batch, stream.len() - 1));
        prop_assert_eq!(Batch::decode(&stream), Err(DecodeError::Trailing { extra: 1 }));
    }

    #[test]
    fn garbage_is_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(Batch::decode(&bytes).is_err());
    }

    /// Garbage with right checksums reaches the record decoder. Whatever it accepts has
    /// exactly one encoding.
    #[test]
    fn garbage_under_good_checksums_is_total(
        count in 0..20u16,
        base in any::<u64>(),
        payload in proptest::collection::vec(prop_oneof![0..0x90u8, any::<u8>()], 0..60),
    ) {
        let bytes = seal(1, count, base, &payload);
        if let Ok(batch) = Batch::decode(&bytes) {
            prop_assert_eq!(batch.records.len(), usize::from(count));
            for pair in batch.records.windows(2) {
                prop_assert!(pair[0].icount <= pair[1].icount);
            }
            let again = batch.encode().unwrap();
            prop_assert_eq!(Batch::decode(again.bytes()).unwrap(), batch);
        }
    }

    #[test]
    fn mutated_records_under_good_checksums_are_total(
        records in records(),
        at in any::<prop::sample::Index>(),
        to in any::<u8>(),
    ) {
        let encoded = Batch { first_position: 0, records }.encode().unwrap();
        let mut payload =
            encoded.bytes()[HEADER_BYTES..encoded.bytes().len() - TRAILER_BYTES].to_vec();
        let at = at.index(payload.len());
        payload[at] = to;
        let _ = Batch::decode(&seal(0, encoded.count() as u16, encoded.first_icount(), &payload));
    }
}

/// A batch with right checksums around any payload.
fn seal(first_position: u64, count: u16, base: u64, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![BATCH_VERSION];
    bytes.extend_from_slice(&first_position.to_le_bytes());
    bytes.extend_from_slice(&count.to_le_bytes());
    bytes.extend_from_slice(&base.to_le_bytes());
    bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    let head = xxh3_64(&bytes) as u32;
    bytes.extend_from_slice(&head.to_le_bytes());
    bytes.extend_from_slice(payload);
    let all = xxh3_64(&bytes);
    bytes.extend_from_slice(&all.to_le_bytes());
    bytes
}

fn malformed(count: u16, base: u64, payload: &[u8]) -> &'static str {
    match Batch::decode(&seal(0, count, base, payload)) {
        Err(DecodeError::Malformed { what, .. }) => what,
        other => panic!("expected a malformed record, got {other:?}"),
    }
}

#[test]
fn the_format_stands_still() {
    let batch = Batch {
        first_position: 7,
        records: vec![
            Record {
                icount: 5,
                body: Body::Output {
                    hash: 0x0102_0304_0506_0708,
                },
            },
            Record {
                icount: 300,
                body: Body::ConsoleRx {
                    bytes: b"hi".to_vec(),
                },
            },
            Record {
                icount: 301,
                body: Body::BlockDone {
                    device: 2,
                    id: 130,
                    status: 1,
                    data: vec![4, 5],
                },
            },
            Record {
                icount: 302,
                body: Body::BlockEnded {
                    device: 1,
                    id: 131,
                    status: 0,
                    hash: 0x1112_1314_1516_1718,
                },
            },
            Record {
                icount: 302,
                body: Body::PortRx {
                    device: 3,
                    bytes: b"ls".to_vec(),
                },
            },
            Record {
                icount: 302,
                body: Body::End { reason: 9 },
            },
        ],
    };
    let payload = [
        0x85, 8, 7, 6, 5, 4, 3, 2, 1, // output, no step count
        0x03, 0xa7, 0x02, 2, b'h', b'i', // console, 295 steps on
        0x08, 1, 2, 0x82, 0x01, 1, 2, 4, 5, // disk 2, request 130, failed, two bytes
        0x0a, 1, 1, 0x83, 0x01, 0, // disk 1, request 131, done
        0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11, // hash of its contents
        0x89, 3, 2, b'l', b's', // console 3
        0x87, 9, // end
    ];
    assert_eq!(batch.encode().unwrap().bytes(), seal(7, 6, 5, &payload));
}

#[test]
fn malformed_records_are_named() {
    assert_eq!(malformed(1, 0, &[0x80]), "unknown kind of record");
    assert_eq!(malformed(1, 0, &[0x8f]), "unknown kind of record");
    assert_eq!(
        malformed(1, 0, &[0x97, 0]),
        "flags that this kind of record doesn't have"
    );
    assert_eq!(
        malformed(1, 0, &[0xc1, 0, 0]),
        "flags that this kind of record doesn't have"
    );
    assert_eq!(
        malformed(1, 0, &[0x07, 0, 0]),
        "zero steps not in their shortest form"
    );
    assert_eq!(
        malformed(1, 0, &[0x07, 1, 0]),
        "first record is not at the base instruction count"
    );
    assert_eq!(malformed(1, 0, &[0x85, 0]), "record runs past the payload");
    assert_eq!(malformed(2, 0, &[0x87, 0]), "record runs past the payload");
    assert_eq!(
        malformed(2, 0, &[0x87, 0, 0x87, 0]),
        "record after the end of the recording"
    );
    assert_eq!(
        malformed(1, 0, &[0x87, 0, 0]),
        "bytes after the last record"
    );
    assert_eq!(
        malformed(1, 0, &[0x83, 0x81, 0x20]),
        "byte string longer than its kind allows"
    );
    assert_eq!(
        malformed(1, 0, &[0x98, 0, 0, 0, 0]),
        "flags that this kind of record doesn't have"
    );
    // A disk's contents: one byte more than a record carries, then fewer than it says.
    assert_eq!(
        malformed(1, 0, &[0x88, 0, 0, 0, 0x81, 0x80, 0x08]),
        "byte string longer than its kind allows"
    );
    for cut in [
        &[0x88][..],
        &[0x88, 0],
        &[0x88, 0, 0],
        &[0x88, 0, 0, 0],
        &[0x88, 0, 0, 0, 2, 9],
    ] {
        assert_eq!(malformed(1, 0, cut), "record runs past the payload");
    }
    assert_eq!(
        malformed(2, u64::MAX, &[0x83, 0, 0x07, 1, 0]),
        "instruction count above 64 bits"
    );
}

#[test]
fn header_bounds_are_kept() {
    let bounds = |bytes: &[u8]| match Batch::decode(bytes) {
        Err(DecodeError::Bounds { what, .. }) => what,
        other => panic!("expected a bounds error, got {other:?}"),
    };
    assert_eq!(bounds(&seal(0, 0, 0, &[0x87, 0])), "record count");
    assert_eq!(
        bounds(&seal(0, MAX_RECORDS as u16 + 1, 0, &[0x87, 0])),
        "record count"
    );
    assert_eq!(bounds(&seal(0, 1, 0, &[])), "payload length");
    assert_eq!(
        bounds(&seal(0, 1, 0, &vec![0; MAX_BATCH_BYTES])),
        "payload length"
    );
    assert_eq!(bounds(&seal(u64::MAX, 1, 0, &[0x87, 0])), "first position");
    let batch = Batch::decode(&seal(u64::MAX - 1, 1, 0, &[0x87, 0])).unwrap();
    assert_eq!(batch.next_position(), u64::MAX);
}

#[test]
fn every_bit_flip_and_every_cut_is_refused() {
    let mut builder = BatchBuilder::new(3);
    for icount in [10, 10, 5000] {
        builder
            .push(&Record {
                icount,
                body: Body::Output { hash: icount },
            })
            .unwrap();
    }
    let good = builder.take().unwrap().into_bytes();
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let error = Batch::decode(&bad).expect_err("flipped bit");
        // A flipped bit must never look like a batch that is still on its way.
        assert!(
            !matches!(error, DecodeError::Short { .. }),
            "bit {bit}: {error}"
        );
    }
    for len in 0..good.len() {
        let error = Batch::decode(&good[..len]).expect_err("cut");
        let need = if len < HEADER_BYTES {
            HEADER_BYTES
        } else {
            good.len()
        };
        assert_eq!(error, DecodeError::Short { have: len, need });
    }
}

#[test]
fn idle_anchors_are_small() {
    // A day of uptime, 300 million steps a second, a 100 ms span.
    let anchor = |i: u64| Record {
        icount: 1 << 42 | (i * 3000),
        body: Body::Anchor {
            mtime: 864_000_000_000 + i * 1_000_000,
            rate: 143_165_577,
            span: 1_000_000,
            tell_tale: 0xbeef,
        },
    };
    let mut builder = BatchBuilder::new(1 << 40);
    builder.push(&anchor(0)).unwrap();
    assert!(
        builder.encoded_bytes() <= 40 + 14,
        "{}",
        builder.encoded_bytes()
    );
    let alone = builder.encoded_bytes();
    builder.push(&anchor(1)).unwrap();
    assert!(
        builder.encoded_bytes() - alone <= 10,
        "{}",
        builder.encoded_bytes() - alone
    );
    const { assert!(BATCH_OVERHEAD_BYTES <= 40) };
}

#[test]
fn builder_counts_positions_and_bytes() {
    let mut builder = BatchBuilder::new(5);
    assert!(builder.is_empty() && builder.take().is_none() && builder.encoded_bytes() == 0);
    let output = |icount| Record {
        icount,
        body: Body::Output { hash: 1 },
    };
    assert_eq!(builder.push(&output(4)), Ok(5));
    assert_eq!(builder.push(&output(9)), Ok(6));
    assert_eq!((builder.len(), builder.next_position()), (2, 7));
    let bytes = builder.encoded_bytes();
    let batch = builder.take().unwrap();
    assert_eq!(
        (batch.bytes().len(), batch.count(), batch.ends()),
        (bytes, 2, false)
    );
    // Counts never fall, not even in the next batch.
    assert_eq!(
        builder.push(&output(8)),
        Err(PushError::Backwards { icount: 8, last: 9 })
    );
    assert_eq!(builder.push(&output(9)), Ok(7));
    assert_eq!(
        builder.push(&Record {
            icount: 9,
            body: Body::End { reason: 0 }
        }),
        Ok(8)
    );
    assert_eq!(builder.push(&output(9)), Err(PushError::Ended));
    let batch = builder.take().unwrap();
    assert!(batch.ends());
    assert_eq!(batch.first_position(), 7);
    assert_eq!(builder.push(&output(9)), Err(PushError::Ended));
}

#[test]
fn builder_keeps_its_bounds() {
    let frame = |len| Record {
        icount: 0,
        body: Body::NetRx {
            device: 0,
            frame: vec![0; len],
        },
    };
    let mut builder = BatchBuilder::new(0);
    assert_eq!(
        builder.push(&frame(MAX_FRAME_BYTES + 1)),
        Err(PushError::TooLong {
            what: "frame",
            len: MAX_FRAME_BYTES + 1,
            max: MAX_FRAME_BYTES
        })
    );
    assert!(builder.is_empty() && builder.take().is_none());
    let mut pushed = 0;
    while builder.push(&frame(MAX_FRAME_BYTES)).is_ok() {
        pushed += 1;
    }
    assert_eq!(builder.push(&frame(MAX_FRAME_BYTES)), Err(PushError::Full));
    assert_eq!(builder.len(), pushed);
    let batch = builder.take().unwrap();
    assert!(batch.bytes().len() <= MAX_BATCH_BYTES);
    assert_eq!(Batch::decode(batch.bytes()).unwrap().records.len(), pushed);
    assert_eq!(builder.push(&frame(MAX_FRAME_BYTES)), Ok(pushed as u64));

    // The largest record fits behind a batch that was not yet worth closing.
    let disk = |len| Record {
        icount: 0,
        body: Body::BlockDone {
            device: 0,
            id: u64::MAX,
            status: 0,
            data: vec![0; len],
        },
    };
    let too_long = builder.push(&disk(MAX_DISK_BYTES + 1));
    assert!(matches!(too_long, Err(PushError::TooLong { .. })));
    assert!(builder.take().is_some());
    builder.push(&disk(64 << 10)).unwrap();
    builder.push(&disk(MAX_DISK_BYTES)).unwrap();
    let both = Batch::decode(builder.take().unwrap().bytes()).unwrap();
    assert_eq!(both.records, [disk(64 << 10), disk(MAX_DISK_BYTES)]);

    let mut builder = BatchBuilder::new(0);
    let small = Record {
        icount: 0,
        body: Body::ConsoleRx { bytes: Vec::new() },
    };
    for _ in 0..MAX_RECORDS {
        builder.push(&small).unwrap();
    }
    assert_eq!(builder.push(&small), Err(PushError::Full));
    assert_eq!(
        Batch::decode(builder.take().unwrap().bytes())
            .unwrap()
            .records
            .len(),
        MAX_RECORDS
    );

    let mut builder = BatchBuilder::new(u64::MAX - 1);
    assert_eq!(builder.push(&small), Ok(u64::MAX - 1));
    assert_eq!(builder.push(&small), Err(PushError::Positions));
    assert!(Batch::decode(builder.take().unwrap().bytes()).is_ok());
    assert_eq!(
        Batch {
            first_position: 0,
            records: vec![]
        }
        .encode(),
        Err(PushError::Empty)
    );
}
