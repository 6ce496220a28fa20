//! Splits Rust source into code and comments, line by line, so that a rule about code isn't moved
//! by a word in a comment or a string. It knows just as much of the language as that takes.

/// One line of source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Line {
    /// The code, with comments left out and the insides of strings and characters emptied.
    pub(crate) code: String,
    /// The text of the comments, with their marks.
    pub(crate) comment: String,
    /// Whether the line belongs to an item under `#[cfg(test)]`.
    pub(crate) test: bool,
}

/// One word or mark of the code, and the line it stands on (from 1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token<'a> {
    pub(crate) line: usize,
    pub(crate) text: &'a str,
}

/// What the next character belongs to.
enum State {
    Code,
    LineComment,
    /// Block comments nest.
    BlockComment(usize),
    Text,
    /// A raw string ends at a quote with as many `#`.
    RawText(usize),
}

/// Splits one file.
pub(crate) fn split(source: &str) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut state = State::Code;
    for source_line in source.lines() {
        let chars: Vec<char> = source_line.chars().collect();
        let mut line = Line::default();
        let mut at = 0;
        if matches!(state, State::LineComment) {
            state = State::Code;
        }
        while at < chars.len() {
            at = step(&chars, at, &mut state, &mut line);
        }
        lines.push(line);
    }
    mark_tests(&mut lines);
    lines
}

/// Takes the character at `at`, or a few with it; returns where the next one is.
fn step(chars: &[char], at: usize, state: &mut State, line: &mut Line) -> usize {
    let here = chars[at];
    let next = chars.get(at + 1).copied().unwrap_or('\n');
    match *state {
        State::LineComment => {
            line.comment.push(here);
            at + 1
        }
        State::BlockComment(depth) => {
            line.comment.push(here);
            match (here, next) {
                ('*', '/') => {
                    line.comment.push(next);
                    *state = match depth {
                        1 => State::Code,
                        _ => State::BlockComment(depth - 1),
                    };
                    at + 2
                }
                ('/', '*') => {
                    line.comment.push(next);
                    *state = State::BlockComment(depth + 1);
                    at + 2
                }
                _ => at + 1,
            }
        }
        State::Text => match here {
            '\\' => at + 2,
            '"' => {
                line.code.push('"');
                *state = State::Code;
                at + 1
            }
            _ => at + 1,
        },
        State::RawText(hashes) => {
            let closes = here == '"'
                && chars.len() > at + hashes
                && chars[at + 1..=at + hashes].iter().all(|&c| c == '#');
            if closes {
                line.code.push('"');
                *state = State::Code;
                at + 1 + hashes
            } else {
                at + 1
            }
        }
        State::Code => match here {
            '/' if next == '/' => {
                *state = State::LineComment;
                at
            }
            '/' if next == '*' => {
                line.comment.push_str("/*");
                *state = State::BlockComment(1);
                at + 2
            }
            '"' => {
                line.code.push('"');
                let hashes = raw_prefix(&chars[..at]);
                *state = match hashes {
                    Some(hashes) => State::RawText(hashes),
                    None => State::Text,
                };
                at + 1
            }
            '\'' => character(chars, at, line),
            _ => {
                line.code.push(here);
                at + 1
            }
        },
    }
}

/// The number of `#` if what stands before a quote makes it a raw string: `r`, `br` or `cr`, then
/// hashes, and no longer word that only ends in `r`.
fn raw_prefix(before: &[char]) -> Option<usize> {
    let hashes = before.iter().rev().take_while(|&&c| c == '#').count();
    let word: String = before[..before.len() - hashes]
        .iter()
        .rev()
        .take_while(|c| c.is_alphanumeric() || **c == '_')
        .collect();
    matches!(word.as_str(), "r" | "rb" | "rc").then_some(hashes)
}

/// Takes a character literal, or just the mark of a lifetime.
fn character(chars: &[char], at: usize, line: &mut Line) -> usize {
    line.code.push('\'');
    let escaped = chars.get(at + 1) == Some(&'\\');
    if escaped {
        // The escaped character may itself be a quote.
        let end = chars.iter().skip(at + 3).position(|&c| c == '\'');
        line.code.push('\'');
        return end.map_or(chars.len(), |end| at + 3 + end + 1);
    }
    if chars.get(at + 2) == Some(&'\'') {
        line.code.push('\'');
        return at + 3;
    }
    at + 1
}

/// Marks the lines of every item under `#[cfg(test)]`, to its closing brace or semicolon.
fn mark_tests(lines: &mut [Line]) {
    let mut line = 0;
    while line < lines.len() {
        let Some(column) = lines[line].code.find("#[cfg(test)]") else {
            line += 1;
            continue;
        };
        let from = column + "#[cfg(test)]".len();
        let last = item_end(lines, line, from);
        for marked in &mut lines[line..=last] {
            marked.test = true;
        }
        line = last + 1;
    }
}

/// The line on which the item that starts after (`line`, `column`) ends.
fn item_end(lines: &[Line], line: usize, column: usize) -> usize {
    let mut braces = 0_usize;
    // Brackets and parentheses around a `;` (an array's length) don't end the item.
    let mut around = 0_usize;
    for (index, text) in lines.iter().enumerate().skip(line) {
        let skip = if index == line { column } else { 0 };
        for c in text.code[skip..].chars() {
            match c {
                '(' | '[' => around += 1,
                ')' | ']' => around = around.saturating_sub(1),
                '{' => braces += 1,
                '}' => {
                    braces = braces.saturating_sub(1);
                    if braces == 0 && around == 0 {
                        return index;
                    }
                }
                ';' if braces == 0 && around == 0 => return index,
                _ => {}
            }
        }
    }
    lines.len() - 1
}

/// The words and marks of the code, in order. `::` is one mark; every other mark is one character.
pub(crate) fn tokens(lines: &[Line]) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let mut rest = line.code.trim_start();
        while let Some(first) = rest.chars().next() {
            let length = if is_word(first) {
                rest.find(|c| !is_word(c)).unwrap_or(rest.len())
            } else if rest.starts_with("::") {
                2
            } else {
                first.len_utf8()
            };
            let (text, after) = rest.split_at(length);
            tokens.push(Token {
                line: index + 1,
                text,
            });
            rest = after.trim_start();
        }
    }
    tokens
}

/// Whether `c` can stand inside a name.
pub(crate) fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Whether a whole file is for tests: it lies in a folder `tests`, `benches` or `examples`, or is
/// named `tests.rs` or `…_tests.rs`.
pub(crate) fn is_test_path(path: &str) -> bool {
    let mut parts: Vec<&str> = path.split('/').collect();
    let file = parts.pop().unwrap_or_default();
    file == "tests.rs"
        || file.ends_with("_tests.rs")
        || parts
            .iter()
            .any(|part| ["tests", "benches", "examples"].contains(part))
}

#[cfg(test)]
mod tests;
