//! Going on from a snapshot's file: the machine is the snapshot's own, and what else is said
//! of it must agree.

use std::path::{Path, PathBuf};

use twinvm_config::VmConfig;
use twinvm_host::snapshot_file::{self, SnapshotFileError};
use twinvm_machine::{
    FieldDifference, Machine, MachineConfig, OnReset, SlotConfig, first_field_difference,
};

use super::{ConsoleArg, ResetArg, RunArgs};
use crate::guest::{GuestError, OpenDisk, add_files, disk_slots, machine_config};

/// Why a run can't go on from a snapshot.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FromError {
    /// The file.
    #[error("--from {0}")]
    File(#[from] SnapshotFileError),
    /// The VM's description, which is compared.
    #[error(transparent)]
    Guest(#[from] GuestError),
    /// The snapshot is of another machine than described.
    #[error(
        "--from {}: {field} is {theirs:?} in the snapshot, {ours:?} {here}: a snapshot goes on as \
         the machine that it is",
        path.display()
    )]
    Field {
        /// The snapshot.
        path: PathBuf,
        /// The first field that differs.
        field: String,
        /// Its value in the snapshot.
        theirs: String,
        /// Its value as described.
        ours: String,
        /// Where that stands.
        here: String,
    },
    /// Every disk of the snapshot needs its file, and there are no others.
    #[error(
        "--from {}: number of disks: {theirs} in the snapshot, {ours} given: give the file of each, \
         in their order, with --disk FILE or by VM.toml",
        path.display()
    )]
    Disks {
        /// The snapshot.
        path: PathBuf,
        /// Disks of its machine.
        theirs: usize,
        /// Files that are given.
        ours: usize,
    },
    /// It is over before it begins.
    #[error(
        "--max-instructions {limit}: the snapshot is of step {icount} already, and steps are \
         counted since power-on: give more than {icount}"
    )]
    Limit {
        /// The limit.
        limit: u64,
        /// The snapshot's step.
        icount: u64,
    },
}

/// The machine of the snapshot at `path`, if nothing that is said of it contradicts.
pub(crate) fn machine(
    path: &Path,
    args: &RunArgs,
    vm: &VmConfig,
    disks: &[OpenDisk],
) -> Result<Machine, FromError> {
    let machine = snapshot_file::restore(path)?;
    let theirs = machine.config().slots.iter().filter(is_disk).count();
    if theirs != disks.len() {
        return Err(FromError::Disks {
            path: path.to_owned(),
            theirs,
            ours: disks.len(),
        });
    }
    let described = described(args, vm, disks, machine.config())?;
    let different = first_field_difference(&machine.config().fields(), &described.fields());
    if let Some(FieldDifference { field, left, right }) = different {
        return Err(FromError::Field {
            path: path.to_owned(),
            field,
            theirs: left,
            ours: right,
            here: match &args.file {
                Some(file) => format!("by {} and options", file.display()),
                None => "by the options".to_owned(),
            },
        });
    }
    let icount = machine.icount();
    match args.max_instructions {
        Some(limit) if limit <= icount => Err(FromError::Limit { limit, icount }),
        _ => Ok(machine),
    }
}

fn is_disk(slot: &&SlotConfig) -> bool {
    matches!(slot, SlotConfig::Disk(_))
}

/// What file and options say; where they say nothing, the snapshot's own.
fn described(
    args: &RunArgs,
    vm: &VmConfig,
    disks: &[OpenDisk],
    own: &MachineConfig,
) -> Result<MachineConfig, GuestError> {
    if args.file.is_some() {
        return machine_config(vm, disk_slots(disks).collect());
    }
    let mut config = own.clone();
    config.images = add_files(config.images, vm)?;
    let own_disks = config.slots.iter_mut().filter(|slot| is_disk(&&**slot));
    for (own, given) in own_disks.zip(disk_slots(disks)) {
        *own = given;
    }
    if args.memory.is_some() {
        config.ram_bytes = vm.memory_bytes;
    }
    if let Some(harts) = args.harts {
        config.harts = harts;
    }
    if let Some(cmdline) = &args.cmdline {
        config.cmdline.clone_from(cmdline);
    }
    match args.on_reset {
        Some(ResetArg::Restart) => config.on_reset = OnReset::Restart,
        Some(ResetArg::Exit) => config.on_reset = OnReset::Exit,
        None => {}
    }
    match args.console {
        Some(ConsoleArg::Uart) => config.slots.retain(|slot| *slot != SlotConfig::Console),
        Some(ConsoleArg::Virtio) if config.console_slot().is_none() => {
            config.slots.push(SlotConfig::Console);
        }
        _ => {}
    }
    Ok(config)
}
