//! `twinvm disk serve`: a server of disks that knows generations.

use std::io::Write;
use std::path::{Path, PathBuf};

use crossbeam_channel::bounded;
use twinvm_host::arbiter::server::{ArbiterServer, ServerError};
use twinvm_host::disk::DiskFile;
use twinvm_host::disk_server::{DiskServer, DiskServerError};
use twinvm_host::notify::Notify;
use twinvm_host::sandbox::OwnFolder;
use twinvm_host::signals::SignalWatch;
use twinvm_host::tls::Credentials;

use crate::cmd_arbiter::{keys_in, resolve};
use crate::process_args::ProcessArgs;
use crate::{BAD_INPUT, FAULT, Outcome, say};

/// Runs a server of disks that keeps a former live node off
///
/// It speaks NBD, and one word more: a node of a pair says the generation by which it went live.
/// The server gives the disk to the highest that it has heard of, cuts off whoever had it before,
/// and lets no lower one in ever again; FILE.holder beside the disk keeps that. Any NBD client may
/// use a disk that no pair has claimed.
///
/// It may be ended and started again at any time: the VM waits meanwhile. With --arbiter it keeps
/// the records of the VMs too, so that a pair needs this one other host and no more.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  twinvm disk serve shop.img --listen 127.0.0.1:10809
  twinvm disk serve /srv/shop.img data=/srv/shop-data.img --listen 192.0.2.3:10809 \\
    --arbiter 192.0.2.3:7790 --records /var/lib/twinvm-arbiter --keys keys-arbiter --user twinvm

and in the VM's file:
  arbiter = \"tcp:192.0.2.3:7790\"
  [[disk]]
  nbd = \"nbds://192.0.2.3:10809/shop.img\"
  [[disk]]
  nbd = \"nbds://192.0.2.3:10809/data\"

Once it listens it prints `listening on` and the address with the port it got, and with --arbiter
`arbiter listening on` and that one. SIGTERM or Ctrl-C ends it.

Exit codes:
  0    ended by a signal
  2    bad input, an address that is in use, or a file that can't be a disk
  125  a fault of twinvm's own")]
pub(super) struct ServeArgs {
    /// Raw disk images. Without NAME= an export is named like its file
    #[arg(value_name = "[NAME=]FILE", required = true)]
    files: Vec<String>,
    /// Where to listen; port 0 takes a free one. Without --keys a loopback address
    #[arg(long, value_name = "HOST:PORT")]
    listen: String,
    /// Let clients only read
    #[arg(long)]
    read_only: bool,
    /// Folder with ca.crt, arbiter.crt and arbiter.key, as `twinvm keys issue --arbiter` makes it:
    /// then it speaks TLS 1.3 only, and lets in only nodes of its cluster, whose VM.toml has [tls]
    #[arg(long, value_name = "DIR")]
    keys: Option<PathBuf>,
    /// Keep the records of VMs there too, as `twinvm arbiter serve --listen`
    #[arg(long, value_name = "HOST:PORT", requires = "records")]
    arbiter: Option<String>,
    /// Folder of the records, as `twinvm arbiter serve --dir`
    #[arg(long, value_name = "DIR", requires = "arbiter")]
    records: Option<PathBuf>,
    #[command(flatten)]
    process: ProcessArgs,
}

/// The name and the file of `[NAME=]FILE`.
fn named(text: &str) -> Result<(String, PathBuf), String> {
    let (name, path) = match text.split_once('=') {
        Some((name, path)) => (name.to_owned(), PathBuf::from(path)),
        None => {
            let name = Path::new(text).file_name().and_then(|name| name.to_str());
            (name.unwrap_or_default().to_owned(), PathBuf::from(text))
        }
    };
    match name.is_empty() || path.as_os_str().is_empty() {
        true => Err(format!("{text}: expected FILE or NAME=FILE")),
        false => Ok((name, path)),
    }
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Whether a pair has claimed the disk.
fn has_holder(path: &Path) -> bool {
    let mut name = path.as_os_str().to_owned();
    name.push(".holder");
    Path::new(&name).exists()
}

pub(super) fn serve(args: &ServeArgs) -> Outcome {
    let bad = |error: &dyn std::fmt::Display| (BAD_INPUT, error.to_string());
    let fault = |error: std::io::Error| (FAULT, error.to_string());
    let listen = resolve("--listen", &args.listen)?;
    let arbiter = match (&args.arbiter, &args.records) {
        (Some(listen), Some(folder)) => Some((resolve("--arbiter", listen)?, folder)),
        _ => None,
    };
    let files: Vec<(String, PathBuf)> = args
        .files
        .iter()
        .map(|text| named(text))
        .collect::<Result<_, String>>()
        .map_err(|why| (BAD_INPUT, why))?;
    // What a VM has on its disk is nobody else's business.
    for (_, path) in files.iter().filter(|(_, path)| !has_holder(path)) {
        super::not_raw(path)?;
    }
    // Before anybody is listened to, and while there is one thread.
    let mut folders: Vec<OwnFolder> = Vec::new();
    for (_, path) in &files {
        folders.push(OwnFolder::shared(folder_of(path)));
    }
    if let Some((_, folder)) = arbiter {
        folders.push(OwnFolder {
            path: folder.clone(),
            mode: 0o755,
            must_own: true,
        });
    }
    let confinement = args.process.confinement()?;
    let notice = confinement.enter(&folders).map_err(|error| bad(&error))?;
    let (signals_in, signals) = bounded(1);
    let _watch = SignalWatch::start(signals_in).map_err(fault)?;
    let keys = args.keys.as_deref().map(keys_in).transpose()?;
    if let Some(notice) = keys.as_ref().and_then(Credentials::notice) {
        tell(notice);
    }
    let open = |(name, path): (String, PathBuf)| Ok((name, DiskFile::open(&path, args.read_only)?));
    let opened = files
        .into_iter()
        .map(open)
        .collect::<Result<Vec<_>, twinvm_host::disk::DiskError>>()
        .map_err(|error| bad(&error))?;
    let server = match DiskServer::start(listen, opened, keys.clone(), tell) {
        Ok(server) => server,
        Err(error @ DiskServerError::Thread(_)) => return Err((FAULT, error.to_string())),
        Err(error) => return Err(bad(&error)),
    };
    let arbiter = arbiter.map(|(listen, folder)| ArbiterServer::start(listen, folder, keys, tell));
    let arbiter = match arbiter.transpose() {
        Ok(arbiter) => arbiter,
        Err(error @ ServerError::Thread(_)) => return Err((FAULT, error.to_string())),
        Err(error) => return Err(bad(&error)),
    };
    if let Some(notice) = notice {
        tell(notice);
    }
    let mut lines = format!("listening on {}\n", server.local_addr());
    if let Some(arbiter) = &arbiter {
        lines.push_str(&format!("arbiter listening on {}\n", arbiter.local_addr()));
    }
    // Nobody need read it.
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(lines.as_bytes()).and_then(|()| out.flush());
    drop(out);
    match Notify::from_env() {
        Ok(Some(manager)) => manager.ready(&format!("listening on {}", server.local_addr())),
        Ok(None) => {}
        Err(trouble) => tell(trouble.to_string()),
    }
    // Ends with the signal, or with the thread that waits for one.
    let _ = signals.recv();
    Ok(0)
}

fn tell(text: String) {
    say::line(format_args!("twinvm disk: {text}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_served() {
        let good = |text: &str, name: &str, path: &str| {
            assert_eq!(named(text), Ok((name.to_owned(), PathBuf::from(path))));
        };
        good("shop.img", "shop.img", "shop.img");
        good("/srv/shop.img", "shop.img", "/srv/shop.img");
        good("data=/srv/a=b", "data", "/srv/a=b");
        for bad in ["", "/", "=file", "name="] {
            assert!(named(bad).is_err(), "{bad}");
        }
    }
}
