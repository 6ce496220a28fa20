//! A machine in this process, driven as `twinvm run` drives one.

use std::thread;
use std::time::Duration;

use twinvm_host::time::mono_ns;
use twinvm_log::MAX_ENTROPY_BYTES;
use twinvm_machine::{ImageKind, Images, Machine, MachineConfig, OnReset, PowerOn, SlotConfig};
use twinvm_replica::{HostTime, Live, LiveExit};

use crate::bench::Bench;
use crate::demo::error::DemoError;

/// RAM of a machine without an operating system.
const BARE_BYTES: u64 = 16 << 20;

/// See the module's documentation.
pub(super) struct Driven {
    live: Live,
    /// Frames that the guest has sent.
    pub(super) frames: u64,
}

fn now() -> HostTime {
    HostTime { mono_ns: mono_ns() }
}

fn fault(error: &dyn std::fmt::Display) -> DemoError {
    DemoError::failed(format!("a machine of the bench: {error}"))
}

/// A machine that starts `program` at the beginning of RAM.
pub(super) fn bare(program: &[u8], slots: Vec<SlotConfig>) -> MachineConfig {
    MachineConfig {
        ram_bytes: BARE_BYTES,
        harts: 1,
        slots,
        cmdline: String::new(),
        images: Images::default().with(ImageKind::Firmware, program),
        on_reset: OnReset::Exit,
    }
}

impl Driven {
    /// A machine at power-on.
    pub(super) fn new(bench: &Bench, config: MachineConfig) -> Result<Self, DemoError> {
        let power_on = PowerOn {
            rng_seed: [0; 32],
            rtc_base_ns: 0,
        };
        let mut machine = Machine::new(config, power_on).map_err(|error| fault(&error))?;
        if let Some(engine) = bench.engine {
            machine
                .set_engine(engine.into())
                .map_err(|error| fault(&error))?;
        }
        let live = Live::new(machine, 0, now()).map_err(|error| fault(&error))?;
        Ok(Self { live, frames: 0 })
    }

    /// Steps since power-on.
    pub(super) fn icount(&self) -> u64 {
        self.live.machine().icount()
    }

    /// Types a byte on the serial console; false if there is no room for it.
    pub(super) fn type_byte(&mut self) -> Result<bool, DemoError> {
        let taken = self.live.console_rx(b"x", now());
        Ok(taken.map_err(|error| fault(&error))? == 1)
    }

    /// One slice, and what follows it.
    pub(super) fn slice(&mut self) -> Result<(), DemoError> {
        let exit = self
            .live
            .slice(now(), &mut |_| now())
            .map_err(|error| fault(&error))?;
        self.live.machine_mut().take_console();
        while let Some((slot, len)) = self.live.entropy_wanted() {
            let bytes = vec![0; len.min(MAX_ENTROPY_BYTES)];
            let answered = self.live.entropy(slot, bytes, now());
            answered.map_err(|error| fault(&error))?;
        }
        match exit {
            LiveExit::Busy => {}
            LiveExit::Output { output, .. } => self.frames += output.items.len() as u64,
            LiveExit::Idle { wake_ns } => {
                let wait = wake_ns.map_or(0, |wake| wake.saturating_sub(mono_ns()));
                thread::sleep(Duration::from_nanos(wait));
                self.live.woke(now()).map_err(|error| fault(&error))?;
            }
            LiveExit::Halted(_) => return Err(fault(&"the guest has ended")),
        }
        self.live.flush_if_due(now());
        self.live.take_batches();
        Ok(())
    }
}
