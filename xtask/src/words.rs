//! Words that may not stand in any text file: places of one machine or one network.

use crate::Finding;

/// The word, and what to write in its place. Written in two halves, so that this file passes.
const FORBIDDEN: [(&str, &str); 7] = [
    (concat!("/wo", "rk/"), "a path from the repository's root"),
    (
        concat!("deb.deb", "ian.org"),
        "the host's own mirror, or an example name",
    ),
    (
        concat!("snapshot.deb", "ian.org"),
        "the host's own mirror, or an example name",
    ),
    (
        concat!("security.deb", "ian.org"),
        "the host's own mirror, or an example name",
    ),
    (concat!("crates", ".io"), "the default registry"),
    (concat!("py", "pi.org"), "the package's name"),
    (concat!("registry.npm", "js"), "the package's name"),
];

/// Written by cargo, with the registry's address in it.
const EXEMPT: [&str; 2] = ["Cargo.lock", "fuzz/Cargo.lock"];

/// Looks through one text file.
pub(crate) fn check(path: &str, text: &str) -> Vec<Finding> {
    if EXEMPT.contains(&path) {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.to_ascii_lowercase();
        for (word, instead) in FORBIDDEN {
            if line.contains(word) {
                findings.push(Finding::failure(
                    path,
                    index + 1,
                    format!("`{word}` names one machine or network: write {instead}"),
                ));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_word_is_found_where_it_stands() {
        for (word, _) in FORBIDDEN {
            let text = format!("fine\n// see {} there\n", word.to_ascii_uppercase());
            let findings = check("docs/X.md", &text);
            assert_eq!(findings.len(), 1, "{word}");
            assert_eq!(findings[0].line, 2);
            assert_eq!(check("Cargo.lock", &text), []);
        }
        assert_eq!(
            check(
                "docs/X.md",
                "a network/works, and http://mirror.example/debian\n"
            ),
            []
        );
    }
}
