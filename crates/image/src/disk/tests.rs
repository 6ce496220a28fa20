use super::*;
use crate::debian::RECIPE;

#[test]
fn a_host_that_cannot_make_a_disk_is_told_why() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path();
    assert!(check(out, true, NEEDED_BYTES).is_ok());
    let error = |root, free| check(out, root, free).unwrap_err().to_string();
    assert!(error(false, NEEDED_BYTES).contains("sudo"));
    let full = error(true, NEEDED_BYTES - (1 << 20));
    assert!(
        full.contains("4095 MiB are free and 4096 are needed"),
        "{full}"
    );
    fs::write(out.join(DISK), "a guest's data").unwrap();
    let there = error(true, NEEDED_BYTES);
    assert!(
        there.contains("disk.img") && there.contains("remove it"),
        "{there}"
    );
}

#[test]
fn steps_of_dpkg_are_told_from_its_other_words() {
    assert_eq!(
        step("Setting up libc6:riscv64 (2.41-12) ..."),
        Some("libc6")
    );
    assert_eq!(step("Unpacking nginx (1.26) ..."), Some("nginx"));
    assert_eq!(step("Preparing to unpack .../nginx.deb ..."), None);
    assert_eq!(step("I: success in 303.9 seconds"), None);
}

#[test]
fn paths_survive_the_shell_and_apt() {
    assert_eq!(quoted(Path::new("/a b/c'd")), r"'/a b/c'\''d'");
    assert_eq!(uri_path(Path::new("/a b/c%d-e.f")), "/a%20b/c%25d-e.f");
}

/// A package with a control file alone.
fn deb(folder: &Path, name: &str) -> Package {
    let tree = folder.join("tree");
    fs::create_dir_all(tree.join("DEBIAN")).unwrap();
    let control = format!(
        "Package: {name}\nVersion: 1:2\nArchitecture: riscv64\nMaintainer: x <x@example.org>\n\
         Essential: yes\nDescription: one line\n and another\n"
    );
    fs::write(tree.join("DEBIAN/control"), control).unwrap();
    let mut package = Package {
        name: name.to_owned(),
        version: "1:2".to_owned(),
        architecture: "riscv64".to_owned(),
        sha256: Sha256::of(b""),
        size_bytes: 0,
    };
    let file = folder.join(package.file_name());
    let mut build = Command::new("dpkg-deb");
    build.arg("--build").arg(&tree).arg(&file);
    apt::run(build, "dpkg-deb", "making a package", |_| {}).unwrap();
    (package.sha256, package.size_bytes) = Sha256::of_file(&file).unwrap();
    package
}

#[test]
fn the_archive_lists_each_package_with_its_digest() {
    let folder = tempfile::tempdir().unwrap();
    let packages = [deb(folder.path(), "one"), deb(folder.path(), "two")];
    let archive = folder.path().join("archive");
    make_archive(&archive, &packages, folder.path()).unwrap();

    let index = fs::read_to_string(archive.join("Packages")).unwrap();
    let stanzas: Vec<&str> = index.trim_end().split("\n\n").collect();
    assert_eq!(stanzas.len(), 2);
    for (stanza, package) in stanzas.iter().zip(&packages) {
        let Package { name, sha256, .. } = package;
        let ending = format!(
            "\nDescription: one line\n and another\nFilename: ./{name}.deb\nSize: {}\nSHA256: {sha256}",
            package.size_bytes
        );
        assert!(stanza.contains("\nEssential: yes\n"), "{stanza}");
        assert!(stanza.ends_with(&ending), "{stanza}");
        let (found, _) = Sha256::of_file(&archive.join(format!("{name}.deb"))).unwrap();
        assert_eq!(found, *sha256);
    }
    let release = fs::read_to_string(archive.join("Release")).unwrap();
    let line = format!(
        " {} {} Packages\n",
        Sha256::of(index.as_bytes()),
        index.len()
    );
    assert!(release.ends_with(&line), "{release}");
    assert!(release.contains("\nCodename: trixie\n"));
}

#[test]
fn the_file_system_is_the_same_each_time_but_for_what_is_on_it() {
    let recipe = RECIPE.disk.as_ref().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("file"), "text").unwrap();
    let config = folder.path().join("mke2fs.conf");
    fs::write(&config, MKE2FS_CONFIG).unwrap();
    let small = DiskRecipe {
        size_bytes: 16 << 20,
        ..*recipe
    };
    if !Path::new("/usr/sbin/mke2fs").exists() {
        return;
    }
    let made = |name: &str| {
        let disk = folder.path().join(name);
        let command = mke2fs(&small, &root, &config, &disk);
        apt::run(command, "mke2fs", "making a small disk", |_| {}).unwrap();
        let bytes = fs::read(&disk).unwrap();
        // ext4 on-disk format: the superblock at 1024, its magic number at 56 there.
        assert_eq!(bytes.len(), 16 << 20);
        assert_eq!(bytes[1024 + 56..1024 + 58], [0x53, 0xef]);
        Sha256::of(&bytes)
    };
    assert_eq!(made("a.img"), made("b.img"));
}
