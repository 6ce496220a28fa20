//! Writes an initramfs: a cpio archive in the "newc" form
//! (Linux, Documentation/driver-api/early-userspace/buffer-format.rst).
//!
//! Equal contents give equal bytes: names are sorted, owner and group are 0, times are 0, and
//! inode numbers count up from 1.

use std::collections::BTreeMap;
use std::io::{self, Write};

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;
const CHARACTER: u32 = 0o020_000;

/// What stands under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    Directory,
    File { executable: bool, data: Vec<u8> },
    Link(String),
    Character { major: u32, minor: u32 },
}

/// A file tree to be written as an archive. Names are relative to the root (`bin/sh`).
///
/// Folders above a name appear by themselves, with mode 0755.
#[derive(Debug, Clone, Default)]
pub struct Archive {
    nodes: BTreeMap<String, Node>,
}

impl Archive {
    /// An empty tree.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an empty folder, mode 0755.
    pub fn directory(&mut self, name: &str) {
        self.insert(name, Node::Directory);
    }

    /// Adds a file, mode 0755 if executable, else 0644.
    pub fn file(&mut self, name: &str, executable: bool, data: impl Into<Vec<u8>>) {
        let data = data.into();
        self.insert(name, Node::File { executable, data });
    }

    /// Adds a symbolic link to `target`.
    pub fn link(&mut self, name: &str, target: &str) {
        self.insert(name, Node::Link(target.to_owned()));
    }

    /// Adds a character device, mode 0600.
    pub fn character_device(&mut self, name: &str, major: u32, minor: u32) {
        self.insert(name, Node::Character { major, minor });
    }

    /// # Panics
    ///
    /// On a name that no unpacker would put where it is meant, or that is there twice: names
    /// come from our own recipes.
    fn insert(&mut self, name: &str, node: Node) {
        assert!(
            name.split('/').all(|part| !matches!(part, "" | "." | "..")) && !name.contains('\0'),
            "not a plain relative name: {name:?}"
        );
        for (slash, _) in name.match_indices('/') {
            let above = &name[..slash];
            let found = self
                .nodes
                .entry(above.to_owned())
                .or_insert(Node::Directory);
            assert_eq!(*found, Node::Directory, "{above:?} is not a folder");
        }
        let before = self.nodes.insert(name.to_owned(), node);
        assert!(
            matches!(before, None | Some(Node::Directory)),
            "{name:?} is in the archive twice"
        );
    }

    /// Writes the whole archive, trailer included.
    ///
    /// # Errors
    ///
    /// What the writer says, and `InvalidInput` for a file of 4 GiB or more.
    pub fn write(&self, mut out: impl Write) -> io::Result<()> {
        let mut inode = 0;
        for (name, node) in &self.nodes {
            inode += 1;
            let (mode, device, data): (u32, (u32, u32), &[u8]) = match node {
                Node::Directory => (DIRECTORY | 0o755, (0, 0), &[]),
                Node::File { executable, data } => {
                    let rights = if *executable { 0o755 } else { 0o644 };
                    (REGULAR | rights, (0, 0), data)
                }
                Node::Link(target) => (SYMLINK | 0o777, (0, 0), target.as_bytes()),
                Node::Character { major, minor } => (CHARACTER | 0o600, (*major, *minor), &[]),
            };
            entry(&mut out, inode, mode, device, name, data)?;
        }
        entry(&mut out, 0, 0, (0, 0), "TRAILER!!!", &[])
    }
}

/// One header, name and contents, the last two each padded to four bytes.
fn entry(
    out: &mut impl Write,
    inode: u32,
    mode: u32,
    device: (u32, u32),
    name: &str,
    data: &[u8],
) -> io::Result<()> {
    let too_large = |_| io::Error::new(io::ErrorKind::InvalidInput, format!("{name}: too large"));
    let size = u32::try_from(data.len()).map_err(too_large)?;
    let name_size = u32::try_from(name.len() + 1).map_err(too_large)?;
    let links = if mode & 0o170_000 == DIRECTORY { 2 } else { 1 };
    let fields = [
        inode, mode, 0, 0, links, 0, size, 0, 0, device.0, device.1, name_size, 0,
    ];
    let mut head = String::from("070701");
    for field in fields {
        head.push_str(&format!("{field:08x}"));
    }
    head.push_str(name);
    head.push('\0');
    out.write_all(head.as_bytes())?;
    pad(out, head.len())?;
    out.write_all(data)?;
    pad(out, data.len())
}

fn pad(out: &mut impl Write, written: usize) -> io::Result<()> {
    out.write_all(&[0; 3][..written.next_multiple_of(4) - written])
}

#[cfg(test)]
mod tests;
