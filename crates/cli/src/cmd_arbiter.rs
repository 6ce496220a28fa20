//! `twinvm arbiter`: the small server that keeps the records of VMs, and a person's view of a
//! record.

mod record;

use std::io::Write;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use crossbeam_channel::bounded;
use twinvm_host::arbiter::server::{ArbiterServer, ServerError};
use twinvm_host::journal::ServerLines;
use twinvm_host::notify::Notify;
use twinvm_host::sandbox::OwnFolder;
use twinvm_host::signals::SignalWatch;
use twinvm_host::tls::{CA_CERT, Credentials, Expect, Subject, TlsFiles};
use twinvm_protocol::NoteLevel;

use crate::process_args::{LogFormatArg, ProcessArgs};
use crate::{BAD_INPUT, FAULT, Outcome};

/// Keeps, shows and resets the record that says which node is live
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  twinvm arbiter serve --listen 127.0.0.1:7790 --dir /var/lib/twinvm-arbiter

and in the VM's file:
  arbiter = \"tcp:127.0.0.1:7790\"

Each of the three has its own --help.")]
pub(crate) struct ArbiterArgs {
    /// What to do
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    Serve(ServeArgs),
    Show(record::ShowArgs),
    Reset(record::ResetArgs),
}

/// Runs the server that keeps one record for each VM
///
/// A node asks it when the VM is started, when a backup joins or is lost, and when the VM is
/// taken over: a VM that runs, protected or alone, needs it for nothing. So it may be ended and
/// started again at any time, on the same folder. What it has answered is on the disk before.
/// Let it run on a third host, or where it is as likely to be reached by either node.
///
/// Records are told apart by the VM's name: give each VM that is kept here a name of its own.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  twinvm arbiter serve --listen 127.0.0.1:7790 --dir /var/lib/twinvm-arbiter
  twinvm arbiter serve --listen 192.0.2.3:7790 --dir /var/lib/twinvm-arbiter \\
      --keys keys-arbiter --user twinvm

Once it listens it prints `listening on` and the address with the port it got. SIGTERM or Ctrl-C
ends it.

Exit codes:
  0    ended by a signal
  2    bad input, an address that is in use, or a folder that can't serve
  125  a fault of twinvm's own")]
struct ServeArgs {
    /// Where to listen; port 0 takes a free one. Without --keys a loopback address
    #[arg(long, value_name = "HOST:PORT")]
    listen: String,
    /// Folder of the records, made if need be. Never remove what is in it while a node lives
    /// that knows it
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Folder with ca.crt, arbiter.crt and arbiter.key, as `twinvm keys issue --arbiter` makes it:
    /// then it speaks TLS 1.3 only, and lets in only nodes of its cluster, whose VM.toml has [tls]
    #[arg(long, value_name = "DIR")]
    keys: Option<PathBuf>,
    /// How lines on standard error look: for people, or a JSON object on each
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    log_format: LogFormatArg,
    #[command(flatten)]
    process: ProcessArgs,
}

/// Does it; the exit code, or what to say and the exit code.
pub(crate) fn run(args: ArbiterArgs) -> Outcome {
    match args.what {
        What::Serve(args) => serve(&args),
        What::Show(args) => record::show(&args),
        What::Reset(args) => record::reset(&args),
    }
}

/// The address behind `option`, such as `--listen`.
pub(crate) fn resolve(option: &str, listen: &str) -> Result<SocketAddr, (u8, String)> {
    let bad = |why: String| (BAD_INPUT, format!("{option} {listen}: {why}"));
    let mut found = listen.to_socket_addrs().map_err(|error| {
        bad(format!(
            "{error}: expected HOST:PORT such as 127.0.0.1:7790"
        ))
    })?;
    found.next().ok_or_else(|| bad("no address".to_owned()))
}

/// The arbiter's keys in a folder.
pub(crate) fn keys_in(folder: &Path) -> Result<Credentials, (u8, String)> {
    let own = Subject::Arbiter;
    let files = TlsFiles {
        ca: folder.join(CA_CERT),
        cert: folder.join(format!("{}.crt", own.file_stem())),
        key: folder.join(format!("{}.key", own.file_stem())),
    };
    Credentials::load(files, own, Expect::AnyNode).map_err(|error| (BAD_INPUT, error.to_string()))
}

fn serve(args: &ServeArgs) -> Outcome {
    let fault = |error: std::io::Error| (FAULT, error.to_string());
    let lines = ServerLines::new(args.log_format.into(), "arbiter");
    let listen = resolve("--listen", &args.listen)?;
    // Before anybody is listened to, and while there is one thread.
    let confinement = args.process.confinement()?;
    let notice = confinement
        .enter(&[OwnFolder {
            path: args.dir.clone(),
            mode: 0o755,
            must_own: true,
        }])
        .map_err(|error| (BAD_INPUT, error.to_string()))?;
    let (signals_in, signals) = bounded(1);
    let _watch = SignalWatch::start(signals_in).map_err(fault)?;
    let keys = args.keys.as_deref().map(keys_in).transpose()?;
    if let Some(notice) = keys.as_ref().and_then(Credentials::notice) {
        lines.tell(NoteLevel::Warn, "keys", &notice);
    }
    let tell = move |text: String| lines.tell(NoteLevel::Warn, "refused", &text);
    let server = match ArbiterServer::start(listen, &args.dir, keys, tell) {
        Ok(server) => server,
        Err(error @ ServerError::Thread(_)) => return Err((FAULT, error.to_string())),
        Err(error) => return Err((BAD_INPUT, error.to_string())),
    };
    if let Some(notice) = notice {
        lines.tell(NoteLevel::Warn, "rights", &notice);
    }
    // Nobody need read it.
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "listening on {}", server.local_addr()).and_then(|()| out.flush());
    drop(out);
    match Notify::from_env() {
        Ok(Some(manager)) => manager.ready(&format!("listening on {}", server.local_addr())),
        Ok(None) => {}
        Err(trouble) => lines.tell(NoteLevel::Warn, "note", &trouble.to_string()),
    }
    // Ends with the signal, or with the thread that waits for one.
    let _ = signals.recv();
    Ok(0)
}
