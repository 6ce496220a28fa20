//! Each forbidden call is tried in a process of its own: this test program once more, which does
//! only that.
#![allow(unsafe_code)]

mod user;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};

use super::*;

/// Says to the test program what it is to try.
const TRY: &str = "TWINVM_TEST_SANDBOX";
const SANDBOX: Confinement = Confinement {
    user: None,
    sandbox: true,
};

/// Runs the test of this name once more, with this to try.
fn again(test: &str, what: &str) -> (ExitStatus, String) {
    let done = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("sandbox::tests::{test}"), "--nocapture"])
        .args(["--test-threads", "1"])
        .env(TRY, what)
        .output()
        .unwrap();
    let said = [done.stdout, done.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    (done.status, said.concat())
}

fn to_try() -> Option<String> {
    std::env::var(TRY).ok()
}

/// A call with these arguments, of which none is the address of anything.
fn call(number: i64, arguments: [i64; 4]) -> Result<i64, i32> {
    let [a, b, c, d] = arguments;
    // SAFETY: the arguments are numbers. A call that took one for an address would find nothing
    // there, and those that change the process do so to one that is about to end.
    let result = unsafe { libc::syscall(number, a, b, c, d, 0, 0) };
    match result {
        -1 => Err(io::Error::last_os_error().raw_os_error().unwrap()),
        _ => Ok(result),
    }
}

#[test]
fn what_only_an_intruder_would_call_kills_the_process() {
    if let Some(number) = to_try() {
        SANDBOX.enter(&[]).unwrap();
        println!("confined");
        let _ = call(number.parse().unwrap(), [0; 4]);
        println!("alive");
        return;
    }
    for number in calls::HOSTILE {
        let test = "what_only_an_intruder_would_call_kills_the_process";
        let (status, said) = again(test, &number.to_string());
        assert_eq!(status.signal(), Some(libc::SIGSYS), "call {number}: {said}");
        assert!(said.contains("confined"), "call {number}: {said}");
    }
    assert!(calls::HOSTILE.contains(&libc::SYS_execve));
    assert!(calls::HOSTILE.contains(&libc::SYS_ptrace));
}

#[test]
fn the_rest_is_refused_as_if_the_kernel_did_not_have_it() {
    let test = "the_rest_is_refused_as_if_the_kernel_did_not_have_it";
    if to_try().is_none() {
        let (status, said) = again(test, "all");
        return assert!(status.success(), "{said}");
    }
    let page = 4096;
    let anonymous = i64::from(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    let map = |protection: i32| call(libc::SYS_mmap, [0, page, protection.into(), anonymous]);
    let socket = |family: i32| {
        call(
            libc::SYS_socket,
            [family.into(), libc::SOCK_DGRAM.into(), 0, 0],
        )
    };
    let code = libc::PROT_READ | libc::PROT_EXEC;
    let forbidden: &[(i64, [i64; 4])] = &[
        (libc::SYS_io_uring_setup, [0; 4]),
        (libc::SYS_memfd_create, [0; 4]),
        (libc::SYS_shmget, [0; 4]),
        (libc::SYS_setpriority, [libc::PRIO_PROCESS.into(), 1, 10, 0]),
        (libc::SYS_setpriority, [libc::PRIO_USER.into(), 0, 10, 0]),
        (libc::SYS_symlinkat, [0; 4]),
        (libc::SYS_mknodat, [0; 4]),
        (libc::SYS_fchownat, [0; 4]),
        (libc::SYS_landlock_create_ruleset, [0; 4]),
        (libc::SYS_seccomp, [0; 4]),
        // No call that there is.
        (100_000, [0; 4]),
        (libc::SYS_clone3, [0; 4]),
        // A process of its own, and a thread in a world of its own.
        (libc::SYS_clone, [libc::SIGCHLD.into(), 0, 0, 0]),
        (
            libc::SYS_clone,
            [
                (calls::THREAD as i64) | i64::from(libc::CLONE_NEWUSER),
                0,
                0,
                0,
            ],
        ),
        // Whoever writes to its user's terminal as if that user typed.
        (libc::SYS_ioctl, [0, libc::TIOCSTI as i64, 0, 0]),
        (libc::SYS_prctl, [libc::PR_SET_DUMPABLE.into(), 1, 0, 0]),
        (libc::SYS_prctl, [libc::PR_SET_PTRACER.into(), 1, 0, 0]),
        // Other processes of the same user.
        (libc::SYS_kill, [1, 0, 0, 0]),
        (libc::SYS_kill, [-1, 0, 0, 0]),
        (libc::SYS_tgkill, [1, 1, 0, 0]),
        // Sockets past the host's network, and the kernel's other talk.
        (
            libc::SYS_socket,
            [libc::AF_INET.into(), libc::SOCK_RAW.into(), 1, 0],
        ),
        (
            libc::SYS_socket,
            [libc::AF_INET6.into(), libc::SOCK_SEQPACKET.into(), 0, 0],
        ),
        (
            libc::SYS_socket,
            [
                libc::AF_NETLINK.into(),
                libc::SOCK_RAW.into(),
                libc::NETLINK_KOBJECT_UEVENT.into(),
                0,
            ],
        ),
        // Its limits.
        (libc::SYS_prlimit64, [0, libc::RLIMIT_CORE.into(), page, 0]),
    ];
    let address = map(code).expect("memory of the test's own");

    SANDBOX.enter(&[]).unwrap();
    for (number, arguments) in forbidden {
        let result = call(*number, *arguments);
        assert_eq!(result, Err(libc::ENOSYS), "{number} {arguments:?}");
    }
    for family in [
        libc::AF_INET,
        libc::AF_INET6,
        libc::AF_UNIX,
        libc::AF_NETLINK,
    ] {
        assert!(socket(family).is_ok(), "family {family}");
    }
    for family in [libc::AF_PACKET, libc::AF_ALG, libc::AF_VSOCK, -1] {
        assert_eq!(socket(family), Err(libc::ENOSYS), "family {family}");
    }
    let both = code | libc::PROT_WRITE;
    assert_eq!(map(both), Err(libc::ENOSYS));
    let protect = |protection: i32| {
        let arguments = [address, page, protection.into(), 0];
        call(libc::SYS_mprotect, arguments)
    };
    assert_eq!(protect(both), Err(libc::ENOSYS));

    // What a node does goes on.
    assert!(map(code).is_ok() && map(libc::PROT_READ | libc::PROT_WRITE).is_ok());
    assert_eq!(protect(libc::PROT_READ | libc::PROT_WRITE), Ok(0));
    assert_eq!(protect(code), Ok(0));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let echo = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut text = [0; 5];
        stream.read_exact(&mut text).unwrap();
        text
    });
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"hello").unwrap();
    assert_eq!(&echo.join().unwrap(), b"hello");
    let folder = tempfile::tempdir().unwrap();
    crate::durable::replace_file(folder.path(), "file", b"content").unwrap();
    // Copies yield to the guest.
    let work = move || rustix::process::nice(0).is_ok() && rustix::process::nice(1).is_ok();
    assert!(std::thread::spawn(work).join().unwrap());
    // Names are looked up for connections that are made again.
    use std::net::ToSocketAddrs;
    assert!(("localhost", 1).to_socket_addrs().unwrap().count() > 0);
}

#[test]
fn all_threads_are_confined() {
    let test = "all_threads_are_confined";
    if to_try().is_none() {
        let (status, said) = again(test, "all");
        return assert!(status.success(), "{said}");
    }
    // One from before, and one from after.
    let (go, wait) = crossbeam_channel::bounded::<()>(0);
    let before = std::thread::spawn(move || {
        let _ = wait.recv();
        call(libc::SYS_memfd_create, [0; 4])
    });
    let notice = SANDBOX.enter(&[]).unwrap();
    assert_eq!(notice.is_some(), rustix::process::geteuid().is_root());
    let after = std::thread::spawn(|| call(libc::SYS_memfd_create, [0; 4]));
    drop(go);
    for thread in [before, after] {
        assert_eq!(thread.join().unwrap(), Err(libc::ENOSYS));
    }
    let mut seen = 0;
    for entry in std::fs::read_dir("/proc/self/task").unwrap() {
        // A thread that was joined may be listed still.
        let Ok(status) = std::fs::read_to_string(entry.unwrap().path().join("status")) else {
            continue;
        };
        seen += 1;
        let has = |line: &str| status.lines().any(|it| it == line);
        assert!(has("Seccomp:\t2") && has("NoNewPrivs:\t1"), "{status}");
    }
    assert!(seen > 0, "no thread was looked at");
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    assert_eq!(rustix::process::getrlimit(Resource::Core), none);
    // SAFETY: this call takes numbers only.
    assert_eq!(unsafe { libc::prctl(libc::PR_GET_DUMPABLE, 0, 0, 0, 0) }, 0);
}
