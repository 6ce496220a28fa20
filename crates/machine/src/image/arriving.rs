//! Files that arrive inside a snapshot, packed as they are kept.

use super::{Image, ImageKind, Images, PIECE_BYTES};

/// Takes the pieces of all files, one after the other, in the order of [`ImageKind::ALL`]. They
/// may be hostile.
pub(crate) struct ArrivingImages {
    /// Bytes of each file that is to come, unpacked.
    lengths: [Option<u64>; ImageKind::ALL.len()],
    complete: Images,
    /// The file whose turn it is.
    turn: usize,
    pieces: Vec<Box<[u8]>>,
    hasher: blake3::Hasher,
    unpacked_bytes: u64,
}

impl ArrivingImages {
    /// Nothing has come yet of files of these lengths.
    pub(crate) fn new(lengths: [Option<u64>; ImageKind::ALL.len()]) -> Self {
        let mut arriving = Self {
            lengths,
            complete: Images::default(),
            turn: 0,
            pieces: Vec::new(),
            hasher: blake3::Hasher::new(),
            unpacked_bytes: 0,
        };
        arriving.turn_to_next();
        arriving
    }

    /// The most bytes that a packed piece may have.
    pub(crate) fn most_packed_bytes() -> usize {
        lz4_flex::block::get_maximum_output_size(PIECE_BYTES)
    }

    /// Whether there is nothing more to come.
    pub(crate) fn is_complete(&self) -> bool {
        self.turn == self.lengths.len()
    }

    /// Takes the next piece; `None` if it is not one. Memory is used for what has come, whatever
    /// lengths were announced.
    #[must_use]
    pub(crate) fn push(&mut self, packed: &[u8]) -> Option<()> {
        let length = self.lengths.get(self.turn).copied().flatten()?;
        let want = (length - self.unpacked_bytes).min(PIECE_BYTES as u64) as usize;
        let piece = lz4_flex::decompress(packed, want).ok()?;
        if piece.len() != want {
            return None;
        }
        self.hasher.update(&piece);
        self.unpacked_bytes += want as u64;
        self.pieces.push(packed.into());
        self.turn_to_next();
        Some(())
    }

    /// Passes over files that are complete or missing.
    fn turn_to_next(&mut self) {
        while let Some(length) = self.lengths.get(self.turn) {
            if let Some(length) = *length {
                if self.unpacked_bytes < length {
                    return;
                }
                self.complete.0[self.turn] = Some(Image {
                    pieces: std::mem::take(&mut self.pieces).into(),
                    len: length as usize,
                    hash: *self.hasher.finalize().as_bytes(),
                });
                self.hasher.reset();
                self.unpacked_bytes = 0;
            }
            self.turn += 1;
        }
    }

    /// The files that are complete.
    pub(crate) fn into_images(self) -> Images {
        self.complete
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(images: &Images, kind: ImageKind) -> Vec<&[u8]> {
        (0..).map_while(|n| images.packed(kind, n)).collect()
    }

    fn lengths(images: &Images) -> [Option<u64>; ImageKind::ALL.len()] {
        ImageKind::ALL.map(|kind| images.len(kind))
    }

    #[test]
    fn files_arrive_as_they_were() {
        let kernel: Vec<u8> = (0..400_000u32).flat_map(u32::to_le_bytes).collect();
        for initrd in [vec![], vec![1; PIECE_BYTES], vec![2; 3]] {
            let images = Images::new(kernel.clone(), Some(initrd.clone()));
            let mut arriving = ArrivingImages::new(lengths(&images));
            for kind in ImageKind::ALL {
                for piece in packed(&images, kind) {
                    assert!(!arriving.is_complete());
                    arriving.push(piece).unwrap();
                }
            }
            assert!(arriving.is_complete());
            assert_eq!(arriving.push(&[0]), None);
            let arrived = arriving.into_images();
            for kind in ImageKind::ALL {
                assert_eq!(arrived.hash(kind), images.hash(kind));
                assert_eq!(arrived.unpack(kind), images.unpack(kind));
            }
        }
    }

    #[test]
    fn pieces_of_another_length_are_refused() {
        let images = Images::new(vec![7; 100], None);
        let piece = packed(&images, ImageKind::Kernel)[0].to_vec();
        for length in [99, 101, u64::MAX] {
            let mut arriving = ArrivingImages::new([None, Some(length), None, None]);
            assert_eq!(arriving.push(&piece), None, "{length}");
        }
        let mut arriving = ArrivingImages::new([None, Some(100), None, None]);
        assert_eq!(arriving.push(&piece[..piece.len() - 1]), None);
        assert_eq!(arriving.push(&[]), None);
        assert_eq!(arriving.push(&piece), Some(()));
    }
}
