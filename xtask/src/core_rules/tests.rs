use super::*;
use crate::lexer::split;

/// The lines with a finding, when `source` stands in `path`.
fn lines_at(path: &str, source: &str) -> Vec<usize> {
    check_source(path, &split(source))
        .iter()
        .map(|finding| finding.line)
        .collect()
}

fn lines(source: &str) -> Vec<usize> {
    lines_at("crates/protocol/src/node.rs", source)
}

#[test]
fn each_way_to_the_host_is_found() {
    for bad in [
        "use std::time::Instant;",
        "use std::time::{Duration, Instant};",
        "use std::{fmt, time::{Duration, SystemTime}};",
        "use std::{io, thread};",
        "use ::std::net::TcpStream;",
        "use std::time::*;",
        "let t = std::time::Instant::now();",
        "use std::time; fn f() { time::Instant::now(); }",
        "use std::{io, time::{self, Duration}};",
        "use std::thread::sleep;",
        "std::thread::spawn(f);",
        "use std::os::unix::net::UnixStream;",
        "thread_local! { static X: u8 = 0; }",
        "use std::hash::{BuildHasher, RandomState};",
        "use std::collections::hash_map::RandomState;",
    ] {
        assert_eq!(lines(bad), [1], "{bad}");
    }
    assert_eq!(lines("use std::{\n    fmt,\n    net,\n};"), [3]);
}

#[test]
fn what_only_looks_like_it_passes() {
    for good in [
        "use std::time::Duration;",
        "use std::{fmt, time::Duration};",
        "pub struct Instant(i64); fn now() -> Instant { Instant(0) }",
        "use crate::time::Instant; let thread = time::Instant::ZERO;",
        "// std::thread::spawn\nlet s = \"std::net\";",
        "use std::collections::{BTreeMap, VecDeque};",
        "let net = 1; let thread = 2;",
        "use std::netting;",
    ] {
        assert_eq!(lines(good), [0; 0], "{good}");
    }
}

#[test]
fn maps_without_an_order_need_a_reason() {
    assert_eq!(lines("use std::collections::HashMap;"), [1]);
    assert_eq!(lines("let s: HashSet<u8> = x; // xtask: order-free:"), [1]);
    assert_eq!(
        lines("let s: HashSet<u8> = x; // xtask: order-free: only looked up"),
        [0; 0]
    );
    assert_eq!(
        lines("// xtask: order-free: only looked up\nlet s: HashSet<u8> = x;"),
        [0; 0]
    );
    assert_eq!(
        lines("f(); // xtask: order-free: f\nlet s: HashSet<u8> = x;"),
        [2]
    );
}

#[test]
fn tests_and_other_crates_may() {
    let source = "use std::time::Instant;\nuse std::collections::HashMap;";
    assert_eq!(lines_at("crates/cpu/src/lib.rs", source), [1, 2]);
    for free in [
        "crates/host/src/lib.rs",
        "crates/cpu/tests/a.rs",
        "crates/cpu/src/a/tests.rs",
        "xtask/src/main.rs",
    ] {
        assert_eq!(lines_at(free, source), [0; 0], "{free}");
    }
    let inside = format!("#[cfg(test)]\nmod tests {{\n{source}\n}}\nuse std::thread;");
    assert_eq!(lines(&inside), [6]);
}

#[test]
fn libraries_that_bring_it_along_are_found() {
    let member = |name: &str, library: &str| Member {
        name: name.to_owned(),
        manifest: format!("crates/{name}/Cargo.toml"),
        uses: Vec::new(),
        libraries: vec![library.to_owned()],
    };
    let found = check_dependencies(&[
        member("machine", "rand"),
        member("machine", "thiserror"),
        member("host", "mio"),
    ]);
    assert_eq!(found.len(), 1);
    assert!(
        found[0]
            .message
            .contains("machine is core and may not use rand")
    );
}
