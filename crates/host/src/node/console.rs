//! The guest's console in a file.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

/// Size at which the console's file is begun anew, keeping one older: 16 MiB.
const CONSOLE_FILE_BYTES: u64 = 16 << 20;

/// The guest's console in a file of the node's folder.
pub(super) struct Console {
    path: PathBuf,
    file: Option<File>,
    bytes: u64,
}

impl Console {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            file: None,
            bytes: 0,
        }
    }

    /// Appends; a full disk costs the console's text, never the guest.
    pub(super) fn write(&mut self, text: &[u8]) {
        if self.bytes >= CONSOLE_FILE_BYTES {
            self.file = None;
            let _ = std::fs::rename(&self.path, self.path.with_extension("log.1"));
        }
        if self.file.is_none() {
            let opened = File::options().create(true).append(true).open(&self.path);
            self.bytes = opened
                .as_ref()
                .ok()
                .and_then(|f| f.metadata().ok())
                .map_or(0, |m| m.len());
            self.file = opened.ok();
        }
        if let Some(file) = &mut self.file {
            self.bytes += text.len() as u64;
            let _ = file.write_all(text);
        }
    }
}
