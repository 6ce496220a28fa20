//! After every event: changes of role, stages that are due, outputs that may leave.

use crate::event::{Action, ExitReason, NoteLevel};
use crate::message::Message;
use crate::node::claim::Claim;
use crate::node::core::Change;
use crate::node::live::{Link, Live};
use crate::node::mutation::Mutation;
use crate::node::seek::Seek;
use crate::node::stop::StopKind;
use crate::node::{Node, Role, RoleKind};
use crate::record::Position;
use crate::time::Instant;

/// Steps one event may set off; each stage of a stop or pairing is one, so a handful.
const MAX_STEPS: usize = 16;

impl<T> Node<T> {
    /// Carries out what the event set off: changes of role, stages that are due, outputs
    /// that may leave.
    pub(super) fn settle(&mut self, now: Instant) {
        for _ in 0..MAX_STEPS {
            if let Some(change) = self.core.change.take() {
                self.change_role(now, change);
                continue;
            }
            let live = match &mut self.role {
                Role::Live(live) => live,
                Role::Backup(follow) => return follow.speak(&mut self.core),
                _ => return,
            };
            live.release(&mut self.core);
            if !live.advance(&mut self.core, now) {
                return;
            }
        }
        self.core.fault("one event set off too many steps");
    }

    /// The one place where the role changes. Unfit changes are faults of ours.
    fn change_role(&mut self, now: Instant, change: Change<T>) {
        let from = self.role.kind();
        let role = std::mem::replace(&mut self.role, Role::Exited);
        let core = &mut self.core;
        let (role, why) = match (role, change) {
            (_, Change::Exit(reason)) => {
                core.act(Action::RoleChanged {
                    from,
                    to: RoleKind::Exited,
                    why: reason.to_string(),
                });
                core.act(Action::Exit { reason });
                return;
            }
            (Role::Frozen(_), Change::Start(record)) => {
                // Named live again, by a record we did not write as this life: the disks
                // decide, not the VM that lost.
                core.act(Action::Discard);
                core.act(Action::RoleChanged {
                    from,
                    to: RoleKind::Cold,
                    why: "the record names this node live again".into(),
                });
                self.role = Role::Cold(Seek::new(now));
                return self.change_role(now, Change::Start(record));
            }
            (Role::Cold(_), Change::Start(record)) => {
                core.act(Action::ColdStart {
                    generation: record.generation,
                });
                core.note_alone(record.generation);
                let live = Live::new(record, Default::default(), Position(0));
                (Role::Live(Box::new(live)), format!("started: {record}"))
            }
            (Role::Frozen(_), Change::Join(follow)) => {
                core.act(Action::Discard);
                core.act(Action::RoleChanged {
                    from,
                    to: RoleKind::Cold,
                    why: "the winner's snapshot begins".into(),
                });
                self.role = Role::Cold(Seek::new(now));
                return self.change_role(now, Change::Join(follow));
            }
            (Role::Cold(_), Change::Join(follow)) => {
                core.mark(core.disks.overwritten());
                core.act(Action::BeginInstall {
                    session: follow.session,
                    position: follow.base,
                });
                (Role::Joining(follow), "the snapshot begins".into())
            }
            (Role::Joining(mut follow), Change::Installed) => {
                // What is installed is durable: the driver's word for it was the event.
                core.mark(core.disks.whole());
                core.send(follow.conn, Message::Installed);
                follow.watch_beats(now);
                (Role::Backup(follow), "the snapshot is installed".into())
            }
            (Role::Joining(_), Change::Suspect(why) | Change::Discard(why))
            | (Role::Backup(_) | Role::Claiming(_), Change::Discard(why)) => {
                core.act(Action::Discard);
                core.asking.forget();
                core.new_life();
                if core.terminating {
                    core.change(Change::Exit(ExitReason::Terminated));
                }
                (Role::Cold(Seek::new(now)), why)
            }
            (Role::Backup(follow), Change::Suspect(why)) => {
                core.act(Action::BeginDrain);
                (Role::Claiming(Box::new(Claim::new(*follow))), why)
            }
            (Role::Claiming(claim), Change::Claimed(record)) => {
                core.act(Action::GoLive {
                    generation: record.generation,
                });
                core.act(Action::Announce);
                core.note_alone(record.generation);
                let halted = claim.follow.halted;
                let mut held = claim.follow.held;
                if core.broken(Mutation::NoResend) {
                    held = Default::default();
                }
                let mut live = Live::new(record, held, claim.drained);
                if let Some(position) = halted {
                    live.on_guest_halted(position);
                } else if core.terminating {
                    live.begin_stop(core, StopKind::Leave);
                }
                (Role::Live(Box::new(live)), format!("claimed: {record}"))
            }
            (Role::Live(mut live), Change::Lost(record)) => {
                live.lose_session(core, now, "the record names another node live");
                if live.stop.is_some() {
                    let text = "the VM was to be stopped here, and goes on at the other node: ask that one";
                    core.note(NoteLevel::Warn, text.into());
                }
                if core.broken(Mutation::LoserEmits) {
                    live.link = Link::Solo;
                    live.release(core);
                }
                core.act(Action::Freeze);
                core.asking.forget();
                core.new_life();
                if core.terminating {
                    core.change(Change::Exit(ExitReason::Terminated));
                }
                (Role::Frozen(Seek::new(now)), format!("lost: {record}"))
            }
            (role, change) => {
                core.fault(format!(
                    "{change_name} as {from}",
                    change_name = change.name()
                ));
                self.role = role;
                return;
            }
        };
        let to = role.kind();
        if !from.may_become(to) {
            core.fault(format!("no way leads from {from} to {to}"));
        }
        core.act(Action::RoleChanged { from, to, why });
        self.role = role;
    }
}
