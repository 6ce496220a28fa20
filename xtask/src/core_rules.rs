//! The core takes time, bytes and seeds as arguments: no clock, socket, thread or random source is
//! inside it, and no map whose order differs from run to run.

use crate::Finding;
use crate::lexer::{Line, Token, is_test_path, is_word, tokens};
use crate::workspace::Member;

/// The crates that two nodes have to run alike, step by step.
const CORE: [&str; 9] = [
    "mem", "fp", "cpu", "jit", "log", "devices", "machine", "protocol", "replica",
];

/// Parts of the standard library that the core may not name, and why. A path is forbidden with
/// everything below it.
const FORBIDDEN_PATHS: [(&str, &str); 10] = [
    ("std::time::Instant", "the host's clock"),
    ("std::time::SystemTime", "the host's clock"),
    ("std::time::UNIX_EPOCH", "the host's clock"),
    ("std::time::*", "the host's clock"),
    ("std::thread", "threads"),
    ("std::thread_local", "threads"),
    ("std::net", "sockets"),
    ("std::os::unix::net", "sockets"),
    ("std::hash::RandomState", "a random source"),
    (
        "std::hash::DefaultHasher",
        "an order that may change with the compiler",
    ),
];

/// Names that may not stand alone either.
const FORBIDDEN_NAMES: [(&str, &str); 3] = [
    ("SystemTime", "the host's clock"),
    ("thread_local", "threads"),
    ("RandomState", "a random source"),
];

/// Maps whose order comes from a random seed.
const UNORDERED: [&str; 2] = ["HashMap", "HashSet"];

/// On the line of such a map (or the comment line above), with a reason: its order is never seen.
const ORDER_FREE: &str = "xtask: order-free:";

/// Crates that bring what the core may not have. Tests may use them.
const FORBIDDEN_LIBRARIES: [&str; 11] = [
    "crossbeam-channel",
    "fastrand",
    "getrandom",
    "hashbrown",
    "mio",
    "rand",
    "rand_core",
    "rayon",
    "signal-hook",
    "socket2",
    "tokio",
];

/// Checks what the core crates depend on.
pub(crate) fn check_dependencies(members: &[Member]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for member in members
        .iter()
        .filter(|member| CORE.contains(&member.name.as_str()))
    {
        for library in &member.libraries {
            if FORBIDDEN_LIBRARIES.contains(&library.as_str()) {
                findings.push(Finding::failure(
                    &member.manifest,
                    0,
                    format!("{} is core and may not use {library}", member.name),
                ));
            }
        }
    }
    findings
}

/// Checks one source file; only the core crates' own, without their tests.
pub(crate) fn check_source(path: &str, lines: &[Line]) -> Vec<Finding> {
    let core = path
        .strip_prefix("crates/")
        .and_then(|rest| rest.split('/').next())
        .is_some_and(|name| CORE.contains(&name));
    if !core || is_test_path(path) {
        return Vec::new();
    }
    let mut findings = Vec::new();
    let mut found = |line: usize, message: String| {
        let finding = Finding::failure(path, line, message);
        // A path and the name at its end are one fault.
        let known = findings.iter().any(|known: &Finding| known.line == line);
        if !lines[line - 1].test && !known {
            findings.push(finding);
        }
    };

    let tokens = tokens(lines);
    for (line, path) in std_paths(&tokens) {
        if path == "std::time" {
            found(
                line,
                "`std::time` whole brings the host's clock along: name what is used of it"
                    .to_owned(),
            );
        }
        for (forbidden, what) in FORBIDDEN_PATHS {
            let below = path
                .strip_prefix(forbidden)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
            if below {
                found(line, format!("`{path}` brings {what} into the core"));
            }
        }
    }
    for token in &tokens {
        for (name, what) in FORBIDDEN_NAMES {
            if token.text == name {
                found(token.line, format!("`{name}` brings {what} into the core"));
            }
        }
        if UNORDERED.contains(&token.text) && !is_order_free(lines, token.line) {
            found(
                token.line,
                format!(
                    "`{}` has an order that differs from run to run: use a BTree, or say on this \
                     line why nobody sees the order: `// {ORDER_FREE} reason`",
                    token.text
                ),
            );
        }
    }
    findings
}

/// Whether `line` (from 1), or a comment line right above it, gives the reason.
fn is_order_free(lines: &[Line], line: usize) -> bool {
    let gives_reason = |line: &Line| {
        line.comment
            .split_once(ORDER_FREE)
            .is_some_and(|(_, reason)| !reason.trim().is_empty())
    };
    let above = line.checked_sub(2).map(|index| &lines[index]);
    gives_reason(&lines[line - 1])
        || above.is_some_and(|above| above.code.trim().is_empty() && gives_reason(above))
}

/// Every path from `std`, with groups (`std::{a, b::c}`) taken apart, and the line it ends on.
fn std_paths(tokens: &[Token<'_>]) -> Vec<(usize, String)> {
    let mut paths = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        if token.text == "std" {
            tree(tokens, index, "", &mut paths);
        }
    }
    paths
}

/// Reads one path or use tree that starts at `at`; returns where what follows it is.
fn tree(
    tokens: &[Token<'_>],
    mut at: usize,
    prefix: &str,
    paths: &mut Vec<(usize, String)>,
) -> usize {
    let mut path = prefix.to_owned();
    let mut line = 0;
    while let Some(token) = tokens.get(at) {
        if token.text == "{" && path.ends_with("::") {
            at += 1;
            while let Some(inner) = tokens.get(at) {
                match inner.text {
                    "}" => return at + 1,
                    "," => at += 1,
                    _ => at = tree(tokens, at, &path, paths).max(at + 1),
                }
            }
            return at;
        }
        let joins = path.is_empty() || path.ends_with("::");
        let part = token.text.starts_with(is_word) || token.text == "*";
        if (joins && part) || (!joins && token.text == "::") {
            path.push_str(token.text);
            line = token.line;
            at += 1;
        } else {
            break;
        }
    }
    if line > 0 {
        let path = path.trim_end_matches("::");
        let path = path.strip_suffix("::self").unwrap_or(path);
        paths.push((line, path.to_owned()));
    }
    at
}

#[cfg(test)]
mod tests;
