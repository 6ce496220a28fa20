//! A recording that is being made: its log by the run's own loop, its snapshot by a
//! thread while the guest already runs.

use std::fs;
use std::path::Path;
use std::thread::{self, JoinHandle};

use twinvm_log::{
    EncodedBatch, LOG_FILE, RecordingError, RecordingWriter, SNAPSHOT_FILE, STATES_FILE,
    SnapshotWriter, StateEntry, StatesWriter,
};
use twinvm_machine::{Machine, SnapshotBusy, SnapshotStream};

use crate::say;

/// Bytes that the thread reads and writes at one time.
const PIECE_BYTES: usize = 256 << 10;

/// Why there is no recording, or no more of it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecorderError {
    /// A file of it.
    #[error(transparent)]
    Recording(#[from] RecordingError),
    /// The machine.
    #[error(transparent)]
    Busy(#[from] SnapshotBusy),
    /// The host.
    #[error("starting the thread that writes the snapshot: {0}")]
    Thread(std::io::Error),
}

/// See the module's documentation.
pub(crate) struct Recorder {
    log: RecordingWriter,
    /// Until it has written the snapshot, whose checksum it gives back.
    snapshot: Option<JoinHandle<Result<u64, RecordingError>>>,
    /// What helps a replay that fails. A recording is good without it.
    states: Option<StatesWriter>,
}

impl Recorder {
    /// Begins a recording in `dir` from the machine as it is. If that fails nothing of it
    /// is left behind.
    pub(crate) fn start(machine: &mut Machine, dir: &Path) -> Result<Self, RecorderError> {
        let is_new = !dir.exists();
        let result = Self::begin(machine, dir);
        match &result {
            // What was there before stays as it is.
            Ok(_)
            | Err(RecorderError::Recording(
                RecordingError::Exists { .. } | RecordingError::NotEmpty { .. },
            )) => {}
            Err(_) => {
                for file in [SNAPSHOT_FILE, LOG_FILE, STATES_FILE] {
                    let _ = fs::remove_file(dir.join(file));
                }
                if is_new {
                    let _ = fs::remove_dir(dir);
                }
            }
        }
        result
    }

    fn begin(machine: &mut Machine, dir: &Path) -> Result<Self, RecorderError> {
        let fields = serde_json::json!(machine.config().fields()).to_string();
        let (log, writer) = RecordingWriter::begin(dir, fields.as_bytes(), 0)?;
        let states = StatesWriter::create(dir).map_err(without_states).ok();
        let stream = machine.snapshot(true)?;
        let snapshot = thread::Builder::new()
            .name("snapshot".to_owned())
            .spawn(move || write(stream, writer))
            .map_err(RecorderError::Thread)?;
        Ok(Self {
            log,
            snapshot: Some(snapshot),
            states,
        })
    }

    /// Appends a batch to the log.
    pub(crate) fn append(&mut self, batch: &EncodedBatch) -> Result<(), RecorderError> {
        self.seal_if(JoinHandle::is_finished)?;
        Ok(self.log.append(batch)?)
    }

    /// Keeps what was true at a digest of the log.
    pub(crate) fn keep_state(&mut self, entry: &StateEntry) {
        let result = self.states.as_mut().map(|states| states.append(entry));
        if let Some(Err(error)) = result {
            without_states(error);
            self.states = None;
        }
    }

    /// Waits for the snapshot, and makes all of it durable.
    pub(crate) fn finish(mut self) -> Result<(), RecorderError> {
        self.seal_if(|_| true)?;
        Ok(self.log.finish()?)
    }

    /// Ties log and snapshot together, if it is time.
    fn seal_if(
        &mut self,
        time: impl FnOnce(&JoinHandle<Result<u64, RecordingError>>) -> bool,
    ) -> Result<(), RecorderError> {
        let Some(thread) = self.snapshot.take_if(|thread| time(thread)) else {
            return Ok(());
        };
        match thread.join() {
            Ok(checksum) => Ok(self.log.seal(checksum?)?),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

fn without_states(error: std::io::Error) {
    say::line(format_args!(
        "twinvm run: the recording's file {STATES_FILE} can't be written: {error}: a replay that \
         diverges will say less"
    ));
}

fn write(mut stream: SnapshotStream, mut writer: SnapshotWriter) -> Result<u64, RecordingError> {
    let mut bytes = Vec::new();
    loop {
        let more = stream.read(PIECE_BYTES, &mut bytes);
        writer.write(&bytes)?;
        bytes.clear();
        if !more {
            return writer.finish();
        }
    }
}
