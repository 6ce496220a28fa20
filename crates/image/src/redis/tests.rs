use super::*;
use crate::lock::Lock;

#[test]
fn the_lock_in_the_source_belongs_to_this_recipe() {
    let lock = Lock::parse(RECIPE.lock).unwrap();
    assert_eq!(
        lock.recipe,
        digest(),
        "the recipe has changed: cargo run --release -p twinvm-image --example build -- redis \
         --out target/image/redis --lock crates/image/redis.lock --rehash"
    );
    for name in RECIPE.packages {
        assert!(
            lock.packages.iter().any(|package| package.name == *name),
            "{name}"
        );
    }
    let outputs: Vec<&str> = lock
        .outputs
        .iter()
        .map(|output| output.name.as_str())
        .collect();
    assert_eq!(outputs, ["initrd.cpio", "kernel"]);
}

#[test]
fn init_finds_every_command_and_module_that_it_uses() {
    for command in [
        "mount", "mkdir", "insmod", "hostname", "ip", "kill", "grep", "usleep", "cat", "setsid",
        "sh", "[", "echo", "printf", "nc",
    ] {
        assert!(INIT.contains(command), "{command} is no longer used");
        assert!(APPLETS.contains(&command), "{command} is no applet");
    }
    for module in MODULES {
        let name = module.rsplit('/').next().unwrap();
        assert!(INIT.contains(name), "{name} is never loaded");
    }
}

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
