//! What must hold after every event, in release builds too.

use crate::node::asking::Question;
use crate::node::claim::ClaimStage;
use crate::node::core::Core;
use crate::node::live::{Link, Live, PairingStage};
use crate::node::seek::Seek;
use crate::node::{Node, Role};

type Checked = Result<(), String>;

fn must(holds: bool, what: &str) -> Checked {
    if holds {
        Ok(())
    } else {
        Err(format!("invariant violated: {what}"))
    }
}

impl<T> Node<T> {
    /// `Err` names the first violated invariant.
    pub(super) fn check(&mut self) -> Checked {
        if let Some(what) = self.core.fault.take() {
            return Err(what);
        }
        // A test that breaks a rule is to be caught by its own checker, not by ours.
        if cfg!(feature = "mutations") && self.core.mutation.is_some() {
            return Ok(());
        }
        let core = &self.core;
        must(core.change.is_none(), "a change of role is left over")?;
        if let Some(record) = &core.record {
            must(
                record.generation <= core.generation,
                "a record is known whose generation is not stored",
            )?;
        }
        let live = match &self.role {
            Role::Live(_) => true,
            Role::Backup(follow) => follow.speaks(core),
            _ => false,
        };
        let exited = matches!(self.role, Role::Exited);
        must(
            core.emitted == 0 || live || exited,
            "an output left a node that does not speak",
        )?;
        match &self.role {
            Role::Cold(seek) | Role::Frozen(seek) => check_seek(core, seek),
            Role::Joining(f) | Role::Backup(f) => {
                must(
                    f.acked <= f.stored && f.stored <= f.received,
                    "acked <= stored <= received",
                )?;
                must(!core.asking.awaits_cas(), "a backup awaits a CAS")?;
                must(
                    core.conns.iter().any(|c| c.id == f.conn && c.session),
                    "a backup without its connection",
                )
            }
            Role::Claiming(claim) => {
                must(
                    core.conns.iter().all(|c| c.id != claim.follow.conn),
                    "a claiming node still has its session's connection",
                )?;
                match claim.stage {
                    ClaimStage::Draining => must(
                        core.asking.question().is_none(),
                        "asked before it was drained",
                    ),
                    ClaimStage::Reading => must(
                        core.asking.question() == Some(Question::Read) || claim.reads_again(),
                        "reading without a read",
                    ),
                    ClaimStage::Asking => {
                        must(core.asking.awaits_cas(), "claiming without a CAS")?;
                        must(
                            claim.drained >= claim.follow.acked,
                            "a claim with less than was acked",
                        )
                    }
                }
            }
            Role::Live(live) => check_live(core, live),
            Role::Exited => Ok(()),
        }
    }
}

fn check_seek<T>(core: &Core<T>, seek: &Seek) -> Checked {
    must(
        seek.starting == core.asking.awaits_cas(),
        "a start is awaited without its CAS, or the other way round",
    )?;
    must(
        !(seek.starting && seek.welcomed.is_some()),
        "joining while a start may land",
    )
}

fn check_live<T>(core: &Core<T>, live: &Live<T>) -> Checked {
    let settled = &live.settled;
    must(
        settled.live == core.live_name() && core.record == Some(*settled),
        "live by a record that is not the newest known or names another",
    )?;
    let awaits = core.asking.awaits_cas();
    match &live.link {
        Link::Solo => {
            must(settled.backup.is_none(), "solo, but a backup is named")?;
            must(!awaits, "solo, but the outcome of a CAS is awaited")?;
            must(live.gate.is_empty(), "solo, but an output is held")
        }
        Link::Pairing { session, stage } => {
            must(settled.backup.is_none(), "pairing, but a backup is named")?;
            must(
                awaits == (*stage == PairingStage::Cas),
                "pairing: a CAS is awaited outside its stage",
            )?;
            if let PairingStage::GateOn { p } = stage {
                must(
                    live.gate.released() <= session.acked.max(*p),
                    "an unacked output left after the gate was on",
                )?;
            }
            if *stage == PairingStage::Cas {
                must(
                    live.gate.released() <= session.acked,
                    "the pairing CAS is out, but the backup lacks what has left",
                )?;
            }
            Ok(())
        }
        Link::Paired(session) => {
            must(
                settled.names_backup(session.peer, session.id),
                "paired, but the record names another session",
            )?;
            must(!awaits, "paired, but the outcome of a CAS is awaited")?;
            must(
                live.gate.released() <= session.acked,
                "an output left before the backup acked its record",
            )
        }
        Link::Settling { asked, .. } => {
            must(awaits == *asked || !*asked, "settling without its CAS")
        }
    }
}
