//! Whether a qcow2 image is all there. In place of what its tables name behind the file's end a
//! reader gets zeros: a download that broke off would become a disk with holes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Bits 9 to 55 of an entry: where something is in the file.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
const COMPRESSED: u64 = 1 << 62;
const SECTOR_BYTES: u64 = 512;
/// Bytes of the fields that are read, of any version's header.
const HEADER_BYTES: usize = 48;

struct Header {
    cluster_bits: u32,
    disk_bytes: u64,
    l1_entries: u64,
    l1_offset: u64,
}

impl Header {
    /// Of a file whose header somebody has checked. `None`: it is of a kind that isn't known here.
    fn read(file: &File) -> io::Result<Option<Self>> {
        let mut head = [0; HEADER_BYTES];
        file.read_exact_at(&mut head, 0)?;
        let u32_at = |at: usize| u32::from_be_bytes(head[at..at + 4].try_into().unwrap_or([0; 4]));
        let u64_at = |at: usize| u64::from_be_bytes(head[at..at + 8].try_into().unwrap_or([0; 8]));
        let cluster_bits = u32_at(20);
        Ok((9..=21).contains(&cluster_bits).then(|| Self {
            cluster_bits,
            disk_bytes: u64_at(24),
            l1_entries: u64::from(u32_at(36)),
            l1_offset: u64_at(40),
        }))
    }
}

/// How long the file would have to be at least to hold what its tables name, if it is shorter. Of
/// an image that has been opened: its header is one.
pub(super) fn lacks(file: &File) -> io::Result<Option<u64>> {
    let Some(header) = Header::read(file)? else {
        return Ok(None);
    };
    let len = file.metadata()?.len();
    let cluster = 1u64 << header.cluster_bits;
    let missing = |end: u64| (end > len).then_some(end);
    let l1_end = header.l1_offset.saturating_add(header.l1_entries * 8);
    if let Some(end) = missing(l1_end) {
        return Ok(Some(end));
    }
    let mut table = vec![0; cluster as usize];
    for l1 in 0..header.l1_entries {
        // Of the disk, what each table is about.
        let first = l1.saturating_mul(cluster / 8).saturating_mul(cluster);
        if first >= header.disk_bytes {
            break;
        }
        let mut entry = [0; 8];
        file.read_exact_at(&mut entry, header.l1_offset + l1 * 8)?;
        let at = u64::from_be_bytes(entry) & OFFSET;
        if at == 0 {
            continue;
        }
        if let Some(end) = missing(at + cluster) {
            return Ok(Some(end));
        }
        file.read_exact_at(&mut table, at)?;
        for (l2, entry) in (0..).zip(table.chunks_exact(8)) {
            let entry = u64::from_be_bytes(entry.try_into().unwrap_or([0; 8]));
            let left = header
                .disk_bytes
                .saturating_sub(first.saturating_add(l2 * cluster));
            if let Some(end) = missing(end_of(entry, header.cluster_bits, left.min(cluster))) {
                return Ok(Some(end));
            }
        }
    }
    Ok(None)
}

/// Where what an entry names ends in the file, if it holds `bytes` of the disk; 0 if it names nothing.
fn end_of(entry: u64, cluster_bits: u32, bytes: u64) -> u64 {
    if bytes == 0 {
        return 0;
    }
    if entry & COMPRESSED == 0 {
        return match entry & OFFSET {
            0 => 0,
            at => at + bytes,
        };
    }
    // The last of its sectors may be cut short, and is not empty.
    let bits = 62 - (cluster_bits - 8);
    let at = entry & ((1 << bits) - 1);
    let more_sectors = (entry & (COMPRESSED - 1)) >> bits;
    (at / SECTOR_BYTES + more_sectors) * SECTOR_BYTES + 1
}

#[cfg(test)]
mod tests {
    use super::end_of;

    #[test]
    fn an_entry_says_where_its_cluster_ends() {
        let end = |entry, bytes| end_of(entry, 16, bytes);
        assert_eq!(end(0, 65536), 0);
        // A cluster of zeros, and one that was written; its end is behind the disk's.
        assert_eq!(end(1, 65536), 0);
        assert_eq!(end(1 << 63 | 0x5_0000, 65536), 0x6_0000);
        assert_eq!(end(1 << 63 | 0x5_0000, 1000), 0x5_0000 + 1000);
        assert_eq!(end(1 << 63 | 0x5_0000, 0), 0);
        // Compressed: three sectors more than the one it begins in.
        let entry = 1 << 62 | 3 << 54 | 0x5_0123;
        assert_eq!(end(entry, 65536), 0x5_0000 + 3 * 512 + 1);
    }
}
