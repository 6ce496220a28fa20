//! The protocol as a [`stateright::Model`]: what is asked of it, and what an action does.

mod may;

use stateright::{Model, Property};

use crate::action::{Action, What, pay};
use crate::log::Entry;
use crate::record::Id;
use crate::rules::Broken;
use crate::scope::{From, Scope};
use crate::state::{Left, Link, Node, Question, Stop, World};
use crate::step::Step;

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
