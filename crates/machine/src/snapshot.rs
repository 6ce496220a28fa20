//! Snapshots: the whole machine as bytes.
//!
//! Layout: magic, format version, then a length-prefixed head (postcard), then
//! RAM pages that are not all zero (page number u32, 4096 bytes each) up to an end
//! mark, the images if included (each MiB packed, behind its length), and a 64-bit
//! checksum over everything before it.
//!
//! Pages that are still as they were loaded at power-on are named in the head and not
//! held: who restores has the images, which must be the same ones, and loads them again.
//! So a snapshot of a machine that has just been made is no more than its packed images.
//!
//! Taking one stops the guest only while the head is written ([`Machine::snapshot`]).
//! Another thread reads the rest ([`SnapshotStream`]) while the guest goes on: pages
//! are copied aside when they are first stored to. It is restored piece by piece as it
//! arrives ([`Restore`]).

mod stream;

pub use stream::SnapshotStream;

use crate::boot::Boot;
use crate::config::{FieldDifference, MachineConfig, OnReset, PowerOn, first_field_difference};
use crate::digest::encoded;
use crate::engine::fastest;
use crate::harts::{Harts, HartsState};
use crate::image::{ArrivingImages, ImageKind, Images};
use crate::machine::{Machine, MachineError};
use crate::output::Halt;
use serde::{Deserialize, Serialize};
use std::ops::Range;
use twinvm_cpu::Clock;
use twinvm_devices::{Board, BoardState, Persist, SlotConfig, SlotState};
use twinvm_mem::{Memory, PAGE_BYTES, SnapshotBusy, state};
use xxhash_rust::xxh3::Xxh3;

const MAGIC: &[u8; 8] = b"twinvmSN";
const FORMAT: u32 = 2;

/// What a snapshot says of itself before its contents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SnapshotHead {
    /// Name and value of every field that must be equal to go on from here.
    fields: Vec<(String, String)>,
    ram_bytes: u64,
    harts: u32,
    slots: Vec<SlotConfig>,
    cmdline: String,
    on_reset: OnReset,
    power_on: PowerOn,
    clock: Clock,
    icount: u64,
    halted: Option<Halt>,
    hart_states: HartsState,
    board: BoardState,
    /// Pages of RAM that are as they were loaded, in order.
    loaded: Vec<Range<u32>>,
    /// Lengths of the images, in the order of [`ImageKind::ALL`], if they are included.
    images: Option<[Option<u64>; ImageKind::ALL.len()]>,
}

/// A snapshot that cannot be restored here.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// Something else.
    #[error("not a snapshot of twinvm")]
    Foreign,
    /// Of another format.
    #[error("a snapshot of format {found}, this version reads format {FORMAT}")]
    Format {
        /// What it says of itself.
        found: u32,
    },
    /// Cut short.
    #[error("the snapshot is cut short after {have} bytes")]
    Short {
        /// Bytes there are.
        have: u64,
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
    #[error("the snapshot holds no kernel")]
    NoImages,
    /// A value inside is not one that a machine can have.
    #[error("the snapshot holds a bad {0}")]
    Content(String),
    /// RAM or devices can't be made.
    #[error(transparent)]
    Machine(#[from] MachineError),
}

/// Compares configuration fields; the error names the first that differs.
fn compare_fields(
    ours: &[(String, String)],
    theirs: &[(String, String)],
) -> Result<(), SnapshotError> {
    match first_field_difference(ours, theirs) {
        None => Ok(()),
        Some(FieldDifference { field, left, right }) => Err(SnapshotError::Field {
            field,
            ours: left,
            theirs: right,
        }),
    }
}

/// Behind the last page.
const END_OF_PAGES: u32 = u32::MAX;
/// Bytes of a page and its number.
const PAGE_RECORD: usize = 4 + PAGE_BYTES;
/// The head holds registers, devices and what waits in them: below 1 MiB, unless disks have
/// writes under way, with 4 MiB at most on each of up to eight.
const MAX_HEAD_BYTES: usize = 64 << 20;
/// Magic, format, length of the head.
const PREFIX: usize = 16;

impl Machine {
    /// Begins a snapshot of this very step; the stream may be read on another thread
    /// while this machine runs, is reset or dropped. `with_images` adds the files it
    /// boots from, so that it can be restored without the VM's files.
    ///
    /// This call is all that the guest has to wait for: it takes time with the devices'
    /// queues and one pass over a byte per page, not with what RAM holds.
    ///
    /// No output may be waiting ([`Machine::take_output`]).
    pub fn snapshot(&mut self, with_images: bool) -> Result<SnapshotStream, SnapshotBusy> {
        assert!(
            self.output.is_none(),
            "an output waits to be taken: it is not part of a snapshot"
        );
        let images = &self.config.images;
        let pages = self.mem.begin_snapshot()?;
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
            hart_states: self.harts.save(),
            board: self.board.save(),
            loaded: pages.loaded().to_vec(),
            images: with_images.then(|| ImageKind::ALL.map(|kind| images.len(kind))),
        };
        let head = encoded(&head);
        let mut out = Vec::with_capacity(PREFIX + head.len());
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&FORMAT.to_le_bytes());
        out.extend_from_slice(&(head.len() as u32).to_le_bytes());
        out.extend_from_slice(&head);
        Ok(SnapshotStream::new(
            out,
            pages,
            if with_images {
                images.clone()
            } else {
                Images::default()
            },
        ))
    }

    /// The whole snapshot at once.
    pub fn save(&mut self, with_images: bool) -> Result<Vec<u8>, SnapshotBusy> {
        let mut out = Vec::new();
        let mut stream = self.snapshot(with_images)?;
        while stream.read(usize::MAX, &mut out) {}
        Ok(out)
    }

    /// A machine from [`Machine::save`]'s bytes. With `config`, the snapshot must
    /// be of exactly that configuration; without, it must include its images.
    pub fn restore(bytes: &[u8], config: Option<MachineConfig>) -> Result<Self, SnapshotError> {
        let mut restore = Restore::new(config);
        restore.push(bytes)?;
        restore.finish()
    }
}

/// A machine that is being restored from the pieces of a snapshot.
pub struct Restore {
    config: Option<MachineConfig>,
    stage: Part,
    /// Bytes that are not enough for the next part yet: below a page, a piece of an image, or the
    /// head.
    rest: Vec<u8>,
    hash: Xxh3,
    received: u64,
    /// Page records so far.
    pages: usize,
}

enum Part {
    Prefix,
    Head(usize),
    Pages(Box<SnapshotHead>, Memory),
    Images(Box<SnapshotHead>, Memory, Box<ArrivingImages>),
    Checksum(Box<SnapshotHead>, Memory, Images),
    Done(Box<SnapshotHead>, Memory, Images),
    Failed,
}

impl Restore {
    /// Waits for the first piece.
    pub fn new(config: Option<MachineConfig>) -> Self {
        Self {
            config,
            stage: Part::Prefix,
            rest: Vec::new(),
            hash: Xxh3::new(),
            received: 0,
            pages: 0,
        }
    }

    /// Takes the next piece, of any length.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        self.received += bytes.len() as u64;
        let mut input = std::mem::take(&mut self.rest);
        input.extend_from_slice(bytes);
        let mut at = 0;
        loop {
            let stage = std::mem::replace(&mut self.stage, Part::Failed);
            let (stage, used) = self.step(stage, &input[at..])?;
            self.stage = stage;
            if used == 0 {
                break;
            }
            at += used;
        }
        self.rest = input.split_off(at);
        Ok(())
    }

    /// Reads one part if the input holds it; returns how much it used.
    fn step(&mut self, stage: Part, input: &[u8]) -> Result<(Part, usize), SnapshotError> {
        let content = |what: String| SnapshotError::Content(what);
        let (next, used) = match stage {
            Part::Prefix => {
                let Some(prefix) = input.first_chunk::<PREFIX>() else {
                    return Ok((Part::Prefix, 0));
                };
                let (magic, rest) = prefix.split_at(8);
                let (format, len) = rest.split_at(4);
                let found = u32::from_le_bytes([format[0], format[1], format[2], format[3]]);
                let len = u32::from_le_bytes([len[0], len[1], len[2], len[3]]) as usize;
                if magic != MAGIC {
                    return Err(SnapshotError::Foreign);
                }
                if found != FORMAT {
                    return Err(SnapshotError::Format { found });
                }
                if len > MAX_HEAD_BYTES {
                    return Err(content("length of the head".to_owned()));
                }
                (Part::Head(len), PREFIX)
            }
            Part::Head(len) => {
                let Some(head) = input.get(..len) else {
                    return Ok((Part::Head(len), 0));
                };
                let head: SnapshotHead =
                    postcard::from_bytes(head).map_err(|e| content(format!("head ({e})")))?;
                let ram_bytes = self.check_head(&head)?;
                let mem = Memory::new(ram_bytes).map_err(MachineError::from)?;
                if !is_in_order(&head.loaded, mem.pages()) {
                    return Err(content("list of loaded pages".to_owned()));
                }
                (Part::Pages(Box::new(head), mem), len)
            }
            Part::Pages(head, mut mem) => {
                let Some(number) = input.first_chunk::<4>() else {
                    return Ok((Part::Pages(head, mem), 0));
                };
                let page = u32::from_le_bytes(*number);
                if page == END_OF_PAGES {
                    let arriving = ArrivingImages::new(head.images.unwrap_or_default());
                    (Part::Images(head, mem, Box::new(arriving)), 4)
                } else {
                    let Some(bytes) = input.get(4..PAGE_RECORD) else {
                        return Ok((Part::Pages(head, mem), 0));
                    };
                    self.pages += 1;
                    if self.pages > mem.pages() {
                        return Err(content("number of pages: more than RAM has".to_owned()));
                    }
                    if !mem.restore_page(page, bytes) {
                        return Err(content(format!("page number {page}")));
                    }
                    (Part::Pages(head, mem), PAGE_RECORD)
                }
            }
            Part::Images(head, mem, arriving) if arriving.is_complete() => {
                // Nothing to read here: look at the checksum in the same turn.
                return self.step(Part::Checksum(head, mem, arriving.into_images()), input);
            }
            Part::Images(head, mem, mut arriving) => {
                let Some((number, rest)) = input.split_first_chunk::<4>() else {
                    return Ok((Part::Images(head, mem, arriving), 0));
                };
                let len = u32::from_le_bytes(*number) as usize;
                if len > ArrivingImages::most_packed_bytes() {
                    return Err(content("length of an image's piece".to_owned()));
                }
                let Some(packed) = rest.get(..len) else {
                    return Ok((Part::Images(head, mem, arriving), 0));
                };
                let taken = arriving.push(packed);
                taken.ok_or_else(|| content("piece of an image".to_owned()))?;
                (Part::Images(head, mem, arriving), 4 + len)
            }
            Part::Checksum(head, mem, images) => {
                let Some(sum) = input.first_chunk::<8>() else {
                    return Ok((Part::Checksum(head, mem, images), 0));
                };
                if u64::from_le_bytes(*sum) != self.hash.digest() {
                    return Err(SnapshotError::Checksum);
                }
                return Ok((Part::Done(head, mem, images), 8));
            }
            Part::Done(..) if !input.is_empty() => {
                return Err(content(format!("{} bytes behind its end", input.len())));
            }
            done @ (Part::Done(..) | Part::Failed) => return Ok((done, 0)),
        };
        self.hash.update(&input[..used]);
        Ok((next, used))
    }

    /// Checks the head against the configuration; returns the size of RAM.
    fn check_head(&self, head: &SnapshotHead) -> Result<u64, SnapshotError> {
        match &self.config {
            Some(config) => {
                compare_fields(&config.fields(), &head.fields)?;
                // How much is received must not be the sender's choice.
                let ours = ImageKind::ALL.map(|kind| config.images.len(kind));
                match head.images {
                    Some(theirs) if theirs != ours => {
                        Err(SnapshotError::Content("length of an image".to_owned()))
                    }
                    _ => Ok(config.ram_bytes),
                }
            }
            None if head.images.is_none() => Err(SnapshotError::NoImages),
            None => {
                // Before anything large is read: is it of this version at all?
                let ours = crate::MACHINE_VERSION.to_string();
                let theirs = head.fields.first().map(|(_, value)| value.clone());
                match theirs {
                    Some(theirs) if theirs == ours => Ok(head.ram_bytes),
                    theirs => Err(SnapshotError::Field {
                        field: "machine_version".to_owned(),
                        ours,
                        theirs: theirs.unwrap_or_default(),
                    }),
                }
            }
        }
    }

    /// The machine, if the snapshot is whole.
    pub fn finish(self) -> Result<Machine, SnapshotError> {
        let (head, mut mem, images) = match self.stage {
            Part::Done(head, mem, images) => (head, mem, images),
            Part::Prefix => return Err(SnapshotError::Foreign),
            _ => {
                return Err(SnapshotError::Short {
                    have: self.received,
                });
            }
        };
        let config = match self.config {
            Some(config) => config,
            None => {
                let config = MachineConfig {
                    ram_bytes: head.ram_bytes,
                    harts: head.harts,
                    slots: head.slots.clone(),
                    cmdline: head.cmdline.clone(),
                    images,
                    on_reset: head.on_reset,
                };
                compare_fields(&config.fields(), &head.fields)?;
                config
            }
        };
        // A reset by the guest must find what it needs.
        let boot = Boot::new(&config, &head.power_on)?;
        load_again(&boot, &config, &mut mem, &head.loaded)?;
        let content = |error: &dyn std::fmt::Display| SnapshotError::Content(error.to_string());
        let harts = Harts::restore(&head.hart_states, config.harts, head.icount)
            .map_err(|e| content(&e))?;
        let configured = Board::new(&Machine::board_config(&config, &head.power_on), Vec::new())
            .map_err(MachineError::from)?;
        if !same_devices(&configured.save(), &head.board) {
            return Err(SnapshotError::Content("set of devices".to_owned()));
        }
        let board = Board::restore(head.board).map_err(|e| content(&e))?;
        let (engine, engine_kind) = fastest(&mut mem);
        Ok(Machine {
            mem,
            harts,
            board,
            clock: head.clock,
            icount: head.icount,
            halted: head.halted,
            engine,
            engine_kind,
            output: None,
            console: Vec::new(),
            config,
            power_on: head.power_on,
        })
    }
}

/// Whether these are runs of pages that RAM has, in order and apart from each other.
fn is_in_order(runs: &[Range<u32>], pages: usize) -> bool {
    let mut free = 0;
    runs.iter().all(|run| {
        let good = run.start >= free && run.start < run.end && run.end as usize <= pages;
        free = run.end;
        good
    })
}

/// Loads pages that the snapshot left out because they were as they had been loaded.
fn load_again(
    boot: &Boot,
    config: &MachineConfig,
    mem: &mut Memory,
    runs: &[Range<u32>],
) -> Result<(), SnapshotError> {
    let pages = || runs.iter().cloned().flatten();
    let is_fresh = |mem: &Memory, page| mem.page_state(page as usize) & state::FRESH != 0;
    let bad = |page| SnapshotError::Content(format!("loaded page {page}"));
    if let Some(page) = pages().find(|page| !is_fresh(mem, *page)) {
        return Err(bad(page));
    }
    boot.load_pages(config, mem, runs)?;
    if let Some(page) = pages().find(|page| is_fresh(mem, *page)) {
        return Err(bad(page));
    }
    for run in runs {
        mem.mark_loaded(run.clone());
    }
    // Hashed while they are at hand, as the other pages were.
    mem.digest();
    Ok(())
}

/// Whether two boards hold the same devices in the same slots.
fn same_devices(ours: &BoardState, theirs: &BoardState) -> bool {
    let devices = |board: &BoardState| -> Vec<SlotConfig> {
        board.slots.iter().map(SlotState::config).collect()
    };
    devices(ours) == devices(theirs)
}
