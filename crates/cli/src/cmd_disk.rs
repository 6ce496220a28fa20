//! `twinvm disk`: what there is to do with disks beside running a VM on them.

mod grow;
mod import;
mod info;
mod serve;
mod whole;

use std::path::Path;

use crate::guest::check_raw;
use crate::{BAD_INPUT, Outcome};

/// Makes disks of other images, looks at them, makes them larger, serves them to both nodes
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  twinvm disk import debian.qcow2 shop.img --size 8G
  twinvm disk serve shop.img --listen 127.0.0.1:10809

and in the VM's file:
  [[disk]]
  path = \"shop.img\"
or
  [[disk]]
  nbd = \"nbd://127.0.0.1:10809/shop.img\"")]
pub(crate) struct DiskArgs {
    /// What to do
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    Import(import::ImportArgs),
    Info(info::InfoArgs),
    Grow(grow::GrowArgs),
    Serve(serve::ServeArgs),
}

/// Does it; the exit code, or what to say and the exit code.
pub(crate) fn run(args: DiskArgs) -> Outcome {
    match args.what {
        What::Import(args) => import::run(&args),
        What::Info(args) => info::run(&args),
        What::Grow(args) => grow::run(&args),
        What::Serve(args) => serve::serve(&args),
    }
}

/// What to say of a file that is no raw disk, if it is none.
fn not_raw(path: &Path) -> Result<(), (u8, String)> {
    check_raw(path).map_err(|error| (BAD_INPUT, error.to_string()))
}

/// A size in bytes: a number, or one with K, M, G or T behind it.
fn bytes(text: &str) -> Result<u64, (u8, String)> {
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'K') => (&text[..text.len() - 1], 10),
        Some(b'M') => (&text[..text.len() - 1], 20),
        Some(b'G') => (&text[..text.len() - 1], 30),
        Some(b'T') => (&text[..text.len() - 1], 40),
        _ => (text, 0),
    };
    let number = match digits.bytes().all(|digit| digit.is_ascii_digit()) {
        true => digits.parse::<u64>().ok(),
        false => None,
    };
    number
        .and_then(|number| number.checked_mul(1 << shift))
        .ok_or_else(|| {
            let line = format!("size {text:?}: expected bytes, or a number with K, M, G or T");
            (BAD_INPUT, line)
        })
}
