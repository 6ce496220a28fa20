//! The arbiter in a folder on storage that both nodes reach.
//!
//! ```text
//! rec.<g>      the record of generation g, never changed once it is there
//! tmp.<hex>    a record on its way; left over if its writer was killed
//! ```
//!
//! A compare-and-set from g writes and syncs `tmp.<hex>`, gives it the second name
//! `rec.<g+1>` with link(2), which fails if that name exists, and syncs the folder. Whatever
//! link says, the folder is read again: the change is won only if `rec.<g+1>` is the
//! highest record and holds exactly the proposed bytes. There are no locks that a stopped
//! process could hold.
//!
//! The register is the highest record. It is never removed; old ones are, but so many are
//! kept that a writer which slept through a removal and links an old name again changes
//! nothing (its name is below the highest), and that a folder listing that runs beside
//! changes finds one of them.
//!
//! Whatever can't be read with certainty is [`Outcome::Unknown`], with a text for the
//! journal ([`FileArbiter::take_trouble`]). On NFS, mount the folder with `noac` and
//! `lookupcache=none`: a cached listing is an old answer.

use std::fmt::Display;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use twinvm_protocol::codec::{decode_record, encode_record};
use twinvm_protocol::{ArbiterContract, Generation, Outcome, Record};

use crate::arbiter_worker::ArbiterBackend;
use crate::durable::{read_small, sync_dir};
use crate::random::random_u128;

/// Records kept below the highest. Each is about 100 bytes, and a takeover with its
/// re-pairing makes two or three.
pub const KEPT_RECORDS: u64 = 64;
/// Longest record file: a record takes at most 97 bytes.
const MAX_RECORD_BYTES: usize = 256;
/// Listings tried when a record disappears between being listed and being read.
const LISTINGS: usize = 4;
/// A `tmp.` file this old belongs to nobody.
const LEFTOVER_AGE: Duration = Duration::from_secs(3600);

/// The folder can't serve as an arbiter.
#[derive(Debug, thiserror::Error)]
pub enum FileArbiterError {
    /// It is not there and can't be made, or can't be written.
    #[error("arbiter folder {}: {doing}: {source}: name a folder that whoever uses it can write", folder.display())]
    Io {
        /// The folder.
        folder: PathBuf,
        /// What failed.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The file system has no link(2) that could decide.
    #[error("arbiter folder {}: its file system can't make hard links ({source}): choose a folder on one that can", folder.display())]
    NoLinks {
        /// The folder.
        folder: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The arbiter in a folder. Calls block for as long as the file system does: run it in an
/// [`crate::arbiter_worker::ArbiterWorker`].
#[derive(Debug)]
pub struct FileArbiter {
    folder: PathBuf,
    /// The highest generation seen here; the register never goes back.
    seen: u64,
    /// The highest generation whose name is known to be durable.
    synced: u64,
    trouble: Option<String>,
}

/// Why the register could not be read.
struct Trouble(String);

impl Trouble {
    fn new(path: &Path, what: impl Display) -> Trouble {
        Trouble(format!("arbiter: {}: {what}", path.display()))
    }
}

impl FileArbiter {
    /// Makes the folder if it is missing, and checks that it can be written and that its
    /// file system has hard links. Removes what killed writers left more than an hour ago.
    pub fn open(folder: &Path) -> Result<FileArbiter, FileArbiterError> {
        let failed = |doing| {
            move |source| FileArbiterError::Io {
                folder: folder.to_owned(),
                doing,
                source,
            }
        };
        make_durably(folder).map_err(failed("can't make it"))?;
        let probe = write_temporary(folder, b"probe").map_err(failed("can't write there"))?;
        // A name of its own: both nodes may start at the same moment.
        let mut second = probe.clone().into_os_string();
        second.push(".link");
        let linked = fs::hard_link(&probe, &second);
        let _ = fs::remove_file(&second);
        let _ = fs::remove_file(&probe);
        linked.map_err(|source| FileArbiterError::NoLinks {
            folder: folder.to_owned(),
            source,
        })?;
        sync_dir(folder).map_err(failed("can't sync it"))?;
        remove_leftovers(folder).map_err(failed("can't list it"))?;
        Ok(FileArbiter::at(folder))
    }

    /// The arbiter in a folder that is there and has been found fit.
    pub(crate) fn at(folder: &Path) -> FileArbiter {
        FileArbiter {
            folder: folder.to_owned(),
            seen: 0,
            synced: 0,
            trouble: None,
        }
    }

    /// Removes what killed writers left more than an hour ago. What can't be removed stays.
    pub(crate) fn tidy(&self) {
        let _ = remove_leftovers(&self.folder);
    }

    fn path_of(&self, generation: u64) -> PathBuf {
        self.folder.join(format!("rec.{generation}"))
    }

    /// The register: the highest record, durable, or that there is none.
    fn current(&mut self) -> Result<Option<Record>, Trouble> {
        for _ in 0..LISTINGS {
            let Some(highest) = self.highest()? else {
                if self.seen > 0 {
                    return Err(self.went_back("no record"));
                }
                return Ok(None);
            };
            if highest < self.seen {
                return Err(self.went_back(&format!("rec.{highest} as the highest")));
            }
            let Some(record) = self.record_at(highest)? else {
                continue;
            };
            if highest > self.synced {
                // Its writer may not have come to this yet, and what is told must last.
                sync_dir(&self.folder).map_err(|e| Trouble::new(&self.folder, e))?;
                self.synced = highest;
            }
            self.seen = highest;
            return Ok(Some(record));
        }
        let text = "records disappear while they are read: something else removes files there";
        Err(Trouble::new(&self.folder, text))
    }

    fn went_back(&self, found: &str) -> Trouble {
        let seen = self.seen;
        let text = format!("shows {found} where rec.{seen} stood: is the right folder mounted?");
        Trouble::new(&self.folder, text)
    }

    /// The highest generation of which there is a file.
    fn highest(&self) -> Result<Option<u64>, Trouble> {
        let trouble = |error| Trouble::new(&self.folder, error);
        let mut highest = None;
        for entry in fs::read_dir(&self.folder).map_err(trouble)? {
            let name = entry.map_err(trouble)?.file_name();
            highest = highest.max(name.to_str().and_then(generation_of));
        }
        // A name made while the folder was listed may have been missed.
        let mut next = highest.unwrap_or(0).max(self.seen).saturating_add(1);
        while next < u64::MAX && exists(&self.path_of(next)).map_err(trouble)? {
            highest = Some(next);
            next = next.saturating_add(1);
        }
        Ok(highest)
    }

    /// The record in the file of this generation, or that there is no such file.
    fn record_at(&self, generation: u64) -> Result<Option<Record>, Trouble> {
        const MEND: &str = "bring the file back, or stop both nodes and start over with an empty \
             folder and fresh node folders";
        let path = self.path_of(generation);
        let bytes = match read_small(&path, MAX_RECORD_BYTES) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Ok(None),
            Err(error) => return Err(Trouble::new(&path, error)),
        };
        match decode_record(&bytes) {
            Ok(record) if record.generation == Generation(generation) => Ok(Some(record)),
            Ok(record) => {
                let found = record.generation;
                let text = format!("holds the record of generation {found}: {MEND}");
                Err(Trouble::new(&path, text))
            }
            Err(error) => Err(Trouble::new(&path, format!("{error}: {MEND}"))),
        }
    }

    fn try_cas(&mut self, expect: Generation, record: &Record) -> Result<Outcome, Trouble> {
        let current = self.current()?;
        if current.as_ref() == Some(record) {
            // An earlier copy of this request took place.
            return Ok(Outcome::Won(*record));
        }
        let generation = current.map_or(Generation(0), |now| now.generation);
        if generation != expect || expect.0.checked_add(1) != Some(record.generation.0) {
            return Ok(Outcome::Lost(current));
        }
        let name = self.path_of(record.generation.0);
        let temporary = write_temporary(&self.folder, &encode_record(record))
            .map_err(|error| Trouble::new(&self.folder, format!("can't write there: {error}")))?;
        let linked = fs::hard_link(&temporary, &name);
        let settled = self.settle(&name, record, linked);
        let _ = fs::remove_file(&temporary);
        if matches!(settled, Ok(Outcome::Won(_))) {
            self.remove_old(record.generation.0);
        }
        settled
    }

    /// After link(2), whatever it said: what does the folder say?
    fn settle(
        &mut self,
        name: &Path,
        record: &Record,
        linked: io::Result<()>,
    ) -> Result<Outcome, Trouble> {
        let now = self.current()?;
        if now.as_ref() == Some(record) {
            return Ok(Outcome::Won(*record));
        }
        let now_generation = now.map_or(0, |now| now.generation.0);
        match linked {
            // It stood there and was followed by another, or the name was an old one, free
            // again. A later read tells.
            Ok(()) => {
                let text = format!("was linked, but rec.{now_generation} is the highest");
                Err(Trouble::new(name, text))
            }
            Err(_) if now_generation >= record.generation.0 => Ok(Outcome::Lost(now)),
            Err(error) => Err(Trouble::new(name, format!("can't link: {error}"))),
        }
    }

    /// Removes records far below the highest. What can't be removed stays.
    fn remove_old(&self, highest: u64) {
        let Ok(entries) = fs::read_dir(&self.folder) else {
            return;
        };
        for entry in entries.flatten() {
            let generation = entry.file_name().to_str().and_then(generation_of);
            if generation.is_some_and(|found| found < highest.saturating_sub(KEPT_RECORDS)) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    fn answer(&mut self, result: Result<Outcome, Trouble>) -> Outcome {
        match result {
            Ok(outcome) => outcome,
            Err(Trouble(text)) => {
                self.trouble = Some(text);
                Outcome::Unknown
            }
        }
    }
}

impl ArbiterContract for FileArbiter {
    fn read(&mut self) -> Outcome {
        let result = self.current().map(Outcome::Read);
        self.answer(result)
    }

    fn cas(&mut self, expect: Generation, record: Record) -> Outcome {
        let result = self.try_cas(expect, &record);
        self.answer(result)
    }
}

impl ArbiterBackend for FileArbiter {
    fn take_trouble(&mut self) -> Option<String> {
        self.trouble.take()
    }
}

/// Makes the folder and those above it if need be, so that a power failure doesn't take them away
/// with the records.
fn make_durably(folder: &Path) -> io::Result<()> {
    let missing = folder.ancestors().take_while(|path| !path.exists());
    let missing: Vec<&Path> = missing.filter(|path| *path != Path::new("")).collect();
    fs::create_dir_all(folder)?;
    let above = |path: &Path| match path.parent() {
        Some(above) if above != Path::new("") => above.to_owned(),
        Some(_) => PathBuf::from("."),
        None => PathBuf::from("/"),
    };
    // Another one may have made it and be about to come to this. Not every folder that can be
    // passed through can be opened.
    let _ = sync_dir(&above(folder));
    missing
        .into_iter()
        .try_for_each(|path| sync_dir(&above(path)))
}

/// The generation a file name stands for, if it is a record's.
fn generation_of(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("rec.")?;
    let generation: u64 = digits.parse().ok()?;
    (generation > 0 && generation.to_string() == digits).then_some(generation)
}

fn exists(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// A synced file of a name of its own.
fn write_temporary(folder: &Path, bytes: &[u8]) -> io::Result<PathBuf> {
    let path = folder.join(format!("tmp.{:032x}", random_u128()?));
    let written = (|| {
        let mut file: File = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o644)
            .open(&path)?;
        file.write_all(bytes)?;
        file.sync_all()
    })();
    match written {
        Ok(()) => Ok(path),
        Err(error) => {
            let _ = fs::remove_file(&path);
            Err(error)
        }
    }
}

fn remove_leftovers(folder: &Path) -> io::Result<()> {
    let now = SystemTime::now();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let is_temporary = entry
            .file_name()
            .to_str()
            .is_some_and(|name| name.starts_with("tmp."));
        if !is_temporary {
            continue;
        }
        // One that has just gone is fine too.
        let age = entry.metadata().and_then(|data| data.modified());
        let age = age.ok().and_then(|then| now.duration_since(then).ok());
        if age.is_some_and(|age| age > LEFTOVER_AGE) {
            let _ = fs::remove_file(entry.path());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
