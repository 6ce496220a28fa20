//! The write-intent map of a disk: which regions may differ from the other node's copy.
//!
//! A region's bit is durable before the first write into it, so that whatever a host that lost
//! its power has written, or may have written, is known afterwards. Bits go when both copies are
//! known to be equal there, lazily: a bit too many costs a comparison, one too few a wrong copy.
//!
//! The file is a header of one sector and then sectors of bits, each with a checksum of its own.
//! A sector that was being written when the power failed holds for each byte the old or the new
//! bits, or fails its checksum; then all of its regions count as written.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::durable::sync_dir;
use crate::medium::Medium;
use crate::worker::locked;

/// Bytes of a disk that one bit stands for.
pub(crate) const REGION_BYTES: u64 = 1 << 20;

const SECTOR: usize = 512;
/// Bytes of bits in a sector: the rest is the checksum.
const BITS_BYTES: usize = SECTOR - 4;
/// Regions of a sector.
const SECTOR_REGIONS: u64 = BITS_BYTES as u64 * 8;
/// Regions that are set beforehand where writes go upwards: one durable write of the map then
/// serves that many regions.
const AHEAD: u64 = 16;

const MAGIC: &[u8; 16] = b"twinvm intents 1";

/// The map, in its file.
#[derive(Debug)]
pub(crate) struct Intents {
    file: File,
    path: PathBuf,
    medium: Medium,
    regions: u64,
    inner: Mutex<Inner>,
    /// Held by whoever changes the file. The bits that are durable can be looked at meanwhile.
    changing: Mutex<()>,
}

#[derive(Debug)]
struct Inner {
    /// What the file holds durably: bits of a sector together, without checksums.
    bits: Vec<u8>,
    /// A write of the map failed: what it holds is unknown, so nothing more may be written.
    failed: Option<String>,
}

impl Intents {
    /// Opens the map of a disk of `disk_bytes`, or makes one. One that is new, unreadable or of
    /// another size has every bit set.
    pub(crate) fn open(path: &Path, disk_bytes: u64, medium: Medium) -> io::Result<Self> {
        let regions = disk_bytes.div_ceil(REGION_BYTES);
        let sectors = regions.div_ceil(SECTOR_REGIONS) as usize;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)?;
        let known = read(&file, disk_bytes, sectors)?;
        let intents = Self {
            file,
            path: path.to_owned(),
            medium,
            regions,
            inner: Mutex::new(Inner {
                bits: vec![0xff; sectors * BITS_BYTES],
                failed: None,
            }),
            changing: Mutex::default(),
        };
        match known {
            Some(bits) => locked(&intents.inner).bits = bits,
            None => intents.write_whole(disk_bytes, sectors)?,
        }
        Ok(intents)
    }

    fn write_whole(&self, disk_bytes: u64, sectors: usize) -> io::Result<()> {
        // The header last: until it is there the file says nothing.
        self.file.set_len(0)?;
        let inner = locked(&self.inner);
        for sector in 0..sectors {
            self.write_sector(&inner.bits, sector)?;
        }
        self.medium.sync(&self.path, &self.file)?;
        self.medium
            .write_at(&self.path, &self.file, &header(disk_bytes), 0)?;
        self.file.sync_all()?;
        self.medium.sync(&self.path, &self.file)?;
        sync_dir(self.path.parent().unwrap_or(Path::new(".")))
    }

    fn write_sector(&self, bits: &[u8], sector: usize) -> io::Result<()> {
        let mut bytes = [0; SECTOR];
        let (own, sum) = bytes.split_at_mut(BITS_BYTES);
        own.copy_from_slice(&bits[sector * BITS_BYTES..][..BITS_BYTES]);
        sum.copy_from_slice(&crc32fast::hash(own).to_le_bytes());
        let offset = (sector as u64 + 1) * SECTOR as u64;
        self.medium.write_at(&self.path, &self.file, &bytes, offset)
    }

    /// How many regions the disk has.
    pub(crate) fn regions(&self) -> u64 {
        self.regions
    }

    /// Sets the bits of these regions, durably. Waits for the medium only if one isn't set.
    pub(crate) fn set(&self, regions: Range<u64>) -> io::Result<()> {
        if self.holds(&regions)? {
            return Ok(());
        }
        let _changing = locked(&self.changing);
        // Somebody may have set them meanwhile.
        if self.holds(&regions)? {
            return Ok(());
        }
        let mut bits = locked(&self.inner).bits.clone();
        let upwards = regions.start > 0 && contains(&bits, regions.start - 1);
        let ahead = if upwards { AHEAD } else { 0 };
        let end = (regions.end + ahead).min(self.regions);
        let unset: Vec<u64> = (regions.start..end)
            .filter(|region| !contains(&bits, *region))
            .collect();
        let changed = change_all(&mut bits, unset, true);
        let written = changed
            .iter()
            .try_for_each(|sector| self.write_sector(&bits, *sector))
            .and_then(|()| self.medium.sync(&self.path, &self.file));
        let mut inner = locked(&self.inner);
        match &written {
            Ok(()) => inner.bits = bits,
            Err(error) => {
                inner.failed = Some(format!(
                    "{}: the map of what was written can't be kept ({error}), so nothing can be \
                     written",
                    self.path.display()
                ));
            }
        }
        written
    }

    /// Whether all of these bits are durable.
    fn holds(&self, regions: &Range<u64>) -> io::Result<bool> {
        let inner = locked(&self.inner);
        match &inner.failed {
            Some(why) => Err(io::Error::other(why.clone())),
            None => Ok(regions.clone().all(|region| contains(&inner.bits, region))),
        }
    }

    /// Clears the bits of all regions that `keep` doesn't name. Needn't be durable: a bit that
    /// comes back is one too many.
    pub(crate) fn retain(&self, keep: impl Fn(u64) -> bool) -> io::Result<()> {
        let _changing = locked(&self.changing);
        let mut inner = locked(&self.inner);
        let set = |region: &u64| contains(&inner.bits, *region) && !keep(*region);
        let gone: Vec<u64> = (0..self.regions).filter(set).collect();
        let changed = change_all(&mut inner.bits, gone, false);
        changed
            .iter()
            .try_for_each(|sector| self.write_sector(&inner.bits, *sector))
    }

    /// The regions whose bit is set, as runs.
    pub(crate) fn runs(&self) -> Vec<Range<u64>> {
        let inner = locked(&self.inner);
        let mut runs: Vec<Range<u64>> = Vec::new();
        for region in (0..self.regions).filter(|region| contains(&inner.bits, *region)) {
            match runs.last_mut() {
                Some(run) if run.end == region => run.end += 1,
                _ => runs.push(region..region + 1),
            }
        }
        runs
    }
}

fn contains(bits: &[u8], region: u64) -> bool {
    let byte = bits.get((region / 8) as usize);
    byte.is_some_and(|byte| byte & (1 << (region % 8)) != 0)
}

/// Sets or clears the bits of these regions, which go upwards; the sectors that have changed.
fn change_all(bits: &mut [u8], regions: Vec<u64>, set: bool) -> Vec<usize> {
    let mut changed = Vec::new();
    for region in regions {
        let Some(byte) = bits.get_mut((region / 8) as usize) else {
            continue;
        };
        let bit = 1 << (region % 8);
        *byte = if set { *byte | bit } else { *byte & !bit };
        let sector = (region / SECTOR_REGIONS) as usize;
        if changed.last() != Some(&sector) {
            changed.push(sector);
        }
    }
    changed
}

fn header(disk_bytes: u64) -> [u8; SECTOR] {
    let mut bytes = [0; SECTOR];
    bytes[..16].copy_from_slice(MAGIC);
    bytes[16..24].copy_from_slice(&disk_bytes.to_le_bytes());
    bytes[24..32].copy_from_slice(&REGION_BYTES.to_le_bytes());
    let sum = crc32fast::hash(&bytes[..BITS_BYTES]);
    bytes[BITS_BYTES..].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// The bits in the file; `None` if it isn't the map of such a disk.
fn read(file: &File, disk_bytes: u64, sectors: usize) -> io::Result<Option<Vec<u8>>> {
    if file.metadata()?.len() != (sectors as u64 + 1) * SECTOR as u64 {
        return Ok(None);
    }
    let mut sector = [0; SECTOR];
    file.read_exact_at(&mut sector, 0)?;
    if sector != header(disk_bytes) {
        return Ok(None);
    }
    let mut bits = Vec::with_capacity(sectors * BITS_BYTES);
    for n in 0..sectors {
        file.read_exact_at(&mut sector, (n as u64 + 1) * SECTOR as u64)?;
        let (own, sum) = sector.split_at(BITS_BYTES);
        if crc32fast::hash(own).to_le_bytes() == sum {
            bits.extend_from_slice(own);
        } else {
            bits.resize(bits.len() + BITS_BYTES, 0xff);
        }
    }
    Ok(Some(bits))
}

#[cfg(test)]
mod tests;
