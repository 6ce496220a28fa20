//! `twinvm image`: guest images from Debian packages.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use twinvm_image::{BuildOptions, ImageKind, LockMode, Terminal, build, build_or_renew};

use crate::{BAD_INPUT, Outcome, say};

/// Makes guest images from Debian's riscv64 packages
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  twinvm image build redis --out redis
  sudo twinvm image build debian --out debian")]
pub(crate) struct ImageArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Build(BuildArgs),
}

/// Makes an image: a kernel, an initial RAM disk, for debian a disk, and what a VM.toml needs
///
/// redis: a kernel and an initial RAM disk with a Redis server and a shell. Made in seconds,
/// without any rights.
///
/// debian: a system on a disk of 3 GiB with systemd, Redis, PostgreSQL, nginx, memcached, SSH, a
/// compiler and benchmarks, and a VM.toml. Takes some minutes and 4 GiB, as root: its packages are
/// installed in a chroot under emulation (scripts/setup.sh debian installs what that needs).
///
/// The packages come through this host's apt-get, from the mirror it is set up with; the host's
/// own packages are not touched. A lock file pins each of them, so the same lock makes the same
/// kernel and initial RAM disk to the byte everywhere. A folder that already holds the image is
/// only verified, and a disk that is there is never replaced.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  twinvm image build redis --out redis
  twinvm image build redis --out redis --update-lock
  sudo twinvm image build debian --out debian --ssh-key ~/.ssh/id_ed25519.pub
  twinvm run debian/VM.toml

Exit codes:
  0    the image is there
  2    it could not be made; the message says what to do")]
struct BuildArgs {
    /// The image: redis or debian
    name: String,
    /// The folder it goes into
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The lock file [default: NAME.lock in DIR if it is there, else the built-in one]
    #[arg(long, value_name = "FILE")]
    lock: Option<PathBuf>,
    /// Where downloads are kept [default: .cache in DIR]
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// Public keys that may log in as root over SSH; without it nobody may [debian only]
    #[arg(long, value_name = "FILE")]
    ssh_key: Option<PathBuf>,
    /// Take the mirror's newest packages and write a new lock
    #[arg(long)]
    update_lock: bool,
    /// Take the newest packages only if the mirror no longer has the locked ones
    #[arg(long, conflicts_with = "update_lock")]
    renew: bool,
    /// Take the locked packages and write down what comes out: after a change of the recipe
    #[arg(long, conflicts_with_all = ["update_lock", "renew"])]
    rehash: bool,
}

/// Makes the image and prints where its parts are.
pub(crate) fn run(args: ImageArgs) -> Outcome {
    let What::Build(args) = args.what;
    let bad = |error: &dyn std::fmt::Display| (BAD_INPUT, error.to_string());
    let kind: ImageKind = args.name.parse().map_err(|error| bad(&error))?;
    let options = BuildOptions {
        lock: args.lock,
        lock_mode: match (args.update_lock, args.rehash) {
            (true, _) => LockMode::Update,
            (_, true) => LockMode::Rehash,
            _ => LockMode::Verify,
        },
        cache: args.cache,
        ssh_key: args.ssh_key,
    };
    let make = if args.renew { build_or_renew } else { build };
    let image =
        make(kind, &args.out, &options, &mut Terminal::new()).map_err(|error| bad(&error))?;
    let mut lines = vec![
        format!("kernel  {}", image.kernel.display()),
        format!("initrd  {}", image.initrd.display()),
    ];
    let disk = image.disk.iter();
    lines.extend(disk.map(|disk| format!("disk    {}", disk.display())));
    lines.push(format!("cmdline {}", image.cmdline));
    let vm = image.vm.iter();
    lines.extend(vm.map(|vm| format!("start   twinvm run {}", vm.display())));
    say::answer(lines.join("\n"))?;
    Ok(0)
}
