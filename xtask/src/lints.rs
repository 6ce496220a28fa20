//! Each crate takes the workspace's lints.

use crate::Finding;

/// Reads one crate's Cargo.toml.
pub(crate) fn check(path: &str, manifest: &str) -> Option<Finding> {
    let manifest: toml::Table = match manifest.parse() {
        Ok(manifest) => manifest,
        Err(error) => return Some(Finding::failure(path, 0, format!("not TOML: {error}"))),
    };
    let inherits = manifest
        .get("lints")
        .and_then(|lints| lints.get("workspace"))
        .and_then(toml::Value::as_bool);
    (inherits != Some(true)).then(|| {
        Finding::failure(
            path,
            0,
            "doesn't take the workspace's lints: add `[lints]` with `workspace = true`",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crate_without_the_lints_fails() {
        let path = "crates/mem/Cargo.toml";
        assert_eq!(check(path, "[lints]\nworkspace = true\n"), None);
        for bad in [
            "[package]\nname = \"twinvm-mem\"\n",
            "[lints]\nworkspace = false\n",
            "[lints.rust]\nunsafe_code = \"allow\"\n",
            "[lints\n",
        ] {
            assert!(check(path, bad).is_some(), "{bad}");
        }
    }
}
