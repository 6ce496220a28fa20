//! A difference, examined: the backup that has found one asks the live node what it is, and then
//! raises the alarm.
//!
//! Meanwhile the backup stands still, and from the moment of the finding on it stores and acks
//! nothing: what the live node lets out is still only what a backup has acked that knew of no
//! difference. So the live node's outputs wait for the examination's end, and that comes soon,
//! whatever the other side says or doesn't: at [`EXAMINE_NS`] the alarm is raised with what is
//! known by then. If the live node is lost meanwhile, it is raised at once.

use super::*;
use crate::compare::{MAX_TOLD_BYTES, PageTold, Told, Word};
use crate::replay::Divergence;
use std::collections::BTreeMap;
use twinvm_machine::{Difference, MachineState, RegisterState, page_address, page_difference};

/// How long an examination takes at most: 500 ms, some round trips over the longest line that a
/// pair can have.
const EXAMINE_NS: u64 = 500_000_000;
/// Pages that are hashed between two looks at the channel: 1 MiB, 0.1 ms.
const SCAN_PAGES: usize = 256;
/// Pages that are asked about.
const MAX_PAGES_ASKED: usize = 32;
/// Questions that a live node answers in one session: a backup has one, and its pages.
const MAX_ANSWERS: u32 = 2 + MAX_PAGES_ASKED as u32;

/// Where an examination is.
enum Stage {
    /// The live node is to say what it has kept.
    Asked,
    /// It is to say what it knows of this page.
    AskedPage(u32),
    /// RAM is hashed once more from this page on.
    Scan(usize),
}

/// What comes next.
enum Next {
    /// Say this, then wait.
    Say(Word),
    /// Go on by itself.
    GoOn,
    /// Wait for the live node.
    Wait,
    /// All is known that can be known.
    Done,
}

/// A difference on a backup that is being examined.
pub(super) struct Examination {
    divergence: Divergence,
    until_ns: u64,
    stage: Stage,
    /// Of a [`Told`], what has come.
    received: Vec<u8>,
    exact: bool,
    /// The live node's pages.
    pages: BTreeMap<u32, u64>,
    /// Pages that may differ.
    candidates: VecDeque<(u32, Option<u64>)>,
    asked: usize,
    scanned: bool,
    /// In time, harts or devices.
    first: Option<Difference>,
    ram: Option<Difference>,
    notes: Vec<String>,
}

impl Examination {
    fn new(divergence: Divergence, now: HostTime) -> Self {
        Self {
            divergence,
            until_ns: now.mono_ns.saturating_add(EXAMINE_NS),
            stage: Stage::Asked,
            received: Vec::new(),
            exact: false,
            pages: BTreeMap::new(),
            candidates: VecDeque::new(),
            asked: 0,
            scanned: false,
            first: None,
            ram: None,
            notes: Vec::new(),
        }
    }

    pub(super) fn until_ns(&self) -> u64 {
        self.until_ns
    }

    /// Whether there is something to do without a word from the live node.
    pub(super) fn goes_on(&self) -> bool {
        matches!(self.stage, Stage::Scan(_))
    }

    /// The live node has said something.
    fn hear(&mut self, word: Word, machine: &mut Machine) -> Next {
        // It has not gone on without this node.
        self.divergence.doubtful = false;
        match (&self.stage, word) {
            (Stage::Asked, Word::Part { bytes, last }) => {
                if self.received.len() + bytes.len() > MAX_TOLD_BYTES {
                    return self.give_up("the live node's answer is too long");
                }
                self.received.extend_from_slice(&bytes);
                if !last {
                    return Next::Wait;
                }
                match Told::decode(&std::mem::take(&mut self.received)) {
                    Some(told) => self.compare(told, machine),
                    None => self.give_up("the live node's answer can't be read"),
                }
            }
            (Stage::AskedPage(page), Word::Page(told)) if *page == told.page => {
                self.ram = self.page_differs(&told, machine);
                self.next_page(machine)
            }
            _ => Next::Wait,
        }
    }

    fn give_up(&mut self, why: &str) -> Next {
        self.notes.push(why.to_owned());
        Next::Done
    }

    fn compare(&mut self, told: Told, machine: &mut Machine) -> Next {
        self.exact = told.exact;
        let compared = if !told.state.is_empty() {
            let state = MachineState::decode(&told.state);
            state.map(|state| state.first_difference(&machine.state()))
        } else if !told.registers.is_empty() {
            RegisterState::decode(&told.registers).map(|state| {
                if let Some((hart, pc)) = state.place() {
                    self.notes
                        .push(format!("the live node: hart {hart} at pc {pc:#x}"));
                }
                state.first_difference(&machine.moment().state())
            })
        } else {
            let note = "the live node has not kept its registers of this record";
            self.notes.push(note.to_owned());
            Ok(None)
        };
        match compared {
            Ok(first) => self.first = first,
            Err(error) => self.notes.push(format!("the live node's answer: {error}")),
        }
        if !told.whole {
            return self.give_up("the live node has changed too much to tell which pages");
        }
        self.pages = told.pages.into_iter().collect();
        self.find_candidates(machine);
        self.next_page(machine)
    }

    /// Of the pages that have changed here since the last equal digest, and of those of the live
    /// node, the ones that may differ. Whatever nobody has changed is equal.
    fn find_candidates(&mut self, machine: &mut Machine) {
        let hash = |page: u32| Some(machine.page_content_hash(page)?.1 as u64);
        let mut found = BTreeMap::new();
        if self.exact && !self.scanned {
            let differing = self.pages.iter().filter(|(page, theirs)| {
                let ours = hash(**page);
                ours.is_some() && ours != Some(**theirs)
            });
            found.extend(differing.map(|(page, theirs)| (*page, Some(*theirs))));
        }
        for (page, ours) in machine.take_changed_pages() {
            match self.pages.get(&page) {
                // The live node may have changed it later.
                Some(_) if !self.exact => {}
                Some(theirs) if *theirs == ours as u64 => {}
                theirs => {
                    found.insert(page, theirs.copied());
                }
            }
        }
        self.candidates = found.into_iter().collect();
    }

    fn next_page(&mut self, machine: &Machine) -> Next {
        if self.ram.is_some() {
            return Next::Done;
        }
        match self.candidates.pop_front() {
            Some((page, _)) if self.asked < MAX_PAGES_ASKED => {
                self.asked += 1;
                self.stage = Stage::AskedPage(page);
                let position = self.divergence.position;
                Next::Say(Word::AskPage { position, page })
            }
            Some((page, theirs)) => {
                self.ram = theirs.and_then(|theirs| hashes_differ(page, theirs, machine));
                Next::Done
            }
            None if self.scanned => Next::Done,
            None => {
                self.stage = Stage::Scan(0);
                Next::GoOn
            }
        }
    }

    fn page_differs(&self, told: &PageTold, machine: &Machine) -> Option<Difference> {
        let theirs = told.hash.or_else(|| self.pages.get(&told.page).copied());
        if let (Some(theirs), Some(ours)) = (&told.bytes, machine.page(told.page))
            && theirs.len() == ours.len()
        {
            return page_difference(told.page, theirs, ours);
        }
        match theirs {
            Some(theirs) => hashes_differ(told.page, theirs, machine),
            // It has changed there since. At the record it was as at the digest before, here it
            // was something else.
            None => page_item(told.page, "as at the digest before".to_owned(), machine),
        }
    }

    /// Hashes some pages that nobody has stored to: the fault may be one of this host's memory.
    fn scan(&mut self, machine: &mut Machine) -> Next {
        let Stage::Scan(from) = self.stage else {
            return Next::Wait;
        };
        let end = from.saturating_add(SCAN_PAGES);
        machine.rehash_pages(from..end);
        if end < machine.pages() {
            self.stage = Stage::Scan(end);
            return Next::GoOn;
        }
        self.scanned = true;
        self.find_candidates(machine);
        if !self.candidates.is_empty() {
            let note = "it has changed here without a store: is this host's memory sound?";
            self.notes.push(note.to_owned());
        }
        self.next_page(machine)
    }

    /// All that is known, in one line.
    fn text(&self) -> String {
        let told = |found: &Difference| {
            let Difference {
                item, left, right, ..
            } = found;
            format!("{item}: {left} on the live node, {right} here")
        };
        let found = match (&self.first, &self.ram) {
            (Some(first), Some(ram)) => {
                format!("first difference: {}; also {}", told(first), told(ram))
            }
            (Some(first), None) => format!("first difference: {}", told(first)),
            (None, Some(ram)) => format!("first difference: {}", told(ram)),
            (None, None) => "what differs first is not known".to_owned(),
        };
        let notes: Vec<String> = self.notes.iter().map(|note| format!(" ({note})")).collect();
        format!("{}; {found}{}", self.divergence, notes.concat())
    }
}

fn hashes_differ(page: u32, theirs: u64, machine: &Machine) -> Option<Difference> {
    let ours = machine.page_content_hash(page)?.0 as u64;
    if ours == theirs {
        return None;
    }
    page_item(page, format!("hash {theirs:#018x}"), machine)
}

fn page_item(page: u32, theirs: String, machine: &Machine) -> Option<Difference> {
    let ours = machine.page_content_hash(page)?.0 as u64;
    let pa = page_address(page);
    Some(Difference {
        item: format!(
            "RAM page {:#x} (physical address {pa:#x})",
            pa / twinvm_machine::PAGE_BYTES as u64
        ),
        hart: None,
        left: theirs,
        right: format!("hash {ours:#018x}"),
    })
}

/// A disk that both nodes reach holds something else than the live node has read there, and nobody
/// knows who changed it.
pub(super) fn unread(divergence: &Divergence) -> ProtocolEvent<Output> {
    let what = &divergence.what;
    ProtocolEvent::Unfit {
        why: format!(
            "{what}: the live node has gone on without this one, or somebody else writes to the \
             disk: the machine here is thrown away"
        ),
    }
}

impl Replica {
    fn examination(&mut self) -> Option<(&mut Examination, &mut Replay, SessionId)> {
        match &mut self.vm {
            Vm::Following(following) => {
                let session = following.session;
                let examination = following.examination.as_deref_mut()?;
                Some((examination, &mut following.replay, session))
            }
            _ => None,
        }
    }

    /// Whether a difference is being examined here.
    pub(super) fn examines(&self) -> bool {
        matches!(&self.vm, Vm::Following(following) if following.examination.is_some())
    }

    /// The replay has found a difference. Next hop: the live node's [`Replica::heard`].
    pub(super) fn examine(&mut self, env: &mut dyn Env, divergence: Divergence) {
        let now = env.now();
        let Vm::Following(following) = &mut self.vm else {
            return;
        };
        // All hashes are of this step, and what changed since the last equal digest is noted.
        following.replay.machine_mut().digest();
        let session = following.session;
        let position = divergence.position;
        let text = format!("{divergence}; asking the live node what it is");
        following.examination = Some(Box::new(Examination::new(divergence, now)));
        // Nothing is acked any more, beside this loop neither; what was is stored.
        let kept = env.end_storing();
        if let Some((conn, ..)) = self.node.stored() {
            for stored in kept {
                self.stored_ahead(env, conn, stored);
            }
        }
        self.note(NoteLevel::Warn, text);
        let bytes = Word::Ask { position }.encode();
        self.tell(env, ProtocolEvent::Side { session, bytes });
    }

    /// One slice of an examination; false if there is none.
    pub(super) fn examine_slice(&mut self, env: &mut dyn Env) -> bool {
        let Some((examination, replay, _)) = self.examination() else {
            return false;
        };
        let next = examination.scan(replay.machine_mut());
        for event in self.examined(next) {
            self.tell(env, event);
        }
        true
    }

    /// The time of an examination may be over.
    pub(super) fn examine_tick(&mut self, env: &mut dyn Env, now: HostTime) {
        let over = |(e, ..): (&mut Examination, &mut Replay, SessionId)| e.until_ns <= now.mono_ns;
        if self.examination().is_some_and(over) {
            let why = format!("no more was found out within {} ms", EXAMINE_NS / 1_000_000);
            for event in self.alarm(&why) {
                self.tell(env, event);
            }
        }
    }

    /// The peer has said something beside the log.
    pub(super) fn heard(
        &mut self,
        env: &mut dyn Env,
        session: SessionId,
        bytes: &[u8],
        events: &mut VecDeque<ProtocolEvent<Output>>,
    ) {
        let Some(word) = Word::decode(bytes) else {
            return;
        };
        if let Vm::Live(_) = &self.vm {
            return self.answer(env, session, word, events);
        }
        let Some((examination, replay, own)) = self.examination() else {
            return;
        };
        if own == session {
            let next = examination.hear(word, replay.machine_mut());
            events.extend(self.examined(next));
        }
    }

    fn examined(&mut self, next: Next) -> Vec<ProtocolEvent<Output>> {
        match (next, self.examination()) {
            (Next::Say(word), Some((_, _, session))) => {
                let bytes = word.encode();
                vec![ProtocolEvent::Side { session, bytes }]
            }
            (Next::Done, Some(_)) => self.alarm(""),
            _ => Vec::new(),
        }
    }

    /// Ends an examination, if there is one, with what is known: the alarm, and what the protocol
    /// is to hear.
    pub(super) fn alarm(&mut self, why: &str) -> Vec<ProtocolEvent<Output>> {
        let Vm::Following(following) = &mut self.vm else {
            return Vec::new();
        };
        let session = following.session;
        let Some(mut examination) = following.examination.take() else {
            return Vec::new();
        };
        if examination.divergence.doubtful {
            return vec![unread(&examination.divergence)];
        }
        if !why.is_empty() {
            examination.notes.push(why.to_owned());
        }
        let detail = examination.text();
        self.note_divergence(&detail);
        let text = detail.clone();
        let bytes = Word::Found { text }.encode();
        vec![
            ProtocolEvent::Side { session, bytes },
            ProtocolEvent::Diverged { detail },
        ]
    }

    /// The machine here is not what it should be, and may have written what it shouldn't.
    pub(super) fn note_divergence(&mut self, detail: &str) {
        self.divergence = Some(detail.to_owned());
        self.divergences += 1;
        self.doubt_disks();
    }

    /// The same where the protocol needs to hear nothing: it has parted with the machine already.
    pub(super) fn last_alarm(&mut self, why: &str) {
        let before = self.divergences;
        self.alarm(why);
        if self.divergences > before
            && let Some(text) = self.divergence.clone()
        {
            self.note(NoteLevel::Error, text);
        }
    }

    /// Live: answers a backup that has found a difference.
    fn answer(
        &mut self,
        env: &mut dyn Env,
        session: SessionId,
        word: Word,
        events: &mut VecDeque<ProtocolEvent<Output>>,
    ) {
        let now = env.now();
        let Vm::Live(live) = &mut self.vm else { return };
        self.answers += 1;
        if self.answers > MAX_ANSWERS {
            return;
        }
        match word {
            Word::Ask { position } => {
                let told = match live.tell(position, now) {
                    Ok(told) => told,
                    Err(error) => return self.fatal(error.to_string()),
                };
                let parts = told.parts().into_iter();
                events.extend(parts.map(|bytes| ProtocolEvent::Side { session, bytes }));
                self.collect_batches(events);
            }
            Word::AskPage { position, page } => {
                let bytes = Word::Page(live.tell_page(position, page)).encode();
                events.push_back(ProtocolEvent::Side { session, bytes });
            }
            Word::Found { text } => {
                self.note(NoteLevel::Error, format!("the backup differs: {text}"));
            }
            Word::Part { .. } | Word::Page(_) => {}
        }
    }
}
