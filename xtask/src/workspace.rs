//! The workspace's crates and what they depend on, as cargo sees them.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// One crate of the workspace.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    /// Its short name, which is its folder's: `mem` for `crates/mem`.
    pub(crate) name: String,
    /// Its Cargo.toml from the repository's root.
    pub(crate) manifest: String,
    /// The short names of the workspace's crates it depends on, for building or for tests.
    pub(crate) uses: Vec<String>,
    /// The names of other crates it depends on outside of tests.
    pub(crate) libraries: Vec<String>,
}

/// Asks cargo; needs no network and no lock file.
pub(crate) fn members(root: &Path) -> Result<Vec<Member>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--offline", "--format-version=1"])
        .current_dir(root)
        .output()
        .context("can't start cargo metadata")?;
    if !output.status.success() {
        bail!(
            "cargo metadata: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    parse(&output.stdout)
}

/// Reads `cargo metadata --no-deps`.
pub(crate) fn parse(metadata: &[u8]) -> Result<Vec<Member>> {
    let metadata: Value = serde_json::from_slice(metadata).context("cargo metadata")?;
    let root = Path::new(text(&metadata, "workspace_root")?);
    let packages = metadata["packages"]
        .as_array()
        .context("cargo metadata: no packages")?;
    let mut members = Vec::new();
    for package in packages {
        let manifest = Path::new(text(package, "manifest_path")?);
        let folder = manifest.parent().context("a manifest without a folder")?;
        let mut member = Member {
            name: short(folder)?,
            manifest: manifest
                .strip_prefix(root)
                .with_context(|| format!("{} is outside {}", manifest.display(), root.display()))?
                .display()
                .to_string(),
            uses: Vec::new(),
            libraries: Vec::new(),
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            match dependency["path"].as_str() {
                Some(path) => member.uses.push(short(Path::new(path))?),
                None if dependency["kind"] != "dev" => {
                    member.libraries.push(text(dependency, "name")?.to_owned());
                }
                None => {}
            }
        }
        // A crate may name itself, to turn a feature of its own on in its tests.
        member.uses.retain(|used| *used != member.name);
        member.uses.sort();
        member.uses.dedup();
        members.push(member);
    }
    members.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(members)
}

fn short(folder: &Path) -> Result<String> {
    let name = folder
        .file_name()
        .with_context(|| format!("{} has no name", folder.display()))?;
    Ok(name.to_string_lossy().into_owned())
}

fn text<'a>(value: &'a Value, key: &str) -> Result<&'a str> {
    value[key]
        .as_str()
        .with_context(|| format!("cargo metadata: no {key}"))
}

#[cfg(test)]
mod tests;
