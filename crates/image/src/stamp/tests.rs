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
        outputs: vec![Output {
            name: "kernel".to_owned(),
            sha256: Sha256::of(b"image"),
            size_bytes: 5,
        }],
    }
}

#[test]
fn is_current_only_while_lock_recipe_and_files_are_as_they_were() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path();
    let recipe = Sha256::of(b"recipe");
    let lock = lock_of(recipe);

    assert!(!is_current(out, &lock, recipe), "no stamp, no files");
    fs::write(out.join("kernel"), "image").unwrap();
    assert!(!is_current(out, &lock, recipe), "no stamp");
    fs::write(out.join(FILE), text(&lock, recipe)).unwrap();
    assert!(is_current(out, &lock, recipe));

    let mut newer = lock.clone();
    newer.packages[0].version = "2".to_owned();
    assert!(!is_current(out, &newer, recipe), "another lock");
    let other = Sha256::of(b"other");
    assert!(!is_current(out, &lock, other), "another recipe");
    assert!(
        !is_current(out, &lock_of(other), other),
        "another recipe, locked"
    );

    fs::write(out.join("kernel"), "imagf").unwrap();
    assert!(!is_current(out, &lock, recipe), "another byte");
    fs::write(out.join("kernel"), "imag").unwrap();
    assert!(!is_current(out, &lock, recipe), "cut short");
    fs::remove_file(out.join("kernel")).unwrap();
    assert!(!is_current(out, &lock, recipe), "gone");
}
