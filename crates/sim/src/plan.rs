//! What a run is made of, drawn from its seed.

use twinvm_machine::EngineKind;
use twinvm_protocol::OutputFrom;

use crate::disk::DiskFault;
use crate::rng::Rng;

pub(crate) const US: u64 = 1000;
pub(crate) const MS: u64 = 1000 * US;

/// A rule broken on purpose, for tests of the tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// One of the protocol's own rules.
    #[cfg(feature = "mutations")]
    Protocol(twinvm_protocol::node::Mutation),
    /// The generation's file is written wrongly.
    Disk(DiskFault),
    /// One of the simulated driver's duties.
    Driver(DriverFault),
}

/// Duties of a driver that can be neglected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriverFault {
    /// The arbiter's answer is not waited for: every compare-and-set counts as won.
    CasUnasked,
    /// Outputs leave later than frames to the peer that were asked for after them.
    SendsFirst,
    /// The generation is not stored before the next action.
    GenerationLater,
    /// What a new live node sends in its first moments is lost on the way to the wire.
    FirstOutputsDropped,
    /// Now and then something reaches a machine that is not in the log.
    UnloggedInput,
    /// A flush of a disk is said to be done, and isn't.
    FlushesNothing,
    /// A node that goes live uses the disk that both reach without cutting off who had it before.
    ClaimsNothing,
    /// What was stored and acked beside the loop is not in the drain before a claim.
    StoredForgotten,
}

/// The measures of one run.
#[derive(Clone, Debug)]
pub(crate) struct Measures {
    /// Nanoseconds that a thousand steps take on each host.
    pub(crate) ns_per_kstep: [u64; 2],
    /// What executes the guest on each host; the guest can't tell.
    pub(crate) engines: [EngineKind; 2],
    /// Each host's drift, millionths.
    pub(crate) drift_ppm: [i64; 2],
    pub(crate) clients: u64,
    /// A client's longest pause between two questions.
    pub(crate) think_ns: u64,
    /// Questions are asked at multiples of this, so that several meet.
    pub(crate) beat_ns: u64,
    /// Questions of a run at most.
    pub(crate) max_asked: usize,
    /// Of this many frames between clients and guest one is lost; 0: none.
    pub(crate) loss_one_in: u64,
    /// Longest delay of the channel, of the arbiter and of the clients' network.
    pub(crate) link_ns: u64,
    pub(crate) arbiter_ns: u64,
    pub(crate) lan_ns: u64,
    /// Packets come to a host at multiples of this, so that several come at once.
    pub(crate) bunch_ns: u64,
    /// The channel's bottleneck.
    pub(crate) ns_per_kib: u64,
    /// Longest time that storing a generation takes.
    pub(crate) sync_ns: u64,
    /// Of this many actions one is the last of its process; 0: none.
    pub(crate) crash_one_in: u64,
    /// The same for packets that have just left; 0: none.
    pub(crate) crash_sent_one_in: u64,
    /// Longest time between two faults; 0: no faults.
    pub(crate) fault_ns: u64,
    /// While the pair is not protected, one fault in this many is not held back.
    pub(crate) unprotected_one_in: u64,
    /// The guest is made busy now and then: it polls and never sleeps.
    pub(crate) busy: bool,
    /// `cold_delay_ms` of both nodes.
    pub(crate) cold_delay_ms: Option<u64>,
    /// Who emits while the pair is protected.
    pub(crate) output: OutputFrom,
    /// When the arbiter loses its record for good.
    pub(crate) record_lost_ns: Option<u64>,
    /// The guest has a disk.
    pub(crate) disk: bool,
    /// It is one that both hosts reach.
    pub(crate) shared: bool,
    /// A backup reads it by itself.
    pub(crate) own_reads: bool,
    /// When faults begin and end.
    pub(crate) faults_from_ns: u64,
    pub(crate) faults_to_ns: u64,
}

impl Measures {
    /// A quiet run: two equal hosts, one after the other started, nothing goes wrong.
    pub(crate) fn quiet() -> Self {
        Self {
            ns_per_kstep: [50 * US; 2],
            engines: [EngineKind::Interp; 2],
            drift_ppm: [0; 2],
            clients: 2,
            think_ns: 20 * MS,
            beat_ns: 1,
            max_asked: 200,
            loss_one_in: 0,
            link_ns: 200 * US,
            arbiter_ns: 2 * MS,
            lan_ns: 100 * US,
            bunch_ns: 1,
            ns_per_kib: US,
            sync_ns: MS,
            crash_one_in: 0,
            crash_sent_one_in: 0,
            fault_ns: 0,
            unprotected_one_in: 1,
            busy: false,
            cold_delay_ms: None,
            output: OutputFrom::Live,
            record_lost_ns: None,
            disk: false,
            shared: false,
            own_reads: false,
            faults_from_ns: 0,
            faults_to_ns: 0,
        }
    }

    pub(crate) fn draw(rng: &mut Rng) -> Self {
        // A busy guest on a fast host would take long to simulate.
        let busy = rng.one_in(8);
        let fast = if busy {
            rng.range(400, 600) * US
        } else {
            rng.range(20, 100) * US
        };
        let slow = fast * rng.pick(&[1, 1, 1, 3, 10]);
        let from = rng.range(150, 1200) * MS;
        let mut measures = Self {
            ns_per_kstep: if rng.one_in(2) {
                [fast, slow]
            } else {
                [slow, fast]
            },
            engines: [0; 2].map(|_| {
                if rng.one_in(4) {
                    EngineKind::Jit
                } else {
                    EngineKind::Interp
                }
            }),
            drift_ppm: [
                rng.range(0, 400) as i64 - 200,
                rng.range(0, 400) as i64 - 200,
            ],
            clients: rng.range(1, 7),
            think_ns: rng.pick(&[3, 20, 80, 200]) * MS,
            beat_ns: rng.pick(&[1, 2 * MS, 20 * MS]),
            max_asked: 250,
            loss_one_in: rng.pick(&[0, 100, 15]),
            link_ns: rng.pick(&[300, 2000, 20_000]) * US,
            arbiter_ns: rng.pick(&[1, 8, 60]) * MS,
            lan_ns: rng.pick(&[100, 1000, 10_000]) * US,
            bunch_ns: rng.pick(&[1, 200 * US, 2 * MS]),
            ns_per_kib: rng.pick(&[US, 10 * US, 200 * US]),
            sync_ns: rng.pick(&[1, 20, 200]) * MS,
            crash_one_in: rng.pick(&[300, 2000, 20_000]),
            crash_sent_one_in: rng.pick(&[20, 60, 0]),
            fault_ns: rng.pick(&[150, 500, 1500]) * MS,
            unprotected_one_in: rng.pick(&[1, 6, 20]),
            busy,
            cold_delay_ms: rng.one_in(8).then(|| rng.range(200, 3000)),
            disk: rng.one_in(3),
            shared: false,
            own_reads: false,
            record_lost_ns: rng.one_in(30).then(|| from + rng.range(0, 3000) * MS),
            faults_from_ns: from,
            faults_to_ns: from + rng.range(500, 6000) * MS,
            output: rng.pick(&[OutputFrom::Live, OutputFrom::Live, OutputFrom::Backup]),
        };
        // Only a live node that emits writes there.
        let may_share = measures.disk && measures.output == OutputFrom::Live;
        measures.shared = may_share && rng.one_in(2);
        measures.own_reads = measures.shared && rng.one_in(2);
        measures
    }
}
