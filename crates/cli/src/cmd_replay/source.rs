//! A recording on disk, checked and read.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use twinvm_log::{
    Ending, LOG_FILE, LogReader, ReadError, RecordingError, RecordingReader, SNAPSHOT_FILE, Torn,
};
use twinvm_machine::{
    EngineKind, FieldDifference, MACHINE_VERSION, Machine, SnapshotError, first_field_difference,
};
use twinvm_replica::{AHEAD, Opened, Recorded, Replay};

/// Why a recording can't be replayed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceError {
    /// It can't be read.
    #[error(transparent)]
    Recording(#[from] RecordingError),
    /// Its log can't be read to the end.
    #[error("{}: {source}", path.display())]
    Log {
        /// The log.
        path: PathBuf,
        /// What is wrong, and where.
        source: ReadError,
    },
    /// The log's head says nothing of the machine.
    #[error("{}: the configuration in the log's head can't be read: {why}", path.display())]
    Config {
        /// The log.
        path: PathBuf,
        /// What the parser said.
        why: String,
    },
    /// Made by a machine that may behave differently.
    #[error(
        "{}: machine_version is {theirs} in the recording, {MACHINE_VERSION} here: replay it with the \
         twinvm that made it",
        path.display()
    )]
    Version {
        /// The log.
        path: PathBuf,
        /// The recording's version.
        theirs: String,
    },
    /// The machine can't be restored.
    #[error("{}: {source}", path.display())]
    Snapshot {
        /// The snapshot.
        path: PathBuf,
        /// What is wrong.
        source: SnapshotError,
    },
    /// Snapshot and log are of two machines.
    #[error("{}: {field} is {log:?} in the log's head, {snapshot:?} in the snapshot", dir.display())]
    Field {
        /// The recording.
        dir: PathBuf,
        /// The first field that differs.
        field: String,
        /// Its value in the log.
        log: String,
        /// Its value in the snapshot.
        snapshot: String,
    },
}

/// The records of a recording.
pub(crate) struct Source {
    reader: RecordingReader,
    dry: bool,
    summary: Summary,
}

/// What a first pass over the log has found.
struct Summary {
    last_icount: u64,
    ending: Option<Ending>,
}

impl Source {
    /// Opens the recording, reads all of its log once, and restores its machine. Damage comes
    /// to light here and not after an hour of replaying.
    pub(crate) fn open(dir: &Path) -> Result<(Self, Machine), SourceError> {
        let mut reader = RecordingReader::open(dir)?;
        let fields = check_version(&dir.join(LOG_FILE), reader.config())?;
        let machine = restore(dir, &mut reader)?;
        check_fields(dir, &fields, &machine.config().fields())?;
        let summary = scan(&dir.join(LOG_FILE), machine.icount())?;
        let source = Self {
            reader,
            dry: false,
            summary,
        };
        Ok((source, machine))
    }

    /// Position of the first record.
    pub(crate) fn first_position(&self) -> u64 {
        self.reader.first_position()
    }

    /// Step of the last record.
    pub(crate) fn last_icount(&self) -> u64 {
        self.summary.last_icount
    }

    /// How the log ends.
    pub(crate) fn ending(&self) -> Option<Ending> {
        self.summary.ending
    }

    /// Where the log breaks off, if it does.
    pub(crate) fn torn(&self) -> Option<Torn> {
        match self.summary.ending {
            Some(Ending::Torn(torn)) => Some(torn),
            _ => None,
        }
    }

    /// Whether all records have been fed.
    pub(crate) fn is_dry(&self) -> bool {
        self.dry
    }

    /// Gives the replay its next records, as many as it should hold.
    pub(crate) fn feed(&mut self, replay: &mut Replay) -> Result<(), SourceError> {
        while !self.dry && replay.backlog() < AHEAD {
            match self.reader.next() {
                Some(entry) => replay.push([entry?.record]),
                None => self.dry = true,
            }
        }
        Ok(())
    }
}

/// A recording that was found good, for replays of it that follow.
pub(crate) struct Again {
    /// Its folder.
    pub(crate) dir: PathBuf,
    /// What executes the machine; `None`: the fastest that there is.
    pub(crate) engine: Option<EngineKind>,
}

impl Recorded for Again {
    type Error = SourceError;

    fn open(&mut self) -> Result<Opened<SourceError>, SourceError> {
        let mut reader = RecordingReader::open(&self.dir)?;
        let mut machine = restore(&self.dir, &mut reader)?;
        if let Some(engine) = self.engine {
            // It could be had before; if not now, the guest can't tell.
            let _ = machine.set_engine(engine);
        }
        Ok(Opened {
            machine,
            position: reader.first_position(),
            records: Box::new(reader.map(|entry| Ok(entry?.record))),
        })
    }
}

fn restore(dir: &Path, reader: &mut RecordingReader) -> Result<Machine, SourceError> {
    Machine::restore(&reader.take_snapshot(), None).map_err(|source| SourceError::Snapshot {
        path: dir.join(SNAPSHOT_FILE),
        source,
    })
}

/// Reads the log to its end.
fn scan(path: &Path, from: u64) -> Result<Summary, SourceError> {
    let wrap = |source| SourceError::Log {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(|source| wrap(ReadError::Io { offset: 0, source }))?;
    let mut log = LogReader::new(BufReader::new(file)).map_err(wrap)?;
    let mut last_icount = from;
    for entry in &mut log {
        last_icount = entry.map_err(wrap)?.record.icount;
    }
    Ok(Summary {
        last_icount,
        ending: log.ending(),
    })
}

/// Reads the fields in the log's head; refuses a machine that may behave differently.
fn check_version(path: &Path, config: &[u8]) -> Result<Vec<(String, String)>, SourceError> {
    let fields: Vec<(String, String)> =
        serde_json::from_slice(config).map_err(|error| SourceError::Config {
            path: path.to_owned(),
            why: error.to_string(),
        })?;
    let theirs = fields
        .iter()
        .find(|(name, _)| name == "machine_version")
        .map_or("missing", |(_, value)| value);
    if theirs == MACHINE_VERSION.to_string() {
        return Ok(fields);
    }
    Err(SourceError::Version {
        path: path.to_owned(),
        theirs: theirs.to_owned(),
    })
}

fn check_fields(
    dir: &Path,
    log: &[(String, String)],
    snapshot: &[(String, String)],
) -> Result<(), SourceError> {
    match first_field_difference(log, snapshot) {
        None => Ok(()),
        Some(FieldDifference { field, left, right }) => Err(SourceError::Field {
            dir: dir.to_owned(),
            field,
            log: left,
            snapshot: right,
        }),
    }
}
