//! A protected pair with its switch, up and settled: the demonstration's own.

use std::fs::File;
use std::net::SocketAddr;
use std::time::Duration;

use super::Bench;
use super::guests::{BOOT_LIMIT, LAN_LIMIT, PING_LIMIT};
use super::machine::cpu_s;
use crate::demo::client::ping;
use crate::demo::error::DemoError;
use crate::demo::status::Status;
use crate::demo::vm::{Files, GUEST, NODES, Parts, Vm};

/// Both nodes start, one wins the record.
const LIVE_LIMIT: Duration = Duration::from_secs(30);
/// A snapshot of the whole guest goes over, and the backup catches up.
const PROTECT_LIMIT: Duration = Duration::from_secs(120);

/// A protected pair.
pub(crate) struct Pair {
    vm: Vm,
    live: usize,
    address: SocketAddr,
    _lock: File,
}

impl Pair {
    /// Starts a pair and waits until Redis answers and the VM is protected.
    pub(crate) fn start(bench: &Bench) -> Result<Self, DemoError> {
        let files = Files::new(&bench.dir.join("pair")).map_err(named)?;
        let lock = files.claim().map_err(named)?;
        let mut vm = Vm::start(files.clone(), &Parts::redis(bench.image()?))?;
        let address = bench.wait_for("the switch listens", LAN_LIMIT, &files.lan_log(), || {
            vm.check()?;
            Ok(vm.forward(GUEST))
        })?;
        for node in 0..NODES.len() {
            vm.start_node(node)?;
        }
        let log = files.node_log(0);
        let (live, _) = bench.wait_for("a node is live", LIVE_LIMIT, &log, || {
            vm.check()?;
            Ok(vm.live())
        })?;
        let what = "Redis answers in the guest of the pair";
        bench.wait_for(what, BOOT_LIMIT, &files.console(live), || {
            vm.check()?;
            Ok((vm.says_ready() && ping(address, PING_LIMIT)).then_some(()))
        })?;
        let log = files.node_log(live);
        bench.wait_for("the VM is protected", PROTECT_LIMIT, &log, || {
            vm.check()?;
            Ok(vm.status(live).ok().filter(|status| status.protected))
        })?;
        Ok(Self {
            vm,
            live,
            address,
            _lock: lock,
        })
    }

    /// Where its Redis answers.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Processor time so far of the live node and of the backup.
    pub(crate) fn cpu_s(&self) -> Result<[f64; 2], DemoError> {
        let of = |node: usize| match self.vm.pid(node) {
            Some(pid) => cpu_s(pid),
            None => Err(DemoError::failed(format!(
                "node {} isn't running",
                NODES[node]
            ))),
        };
        Ok([of(self.live)?, of(1 - self.live)?])
    }

    /// What the live node says.
    ///
    /// # Errors
    /// Also if it isn't live any more or the VM not protected: then nothing that was measured
    /// counts.
    pub(crate) fn status(&mut self) -> Result<Status, DemoError> {
        self.vm.check()?;
        let log = self.vm.files.node_log(self.live);
        let name = NODES[self.live];
        match self.vm.status(self.live) {
            Ok(status) if status.is_live() && status.protected => Ok(status),
            Ok(status) => Err(DemoError::failed_see(
                format!(
                    "the VM is not protected any more: node {name} is {}",
                    status.in_words()
                ),
                &log,
            )),
            Err(error) => Err(DemoError::failed_see(format!("node {name}: {error}"), &log)),
        }
    }

    /// Powers the VM off and ends everything.
    pub(crate) fn stop(self) {
        self.vm.stop(true);
    }
}

/// The demonstration's option for the folder has another name here.
fn named(error: DemoError) -> DemoError {
    match error {
        DemoError::Input(text) => DemoError::Input(text.replacen("--out", "--dir", 1)),
        other => other,
    }
}
