//! From root to a user who isn't, with no way back (credentials(7), capabilities(7)).

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{Gid, OFlags, Uid, fchown};
use rustix::process::{geteuid, getgid, getuid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
    clear_ambient_capability_set, remove_capability_from_bounding_set, set_capabilities,
    set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

use super::{OwnFolder, SandboxError, User, system, threads};
use crate::durable::sync_dir;

/// Numbers that a capability may have: the sets have 64 bits, 41 of which mean something so far.
const CAPABILITIES: u32 = 64;

/// Becomes `user`, whose folders are made before. One who is that user already stays so.
pub(super) fn become_user(user: &User, folders: &[OwnFolder]) -> Result<(), SandboxError> {
    if !geteuid().is_root() {
        return match getuid().as_raw() == user.uid() {
            true => Ok(()),
            false => Err(SandboxError::NotRoot {
                name: user.name().to_owned(),
            }),
        };
    }
    // The calls below are about one thread; the others would keep everything.
    match threads()? {
        1 => {}
        several => return Err(SandboxError::Threads(several)),
    }
    for folder in folders {
        make(folder, user)?;
    }
    // While there still is the right to do so. It has no effect on what is held now.
    for capability in (0..CAPABILITIES).map(|bit| 1 << bit) {
        let capability = CapabilitySet::from_bits_retain(capability);
        // An error means that this kernel knows no such capability.
        if capability_is_in_bounding_set(capability) == Ok(true) {
            remove_capability_from_bounding_set(capability)
                .map_err(system("giving up a capability for good"))?;
        }
    }
    let groups: Vec<Gid> = user
        .groups()
        .iter()
        .map(|gid| Gid::from_raw(*gid))
        .collect();
    set_thread_groups(&groups).map_err(system("leaving root's groups"))?;
    let gid = Gid::from_raw(user.gid());
    set_thread_res_gid(gid, gid, gid).map_err(system("leaving root's group"))?;
    let uid = Uid::from_raw(user.uid());
    set_thread_res_uid(uid, uid, uid).map_err(system("becoming another user"))?;
    // The kernel has done so, if nothing told it otherwise (`SECBIT_NO_SETUID_FIXUP`).
    clear_ambient_capability_set().map_err(system("giving up capabilities"))?;
    set_capabilities(None, none()).map_err(system("giving up capabilities"))?;
    verify(user)
}

fn none() -> CapabilitySets {
    CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    }
}

/// Nothing is left, and nothing can be had again.
fn verify(user: &User) -> Result<(), SandboxError> {
    let gone = getuid().as_raw() == user.uid()
        && geteuid().as_raw() == user.uid()
        && getgid().as_raw() == user.gid()
        && capabilities(None).map_err(system("looking at capabilities"))? == none()
        && set_thread_res_uid(None, Some(Uid::ROOT), None).is_err();
    gone.then_some(())
        .ok_or_else(|| SandboxError::StillThere(user.name().to_owned()))
}

/// Of a process that stays root: the folders that are its own alone are nobody else's.
pub(super) fn spare_others(folders: &[OwnFolder]) -> Result<(), SandboxError> {
    if !geteuid().is_root() {
        return Ok(());
    }
    for OwnFolder { path, .. } in folders.iter().filter(|folder| folder.must_own) {
        // What can't be looked at is missing, or whoever opens it says what is wrong.
        let Ok(found) = fs::metadata(path) else {
            continue;
        };
        if found.uid() != 0 {
            let (path, owner) = (path.clone(), name_of(found.uid(), found.gid()));
            return Err(SandboxError::NotRoots { path, owner });
        }
    }
    Ok(())
}

/// As `--user` takes it: without a group, which root's can't be, it asks for one.
fn name_of(uid: u32, gid: u32) -> String {
    match (User::find(&uid.to_string()), gid) {
        (Ok(user), _) => user.name().to_owned(),
        (Err(_), 0) => uid.to_string(),
        (Err(_), gid) => format!("{uid}:{gid}"),
    }
}

/// A folder of the user's.
fn make(folder: &OwnFolder, user: &User) -> Result<(), SandboxError> {
    let path = &*folder.path;
    let failed = |doing| {
        move |source| SandboxError::Folder {
            path: path.to_owned(),
            doing,
            source,
        }
    };
    if let Some(parent) = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
    {
        fs::create_dir_all(parent).map_err(failed("can't make the folder above it"))?;
    }
    match DirBuilder::new().mode(folder.mode).create(path) {
        Ok(()) => {
            let (uid, gid) = (Uid::from_raw(user.uid()), Gid::from_raw(user.gid()));
            open_folder(path)
                .and_then(|made| Ok(fchown(made, Some(uid), Some(gid))?))
                .and_then(|()| sync_dir(path.parent().unwrap_or(Path::new("/"))))
                .map_err(failed("can't hand it over"))
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let owner = fs::metadata(path)
                .map_err(failed("can't look at it"))?
                .uid();
            match folder.must_own && owner != user.uid() {
                false => Ok(()),
                true => Err(SandboxError::NotOwned {
                    path: path.to_owned(),
                    owner,
                    name: user.name().to_owned(),
                }),
            }
        }
        Err(error) => Err(failed("can't make it")(error)),
    }
}

/// The folder itself, not where a link that somebody has put in its place would lead.
fn open_folder(path: &Path) -> io::Result<File> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW;
    OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits() as i32)
        .open(path)
}
