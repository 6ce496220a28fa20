//! Reads the host's apt sources, to learn which Debian mirror this host is meant to use.
//!
//! Both forms of sources.list(5) are known: one line per source, and deb822 stanzas.

use std::fs;
use std::path::{Path, PathBuf};

use crate::ImageError;

/// One source of binary packages.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Source {
    /// Addresses of the archive.
    pub uris: Vec<String>,
    /// Suites such as `bookworm` or `bookworm-security`.
    pub suites: Vec<String>,
    /// Components such as `main`.
    pub components: Vec<String>,
    /// Keyring files that the archive is signed by; empty: apt's trusted keys.
    pub signed_by: Vec<String>,
    /// The host takes the archive unsigned.
    pub trusted: bool,
}

/// A line that is not understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadLine {
    /// From 1.
    pub line: usize,
    /// What is wrong with it.
    pub why: String,
}

impl BadLine {
    fn new(index: usize, why: impl Into<String>) -> Self {
        Self {
            line: index + 1,
            why: why.into(),
        }
    }
}

/// Reads the one-line form: `deb [options] uri suite component...`.
///
/// # Errors
///
/// The first line that is neither a source nor a comment.
pub fn parse_list(text: &str) -> Result<Vec<Source>, BadLine> {
    let mut sources = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        let (kind, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        match kind {
            "" | "deb-src" => continue,
            "deb" => {}
            other => return Err(BadLine::new(index, format!("unknown type `{other}`"))),
        }
        let mut source = Source::default();
        let mut rest = rest.trim_start();
        if let Some(options) = rest.strip_prefix('[') {
            let (options, after) = options
                .split_once(']')
                .ok_or_else(|| BadLine::new(index, "no `]` after `[`"))?;
            for option in options.split_whitespace() {
                let (name, value) = option
                    .split_once('=')
                    .ok_or_else(|| BadLine::new(index, format!("no `=` in `{option}`")))?;
                match name.to_ascii_lowercase().as_str() {
                    "signed-by" => source.signed_by = words(&value.replace(',', " ")),
                    "trusted" => source.trusted = is_yes(value),
                    _ => {}
                }
            }
            rest = after;
        }
        let mut fields = rest.split_whitespace().map(str::to_owned);
        let (Some(uri), Some(suite)) = (fields.next(), fields.next()) else {
            return Err(BadLine::new(index, "an address and a suite are expected"));
        };
        source.uris.push(uri);
        source.suites.push(suite);
        source.components.extend(fields);
        sources.push(source);
    }
    Ok(sources)
}

/// Reads deb822 stanzas: `Types:`, `URIs:`, `Suites:` and so on, an empty line between stanzas.
///
/// # Errors
///
/// The first line that is neither a field, nor goes on with one, nor is a comment.
pub fn parse_deb822(text: &str) -> Result<Vec<Source>, BadLine> {
    let mut sources = Vec::new();
    let mut stanza: Vec<(String, String)> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.starts_with('#') {
            continue;
        }
        if line.trim().is_empty() {
            sources.extend(source_of(&std::mem::take(&mut stanza)));
        } else if line.starts_with([' ', '\t']) {
            let (_, value) = stanza
                .last_mut()
                .ok_or_else(|| BadLine::new(index, "goes on with a field, but none is open"))?;
            value.push(' ');
            value.push_str(line.trim());
        } else {
            let (name, value) = line
                .split_once(':')
                .ok_or_else(|| BadLine::new(index, "`Field: value` is expected"))?;
            stanza.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    sources.extend(source_of(&stanza));
    Ok(sources)
}

/// None: switched off, or of source packages only, or empty.
fn source_of(stanza: &[(String, String)]) -> Option<Source> {
    let field = |name: &str| {
        stanza
            .iter()
            .find(|(field, _)| field == name)
            .map_or("", |(_, value)| value.as_str())
    };
    let on = field("enabled").is_empty() || is_yes(field("enabled"));
    if !on || !words(field("types")).iter().any(|kind| kind == "deb") {
        return None;
    }
    let signed_by = words(field("signed-by"));
    Some(Source {
        uris: words(field("uris")),
        suites: words(field("suites")),
        components: words(field("components")),
        // A key may stand in the file itself: then it is no list of keyring files.
        signed_by: if signed_by.iter().all(|file| file.starts_with('/')) {
            signed_by
        } else {
            Vec::new()
        },
        trusted: is_yes(field("trusted")),
    })
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn is_yes(word: &str) -> bool {
    ["yes", "true", "1", "on", "enable", "with"]
        .iter()
        .any(|yes| word.eq_ignore_ascii_case(yes))
}

/// A mirror of the Debian archive, with how the host trusts it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// The address that `dists/` and `pool/` are under.
    pub uri: String,
    /// The keyring that its index must be signed by.
    pub keyring: String,
    /// The host takes this mirror unsigned.
    pub trusted: bool,
}

/// Where Debian's own package `debian-archive-keyring` keeps the archive's keys.
pub const ARCHIVE_KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Suites of the main archive: a name with an appendix (`-security`, `-backports`) may live on
/// another address.
const SUITES: [&str; 11] = [
    "oldstable",
    "stable",
    "testing",
    "unstable",
    "sid",
    "bullseye",
    "bookworm",
    "trixie",
    "forky",
    "duke",
    "experimental",
];

/// The first source that is Debian's own archive.
///
/// Other archives call their suites `bookworm` and their components `main` too, but they come
/// with a key of their own.
pub fn debian_mirror(sources: &[Source]) -> Option<Mirror> {
    sources.iter().find_map(|source| {
        let debian_key = |file: &String| file.contains("debian-archive");
        let fits = source
            .suites
            .iter()
            .any(|suite| SUITES.contains(&suite.as_str()))
            && source
                .components
                .iter()
                .any(|component| component == "main")
            && (source.signed_by.is_empty() || source.signed_by.iter().any(debian_key));
        let uri = source.uris.first().filter(|_| fits)?;
        let keyring = source.signed_by.iter().find(|file| debian_key(file));
        Some(Mirror {
            uri: uri.clone(),
            // A keyring for one suite only (debian-archive-bookworm-…) lacks the image's suite.
            keyring: keyring
                .filter(|file| file.contains("debian-archive-keyring"))
                .map_or(ARCHIVE_KEYRING, String::as_str)
                .to_owned(),
            trusted: source.trusted,
        })
    })
}

/// Reads all sources below `etc_apt` in apt's own order and picks the Debian mirror.
pub(crate) fn host_mirror(etc_apt: &Path) -> Result<Mirror, ImageError> {
    let mut files = vec![etc_apt.join("sources.list")];
    let parts = etc_apt.join("sources.list.d");
    if let Ok(entries) = fs::read_dir(&parts) {
        let mut names: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        names.sort();
        files.extend(names);
    }
    let mut sources = Vec::new();
    for path in files {
        let parse = match path.extension().and_then(|ending| ending.to_str()) {
            Some("list") => parse_list,
            Some("sources") => parse_deb822,
            _ => continue,
        };
        if !path.is_file() {
            continue;
        }
        let bytes = fs::read(&path).map_err(ImageError::io(&path))?;
        let found = parse(&String::from_utf8_lossy(&bytes)).map_err(|bad| ImageError::Sources {
            path: path.clone(),
            line: bad.line,
            why: bad.why,
        })?;
        sources.extend(found);
    }
    debian_mirror(&sources).ok_or_else(|| ImageError::NoMirror(etc_apt.to_owned()))
}

#[cfg(test)]
mod tests;
