//! Lets this host run programs of the guest's architecture while a system is set up (Linux,
//! Documentation/admin-guide/binfmt-misc.rst). What was changed is changed back.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{ImageError, Progress, apt};

/// The line that qemu-user-static's package brings for the host's own start-up.
const LINE: &str = "/usr/lib/binfmt.d/qemu-riscv64.conf";
const FOLDER: &str = "/proc/sys/fs/binfmt_misc";
const NAME: &str = "qemu-riscv64";

/// The emulator's registration; ends when the value is dropped, if it was ours.
#[derive(Debug)]
pub(crate) struct Binfmt {
    registered: Option<PathBuf>,
    mounted: bool,
    /// Held so that no other build takes the registration away from under us, or we from it.
    _lock: File,
}

impl Binfmt {
    /// Registers the emulator unless it is registered already.
    pub(crate) fn register(progress: &mut dyn Progress) -> Result<Self, ImageError> {
        let path = Path::new("/run/lock/twinvm-binfmt.lock");
        let lock = File::create(path).map_err(ImageError::io(path))?;
        if lock.try_lock().is_err() {
            progress.stage("waiting for another build that uses the emulator");
            lock.lock().map_err(ImageError::io(path))?;
        }
        let mut binfmt = Self {
            registered: None,
            mounted: false,
            _lock: lock,
        };
        let folder = Path::new(FOLDER);
        if !folder.join("register").exists() {
            let mut mount = Command::new("mount");
            mount.args(["-t", "binfmt_misc", "binfmt_misc", FOLDER]);
            apt::run(mount, "mount", "making room for the emulator", |_| {})?;
            binfmt.mounted = true;
        }
        if !folder.join(NAME).exists() {
            let line = fs::read(LINE).map_err(|_| ImageError::Tool {
                program: "qemu-riscv64-static",
                package: "qemu-user-static",
            })?;
            let register = folder.join("register");
            fs::write(&register, line.trim_ascii()).map_err(ImageError::io(&register))?;
            binfmt.registered = Some(folder.join(NAME));
        }
        Ok(binfmt)
    }
}

impl Drop for Binfmt {
    fn drop(&mut self) {
        // The kernel's word for "forget it"; if that fails, the next build finds it registered.
        if let Some(entry) = &self.registered {
            let _ = fs::write(entry, "-1");
        }
        if self.mounted {
            let _ = Command::new("umount").arg(FOLDER).status();
        }
    }
}
