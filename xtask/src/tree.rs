//! The repository's text files.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// What was made and not written, wherever it is. In a linked work tree `.git` is a file.
const MADE: [&str; 5] = [".git", "target", "corpus", "artifacts", "coverage"];

/// Longer files are data; text as long as this is nobody's prose or code.
const TEXT_MAX_BYTES: u64 = 4 << 20;

/// One file that a person wrote.
pub(crate) struct TextFile {
    /// From the repository's root, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
}

/// Every text file under `root`, in order of path. A file that isn't UTF-8 or holds a NUL is data
/// and left out.
pub(crate) fn text_files(root: &Path) -> Result<Vec<TextFile>> {
    let mut files = Vec::new();
    walk(root, "", &mut files)?;
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

fn walk(folder: &Path, prefix: &str, files: &mut Vec<TextFile>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    for entry in entries {
        let entry = entry.with_context(|| folder.display().to_string())?;
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        let path = format!("{prefix}{name}");
        let kind = entry.file_type().with_context(|| path.clone())?;
        if MADE.contains(&name.as_str()) {
            continue;
        }
        if kind.is_dir() {
            walk(&entry.path(), &format!("{path}/"), files)?;
        } else if kind.is_file()
            && entry.metadata().with_context(|| path.clone())?.len() <= TEXT_MAX_BYTES
        {
            let bytes = fs::read(entry.path()).with_context(|| path.clone())?;
            if let Ok(text) = String::from_utf8(bytes)
                && !text.contains('\0')
            {
                files.push(TextFile { path, text });
            }
        }
    }
    Ok(())
}
