use super::*;
use crate::redis::RECIPE;
use crate::{ImageKind, Silent};

fn options(lock: &Path) -> BuildOptions {
    BuildOptions {
        lock: Some(lock.to_owned()),
        ..BuildOptions::default()
    }
}

fn named_lock(out: &str, options: &BuildOptions) -> NamedLock {
    NamedLock {
        lock: Lock::parse(RECIPE.lock).unwrap(),
        name: "the built-in redis.lock".to_owned(),
        update: update_command(&RECIPE, Path::new(out), options),
    }
}

fn error_of(lock: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("my.lock");
    fs::write(&path, lock).unwrap();
    let out = folder.path().join("out");
    crate::build(ImageKind::Redis, &out, &options(&path), &mut Silent)
        .unwrap_err()
        .to_string()
}

#[test]
fn a_bad_lock_is_named_with_its_line() {
    let error = error_of("# x\nrecipe short\n");
    let line = "my.lock:2: `short` is not a SHA-256: make a new lock with `twinvm image build";
    assert!(error.contains(line), "{error}");
    let error = error_of("# x\n");
    let line = "my.lock: has no line `package`: make a new lock with `twinvm image build redis";
    assert!(error.contains(line), "{error}");
}

#[test]
fn a_lock_of_another_recipe_is_refused() {
    let mut lock = Lock::parse(RECIPE.lock).unwrap();
    lock.recipe = Sha256::of(b"another");
    let error = error_of(&lock.to_string());
    assert!(error.contains("--update-lock"), "{error}");
}

#[test]
fn a_version_gone_from_the_mirror_names_the_command_that_helps() {
    let locked = named_lock;
    let plain = locked("/srv/redis", &BuildOptions::default());
    let package = plain.lock.packages[0].clone();
    let there = still_there(&package, Some(package.clone()), &plain);
    assert!(there.is_ok(), "{there:?}");

    let error = |found, locked| {
        still_there(&package, found, locked)
            .unwrap_err()
            .to_string()
    };
    let newer = Package {
        version: "9:9".to_owned(),
        ..package.clone()
    };
    let (name, version) = (&package.name, &package.version);
    assert_eq!(
        error(Some(newer), &plain),
        format!(
            "the mirror no longer has {name} {version} (it has 9:9), which the built-in \
             redis.lock asks for: make a new lock with `twinvm image build redis --out \
             /srv/redis --update-lock`"
        )
    );
    let other = locked("/srv/my image's", &options(Path::new("my.lock")));
    let line = error(None, &other);
    assert!(line.contains("(it has no such package)"), "{line}");
    assert!(
        line.ends_with(
            r"`twinvm image build redis --out '/srv/my image'\''s' --lock my.lock --update-lock`"
        ),
        "{line}"
    );
    assert!(!line.contains('\n'), "{line}");
}

#[test]
fn finished_files_are_only_verified() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path();
    let mut lock = Lock::parse(RECIPE.lock).unwrap();
    for output in &mut lock.outputs {
        fs::write(out.join(&output.name), &output.name).unwrap();
        output.sha256 = Sha256::of(output.name.as_bytes());
        output.size_bytes = output.name.len() as u64;
    }
    fs::write(out.join(stamp::FILE), stamp::text(&lock, None)).unwrap();
    // An update leaves its lock in the output folder; the next build finds it there.
    fs::write(out.join("redis.lock"), lock.to_string()).unwrap();
    let image = crate::build(ImageKind::Redis, out, &BuildOptions::default(), &mut Silent).unwrap();
    assert!(image.up_to_date);
    assert_eq!(fs::read_to_string(image.kernel).unwrap(), "kernel");
    assert_eq!(image.cmdline, RECIPE.cmdline);
}

#[test]
fn other_outputs_than_the_locked_ones_are_refused() {
    let named = named_lock("out", &BuildOptions::default());
    let mut made = named.lock.clone();
    assert!(compare_outputs(&made, &named).is_ok());
    made.outputs[0].sha256 = Sha256::of(b"other");
    let error = compare_outputs(&made, &named).unwrap_err();
    assert!(error.to_string().contains("initrd.cpio has the SHA-256"));
}

#[test]
fn damaged_downloads_count_as_missing() {
    let folder = tempfile::tempdir().unwrap();
    let package = Package {
        name: "a".to_owned(),
        version: "1:2".to_owned(),
        architecture: "all".to_owned(),
        sha256: Sha256::of(b"whole"),
        size_bytes: 5,
    };
    let packages = [package];
    assert_eq!(missing(&packages, folder.path()).len(), 1);
    fs::write(folder.path().join("a_1%3a2_all.deb"), "whole").unwrap();
    assert_eq!(missing(&packages, folder.path()).len(), 0);
    fs::write(folder.path().join("a_1%3a2_all.deb"), "whol").unwrap();
    assert_eq!(missing(&packages, folder.path()).len(), 1);
}

#[test]
fn a_missing_program_is_named_with_its_package() {
    let folder = tempfile::tempdir().unwrap();
    let look =
        || look_for_tools(&TOOLS, Some(folder.path().as_os_str())).map_err(|e| e.to_string());
    for tool in ["apt-get", "apt-cache"] {
        fs::write(folder.path().join(tool), "").unwrap();
    }
    assert_eq!(
        look(),
        Err("the program `dpkg-deb` is missing: apt-get install dpkg".to_owned())
    );
    fs::write(folder.path().join("dpkg-deb"), "").unwrap();
    assert_eq!(look(), Ok(()));
}

#[test]
fn remains_of_a_build_cut_short_are_swept() {
    let folder = tempfile::tempdir().unwrap();
    let old = folder.path().join(".cache/work-old");
    fs::create_dir_all(old.join("unpacked")).unwrap();
    let work = work_folder(folder.path()).unwrap();
    assert!(!old.exists());
    assert!(work.path().starts_with(folder.path()));
}

#[test]
fn the_files_replace_older_ones_and_the_stamp_fits() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path();
    fs::write(out.join(KERNEL), "old").unwrap();
    let work = work_folder(out).unwrap();
    let mut initrd = Archive::new();
    initrd.file("init", true, "#!");
    let content = Content {
        kernel: b"new".to_vec(),
        initrd,
    };
    let mut made = Lock::parse(RECIPE.lock).unwrap();
    made.outputs = write_outputs(work.path(), &content).unwrap();
    install(&RECIPE, out, work.path(), &made, None).unwrap();
    assert_eq!(fs::read_to_string(out.join(KERNEL)).unwrap(), "new");
    assert!(stamp::is_current(out, &made, None));
    let fragment = fs::read_to_string(out.join(FRAGMENT)).unwrap();
    assert!(
        fragment.contains("initrd = \"initrd.cpio\"\n"),
        "{fragment}"
    );
}

#[test]
fn keys_for_ssh_are_public_keys() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key.pub");
    let read = |recipe: &Recipe, text: &str| {
        fs::write(&path, text).unwrap();
        let options = BuildOptions {
            ssh_key: Some(path.clone()),
            ..BuildOptions::default()
        };
        ssh_key(recipe, &options).map_err(|error| error.to_string())
    };
    let debian = &crate::debian::RECIPE;
    let key = "ssh-ed25519 AAAAC3Nz me@here";
    assert_eq!(
        read(debian, &format!("\n{key}\n")),
        Ok(Some(format!("{key}\n")))
    );
    for (text, why) in [
        ("-----BEGIN OPENSSH PRIVATE KEY-----\n", "private key"),
        ("", "no public keys"),
        ("hello\n", "no public keys"),
    ] {
        let error = read(debian, text).unwrap_err();
        assert!(error.contains("key.pub") && error.contains(why), "{error}");
    }
    assert!(read(&RECIPE, key).unwrap_err().contains("no SSH server"));
    assert_eq!(ssh_key(debian, &BuildOptions::default()).unwrap(), None);
}

#[test]
fn a_disk_and_its_file_are_not_written_over() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path();
    let recipe = &crate::debian::RECIPE;
    let lock = Lock::parse(recipe.lock).unwrap();
    let work = out.join("work");
    fs::create_dir(&work).unwrap();
    for name in [KERNEL, INITRD, DISK] {
        fs::write(work.join(name), name).unwrap();
    }
    fs::write(out.join(VM), "mine").unwrap();
    install(recipe, out, &work, &lock, None).unwrap();
    assert_eq!(fs::read_to_string(out.join(VM)).unwrap(), "mine");
    assert_eq!(fs::read_to_string(out.join(DISK)).unwrap(), DISK);
    // The files are not those of the lock, so a build would begin: it must stop at the disk.
    let error = crate::build(
        ImageKind::Debian,
        out,
        &BuildOptions::default(),
        &mut Silent,
    );
    assert!(matches!(error, Err(ImageError::DiskThere(_))), "{error:?}");
}
