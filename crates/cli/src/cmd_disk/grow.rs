//! `twinvm disk grow`.

use std::path::PathBuf;

use twinvm_host::disk::grow;

use crate::{BAD_INPUT, Outcome, say};

/// Makes a disk larger
///
/// No VM may be using it. What is new reads as zeros and takes no room. If two nodes have copies
/// of it, both have to be made as large before they are started.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example, on both hosts, with both nodes stopped:
  twinvm disk grow shop.img 16G")]
pub(super) struct GrowArgs {
    /// Raw disk image
    file: PathBuf,
    /// The new size in bytes, or with K, M, G or T behind it
    size: String,
}

pub(super) fn run(args: &GrowArgs) -> Outcome {
    let bytes = super::bytes(&args.size)?;
    super::not_raw(&args.file)?;
    let before = grow(&args.file, bytes).map_err(|error| (BAD_INPUT, error.to_string()))?;
    say::answer(format_args!(
        "{}: {bytes} bytes, it had {before}; partitions and file systems in it are as they were",
        args.file.display()
    ))?;
    Ok(0)
}
