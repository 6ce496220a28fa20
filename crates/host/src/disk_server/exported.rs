//! One export: its file, who has it, and who uses it now.
//!
//! ```text
//! FILE           the contents
//! FILE.holder    the VM, and the highest generation of it that has claimed them
//! ```
//!
//! Every request is carried out under a shared lock, every change of who has the export under the
//! same one alone. So when a claim is answered nothing of those before it is under way, and nothing
//! of them begins any more.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use twinvm_machine::{DiskOp, DiskRequest};
use twinvm_nbd::server::{No, PAYLOAD_BYTES};
use twinvm_nbd::wire::{Claim, Command, Export, ExportFlags, Reader, Reply, Request};

use crate::disk::DiskFile;
use crate::durable::{read_small, replace_file};

/// Clients without a claim that use one export at a time.
const MAX_PLAIN: usize = 8;
/// Those that read beside a claim: a pair has one, and may have left some behind.
const MAX_READERS: usize = 8;
/// Longest file that says who has an export: a VM's name and two numbers.
const MAX_HOLDER_BYTES: usize = 512;
/// Longest name of a VM that may claim.
const MAX_VM_BYTES: usize = 64;
const FORM: &str = "twinvm disk 1";

/// What is known about who has an export can't be read.
#[derive(Debug, thiserror::Error)]
#[error("{}: {why}", path.display())]
pub struct HolderError {
    /// The file that says it.
    pub path: PathBuf,
    /// What is wrong with it, and what to do.
    pub why: String,
}

/// Who has an export for good.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Held {
    vm: String,
    generation: u64,
    holder: u128,
}

impl Held {
    fn encode(&self) -> String {
        let Self {
            vm,
            generation,
            holder,
        } = self;
        format!("{FORM}\nvm {vm}\ngeneration {generation}\nholder {holder:032x}\n")
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut lines = std::str::from_utf8(bytes).ok()?.lines();
        (lines.next()? == FORM).then_some(())?;
        let held = Self {
            vm: lines.next()?.strip_prefix("vm ")?.to_owned(),
            generation: lines.next()?.strip_prefix("generation ")?.parse().ok()?,
            holder: u128::from_str_radix(lines.next()?.strip_prefix("holder ")?, 16).ok()?,
        };
        // One value has one form.
        (held.encode().as_bytes() == bytes && held.generation > 0).then_some(held)
    }
}

/// Who uses an export now.
pub(super) struct Seat {
    number: u64,
    /// Who, if he has claimed it, or reads beside a claim.
    holder: Option<u128>,
    /// He only reads.
    reads: bool,
    socket: TcpStream,
    revoked: Arc<AtomicBool>,
}

impl Seat {
    /// Cuts him off. Under the lock alone.
    fn revoke(&self) {
        self.revoked.store(true, Ordering::SeqCst);
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

#[derive(Default)]
struct Seats {
    held: Option<Held>,
    seats: Vec<Seat>,
}

/// An export.
pub struct Exported {
    name: String,
    file: DiskFile,
    folder: PathBuf,
    holder_name: String,
    seats: RwLock<Seats>,
}

/// The right to use an export, until it is revoked.
#[derive(Clone)]
pub(super) struct Right {
    revoked: Arc<AtomicBool>,
    /// To reading alone.
    reads: bool,
}

impl Right {
    fn new(reads: bool) -> Self {
        Self {
            revoked: Arc::new(AtomicBool::new(false)),
            reads,
        }
    }
}

/// What a claim has changed.
pub(super) struct Taken {
    /// Connections that were closed.
    pub(super) closed: usize,
    /// Whether another generation has it now.
    pub(super) anew: bool,
}

impl Exported {
    /// The export called `name` of this file.
    ///
    /// # Errors
    /// [`HolderError`].
    pub fn open(name: String, file: DiskFile) -> Result<Self, HolderError> {
        let path = file.path();
        let mut holder_name = path.file_name().map(OsString::from).unwrap_or_default();
        holder_name.push(".holder");
        let folder = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        let path = folder.join(&holder_name);
        let bad = |why: String| HolderError {
            path: path.clone(),
            why,
        };
        let Ok(holder_name) = holder_name.into_string() else {
            return Err(bad("the name is not UTF-8: rename the file".to_owned()));
        };
        let held = match read_small(&path, MAX_HOLDER_BYTES) {
            Ok(None) => None,
            Ok(Some(bytes)) => Some(Held::decode(&bytes).ok_or_else(|| {
                bad(
                    "says nothing about who has the disk: bring it back from a copy, or remove it \
                     if no node that had the disk is left"
                        .to_owned(),
                )
            })?),
            Err(error) => return Err(bad(error.to_string())),
        };
        if !file.read_only() {
            // Not only when a node takes over.
            try_out(&folder, &holder_name).map_err(|error| {
                bad(format!(
                    "can't be written: {error}: give this user a right to the folder"
                ))
            })?;
        }
        Ok(Self {
            name,
            file,
            folder,
            holder_name,
            seats: RwLock::new(Seats {
                held,
                seats: Vec::new(),
            }),
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it is to clients.
    pub(super) fn export(&self) -> Export {
        self.described(self.file.read_only())
    }

    /// What it is to whoever has this right.
    pub(super) fn export_to(&self, right: &Right) -> Export {
        self.described(self.file.read_only() || right.reads)
    }

    fn described(&self, read_only: bool) -> Export {
        let mut flags =
            ExportFlags::HAS_FLAGS | ExportFlags::SEND_FLUSH | ExportFlags::CAN_MULTI_CONN;
        flags |= match read_only {
            true => ExportFlags::READ_ONLY,
            false => {
                ExportFlags::SEND_FUA | ExportFlags::SEND_TRIM | ExportFlags::SEND_WRITE_ZEROES
            }
        };
        Export {
            bytes: self.file.bytes(),
            flags: ExportFlags(flags),
            block_bytes: 1,
            payload_bytes: PAYLOAD_BYTES,
        }
    }

    /// Gives the export to whoever claims it, over connection `number`, and cuts off all others;
    /// those that only read, when another generation has it. When it returns, what they have asked
    /// for is done or never will be.
    pub(super) fn claim(
        &self,
        claim: &Claim,
        number: u64,
        socket: TcpStream,
    ) -> Result<(Right, Taken), No> {
        let no = |why: String| Err(No::Policy(why));
        let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        if !(1..=MAX_VM_BYTES).contains(&claim.vm.len()) || !claim.vm.bytes().all(good) {
            return no("this is no VM's name".to_owned());
        }
        // Alone: waits for all requests under way.
        let mut seats = self.seats.write().unwrap_or_else(PoisonError::into_inner);
        let mut anew = false;
        match &seats.held {
            Some(held) if held.vm != claim.vm => {
                return no(format!(
                    "the disk belongs to the VM {}: give each VM one of its own",
                    held.vm
                ));
            }
            Some(held) if claim.generation == 0 => {
                return no(format!(
                    "the disk belongs to a pair (generation {}): start that with twinvm node",
                    held.generation
                ));
            }
            Some(held) if held.generation > claim.generation => {
                return no(format!(
                    "generation {} has taken over from generation {}",
                    held.generation, claim.generation
                ));
            }
            Some(held) if held.generation == claim.generation && held.holder != claim.holder => {
                return no(format!("generation {} is another node's", held.generation));
            }
            None if claim.generation == 0 => {
                let others = |seat: &Seat| seat.holder != Some(claim.holder);
                if seats.seats.iter().any(others) {
                    return no("somebody else uses the disk".to_owned());
                }
            }
            Some(held) if held.generation == claim.generation => {}
            _ => {
                let held = Held {
                    vm: claim.vm.clone(),
                    generation: claim.generation,
                    holder: claim.holder,
                };
                let bytes = held.encode();
                if let Err(error) = replace_file(&self.folder, &self.holder_name, bytes.as_bytes())
                {
                    return no(format!("who has the disk can't be kept: {error}"));
                }
                seats.held = Some(held);
                anew = true;
            }
        }
        let cut_off = |seat: &mut Seat| anew || !seat.reads || seat.number == number;
        let mut closed = 0;
        for seat in seats.seats.extract_if(.., cut_off) {
            if seat.number != number {
                seat.revoke();
                closed += 1;
            }
        }
        let right = Right::new(false);
        seats.seats.push(Seat {
            number,
            holder: Some(claim.holder),
            reads: false,
            socket,
            revoked: Arc::clone(&right.revoked),
        });
        Ok((right, Taken { closed, anew }))
    }

    /// Lets somebody read beside the node that has the export. He takes the place of a connection
    /// that he had before.
    pub(super) fn read_beside(
        &self,
        reader: &Reader,
        number: u64,
        socket: TcpStream,
    ) -> Result<Right, No> {
        let no = |why: String| Err(No::Policy(why));
        let mut seats = self.seats.write().unwrap_or_else(PoisonError::into_inner);
        match &seats.held {
            Some(held) if held.vm == reader.vm => {}
            Some(held) => return no(format!("the disk belongs to the VM {}", held.vm)),
            None => return no("no node of a pair has the disk yet".to_owned()),
        }
        let before = |seat: &mut Seat| seat.reads && seat.holder == Some(reader.holder);
        for seat in seats.seats.extract_if(.., before) {
            seat.revoke();
        }
        let readers = seats.seats.iter().filter(|seat| seat.reads).count();
        if readers >= MAX_READERS {
            return no("too many clients read the disk".to_owned());
        }
        let right = Right::new(true);
        seats.seats.push(Seat {
            number,
            holder: Some(reader.holder),
            reads: true,
            socket,
            revoked: Arc::clone(&right.revoked),
        });
        Ok(right)
    }

    /// Lets a client in that claims nothing.
    pub(super) fn enter_plainly(&self, number: u64, socket: TcpStream) -> Result<Right, No> {
        let no = |why: &str| Err(No::Policy(why.to_owned()));
        let mut seats = self.seats.write().unwrap_or_else(PoisonError::into_inner);
        if seats.held.is_some() {
            return no("the disk belongs to a pair, whose nodes say their generation");
        }
        if seats.seats.iter().any(|seat| seat.holder.is_some()) {
            return no("a VM uses the disk");
        }
        if seats.seats.len() >= MAX_PLAIN {
            return no("too many clients use the disk");
        }
        let right = Right::new(false);
        seats.seats.push(Seat {
            number,
            holder: None,
            reads: false,
            socket,
            revoked: Arc::clone(&right.revoked),
        });
        Ok(right)
    }

    /// A connection has ended. What it has asked for is not begun any more.
    pub(super) fn leave(&self, number: u64) {
        let mut seats = self.seats.write().unwrap_or_else(PoisonError::into_inner);
        seats.seats.retain(|seat| {
            if seat.number == number {
                seat.revoked.store(true, Ordering::SeqCst);
            }
            seat.number != number
        });
    }

    /// Carries out a request that [`twinvm_nbd::server::judge`] has let through, if its client
    /// still has the right to it; `None` if he has not. What a read has read, or an error of
    /// [`Reply`].
    pub(super) fn carry_out(
        &self,
        right: &Right,
        request: &Request,
        data: Vec<u8>,
    ) -> Option<Result<Vec<u8>, u32>> {
        let shared = self.seats.read().unwrap_or_else(PoisonError::into_inner);
        if right.revoked.load(Ordering::SeqCst) {
            return None;
        }
        if right.reads && !matches!(request.command, Command::Read | Command::Flush) {
            return Some(Err(Reply::EPERM));
        }
        let durable = request.flags & Request::FUA != 0;
        let op = match request.command {
            Command::Read => DiskOp::Read,
            Command::Write => DiskOp::Write { durable },
            Command::Flush => DiskOp::Flush,
            Command::Trim => DiskOp::Discard,
            Command::WriteZeroes => DiskOp::WriteZeroes {
                unmap: request.flags & Request::NO_HOLE == 0,
            },
            Command::Disconnect | Command::Other(_) => return Some(Err(Reply::EINVAL)),
        };
        if request.bytes == 0 && op != DiskOp::Flush {
            return Some(Ok(Vec::new()));
        }
        let mut work = DiskRequest {
            device: 0,
            id: 0,
            op,
            offset: request.offset,
            bytes: request.bytes.into(),
            data: data.into(),
        };
        let mut result = self.file.carry_out(&work);
        if durable && result.is_ok() && !matches!(op, DiskOp::Read | DiskOp::Write { .. }) {
            work.op = DiskOp::Flush;
            result = self.file.carry_out(&work);
        }
        drop(shared);
        Some(result.map_err(|error| number_of(&error)))
    }
}

/// Writes what [`replace_file`] writes first, and removes it.
fn try_out(folder: &Path, name: &str) -> io::Result<()> {
    let path = folder.join(format!("{name}.tmp"));
    fs::write(&path, b"")?;
    fs::remove_file(&path)
}

fn number_of(error: &io::Error) -> u32 {
    use io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    match error.kind() {
        StorageFull | QuotaExceeded => Reply::ENOSPC,
        ReadOnlyFilesystem => Reply::EPERM,
        _ => Reply::EIO,
    }
}
