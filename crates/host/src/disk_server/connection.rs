//! One client, from its greeting to its end.

use std::io::{self, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};
use twinvm_nbd::server::{Agreed, House, No, PAYLOAD_BYTES, Tls, greet, haggle, judge};
use twinvm_nbd::wire::{Claim, Command, Export, Reader, Reply, Request};

use super::exported::{Exported, Right};
use super::{Door, HAGGLE_LIMIT, lock};
use crate::nbd::stream::{Stream, Timed, watch};

/// Requests of one client that are read before they are carried out.
const QUEUE: usize = 16;
/// Requests of one client that are carried out at the same time.
const WORKERS: usize = 4;
/// Requests are read in pieces of this many bytes.
const READ_BYTES: usize = 64 << 10;
/// Nobody waits longer for a client to take an answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// A client's view of the server.
struct Visit<'a> {
    door: &'a Door,
    number: u64,
    from: String,
    socket: TcpStream,
    /// What it uses, or has claimed.
    seat: Option<(Arc<Exported>, Right)>,
}

impl Visit<'_> {
    fn find(&self, name: &str) -> Result<&Arc<Exported>, No> {
        let exports = &self.door.exports;
        let found = match name {
            "" if exports.len() == 1 => exports.first(),
            _ => exports.iter().find(|export| export.name() == name),
        };
        found.ok_or(No::Unknown)
    }

    fn socket(&self) -> Result<TcpStream, No> {
        let twin = self.socket.try_clone();
        twin.map_err(|error| No::Policy(format!("the server has a fault: {error}")))
    }

    fn leave(&mut self) {
        if let Some((export, _)) = self.seat.take() {
            export.leave(self.number);
        }
    }

    fn told<T>(&self, name: &str, result: Result<T, No>) -> Result<T, No> {
        if let Err(No::Policy(why)) = &result {
            let from = &self.from;
            self.door
                .ear
                .refused(format_args!("export {name}: {from} is refused: {why}"));
        }
        result
    }
}

impl House for Visit<'_> {
    fn names(&self) -> Vec<String> {
        let names = self.door.exports.iter().map(|export| export.name());
        names.map(str::to_owned).collect()
    }

    fn look(&self, export: &str) -> Result<Export, No> {
        Ok(self.find(export)?.export())
    }

    fn claim(&mut self, name: &str, claim: &Claim) -> Result<(), No> {
        let export = Arc::clone(self.find(name)?);
        self.leave();
        let taken = export.claim(claim, self.number, self.socket()?);
        let (right, taken) = self.told(export.name(), taken)?;
        if taken.anew {
            let closed = match taken.closed {
                0 => String::new(),
                1 => ", and a connection from before is closed".to_owned(),
                more => format!(", and {more} connections from before are closed"),
            };
            self.door.ear.tell(format!(
                "export {}: generation {} of VM {} has it ({}){closed}",
                export.name(),
                claim.generation,
                claim.vm,
                self.from
            ));
        }
        self.seat = Some((export, right));
        Ok(())
    }

    fn read_beside(&mut self, name: &str, reader: &Reader) -> Result<(), No> {
        let export = Arc::clone(self.find(name)?);
        self.leave();
        let right = export.read_beside(reader, self.number, self.socket()?);
        let right = self.told(export.name(), right)?;
        self.seat = Some((export, right));
        Ok(())
    }

    fn enter(&mut self, name: &str) -> Result<Export, No> {
        let export = Arc::clone(self.find(name)?);
        if let Some((seat, right)) = &self.seat
            && Arc::ptr_eq(seat, &export)
        {
            return Ok(export.export_to(right));
        }
        self.leave();
        let right = export.enter_plainly(self.number, self.socket()?);
        let right = self.told(export.name(), right)?;
        let described = export.export_to(&right);
        self.seat = Some((export, right));
        Ok(described)
    }
}

/// Serves one client until it leaves, is sent away or talks nonsense.
pub(super) fn serve(door: &Door, number: u64, socket: TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    watch(&socket)?;
    let mut visit = Visit {
        door,
        number,
        from: socket.peer_addr()?.to_string(),
        socket: socket.try_clone()?,
        seat: None,
    };
    let result = agree(&mut visit, socket).and_then(|stream| match (stream, &visit.seat) {
        (Some(stream), Some((export, right))) => {
            door.seated(number);
            requests(stream, export, right, number)
        }
        _ => Ok(()),
    });
    visit.leave();
    result
}

/// Hears what the client wants; the stream if requests come next.
fn agree(visit: &mut Visit<'_>, socket: TcpStream) -> io::Result<Option<Stream>> {
    let until = Instant::now() + HAGGLE_LIMIT;
    let mut stream = Timed::new(Stream::Tcp(socket), until);
    let no_zeroes = greet(&mut stream)?;
    let due = match visit.door.keys {
        Some(_) => Tls::Due,
        None => Tls::No,
    };
    let mut agreed = haggle(&mut stream, visit, due, no_zeroes)?;
    if let (Agreed::StartTls, Some(keys)) = (&agreed, &visit.door.keys) {
        let secured = stream.into_inner().admit(keys, until).map_err(|error| {
            let from = &visit.from;
            visit
                .door
                .ear
                .refused(format_args!("{from} is refused: {error}"));
            io::Error::other(error)
        })?;
        stream = Timed::new(secured, until);
        agreed = haggle(&mut stream, visit, Tls::Yes, no_zeroes)?;
    }
    Ok(match agreed {
        Agreed::Requests(_) => Some(stream.into_inner()),
        Agreed::StartTls | Agreed::Left => None,
    })
}

/// A request and the data of a write.
struct Work {
    request: Request,
    data: Vec<u8>,
}

fn requests(
    stream: Stream,
    exported: &Arc<Exported>,
    right: &Right,
    number: u64,
) -> io::Result<()> {
    let export = exported.export_to(right);
    let halves = stream.split(ANSWER_LIMIT)?;
    let writer = Mutex::new(halves.writer);
    let (work_in, work) = bounded::<Work>(QUEUE);
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            let (work, writer, socket) = (work.clone(), &writer, &halves.socket);
            let spawned = thread::Builder::new()
                .name("disk request".to_owned())
                .spawn_scoped(scope, move || {
                    if carry_out(&work, exported, right, &export, writer).is_err() {
                        // Ends the reading too.
                        socket.shut();
                        work.iter().for_each(drop);
                    }
                });
            if let Err(error) = spawned {
                drop(work_in);
                return Err(error);
            }
        }
        let mut reader = BufReader::with_capacity(READ_BYTES, halves.reader);
        let result = loop {
            match next(&mut reader) {
                Ok(Some(next)) => {
                    if work_in.send(next).is_err() {
                        break Ok(());
                    }
                }
                // Politely: what was asked before is answered.
                Ok(None) => break Ok(()),
                Err(error) => {
                    exported.leave(number);
                    break Err(error);
                }
            }
        };
        drop(work_in);
        result
    })
}

/// The next request; `None` if the client leaves.
fn next(reader: &mut impl Read) -> io::Result<Option<Work>> {
    let mut head = [0; Request::BYTES];
    reader.read_exact(&mut head)?;
    let garbled = || io::Error::new(io::ErrorKind::InvalidData, "not a request");
    let request = Request::decode(&head).ok_or_else(garbled)?;
    let bytes = match request.command {
        Command::Disconnect => return Ok(None),
        // More than was agreed on is not even read.
        Command::Write if request.bytes > PAYLOAD_BYTES => return Err(garbled()),
        Command::Write => request.bytes as usize,
        _ => 0,
    };
    let mut data = vec![0; bytes];
    reader.read_exact(&mut data)?;
    Ok(Some(Work { request, data }))
}

/// Carries out requests, and answers them, until no more come.
fn carry_out(
    work: &Receiver<Work>,
    exported: &Exported,
    right: &Right,
    export: &Export,
    writer: &Mutex<Box<dyn Write + Send>>,
) -> io::Result<()> {
    for Work { request, data } in work {
        let result = match judge(&request, export) {
            0 => exported.carry_out(right, &request, data),
            error => Some(Err(error)),
        };
        // One who has been cut off hears nothing any more.
        let Some(result) = result else {
            return Err(io::ErrorKind::ConnectionAborted.into());
        };
        let (error, data) = match result {
            Ok(data) => (0, data),
            Err(error) => (error, Vec::new()),
        };
        let cookie = request.cookie;
        let mut bytes = Reply { error, cookie }.encode().to_vec();
        bytes.extend_from_slice(&data);
        let mut writer = lock(writer);
        writer.write_all(&bytes)?;
        writer.flush()?;
    }
    Ok(())
}
