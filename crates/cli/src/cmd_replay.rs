//! `twinvm replay`
use crate::Outcome;
/// x
#[derive(Debug, clap::Args)]
pub(crate) struct ReplayArgs {}
pub(crate) fn run(_args: ReplayArgs) -> Outcome {
    Ok(0)
}
