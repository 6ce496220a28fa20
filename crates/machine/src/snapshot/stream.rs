//! A snapshot on its way out: its bytes, one piece after the other, on any thread.

use crate::image::{ImageKind, Images};
use twinvm_mem::SnapshotReader;
use xxhash_rust::xxh3::Xxh3;

use super::END_OF_PAGES;

/// A snapshot that is being read while the guest goes on; see
/// [`Machine::snapshot`](crate::Machine::snapshot). Dropping it gives the snapshot up and
/// frees what was copied aside for it.
pub struct SnapshotStream {
    stage: Stage,
    images: Images,
    hash: Xxh3,
    aside_peak_bytes: usize,
}

enum Stage {
    Head(Vec<u8>, SnapshotReader),
    Pages(SnapshotReader),
    /// Which image comes next, and which piece of it.
    Images(usize, usize),
    Done,
}

impl SnapshotStream {
    /// `images` are those that the snapshot includes.
    pub(super) fn new(head: Vec<u8>, pages: SnapshotReader, images: Images) -> Self {
        Self {
            stage: Stage::Head(head, pages),
            images,
            hash: Xxh3::new(),
            aside_peak_bytes: 0,
        }
    }

    /// Whether everything has been read.
    pub fn is_done(&self) -> bool {
        matches!(self.stage, Stage::Done)
    }

    /// The most bytes of pages that the guest had copied aside at one time and that were
    /// not yet read.
    pub fn aside_peak_bytes(&self) -> usize {
        match &self.stage {
            Stage::Head(_, pages) | Stage::Pages(pages) => pages.aside_peak_bytes(),
            Stage::Images(..) | Stage::Done => self.aside_peak_bytes,
        }
    }

    /// Appends at least `bytes` of the snapshot to `out`, less only at its end. Returns
    /// false when all has been read.
    pub fn read(&mut self, bytes: usize, out: &mut Vec<u8>) -> bool {
        let end = out.len().saturating_add(bytes);
        while out.len() < end {
            let from = out.len();
            self.stage = match std::mem::replace(&mut self.stage, Stage::Done) {
                Stage::Head(mut head, pages) => {
                    out.append(&mut head);
                    Stage::Pages(pages)
                }
                Stage::Pages(mut pages) => {
                    out.extend_from_slice(&END_OF_PAGES.to_le_bytes());
                    match pages.next_page(out) {
                        Some(page) => {
                            out[from..from + 4].copy_from_slice(&page.to_le_bytes());
                            Stage::Pages(pages)
                        }
                        None => {
                            self.aside_peak_bytes = pages.aside_peak_bytes();
                            Stage::Images(0, 0)
                        }
                    }
                }
                Stage::Images(image, piece) => match ImageKind::ALL.get(image) {
                    Some(kind) => match self.images.packed(*kind, piece) {
                        Some(packed) => {
                            out.extend_from_slice(&(packed.len() as u32).to_le_bytes());
                            out.extend_from_slice(packed);
                            Stage::Images(image, piece + 1)
                        }
                        None => Stage::Images(image + 1, 0),
                    },
                    None => {
                        self.images = Images::default();
                        Stage::Done
                    }
                },
                Stage::Done => return false,
            };
            self.hash.update(&out[from..]);
            if self.is_done() {
                out.extend_from_slice(&self.hash.digest().to_le_bytes());
            }
        }
        !self.is_done()
    }
}
