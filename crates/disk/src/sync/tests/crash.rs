//! Power is cut between any two steps, and what wasn't made durable is lost sector by sector.

use std::collections::BTreeSet;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};

use super::*;
use crate::medium::{Hook, Step};
use crate::worker::locked;

const BYTES: u64 = 12 * MIB;
const SECTOR: u64 = 512;

/// Chance from a seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % below
    }
}

/// The power of a node's host.
#[derive(Debug, Default)]
struct Power(Mutex<Supply>);

#[derive(Debug, Default)]
struct Supply {
    steps: u64,
    cut_at: Option<u64>,
    /// What isn't durable yet: where, and the bytes before.
    lost: Vec<(PathBuf, u64, Vec<u8>)>,
}

impl Hook for Power {
    fn about_to(&self, step: Step<'_>) -> io::Result<()> {
        let mut supply = locked(&self.0);
        if supply.cut_at.is_some_and(|at| supply.steps >= at) {
            return Err(io::Error::other("the power is off"));
        }
        supply.steps += 1;
        match step {
            Step::Write {
                path,
                offset,
                bytes,
            } => {
                let mut before = vec![0; bytes as usize];
                let file = fs::File::open(path)?;
                // What makes a file longer isn't taken back.
                if file.read_exact_at(&mut before, offset).is_ok() {
                    supply.lost.push((path.to_owned(), offset, before));
                }
            }
            Step::Sync(path) => supply.lost.retain(|(other, ..)| other != path),
            Step::Rename(_) => {}
        }
        Ok(())
    }
}

impl Power {
    fn medium(self: &Arc<Self>) -> Medium {
        Medium {
            hook: Some(Arc::clone(self) as Arc<dyn Hook>),
        }
    }

    /// Each sector that wasn't durable has one of the contents it had since it was.
    fn lose(&self, dice: &mut Dice) {
        let mut supply = locked(&self.0);
        let mut settled = BTreeSet::new();
        for (path, offset, before) in supply.lost.drain(..).rev() {
            let file = fs::File::options().write(true).open(&path).unwrap();
            for (n, old) in before.chunks(SECTOR as usize).enumerate() {
                let at = offset + n as u64 * SECTOR;
                if settled.contains(&(path.clone(), at)) {
                    continue;
                }
                if dice.roll(2) == 0 {
                    file.write_all_at(old, at).unwrap();
                } else {
                    settled.insert((path.clone(), at));
                }
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Live,
    Joiner,
}

/// A write or a discard: its first sector, how many, and what with.
type Change = (u64, u64, u8);

fn draw(dice: &mut Dice) -> Change {
    let sectors = 1 + dice.roll(40);
    let first = dice.roll(BYTES / SECTOR - sectors);
    (first, sectors, dice.roll(256) as u8)
}

fn make(node: &mut Node, (first, sectors, fill): Change) {
    let range = first * SECTOR..(first + sectors) * SECTOR;
    if fill < 40 {
        node.submit(DiskOp::Discard, range, &[]);
    } else {
        let data = vec![fill; (sectors * SECTOR) as usize];
        node.submit(DiskOp::Write { durable: false }, range, &data);
    }
    node.results(1);
}

/// The same on all of them.
fn something(dice: &mut Dice, nodes: &mut [&mut Node]) {
    let change = draw(dice);
    for node in nodes {
        make(node, change);
    }
}

/// Two nodes pair, write, part and pair again, and the power of one is cut after so many steps.
/// Gives how many steps it had made.
fn story(seed: u64, victim: Victim, cut_at: Option<u64>) -> u64 {
    let mut dice = Dice(seed * 2 + 1);
    let power = Arc::new(Power::default());
    locked(&power.0).cut_at = cut_at;
    let medium = |who: Victim| match who == victim {
        true => power.medium(),
        false => Medium::default(),
    };
    let (a, b) = (Place::with_file(BYTES), Place::new());
    let open = |place: &Place, who| place.open_on(medium(who), DiskOptions::default());
    let first = open(&a, Victim::Live).and_then(|mut live| {
        live.set.found()?;
        for _ in 0..8 {
            something(&mut dice, &mut [&mut live]);
        }
        Ok((live, open(&b, Victim::Joiner)?))
    });
    let mut snapshot = None;
    if let Ok((mut live, mut joiner)) = first {
        let mut since = Vec::new();
        let mut meanwhile = |live: &mut Node, _| {
            let change = draw(&mut dice);
            make(live, change);
            if live.snapshot_taken {
                since.push(change);
            }
        };
        let script = Script {
            meanwhile: Some(&mut meanwhile),
            ..Script::default()
        };
        let outcome = synchronize(&mut live, &mut joiner, script);
        if outcome.joiner != SyncPiece::Done || outcome.live != SyncPiece::Done {
            snapshot = Some(outcome.snapshot);
        } else {
            // From here on the joiner executes what the live node has executed.
            for change in since {
                make(&mut joiner, change);
            }
            for round in 0..4 {
                for _ in 0..3 {
                    something(&mut dice, &mut [&mut live, &mut joiner]);
                }
                if round % 2 == 0 {
                    let points = (live.set.begin_point(&[]), joiner.set.begin_point(&[]));
                    something(&mut dice, &mut [&mut live, &mut joiner]);
                    // Only what is durable on both may be forgotten.
                    if live.try_flush() && joiner.try_flush() {
                        live.set.clear_to(points.0);
                        joiner.set.clear_to(points.1);
                    }
                }
            }
            // What nobody heard of, on either side.
            for _ in 0..2 {
                something(&mut dice, &mut [&mut joiner]);
                something(&mut dice, &mut [&mut live]);
            }
        }
    }
    power.lose(&mut dice);
    let steps = locked(&power.0).steps;

    // Both processes start again; sometimes only one did.
    let (mut live, mut joiner) = (a.open(), b.open());
    let mark = joiner.set.mark();
    if let (Some(mark), Some(snapshot)) = (mark, &snapshot)
        && mark.consistent
    {
        // It says that it has the copy: then it has.
        assert_ne!(mark.epoch, 0);
        assert_same(&joiner.contents(), snapshot);
    }
    let swapped = victim == Victim::Live && mark.is_some_and(|mark| mark.consistent);
    let (from, into) = if swapped {
        (&mut joiner, &mut live)
    } else {
        (&mut live, &mut joiner)
    };
    from.set.found().unwrap();
    for _ in 0..2 {
        something(&mut dice, &mut [from]);
    }
    let mut meanwhile = |live: &mut Node, _| something(&mut dice, &mut [live]);
    let script = Script {
        meanwhile: Some(&mut meanwhile),
        ..Script::default()
    };
    synchronize(from, into, script).assert_copied(into);
    steps
}

/// Cuts at every step of one story, and at some of many others.
fn cut_everywhere(victim: Victim) {
    let steps = story(1, victim, None);
    assert!(steps > 40, "{steps}");
    for cut in 0..steps {
        let told = std::panic::catch_unwind(|| story(1, victim, Some(cut)));
        told.unwrap_or_else(|_| panic!("story 1, {victim:?} cut after {cut} steps"));
    }
    let mut dice = Dice(99);
    for seed in 2..12 {
        let cut = dice.roll(steps);
        let told = std::panic::catch_unwind(|| story(seed, victim, Some(cut)));
        told.unwrap_or_else(|_| panic!("story {seed}, {victim:?} cut after {cut} steps"));
    }
}

#[test]
fn a_live_node_that_loses_its_power_gets_equal_copies_again() {
    cut_everywhere(Victim::Live);
}

#[test]
fn a_joining_node_that_loses_its_power_gets_equal_copies_again() {
    cut_everywhere(Victim::Joiner);
}
