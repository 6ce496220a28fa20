use super::Archive;

/// Written by hand from the format's description: magic, inode, mode, uid, gid, links, mtime,
/// size, device major and minor, special file's major and minor, name size, check; then the name
/// and the contents, each padded to four bytes.
#[rustfmt::skip]
const EXPECTED: &str = concat!(
    "070701", "00000001", "000041ed", "00000000", "00000000", "00000002", "00000000",
    "00000000", "00000000", "00000000", "00000000", "00000000", "00000004", "00000000",
    "dev\0", "\0\0",
    "070701", "00000002", "00002180", "00000000", "00000000", "00000001", "00000000",
    "00000000", "00000000", "00000000", "00000005", "00000001", "0000000c", "00000000",
    "dev/console\0", "\0\0",
    "070701", "00000003", "000081ed", "00000000", "00000000", "00000001", "00000000",
    "00000005", "00000000", "00000000", "00000000", "00000000", "00000005", "00000000",
    "init\0", "\0", "hello", "\0\0\0",
    "070701", "00000004", "000081a4", "00000000", "00000000", "00000001", "00000000",
    "00000000", "00000000", "00000000", "00000000", "00000000", "00000005", "00000000",
    "none\0", "\0",
    "070701", "00000005", "0000a1ff", "00000000", "00000000", "00000001", "00000000",
    "00000004", "00000000", "00000000", "00000000", "00000000", "00000003", "00000000",
    "sh\0", "\0\0\0", "init",
    "070701", "00000000", "00000000", "00000000", "00000000", "00000001", "00000000",
    "00000000", "00000000", "00000000", "00000000", "00000000", "0000000b", "00000000",
    "TRAILER!!!\0", "\0\0\0",
);

fn written(archive: &Archive) -> String {
    let mut bytes = Vec::new();
    archive.write(&mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn equals_the_archive_made_by_hand_in_any_order() {
    let mut forwards = Archive::new();
    forwards.character_device("dev/console", 5, 1);
    forwards.file("init", true, "hello");
    forwards.file("none", false, "");
    forwards.link("sh", "init");
    assert_eq!(written(&forwards), EXPECTED);

    let mut backwards = Archive::new();
    backwards.link("sh", "init");
    backwards.file("none", false, "");
    backwards.file("init", true, "hello");
    backwards.character_device("dev/console", 5, 1);
    backwards.directory("dev");
    assert_eq!(written(&backwards), EXPECTED);
}

#[test]
#[should_panic(expected = "not a plain relative name")]
fn refuses_a_name_that_leads_out() {
    Archive::new().file("../etc/shadow", false, "");
}

#[test]
#[should_panic(expected = "twice")]
fn refuses_a_name_that_is_there_twice() {
    let mut archive = Archive::new();
    archive.file("init", true, "a");
    archive.link("init", "b");
}
