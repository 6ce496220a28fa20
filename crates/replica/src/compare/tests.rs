use super::*;

fn told(pages: u32) -> Told {
    Told {
        exact: true,
        whole: true,
        digest: 7 << 100,
        state: vec![1, 2, 3],
        registers: vec![4; 200],
        pages: (0..pages)
            .map(|page| (page, u64::from(page) << 40))
            .collect(),
    }
}

/// As the other side puts it together.
fn joined(parts: &[Vec<u8>]) -> Option<Told> {
    let mut whole = Vec::new();
    for (n, part) in parts.iter().enumerate() {
        let Some(Word::Part { bytes, last }) = Word::decode(part) else {
            panic!("part {n} is none");
        };
        assert_eq!(last, n + 1 == parts.len());
        assert!(part.len() < twinvm_protocol::message::MAX_SIDE_BYTES);
        whole.extend(bytes);
    }
    assert!(whole.len() <= MAX_TOLD_BYTES);
    Told::decode(&whole)
}

#[test]
fn what_is_told_arrives_in_parts() {
    for pages in [0, 3, 100_000] {
        assert_eq!(joined(&told(pages).parts()), Some(told(pages)));
    }
    // Too many pages: the rest is told without them.
    let short = joined(&told(2_000_000).parts()).unwrap();
    assert_eq!(
        short,
        Told {
            whole: false,
            ..told(0)
        }
    );
}

#[test]
fn words_survive_and_junk_is_no_word() {
    let page = PageTold {
        page: 9,
        hash: Some(u64::MAX),
        bytes: Some(vec![5; 4096]),
    };
    for word in [
        Word::Ask { position: 1 << 60 },
        Word::AskPage {
            position: 3,
            page: u32::MAX,
        },
        Word::Page(page),
        Word::Found {
            text: "hart 0 a5".to_owned(),
        },
    ] {
        let bytes = word.clone().encode();
        assert_eq!(Word::decode(&bytes), Some(word));
        for end in 0..bytes.len() {
            // Shorter is something else or nothing, and never a panic.
            let _ = Word::decode(&bytes[..end]);
        }
        let longer = [&bytes[..], &[0]].concat();
        assert_ne!(Word::decode(&longer), Word::decode(&bytes));
    }
    let lines = [&[SUBJECT, FOUND][..], b"a\nb\x1b[2J"].concat();
    let text = "a b [2J".to_owned();
    assert_eq!(Word::decode(&lines), Some(Word::Found { text }));
    for junk in [&[][..], &[SUBJECT], &[2, ASK, 0], &[SUBJECT, 99, 0]] {
        assert_eq!(Word::decode(junk), None);
    }
}
