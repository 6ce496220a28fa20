//! The guest by itself, on one machine.

use super::*;
use twinvm_machine::PowerOn;
use twinvm_replica::{HostTime, Live, LiveExit};

struct Guest {
    live: Live,
    now: HostTime,
}

impl Guest {
    fn boot(boot: u64) -> Self {
        let power_on = PowerOn {
            rng_seed: [7; 32],
            rtc_base_ns: boot * BOOT_NS,
        };
        let now = HostTime { mono_ns: 0 };
        let machine = Machine::new(machine(false), power_on).unwrap();
        let mut guest = Self {
            live: Live::new(machine, 0, now).unwrap(),
            now,
        };
        assert_eq!(guest.run(), []);
        guest
    }

    /// Until it sleeps; what it answered.
    fn run(&mut self) -> Vec<Answer> {
        let mut answers = Vec::new();
        loop {
            self.now.mono_ns += 30_000;
            let now = self.now;
            match self.live.slice(now, &mut |_| now).unwrap() {
                LiveExit::Busy => {}
                LiveExit::Output { output, .. } => {
                    answers.extend(output.items.iter().map(|item| match item {
                        twinvm_machine::OutputItem::Frame { bytes, .. } => answer(bytes).unwrap(),
                        other => panic!("{other:?}"),
                    }));
                }
                LiveExit::Idle { .. } => return answers,
                LiveExit::Halted(halt) => panic!("{halt:?}"),
            }
        }
    }

    fn ask(&mut self, client: u64, seq: u64, key: u64, op: Op) -> Vec<Answer> {
        let packet = question(client, seq, key, op);
        self.live.net_rx(0, packet, self.now).unwrap();
        self.run()
    }
}

#[test]
fn operations_are_carried_out_once_each() {
    let mut guest = Guest::boot(3);
    let cases = [
        (0, 1, Op::Get, 0, true),
        (0, 2, Op::Set(7), 0, true),
        (1, 1, Op::Swap(6, 9), 7, false),
        (1, 2, Op::Swap(7, 9), 7, true),
        (2, 5, Op::Add(10), 9, true),
        (2, 5, Op::Add(10), 9, true),
        (0, 3, Op::Get, 19, true),
    ];
    for (n, (client, seq, op, value, done)) in cases.into_iter().enumerate() {
        let got = guest.ask(client, seq, 4, op);
        let [got] = got[..] else {
            panic!("{n}: {got:?}");
        };
        assert_eq!((got.client, got.seq, got.boot), (client, seq, 3));
        assert_eq!((got.value, got.done), (value, done), "case {n}");
        assert_eq!(got.number, n as u64 + 1);
        let contents = Contents::of(guest.live.machine());
        assert_eq!(contents.chains.len(), n + 1);
        assert!(contents.contains(&got));
        assert!(!contents.contains(&Answer { chain: 1, ..got }));
    }
    assert_eq!(guest.ask(2, 4, 4, Op::Add(1)), [], "an old question");
    assert_eq!(guest.ask(3, 1, 5, Op::Get)[0].value, 0, "another key");
}
