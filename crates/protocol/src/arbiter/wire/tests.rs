use proptest::prelude::*;

use super::*;
use crate::record::{BackupName, Incarnation, LiveName, NodeId, SessionId};

fn records() -> impl Strategy<Value = Record> {
    let backup = proptest::option::of((any::<u128>(), any::<u128>()));
    (
        any::<u64>(),
        any::<u128>(),
        any::<u128>(),
        backup,
        any::<bool>(),
    )
        .prop_map(|(generation, id, incarnation, backup, halted)| Record {
            generation: Generation(generation),
            live: LiveName {
                id: NodeId(id),
                incarnation: Incarnation(incarnation),
            },
            backup: backup.map(|(id, session)| BackupName {
                id: NodeId(id),
                session: SessionId(session),
            }),
            halted,
        })
}

fn requests() -> impl Strategy<Value = Request> {
    let ask = prop_oneof![
        Just(Ask::Read),
        (any::<u64>(), records()).prop_map(|(expect, record)| Ask::Cas {
            expect: Generation(expect),
            record
        }),
    ];
    (any::<u64>(), "[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}", ask).prop_map(|(number, vm, ask)| Request {
        number,
        vm: VmName::new(&vm).expect("a name"),
        ask,
    })
}

fn answers() -> impl Strategy<Value = Answer> {
    let told = prop_oneof![
        proptest::option::of(records()).prop_map(Told::Read),
        records().prop_map(Told::Won),
        proptest::option::of(records()).prop_map(Told::Lost),
        "\\PC{0,60}".prop_map(Told::Failed),
    ];
    (any::<u64>(), told).prop_map(|(number, told)| Answer { number, told })
}

/// The body of a frame whose length is right.
fn body(frame: &[u8]) -> Vec<u8> {
    let (head, body) = frame.split_first_chunk().expect("a head");
    assert_eq!(body_len(*head), Ok(body.len()));
    body.to_vec()
}

proptest! {
    #[test]
    fn what_is_said_is_understood(request in requests(), answer in answers()) {
        let frame = encode_request(&request);
        prop_assert_eq!(decode_request(&body(&frame)), Ok(request));
        let frame = encode_answer(&answer);
        prop_assert_eq!(decode_answer(&body(&frame)), Ok(answer));
    }

    #[test]
    fn a_part_of_a_frame_or_more_than_one_is_neither(request in requests(), answer in answers()) {
        for frame in [encode_request(&request), encode_answer(&answer)] {
            let whole = body(&frame);
            for end in 0..whole.len() {
                prop_assert!(decode_request(&whole[..end]).is_err());
                prop_assert!(decode_answer(&whole[..end]).is_err());
            }
            let more = [&whole[..], &[0]].concat();
            prop_assert!(decode_request(&more).is_err());
            prop_assert!(decode_answer(&more).is_err());
        }
    }

    #[test]
    fn what_is_accepted_has_one_form(frame in requests().prop_map(|r| encode_request(&r)), at in any::<usize>(), value in any::<u8>()) {
        let mut bytes = body(&frame);
        let at = at % bytes.len();
        bytes[at] = value;
        if let Ok(request) = decode_request(&bytes) {
            prop_assert_eq!(body(&encode_request(&request)), bytes);
        }
    }

    #[test]
    fn any_bytes_are_taken(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(answer) = decode_answer(&bytes) {
            prop_assert_eq!(body(&encode_answer(&answer)), bytes.clone());
        }
        if let Ok(request) = decode_request(&bytes) {
            prop_assert_eq!(body(&encode_request(&request)), bytes);
        }
    }
}

#[test]
fn names_can_be_parts_of_paths() {
    let longest = "x".repeat(MAX_VM_BYTES);
    for good in ["shop", "a.b-c_D9", "_", &longest] {
        assert_eq!(VmName::new(good).expect("a name").as_str(), good);
    }
    let long = "x".repeat(MAX_VM_BYTES + 1);
    for bad in [
        "", ".", "..", ".hidden", "-x", "a/b", "a b", "a\0", "ä", &long,
    ] {
        assert_eq!(VmName::new(bad), None, "{bad:?}");
    }
}

#[test]
fn versions_tags_and_lengths_have_bounds() {
    let good = encode_request(&Request {
        number: 7,
        vm: VmName::new("shop").expect("a name"),
        ask: Ask::Read,
    });
    assert_eq!(good[4..], [1, 1, 7, 4, b's', b'h', b'o', b'p']);
    let with = |at: usize, value| {
        let mut body = good[4..].to_vec();
        body[at] = value;
        decode_request(&body)
    };
    assert_eq!(with(0, 2), Err(DecodeError::Format { found: 2 }));
    let what = "request";
    assert_eq!(with(1, 3), Err(DecodeError::Unknown { what, value: 3 }));
    assert_eq!(with(4, b'/'), Err(DecodeError::Text));
    assert!(body_len([255; 4]).is_err());
    assert_eq!(body_len([0, 2, 0, 0]), Ok(512));
    assert!(body_len([1, 2, 0, 0]).is_err());
    // The longest of everything fits.
    let text = "ä".repeat(MAX_TEXT_BYTES);
    let told = Told::Failed(text);
    let frame = encode_answer(&Answer {
        number: u64::MAX,
        told,
    });
    assert!(matches!(
        decode_answer(&body(&frame)),
        Ok(Answer { told: Told::Failed(text), .. }) if text == "ä".repeat(MAX_TEXT_BYTES / 2)
    ));
}
