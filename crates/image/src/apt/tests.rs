use super::*;

#[test]
fn reads_the_wanted_stanzas_of_an_index() {
    let digest = "0f".repeat(32);
    let text = format!(
        "Package: linux-image-riscv64\nVersion: 6.12-1\nArchitecture: riscv64\n\
         Pre-Depends: nothing\nDepends: linux-image-6.12-riscv64 (= 6.12-1), other | more\n\
         Description: a kernel\n Package: not-me\nSize: 1436\nSHA256: {digest}\n\n\
         Package: unwanted\nVersion: 1\nArchitecture: all\nSize: 1\nSHA256: {digest}\n\n\
         Package: broken\nVersion: 1\nArchitecture: all\nSize: many\nSHA256: {digest}\n\n\
         Package: libc6\nVersion: 2\nArchitecture: riscv64\nSize: 2\nSHA256: {digest}"
    );
    let mut index = Index::new(&["libc6", "linux-image-riscv64", "broken"]);
    text.lines().for_each(|line| index.line(line));
    let found = index.finish();
    let names: Vec<&str> = found.keys().map(String::as_str).collect();
    assert_eq!(names, ["libc6", "linux-image-riscv64"]);
    let kernel = &found["linux-image-riscv64"];
    assert_eq!(kernel.depends, ["linux-image-6.12-riscv64", "other"]);
    assert_eq!(kernel.package.size_bytes, 1436);
    assert_eq!(kernel.package.sha256.to_string(), digest);
}

#[test]
fn the_source_line_has_the_mirror_of_the_host() {
    let mirror = Mirror {
        uri: "http://mirror.test/debian".to_owned(),
        keyring: "/k.gpg".to_owned(),
        trusted: false,
    };
    assert_eq!(
        source_line(&mirror),
        "deb [arch=riscv64 target=Packages signed-by=/k.gpg] http://mirror.test/debian trixie main\n"
    );
}

#[test]
fn refuses_a_folder_that_apt_cannot_take() {
    assert!(configuration(Path::new("/a b/c")).is_ok());
    for bad in ["/a\"b", "/a\\b", "/a\nb"] {
        let error = configuration(Path::new(bad)).unwrap_err();
        assert!(matches!(error, ImageError::Folder(_)));
    }
}

#[test]
fn a_failing_program_gives_its_reason() {
    let shell = |script: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let mut lines = Vec::new();
        let result = run(command, "sh", "testing", |line| lines.push(line.to_owned()));
        (result.map_err(|error| error.to_string()), lines)
    };
    assert_eq!(shell("echo a; echo b").1, ["a", "b"]);
    assert_eq!(
        shell("echo 'W: old' >&2; echo 'E: first' >&2; echo 'E: second' >&2; exit 100").0,
        Err("sh failed while testing: first".to_owned())
    );
    assert_eq!(
        shell("echo plain >&2; exit 1").0,
        Err("sh failed while testing: plain".to_owned())
    );
    assert_eq!(
        shell("exit 3").0,
        Err("sh failed while testing: exit status: 3".to_owned())
    );
}

#[test]
fn reads_percentages() {
    assert_eq!(
        percent("dlstatus:3:45.25:Retrieving file 1 of 2"),
        Some(45.25)
    );
    assert_eq!(percent("dlstatus:3:145:x"), None);
    assert_eq!(percent("pmstatus:3:45:x"), None);
    assert_eq!(percent("dlstatus"), None);
}

#[test]
fn a_simulated_installation_names_its_packages() {
    assert_eq!(
        installed("Inst libc6 (2.41-12 Debian:13/stable [riscv64]) []"),
        Some("libc6")
    );
    assert_eq!(installed("Inst a:riscv64 (1 x [riscv64])"), Some("a"));
    assert_eq!(
        installed("Conf libc6 (2.41-12 Debian:13/stable [riscv64])"),
        None
    );
}
