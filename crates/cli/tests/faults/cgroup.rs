//! Control groups of the kernel (version 1), for a single thread that stops and for a process that
//! gets no more memory.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

const ROOT: &str = "/sys/fs/cgroup";
const LIMIT: Duration = Duration::from_secs(20);

/// A group of its own.
pub(crate) struct Group {
    path: PathBuf,
    frozen: bool,
}

impl Group {
    /// Makes a group under this controller; none where the host has none, or it is not ours to
    /// make.
    pub(crate) fn new(controller: &str) -> Option<Self> {
        // Its own in each of several test runs.
        let name = format!(
            "twinvm-faults-{}",
            fs::read_link("/proc/self/ns/net").ok()?.display()
        );
        let name = name.replace(['[', ']', ':'], "-");
        let path = Path::new(ROOT).join(controller).join(name);
        match fs::create_dir(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => None,
            _ => Some(Self {
                path,
                frozen: false,
            }),
        }
    }

    fn write(&self, file: &str, value: impl std::fmt::Display) {
        let path = self.path.join(file);
        fs::write(&path, value.to_string()).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    }

    /// Stops one thread, and no other of its process.
    pub(crate) fn freeze(&mut self, thread: u32) {
        self.write("tasks", thread);
        self.frozen = true;
        self.write("freezer.state", "FROZEN");
        self.await_state("FROZEN");
    }

    /// Lets it go on.
    pub(crate) fn thaw(&mut self) {
        self.write("freezer.state", "THAWED");
        self.await_state("THAWED");
        self.frozen = false;
    }

    fn await_state(&self, state: &str) {
        let until = Instant::now() + LIMIT;
        while fs::read_to_string(self.path.join("freezer.state"))
            .unwrap()
            .trim()
            != state
        {
            assert!(Instant::now() < until, "not {state}");
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// What the process takes from now on may be this many bytes; with more it is killed.
    pub(crate) fn bound(&self, process: u32, bytes: u64) {
        self.write("memory.limit_in_bytes", bytes);
        self.write("cgroup.procs", process);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if self.frozen {
            let _ = fs::write(self.path.join("freezer.state"), "THAWED");
        }
        let parent = self.path.parent().unwrap_or(Path::new(ROOT));
        for task in fs::read_to_string(self.path.join("tasks"))
            .unwrap_or_default()
            .lines()
        {
            let _ = fs::write(parent.join("tasks"), task);
        }
        let _ = fs::remove_dir(&self.path);
    }
}
