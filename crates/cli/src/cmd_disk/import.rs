//! `twinvm disk import`.

use std::fs::{self, File};
use std::io::{self, IsTerminal};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crossbeam_channel::{Receiver, bounded};
use imago::file::File as ImageFile;
use imago::qcow2::Qcow2;
use imago::{DenyImplicitOpenGate, FormatAccess, FormatDriverBuilder};

use twinvm_host::signals::{SignalEvent, SignalWatch};

use super::whole;
use crate::image_kind::ImageKind;
use crate::{BAD_INPUT, FAULT, Outcome, say};

/// Bytes that are read at a time; those that are all zeros become a hole.
const PIECE_BYTES: usize = 64 << 10;
const SECTOR_BYTES: u64 = 512;
/// Exit code: somebody has ended it.
const INTERRUPTED: u8 = 130;
/// Largest disk, as nodes have them.
const MAX_BYTES: u64 = 1 << 46;

/// Makes a raw disk image of another image
///
/// IN is a qcow2 image (versions 2 and 3, compressed or not) or a raw one. OUT is raw, and takes
/// room only where there is content.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  twinvm disk import debian-13-nocloud-riscv64.qcow2 shop.img --size 8G
  twinvm disk import old.raw shop.img

An image with a backing file is refused: qemu-img convert makes one of both. So is a qcow2 image that
was cut short on its way here. Nothing is left of OUT if it can't be made whole.

Exit codes:
  0    made
  2    bad input; nothing was made
  125  the image can't be read to its end, or OUT can't be written; nothing is left of it
  130  ended from outside: Ctrl-C, SIGTERM or SIGHUP; nothing is left of it")]
pub(super) struct ImportArgs {
    /// The image to read
    #[arg(value_name = "IN")]
    from: PathBuf,
    /// The raw image to make; there must be no such file
    #[arg(value_name = "OUT")]
    to: PathBuf,
    /// Make the disk larger than the image: bytes, or with K, M, G or T behind them
    #[arg(long)]
    size: Option<String>,
}

pub(super) fn run(args: &ImportArgs) -> Outcome {
    let size = args.size.as_deref().map(super::bytes).transpose()?;
    let image = Image::open(&args.from).map_err(|line| (BAD_INPUT, line))?;
    let content = image.bytes();
    let whole = content.next_multiple_of(SECTOR_BYTES);
    let bytes = size.unwrap_or(whole);
    let refused = |line: String| Err((BAD_INPUT, line));
    if bytes < content {
        return refused(format!(
            "--size {bytes}: the disk in {} has {content} bytes",
            args.from.display()
        ));
    }
    if !bytes.is_multiple_of(SECTOR_BYTES) || !(1..=MAX_BYTES).contains(&bytes) {
        return refused(match (bytes, &args.size) {
            (0, None) => format!("{}: the image is empty", args.from.display()),
            _ => format!(
                "{bytes} bytes: a disk is whole sectors of {SECTOR_BYTES} bytes, at most 64T"
            ),
        });
    }
    if args.to.exists() {
        return refused(format!(
            "{}: it is there already: remove it, or give OUT another name",
            args.to.display()
        ));
    }
    // What is half made is not left behind.
    let (signals_in, signals) = bounded(1);
    let _watch =
        SignalWatch::start(signals_in).map_err(|error| (FAULT, format!("signals: {error}")))?;
    let mut name = args.to.clone().into_os_string();
    name.push(".new");
    let temporary = PathBuf::from(name);
    // Somebody's own, or what an import that was killed has left.
    let file = match File::options()
        .write(true)
        .create_new(true)
        .open(&temporary)
    {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return refused(format!(
                "{}: it is there already, and is where the image is made: remove it, or give OUT \
                 another name",
                temporary.display()
            ));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return refused(format!(
                "{}: its folder is not there: make it first",
                args.to.display()
            ));
        }
        Err(error) => return refused(format!("{}: {error}", temporary.display())),
    };
    let used = match copy(&image, content, &file, bytes, &signals) {
        Ok(Some(used)) => used,
        ended => {
            let _ = fs::remove_file(&temporary);
            let to = args.to.display();
            return Err(match ended {
                Err(error) => (FAULT, format!("{to}: {error}")),
                Ok(_) => (INTERRUPTED, format!("{to}: interrupted, it is not made")),
            });
        }
    };
    fs::rename(&temporary, &args.to).map_err(|error| {
        let _ = fs::remove_file(&temporary);
        (FAULT, format!("{}: {error}", args.to.display()))
    })?;
    say::answer(format_args!(
        "{}: {bytes} bytes, {used} of them with content",
        args.to.display()
    ))?;
    Ok(0)
}

/// What is read from.
enum Image {
    Raw(File, u64),
    Qcow2(Box<FormatAccess<ImageFile>>),
}

impl Image {
    fn open(path: &Path) -> Result<Self, String> {
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => {
                format!(
                    "{}: there is no such file: give another path",
                    path.display()
                )
            }
            _ => format!("{}: {error}", path.display()),
        };
        let mut file = File::open(path).map_err(failed)?;
        let about = file.metadata().map_err(failed)?;
        if !about.is_file() {
            return Err(format!("{}: not a regular file", path.display()));
        }
        match ImageKind::of(&mut file).map_err(failed)? {
            None => return Ok(Self::Raw(file, about.len())),
            Some(ImageKind::Qcow2) => {}
            Some(ImageKind::Disk(kind)) => {
                return Err(format!(
                    "{}: a {kind} file, not qcow2 or raw: convert it first (qemu-img convert -O \
                     qcow2)",
                    path.display()
                ));
            }
            Some(ImageKind::Packed(kind, program)) => {
                return Err(format!(
                    "{}: a {kind} file, not qcow2 or raw: unpack it first ({program})",
                    path.display()
                ));
            }
        }
        let own = file.try_clone().map_err(failed)?;
        // What an image names is not opened: it may name any file of this host.
        let storage = ImageFile::try_from(file).map_err(failed)?;
        let opened = Qcow2::<ImageFile>::builder(storage).open(DenyImplicitOpenGate::default());
        let image = opened.map_err(|error| {
            format!(
                "{}: this qcow2 image can't be read: {error}; one with a backing or data file has \
                 to be made one first (qemu-img convert -O qcow2)",
                path.display()
            )
        })?;
        if let Some(bytes) = whole::lacks(&own).map_err(failed)? {
            return Err(format!(
                "{}: the file has {} bytes, and what is in the image goes to {bytes} at least: it \
                 was cut short, download or copy it again",
                path.display(),
                about.len()
            ));
        }
        Ok(Self::Qcow2(Box::new(FormatAccess::new(image))))
    }

    fn bytes(&self) -> u64 {
        match self {
            Self::Raw(_, bytes) => *bytes,
            Self::Qcow2(image) => image.size(),
        }
    }

    fn read(&self, data: &mut [u8], offset: u64) -> io::Result<()> {
        match self {
            Self::Raw(file, _) => file.read_exact_at(data, offset),
            Self::Qcow2(image) => image.read(data, offset),
        }
    }
}

/// Writes what has content; gives how many bytes that are, or nothing if a signal has ended it.
fn copy(
    image: &Image,
    content: u64,
    file: &File,
    bytes: u64,
    signals: &Receiver<SignalEvent>,
) -> io::Result<Option<u64>> {
    file.set_len(bytes)?;
    let mut piece = vec![0; PIECE_BYTES];
    let (mut at, mut used, mut shown) = (0, 0, 0);
    let terminal = io::stderr().is_terminal();
    while at < content {
        if signals.try_recv().is_ok() {
            return Ok(None);
        }
        let len = (content - at).min(PIECE_BYTES as u64);
        let data = &mut piece[..len as usize];
        image.read(data, at)?;
        if data.iter().any(|byte| *byte != 0) {
            file.write_all_at(data, at)?;
            used += len;
        }
        at += len;
        let percent = at * 100 / content;
        if terminal && percent > shown {
            shown = percent;
            say::part(format_args!("\r{percent} %"));
        }
    }
    if terminal && shown > 0 {
        say::part("\r");
    }
    file.sync_all()?;
    Ok(Some(used))
}
