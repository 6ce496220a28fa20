//! Tests that make network interfaces: in a network namespace of their own, so nothing of the
//! host's network is touched, and no rights on it are needed where the kernel gives unprivileged
//! users namespaces.

use std::process::Command;

/// Says to a test program that it runs inside the namespace.
const INSIDE: &str = "TWINVM_TEST_NAMESPACE";
/// Long enough on a busy host; a guest that hangs must not hang the tests.
const LIMIT_S: &str = "900";

/// The ways into a namespace of our own, the one that needs least first.
fn ways() -> Vec<Vec<&'static str>> {
    let root = rustix::process::geteuid().is_root();
    let user = vec!["unshare", "--user", "--map-root-user", "--net"];
    let sudo = vec!["sudo", "-n", "unshare", "--net"];
    match root {
        true => vec![vec!["unshare", "--net"]],
        false => vec![user, sudo],
    }
}

/// Whether the kernel does all this there, and lets us use TAP interfaces.
fn works(way: &[&str], needs: &[&str]) -> bool {
    let mut script = String::from("set -e\nexec 3<>/dev/net/tun\n");
    for line in needs {
        script += &format!("{line}\n");
    }
    let done = Command::new(way[0])
        .args(&way[1..])
        .args(["sh", "-c", &script])
        .output();
    done.is_ok_and(|done| done.status.success())
}

/// Whether this is the program inside the namespace.
pub(crate) fn inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Runs `body`, which is the test named `test`, in a network namespace and `more` of them, as
/// `unshare` calls them, where these command lines work: starts this program once more, for that
/// test alone.
pub(crate) fn in_namespaces(test: &str, more: &[&'static str], needs: &[&str], body: fn()) {
    if inside() {
        ip("link set lo up");
        return body();
    }
    let ways = ways().into_iter().map(|way| [&way[..], more].concat());
    let Some(way) = ways.into_iter().find(|way| works(way, needs)) else {
        let lacks = format!(
            "no namespaces here in which {needs:?} works: it takes unshare, ip (iproute2), \
             /dev/net/tun and the right to use them"
        );
        assert!(std::env::var_os("CI").is_none(), "{lacks}");
        eprintln!("{test} is skipped: {lacks}");
        return;
    };
    // Not every user's has the network's tools.
    let path = std::env::var("PATH").unwrap_or_default();
    let path = format!("PATH={path}:/usr/sbin:/sbin");
    let done = Command::new("timeout")
        .args(["--kill-after=10", LIMIT_S])
        .args(way)
        .args(["env", &format!("{INSIDE}=1"), &path])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .output()
        .unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr),
    );
    assert!(done.status.success(), "{:?}\n{out}\n{err}", done.status);
    assert!(out.contains("1 passed"), "no test {test}:\n{out}\n{err}");
    eprint!("{err}");
}

pub(crate) fn ip(args: &str) {
    let done = Command::new("ip").args(args.split(' ')).output().unwrap();
    assert!(
        done.status.success(),
        "ip {args}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
}
