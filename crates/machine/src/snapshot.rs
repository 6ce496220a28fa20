//! Snapshots: the whole machine as bytes.
//!
//! Layout: magic, format version, then a length-prefixed head (postcard), then
//! RAM pages that are not all zero (page number u32, 4096 bytes each), the images
//! if included, and a 64-bit checksum over everything before it.

use crate::config::{Images, MachineConfig, OnReset, PowerOn};
use crate::machine::{Machine, MachineError};
use crate::output::Halt;
use serde::{Deserialize, Serialize};
use twinvm_cpu::{Clock, Engine, Hart, HartState};
use twinvm_devices::{Board, BoardState, Persist, SlotConfig, SlotState};
use twinvm_mem::{Memory, PAGE_BYTES};
use xxhash_rust::xxh3::xxh3_64;

const MAGIC: &[u8; 8] = b"twinvmSN";
const FORMAT: u32 = 1;

/// What a snapshot says of itself before its contents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotHead {
    /// Name and value of every field that must be equal to go on from here.
    pub fields: Vec<(String, String)>,
    /// RAM in bytes.
    pub ram_bytes: u64,
    harts: u32,
    slots: Vec<SlotConfig>,
    cmdline: String,
    on_reset: OnReset,
    power_on: PowerOn,
    clock: Clock,
    icount: u64,
    halted: Option<Halt>,
    hart: HartState,
    board: BoardState,
    pages: u32,
    /// Lengths of kernel and initrd if the images are included.
    images: Option<(u64, Option<u64>)>,
}

/// A snapshot that cannot be restored here.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// Not a snapshot, or one of another format.
    #[error("not a snapshot that this version reads (format {FORMAT})")]
    Format,
    /// Cut short.
    #[error("the snapshot is cut short: {have} bytes, {need} needed")]
    Short {
        /// Bytes there are.
        have: u64,
        /// Bytes there must be.
        need: u64,
    },
    /// The checksum is wrong.
    #[error("the snapshot is damaged: its checksum is wrong")]
    Checksum,
    /// Made by another machine: the first field that differs.
    #[error("the snapshot's {field} is {theirs:?}, this machine's is {ours:?}; both must be equal")]
    Field {
        /// Name of the field.
        field: String,
        /// Value here.
        ours: String,
        /// Value in the snapshot.
        theirs: String,
    },
    /// The snapshot has no images and none were given.
    #[error("the snapshot holds no kernel: give the VM's own files")]
    NoImages,
    /// A value inside is not one that a machine can have.
    #[error("the snapshot holds a bad {0}")]
    Content(String),
    /// RAM or devices can't be made.
    #[error(transparent)]
    Machine(#[from] MachineError),
}

/// Compares configuration fields; the error names the first that differs.
pub(crate) fn compare_fields(
    ours: &[(String, String)],
    theirs: &[(String, String)],
) -> Result<(), SnapshotError> {
    for n in 0..ours.len().max(theirs.len()) {
        let missing = (String::from("(missing)"), String::from("(missing)"));
        let (our, their) = (
            ours.get(n).unwrap_or(&missing),
            theirs.get(n).unwrap_or(&missing),
        );
        if our != their {
            let field = if our.0 == "(missing)" {
                &their.0
            } else {
                &our.0
            };
            return Err(SnapshotError::Field {
                field: field.clone(),
                ours: our.1.clone(),
                theirs: their.1.clone(),
            });
        }
    }
    Ok(())
}

impl Machine {
    /// The machine as bytes. `with_images` adds kernel and initrd, so that the
    /// snapshot can be restored without the VM's files (recordings).
    ///
    /// No output may be waiting ([`Machine::take_output`]).
    pub fn save(&self, with_images: bool) -> Vec<u8> {
        assert!(
            self.output.is_none(),
            "an output waits to be taken: it is not part of a snapshot"
        );
        let images = &self.config.images;
        let pages: Vec<(u32, &[u8])> = self.mem.nonzero_pages().collect();
        let head = SnapshotHead {
            fields: self.config.fields(),
            ram_bytes: self.config.ram_bytes,
            harts: self.config.harts,
            slots: self.config.slots.clone(),
            cmdline: self.config.cmdline.clone(),
            on_reset: self.config.on_reset,
            power_on: self.power_on,
            clock: self.clock,
            icount: self.icount,
            halted: self.halted,
            hart: self.hart.save(),
            board: self.board.save(),
            pages: pages.len() as u32,
            images: with_images.then(|| {
                (
                    images.kernel().len() as u64,
                    images.initrd().map(|i| i.len() as u64),
                )
            }),
        };
        let head = match postcard::to_stdvec(&head) {
            Ok(bytes) => bytes,
            Err(error) => unreachable!("encoding to memory failed: {error}"),
        };
        let mut out = Vec::with_capacity(pages.len() * (PAGE_BYTES + 4) + head.len() + 64);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&FORMAT.to_le_bytes());
        out.extend_from_slice(&(head.len() as u32).to_le_bytes());
        out.extend_from_slice(&head);
        for (page, bytes) in pages {
            out.extend_from_slice(&page.to_le_bytes());
            out.extend_from_slice(bytes);
        }
        if with_images {
            out.extend_from_slice(images.kernel());
            out.extend_from_slice(images.initrd().unwrap_or_default());
        }
        let sum = xxh3_64(&out);
        out.extend_from_slice(&sum.to_le_bytes());
        out
    }

    /// A machine from [`Machine::save`]'s bytes. With `config`, the snapshot must
    /// be of exactly that configuration; without, it must include its images.
    pub fn restore(bytes: &[u8], config: Option<MachineConfig>) -> Result<Self, SnapshotError> {
        let (head, mut rest) = read_head(bytes)?;
        let pages_len = u64::from(head.pages) * (PAGE_BYTES as u64 + 4);
        let (kernel_len, initrd_len) = head.images.unwrap_or((0, None));
        let need = pages_len
            .saturating_add(kernel_len)
            .saturating_add(initrd_len.unwrap_or(0));
        if rest.len() as u64 != need {
            return Err(SnapshotError::Short {
                have: rest.len() as u64,
                need,
            });
        }
        let mut take = |len: u64| {
            let (part, tail) = rest.split_at(len as usize);
            rest = tail;
            part
        };
        let pages = take(pages_len);
        let kernel = take(kernel_len);
        let initrd = take(initrd_len.unwrap_or(0));
        let config = match config {
            Some(config) => config,
            None if head.images.is_none() => return Err(SnapshotError::NoImages),
            None => MachineConfig {
                ram_bytes: head.ram_bytes,
                harts: head.harts,
                slots: head.slots.clone(),
                cmdline: head.cmdline.clone(),
                images: Images::new(kernel.to_vec(), initrd_len.map(|_| initrd.to_vec())),
                on_reset: head.on_reset,
            },
        };
        compare_fields(&config.fields(), &head.fields)?;
        let mut mem = Memory::new(config.ram_bytes).map_err(MachineError::from)?;
        for chunk in pages.chunks_exact(PAGE_BYTES + 4) {
            let (number, content) = chunk.split_at(4);
            let page = u32::from_le_bytes([number[0], number[1], number[2], number[3]]);
            if !mem.restore_page(page, content) {
                return Err(SnapshotError::Content(format!("page number {page}")));
            }
        }
        let content = |error: &dyn std::fmt::Display| SnapshotError::Content(error.to_string());
        let hart = Hart::restore(&head.hart).map_err(|e| content(&e))?;
        let configured = Board::new(&Self::board_config(&config, &head.power_on), Vec::new())
            .map_err(MachineError::from)?;
        if !same_devices(&configured.save(), &head.board) {
            return Err(SnapshotError::Content("set of devices".to_owned()));
        }
        let board = Board::restore(head.board).map_err(|e| content(&e))?;
        Ok(Self {
            mem,
            hart,
            board,
            clock: head.clock,
            icount: head.icount,
            halted: head.halted,
            engine: Engine::new(),
            output: None,
            console: Vec::new(),
            config,
            power_on: head.power_on,
        })
    }
}

/// Whether two boards hold the same kinds of devices in the same slots.
fn same_devices(ours: &BoardState, theirs: &BoardState) -> bool {
    let kinds = |board: &BoardState| -> Vec<std::mem::Discriminant<SlotState>> {
        board.slots.iter().map(std::mem::discriminant).collect()
    };
    kinds(ours) == kinds(theirs)
}

fn read_head(bytes: &[u8]) -> Result<(SnapshotHead, &[u8]), SnapshotError> {
    let prefix = MAGIC.len() + 8;
    if bytes.len() < prefix + 8 || &bytes[..8] != MAGIC {
        return Err(SnapshotError::Format);
    }
    if bytes[8..12] != FORMAT.to_le_bytes() {
        return Err(SnapshotError::Format);
    }
    let (content, sum) = bytes.split_at(bytes.len() - 8);
    if xxh3_64(content).to_le_bytes() != *sum {
        return Err(SnapshotError::Checksum);
    }
    let len = u32::from_le_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]) as usize;
    let Some(head) = content.get(prefix..prefix.saturating_add(len)) else {
        return Err(SnapshotError::Short {
            have: content.len() as u64,
            need: (prefix + len) as u64,
        });
    };
    let head = postcard::from_bytes(head).map_err(|e| SnapshotError::Content(e.to_string()))?;
    Ok((head, &content[prefix + len..]))
}
