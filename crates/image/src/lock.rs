//! The lock file: which packages an image is made of, and what comes out.
//!
//! One item a line, fields parted by one space, `#` for comments:
//!
//! ```text
//! recipe SHA256
//! package NAME VERSION ARCHITECTURE SHA256 SIZE
//! output NAME SHA256 SIZE
//! ```
//!
//! `recipe` is the digest of everything in this program that shapes the outcome, so that a
//! changed init script with an old lock is noticed.

use std::fmt;
use std::str::FromStr;

use crate::Sha256;

/// A locked package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// As in the archive's index.
    pub name: String,
    /// With epoch and revision.
    pub version: String,
    /// `riscv64` or `all`.
    pub architecture: String,
    /// Of the .deb file.
    pub sha256: Sha256,
    /// Of the .deb file.
    pub size_bytes: u64,
}

impl Package {
    /// The name under which apt-get stores the download.
    pub fn file_name(&self) -> String {
        let version = self.version.replace(':', "%3a");
        format!("{}_{version}_{}.deb", self.name, self.architecture)
    }
}

/// A file that the build makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// `kernel` or `initrd.cpio`.
    pub name: String,
    /// Of the contents.
    pub sha256: Sha256,
    /// Of the contents.
    pub size_bytes: u64,
}

/// A whole lock file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lock {
    /// Digest of what this program puts in: init script, file lists, version of the builder.
    pub recipe: Sha256,
    /// Sorted by name.
    pub packages: Vec<Package>,
    /// Sorted by name.
    pub outputs: Vec<Output>,
}

/// Why a text is no lock file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadLock {
    /// From 1; 0 where the text as a whole lacks something.
    pub line: usize,
    /// What is wrong.
    pub why: String,
}

/// A lock names a few dozen packages; this many lines are no lock.
const MAX_LINES: usize = 4096;
/// No package or output of an image is larger.
const MAX_SIZE_BYTES: u64 = 4 << 30;

impl Lock {
    /// Reads a lock file.
    ///
    /// # Errors
    ///
    /// The first line that is wrong, and how.
    pub fn parse(text: &str) -> Result<Self, BadLock> {
        let mut recipe = None;
        let mut packages: Vec<Package> = Vec::new();
        let mut outputs: Vec<Output> = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let bad = |why: String| BadLock {
                line: index + 1,
                why,
            };
            if index >= MAX_LINES {
                return Err(bad(format!("more than {MAX_LINES} lines")));
            }
            let line = line.trim_end();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let fields: Vec<&str> = line.split(' ').collect();
            match fields[..] {
                ["recipe", digest] => {
                    if recipe.replace(sha256(digest).map_err(bad)?).is_some() {
                        return Err(bad("a second `recipe`".to_owned()));
                    }
                }
                ["package", name, version, architecture, digest, size] => {
                    let package = Package {
                        name: word(name, "+-.").map_err(bad)?,
                        version: word(version, "+-.:~").map_err(bad)?,
                        architecture: word(architecture, "").map_err(bad)?,
                        sha256: sha256(digest).map_err(bad)?,
                        size_bytes: size_bytes(size).map_err(bad)?,
                    };
                    if packages.iter().any(|other| other.name == package.name) {
                        return Err(bad(format!("package {name} is there twice")));
                    }
                    packages.push(package);
                }
                ["output", name, digest, size] => {
                    let output = Output {
                        name: word(name, ".").map_err(bad)?,
                        sha256: sha256(digest).map_err(bad)?,
                        size_bytes: size_bytes(size).map_err(bad)?,
                    };
                    if outputs.iter().any(|other| other.name == output.name) {
                        return Err(bad(format!("output {name} is there twice")));
                    }
                    outputs.push(output);
                }
                [item @ ("recipe" | "package" | "output"), ..] => {
                    return Err(bad(format!("`{item}` has another number of fields")));
                }
                [item, ..] => return Err(bad(format!("unknown item `{item}`"))),
                [] => {}
            }
        }
        let lacks = |what: &str| BadLock {
            line: 0,
            why: format!("has no line `{what}`"),
        };
        packages.sort_by(|a, b| a.name.cmp(&b.name));
        outputs.sort_by(|a, b| a.name.cmp(&b.name));
        if packages.is_empty() {
            return Err(lacks("package"));
        }
        if outputs.is_empty() {
            return Err(lacks("output"));
        }
        Ok(Self {
            recipe: recipe.ok_or_else(|| lacks("recipe"))?,
            packages,
            outputs,
        })
    }
}

impl fmt::Display for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "# What this image is made of and what comes out.")?;
        writeln!(f, "# `twinvm image build --update-lock` writes this file.")?;
        writeln!(f, "recipe {}", self.recipe)?;
        for package in &self.packages {
            let Package {
                name,
                version,
                architecture,
                sha256,
                size_bytes,
            } = package;
            writeln!(
                f,
                "package {name} {version} {architecture} {sha256} {size_bytes}"
            )?;
        }
        for output in &self.outputs {
            let Output {
                name,
                sha256,
                size_bytes,
            } = output;
            writeln!(f, "output {name} {sha256} {size_bytes}")?;
        }
        Ok(())
    }
}

/// Letters, digits and the marks given, beginning with a letter or digit: never a path, never
/// an option.
fn word(text: &str, marks: &str) -> Result<String, String> {
    let plain = text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text
            .chars()
            .all(|letter| letter.is_ascii_alphanumeric() || marks.contains(letter));
    if plain {
        Ok(text.to_owned())
    } else {
        Err(format!("`{text}` is not a name"))
    }
}

fn sha256(text: &str) -> Result<Sha256, String> {
    Sha256::from_str(text).map_err(|_| format!("`{text}` is not a SHA-256"))
}

fn size_bytes(text: &str) -> Result<u64, String> {
    text.parse()
        .ok()
        .filter(|size| *size <= MAX_SIZE_BYTES)
        .ok_or_else(|| format!("`{text}` is not a size in bytes up to {MAX_SIZE_BYTES}"))
}

#[cfg(test)]
mod tests;
