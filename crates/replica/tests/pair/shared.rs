//! Disks that both nodes reach: only the live node touches them, writes wait for the backup, and
//! what a former live node had under way is over before the next one begins.

use std::collections::VecDeque;

use twinvm_log::Body;
use twinvm_machine::{DiskOp, DiskRequest};
use twinvm_protocol::{Ctl, Generation, RoleKind};
use twinvm_replica::Event;

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
        }
    }

    pub(crate) fn claim(
        &mut self,
        node: usize,
        generation: Generation,
        mut happens: impl FnMut() -> bool,
    ) {
        assert!(generation > self.generation, "a generation is won once");
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
        if self.owner != Some(node) {
            self.rejected += 1;
            return;
        }
        self.under_way.push_back((done_ns, node, request));
    }

    /// The next thing that is done by now for this node. What somebody who is gone has asked for
    /// is under way until the next claim.
    pub(crate) fn done(&mut self, now_ns: u64, node: usize) -> Option<Done> {
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

#[test]
fn the_guest_goes_on_wherever_the_live_node_dies() {
    let mut cut_off = 0;
    for ms in 0..40 {
        let mut world = world(400);
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
    assert!(cut_off > 20, "few requests were under way: {cut_off}");
}

#[test]
fn a_planned_takeover_hands_the_disk_over() {
    let mut world = world(1_000_000);
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
