//! What may happen in which state: the guards.

use super::Protocol;
use crate::action::What;
use crate::disk::Content;
use crate::record::Id;
use crate::rules::Broken;
use crate::state::{Forced, Known, Link, Node, Question, Role, Stop, World};

impl Protocol {
    /// What may happen at a node.
    pub(super) fn events(&self, w: &World, at: Id, mut add: impl FnMut(What)) {
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
