//! The files a guest boots from, kept in packed form.
//!
//! A reset loads them again and a snapshot may carry them, so they must be the machine's own; but
//! between those moments nobody reads them, and a kernel with its initial RAM disk is as large as
//! a small guest. Packed (LZ4, piece by piece) they take less than half.

use std::fmt;
use std::io::{self, Read};
use std::ops::Range;
use std::sync::Arc;

mod arriving;

pub(crate) use arriving::ArrivingImages;

/// Bytes of a file that are packed together. Snapshots hold the pieces: it is part of their format.
const PIECE_BYTES: usize = 1 << 20;

/// A file that the guest boots from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageKind {
    /// Machine-mode firmware, or any other program for a bare machine.
    Firmware,
    /// Linux Image, ELF file or raw binary.
    Kernel,
    /// Initial RAM disk.
    Initrd,
    /// A device tree in place of the machine's own.
    DeviceTree,
}

impl ImageKind {
    /// All of them, in the order in which snapshots and configurations name them.
    pub const ALL: [Self; 4] = [Self::Firmware, Self::Kernel, Self::Initrd, Self::DeviceTree];
}

impl fmt::Display for ImageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Firmware => "firmware",
            Self::Kernel => "kernel",
            Self::Initrd => "initrd",
            Self::DeviceTree => "device tree",
        })
    }
}

#[derive(Clone)]
struct Image {
    pieces: Arc<[Box<[u8]>]>,
    len: usize,
    hash: [u8; 32],
}

impl Image {
    fn pack(file: &mut dyn Read) -> io::Result<Self> {
        let mut pieces = Vec::new();
        let mut hasher = blake3::Hasher::new();
        let mut len = 0;
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        loop {
            piece.clear();
            file.take(PIECE_BYTES as u64).read_to_end(&mut piece)?;
            if piece.is_empty() {
                break;
            }
            hasher.update(&piece);
            len += piece.len();
            pieces.push(lz4_flex::compress(&piece).into_boxed_slice());
        }
        Ok(Self {
            pieces: pieces.into(),
            len,
            hash: *hasher.finalize().as_bytes(),
        })
    }

    /// Puts piece number `n` in place of what `out` holds, which gets nothing if there is none.
    fn unpack(&self, n: usize, out: &mut Vec<u8>) {
        let Some(packed) = self.pieces.get(n) else {
            out.clear();
            return;
        };
        out.resize(PIECE_BYTES.min(self.len - n * PIECE_BYTES), 0);
        match lz4_flex::block::decompress_into(packed, out) {
            Ok(bytes) if bytes == out.len() => {}
            result => unreachable!("what was packed here unpacks: {result:?}"),
        }
    }

    fn pieces(&self) -> impl Iterator<Item = Vec<u8>> {
        (0..self.pieces.len()).map(|n| {
            let mut piece = Vec::new();
            self.unpack(n, &mut piece);
            piece
        })
    }
}

/// The files the guest boots from, kept for the machine's whole life because a
/// reset loads them again.
#[derive(Clone, Default)]
pub struct Images([Option<Image>; ImageKind::ALL.len()]);

impl Images {
    /// A kernel, and an initial RAM disk if there is one.
    pub fn new(kernel: Vec<u8>, initrd: Option<Vec<u8>>) -> Self {
        let images = Self::default().with(ImageKind::Kernel, &kernel);
        match initrd {
            Some(initrd) => images.with(ImageKind::Initrd, &initrd),
            None => images,
        }
    }

    /// The same with one file more: packs its contents and hashes them.
    #[must_use]
    pub fn with(self, kind: ImageKind, bytes: &[u8]) -> Self {
        match self.read(kind, &mut &bytes[..]) {
            Ok(images) => images,
            Err(error) => unreachable!("reading from memory failed: {error}"),
        }
    }

    /// The same with one file more, read to its end; it is never in memory as a whole.
    ///
    /// # Errors
    /// What the reader says.
    pub fn read(mut self, kind: ImageKind, file: &mut dyn Read) -> io::Result<Self> {
        self.0[kind as usize] = Some(Image::pack(file)?);
        Ok(self)
    }

    fn image(&self, kind: ImageKind) -> Option<&Image> {
        self.0[kind as usize].as_ref()
    }

    /// Whether a file was given.
    pub fn has(&self, kind: ImageKind) -> bool {
        self.image(kind).is_some()
    }

    /// Length of a file in bytes, if it was given.
    pub fn len(&self, kind: ImageKind) -> Option<u64> {
        self.image(kind).map(|image| image.len as u64)
    }

    /// The contents of a file, if it was given.
    pub fn unpack(&self, kind: ImageKind) -> Option<Vec<u8>> {
        let image = self.image(kind)?;
        let mut bytes = Vec::with_capacity(image.len);
        image.pieces().for_each(|piece| bytes.extend(piece));
        Some(bytes)
    }

    /// Piece number `n` of a file, packed as it is kept, if there is such a piece.
    pub(crate) fn packed(&self, kind: ImageKind, n: usize) -> Option<&[u8]> {
        let packed = self.image(kind)?.pieces.get(n)?;
        Some(packed)
    }

    /// The contents of a file in pieces: of each the range in the file, and what unpacks it in
    /// place of what a buffer holds.
    pub(crate) fn ranges(
        &self,
        kind: ImageKind,
    ) -> impl Iterator<Item = (Range<usize>, impl FnOnce(&mut Vec<u8>))> {
        self.image(kind).into_iter().flat_map(|image| {
            let ranges = (0..image.len).step_by(PIECE_BYTES).enumerate();
            ranges.map(move |(n, at)| {
                let range = at..image.len.min(at + PIECE_BYTES);
                (range, move |out: &mut Vec<u8>| image.unpack(n, out))
            })
        })
    }

    /// The contents of a file, one piece after the other; none if it wasn't given.
    pub(crate) fn pieces(&self, kind: ImageKind) -> impl Iterator<Item = Vec<u8>> {
        self.image(kind).into_iter().flat_map(Image::pieces)
    }

    /// The hash of a file, as two hosts compare it.
    pub(crate) fn hash(&self, kind: ImageKind) -> String {
        match self.image(kind) {
            Some(image) => image.hash.iter().map(|b| format!("{b:02x}")).collect(),
            None => "none".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_come_out_as_they_went_in() {
        let mut number = 1_u32;
        let mut noise = || {
            number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (number >> 24) as u8
        };
        for len in [0, 1, PIECE_BYTES - 1, PIECE_BYTES, 2 * PIECE_BYTES + 17] {
            for file in [vec![7; len], (0..len).map(|_| noise()).collect()] {
                let images = Images::new(file.clone(), None);
                assert_eq!(images.unpack(ImageKind::Kernel).as_ref(), Some(&file));
                assert_eq!(images.len(ImageKind::Kernel), Some(len as u64));
                let pieces: Vec<Vec<u8>> = images.pieces(ImageKind::Kernel).collect();
                assert_eq!(pieces.concat(), file);
            }
        }
        assert_eq!(Images::default().unpack(ImageKind::Initrd), None);
        assert!(!Images::default().has(ImageKind::Initrd));
    }

    #[test]
    fn a_file_of_repeated_bytes_takes_little_room() {
        let images = Images::new(vec![7; 4 * PIECE_BYTES], None);
        let packed: usize = images.0[ImageKind::Kernel as usize]
            .iter()
            .flat_map(|image| image.pieces.iter())
            .map(|piece| piece.len())
            .sum();
        assert!(packed < PIECE_BYTES / 10, "{packed} bytes");
    }
}
