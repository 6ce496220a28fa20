use super::*;

#[test]
fn reads_no_file_from_outside() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap().join("root");
    fs::create_dir(&root).unwrap();
    fs::write(folder.path().join("secret"), "x").unwrap();
    fs::write(root.join("inside"), "y").unwrap();
    std::os::unix::fs::symlink("../secret", root.join("out")).unwrap();
    std::os::unix::fs::symlink("inside", root.join("in")).unwrap();
    assert_eq!(read(&root, "in").unwrap(), b"y");
    assert!(
        read(&root, "out")
            .unwrap_err()
            .to_string()
            .contains("leads out")
    );
    assert!(
        read(&root, "none")
            .unwrap_err()
            .to_string()
            .contains("in none")
    );
}

#[test]
fn a_damaged_module_is_an_error() {
    assert!(unxz("a.ko.xz", b"not xz at all").is_err());
    assert!(unxz("a.ko.xz", b"").is_err());
}
