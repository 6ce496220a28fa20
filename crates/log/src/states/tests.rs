use super::*;
use proptest::prelude::*;

fn entries() -> Vec<StateEntry> {
    let entry = |position, pages: &[(u32, u64)]| StateEntry {
        position,
        icount: position * 200_000_000,
        digest: 1 << 100 | u128::from(position),
        state: vec![position as u8; 300],
        pages: pages.to_vec(),
    };
    vec![
        entry(7, &[(0, 5), (1, 6), (70_000, u64::MAX)]),
        entry(90, &[]),
        entry(400, &[(u32::MAX - 1, 0), (u32::MAX, 1)]),
    ]
}

fn file(entries: &[StateEntry]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&STATES_VERSION.to_le_bytes());
    for entry in entries {
        bytes.extend_from_slice(&entry.encode());
    }
    bytes
}

/// The good entries, and whether damage ended them.
fn read(bytes: &[u8]) -> Result<(Vec<StateEntry>, bool), StatesError> {
    let mut good = Vec::new();
    for entry in StatesReader::new(bytes)? {
        match entry {
            Ok(entry) => good.push(entry),
            Err(_) => return Ok((good, true)),
        }
    }
    Ok((good, false))
}

#[test]
fn entries_survive_the_file() {
    let dir = tempfile::tempdir().unwrap();
    assert!(StatesReader::open(dir.path()).unwrap().is_none());
    let mut writer = StatesWriter::create(dir.path()).unwrap();
    let written: usize = entries()
        .iter()
        .map(|entry| writer.append(entry).unwrap())
        .sum();
    let bytes = std::fs::read(dir.path().join(STATES_FILE)).unwrap();
    assert_eq!(bytes.len(), 12 + written);
    assert_eq!(bytes, file(&entries()));
    let reader = StatesReader::open(dir.path()).unwrap().unwrap();
    let read: Vec<StateEntry> = reader.map(Result::unwrap).collect();
    assert_eq!(read, entries());
    assert!(
        StatesWriter::create(dir.path()).is_err(),
        "never overwritten"
    );
}

#[test]
fn a_state_that_is_too_long_is_left_out() {
    let mut long = entries().remove(0);
    long.state = vec![1; MAX_STATE_BYTES + 1];
    let (read, damaged) = read(&file(&[long.clone()])).unwrap();
    long.state.clear();
    assert_eq!((read, damaged), (vec![long], false));
}

#[test]
fn a_torn_end_is_an_end_and_damage_is_told() {
    let bytes = file(&entries());
    let first = 12 + entries()[0].encode().len();
    for len in 0..bytes.len() {
        match read(&bytes[..len]) {
            Ok((good, damaged)) => {
                assert!(!damaged && len >= 12);
                assert_eq!(!good.is_empty(), len >= first);
                assert!(entries().starts_with(&good));
            }
            Err(error) => assert!(len < 12 && matches!(error, StatesError::Format)),
        }
    }
    for at in 12..bytes.len() {
        let mut bytes = bytes.clone();
        bytes[at] ^= 0x20;
        // A length that is too long looks like a torn end.
        let (good, _) = read(&bytes).unwrap();
        assert!(good.len() < 3 && entries().starts_with(&good), "byte {at}");
    }
}

proptest! {
    /// With a good checksum, so that the content itself is looked at.
    #[test]
    fn hostile_content_is_an_answer(content in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut bytes = file(&[]);
        bytes.extend_from_slice(&(content.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&content);
        bytes.extend_from_slice(&xxh3_64(&content).to_le_bytes());
        read(&bytes).unwrap();
    }
}
