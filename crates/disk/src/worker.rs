//! The threads that read and write a disk.
//!
//! The machine decides which requests may be under way at once: none of them overlap. So threads
//! carry them out in any order, and what comes back is what the guest is told.
//!
//! Whatever the file does, the VM lives: an error, a full file system, a file that has become
//! shorter are a failed request to the guest.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, unbounded};
use twinvm_machine::{DiskOp, DiskRequest};

use crate::file::{DiskError, DiskFile};

/// Threads of one disk: enough that a request that waits for the medium does not hold up those
/// that the page cache can answer.
const THREADS: usize = 4;

/// Status of a request that was done (virtio 1.2 section 5.2.6).
pub(crate) const DONE: u8 = 0;
/// Status of a request that failed.
pub(crate) const FAILED: u8 = 1;

/// How a request has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskDone {
    /// Virtio slot of the disk.
    pub device: u8,
    /// The request's number.
    pub id: u64,
    /// 0 done, 1 failed.
    pub status: u8,
    /// What a read that was done has read.
    pub data: Vec<u8>,
    /// What a person should know, said once for each kind of trouble.
    pub trouble: Option<String>,
}

/// What a request is carried out on.
pub(crate) trait Backing: std::fmt::Debug + Send + Sync {
    /// Carries out one request; gives what a read has read. An error is what the guest is told
    /// as an I/O error.
    fn carry_out(&self, request: &DiskRequest) -> io::Result<Vec<u8>>;
    /// Makes durable what was written.
    fn flush(&self) -> io::Result<()>;
    /// The file, for messages.
    fn path(&self) -> &Path;
}

impl Backing for DiskFile {
    fn carry_out(&self, request: &DiskRequest) -> io::Result<Vec<u8>> {
        DiskFile::carry_out(self, request)
    }

    fn flush(&self) -> io::Result<()> {
        DiskFile::flush(self)
    }

    fn path(&self) -> &Path {
        DiskFile::path(self)
    }
}

/// Where results go; false if nobody wants them any more.
pub(crate) type Sink = Arc<dyn Fn(DiskDone) -> bool + Send + Sync>;

/// A disk at work. Dropping it waits for the requests under way.
#[derive(Debug)]
pub struct Disk {
    pool: Pool,
}

impl Disk {
    /// Starts the threads; results go to `done`, which must have room for
    /// [`MAX_DISK_REQUESTS`](twinvm_machine::MAX_DISK_REQUESTS) of each disk.
    ///
    /// # Errors
    /// No thread.
    pub fn start(file: DiskFile, done: &Sender<DiskDone>) -> io::Result<Self> {
        let done = done.clone();
        let sink: Sink = Arc::new(move |ended| done.send(ended).is_ok());
        Ok(Self {
            pool: Pool::start(Arc::new(file), &sink)?,
        })
    }

    /// Carries a request out. Never waits. Next hop: a [`DiskDone`].
    pub fn submit(&self, request: DiskRequest) {
        self.pool.submit(request);
    }

    /// Brings the file to rest: waits for the requests under way, whose results may be left where
    /// they are, and makes durable what has been written. No request is taken after it; the file
    /// stays locked.
    ///
    /// # Errors
    /// [`DiskError::Io`]: what was written may not be there after a power failure.
    pub fn rest(&mut self) -> Result<(), DiskError> {
        self.pool.stop();
        let backing = &self.pool.worker.backing;
        backing.flush().map_err(|source| DiskError::Io {
            path: backing.path().to_owned(),
            source,
        })
    }
}

/// One thing for a thread of a pool to do.
enum Job {
    Request(DiskRequest),
    Other(Box<dyn FnOnce() + Send>),
}

/// The threads of one disk. Dropping it waits for what is under way.
#[derive(Debug)]
pub(crate) struct Pool {
    /// Not bounded by itself: a machine has at most as many requests in flight as its disk's
    /// queue has heads, and who has other work done counts it.
    jobs: Option<Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
    worker: Arc<Worker>,
}

impl Pool {
    pub(crate) fn start(backing: Arc<dyn Backing>, sink: &Sink) -> io::Result<Self> {
        let (jobs_in, jobs) = unbounded();
        let worker = Arc::new(Worker {
            backing,
            said: Mutex::new(Vec::new()),
        });
        let threads = (0..THREADS)
            .map(|n| {
                let worker = Arc::clone(&worker);
                let (jobs, sink) = (jobs.clone(), Arc::clone(sink));
                thread::Builder::new()
                    .name(format!("disk {n}"))
                    .spawn(move || worker.run(&jobs, &sink))
            })
            .collect::<io::Result<_>>()?;
        Ok(Self {
            jobs: Some(jobs_in),
            threads,
            worker,
        })
    }

    pub(crate) fn submit(&self, request: DiskRequest) {
        self.send(Job::Request(request));
    }

    /// Has something done by one of the threads.
    pub(crate) fn run(&self, work: impl FnOnce() + Send + 'static) {
        self.send(Job::Other(Box::new(work)));
    }

    fn send(&self, job: Job) {
        if let Some(jobs) = &self.jobs {
            // The threads live as long as this does.
            let _ = jobs.send(job);
        }
    }

    pub(crate) fn stop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What the threads of a disk share.
#[derive(Debug)]
struct Worker {
    backing: Arc<dyn Backing>,
    /// Kinds of trouble that were told.
    said: Mutex<Vec<(&'static str, Option<i32>)>>,
}

impl Worker {
    fn run(&self, jobs: &Receiver<Job>, sink: &Sink) {
        for job in jobs {
            let request = match job {
                Job::Request(request) => request,
                Job::Other(work) => {
                    work();
                    continue;
                }
            };
            let (status, data, trouble) = match self.backing.carry_out(&request) {
                Ok(data) => (DONE, data, None),
                Err(error) => (FAILED, Vec::new(), self.tell(request.op, &error)),
            };
            let wanted = sink(DiskDone {
                device: request.device,
                id: request.id,
                status,
                data,
                trouble,
            });
            if !wanted {
                return;
            }
        }
    }

    /// The line for this kind of trouble, if it is the first of its kind.
    fn tell(&self, op: DiskOp, error: &io::Error) -> Option<String> {
        let doing = match op {
            DiskOp::Read => "read",
            DiskOp::Write { .. } => "write",
            DiskOp::Flush => "flush",
            DiskOp::Discard => "discard",
            DiskOp::WriteZeroes { .. } => "write of zeros",
        };
        let kind = (doing, error.raw_os_error());
        let mut said = locked(&self.said);
        if said.contains(&kind) {
            return None;
        }
        said.push(kind);
        Some(format!(
            "disk {}: a {doing} failed: {error}; the guest gets an I/O error (said once)",
            self.backing.path().display()
        ))
    }
}

/// The lock; a thread that panicked while it held it left nothing half done.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
