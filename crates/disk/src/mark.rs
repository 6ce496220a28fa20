//! The mark of a node's disks: what its copies are worth.
//!
//! ```text
//! twinvm disks 1
//! vm 0123…            32 hexadecimal digits
//! generation 7
//! pending 8           or -
//! consistent yes      or no
//! epoch 0123…         32 hexadecimal digits
//! disk 1073741824 131 1763719200000000000     size, inode, when the file was made
//! sum 89abcdef        CRC-32 of all before it
//! ```

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use crate::durable::read_small;
use crate::file::Identity;
use crate::medium::Medium;

/// Its name in the node's folder.
pub(crate) const MARK: &str = "disks.mark";
/// Longest file: a machine has at most eight disks.
const MAX_BYTES: usize = 4096;

/// What a node's copies of its VM's disks are worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Which VM they belong to: drawn when it first started.
    pub vm: u128,
    /// Generation of the arbiter's record under which this node last executed.
    pub generation: u64,
    /// The generation that it may have been given since.
    pub pending: Option<u64>,
    /// The copies hold the disks as they were at one step, and what was written since. False
    /// while another node's are copied over them.
    pub consistent: bool,
    /// Drawn for each pairing: at its beginning the copies of both nodes that have it were equal.
    /// 0 if there was none, or if what changed since isn't known.
    pub epoch: u128,
}

/// The mark and the files that it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) mark: Mark,
    pub(crate) disks: Vec<StoredDisk>,
}

/// One disk's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct StoredDisk {
    pub(crate) bytes: u64,
    pub(crate) identity: Identity,
}

impl Stored {
    /// Reads the mark in `folder`; `None` if there is none.
    pub(crate) fn read(folder: &Path) -> io::Result<Option<Self>> {
        let Some(bytes) = read_small(&folder.join(MARK), MAX_BYTES)? else {
            return Ok(None);
        };
        let stored = str::from_utf8(&bytes).ok().and_then(parse);
        stored.map(Some).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                "not a mark of this version, or damaged",
            )
        })
    }

    /// Stores it durably.
    pub(crate) fn write(&self, folder: &Path, medium: &Medium) -> io::Result<()> {
        medium.replace_file(folder, MARK, self.text().as_bytes())
    }

    fn text(&self) -> String {
        let mark = &self.mark;
        let pending = mark.pending.map_or("-".to_owned(), |g| g.to_string());
        let consistent = if mark.consistent { "yes" } else { "no" };
        let mut text = format!(
            "twinvm disks 1\nvm {:032x}\ngeneration {}\npending {pending}\nconsistent {consistent}\nepoch {:032x}\n",
            mark.vm, mark.generation, mark.epoch
        );
        for disk in &self.disks {
            let Identity { inode, born_ns } = disk.identity;
            // Writing into a string can't fail.
            let _ = writeln!(text, "disk {} {inode} {born_ns}", disk.bytes);
        }
        let sum = crc32fast::hash(text.as_bytes());
        let _ = writeln!(text, "sum {sum:08x}");
        text
    }
}

fn parse(text: &str) -> Option<Stored> {
    let (body, sum) = text.strip_suffix('\n')?.rsplit_once("sum ")?;
    if sum.len() != 8 || u32::from_str_radix(sum, 16).ok()? != crc32fast::hash(body.as_bytes()) {
        return None;
    }
    let mut lines = body.lines();
    (lines.next()? == "twinvm disks 1").then_some(())?;
    let mut value = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ');
    let hex = |text: &str| u128::from_str_radix(text, 16).ok();
    let mark = Mark {
        vm: hex(value("vm")?)?,
        generation: value("generation")?.parse().ok()?,
        pending: match value("pending")? {
            "-" => None,
            number => Some(number.parse().ok()?),
        },
        consistent: match value("consistent")? {
            "yes" => true,
            "no" => false,
            _ => return None,
        },
        epoch: hex(value("epoch")?)?,
    };
    let disks = lines.map(|line| {
        let mut words = line.strip_prefix("disk ")?.split(' ');
        let mut number = || words.next()?.parse::<u64>().ok();
        Some(StoredDisk {
            bytes: number()?,
            identity: Identity {
                inode: number()?,
                born_ns: number()?,
            },
        })
    });
    Some(Stored {
        mark,
        disks: disks.collect::<Option<_>>()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored() -> Stored {
        Stored {
            mark: Mark {
                vm: 1 << 100,
                generation: 7,
                pending: Some(8),
                consistent: true,
                epoch: u128::MAX,
            },
            disks: vec![
                StoredDisk {
                    bytes: 1 << 40,
                    identity: Identity {
                        inode: 12,
                        born_ns: u64::MAX,
                    },
                };
                2
            ],
        }
    }

    #[test]
    fn what_is_written_is_read_and_damage_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Stored::read(dir.path()).unwrap(), None);
        let mut stored = stored();
        for _ in 0..2 {
            stored.write(dir.path(), &Medium::default()).unwrap();
            assert_eq!(Stored::read(dir.path()).unwrap().as_ref(), Some(&stored));
            stored.mark.pending = None;
            stored.mark.consistent = false;
            stored.disks.pop();
        }
        let text = stored.text();
        for at in 0..text.len() {
            let mut damaged = text.clone().into_bytes();
            damaged[at] ^= 1;
            std::fs::write(dir.path().join(MARK), &damaged).unwrap();
            Stored::read(dir.path()).expect_err("damage");
            std::fs::write(dir.path().join(MARK), &damaged[..at]).unwrap();
            Stored::read(dir.path()).expect_err("cut off");
        }
    }
}
