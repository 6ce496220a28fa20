//! Disks that both nodes reach: only the live node touches them, writes wait for the backup, and
//! what a former live node had under way is over before the next one begins.

use std::collections::VecDeque;

use twinvm_log::Body;
use twinvm_machine::{DiskOp, DiskRequest};
use twinvm_protocol::node::Mutation;
use twinvm_protocol::{Ctl, Generation, RoleKind};
use twinvm_replica::{Event, Reads};

use crate::small;
use crate::toy::{DISK_BYTES, Done};
use crate::world::{A, B, World};

/// A server of one disk that knows generations. It outlives both nodes' processes.
pub(crate) struct Server {
    pub(crate) bytes: Vec<u8>,
    /// Who has it.
    owner: Option<usize>,
    generation: Generation,
    /// When it is done, and whose it is.
    under_way: VecDeque<(u64, usize, DiskRequest)>,
    /// Requests that came from whoever hasn't got it.
    pub(crate) rejected: usize,
    /// What a claim found under way, done before its answer or never.
    pub(crate) cut_off: usize,
    pub(crate) reads: usize,
    pub(crate) writes: usize,
    /// Who reads beside the owner, what is under way for him, and how many reads were done.
    reader: Option<usize>,
    reading: VecDeque<(u64, DiskRequest)>,
    pub(crate) read_beside: usize,
    /// These reads take so much longer.
    pub(crate) slower_ns: u64,
    /// None of them is done.
    pub(crate) mute: bool,
    /// What they bring is not what is there.
    pub(crate) lies: bool,
    /// They fail.
    pub(crate) fails: bool,
}

impl Server {
    pub(crate) fn new() -> Self {
        Self {
            bytes: vec![0; DISK_BYTES],
            owner: None,
            generation: Generation(0),
            under_way: VecDeque::new(),
            rejected: 0,
            cut_off: 0,
            reads: 0,
            writes: 0,
            reader: None,
            reading: VecDeque::new(),
            read_beside: 0,
            slower_ns: 0,
            mute: false,
            lies: false,
            fails: false,
        }
    }

    pub(crate) fn read_beside(&mut self, node: usize) {
        assert_ne!(self.owner, Some(node), "who has it needs nothing more");
        self.reader = Some(node);
    }

    /// What this node reads beside the owner is nobody's any more.
    pub(crate) fn forget(&mut self, node: usize) {
        if self.reader == Some(node) {
            self.reader = None;
            self.reading.clear();
        }
    }

    pub(crate) fn claim(
        &mut self,
        node: usize,
        generation: Generation,
        mut happens: impl FnMut() -> bool,
    ) {
        assert!(generation > self.generation, "a generation is won once");
        self.forget(node);
        self.generation = generation;
        self.owner = Some(node);
        for (_, _, request) in std::mem::take(&mut self.under_way) {
            self.cut_off += 1;
            if happens() {
                self.carry_out(&request);
            }
        }
    }

    pub(crate) fn begin(&mut self, done_ns: u64, node: usize, request: DiskRequest) {
        if self.reader == Some(node) {
            assert_eq!(request.op, DiskOp::Read, "who reads only reads");
            self.reading.push_back((done_ns + self.slower_ns, request));
            return;
        }
        if self.owner != Some(node) {
            self.rejected += 1;
            return;
        }
        self.under_way.push_back((done_ns, node, request));
    }

    /// The next thing that is done by now for this node. What somebody who is gone has asked for
    /// is under way until the next claim.
    pub(crate) fn done(&mut self, now_ns: u64, node: usize) -> Option<Done> {
        if self.reader == Some(node) {
            let due = |(at, _): &(u64, DiskRequest)| *at <= now_ns && !self.mute;
            let at = self.reading.iter().position(due)?;
            let (_, request) = self.reading.remove(at)?;
            self.read_beside += 1;
            let range = request.offset as usize..(request.offset + request.bytes) as usize;
            let mut data = self.bytes[range].to_vec();
            data[0] ^= u8::from(self.lies);
            return Some(Done::Request {
                device: request.device,
                id: request.id,
                status: u8::from(self.fails),
                data: if self.fails { Vec::new() } else { data },
            });
        }
        let due = |(at, whose, _): &(u64, usize, DiskRequest)| *at <= now_ns && *whose == node;
        let at = self.under_way.iter().position(due)?;
        let (_, _, request) = self.under_way.remove(at)?;
        let data = self.carry_out(&request);
        Some(Done::Request {
            device: request.device,
            id: request.id,
            status: 0,
            data,
        })
    }

    fn carry_out(&mut self, request: &DiskRequest) -> Vec<u8> {
        let at = request.offset as usize..(request.offset + request.bytes) as usize;
        match request.op {
            DiskOp::Read => {
                self.reads += 1;
                return self.bytes[at].to_vec();
            }
            DiskOp::Write { .. } => {
                self.writes += 1;
                self.bytes[at].copy_from_slice(&request.data);
            }
            DiskOp::Flush => {}
            DiskOp::Discard | DiskOp::WriteZeroes { .. } => self.bytes[at].fill(0),
        }
        Vec::new()
    }
}

fn world(rounds: u32) -> World {
    let mut world = World::new();
    world.disk_rounds = Some(rounds);
    world.server = Some(Server::new());
    world
}

fn own_reads(rounds: u32) -> World {
    let mut world = world(rounds);
    world.reads = Reads::Own;
    world
}

fn server(world: &World) -> &Server {
    world.server.as_ref().unwrap()
}

fn printed(world: &World, at: usize) -> &str {
    world.sides[at].as_ref().map_or("", |side| &side.printed)
}

/// Runs until the guest has done all rounds, on the backup too if there is one.
fn finish(world: &mut World, rounds: u64) {
    world.run_until("the guest is done", |w| {
        [A, B]
            .iter()
            .all(|at| w.role(*at).is_none() || printed(w, *at).ends_with("end"))
    });
    world.run_ms(20);
    let sectors = server(world).bytes.chunks(512);
    let first = |sector: &[u8]| u64::from_le_bytes(sector[..8].try_into().unwrap());
    assert_eq!(
        sectors.map(first).collect::<Vec<u64>>(),
        small::worked(rounds)
    );
    for at in [A, B] {
        assert!(
            !printed(world, at).contains('E'),
            "node {at} showed an error"
        );
        assert_eq!(
            world.sides[at].as_ref().and_then(|_| world.divergence(at)),
            None
        );
    }
}

#[test]
fn only_the_live_node_touches_the_disk_and_reads_travel_in_the_log() {
    let mut world = world(300);
    world.pair();
    assert!(!printed(&world, A).contains("end"), "the pair is too late");
    finish(&mut world, 300);
    world.digest(A);
    world.run_until("the backup has compared", |w| w.digests_equal(B) >= 1);
    let server = server(&world);
    assert_eq!((server.rejected, server.owner), (0, Some(A)));
    assert!(server.reads > 300 / 8 && server.writes > 300 / 8);
    let log = &world.sides[B].as_ref().unwrap().received;
    let count = |wanted: fn(&Body) -> bool| log.iter().filter(|(_, r)| wanted(&r.body)).count();
    assert!(count(|body| matches!(body, Body::DiskWrite { .. })) > 10);
    assert!(count(|body| matches!(body, Body::BlockDone { data, .. } if !data.is_empty())) > 10);
    assert_eq!(count(|body| matches!(body, Body::BlockEnded { .. })), 0);
}

#[test]
fn a_write_waits_until_the_backup_holds_its_record() {
    let mut world = world(100_000);
    world.pair();
    world.hold_inbox[B] = true;
    // What the backup has acked may still begin.
    world.run_ms(30);
    let before = server(&world).writes;
    world.run_ms(100);
    assert_eq!(server(&world).writes, before);
    world.hold_inbox[B] = false;
    world.run_ms(30);
    assert!(server(&world).writes > before);
}

/// Its first node dies at one moment after the other; how many requests were under way.
fn goes_on_wherever_the_live_node_dies(begin: fn(u32) -> World) -> usize {
    let mut cut_off = 0;
    for ms in 0..40 {
        let mut world = begin(400);
        world.pair();
        world.run_ms(ms);
        world.run_steps(ms % 7);
        assert!(!printed(&world, A).contains("end"));
        world.kill(A);
        world.run_until("B is live", |w| w.role(B) == Some(RoleKind::Live));
        if ms % 2 == 0 {
            world.start(A);
            world.run_until("A is paired", |w| w.protected(A) && w.protected(B));
            if ms % 4 == 0 {
                world.kill(B);
                world.run_until("A is live", |w| w.role(A) == Some(RoleKind::Live));
            }
        }
        finish(&mut world, 400);
        cut_off += server(&world).cut_off;
    }
    cut_off
}

#[test]
fn the_guest_goes_on_wherever_the_live_node_dies() {
    let cut_off = goes_on_wherever_the_live_node_dies(world);
    assert!(cut_off > 20, "few requests were under way: {cut_off}");
    let cut_off = goes_on_wherever_the_live_node_dies(own_reads);
    assert!(cut_off > 20, "few requests were under way: {cut_off}");
}

#[test]
fn a_planned_takeover_hands_the_disk_over() {
    hands_the_disk_over(world(1_000_000));
    hands_the_disk_over(own_reads(1_000_000));
}

fn hands_the_disk_over(mut world: World) {
    world.pair();
    for live in [A, B, A] {
        world.apply(live, Event::Ctl(Ctl::Takeover));
        let next = 1 - live;
        world.run_until("the other is live", |w| {
            w.role(next) == Some(RoleKind::Live)
        });
        world.run_until("paired again", |w| w.protected(A) && w.protected(B));
        assert_eq!(server(&world).owner, Some(next));
        let writes = server(&world).writes;
        world.run_ms(20);
        assert!(server(&world).writes > writes);
        assert_eq!((world.divergence(A), world.divergence(B)), (None, None));
    }
    assert_eq!(server(&world).rejected, 0);
}

#[test]
fn a_backup_that_reads_by_itself_needs_no_reads_in_the_log() {
    let mut world = own_reads(400);
    world.pair();
    assert!(!printed(&world, A).contains("end"), "the pair is too late");
    let before = world.sides[B].as_ref().unwrap().received.len();
    let read = server(&world).read_beside;
    finish(&mut world, 400);
    world.digest(A);
    world.run_until("the backup has compared", |w| w.digests_equal(B) >= 1);
    let server = server(&world);
    assert_eq!((server.rejected, server.owner), (0, Some(A)));
    assert!(server.read_beside > read + 100, "{}", server.read_beside);
    let log = world.sides[B].as_ref().unwrap().received[before..].iter();
    let count = |wanted: fn(&Body) -> bool| log.clone().filter(|(_, r)| wanted(&r.body)).count();
    assert!(count(|body| matches!(body, Body::BlockEnded { .. })) > 100);
    assert_eq!(
        count(|body| matches!(body, Body::BlockDone { data, .. } if !data.is_empty())),
        0
    );
}

/// A backup that reads late, and a guest that writes soon where it has read.
fn reads_late(mut world: World) -> World {
    world.pair();
    world.server.as_mut().unwrap().slower_ns = 20_000_000;
    for _ in 0..100 {
        world.run_ms(10);
    }
    world
}

#[test]
fn what_the_backup_has_not_read_is_not_changed() {
    let mut world = reads_late(own_reads(400));
    assert!(world.protected(A));
    world.server.as_mut().unwrap().slower_ns = 0;
    finish(&mut world, 400);
}

#[test]
fn a_write_that_does_not_wait_for_the_backups_reads_is_noticed() {
    let mut world = own_reads(400);
    world.broken = Some(Mutation::OverwriteUnread);
    let world = reads_late(world);
    let found = world.divergence(B).unwrap();
    assert!(found.contains("the disk in slot 0: a read"), "{found}");
}

#[test]
fn a_backup_that_can_not_read_is_dropped_and_comes_back_when_it_can() {
    let mut world = own_reads(4000);
    world.pair();
    world.server.as_mut().unwrap().mute = true;
    world.run_ms(100);
    let before = server(&world).writes;
    world.run_ms(100);
    assert_eq!(server(&world).writes, before, "the guest waits");
    assert!(world.side(A).replica.writes_that_wait() > 0);
    world.run_until("B is dropped", |w| w.link(A) == "solo");
    world.run_ms(6000);
    assert!(server(&world).writes > before + 100);
    // What it has stored it can't execute, so it doesn't ask for the VM either.
    assert_eq!(world.role(B), Some(RoleKind::Claiming));
    world.server.as_mut().unwrap().mute = false;
    world.run_until("B is paired", |w| w.protected(A) && w.protected(B));
    world.run_ms(100);
    assert_eq!(world.divergence(B), None);
}

#[test]
fn the_only_machine_left_is_kept_when_what_it_must_read_fails() {
    let mut world = own_reads(400);
    world.pair();
    // The log goes on for a while, and then nobody but B has it.
    world.server.as_mut().unwrap().mute = true;
    world.run_ms(30);
    world.server.as_mut().unwrap().fails = true;
    world.kill(A);
    world.server.as_mut().unwrap().mute = false;
    world.run_ms(3000);
    assert_eq!(world.role(B), Some(RoleKind::Claiming));
    let told = "disk 0 can't be read here";
    let notes = &world.side(B).notes;
    let times = notes.iter().filter(|note| note.contains(told)).count();
    assert_eq!(times, 1, "{notes:?}");
    assert!(server(&world).read_beside < 100 + 3000 / 100);
    world.server.as_mut().unwrap().fails = false;
    world.run_until("B is live", |w| w.role(B) == Some(RoleKind::Live));
    finish(&mut world, 400);
}

#[test]
fn a_node_that_can_not_read_joins_when_it_can() {
    let mut world = own_reads(1_000_000);
    world.start(A);
    world.run_until("A is live", |w| w.role(A) == Some(RoleKind::Live));
    world.server.as_mut().unwrap().mute = true;
    world.start(B);
    let joins = |w: &World| {
        let notes = w.sides[A].as_ref().unwrap().notes.iter();
        notes.filter(|note| note.contains("b joins")).count()
    };
    world.run_until("B tries anew", |w| joins(w) == 2);
    assert_ne!(world.role(B), Some(RoleKind::Backup));
    let writes = server(&world).writes;
    world.run_ms(100);
    assert!(server(&world).writes > writes, "the guest waits for nobody");
    world.server.as_mut().unwrap().mute = false;
    world.run_until("B is paired", |w| w.protected(A) && w.protected(B));
}

#[test]
fn bytes_that_somebody_else_has_changed_are_an_alarm() {
    let mut world = own_reads(1_000_000);
    world.pair();
    world.server.as_mut().unwrap().lies = true;
    world.run_until("the alarm", |w| w.divergence(B).is_some());
    let found = world.divergence(B).unwrap();
    assert!(found.contains("the disk in slot 0: a read"), "{found}");
    world.server.as_mut().unwrap().lies = false;
    world.run_until("they part", |w| !w.protected(A));
    world.run_until("paired again", |w| w.protected(A) && w.protected(B));
    let writes = server(&world).writes;
    world.run_ms(50);
    assert!(server(&world).writes > writes);
}

#[test]
fn a_backup_that_was_left_behind_raises_no_alarm_for_what_was_written_since() {
    let mut world = own_reads(1_000_000);
    world.pair();
    world.server.as_mut().unwrap().slower_ns = 400_000_000;
    world.run_ms(5);
    // Nothing reaches B any more, and nothing that it says reaches A.
    world.hold_inbox = [true; 2];
    let before = server(&world).writes;
    world.run_until("A goes on alone", |w| w.link(A) == "solo");
    world.run_until("A has written", |w| server(w).writes > before + 50);
    world.run_ms(1000);
    assert_eq!(world.divergence(B), None);
    let dropped = "the live node has gone on without this one";
    let notes = &world.side(B).notes;
    assert!(notes.iter().any(|note| note.contains(dropped)), "{notes:?}");
}
