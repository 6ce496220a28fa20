//! The guest's console in a file of the node's folder.

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};

/// Size at which the console's file is begun anew, keeping one older: 16 MiB.
const CONSOLE_FILE_BYTES: u64 = 16 << 20;
/// Text that waits for the file; while it is more, further text is lost. The guest never waits.
const WAITING_BYTES: usize = 4 << 20;
/// How long a node that ends waits for the file to take the last words.
const LEAVE: Duration = Duration::from_secs(1);
/// How often it looks.
const LEAVE_TURN: Duration = Duration::from_millis(2);

/// The guest's console. A thread writes it: a file system that hangs must not stop the guest.
pub(super) struct Console {
    /// `None` when the console ends.
    text: Option<Sender<Vec<u8>>>,
    waiting_bytes: Arc<AtomicUsize>,
    lost_bytes: usize,
    thread: JoinHandle<()>,
}

impl Console {
    /// Starts the thread; the file is made with the first text.
    pub(super) fn start(path: PathBuf) -> io::Result<Self> {
        let (text, texts) = unbounded();
        let waiting_bytes = Arc::new(AtomicUsize::new(0));
        let waiting = Arc::clone(&waiting_bytes);
        let thread = thread::Builder::new()
            .name("console file".to_owned())
            .spawn(move || write_all(&texts, &waiting, Log::new(path)))?;
        Ok(Self {
            text: Some(text),
            waiting_bytes,
            lost_bytes: 0,
            thread,
        })
    }

    /// Appends; a full or hanging disk costs the console's text, never the guest.
    pub(super) fn write(&mut self, mut text: Vec<u8>) {
        if self.waiting_bytes.load(Ordering::Relaxed) > WAITING_BYTES {
            self.lost_bytes += text.len();
            return;
        }
        let lost = std::mem::take(&mut self.lost_bytes);
        if lost > 0 {
            let note = format!("\r\n[twinvm: {lost} bytes are missing here]\r\n");
            text.splice(..0, note.into_bytes());
        }
        self.waiting_bytes.fetch_add(text.len(), Ordering::Relaxed);
        if let Some(texts) = &self.text {
            // The thread lives as long as this does.
            let _ = texts.send(text);
        }
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        self.text = None;
        let until = Instant::now() + LEAVE;
        while !self.thread.is_finished() && Instant::now() < until {
            thread::sleep(LEAVE_TURN);
        }
    }
}

fn write_all(texts: &Receiver<Vec<u8>>, waiting_bytes: &AtomicUsize, mut log: Log) {
    for text in texts {
        log.write(&text);
        waiting_bytes.fetch_sub(text.len(), Ordering::Relaxed);
    }
}

/// The file.
struct Log {
    path: PathBuf,
    file: Option<File>,
    bytes: u64,
}

impl Log {
    fn new(path: PathBuf) -> Self {
        Self {
            path,
            file: None,
            bytes: 0,
        }
    }

    fn write(&mut self, text: &[u8]) {
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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn text_is_in_the_file_when_the_console_has_ended() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("console.log");
        let mut console = Console::start(path.clone()).unwrap();
        for piece in ["one ", "two"] {
            console.write(piece.into());
        }
        drop(console);
        assert_eq!(fs::read_to_string(path).unwrap(), "one two");
    }

    #[test]
    fn a_file_that_hangs_costs_text_and_no_time() {
        // Nobody reads the pipe, so opening it waits.
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("console.log");
        let fifo = rustix::fs::FileType::Fifo;
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &path, fifo, mode, 0).unwrap();
        let mut console = Console::start(path.clone()).unwrap();
        let piece = vec![b'x'; 1 << 20];
        for _ in 0..20 {
            console.write(piece.clone());
        }
        let reader = thread::spawn(move || fs::read(path).unwrap());
        while console.waiting_bytes.load(Ordering::Relaxed) > 0 {
            thread::sleep(LEAVE_TURN);
        }
        console.write(b"end".to_vec());
        drop(console);
        let read = reader.join().unwrap();
        let kept = read.iter().filter(|byte| **byte == b'x').count();
        assert_eq!(kept, 5 << 20);
        let note = format!("\r\n[twinvm: {} bytes are missing here]\r\nend", 15 << 20);
        assert!(read.ends_with(note.as_bytes()));
    }
}
