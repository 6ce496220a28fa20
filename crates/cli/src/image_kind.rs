//! What kind of image a file is, by its first bytes: what a person downloads is seldom a raw disk.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// As many bytes as are looked at.
const HEAD_BYTES: u64 = 32;

/// An image that can't be a disk as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ImageKind {
    /// `twinvm disk import` reads it.
    Qcow2,
    /// Another program's format of disks.
    Disk(&'static str),
    /// Something compressed, and the program that unpacks it.
    Packed(&'static str, &'static str),
}

const KINDS: [(&[u8], ImageKind); 11] = [
    (b"QFI\xfb", ImageKind::Qcow2),
    (b"KDMV", ImageKind::Disk("VMDK")),
    (b"# Disk DescriptorFile", ImageKind::Disk("VMDK")),
    (b"vhdxfile", ImageKind::Disk("VHDX")),
    (b"conectix", ImageKind::Disk("VHD")),
    (b"<<< ", ImageKind::Disk("VDI")),
    (b"\x1f\x8b", ImageKind::Packed("gzip", "gunzip")),
    (b"\xfd7zXZ\0", ImageKind::Packed("xz", "unxz")),
    (b"\x28\xb5\x2f\xfd", ImageKind::Packed("zstd", "unzstd")),
    (b"BZh", ImageKind::Packed("bzip2", "bunzip2")),
    (b"PK\x03\x04", ImageKind::Packed("zip", "unzip")),
];

impl ImageKind {
    /// What a file begins like; `None` for what may be a raw disk.
    ///
    /// # Errors
    /// It can't be read.
    pub(crate) fn of(file: &mut impl Read) -> io::Result<Option<Self>> {
        let mut head = Vec::new();
        file.take(HEAD_BYTES).read_to_end(&mut head)?;
        let found = KINDS.iter().find(|(magic, _)| head.starts_with(magic));
        Ok(found.map(|(_, kind)| *kind))
    }

    /// The format, if the file at `path` is a disk image that is not raw. What can't be read is not
    /// spoken of here, and neither is what is packed: a guest may keep an archive on a bare disk.
    pub(crate) fn not_raw(path: &Path) -> Option<&'static str> {
        // Not a pipe, which would be waited for.
        if !path.is_file() {
            return None;
        }
        match Self::of(&mut File::open(path).ok()?).ok()?? {
            Self::Qcow2 => Some("qcow2"),
            Self::Disk(name) => Some(name),
            Self::Packed(..) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_told_by_how_they_begin() {
        let of = |head: &[u8]| ImageKind::of(&mut &head[..]).unwrap();
        assert_eq!(of(b"QFI\xfb and so on"), Some(ImageKind::Qcow2));
        assert_eq!(of(b"KDMV"), Some(ImageKind::Disk("VMDK")));
        assert_eq!(of(b"\xfd7zXZ\0\0"), Some(ImageKind::Packed("xz", "unxz")));
        for raw in [&[][..], b"QFI", &[0; 512], b"\xeb\x63\x90"] {
            assert_eq!(of(raw), None, "{raw:?}");
        }
    }
}
