//! Scrubbing: pages that nobody has stored to since they were hashed are hashed again, a few at a
//! time. One that isn't the same any more was changed by a fault of the host's memory, which no
//! digest would show, since digests hash only what was stored to.
//!
//! A backup raises the alarm, as for any other difference ([`super::examine`]). A live node hands
//! the VM to its backup, which has the page as it should be; without one it can only say so.

use super::*;
use crate::replay::Divergence;
use twinvm_machine::{PAGE_BYTES, page_address};

/// Pages looked at in a second, while the node's loop runs: a GiB in two minutes, for about a
/// thousandth of a processor.
const PAGES_PER_SECOND: u64 = 2048;
/// At most at once, 256 KiB. A node whose guest sleeps looks less often, and so at fewer.
const MAX_PAGES: u64 = 64;

/// Where it is.
#[derive(Debug, Default)]
pub(super) struct Scrub {
    next: usize,
    /// Host time up to which pages were looked at.
    done_ns: u64,
    /// Live: the page for which the VM is handed over.
    bad: Option<u32>,
}

impl Scrub {
    /// The machine is gone.
    pub(super) fn forget(&mut self) {
        self.bad = None;
    }

    /// The pages whose turn it is.
    fn turn(&mut self, now: HostTime, pages: usize) -> std::ops::Range<usize> {
        let page_ns = 1_000_000_000 / PAGES_PER_SECOND;
        let due = now.mono_ns.saturating_sub(self.done_ns) / page_ns;
        let (due, done_ns) = match due {
            0..=MAX_PAGES => (due, self.done_ns + due * page_ns),
            _ => (MAX_PAGES, now.mono_ns),
        };
        self.done_ns = done_ns;
        let from = if self.next < pages { self.next } else { 0 };
        self.next = pages.min(from + due as usize);
        from..self.next
    }
}

impl Replica {
    /// Looks at the pages whose turn it is.
    pub(super) fn scrub(&mut self, env: &mut dyn Env, now: HostTime) {
        let machine = match &self.vm {
            Vm::Live(live) => live.machine(),
            Vm::Following(f) if f.examination.is_none() && !f.draining => f.replay.machine(),
            _ => return,
        };
        let mut turn = self.scrub.turn(now, machine.pages());
        let Some(page) = turn.find(|page| !machine.page_is_as_hashed(*page)) else {
            return;
        };
        let page = page as u32;
        let pa = page_address(page);
        let what = format!(
            "RAM page {:#x} (physical address {pa:#x}) has changed here without a store: is this \
             host's memory sound?",
            pa / PAGE_BYTES as u64
        );
        match &self.vm {
            Vm::Live(_) => self.memory_fails(env, page, &what),
            Vm::Following(following) => {
                let divergence = Divergence {
                    doubtful: false,
                    position: following.replay.position(),
                    icount: following.replay.machine().icount(),
                    what,
                };
                self.examine(env, divergence);
            }
            Vm::Nothing | Vm::Installing(_) => {}
        }
    }

    /// The live node's memory has changed by itself.
    fn memory_fails(&mut self, env: &mut dyn Env, page: u32, what: &str) {
        self.note_divergence(what);
        if self.node.protected() {
            let text = "this host's memory has changed by itself: the VM goes to the backup";
            self.note(NoteLevel::Error, text.to_owned());
            self.scrub.bad = Some(page);
            // At once: nothing more is to come from this memory, so nothing more goes into it.
            let ctl = twinvm_protocol::Ctl::Takeover;
            self.tell(env, ProtocolEvent::Ctl(ctl));
        } else {
            self.live_with(page);
        }
    }

    /// The guest stays here after all: if a page of it was why it should not, with that.
    pub(super) fn stays_with_bad_memory(&mut self) {
        if let Some(page) = self.scrub.bad.take() {
            self.live_with(page);
        }
    }

    fn live_with(&mut self, page: u32) {
        let Vm::Live(live) = &mut self.vm else { return };
        // A node that joins gets what is there, and digests must tell it.
        live.machine_mut().take_page_as_it_is(page);
        let text = "this host's memory has changed by itself, and there is no backup: the guest \
                    goes on with what is there";
        self.note(NoteLevel::Error, text.to_owned());
    }
}
