//! The names of translated code, for `perf`: a line `START SIZE SYMBOL`, in hexadecimal, for each
//! piece of code, in the file that perf looks for (its sources describe the form in
//! `tools/perf/Documentation/jit-interface.txt`).

use std::fmt::{self, Display};
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, LineWriter, Write};
use std::path::PathBuf;

use twinvm_machine::tier::{CodePiece, CodeRole};
use twinvm_machine::{EngineKind, Machine};

use crate::say;

/// The map can't be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PerfMapError {
    #[error("--perf-map: nothing is translated on this host or with this engine")]
    NoTranslation,
    #[error("--perf-map {}: {error}", path.display())]
    File { path: PathBuf, error: io::Error },
}

/// Writes the map of what this machine translates from now on, until its engine is another.
pub(crate) fn start(machine: &mut Machine) -> Result<(), PerfMapError> {
    if machine.engine_kind() != EngineKind::Jit {
        return Err(PerfMapError::NoTranslation);
    }
    let path = PathBuf::from(format!("/tmp/perf-{}.map", std::process::id()));
    let file = create(&path).map_err(|error| PerfMapError::File {
        path: path.clone(),
        error,
    })?;
    // Line by line: perf may look at any time.
    let mut file = Some(LineWriter::new(file));
    machine.listen_to_translation(Box::new(move |piece| {
        let Some(open) = &mut file else {
            return;
        };
        if let Err(error) = writeln!(open, "{}", Line(piece)) {
            say::part(format_args!(
                "--perf-map {}: {error}: it ends here\r\n",
                path.display()
            ));
            file = None;
        }
    }));
    Ok(())
}

/// A file of our own: everybody may write to the folder, and an earlier process of the same number
/// may have left its map.
fn create(path: &PathBuf) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new().write(true).create_new(true).open(path)
}

struct Line<'a>(&'a CodePiece);

impl Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let CodePiece {
            address,
            bytes,
            role,
        } = self.0;
        write!(f, "{address:x} {bytes:x} ")?;
        match role {
            CodeRole::Block { pa, va } => write!(f, "guest_{va:#x}_pa_{pa:#x}"),
            CodeRole::Jump { page } => write!(f, "guest_jump_to_page_{page:#x}"),
            CodeRole::Common => write!(f, "guest_enter_and_leave"),
        }
    }
}
