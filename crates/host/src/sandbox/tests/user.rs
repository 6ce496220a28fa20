use crate::sandbox::user::{User, UserError};

const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash
# a comment

broken:x
alsobroken:x:12
twinvm:x:990:980::/nonexistent:/usr/sbin/nologin
toor:x:0:0::/:/bin/sh
wheel:x:500:0::/:/bin/sh
huge:x:4294967296:1::/:/bin/sh
leave:x:4294967295:1::/:/bin/sh
";
const GROUP: &str = "root:x:0:twinvm
kvm:x:104:other,twinvm
net:x:105:twinvmx
twinvm:x:980:
tap:x:106:twinvm
tap2:x:106:twinvm
";

fn find(text: &str) -> Result<User, UserError> {
    User::find_in(text, PASSWD, GROUP)
}

#[test]
fn a_user_has_its_groups_and_never_roots() {
    let user = find("twinvm").unwrap();
    assert_eq!((user.name(), user.uid(), user.gid()), ("twinvm", 990, 980));
    assert_eq!(user.groups(), [104, 106, 980]);
    // By its number it is the same.
    assert_eq!(find("990").unwrap(), user);
    let other = find("twinvm:kvm").unwrap();
    assert_eq!((other.uid(), other.gid()), (990, 104));
    assert_eq!(find("twinvm:104").unwrap(), other);
}

#[test]
fn numbers_need_no_line() {
    let user = find("4000:4001").unwrap();
    assert_eq!((user.name(), user.uid(), user.gid()), ("4000", 4000, 4001));
    assert_eq!(user.groups(), [4001]);
}

#[test]
fn whoever_is_not_there_or_is_root_is_refused() {
    let says = |text: &str| find(text).unwrap_err().to_string();
    assert_eq!(
        says("nobody"),
        "--user nobody: there is no user \"nobody\" in /etc/passwd: make it (useradd --system \
         --no-create-home nobody), or give numbers, UID:GID"
    );
    assert_eq!(
        says("twinvm:none"),
        "--user twinvm:none: there is no group \"none\" in /etc/group: make it, or give its number"
    );
    assert_eq!(
        says("4000"),
        "--user 4000: user 4000 is not in /etc/passwd, so its group is needed too: 4000:GID"
    );
    for root in [
        "root",
        "0",
        "0:5",
        "toor",
        "wheel",
        "twinvm:root",
        "twinvm:0",
        "5:0",
    ] {
        assert!(matches!(find(root), Err(UserError::Root(_))), "{root}");
    }
    for nobody in [
        "",
        ":",
        ":5",
        "broken",
        "huge",
        "leave",
        "4294967295:5",
        "-1:5",
        "+5:5",
    ] {
        assert!(
            matches!(find(nobody), Err(UserError::NoUser { .. })),
            "{nobody}"
        );
    }
    assert!(matches!(find("5:-1"), Err(UserError::NoGroup { .. })));
    assert!(matches!(
        find("5:4294967295"),
        Err(UserError::NoGroup { .. })
    ));
    assert!(matches!(find("twinvm:"), Err(UserError::NoGroup { .. })));
}
