use super::*;
use std::fs;

const HEADS: [&[u8]; 2] = [b"incomplete", b"complete!!"];

/// Bytes of which no two blocks are the same.
fn content(len: usize) -> Vec<u8> {
    (0..len as u32 / 4 + 1)
        .flat_map(|n| n.wrapping_mul(0x9e37_79b9).to_le_bytes())
        .take(len)
        .collect()
}

/// What a file holds that was appended to in pieces of these lengths, in turn.
fn written(mut file: DirectFile, path: &Path, content: &[u8], lengths: &[usize]) -> Vec<u8> {
    let mut rest = content;
    for len in lengths.iter().cycle() {
        let (now, later) = rest.split_at(rest.len().min(*len));
        file.append(now).unwrap();
        rest = later;
        if rest.is_empty() {
            break;
        }
    }
    file.finish(HEADS[1]).unwrap();
    fs::read(path).unwrap()
}

#[test]
fn a_file_holds_what_was_appended() {
    let dir = tempfile::tempdir().unwrap();
    let lengths: [&[usize]; 3] = [&[1 << 20], &[4096], &[1, 100_000, 4095]];
    let heads = HEADS[0].len();
    for len in [
        0,
        1,
        ALIGN - heads,
        PIECE_BYTES - heads - 1,
        PIECE_BYTES - heads,
        PIECE_BYTES,
        3 * PIECE_BYTES + 17,
    ] {
        let content = content(len);
        for (n, lengths) in lengths.iter().enumerate() {
            for past_the_cache in [true, false] {
                let path = dir.path().join(format!("{len}-{n}-{past_the_cache}"));
                let mut file = DirectFile::create_new(&path, HEADS[0]).unwrap();
                assert_eq!(fs::read(&path).unwrap(), HEADS[0]);
                if !past_the_cache {
                    file.direct = None;
                }
                let found = written(file, &path, &content, lengths);
                assert!(
                    found == [HEADS[1], &content].concat(),
                    "{len} bytes in pieces of {lengths:?}, past the cache: {past_the_cache}"
                );
            }
        }
    }
}

#[test]
fn what_cannot_go_past_the_cache_goes_through_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let content = content(2 * PIECE_BYTES);
    // Nothing can be written to what was opened to be read.
    fs::write(&path, HEADS[0]).unwrap();
    let readable = File::open(&path).unwrap();
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    let mut file = DirectFile::new(file, Some(readable));
    file.append(HEADS[0]).unwrap();
    let found = written(file, &path, &content, &[content.len()]);
    assert!(found == [HEADS[1], &content].concat());
}

#[test]
fn another_file_of_that_name_is_not_written_to() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let ours = create_private(&path).unwrap();
    let has_way = past_the_cache(&path, &ours).is_some();
    fs::rename(&path, dir.path().join("moved")).unwrap();
    assert!(past_the_cache(&path, &ours).is_none(), "it isn't there");
    fs::write(&path, "theirs").unwrap();
    assert!(past_the_cache(&path, &ours).is_none());
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink(dir.path().join("moved"), &path).unwrap();
    assert!(past_the_cache(&path, &ours).is_none(), "a link");
    fs::remove_file(&path).unwrap();
    fs::rename(dir.path().join("moved"), &path).unwrap();
    assert_eq!(past_the_cache(&path, &ours).is_some(), has_way);
}

#[test]
fn what_can_be_written_no_way_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    fs::write(&path, "").unwrap();
    let mut file = DirectFile::new(File::open(&path).unwrap(), None);
    assert!(file.append(&content(PIECE_BYTES)).is_err());
}

#[test]
fn a_file_that_exists_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    fs::write(&path, "mine").unwrap();
    let error = DirectFile::create_new(&path, HEADS[0]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(fs::read(&path).unwrap(), b"mine");
}
