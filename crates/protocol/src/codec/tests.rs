use proptest::prelude::*;

use super::*;

fn name() -> impl Strategy<Value = String> {
    "[a-zäé_]{0,20}"
}

fn progress() -> impl Strategy<Value = Progress> {
    (any::<u64>(), any::<u64>(), any::<u64>()).prop_map(|(icount, position, vtime)| Progress {
        icount,
        position: Position(position),
        vtime,
    })
}

fn mark() -> impl Strategy<Value = DiskMark> {
    let some = (any::<u64>(), any::<Option<u64>>(), any::<bool>());
    let some = some.prop_map(|(generation, pending, consistent)| DiskMark {
        has_disks: true,
        generation: Generation(generation),
        pending: pending.map(Generation),
        consistent,
    });
    prop_oneof![Just(DiskMark::NONE), some]
}

fn any_hello() -> impl Strategy<Value = Message> {
    let field = (name(), name()).prop_map(|(name, value)| Field { name, value });
    (
        (any::<u16>(), any::<u128>(), any::<u128>(), 1u8..8),
        any::<u64>(),
        (any::<Option<u128>>(), mark()),
        name(),
        proptest::collection::vec(field, 0..5),
    )
        .prop_map(
            |((version, id, life, role), generation, (holds, disks), name, machine)| {
                let disks = match version >= MARKED_VERSION {
                    true => disks,
                    false => DiskMark::NONE,
                };
                Message::Hello(Hello {
                    version,
                    id: NodeId(id),
                    name,
                    incarnation: Incarnation(life),
                    role: RoleKind::from_wire(role).unwrap(),
                    generation: Generation(generation),
                    holds: holds.map(SessionId),
                    machine,
                    disks,
                })
            },
        )
}

fn refusal() -> impl Strategy<Value = Refusal> {
    prop_oneof![
        Just(Refusal::NotLive),
        Just(Refusal::Busy),
        Just(Refusal::SameNode),
        any::<u16>().prop_map(|ours| Refusal::Version { ours }),
        (name(), name(), name()).prop_map(|(field, ours, theirs)| {
            Refusal::Machine(Mismatch {
                field,
                ours,
                theirs,
            })
        }),
    ]
}

fn goodbye() -> impl Strategy<Value = Goodbye> {
    prop_oneof![
        Just(Goodbye::Claim),
        Just(Goodbye::Halted),
        Just(Goodbye::Detached),
        Just(Goodbye::Diverged),
        Just(Goodbye::Leaving),
    ]
}

fn message() -> impl Strategy<Value = Message> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..40);
    prop_oneof![
        any_hello(),
        refusal().prop_map(Message::Refuse),
        goodbye().prop_map(Message::Goodbye),
        Just(Message::Installed),
        (any::<u128>(), any::<u64>()).prop_map(|(session, generation)| Message::Welcome {
            session: SessionId(session),
            generation: Generation(generation),
        }),
        any::<u64>().prop_map(|p| Message::SnapshotBegin {
            position: Position(p)
        }),
        any::<u64>().prop_map(|g| Message::Paired {
            generation: Generation(g)
        }),
        (any::<u64>(), bytes(), any::<bool>()).prop_map(|(offset, bytes, last)| {
            Message::SnapshotChunk {
                offset,
                bytes,
                last,
            }
        }),
        (any::<u64>(), any::<u64>(), any::<u64>(), bytes()).prop_map(
            |(first, end, released, batch)| Message::Log {
                first: Position(first),
                end: Position(end),
                released: Position(released),
                batch,
            }
        ),
        (any::<u64>(), any::<u64>(), progress()).prop_map(|(received, emitted, progress)| {
            Message::Ack {
                emitted: Position(emitted),
                received: Position(received),
                progress,
            }
        }),
        (any::<u64>(), any::<u64>(), progress()).prop_map(|(beat, released, progress)| {
            Message::Heartbeat {
                beat,
                released: Position(released),
                progress,
            }
        }),
        bytes().prop_map(|bytes| Message::Side { bytes }),
    ]
}

fn record() -> impl Strategy<Value = Record> {
    (
        any::<u64>(),
        any::<u128>(),
        any::<u128>(),
        any::<Option<(u128, u128)>>(),
        any::<bool>(),
    )
        .prop_map(|(generation, id, life, backup, halted)| Record {
            generation: Generation(generation),
            live: LiveName {
                id: NodeId(id),
                incarnation: Incarnation(life),
            },
            backup: backup.map(|(id, session)| BackupName {
                id: NodeId(id),
                session: SessionId(session),
            }),
            halted,
        })
}

proptest! {
    #[test]
    fn messages_come_back(message in message()) {
        let mut frame = Vec::new();
        encode_frame(&message, &mut frame);
        let body = &frame[4..];
        prop_assert_eq!(body_len(frame[..4].try_into().unwrap()), Ok(body.len()));
        prop_assert_eq!(decode_body(body), Ok(message));
        // No prefix is a frame, and nothing may follow.
        for n in 0..body.len() {
            prop_assert!(decode_body(&body[..n]).is_err());
        }
        let mut longer = body.to_vec();
        longer.push(0);
        prop_assert!(decode_body(&longer).is_err());
    }

    #[test]
    fn bytes_mean_one_message_or_none(
        message in message(),
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut body = Vec::new();
        encode_body(&message, &mut body);
        for (at, value) in flips {
            let at = at.index(body.len());
            body[at] = value;
        }
        if let Ok(other) = decode_body(&body) {
            let mut again = Vec::new();
            encode_body(&other, &mut again);
            prop_assert_eq!(again, body);
        }
    }

    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode_body(&bytes);
        let _ = decode_record(&bytes);
        let mut body = vec![FORMAT];
        body.extend(bytes);
        let _ = decode_body(&body);
    }

    #[test]
    fn records_come_back(record in record(), at in any::<prop::sample::Index>(), bit in 0..8u32) {
        let mut bytes = encode_record(&record);
        prop_assert_eq!(decode_record(&bytes), Ok(record));
        for n in 0..bytes.len() {
            prop_assert!(decode_record(&bytes[..n]).is_err());
        }
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(decode_record(&bytes).is_err());
    }
}

#[test]
fn bounds_hold_before_anything_is_allocated() {
    let too_long = (MAX_BODY_BYTES as u32 + 1).to_le_bytes();
    assert!(matches!(
        body_len(too_long),
        Err(DecodeError::TooLong { .. })
    ));
    // A side message that claims 2^60 bytes.
    let mut body = vec![FORMAT, 11];
    put_u64(&mut body, 1 << 60);
    assert!(matches!(
        decode_body(&body),
        Err(DecodeError::TooLong { .. })
    ));
}

#[test]
fn the_longest_batch_fits_into_a_frame() {
    let mut frame = Vec::new();
    let all = u64::MAX;
    encode_frame(
        &Message::Log {
            first: Position(all),
            end: Position(all),
            released: Position(all),
            batch: vec![0; MAX_BATCH_BYTES],
        },
        &mut frame,
    );
    assert!(body_len(frame[..4].try_into().unwrap()).is_ok());
    assert!(decode_body(&frame[4..]).is_ok());
}

#[test]
fn the_wire_form_is_fixed() {
    let mut body = Vec::new();
    encode_body(
        &Message::Log {
            first: Position(300),
            end: Position(301),
            released: Position(2),
            batch: vec![9],
        },
        &mut body,
    );
    assert_eq!(body, [1, 6, 0xac, 2, 0xad, 2, 2, 1, 9]);
}
