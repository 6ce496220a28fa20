//! From a VM's description to a machine's configuration: reads the files, and says which one
//! is to blame when they don't go together.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use twinvm_config::{ConsoleKind, Disk, MAX_DEVICES, Node, VmConfig};
use twinvm_host::disk::{DiskError, DiskFile, DiskSpec, StoredMark};
use twinvm_host::fence::Fence;
use twinvm_host::hooks::HookCommand;
use twinvm_host::nbd::{NbdError, NbdSpec, NbdTarget};
use twinvm_host::node::{Reads, SharedDisk};
use twinvm_host::random::random_u128;
use twinvm_host::tls::{Credentials, Expect, Subject, TlsError};
use twinvm_machine::loader::LoadError;
use twinvm_machine::{
    DiskConfig, ImageKind, Images, MachineConfig, MachineError, SECTOR_BYTES, SlotConfig,
};
use twinvm_nbd::address::Address;
use twinvm_nbd::wire::Claim;

use crate::image_kind;

/// A file that is longer, and longer than the guest's memory, is not read: a wrong name must
/// not cost the host its own.
const ANY_FILE_BYTES: u64 = 1 << 30;
/// Said of a name that leads nowhere.
const NO_FILE: &str =
    "there is no such file: give another path (in a VM's file it is relative to that file)";

/// Why there is no machine for a description.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GuestError {
    /// Nothing to boot.
    #[error(
        "no kernel: add kernel = \"FILE\" to the VM's file, or give --kernel FILE to twinvm run \
         (firmware = \"FILE\" or --firmware FILE for a program that needs none)"
    )]
    NoKernel,
    /// Nobody would find it.
    #[error("an initrd without a kernel: add the kernel, or leave the initrd out")]
    InitrdAlone,
    /// More devices than slots.
    #[error(
        "{nets} network cards and {disks} disks: at most {most} devices fit beside {own} on the board's eight slots"
    )]
    Devices {
        /// Network cards asked for.
        nets: usize,
        /// Disks asked for.
        disks: usize,
        /// Most that fit.
        most: usize,
        /// What is on the board anyway.
        own: &'static str,
    },
    /// A file can't be a disk.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The file has another size than VM.toml says.
    #[error("disk {}: {found} bytes, but size says {bytes}: make them equal", path.display())]
    DiskSize {
        /// The file.
        path: PathBuf,
        /// Bytes it has.
        found: u64,
        /// Bytes it should have.
        bytes: u64,
    },
    /// There is no file, and nobody says how large it would be.
    #[error(
        "disk {}: there is no such file: make it, for instance with truncate -s 4G FILE; a node \
         that is to get it from the other one needs its size: size = \"4G\" in [[disk]]",
        .0.display()
    )]
    NoDisk(PathBuf),
    /// It would be written over as if it were raw.
    #[error(
        "disk {}: a {kind} image, and a disk has to be raw: make one of it with twinvm disk import",
        path.display()
    )]
    NotRaw {
        /// The file.
        path: PathBuf,
        /// Its format.
        kind: &'static str,
    },
    /// An export can't be a disk.
    #[error(transparent)]
    Nbd(#[from] NbdError),
    /// The keys for one.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A server that lets a former live node write.
    #[error(
        "disk {0}: its server can't keep a former live node off: serve it with twinvm disk serve, or \
         name a command that does it: fence = \"COMMAND\" in [[disk]]"
    )]
    NotFenced(Address),
    /// The backup can't read beside the live node.
    #[error(
        "disk {0}: its server doesn't say that what one connection has written all others read, so \
         the backup can't read by itself: serve it with twinvm disk serve of this version, or leave \
         reads = \"own\" out"
    )]
    NotReadByBoth(Address),
    /// No process for the command that does.
    #[error("[[disk]] fence: can't run the command: {0}")]
    Fence(io::Error),
    /// No random numbers.
    #[error("reading random numbers: {0}")]
    Random(io::Error),
    /// More memory than there is.
    #[error(
        "memory is {} MiB, this host has {} MiB (swap counted): set memory = \"{}M\" or less",
        .asked >> 20, .host >> 20, .host >> 20
    )]
    Memory {
        /// What the VM's description asks for, in bytes.
        asked: u64,
        /// What the host has, in bytes.
        host: u64,
    },
    /// A file can't be read.
    #[error("{what} {}: {why}", path.display())]
    File {
        /// What it is to the guest.
        what: ImageKind,
        /// The file.
        path: PathBuf,
        /// What the system said.
        why: String,
    },
    /// A file is not what it should be.
    #[error("{}: {source}", path.display())]
    Load {
        /// The file at fault.
        path: PathBuf,
        /// What is wrong with it.
        source: LoadError,
    },
    /// The machine can't be made for another reason.
    #[error(transparent)]
    Machine(MachineError),
}

/// A file that is an image of another format is no disk.
pub(crate) fn check_raw(path: &Path) -> Result<(), GuestError> {
    match image_kind::ImageKind::not_raw(path) {
        Some(kind) => Err(GuestError::NotRaw {
            path: path.to_owned(),
            kind,
        }),
        None => Ok(()),
    }
}

/// A disk of a VM that runs alone, before it is at work.
pub(crate) enum OpenDisk {
    /// A file, locked.
    File(DiskFile),
    /// An export, claimed.
    Nbd(Box<NbdTarget>),
}

impl OpenDisk {
    fn sectors(&self) -> u64 {
        match self {
            Self::File(file) => file.sectors(),
            Self::Nbd(target) => target.sectors(),
        }
    }

    fn read_only(&self) -> bool {
        match self {
            Self::File(file) => file.read_only(),
            Self::Nbd(target) => target.read_only(),
        }
    }
}

/// The disks of a VM that runs alone, opened and locked, in their order.
pub(crate) fn open_disks(vm: &VmConfig) -> Result<Vec<OpenDisk>, GuestError> {
    let open = |disk: &Disk| {
        Ok(match disk {
            Disk::File {
                path, read_only, ..
            } => {
                check_raw(path)?;
                OpenDisk::File(DiskFile::open(path, *read_only)?)
            }
            Disk::Nbd {
                address, read_only, ..
            } => {
                let target = NbdTarget::open(NbdSpec {
                    address: address.clone(),
                    read_only: *read_only,
                    keys: own_keys(vm)?,
                    // Nobody's generation: it keeps others off while it is connected.
                    claim: Claim {
                        vm: vm.name.clone(),
                        holder: random_u128().map_err(GuestError::Random)?,
                        generation: 0,
                    },
                    // Nobody else has a VM that runs alone.
                    beside: false,
                    fencing: None,
                })?;
                OpenDisk::Nbd(Box::new(target))
            }
        })
    };
    vm.disks.iter().map(open).collect()
}

/// The keys of the node whose host this is: the one whose files are here.
fn own_keys(vm: &VmConfig) -> Result<Option<Credentials>, TlsError> {
    let names = vm.nodes.iter().map(|node| node.name.clone());
    let mut found = names.filter_map(|name| Some((vm.tls_of(&name)?, name)));
    let Some((files, name)) = found.find(|(files, _)| files.key.exists()) else {
        return Ok(None);
    };
    let own = Subject::Node(name);
    Credentials::load(files, own, Expect::Arbiter).map(Some)
}

/// The disks of a node's machine that both nodes reach, and their servers.
fn shared_disk(
    vm: &VmConfig,
    address: &Address,
    read_only: bool,
    fence: Option<Fence>,
    (device, reads): (u8, Reads),
) -> Result<SharedDisk, GuestError> {
    let target = NbdTarget::look(NbdSpec {
        address: address.clone(),
        read_only,
        keys: own_keys(vm)?,
        claim: Claim {
            vm: vm.name.clone(),
            holder: random_u128().map_err(GuestError::Random)?,
            // Of which one the node learns when it goes live.
            generation: 0,
        },
        beside: false,
        fencing: None,
    })?;
    let target = match fence {
        Some(fence) => target.behind(fence),
        // Who only reads does no harm.
        None if read_only || target.keeps_others_off()? => target,
        None => return Err(GuestError::NotFenced(address.clone())),
    };
    if reads == Reads::Own && !target.lets_others_read()? {
        return Err(GuestError::NotReadByBoth(address.clone()));
    }
    Ok(SharedDisk {
        device,
        target,
        reads,
    })
}

/// The disks of a node's machine, its own copies, and those that both nodes reach.
pub(crate) type NodeDisks = (Vec<SlotConfig>, Vec<DiskSpec>, Vec<SharedDisk>);

/// The disks of a node's machine and its own copies of them, which it opens itself. A node that
/// has no file yet gets it from the other one.
///
/// `fence` starts what runs the command that keeps a former live node off a disk.
pub(crate) fn own_disks(
    vm: &VmConfig,
    node: &Node,
    fence: impl Fn(&Address, HookCommand) -> io::Result<Fence>,
) -> Result<NodeDisks, GuestError> {
    let (mut slots, mut specs, mut shared) = (Vec::new(), Vec::new(), Vec::new());
    let first = vm.nets.len();
    // What the guest has written to a disk that is in use may begin like anything.
    let folder = vm.state_dir.join(&node.name);
    let is_new = matches!(StoredMark::read(&folder), Ok(None));
    for (number, disk) in (0..).zip(vm.disks_of(node)) {
        let device = (first + usize::from(number)) as u8;
        let (path, bytes, read_only) = match disk {
            Disk::File {
                path,
                bytes,
                read_only,
            } => (path, bytes, read_only),
            Disk::Nbd {
                address,
                read_only,
                fence: command,
                reads,
            } => {
                let fence = command.map(|command| fence(&address, command));
                let fence = fence.transpose().map_err(GuestError::Fence)?;
                let disk = shared_disk(vm, &address, read_only, fence, (device, reads))?;
                slots.push(SlotConfig::Disk(DiskConfig {
                    sectors: disk.target.sectors(),
                    read_only,
                    number,
                }));
                shared.push(disk);
                continue;
            }
        };
        if is_new {
            check_raw(&path)?;
        }
        let found = match fs::metadata(&path) {
            Ok(about) => Some(about.len()),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(source) => return Err(DiskError::Io { path, source }.into()),
        };
        let bytes = match (found, bytes) {
            (Some(found), Some(bytes)) if found != bytes => {
                return Err(GuestError::DiskSize { path, found, bytes });
            }
            (Some(bytes), _) | (None, Some(bytes)) => bytes,
            (None, None) => return Err(GuestError::NoDisk(path)),
        };
        slots.push(SlotConfig::Disk(DiskConfig {
            sectors: bytes / SECTOR_BYTES,
            read_only,
            number,
        }));
        specs.push(DiskSpec {
            device,
            path,
            read_only,
        });
    }
    Ok((slots, specs, shared))
}

/// The machine that a VM's file describes: network cards in the slots from 0 on, in the order of
/// the file, behind them the disks, then an entropy source and, if it is wanted, a console.
pub(crate) fn machine_config(
    vm: &VmConfig,
    disks: Vec<SlotConfig>,
) -> Result<MachineConfig, GuestError> {
    if vm.kernel.is_none() && vm.firmware.is_none() {
        return Err(GuestError::NoKernel);
    }
    if vm.kernel.is_none() && vm.initrd.is_some() {
        return Err(GuestError::InitrdAlone);
    }
    let (own, own_names): (&[_], _) = match vm.console {
        ConsoleKind::Uart => (&[SlotConfig::Rng], "the entropy device"),
        ConsoleKind::Virtio => (
            &[SlotConfig::Rng, SlotConfig::Console],
            "the entropy device and the console",
        ),
    };
    let most = MAX_DEVICES - own.len();
    if vm.nets.len() + disks.len() > most {
        return Err(GuestError::Devices {
            nets: vm.nets.len(),
            disks: disks.len(),
            most,
            own: own_names,
        });
    }
    check_memory(vm.memory_bytes, host_memory_bytes())?;
    let images = add_files(Images::default(), vm)?;
    let cards = vm.nets.iter().map(|net| SlotConfig::Net { mac: net.mac.0 });
    Ok(MachineConfig {
        ram_bytes: vm.memory_bytes,
        harts: vm.harts,
        slots: cards.chain(disks).chain(own.iter().copied()).collect(),
        cmdline: vm.cmdline.clone(),
        images,
        on_reset: vm.on_reset,
    })
}

/// The disks as they are on the board.
pub(crate) fn disk_slots(disks: &[OpenDisk]) -> impl Iterator<Item = SlotConfig> {
    (0..).zip(disks).map(|(number, disk)| {
        SlotConfig::Disk(DiskConfig {
            sectors: disk.sectors(),
            read_only: disk.read_only(),
            number,
        })
    })
}

/// A guest that outgrows its host would be killed in the middle of its work.
fn check_memory(asked: u64, host: Option<u64>) -> Result<(), GuestError> {
    match host {
        Some(host) if asked > host => Err(GuestError::Memory { asked, host }),
        _ => Ok(()),
    }
}

/// Memory and swap of this host, if it says.
fn host_memory_bytes() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let field = |name: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        kib.checked_mul(1024)
    };
    field("MemTotal:")?.checked_add(field("SwapTotal:").unwrap_or(0))
}

/// Reads the files that the VM's description names.
pub(crate) fn add_files(mut images: Images, vm: &VmConfig) -> Result<Images, GuestError> {
    for kind in ImageKind::ALL {
        if let Some(path) = file(vm, kind) {
            images = read(images, kind, path, vm.memory_bytes)?;
        }
    }
    Ok(images)
}

/// Names the file that a machine could not be made of.
pub(crate) fn blame(vm: &VmConfig, error: MachineError) -> GuestError {
    let MachineError::Load(source) = error else {
        return GuestError::Machine(error);
    };
    let path = source.image().and_then(|image| file(vm, image));
    GuestError::Load {
        path: path.map(Path::to_owned).unwrap_or_default(),
        source,
    }
}

/// The file of this kind that the VM's description names.
fn file(vm: &VmConfig, kind: ImageKind) -> Option<&Path> {
    match kind {
        ImageKind::Firmware => vm.firmware.as_deref(),
        ImageKind::Kernel => vm.kernel.as_deref(),
        ImageKind::Initrd => vm.initrd.as_deref(),
        ImageKind::DeviceTree => vm.dtb.as_deref(),
    }
}

fn read(
    images: Images,
    what: ImageKind,
    path: &Path,
    ram_bytes: u64,
) -> Result<Images, GuestError> {
    let bad = |why: String| GuestError::File {
        what,
        path: path.to_owned(),
        why,
    };
    let about = fs::metadata(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => bad(NO_FILE.to_owned()),
        _ => bad(error.to_string()),
    })?;
    if !about.is_file() {
        return Err(bad("not a regular file".to_owned()));
    }
    let most = ram_bytes.max(ANY_FILE_BYTES);
    if about.len() > most {
        return Err(bad(format!(
            "it has {} bytes, and {most} are the most that is read for this VM",
            about.len()
        )));
    }
    // A file that grows meanwhile is not followed.
    File::open(path)
        .and_then(|file| images.read(what, &mut file.take(about.len())))
        .map_err(|error| bad(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_the_host_lacks_is_refused() {
        assert!(host_memory_bytes().is_some_and(|bytes| bytes > 64 << 20));
        assert!(check_memory(8 << 30, None).is_ok());
        assert!(check_memory(8 << 30, Some(8 << 30)).is_ok());
        let error = check_memory(8 << 30, Some((8 << 30) - 4096)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "memory is 8192 MiB, this host has 8191 MiB (swap counted): set memory = \"8191M\" or \
             less"
        );
    }
}
