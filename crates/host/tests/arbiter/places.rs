//! Where registers are kept, for tests: any number of handles on any number of registers.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use twinvm_host::arbiter::server::ArbiterServer;
use twinvm_host::arbiter::{ArbiterAddress, ArbiterKeys, OpenError};
use twinvm_host::arbiter_worker::ArbiterBackend;
use twinvm_protocol::{ArbiterContract, Generation, MemoryArbiter, Outcome, Record};

/// Everything here comes within seconds, on a busy host too.
const LIMIT: Duration = Duration::from_secs(60);

/// A place with registers.
pub(crate) trait Place: Sync {
    /// A handle on the register of `vm`; all with one name are of one register.
    fn open(&self, vm: &str) -> Box<dyn ArbiterBackend>;
}

/// A handle by an address as people write it.
pub(crate) fn open(address: &str, vm: &str) -> Box<dyn ArbiterBackend> {
    open_with(address, vm, &ArbiterKeys::default()).unwrap()
}

/// The same with keys.
pub(crate) fn open_with(
    address: &str,
    vm: &str,
    keys: &ArbiterKeys,
) -> Result<Box<dyn ArbiterBackend>, OpenError> {
    let address = ArbiterAddress::parse(address, |folder| PathBuf::from(folder)).unwrap();
    address.open(vm, keys)
}

#[derive(Default)]
pub(crate) struct MemoryPlace(Mutex<BTreeMap<String, Shared>>);

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<MemoryArbiter>>);

impl ArbiterContract for Shared {
    fn read(&mut self) -> Outcome {
        self.0.lock().unwrap().read()
    }

    fn cas(&mut self, expect: Generation, record: Record) -> Outcome {
        self.0.lock().unwrap().cas(expect, record)
    }
}

impl ArbiterBackend for Shared {
    fn take_trouble(&mut self) -> Option<String> {
        None
    }
}

impl Place for MemoryPlace {
    fn open(&self, vm: &str) -> Box<dyn ArbiterBackend> {
        let mut registers = self.0.lock().unwrap();
        Box::new(registers.entry(vm.to_owned()).or_default().clone())
    }
}

pub(crate) struct FilePlace(TempDir);

impl FilePlace {
    pub(crate) fn new() -> Self {
        Self(TempDir::new().unwrap())
    }
}

impl Place for FilePlace {
    fn open(&self, vm: &str) -> Box<dyn ArbiterBackend> {
        open(&format!("file:{}", self.0.path().join(vm).display()), vm)
    }
}

/// A place whose answers may be late on a busy host: what has come to no known outcome is asked again,
/// as whoever asks may (a copy of a request changes nothing).
pub(crate) struct Patient<'a>(pub(crate) &'a dyn Place);

impl Place for Patient<'_> {
    fn open(&self, vm: &str) -> Box<dyn ArbiterBackend> {
        Box::new(Asking(self.0.open(vm)))
    }
}

struct Asking(Box<dyn ArbiterBackend>);

impl Asking {
    fn until_known(&mut self, mut ask: impl FnMut(&mut dyn ArbiterBackend) -> Outcome) -> Outcome {
        let until = Instant::now() + LIMIT;
        loop {
            let outcome = ask(&mut *self.0);
            if outcome != Outcome::Unknown || Instant::now() >= until {
                return outcome;
            }
            // It was for nothing: the next answer counts.
            self.0.take_trouble();
        }
    }
}

impl ArbiterContract for Asking {
    fn read(&mut self) -> Outcome {
        self.until_known(|arbiter| arbiter.read())
    }

    fn cas(&mut self, expect: Generation, record: Record) -> Outcome {
        self.until_known(|arbiter| arbiter.cas(expect, record))
    }
}

impl ArbiterBackend for Asking {
    fn take_trouble(&mut self) -> Option<String> {
        self.0.take_trouble()
    }
}

pub(crate) struct TcpPlace {
    pub(crate) server: ArbiterServer,
    _folder: TempDir,
}

impl TcpPlace {
    pub(crate) fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let listen = "127.0.0.1:0".parse().unwrap();
        Self {
            server: ArbiterServer::start(listen, folder.path(), None, drop).unwrap(),
            _folder: folder,
        }
    }
}

impl Place for TcpPlace {
    fn open(&self, vm: &str) -> Box<dyn ArbiterBackend> {
        open(&format!("tcp:{}", self.server.local_addr()), vm)
    }
}
