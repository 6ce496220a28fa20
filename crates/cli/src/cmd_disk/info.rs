//! `twinvm disk info`.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use twinvm_host::disk::{DiskError, DiskFile, StoredMark};

use crate::image_kind::ImageKind;
use crate::{BAD_INPUT, Outcome, say};

/// Shows what a disk is, and what a node's copy of it is worth
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  twinvm disk info shop.img
  twinvm disk info shop.img --node state/a

With --node, the folder STATE_DIR/NAME of a node: which VM the disk belongs to, the generation of
the arbiter's record under which the node has last executed, the one that it may have been given
since, and whether the copy is whole. The node needn't be stopped.")]
pub(super) struct InfoArgs {
    /// Raw disk image
    file: PathBuf,
    /// The node whose copy it is
    #[arg(long, value_name = "FOLDER")]
    node: Option<PathBuf>,
}

pub(super) fn run(args: &InfoArgs) -> Outcome {
    let path = &args.file;
    let refused = |error: &dyn std::fmt::Display| (BAD_INPUT, error.to_string());
    let used_by = match DiskFile::open(path, true) {
        Ok(_) => None,
        Err(DiskError::Locked { by, .. }) => Some(by),
        Err(error) => return Err(refused(&error)),
    };
    let about = fs::metadata(path).map_err(|error| refused(&error))?;
    say::answer(format_args!(
        "file        {}\nsize        {} bytes\nroom        {} bytes\nin use      {}",
        path.display(),
        about.len(),
        about.blocks() * 512,
        used_by.as_deref().unwrap_or("no")
    ))?;
    if let Some(kind) = ImageKind::not_raw(path) {
        say::answer(format_args!(
            "holds       a {kind} image: no VM can use it before twinvm disk import makes it raw"
        ))?;
    }
    let Some(folder) = &args.node else {
        return Ok(0);
    };
    let stored = StoredMark::read(folder).map_err(|error| refused(&error))?;
    let Some(stored) = stored else {
        return Err((
            BAD_INPUT,
            format!(
                "{}: no disks.mark: not the folder of a node that has had disks",
                folder.display()
            ),
        ));
    };
    let number = stored.number_of(path).map_err(|error| refused(&error))?;
    let Some(number) = number else {
        return Err((
            BAD_INPUT,
            format!(
                "{}: not one of the disks that {} is about",
                path.display(),
                folder.join("disks.mark").display()
            ),
        ));
    };
    let mark = stored.mark();
    let pending = mark.pending.map_or("none".to_owned(), |g| g.to_string());
    say::answer(format_args!(
        "disk        {number}\nVM          {:032x}\ngeneration  {}\npending     {pending}\nconsistent  \
         {}\nepoch       {:032x}",
        mark.vm,
        mark.generation,
        if mark.consistent {
            "yes"
        } else {
            "no: half a copy of the other node's; it takes the rest when it joins"
        },
        mark.epoch
    ))?;
    Ok(0)
}
