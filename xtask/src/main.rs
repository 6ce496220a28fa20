//! The project's own checks, run as `cargo xtask check`, and its simulator, `cargo xtask simulate`.
//!
//! Each rule lives in a module of its own and turns text into [`Finding`]s; only this file and
//! [`tree`] read the file system, and only [`workspace`] asks cargo. So every rule can be shown bad
//! text in a test.

mod arrows;
mod core_rules;
mod ignored;
mod length;
mod lexer;
mod lints;
mod simulate;
mod tree;
mod unsafe_rules;
mod words;
mod workspace;

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};

/// The document that holds the table of allowed arrows.
const ARCHITECTURE: &str = "docs/ARCHITECTURE.md";

const USAGE: &str = "\
usage:
  cargo xtask check                   the project's own rules
  cargo xtask simulate --minutes 10   production replicas in a simulated world, run after run with
                                      new seeds (simulate --help says more)
";

/// How much a finding weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Weight {
    /// Printed only.
    Warning,
    /// Ends the check with a failure.
    Failure,
}

/// One place that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    weight: Weight,
    /// From the repository's root.
    path: String,
    /// From 1; 0 when it is about the whole file.
    line: usize,
    message: String,
}

impl Finding {
    fn failure(path: &str, line: usize, message: impl Into<String>) -> Self {
        Self {
            weight: Weight::Failure,
            path: path.to_owned(),
            line,
            message: message.into(),
        }
    }

    fn warning(path: &str, line: usize, message: impl Into<String>) -> Self {
        Self {
            weight: Weight::Warning,
            ..Self::failure(path, line, message)
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.weight {
            Weight::Warning => "warning",
            Weight::Failure => "error",
        };
        write!(f, "{kind}: {}", self.path)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        write!(f, ": {}", self.message)
    }
}

fn main() -> Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let root = root(&std::env::current_dir()?)?;
    match arguments.split_first() {
        Some((first, [])) if first == "check" => {}
        Some((first, rest)) if first == "simulate" => return simulate::run(&root, rest),
        _ => {
            eprint!("{USAGE}");
            let asked = matches!(&arguments[..], [one] if one == "--help" || one == "-h");
            return Ok(ExitCode::from(if asked { 0 } else { 2 }));
        }
    }
    let (findings, files) = check(&root)?;
    for finding in &findings {
        eprintln!("{finding}");
    }
    let failures = findings
        .iter()
        .filter(|finding| finding.weight == Weight::Failure)
        .count();
    println!("xtask check: {files} files, {failures} failed");
    Ok(if failures == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The repository's root: the nearest folder above with a Cargo.toml and an xtask folder.
/// Looked for at run time, so a moved checkout needs no new build.
fn root(from: &Path) -> Result<PathBuf> {
    from.ancestors()
        .find(|folder| folder.join("Cargo.toml").is_file() && folder.join("xtask").is_dir())
        .map(Path::to_path_buf)
        .with_context(|| format!("no workspace above {}", from.display()))
}

/// Every rule over the whole repository; also the number of files read.
fn check(root: &Path) -> Result<(Vec<Finding>, usize)> {
    let files = tree::text_files(root)?;
    let members = workspace::members(root)?;
    let mut findings = Vec::new();

    match files.iter().find(|file| file.path == ARCHITECTURE) {
        Some(file) => findings.extend(arrows::check(&members, ARCHITECTURE, &file.text)),
        None => findings.push(Finding::failure(
            ARCHITECTURE,
            0,
            "is missing: it holds the table of which crate may use which",
        )),
    }
    findings.extend(core_rules::check_dependencies(&members));
    for file in &files {
        findings.extend(words::check(&file.path, &file.text));
        if !file.path.ends_with(".rs") {
            continue;
        }
        findings.extend(ignored::check(&file.path, &file.text));
        let lines = lexer::split(&file.text);
        findings.extend(length::check(&file.path, lines.len()));
        findings.extend(unsafe_rules::check(&file.path, &lines));
        findings.extend(core_rules::check_source(&file.path, &lines));
    }
    for member in &members {
        match files.iter().find(|file| file.path == member.manifest) {
            Some(file) => findings.extend(lints::check(&member.manifest, &file.text)),
            None => findings.push(Finding::failure(&member.manifest, 0, "can't be read")),
        }
    }
    Ok((findings, files.len()))
}
