//! Every test runs: one that is ignored rots, and nobody notices.

use crate::Finding;

/// Looks for tests that are left out.
pub(crate) fn check(path: &str, text: &str) -> Vec<Finding> {
    let lines = text.lines().enumerate();
    let ignored = lines.filter(|(_, line)| line.trim_start().starts_with(concat!("#[ig", "nore")));
    ignored
        .map(|(index, _)| {
            Finding::failure(
                path,
                index + 1,
                "a test that nobody runs: have it run, by a variable with more than `make test` asks \
                 for, or remove it",
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_that_is_left_out_fails() {
        for attribute in ["", " = \"slow\""] {
            let text = format!("#[test]\n    #[ig{}{attribute}]\nfn a() {{}}\n", "nore");
            let findings = check("crates/mem/tests/a.rs", &text);
            assert_eq!(findings.len(), 1);
            assert_eq!(findings[0].line, 2);
        }
        assert_eq!(
            check("crates/mem/tests/a.rs", "#[test]\nfn ignore() {}\n"),
            []
        );
    }
}
