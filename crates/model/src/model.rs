//! What may happen in which state: the protocol as a [`stateright::Model`].

use std::fmt;

use stateright::{Model, Property};

use crate::disk::Content;
use crate::log::Entry;
use crate::record::Id;
use crate::rules::Broken;
use crate::state::{Forced, Known, Left, Link, Node, Question, Role, Stop, World};
use crate::step::Step;

/// Something that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum What {
    /// The process starts.
    Start,
    /// It reads the arbiter's record.
    Read,
    /// A read's answer arrives.
    Seen,
    /// Its CAS takes effect, or finds another generation.
    Land,
    /// The CAS's answer arrives.
    Answered,
    /// A CAS of unknown outcome is sent again.
    AskAgain,
    /// It calls its peer, which answers.
    Dial,
    /// The peer's answer arrives.
    Called,
    /// Live: the snapshot is taken and sent.
    Snapshot,
    /// Following: the next thing in the stream arrives.
    Deliver,
    /// Following: what was received is stored and acked.
    Store,
    /// Following: the snapshot is installed.
    Install,
    /// Live: the follower's words arrive.
    Acks,
    /// Live: a heartbeat tells the follower what has left.
    Beat,
    /// Backup, with `output = "backup"`: it has executed past its next output, and emits it.
    Speak,
    /// Live: notices that the session is broken.
    LoseSession,
    /// Following: notices that the session is broken.
    Suspect,
    /// All that was stored is executed.
    Drained,
    /// Live: the guest makes an output.
    Output,
    /// No record, and a second without an answer.
    StartAlone,
    /// After a planned takeover: the backup has not claimed in time.
    HandoverOver,
    /// Following, with disks: the first of the live node's blocks is here, ahead of its snapshot.
    Overwrite,
    /// A node that is to start by force, and nobody has answered in time.
    Force,

    /// Live: an input is logged.
    Input,

    /// Fault: the process dies.
    Crash,
    /// Fault: the connection on which this node is live breaks, or one side takes it for broken.
    Cut,
    /// Fault: the outcome of its CAS stays unknown. It lands late, or never, or it has landed.
    Unknown,
    /// A forgotten request lands after all.
    LandStray(u8),
    /// Fault: the arbiter loses its record.
    Wipe,
    /// Fault: where the record was lost, this node's request for the very first one lands, late by
    /// the whole life of the VM. It was of the node's present life, or of an earlier one.
    LateFirst(bool),
    /// `cold_delay_ms` has passed: a cold start that may lose data, as configured.
    ColdDelay,

    /// The guest powers itself off.
    Poweroff,
    /// `ctl stop`.
    Stop,
    /// `ctl takeover`.
    Takeover,
    /// `ctl detach`.
    Detach,
    /// SIGTERM.
    Terminate,
    /// Both nodes are ended, and the record names this one.
    Reset,
    /// Both nodes are ended, and this one is started by force.
    StartForced,

    /// Broken rules only: a read takes the place of an unknown outcome.
    ReadForOutcome,
    /// Broken rules only: suspicion that does not end storing and acking.
    SuspectOnly,
}

/// Something that happens, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Action {
    /// What.
    pub what: What,
    /// At which node.
    pub at: Id,
}

impl Action {
    /// Whether it takes no fault, no person and no client: what the two nodes and the arbiter do by
    /// themselves. (A stopped process is started again by whoever watches over it.)
    pub fn is_recovery(&self) -> bool {
        !matches!(
            self.what,
            What::Input
                | What::Crash
                | What::Cut
                | What::Unknown
                | What::LandStray(_)
                | What::Wipe
                | What::LateFirst(_)
                | What::ColdDelay
                | What::Poweroff
                | What::Stop
                | What::Takeover
                | What::Detach
                | What::Terminate
                | What::Reset
                | What::StartForced
                | What::SuspectOnly
        )
    }
}

/// Where a search begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum From {
    /// Two hosts on which nothing has ever run, and no record.
    #[default]
    Nothing,
    /// A protected pair: all faults are left for what comes after.
    Pair,
}

/// How much of the protocol is looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// Where it begins.
    pub from: From,
    /// How much may happen.
    pub bounds: Left,
    /// `output = "backup"`: a backup emits what it has executed, the live node only what no backup
    /// has emitted when there is none any more.
    pub backup_speaks: bool,
    /// The VM has replicated disks.
    pub disks: bool,
    /// People reset the record and start nodes by force.
    pub people: bool,
}

impl Scope {
    /// From nothing, with so many faults, requests and inputs.
    pub const fn new(faults: u8, requests: u8, inputs: u8) -> Self {
        let bounds = Left {
            faults,
            requests,
            inputs,
            cold_delay: false,
            wipes: 0,
        };
        Self {
            from: From::Nothing,
            bounds,
            backup_speaks: false,
            disks: false,
            people: false,
        }
    }

    /// The same, with `output = "backup"`.
    #[must_use]
    pub const fn with_backup_speaking(self) -> Self {
        Self {
            backup_speaks: true,
            ..self
        }
    }

    /// The same, from a protected pair.
    #[must_use]
    pub const fn from_pair(self) -> Self {
        Self {
            from: From::Pair,
            ..self
        }
    }

    /// The same, with `cold_delay_ms` set.
    #[must_use]
    pub const fn with_cold_delay(mut self) -> Self {
        self.bounds.cold_delay = true;
        self
    }

    /// The same, of a VM with replicated disks.
    #[must_use]
    pub const fn with_disks(mut self) -> Self {
        self.disks = true;
        self
    }

    /// The same, and people reset the record (each is a request) and start nodes by force.
    #[must_use]
    pub const fn with_people(mut self) -> Self {
        self.people = true;
        self
    }

    /// The same, with an arbiter that loses its record once.
    #[must_use]
    pub const fn with_wipe(mut self) -> Self {
        self.bounds.wipes = 1;
        self
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Left {
            faults,
            requests,
            inputs,
            cold_delay,
            wipes,
        } = self.bounds;
        let from = match self.from {
            From::Nothing => "nothing",
            From::Pair => "a pair",
        };
        write!(
            f,
            "from {from}: {faults} faults, {requests} requests, {inputs} inputs"
        )?;
        if self.backup_speaks {
            f.write_str(", output = backup")?;
        }
        if self.disks {
            f.write_str(", disks")?;
        }
        if self.people {
            f.write_str(", resets and force")?;
        }
        if cold_delay {
            f.write_str(", cold_delay_ms set")?;
        }
        if wipes > 0 {
            write!(f, ", {wipes} losses of the record")?;
        }
        Ok(())
    }
}

/// What must always be within reach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Goal {
    /// A protected pair, if no further fault comes and processes that have ended start again.
    #[default]
    Protected,
    /// The same, if a person may start a node by force: after a reset there is no other way.
    ProtectedByForce,
    /// A live node, if one is down for ever, and the record names the other one live, or backup
    /// with the session it holds. `cold_delay_ms` is set.
    LiveAlone,
}

/// The protocol within a scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protocol {
    /// How much is looked at.
    pub scope: Scope,
    /// A rule broken on purpose.
    pub broken: Option<Broken>,
    /// What progress is asked for.
    pub goal: Goal,
}

impl Protocol {
    /// The unbroken protocol.
    pub const fn new(scope: Scope) -> Self {
        Self {
            scope,
            broken: None,
            goal: Goal::Protected,
        }
    }

    /// The unbroken protocol, and what a node does whose peer never comes back.
    pub const fn alone(scope: Scope) -> Self {
        Self {
            goal: Goal::LiveAlone,
            ..Self::new(scope.with_cold_delay())
        }
    }

    /// The unbroken protocol, and people who may start nodes by force.
    pub const fn with_force(scope: Scope) -> Self {
        Self {
            goal: Goal::ProtectedByForce,
            ..Self::new(scope)
        }
    }

    /// With a rule broken.
    pub const fn broken(scope: Scope, rule: Broken) -> Self {
        Self {
            scope,
            broken: Some(rule),
            goal: Goal::Protected,
        }
    }

    /// Whether the arbiter may lose its record: what only a person can mend is not looked at then.
    pub const fn loses_record(&self) -> bool {
        self.scope.bounds.wipes > 0
    }

    /// A protected pair, as it comes about when nothing goes wrong.
    fn pair(&self) -> World {
        let undisturbed = Self::new(Scope {
            backup_speaks: self.scope.backup_speaks,
            disks: self.scope.disks,
            bounds: Left {
                wipes: self.scope.bounds.wipes,
                ..Left::default()
            },
            ..Scope::default()
        });
        let mut worlds = undisturbed.init_states();
        let mut actions = Vec::new();
        for index in 0.. {
            let world: World = worlds[index];
            if world.is_protected() {
                return World {
                    left: self.scope.bounds,
                    ..world
                };
            }
            undisturbed.actions(&world, &mut actions);
            actions.retain(|action| action.what != What::Wipe);
            for action in actions.drain(..) {
                let next = undisturbed.next_state(&world, action);
                worlds.extend(next.filter(|next| !worlds.contains(next)));
            }
        }
        unreachable!("an undisturbed pair becomes protected")
    }

    fn breaks(&self, broken: Broken) -> bool {
        self.broken == Some(broken)
    }

    fn events(&self, w: &World, at: Id, mut add: impl FnMut(What)) {
        let node = w.node(at);
        let peer = w.node(at.other());
        let own = w.conn(at);
        let other = w.conn(at.other());
        let mut may = |holds: bool, what| {
            if holds {
                add(what);
            }
        };
        let follows = matches!(node.role, Role::Joining | Role::Backup)
            || node.role == Role::Draining && other.follower_end;
        let live = node.role == Role::Live;
        let idle = node.role.seeks() && node.question == Question::None && node.welcomed.is_none();
        may(node.role == Role::Off, What::Start);
        may(self.reads(w, node, idle), What::Read);
        may(node.seen.is_some(), What::Seen);
        may(matches!(node.question, Question::Out(_)), What::Land);
        may(
            matches!(node.question, Question::Answered(..)),
            What::Answered,
        );
        let unknown = matches!(node.question, Question::Unknown(_));
        may(
            unknown && !(live && self.breaks(Broken::NeverRetried)),
            What::AskAgain,
        );
        may(idle && node.call.is_none() && calls(w, at), What::Dial);
        may(node.call.is_some(), What::Called);
        may(
            live && node.link == Link::Snapshot && own.follower_end && !own.broken,
            What::Snapshot,
        );
        let next = w.next(at);
        may(next.is_some(), What::Deliver);
        may(follows && node.stored < node.log.len(), What::Store);
        may(node.role == Role::Joining && next.is_none(), What::Install);
        may(
            own.live_end
                && (own.acked > node.acked
                    || own.installed && !node.installed
                    || own.spoken > node.released),
            What::Acks,
        );
        let beats = live && own.live_end && own.follower_end && !own.broken;
        may(
            beats
                && matches!(peer.role, Role::Joining | Role::Backup)
                && w.next(at.other()).is_none()
                && peer.released < node.released,
            What::Beat,
        );
        may(self.speaks(w, at), What::Speak);
        may(own.live_end && own.broken, What::LoseSession);
        may(
            other.follower_end && other.broken && node.role != Role::Draining,
            What::Suspect,
        );
        may(node.role == Role::Draining, What::Drained);
        may(
            idle && node.known == Known::Absent && node.generation == 0 && node.answer.is_none(),
            What::StartAlone,
        );
        may(live && node.waits, What::HandoverOver);
        let ahead = node.role.seeks() && node.welcomed.is_some() && other.follower_end;
        may(
            self.scope.disks
                && ahead
                && !other.broken
                && peer.link == Link::Snapshot
                && w.disks[at.ix()].content != Content::Mixed,
            What::Overwrite,
        );
        may(node.forces().is_some(), What::Force);
        let over = |n: &Node| n.role == Role::Off || n.role.seeks();
        let fenced = over(peer) || self.breaks(Broken::ForceUnfenced);
        let asked = |n: &Node| n.forced != Forced::No;
        let why = w.waits_for_a_person() && !asked(peer) || w.left.requests > 0;
        may(
            self.scope.people && over(node) && fenced && !asked(node) && why,
            What::StartForced,
        );

        let runs = w.runs(at);
        may(runs && node.log.due(), What::Output);
        may(runs && w.left.inputs > 0, What::Input);

        let fault = w.left.faults > 0;
        may(fault && node.role != Role::Off, What::Crash);
        may(
            fault && own.live_end && own.follower_end && !own.broken,
            What::Cut,
        );
        may(
            fault && matches!(node.question, Question::Out(_) | Question::Answered(..)),
            What::Unknown,
        );
        let known = node.generation > 0 && peer.generation > 0;
        may(
            w.left.wipes > 0 && at == Id::A && known && w.register.is_some(),
            What::Wipe,
        );
        // If it is the record that the other node was welcomed by, nothing looks wrong.
        let same = peer.welcomed == Some(1);
        let late = w.lost.is_some() && w.register.is_none() && !same;
        may(late, What::LateFirst(false));
        // It has asked in this life if it joined when another node was faster.
        let joined = node.role == Role::Joining || node.role.holds();
        may(late && joined, What::LateFirst(true));
        let beside = idle
            && node.known == Known::Record
            && !(self.breaks(Broken::AnswerForEver) && node.answer.is_some_and(|a| a.fresh))
            && node
                .record
                .is_some_and(|r| r.live == at && r.backup.is_some());
        may(w.left.cold_delay && beside, What::ColdDelay);

        let request = w.left.requests > 0;
        let paired = runs && node.link == Link::Paired;
        let may_reset = request && w.register.is_some() && over(node) && over(peer);
        may(
            self.scope.people && (may_reset || w.lost.is_some()),
            What::Reset,
        );
        may(request && runs, What::Poweroff);
        may(request && live && node.stop != Some(Stop::Halt), What::Stop);
        may(request && paired, What::Takeover);
        may(request && paired, What::Detach);
        may(
            request && node.role != Role::Off && !node.terminating,
            What::Terminate,
        );

        may(
            unknown && self.breaks(Broken::ReadSettles) && node.link == Link::PairCas,
            What::ReadForOutcome,
        );
        may(
            fault && self.breaks(Broken::DrainBeforeAcksEnd) && node.role == Role::Backup,
            What::SuspectOnly,
        );
    }

    /// Whether a backup's next output may leave: its record is stored, in a session that it was
    /// told the record names.
    fn speaks(&self, w: &World, at: Id) -> bool {
        let node = w.node(at);
        let held = match self.breaks(Broken::SpeakUnstored) {
            true => node.log,
            false => node.log.prefix(node.stored),
        };
        self.scope.backup_speaks
            && node.role == Role::Backup
            && node.told.is_some()
            && held.outputs(node.released).next().is_some()
    }

    fn reads(&self, w: &World, node: &Node, idle: bool) -> bool {
        if node.seen.is_some_and(|s| s.asked) {
            return false;
        }
        // A read that shows what is known changes nothing.
        let news = match node.known {
            Known::Unread => true,
            Known::Absent => w.register.is_some(),
            Known::Record => w.register != node.record,
        };
        let stuck = self.breaks(Broken::NeverReread) && node.known != Known::Unread;
        idle && news && !stuck
            || node.role == Role::Reading
            || node.role == Role::Live && node.link == Link::Probe
    }

    fn take(&self, step: &mut Step<'_>, what: What, at: Id) {
        match what {
            What::Start => {
                let generation = step.node(at).generation;
                *step.node(at) = Node::started(generation);
            }
            What::Read => step.read(at),
            What::Seen => step.on_seen(at),
            What::Land => {
                if let Question::Out(cas) = step.node(at).question {
                    let found = step.land(cas);
                    step.node(at).question = Question::Answered(cas, found);
                }
            }
            What::Answered => step.on_cas(at),
            What::AskAgain => {
                if let Question::Unknown(cas) = step.node(at).question {
                    step.node(at).question = Question::Out(cas);
                }
            }
            What::Dial => step.dial(at),
            What::Called => {
                step.on_answer(at);
            }
            What::Snapshot => step.take_snapshot(at),
            What::Deliver => step.deliver(at),
            What::Store => step.store(at),
            What::Install => step.install(at),
            What::Acks => step.on_acks(at),
            What::Beat => step.beat(at),
            What::Speak => step.speak(at),
            What::LoseSession => {
                step.lose_session(at);
                step.settle(at);
            }
            What::Suspect | What::SuspectOnly => step.suspect(at),
            What::Drained => step.on_drained(at),
            What::Output => step.append(at, Entry::Output),
            What::Input => step.append(at, Entry::Input(at)),
            What::StartAlone => step.start_alone(at),
            What::HandoverOver => step.handover_over(at),
            What::Overwrite => step.overwrite(at),
            What::Force => step.force(at),
            What::Reset => step.reset(at),
            What::StartForced => step.start_forced(at),
            What::Crash => step.off(at),
            What::Cut => step.w.conns[at.ix()].broken = true,
            What::Unknown => {
                step.unknown(at);
                if step.is(Broken::UnknownIsFailed) && step.node(at).link == Link::PairCas {
                    step.taken_for_failed(at);
                }
            }
            What::LandStray(index) => step.land_stray(usize::from(index)),
            What::Wipe => {
                // With it goes what was under way to it, but for first starts of the past.
                step.w.lost = step.w.register.take();
                step.w.strays = Default::default();
            }
            What::LateFirst(current) => step.late_first(at, current),
            What::ColdDelay => step.cold_delay(at),
            What::Poweroff => step.poweroff(at),
            What::Stop => step.begin_stop(at, Stop::Halt),
            What::Takeover => step.begin_stop(at, Stop::Handover),
            What::Detach => step.detach(at),
            What::Terminate => step.terminate(at),
            What::ReadForOutcome => {
                let shows = step.w.register.map_or(0, |r| r.generation);
                let cas = step.node(at).question.cas();
                if cas.is_some_and(|c| c.expect == shows) {
                    step.taken_for_failed(at);
                }
            }
        }
    }
}

fn pay(left: &mut Left, what: What) {
    let purse = match what {
        What::Input => &mut left.inputs,
        What::Crash | What::Cut | What::Unknown | What::SuspectOnly => &mut left.faults,
        What::Wipe => &mut left.wipes,
        What::Poweroff
        | What::Stop
        | What::Takeover
        | What::Detach
        | What::Terminate
        | What::Reset => &mut left.requests,
        _ => return,
    };
    *purse -= 1;
}

/// Whether a call could change anything.
fn calls(w: &World, at: Id) -> bool {
    let peer = w.node(at.other());
    match peer.role {
        Role::Off => false,
        Role::Live => true,
        _ => asks(w, at) || peer.role.seeks() && asks(w, at.other()),
    }
}

/// Whether what the peer says of itself could matter to a node that seeks.
fn asks(w: &World, at: Id) -> bool {
    let (node, peer) = (w.node(at), w.node(at.other()));
    let undecided = match node.known {
        Known::Unread => node.generation == 0,
        Known::Absent => node.generation == 0,
        Known::Record => node
            .record
            .is_some_and(|r| r.live == at && r.backup.is_some()),
    };
    let same = node.answer.is_some_and(|a| {
        a.fresh && a.generation == peer.generation && a.holds == peer.role.holds() && !a.live
    });
    undecided && !same
}

impl Model for Protocol {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![match self.scope.from {
            From::Nothing => World {
                left: self.scope.bounds,
                ..World::default()
            },
            From::Pair => self.pair(),
        }]
    }

    fn actions(&self, w: &World, actions: &mut Vec<Action>) {
        if w.wrong.is_some() || w.beyond {
            return;
        }
        for at in Id::BOTH {
            self.events(w, at, |what| actions.push(Action { what, at }));
        }
        for (index, cas) in w.strays.iter().enumerate() {
            if let Some(cas) = cas {
                let what = What::LandStray(index as u8);
                let at = cas.record.live;
                actions.push(Action { what, at });
            }
        }
    }

    fn next_state(&self, w: &World, action: Action) -> Option<World> {
        let mut world = *w;
        let mut step = Step {
            w: &mut world,
            broken: self.broken,
            backup_speaks: self.scope.backup_speaks,
            disks: self.scope.disks,
            after_loss: false,
        };
        // Where the record is lost, a person resets it.
        let needed = action.what == What::Reset && step.w.lost.is_some();
        if !needed {
            pay(&mut step.w.left, action.what);
        }
        self.take(&mut step, action.what, action.at);
        step.looks();
        world.normalise(self.loses_record(), self.scope.disks);
        (world != *w).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![Property::always("nothing wrong is seen", |_, w: &World| {
            w.wrong.is_none()
        })]
    }
}

impl crate::explore::Question for Protocol {
    fn is_wrong(&self, w: &World) -> bool {
        w.wrong.is_some()
    }

    fn is_good(&self, w: &World) -> bool {
        match self.goal {
            _ if w.beyond => true,
            Goal::Protected | Goal::ProtectedByForce => w.is_protected(),
            Goal::LiveAlone => !w.waits_alone(),
        }
    }

    fn may_count_on(&self, action: &Action) -> bool {
        match self.goal {
            Goal::Protected => action.is_recovery(),
            Goal::ProtectedByForce => {
                let resets = action.what == What::Reset && self.loses_record();
                action.is_recovery() || action.what == What::StartForced || resets
            }
            Goal::LiveAlone => match action.what {
                What::Start => false,
                What::ColdDelay => true,
                _ => action.is_recovery(),
            },
        }
    }
}
