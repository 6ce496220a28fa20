//! The run that is recorded: a guest that writes down the time and its keys.

use crate::guest;
use twinvm_log::{Batch, Record};
use twinvm_machine::{Images, Machine, MachineConfig, OnReset, PowerOn, SlotConfig};
use twinvm_replica::{HostTime, Live, LiveExit};

pub(crate) fn machine() -> Machine {
    let config = MachineConfig {
        ram_bytes: 16 << 20,
        harts: 1,
        slots: vec![SlotConfig::Rng],
        cmdline: String::new(),
        images: Images::new(guest::worker(), None),
        on_reset: OnReset::Exit,
    };
    let power_on = PowerOn {
        rng_seed: [3; 32],
        rtc_base_ns: 0,
    };
    Machine::new(config, power_on).expect("a guest of a few instructions")
}

/// The machine live, and the host's time.
pub(crate) struct Run {
    pub(crate) live: Live,
    pub(crate) now: HostTime,
}

impl Run {
    pub(crate) fn begin() -> Self {
        let now = HostTime { mono_ns: 1 << 40 };
        let live = Live::new(machine(), 0, now).unwrap();
        Self { live, now }
    }

    /// Runs to step `steps` on a host of 300 MIPS, with a key every `key_steps`. `before_slice`
    /// gets it with the step at which it stands.
    pub(crate) fn run(
        &mut self,
        steps: u64,
        key_steps: u64,
        mut before_slice: impl FnMut(&mut Self, u64),
    ) {
        self.live.stop_at(steps);
        let mut keys = 0;
        loop {
            let from = self.live.machine().icount();
            if from >= steps {
                return;
            }
            before_slice(self, from);
            if from / key_steps >= keys {
                keys += 1;
                self.key(b'k');
            }
            let now = self.now;
            let exit = self.live.slice(now, &mut |_| now).unwrap();
            assert!(matches!(exit, LiveExit::Busy), "{exit:?}");
            self.now.mono_ns += (self.live.machine().icount() - from) * 10 / 3;
        }
    }

    pub(crate) fn key(&mut self, key: u8) {
        assert_eq!(self.live.console_rx(&[key], self.now).unwrap(), 1);
    }

    /// Ends the log; all its records.
    pub(crate) fn end(&mut self) -> Vec<Record> {
        self.live.end(0, self.now).unwrap();
        self.records()
    }

    /// All records so far.
    pub(crate) fn records(&mut self) -> Vec<Record> {
        self.live.flush();
        let batches = self.live.take_batches().into_iter();
        batches
            .flat_map(|batch| Batch::decode(batch.bytes()).unwrap().records)
            .collect()
    }
}
