//! One state for all that cannot be told apart: what no longer matters is cleared, generations
//! count from 1, and of a state and its mirror image one stands for both.

use stateright::Representative;

use crate::record::{Cas, Id, Record};
use crate::state::{Conn, Forced, Known, Node, Question, Role, World};

impl World {
    /// Every mention of a record.
    pub(crate) fn records(&mut self, mut f: impl FnMut(&mut Record)) {
        for node in &mut self.nodes {
            node.record.iter_mut().for_each(&mut f);
            match &mut node.question {
                Question::None => {}
                Question::Out(cas) | Question::Unknown(cas) => f(&mut cas.record),
                Question::Answered(cas, found) => {
                    f(&mut cas.record);
                    found.iter_mut().for_each(&mut f);
                }
            }
            if let Some(seen) = &mut node.seen {
                seen.record.iter_mut().for_each(&mut f);
            }
        }
        self.register.iter_mut().for_each(&mut f);
        self.lost.iter_mut().for_each(&mut f);
        for cas in self.strays.iter_mut().flatten() {
            f(&mut cas.record);
        }
    }

    /// Every number that is a generation.
    fn generations(&mut self, mut f: impl FnMut(&mut u8)) {
        self.records(|record| f(&mut record.generation));
        for node in &mut self.nodes {
            f(&mut node.generation);
            node.told.iter_mut().for_each(&mut f);
            node.welcomed.iter_mut().for_each(&mut f);
            if let Forced::Asked(shown) = &mut node.forced {
                f(shown);
            }
            if let Some(answer) = &mut node.answer {
                f(&mut answer.generation);
            }
            if let Some(call) = &mut node.call {
                f(&mut call.answer.generation);
                call.welcome.iter_mut().for_each(&mut f);
            }
            match &mut node.question {
                Question::None => {}
                Question::Out(cas) | Question::Unknown(cas) | Question::Answered(cas, _) => {
                    f(&mut cas.expect);
                }
            }
        }
        for cas in self.strays.iter_mut().flatten() {
            f(&mut cas.expect);
        }
        for disk in &mut self.disks {
            f(&mut disk.generation);
            disk.pending.iter_mut().for_each(&mut f);
        }
        for conn in &mut self.conns {
            if let Some((_, generation)) = &mut conn.told {
                f(generation);
            }
        }
    }

    /// Clears what no longer matters.
    pub(crate) fn normalise(&mut self, wiped: bool, disks: bool) {
        let generation = self.register.map_or(0, |r| r.generation);
        for stray in &mut self.strays {
            // The register never goes back; if it is lost, so is what is on its way to it.
            if stray.is_some_and(|cas| cas.expect < generation) {
                *stray = None;
            }
        }
        self.strays.sort_unstable();
        for index in 1..self.strays.len() {
            // Of two that are equal, since both their askers are gone, one stands for both.
            if self.strays[index] == self.strays[index - 1] {
                self.strays[index - 1] = None;
            }
        }
        self.strays.sort_unstable();
        for id in Id::BOTH {
            let node = &mut self.nodes[id.ix()];
            let known = node.record.map_or(0, |r| r.generation).min(node.generation);
            let news = |r: Record| r.generation > known;
            node.seen = node.seen.filter(|s| s.asked || s.record.is_some_and(news));
            if node.role.seeks() {
                let deciding = match node.known {
                    Known::Record => node
                        .record
                        .is_some_and(|r| r.live == id && r.backup.is_some()),
                    Known::Absent | Known::Unread => node.generation == 0,
                };
                let fresh = node.known != Known::Record;
                node.answer = node.answer.filter(|a| deciding && (a.fresh || fresh));
            }
            let conn = &mut self.conns[id.ix()];
            if !conn.follower_end {
                (conn.base, conn.told, conn.bye) = (None, None, None);
                conn.stream = Default::default();
            }
            if !conn.live_end {
                (conn.acked, conn.installed, conn.spoken) = (0, false, 0);
            }
            if !conn.follower_end && !conn.live_end {
                *conn = Conn::default();
            }
        }
        // A node that knows of no record may yet mark generation 1, and mean that one; so does a late
        // request for the first record.
        if wiped || disks && self.nodes.iter().any(|node| node.generation == 0) {
            return;
        }
        let mut least = u8::MAX;
        self.generations(|g| {
            if *g > 0 {
                least = least.min(*g);
            }
        });
        if least > 1 && least < u8::MAX {
            self.generations(|g| *g -= if *g > 0 { least - 1 } else { 0 });
        }
    }

    /// The same world with A called B and B called A.
    #[must_use]
    pub fn mirrored(&self) -> Self {
        let mut world = *self;
        world.records(|record| record.live = record.live.other());
        world.nodes.swap(0, 1);
        world.disks.swap(0, 1);
        world.conns.swap(0, 1);
        for node in &mut world.nodes {
            node.log = node.log.swapped();
        }
        for conn in &mut world.conns {
            conn.stream = conn.stream.swapped();
        }
        for disk in &mut world.disks {
            disk.holds = disk.holds.swapped();
        }
        world.history = world.history.swapped();
        world.strays.sort_unstable();
        world
    }
}

impl Representative for World {
    fn representative(&self) -> Self {
        let mirror = self.mirrored();
        if mirror < *self { mirror } else { *self }
    }
}

impl Question {
    /// The compare-and-set, in whatever stage.
    pub fn cas(&self) -> Option<Cas> {
        match *self {
            Self::None => None,
            Self::Out(cas) | Self::Answered(cas, _) | Self::Unknown(cas) => Some(cas),
        }
    }
}

impl Node {
    /// A process has just started.
    pub(crate) fn started(generation: u8) -> Self {
        Self {
            role: Role::Cold,
            generation,
            ..Self::default()
        }
    }

    /// No process.
    pub(crate) fn off(generation: u8) -> Self {
        Self {
            generation,
            ..Self::default()
        }
    }
}
