//! `unsafe` stands only in the crates that need it, and each place says why it is sound.

use crate::Finding;
use crate::lexer::{Line, Token, is_word, tokens};

/// Where `unsafe` may stand: guest memory, made machine code, and the host's system calls; and the
/// tests that call a C reference.
const ALLOWED: [&str; 4] = [
    "crates/mem/",
    "crates/jit/",
    "crates/host/",
    "crates/fp/tests/",
];

/// How far above a place its reason may begin: a statement is not longer, and a comment neither.
const REASON_LINES: usize = 40;

/// What follows the word `unsafe`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Does something unsafe itself: a block, an impl, an extern block, an attribute.
    Use,
    /// Asks something of its callers: a function or a trait.
    Contract,
    /// The type of a pointer to such a function.
    Type,
}

/// Checks one source file, tests included.
pub(crate) fn check(path: &str, lines: &[Line]) -> Vec<Finding> {
    let allowed = ALLOWED.iter().any(|folder| path.starts_with(folder));
    let tokens = tokens(lines);
    let mut findings = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        if token.text == "unsafe_code" && !allowed && names_lint(&tokens, index) {
            findings.push(Finding::failure(
                path,
                token.line,
                "allows unsafe code in a crate that may have none",
            ));
        }
        if token.text != "unsafe" {
            continue;
        }
        if !allowed {
            findings.push(Finding::failure(
                path,
                token.line,
                format!("`unsafe` may stand only in {}", ALLOWED.join(", ")),
            ));
            continue;
        }
        let (marks, wanted): (&[&str], &str) = match place(&tokens[index + 1..]) {
            Place::Use => (&["SAFETY:"], "a `// SAFETY:` comment"),
            Place::Contract => (&["# Safety", "SAFETY:"], "a `# Safety` section in its doc"),
            Place::Type => continue,
        };
        if !has_reason(lines, token.line, marks) {
            findings.push(Finding::failure(
                path,
                token.line,
                format!("`unsafe` without {wanted} directly above"),
            ));
        }
    }
    findings
}

/// Whether the lint's name at `index` is allowed or expected there, and not forbidden or denied.
fn names_lint(tokens: &[Token<'_>], index: usize) -> bool {
    tokens[..index]
        .iter()
        .rev()
        .take_while(|token| token.text != "[")
        .any(|token| ["allow", "expect", "warn"].contains(&token.text))
}

/// What the word `unsafe` before `after` stands for.
fn place(after: &[Token<'_>]) -> Place {
    let mut words = after.iter().map(|token| token.text).peekable();
    // `extern "C" fn`: the string's inside is empty here.
    if words.peek() == Some(&"extern") {
        words.next();
        while words.peek() == Some(&"\"") {
            words.next();
        }
    }
    match words.next() {
        Some("fn") => match words.next() {
            Some(name) if name.starts_with(is_word) || name == "$" => Place::Contract,
            _ => Place::Type,
        },
        Some("trait") => Place::Contract,
        _ => Place::Use,
    }
}

/// Whether one of `marks` stands in a comment on `line` (from 1), or in the comments directly above
/// the statement that `line` belongs to. Attributes between don't count.
fn has_reason(lines: &[Line], line: usize, marks: &[&str]) -> bool {
    let marked = |line: &Line| marks.iter().any(|mark| line.comment.contains(mark));
    if marked(&lines[line - 1]) {
        return true;
    }
    for above in lines[..line - 1].iter().rev().take(REASON_LINES) {
        let code = above.code.trim();
        if marked(above) {
            // At the end of a line of code a comment speaks of that line.
            return code.is_empty();
        }
        let comment_only = code.is_empty() && !above.comment.is_empty();
        let goes_on =
            !code.is_empty() && (code.starts_with('#') || !code.ends_with([';', '{', '}', ',']));
        if !comment_only && !goes_on {
            return false;
        }
    }
    false
}

#[cfg(test)]
mod tests;
