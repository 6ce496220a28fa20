//! A file has one subject and ends when it ends; a long one asks for a second look.

use crate::Finding;
use crate::lexer::is_test_path;

/// Past this a file is listed.
const LOOK_LINES: usize = 600;

/// Past this it has to be split.
const MAX_LINES: usize = 900;

/// Judges one Rust file by its number of lines. Tests may be long: they are many small subjects.
pub(crate) fn check(path: &str, lines: usize) -> Option<Finding> {
    if is_test_path(path) || lines <= LOOK_LINES {
        return None;
    }
    Some(if lines > MAX_LINES {
        Finding::failure(
            path,
            0,
            format!("{lines} lines, at most {MAX_LINES} are allowed: split it by subject"),
        )
    } else {
        Finding::warning(
            path,
            0,
            format!("{lines} lines, over {LOOK_LINES}: is it still one subject?"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Weight;

    #[test]
    fn long_files_are_listed_and_longer_ones_fail() {
        let weight = |path, lines| check(path, lines).map(|finding| finding.weight);
        assert_eq!(weight("crates/cpu/src/a.rs", 600), None);
        assert_eq!(weight("crates/cpu/src/a.rs", 601), Some(Weight::Warning));
        assert_eq!(weight("crates/cpu/src/a.rs", 900), Some(Weight::Warning));
        assert_eq!(weight("crates/cpu/src/a.rs", 901), Some(Weight::Failure));
        assert_eq!(weight("crates/cpu/src/a/tests.rs", 2000), None);
    }
}
