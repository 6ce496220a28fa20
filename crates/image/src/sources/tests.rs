use super::*;

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[test]
fn reads_one_line_sources() {
    let text = "\
# comment
deb http://mirror.test/debian bookworm main contrib # trailing
deb-src http://mirror.test/debian bookworm main

deb [ arch=amd64,riscv64 signed-by=/k/a.gpg,/k/b.gpg trusted=yes ]\thttp://other.test/x ./
";
    assert_eq!(
        parse_list(text).unwrap(),
        [
            Source {
                uris: strings(&["http://mirror.test/debian"]),
                suites: strings(&["bookworm"]),
                components: strings(&["main", "contrib"]),
                ..Source::default()
            },
            Source {
                uris: strings(&["http://other.test/x"]),
                suites: strings(&["./"]),
                signed_by: strings(&["/k/a.gpg", "/k/b.gpg"]),
                trusted: true,
                ..Source::default()
            },
        ]
    );
}

#[test]
fn names_the_bad_line_of_a_list() {
    let line = |text| parse_list(text).unwrap_err().line;
    assert_eq!(line("deb http://a.test b main\n\nrpm http://a.test b\n"), 3);
    assert_eq!(line("deb [arch=amd64 http://a.test b main\n"), 1);
    assert_eq!(line("# one\ndeb [arch] http://a.test b main\n"), 2);
    assert_eq!(line("deb http://a.test\n"), 1);
}

#[test]
fn reads_stanzas() {
    let text = "\
Types: deb deb-src
# a comment in between
URIs: http://mirror.test/debian
Suites: bookworm
 bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb-src
URIs: http://src.test/debian
Suites: sid
Components: main

Enabled: no
Types: deb
URIs: http://off.test/debian
Suites: bookworm
Components: main


Types: deb
URIs: http://inline.test/debian
Suites: bookworm
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mDMEY865UxYJKwYBBAHaRw8BAQdAd7Z0srwuhlB6JKFkcf4HU4SSS/xcRfwEQWzr
 -----END PGP PUBLIC KEY BLOCK-----
";
    let sources = parse_deb822(text).unwrap();
    assert_eq!(sources.len(), 2);
    assert_eq!(sources[0].suites, ["bookworm", "bookworm-updates"]);
    assert_eq!(sources[0].signed_by, [ARCHIVE_KEYRING]);
    assert_eq!(sources[1].uris, ["http://inline.test/debian"]);
    assert!(sources[1].signed_by.is_empty());
}

#[test]
fn names_the_bad_line_of_a_stanza() {
    let line = |text| parse_deb822(text).unwrap_err().line;
    assert_eq!(line("Types: deb\nURIs\n"), 2);
    assert_eq!(line("\n more\n"), 2);
}

#[test]
fn picks_the_archive_and_not_its_neighbours() {
    let text = "\
deb http://sec.test/debian-security bookworm-security main
deb [signed-by=/etc/apt/keyrings/vendor.gpg] http://vendor.test/debian bookworm main
deb http://other.test/debian bookworm contrib
deb http://mirror.test/debian bookworm main
";
    assert_eq!(
        debian_mirror(&parse_list(text).unwrap()),
        Some(Mirror {
            uri: "http://mirror.test/debian".to_owned(),
            keyring: ARCHIVE_KEYRING.to_owned(),
            trusted: false,
        })
    );
    assert_eq!(debian_mirror(&[]), None);
}

#[test]
fn a_keyring_of_one_suite_is_widened() {
    let text = "deb [signed-by=/usr/share/keyrings/debian-archive-bookworm-stable.gpg] \
                http://mirror.test/debian bookworm main";
    let mirror = debian_mirror(&parse_list(text).unwrap()).unwrap();
    assert_eq!(mirror.keyring, ARCHIVE_KEYRING);
}

#[test]
fn reads_a_folder_in_order_and_names_the_file_of_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let parts = folder.path().join("sources.list.d");
    fs::create_dir(&parts).unwrap();
    assert!(matches!(
        host_mirror(folder.path()),
        Err(ImageError::NoMirror(_))
    ));

    fs::write(
        parts.join("b.list"),
        "deb http://b.test/debian bookworm main",
    )
    .unwrap();
    let a = "Types: deb\nURIs: http://a.test/debian\nSuites: bookworm\nComponents: main";
    fs::write(parts.join("a.sources"), a).unwrap();
    fs::write(parts.join("0.list.disabled"), "nonsense").unwrap();
    assert_eq!(
        host_mirror(folder.path()).unwrap().uri,
        "http://a.test/debian"
    );

    fs::write(parts.join("c.list"), "\nnonsense here").unwrap();
    let error = host_mirror(folder.path()).unwrap_err().to_string();
    assert!(
        error.ends_with("c.list:2: unknown type `nonsense`"),
        "{error}"
    );
}
