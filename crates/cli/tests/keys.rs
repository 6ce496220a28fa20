//! `twinvm keys`: made, and never overwritten unasked.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use support::{Folder, refuses, twinvm};

fn made(args: &[&str]) -> String {
    let done = twinvm(&[&["keys"], args].concat());
    assert_eq!(done.code, Some(0), "{args:?}: {}", done.err);
    done.out
}

#[test]
fn an_authority_and_its_members() {
    let folder = Folder::new();
    let (ca, a) = (folder.text("authority"), folder.text("keys-a"));
    let text = made(&["init", "--out", &ca]);
    assert!(text.contains("authority/ca.crt (until 20") && text.contains("authority/ca.key"));
    let text = made(&["issue", "--ca", &ca, "--name", "a", "--out", &a]);
    assert!(
        text.contains("keys-a/a.crt (for node a, until 20"),
        "{text}"
    );
    let text = made(&["issue", "--ca", &ca, "--arbiter", "--out", &a]);
    assert!(
        text.contains("keys-a/arbiter.crt (for the arbiter, until 20"),
        "{text}"
    );

    let mut names: Vec<_> = fs::read_dir(&a)
        .unwrap()
        .map(|entry| entry.unwrap())
        .collect();
    names.sort_by_key(|entry| entry.file_name());
    let held: Vec<_> = names
        .iter()
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    assert_eq!(
        held,
        ["a.crt", "a.key", "arbiter.crt", "arbiter.key", "ca.crt"]
    );
    for entry in names {
        assert_eq!(
            entry.metadata().unwrap().permissions().mode() & 0o777,
            0o600
        );
    }
    let mode = fs::metadata(&a).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn what_is_wrong_is_said_in_a_line() {
    let folder = Folder::new();
    let (ca, out) = (folder.text("authority"), folder.text("out"));
    let issue = |more: &[&str], line: &str| {
        let args = [&["keys", "issue", "--ca", &ca, "--out", &out], more].concat();
        refuses(&args, &format!("twinvm keys: {line}"));
    };
    let none = format!(
        "{ca}/ca.key: there is no authority here: make one with twinvm keys init --out DIR"
    );
    issue(&["--name", "a"], &none);
    made(&["init", "--out", &ca]);
    refuses(
        &["keys", "init", "--out", &ca],
        &format!(
            "twinvm keys: {ca}/ca.key: is there already: give another --out, or replace it with \
             --force"
        ),
    );
    issue(
        &["--name", "../a"],
        "--name \"../a\": expected 1 to 64 letters, digits, - _ . (not first . or -)",
    );
    issue(
        &["--name", "ca"],
        "--name ca: no node can have this name: give it another",
    );
    assert!(!folder.names().contains(&"out".to_owned()));
    made(&["issue", "--ca", &ca, "--out", &out, "--name", "a"]);
    let there =
        format!("{out}/a.key: is there already: give another --out, or replace it with --force");
    issue(&["--name", "a"], &there);
    let before = fs::read(format!("{out}/a.crt")).unwrap();
    made(&[
        "issue", "--ca", &ca, "--out", &out, "--name", "a", "--force",
    ]);
    assert_ne!(fs::read(format!("{out}/a.crt")).unwrap(), before);

    // An authority's time is over for what it issues, too.
    made(&["init", "--out", &ca, "--force"]);
    let other = format!(
        "{out}/ca.crt: is of another authority: give another --out, or replace it with --force"
    );
    issue(&["--name", "b"], &other);
}
