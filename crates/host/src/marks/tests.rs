use std::fs;

use super::*;

#[test]
fn what_passes_is_in_the_file_at_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(MARKS_LOG);
    let marks = Marks::to(path.clone());
    assert!(!path.exists());
    marks.note(Place::Packet, Position(0));
    marks.clone().note(Place::Sending, Position(7));
    let goodbye = Message::Side { bytes: vec![] };
    marks.message(&goodbye, Place::Came, Place::AckCame);
    marks.end();
    marks.note(Place::Out, Position(8));
    marks.end();
    let text = fs::read_to_string(&path).unwrap();
    let words: Vec<Vec<&str>> = text.lines().map(|line| line.split(' ').collect()).collect();
    assert_eq!(words.len(), 2, "{text}");
    assert_eq!(words[0][..2], ["packet", "0"]);
    assert_eq!(words[1][..2], ["sending", "7"]);
    let at = |line: usize| words[line][2].parse::<u64>().unwrap();
    assert!(at(0) <= at(1));
}

#[test]
fn lumps_are_written_while_it_runs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(MARKS_LOG);
    let marks = Marks::to(path.clone());
    for position in 0..LUMP_BYTES as u64 {
        marks.note(Place::Out, Position(position));
    }
    let len = fs::metadata(&path).unwrap().len();
    assert!(len >= LUMP_BYTES as u64, "{len}");
}

#[test]
fn a_file_that_takes_no_more_ends_the_noting_with_a_word() {
    let folder = tempfile::tempdir().unwrap();
    let marks = Marks::to(folder.path().to_owned());
    for _ in 0..2 * LUMP_BYTES {
        marks.note(Place::Out, Position(1));
    }
    let why = marks.trouble().unwrap();
    assert!(why.starts_with("marks.log: "), "{why}");
    assert_eq!(marks.trouble(), None);
    let lines = marks.0.as_ref().unwrap().lock().unwrap();
    assert!(lines.bytes.len() < LUMP_BYTES, "it grows");
}

#[test]
fn a_file_that_is_long_enough_ends_the_noting_with_a_word() {
    let folder = tempfile::tempdir().unwrap();
    let marks = Marks::to(folder.path().join(MARKS_LOG));
    let lines = marks.0.clone().unwrap();
    lines.lock().unwrap().written = MAX_BYTES - 1;
    for _ in 0..LUMP_BYTES {
        marks.note(Place::Out, Position(1));
    }
    let why = marks.trouble().unwrap();
    assert_eq!(why, "marks.log: it has 64 MiB: nothing more is noted in it");
}
