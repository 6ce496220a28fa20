//! Files of keys: made, read, refused, replaced.

use super::*;

fn node(name: &str) -> Subject {
    Subject::Node(name.to_owned())
}

fn load(cluster: &Cluster, files: &TlsFiles, name: &str) -> Result<Credentials, TlsError> {
    let _ = cluster;
    Credentials::load(files.clone(), node(name), Expect::Node("peer".to_owned()))
}

fn refusal(cluster: &Cluster, files: &TlsFiles, name: &str) -> String {
    let text = load(cluster, files, name).unwrap_err().to_string();
    assert!(!text.contains('\n') && !text.contains("  "), "{text}");
    text
}

#[test]
fn dates_are_read_as_they_were_written() {
    let cluster = Cluster::new();
    let now = now_s();
    let spans = [(now, now + 1), (0, 86_399), (1_577_836_800, 4_102_444_799)];
    for (not_before_s, not_after_s) in spans {
        let validity = Validity {
            not_before_s,
            not_after_s,
        };
        let issued = cluster.authority.issue(&node("a"), validity).unwrap();
        let der = CertificateDer::from_pem_slice(issued.cert.as_bytes()).unwrap();
        assert_eq!(Validity::of(&der), Some(validity));
        // Whatever is cut off, or changed, it is no panic.
        for end in 0..der.len() {
            let _ = Validity::of(&der[..end]);
        }
        for at in 0..200 {
            let mut bytes = der.to_vec();
            bytes[at] ^= 0xff;
            let _ = Validity::of(&bytes);
        }
    }
    assert_eq!(Moment(1_795_280_578).to_string(), "2026-11-21 17:02 UTC");
}

#[test]
fn an_authority_is_the_same_when_it_is_opened_again() {
    let cluster = Cluster::new();
    let folder = cluster.folder.path();
    let again = Authority::open(folder).unwrap();
    assert_eq!(again.cert(), cluster.authority.cert());
    assert_eq!(again.validity(), cluster.authority.validity());
    assert_eq!(
        again.validity().not_after_s - now_s(),
        i64::from(CA_DAYS) * dates::DAY_S
    );
    let issued = again.issue(&node("a"), again.span(now_s(), 7)).unwrap();
    again
        .write_issued(folder, &node("a"), &issued, false)
        .unwrap();
    load(&cluster, &cluster.files(&node("a")), "a").unwrap();
    // No certificate outlives its authority.
    assert_eq!(
        again.span(now_s(), 100_000).not_after_s,
        again.validity().not_after_s
    );

    for name in [CA_KEY, CA_CERT, "a.key", "a.crt"] {
        let mode = fs::metadata(folder.join(name))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[test]
fn nothing_is_overwritten_unasked() {
    let cluster = Cluster::new();
    let folder = cluster.folder.path();
    let before = fs::read(folder.join(CA_KEY)).unwrap();
    let other = Authority::new(now_s()).unwrap();
    let text = other.write(folder, false).unwrap_err().to_string();
    assert!(
        text.contains("ca.key: is there already") && text.contains("--force"),
        "{text}"
    );
    assert_eq!(fs::read(folder.join(CA_KEY)).unwrap(), before);

    let issued = other.issue(&node("a"), always()).unwrap();
    let text = other
        .write_issued(folder, &node("a"), &issued, false)
        .unwrap_err()
        .to_string();
    assert!(text.contains("ca.crt: is of another authority"), "{text}");
    cluster.issue(&node("a"), always());
    let issued = cluster.authority.issue(&node("a"), always()).unwrap();
    let again = cluster
        .authority
        .write_issued(folder, &node("a"), &issued, false);
    assert!(matches!(again, Err(AuthorityError::Exists(path)) if path.ends_with("a.key")));

    other.write(folder, true).unwrap();
    assert_eq!(Authority::open(folder).unwrap().cert(), other.cert());
}

#[test]
fn folders_that_hold_no_authority_are_named() {
    let folder = TempDir::new().unwrap();
    let open = || Authority::open(folder.path()).err().unwrap().to_string();
    assert!(
        open().contains("ca.key: there is no authority here"),
        "{}",
        open()
    );
    let (one, two) = (
        Authority::new(now_s()).unwrap(),
        Authority::new(now_s()).unwrap(),
    );
    one.write(folder.path(), false).unwrap();
    fs::write(folder.path().join(CA_CERT), two.cert()).unwrap();
    assert!(
        open().contains("ca.crt: does not belong to the key"),
        "{}",
        open()
    );
    fs::write(folder.path().join(CA_KEY), "x").unwrap();
    assert!(open().contains("ca.key: is no key"), "{}", open());
}

#[test]
fn files_that_cannot_be_used_are_named_with_what_to_do() {
    let cluster = Cluster::new();
    let other = Cluster::new();
    cluster.issue(&node("a"), always());
    cluster.issue(&node("b"), always());
    other.issue(&node("a"), always());
    let good = cluster.files(&node("a"));
    load(&cluster, &good, "a").unwrap();
    let with = |change: fn(&mut TlsFiles, &TlsFiles), from: &TlsFiles| {
        let mut files = good.clone();
        change(&mut files, from);
        files
    };
    let b = cluster.files(&node("b"));
    let theirs = other.files(&node("a"));
    let cases = [
        (
            with(|files, _| files.key = "no/such".into(), &b),
            "a",
            "no/such: there is no such file: make it with twinvm keys issue",
        ),
        (
            with(|files, from| files.key = from.key.clone(), &b),
            "a",
            "a.crt: does not belong to the key",
        ),
        (
            with(|files, from| files.ca = from.ca.clone(), &theirs),
            "a",
            "a.crt: was not issued by",
        ),
        (
            with(|files, from| files.cert = from.key.clone(), &good),
            "a",
            "a.key: is no certificate",
        ),
        (
            with(|files, from| files.key = from.cert.clone(), &good),
            "a",
            "a.crt: is no key",
        ),
        (
            good.clone(),
            "b",
            "a.crt: is for node a: give the certificate of node b",
        ),
    ];
    for (files, name, expected) in cases {
        let text = refusal(&cluster, &files, name);
        assert!(text.contains(expected), "{text}");
    }

    let text = {
        cluster.issue(&Subject::Arbiter, always());
        refusal(&cluster, &cluster.files(&Subject::Arbiter), "a")
    };
    assert!(
        text.contains("arbiter.crt: is for the arbiter: give"),
        "{text}"
    );

    cluster.issue(&node("a"), expired());
    let text = refusal(&cluster, &good, "a");
    assert!(
        text.contains("a.crt: has expired on 20") && text.contains("issue it again"),
        "{text}"
    );
    cluster.issue(&node("a"), not_yet());
    let text = refusal(&cluster, &good, "a");
    assert!(
        text.contains("a.crt: is valid from 20") && text.contains("set the clock"),
        "{text}"
    );

    cluster.issue(&node("a"), always());
    fs::set_permissions(&good.key, fs::Permissions::from_mode(0o640)).unwrap();
    let text = refusal(&cluster, &good, "a");
    assert!(
        text.contains("a.key: others may read this key: chmod 600"),
        "{text}"
    );
}

#[test]
fn a_certificate_that_ends_soon_is_spoken_of() {
    let cluster = Cluster::new();
    let notice = |days: i64| {
        let validity = Validity {
            not_before_s: now_s() - 60,
            not_after_s: now_s() + days * dates::DAY_S,
        };
        cluster.issue(&node("a"), validity);
        load(&cluster, &cluster.files(&node("a")), "a")
            .unwrap()
            .notice()
    };
    assert_eq!(notice(31), None);
    let text = notice(29).unwrap();
    assert!(
        text.contains("a.crt: will expire on 20") && text.contains("keys issue"),
        "{text}"
    );
}

#[test]
fn new_files_are_used_from_the_next_handshake_on_and_broken_ones_are_not() {
    let cluster = Cluster::new();
    let credentials = cluster.node("a", Expect::Node("peer".to_owned()));
    let first = credentials.fresh().cert;
    let files = cluster.files(&node("a"));
    let other = Validity {
        not_after_s: first.not_after_s - 1000,
        ..first
    };
    cluster.issue(&node("a"), other);
    assert_eq!(credentials.fresh().cert, other);
    assert_eq!(credentials.notice(), None);

    fs::write(&files.cert, "half a certificate").unwrap();
    assert_eq!(credentials.fresh().cert, other);
    let text = credentials.notice().unwrap();
    assert!(
        text.starts_with("new credentials are not used: ") && text.contains("a.crt"),
        "{text}"
    );

    cluster.issue(&node("a"), first);
    assert_eq!(credentials.fresh().cert, first);
    assert_eq!(credentials.notice(), None);
}
