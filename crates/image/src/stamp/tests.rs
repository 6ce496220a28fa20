use super::*;
use crate::lock::{Output, Package};

fn lock_of(recipe: Sha256) -> Lock {
    Lock {
        recipe,
        packages: vec![Package {
            name: "busybox".to_owned(),
            version: "1".to_owned(),
            architecture: "riscv64".to_owned(),
            sha256: Sha256::of(b"deb"),
            size_bytes: 3,
        }],
        outputs: ["kernel", "initrd.cpio"]
            .map(|name| Output {
                name: name.to_owned(),
                sha256: Sha256::of(b"image"),
                size_bytes: 5,
            })
            .into(),
    }
}

#[test]
fn is_current_only_while_lock_recipe_and_files_are_as_they_were() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path();
    let lock = lock_of(Sha256::of(b"recipe"));

    assert!(!is_current(out, &lock, None), "no stamp, no files");
    for name in ["kernel", "initrd.cpio"] {
        fs::write(out.join(name), "image").unwrap();
    }
    assert!(!is_current(out, &lock, None), "no stamp");
    fs::write(out.join(FILE), text(&lock, None)).unwrap();
    assert!(is_current(out, &lock, None));
    assert!(!is_current(out, &lock, Some("ssh-x AAAA")), "another key");

    let mut newer = lock.clone();
    newer.packages[0].version = "2".to_owned();
    assert!(!is_current(out, &newer, None), "another lock");
    assert!(
        !is_current(out, &lock_of(Sha256::of(b"other")), None),
        "another recipe"
    );

    fs::write(out.join("kernel"), "imagf").unwrap();
    assert!(!is_current(out, &lock, None), "another byte");
    fs::write(out.join("kernel"), "imag").unwrap();
    assert!(!is_current(out, &lock, None), "cut short");
    fs::remove_file(out.join("kernel")).unwrap();
    assert!(!is_current(out, &lock, None), "gone");
}
