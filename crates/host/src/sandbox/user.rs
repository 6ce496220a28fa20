//! Whom a process becomes: a line of `/etc/passwd` and those of `/etc/group` (passwd(5), group(5)).
//!
//! The files are read here and not by the C library, which would load whatever the host has
//! configured for it into a process that is root. Users who are elsewhere are given as numbers.

use std::io;
use std::path::Path;

use crate::durable::read_small;

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";
/// The longest file that is read: some hundred thousand users.
const MAX_FILE_BYTES: usize = 16 << 20;
/// Most groups of one process (Linux: `NGROUPS_MAX`).
const MAX_GROUPS: usize = 65_536;

/// Somebody who isn't root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    name: String,
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
}

/// There is no such user.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// Not in the file.
    #[error(
        "--user {text}: there is no user {name:?} in /etc/passwd: make it (useradd --system --no-create-home {name}), or give numbers, UID:GID"
    )]
    NoUser {
        /// What was given.
        text: String,
        /// The name in it.
        name: String,
    },
    /// Not in the file.
    #[error("--user {text}: there is no group {name:?} in /etc/group: make it, or give its number")]
    NoGroup {
        /// What was given.
        text: String,
        /// The name in it.
        name: String,
    },
    /// A number that no line has.
    #[error(
        "--user {text}: user {uid} is not in /etc/passwd, so its group is needed too: {uid}:GID"
    )]
    GroupNeeded {
        /// What was given.
        text: String,
        /// The number.
        uid: u32,
    },
    /// Nothing would be given up.
    #[error("--user {0}: that is root: name a user without its rights")]
    Root(String),
    /// A file can't be read.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

impl User {
    /// Finds `NAME` or `NAME:GROUP`, each a name or a number.
    pub fn find(text: &str) -> Result<Self, UserError> {
        Self::find_in(text, &read(PASSWD)?, &read(GROUP)?)
    }

    /// The same in these files' contents.
    pub fn find_in(text: &str, passwd: &str, group: &str) -> Result<Self, UserError> {
        let owned = || text.to_owned();
        let (name, wanted_group) = match text.split_once(':') {
            Some((name, group)) => (name, Some(group)),
            None => (text, None),
        };
        let line = passwd
            .lines()
            .filter_map(Line::parse)
            .find(|line| line.name == name)
            .or_else(|| {
                let uid: u32 = number(name)?;
                let mut lines = passwd.lines().filter_map(Line::parse);
                lines.find(|line| line.uid == uid)
            });
        let (name, uid, own_gid) = match (line, number(name)) {
            (Some(line), _) => (line.name.to_owned(), line.uid, Some(line.gid)),
            (None, Some(uid)) => (uid.to_string(), uid, None),
            (None, None) => {
                return Err(UserError::NoUser {
                    text: owned(),
                    name: name.to_owned(),
                });
            }
        };
        let gid = match wanted_group {
            Some(wanted) => gid_of(wanted, group)
                .or_else(|| number(wanted))
                .ok_or_else(|| UserError::NoGroup {
                    text: owned(),
                    name: wanted.to_owned(),
                })?,
            None => own_gid.ok_or_else(|| UserError::GroupNeeded { text: owned(), uid })?,
        };
        if uid == 0 || gid == 0 {
            return Err(UserError::Root(owned()));
        }
        let mut groups: Vec<u32> = memberships(&name, group).filter(|gid| *gid != 0).collect();
        groups.push(gid);
        groups.sort_unstable();
        groups.dedup();
        groups.truncate(MAX_GROUPS);
        Ok(Self {
            name,
            uid,
            gid,
            groups,
        })
    }

    /// Its name, or its number if it has none.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its user id, not 0.
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// Its group id, not 0.
    pub fn gid(&self) -> u32 {
        self.gid
    }

    /// All its groups, in order; root's is none of them.
    pub fn groups(&self) -> &[u32] {
        &self.groups
    }
}

/// What of a line of `/etc/passwd` matters.
struct Line<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
}

impl<'a> Line<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let _password = fields.next()?;
        Some(Self {
            name,
            uid: number(fields.next()?)?,
            gid: number(fields.next()?)?,
        })
    }
}

/// Name, id and members of each group.
fn groups(file: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    file.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let _password = fields.next()?;
        let gid = number(fields.next()?)?;
        Some((name, gid, fields.next().unwrap_or("")))
    })
}

fn gid_of(name: &str, file: &str) -> Option<u32> {
    groups(file)
        .find(|(known, ..)| *known == name)
        .map(|(_, gid, _)| gid)
}

fn memberships<'a>(name: &'a str, file: &'a str) -> impl Iterator<Item = u32> + 'a {
    groups(file)
        .filter(move |(.., members)| members.split(',').any(|member| member == name))
        .map(|(_, gid, _)| gid)
}

/// An id. The highest number means "leave it as it is" to the kernel (setresuid(2)).
fn number(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.then(|| text.parse().ok())?;
    number.filter(|number| *number != u32::MAX)
}

fn read(path: &'static str) -> Result<String, UserError> {
    let failed = |source| UserError::File { path, source };
    let bytes = read_small(Path::new(path), MAX_FILE_BYTES).map_err(failed)?;
    Ok(String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned())
}
