use std::fs;
use std::time::{Duration, Instant};

use super::*;

/// Opens a folder that nobody has open. A process that another test has just started holds a copy
/// of every lock until it executes its program.
fn open(dir: &Path, name: &str) -> Result<NodeStore, StoreError> {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        match NodeStore::open(dir, name) {
            Err(StoreError::InUse { .. }) if Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(5));
            }
            opened => return opened,
        }
    }
}

fn files(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn the_id_stays_and_the_generation_only_rises() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("deep/state");
    let mut store = open(&state, "a").unwrap();
    let id = store.id();
    assert_eq!(store.generation(), Generation(0));
    store.raise_generation(Generation(7)).unwrap();
    store.raise_generation(Generation(3)).unwrap();
    assert_eq!(store.generation(), Generation(7));
    drop(store);

    let store = open(&state, "a").unwrap();
    assert_eq!((store.id(), store.generation()), (id, Generation(7)));
    assert_eq!(files(store.folder()), ["generation", "lock", "node.id"]);
    assert_ne!(open(&state, "b").unwrap().id(), id);
}

/// Every write to this device finds no room (full(4)).
const FULL: &str = "/dev/full";

#[test]
fn a_full_file_system_does_not_keep_a_generation_from_rising() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path(), "a").unwrap();
    for generation in [9, 10, 11] {
        let temporary = store.folder().join("generation.tmp");
        std::os::unix::fs::symlink(FULL, &temporary).unwrap();
        store.raise_generation(Generation(generation)).unwrap();
    }
    drop(store);
    let mut store = open(dir.path(), "a").unwrap();
    assert_eq!(store.generation(), Generation(11));
    assert_eq!(files(store.folder()), ["generation", "lock", "node.id"]);
    // What else goes wrong is an error, as before.
    fs::create_dir(store.folder().join("generation.tmp")).unwrap();
    store.raise_generation(Generation(12)).unwrap_err();
    assert_eq!(store.generation(), Generation(11));
}

#[test]
fn a_second_opening_is_refused_and_told_by_whom() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), "a").unwrap();
    let error = NodeStore::open(dir.path(), "a").unwrap_err().to_string();
    assert!(
        error.contains(&store.folder().display().to_string()),
        "{error}"
    );
    let pid = format!("process {}", std::process::id());
    assert!(error.contains(&pid), "{error}");
    drop(store);
    open(dir.path(), "a").unwrap();
}

#[test]
fn damaged_files_are_refused_by_name() {
    let long = "7".repeat(100);
    for (name, content) in [
        ("node.id", ""),
        ("node.id", "12\n"),
        ("node.id", "+1234567890123456789012345678901\n"),
        ("node.id", "0123456789abcdef0123456789abcdef"),
        ("generation", ""),
        ("generation", "\n"),
        ("generation", "-1\n"),
        ("generation", "+1\n"),
        ("generation", "99999999999999999999999\n"),
        ("generation", long.as_str()),
    ] {
        let dir = tempfile::tempdir().unwrap();
        drop(open(dir.path(), "a").unwrap());
        let path = dir.path().join("a").join(name);
        fs::write(&path, content).unwrap();
        let error = open(dir.path(), "a").expect_err(content);
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
        let text = error.to_string();
        assert!(text.starts_with(&path.display().to_string()), "{text}");
        assert!(!text.contains('\n') && text.contains("restore"), "{text}");
    }
}

#[test]
fn one_file_without_the_other() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path(), "a").unwrap();
    store.raise_generation(Generation(1)).unwrap();
    let folder = store.folder().to_owned();
    drop(store);

    let id = fs::read(folder.join(NODE_ID)).unwrap();
    fs::remove_file(folder.join(NODE_ID)).unwrap();
    let error = open(dir.path(), "a").unwrap_err();
    assert!(matches!(
        error,
        StoreError::Missing {
            present: GENERATION,
            ..
        }
    ));

    fs::write(folder.join(NODE_ID), id).unwrap();
    fs::remove_file(folder.join(GENERATION)).unwrap();
    let error = open(dir.path(), "a").unwrap_err();
    assert!(matches!(
        error,
        StoreError::Missing {
            present: NODE_ID,
            ..
        }
    ));
}

#[test]
fn a_crash_while_the_folder_is_made_is_made_good() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("a");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("generation"), "0\n").unwrap();
    fs::write(folder.join("node.id.tmp"), "0123").unwrap();
    let store = open(dir.path(), "a").unwrap();
    assert_eq!(store.generation(), Generation(0));
    assert_eq!(files(&folder), ["generation", "lock", "node.id"]);
}

#[test]
fn a_failed_write_leaves_the_old_generation() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path(), "a").unwrap();
    // A folder in the way of the temporary file.
    let obstacle = store.folder().join("generation.tmp");
    fs::create_dir(&obstacle).unwrap();
    assert!(store.raise_generation(Generation(2)).is_err());
    assert_eq!(store.generation(), Generation(0));
    fs::remove_dir(&obstacle).unwrap();
    store.raise_generation(Generation(2)).unwrap();
    assert_eq!(
        fs::read_to_string(store.folder().join("generation")).unwrap(),
        "2\n"
    );
}

#[test]
fn names_stay_inside_the_state_folder() {
    let dir = tempfile::tempdir().unwrap();
    let long = "a".repeat(65);
    for name in ["", ".", "..", "../b", "a/b", "a b", "a\0", long.as_str()] {
        let error = open(dir.path(), name).unwrap_err();
        assert!(matches!(error, StoreError::Name(_)), "{name:?}");
    }
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let error = open(&file, "a").unwrap_err().to_string();
    assert!(error.starts_with(&file.display().to_string()), "{error}");
}
