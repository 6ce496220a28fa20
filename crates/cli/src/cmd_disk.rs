//! `twinvm disk`: what there is to do with disks beside running a VM on them.

mod serve;

use crate::Outcome;

/// Serves disks to both nodes of a pair
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  twinvm disk serve shop.img --listen 127.0.0.1:10809

and in the VM's file:
  [[disk]]
  nbd = \"nbd://127.0.0.1:10809/shop.img\"")]
pub(crate) struct DiskArgs {
    /// What to do
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    Serve(serve::ServeArgs),
}

/// Does it; the exit code, or what to say and the exit code.
pub(crate) fn run(args: DiskArgs) -> Outcome {
    match args.what {
        What::Serve(args) => serve::serve(&args),
    }
}
