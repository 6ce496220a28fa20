//! Virtual time against a host whose speed changes all the time.

use super::*;

/// What the guest's clock may be off: 1 ms.
const BOUND_TICKS: u64 = 10_000;

/// A small generator of numbers that repeat (xorshift64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn up_to(&mut self, most: u64) -> u64 {
        self.next() % (most + 1)
    }
}

/// A guest that is always busy on a host that isn't always there for it.
struct Host {
    numbers: Numbers,
    now: HostTime,
    icount: u64,
    clock: Clock,
    pacing: Pacing,
    /// Steps per second now.
    speed: u64,
    anchors: u64,
}

impl Host {
    fn new(seed: u64) -> Self {
        let now = HostTime {
            mono_ns: 1_000_000_000,
        };
        Self {
            numbers: Numbers(seed),
            now,
            icount: 0,
            clock: Clock {
                icount: 0,
                mtime: 0,
                rate: 0,
                span: 0,
            },
            pacing: Pacing::new(now, 0, 0),
            speed: 200_000_000,
            anchors: 0,
        }
    }

    /// One slice as the live half makes it. Before the guest's last step of the slice
    /// the host may do something else for `away_ns`. Returns how far virtual time was
    /// off when the guest last looked, the time away left out.
    fn slice(&mut self, away_ns: u64) -> i64 {
        if self.pacing.anchor_due(self.now, &self.clock, self.icount) {
            let before = self.clock.mtime(self.icount);
            self.clock = self.pacing.anchor(self.now, &self.clock, self.icount);
            assert!(self.clock.mtime >= before, "time went back");
            self.anchors += 1;
        }
        let steps = self.pacing.slice_steps();
        self.icount += steps;
        self.now.mono_ns += steps * 1_000_000_000 / self.speed;
        let off = self.clock.mtime(self.icount) as i64 - self.pacing.wanted_mtime(self.now) as i64;
        self.now.mono_ns += away_ns;
        self.pacing.ran(self.now, self.icount);
        off
    }

    /// The guest's code changes: from a fifth of a usual speed to four times it.
    fn change_speed(&mut self) {
        self.speed = 40_000_000 << self.numbers.up_to(4);
    }
}

#[test]
fn a_busy_guests_clock_stays_within_a_millisecond_of_the_hosts() {
    for seed in 1..=20 {
        let mut host = Host::new(seed * 0x9e37_79b9_7f4a_7c15);
        for n in 0..200_000u64 {
            if host.numbers.up_to(300) == 0 {
                host.change_speed();
            }
            // Now and then the host is busy elsewhere, for up to 20 ms.
            let away_ns = match host.numbers.up_to(400) {
                0 => host.numbers.up_to(20_000_000),
                _ => 0,
            };
            let off = host.slice(away_ns);
            assert!(
                off.unsigned_abs() <= BOUND_TICKS,
                "seed {seed}, slice {n}: off by {off} ticks at {} steps/s",
                host.speed
            );
        }
    }
}

#[test]
fn a_steady_guest_needs_few_anchors() {
    let mut host = Host::new(7);
    for _ in 0..20_000 {
        host.slice(0);
    }
    host.anchors = 0;
    let from = host.now.mono_ns;
    for _ in 0..100_000 {
        host.slice(0);
    }
    let distance_ns = (host.now.mono_ns - from) / host.anchors;
    assert!(
        distance_ns >= ANCHOR_NS * 9 / 10,
        "one anchor each {distance_ns} ns"
    );
}

#[test]
fn time_that_is_ahead_waits_and_does_not_go_back() {
    let mut host = Host::new(3);
    // Measured slow, then suddenly fast: virtual time is ahead.
    host.speed = 40_000_000;
    for _ in 0..2_000 {
        host.slice(0);
    }
    host.speed = 640_000_000;
    let offs: Vec<i64> = (0..2_000).map(|_| host.slice(0)).collect();
    assert!(offs.iter().any(|off| *off > 1_000), "never ahead");
    let last = offs.last().copied().unwrap_or(0);
    assert!(last.unsigned_abs() <= DRIFT_TICKS, "still off by {last}");
}

#[test]
fn only_one_slice_is_long_when_the_guest_becomes_slow() {
    let mut host = Host::new(5);
    host.speed = 5_000_000_000;
    for _ in 0..2_000 {
        host.slice(0);
    }
    host.speed /= 100;
    host.slice(0);
    for n in 0..1_000 {
        let before = host.now.mono_ns;
        host.slice(0);
        let slice_ns = host.now.mono_ns - before;
        assert!(slice_ns <= 2 * SLICE_NS, "slice {n} takes {slice_ns} ns");
    }
}

#[test]
fn a_host_that_was_away_makes_slices_short_for_a_moment() {
    let mut host = Host::new(6);
    host.speed = 5_000_000_000;
    for _ in 0..2_000 {
        host.slice(0);
    }
    let usual = host.pacing.slice_steps();
    host.slice(20_000_000);
    let again = (0..100).position(|_| {
        host.slice(0);
        host.pacing.slice_steps() > usual / 2
    });
    assert!(again.is_some(), "slices stay short");
}

#[test]
fn slices_too_short_to_measure_add_up_and_grow_again() {
    let (mut ns, mut icount) = (1_000_000_000, 0);
    let mut slices = Slices::new(HostTime { mono_ns: ns }, icount);
    let mut run = |slices: &mut Slices, ps_per_step: u64| {
        let steps = slices.steps();
        ns += steps * ps_per_step / 1000;
        icount += steps;
        slices.ran(HostTime { mono_ns: ns }, icount);
    };
    for _ in 0..100 {
        run(&mut slices, 1_000_000);
    }
    assert_eq!(slices.steps(), *SLICE_STEPS.start());
    // Half a microsecond each.
    for _ in 0..200 {
        run(&mut slices, 1000);
    }
    assert!(slices.steps() > 20_000, "{} steps", slices.steps());
}
