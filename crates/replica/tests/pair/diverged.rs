//! A backup that is no longer equal: found, named, thrown away and made anew, and no client
//! notices.

use twinvm_log::{Body, Record};
use twinvm_machine::{Flip, Machine, PAGE_BYTES, RAM_BASE};
use twinvm_protocol::RoleKind;

use crate::guest;
use crate::world::{A, B, World};

/// Where the guest's code is loaded: the head of a Linux Image, then [`guest::CODE`].
const CODE: u64 = 0x8000_0040;
/// RAM that the guest never uses.
const UNUSED: u64 = 0x8040_0000;
/// How long a client waits at most for the answer that it asks for while the backup is examined:
/// as long as a backup may take to find out what differs, and no longer.
const WAIT_MS: u64 = 600;

/// A pair that has answered once, with one digest found equal.
fn pair() -> World {
    let mut world = World::paired();
    world.frame(A, guest::question());
    world.run_until("an answer", |w| w.answers() == [1]);
    world.digest(A);
    world.run_until("an equal digest", |w| w.digests_equal(B) == 1);
    world.run_ms(20);
    world
}

fn machine(world: &mut World, at: usize) -> &mut Machine {
    world.side(at).replica.machine_mut().expect("it has one")
}

fn flip(world: &mut World, flip: Flip<'_>) {
    machine(world, B).flip(flip).expect("there is such a bit");
}

fn flip_state(world: &mut World, pointer: &str) {
    flip(world, Flip::State { pointer, bit: 4 });
}

fn ask(world: &mut World) {
    world.frame(A, guest::question());
}

/// Does something to the backup's machine that the live one's doesn't know of, and looks at what
/// comes of it; the alarm.
fn alarm_after(change: impl FnOnce(&mut World), then: impl FnOnce(&mut World)) -> String {
    let mut world = pair();
    let session = world.session(B);
    change(&mut world);
    then(&mut world);
    world.run_until("B raises the alarm", |w| w.divergence(B).is_some());
    let alarm = world.divergence(B).expect("an alarm");
    let said = |at: usize, world: &mut World| {
        let notes = &world.side(at).notes;
        assert!(
            notes.iter().any(|note| note.contains(&alarm)),
            "{alarm}: {notes:?}"
        );
    };
    said(B, &mut world);
    world.run_until("the pair is protected by another session", |w| {
        w.protected(A) && w.protected(B) && w.session(B) != session
    });
    said(A, &mut world);
    assert_eq!(
        world.role(A),
        Some(RoleKind::Live),
        "A never was anything else"
    );
    world.frame(A, guest::question());
    let answered = world.answers().len() + 1;
    world.run_until("the next answer", |w| w.answers().len() == answered);
    let answers: Vec<u64> = (1..).take(answered).collect();
    assert_eq!(world.answers(), answers, "none is missing, none came twice");
    assert!(world.wire.iter().all(|(from, _)| *from == A));
    // What B has now is what A has.
    let equal = world.side(B).replica.status().digests_equal;
    world.digest(A);
    world.run_until("an equal digest", |w| w.digests_equal(B) > equal);
    alarm
}

/// One bit of the backup's machine flips, and the next digest finds it.
fn digest_finds(pointer: &str, difference: &str) {
    let alarm = alarm_after(|world| flip_state(world, pointer), |world| world.digest(A));
    assert!(alarm.contains("digest"), "{alarm}");
    assert!(
        alarm.ends_with(&format!("first difference: {difference}")),
        "{alarm}"
    );
}

#[test]
fn a_flipped_bit_of_ram_is_named_with_its_page_and_byte() {
    let pa = UNUSED + 5;
    let alarm = alarm_after(
        |world| flip(world, Flip::Ram { pa, bit: 3 }),
        |world| world.digest(A),
    );
    assert!(
        alarm.ends_with(
            "first difference: RAM page 0x80400, offset 0x5 (physical address 0x80400005, bytes \
             from 0x80400000): 00 00 00 00 00 00 00 00 on the live node, 00 00 00 00 00 08 00 00 \
             here"
        ),
        "{alarm}"
    );
}

fn has_batch(world: &World) -> bool {
    world.sides[B]
        .as_ref()
        .is_some_and(|side| !side.inbox.is_empty())
}

/// Does something until it has come to something, soon.
fn until(world: &mut World, done: impl Fn(&World) -> bool, mut step: impl FnMut(&mut World)) {
    for _ in 0..1000 {
        if done(world) {
            return;
        }
        step(world);
    }
    panic!("it comes to nothing");
}

fn examines(world: &World) -> bool {
    let side = world.sides[B].as_ref();
    side.is_some_and(|side| {
        side.notes
            .iter()
            .any(|note| note.contains("asking the live node"))
    })
}

/// A receiving thread may have stored and acked more than the loop has heard of. That counts, and
/// the finding ends it as it ends the loop's own acks.
#[test]
fn nothing_is_acked_beside_the_loop_after_a_finding() {
    let mut world = pair();
    world.settle();
    flip(&mut world, Flip::Ram { pa: UNUSED, bit: 0 });
    world.digest(A);
    until(&mut world, has_batch, |w| w.slice(A));
    until(&mut world, |w| !has_batch(w), |w| drop(w.deliver(B)));
    ask(&mut world);
    until(&mut world, has_batch, |w| w.slice(A));
    let stored = world.store_beside(B);
    world.keep(stored);
    assert!(world.side(B).replica.storing().is_some());
    until(&mut world, examines, |w| w.slice(B));
    assert_eq!(world.side(B).replica.storing(), None);
    world.run_until("B raises the alarm", |w| w.divergence(B).is_some());
    let alarm = world.divergence(B).expect("an alarm");
    assert!(alarm.contains("first difference: RAM page"), "{alarm}");
    world.run_until("a new copy", |w| w.protected(A) && w.protected(B));
}

/// Of several pages the lowest is named. The live node has changed it since: no byte, but its hash
/// as it was at the digest, or if that is forgotten that it was as before.
#[test]
fn of_a_page_that_the_live_node_has_changed_since_the_hash_is_named() {
    let (first, second) = (UNUSED, UNUSED + PAGE_BYTES as u64);
    let page = first / PAGE_BYTES as u64;
    let named = format!("first difference: RAM page {page:#x} (physical address {first:#x}): ");
    let known = "hash 0x0000000000000000 on the live node, hash 0x";
    let forgotten = "as at the digest before on the live node, hash 0x";
    for (theirs, digests) in [(known, 0), (forgotten, 1)] {
        let alarm = alarm_after(
            |world| {
                flip(world, Flip::Ram { pa: second, bit: 0 });
                flip(world, Flip::Ram { pa: first, bit: 0 });
            },
            |world| {
                world.digest(A);
                let live = machine(world, A);
                live.flip(Flip::Ram { pa: first, bit: 7 }).expect("RAM");
                for _ in 0..digests {
                    world.digest(A);
                }
            },
        );
        assert!(alarm.contains(&(named.clone() + theirs)), "{alarm}");
    }
}

#[test]
fn a_flipped_bit_of_a_register_is_named() {
    // x25 is s9, the transmit ring: not used while the guest waits.
    let x = "/registers/harts/harts/0/x/24";
    digest_finds(x, "hart 0 s9: 0x80104000 on the live node, 0x80104010 here");
}

#[test]
fn a_flipped_bit_of_a_floating_point_register_is_named() {
    let f = "/registers/harts/harts/0/f/10";
    digest_finds(f, "hart 0 fa0: 0x0 on the live node, 0x10 here");
}

#[test]
fn a_flipped_bit_of_a_csr_is_named() {
    let sscratch = "/registers/harts/harts/0/csrs/14";
    digest_finds(sscratch, "hart 0 sscratch: 0x0 on the live node, 0x10 here");
}

#[test]
fn a_flipped_bit_of_a_device_is_named() {
    digest_finds(
        "/board/uart/scratch",
        "uart scratch: 0x0 on the live node, 0x10 here",
    );
    digest_finds(
        "/board/slots/0/Net/queues/1/next_avail",
        "virtio slot 0 (net): queue 1 next_avail: 0x1 on the live node, 0x11 here",
    );
}

#[test]
fn an_input_that_one_side_has_not_had_is_named() {
    let typed = |world: &mut World| {
        let machine = machine(world, B);
        let icount = machine.icount();
        let body = Body::ConsoleRx { bytes: vec![b'x'] };
        machine.inject(&Record { icount, body }).expect("it fits");
    };
    let alarm = alarm_after(typed, |world| world.digest(A));
    assert!(
        alarm.ends_with("first difference: uart fifo: [] on the live node, [0x78] here"),
        "{alarm}"
    );
}

/// No digest comes: the tell-tale of the next anchor finds it, and the live node still has its
/// registers of that step.
#[test]
fn a_register_that_a_tell_tale_finds_is_named_too() {
    let x = "/registers/harts/harts/0/x/26";
    let alarm = alarm_after(|world| flip_state(world, x), ask);
    assert!(alarm.contains("tell-tale"), "{alarm}");
    let named = "first difference: hart 0 s11: 0x1 on the live node, 0x11 here (the live node: \
                 hart 0 at pc 0x";
    assert!(alarm.contains(named), "{alarm}");
}

/// One bit of an instruction: the guest stores another register into its answer. Registers and
/// devices are equal, the answer is not. What nobody has stored to on the live node is as it was.
#[test]
fn an_output_that_differs_is_traced_to_the_ram_it_came_from() {
    let at = guest::CODE.iter().position(|word| *word == 0x016e_bd23);
    let pa = CODE + at.expect("sd s6, 26(t4)") as u64 * 4 + 2;
    let alarm = alarm_after(|world| flip(world, Flip::Ram { pa, bit: 4 }), ask);
    assert!(alarm.contains("output hash"), "{alarm}");
    assert!(
        alarm.contains(&format!(
            "first difference: RAM page {:#x}, offset",
            pa / 4096
        )),
        "{alarm}"
    );
    assert!(
        alarm.contains(&format!("(physical address {pa:#x}")),
        "{alarm}"
    );
    assert!(pa > RAM_BASE);
}

#[test]
fn a_guest_that_does_something_else_is_found_by_what_it_says_or_where_it_waits() {
    let question = |world: &mut World| {
        let machine = machine(world, B);
        let icount = machine.icount();
        let body = Body::NetRx {
            device: 0,
            frame: [vec![0; twinvm_machine::NET_HEADER_BYTES], guest::question()].concat(),
        };
        machine.inject(&Record { icount, body }).expect("it fits");
    };
    let alarm = alarm_after(question, ask);
    assert!(!alarm.contains("digest"), "{alarm}");
}

/// The live node never says what it has: the alarm comes all the same, and soon.
#[test]
fn a_live_node_that_does_not_answer_holds_no_alarm_up() {
    let mut world = pair();
    flip_state(&mut world, "/board/uart/scratch");
    world.mute = true;
    world.digest(A);
    world.run_until("B asks", |w| w.asked(A));
    // Meanwhile nothing is acked, so nothing leaves.
    world.frame(A, guest::question());
    world.run_ms(300);
    assert_eq!(world.answers(), [1]);
    assert_eq!(world.divergence(B), None);
    world.mute = false;
    let waited = world.run_until("the answer", |w| w.answers() == [1, 2]);
    assert!(waited < (WAIT_MS - 300) * 1_000_000, "{waited} ns");
    let alarm = world.divergence(B).expect("an alarm");
    assert!(
        alarm.ends_with("what differs first is not known (no more was found out within 500 ms)"),
        "{alarm}"
    );
    world.run_until("the pair is protected", |w| {
        w.protected(A) && w.protected(B)
    });
}

/// What a live node says must not do any harm, nor keep the alarm from coming.
#[test]
fn junk_instead_of_an_answer_ends_in_the_alarm() {
    for junk in [
        vec![1, 3],
        vec![1, 3, 0xff, 0xff],
        vec![1, 2, 0],
        vec![9; 100],
        vec![1, 5, 0],
    ] {
        let mut world = pair();
        flip_state(&mut world, "/board/uart/scratch");
        world.instead = Some(junk);
        world.digest(A);
        world.run_until("B raises the alarm", |w| w.divergence(B).is_some());
        world.instead = None;
        world.run_until("the pair is protected", |w| {
            w.protected(A) && w.protected(B)
        });
    }
}

/// The live node dies before it has said anything: what was found is told, and a machine that is
/// known to differ never goes live.
#[test]
fn a_live_node_that_dies_leaves_the_alarm_and_no_claim() {
    let mut world = pair();
    flip_state(&mut world, "/board/uart/scratch");
    world.mute = true;
    world.digest(A);
    world.run_until("B asks", |w| w.asked(A));
    world.kill(A);
    world.run_until("B raises the alarm", |w| w.divergence(B).is_some());
    let alarm = world.divergence(B).expect("an alarm");
    assert!(alarm.ends_with("(the live node is gone)"), "{alarm}");
    world.run_ms(2000);
    assert_eq!(world.role(B), Some(RoleKind::Cold));
}

/// In the page of the guest's code and behind it: nobody stores there, so no digest hashes it again.
const KEPT: u64 = 0x8000_0ff5;

fn decay(world: &mut World, at: usize) {
    let flip = Flip::Decay { pa: KEPT, bit: 3 };
    machine(world, at).flip(flip).expect("there is such a bit");
}

#[test]
fn a_bit_that_flips_where_nobody_stores_is_found_on_the_backup() {
    let alarm = alarm_after(|world| decay(world, B), |_| {});
    assert!(
        alarm.contains(
            "RAM page 0x80000 (physical address 0x80000000) has changed here without a store: is \
             this host's memory sound?"
        ),
        "{alarm}"
    );
    assert!(
        alarm.contains("offset 0xff5 (physical address 0x80000ff5"),
        "{alarm}"
    );
}

/// The backup has the page as it should be: it goes on, and the other node gets its copy.
#[test]
fn a_live_node_whose_memory_changes_by_itself_hands_over() {
    let mut world = pair();
    decay(&mut world, A);
    world.run_until("B is live", |w| w.role(B) == Some(RoleKind::Live));
    assert!(
        world
            .divergence(A)
            .is_some_and(|what| what.contains("RAM page 0x80000 ")),
        "{:?}",
        world.divergence(A)
    );
    world.run_until("A is the backup", |w| w.protected(A) && w.protected(B));
    world.frame(B, guest::question());
    world.run_until("the next answer", |w| w.answers() == [1, 2]);
    let equal = world.digests_equal(A);
    world.digest(B);
    world.run_until("an equal digest", |w| w.digests_equal(A) > equal);
    assert_eq!(machine(&mut world, A).ram(KEPT, 1), Some(&[0][..]));
    assert_eq!(world.divergence(B), None);
}

/// Without a backup there is no other copy; but a node that joins must not differ from the first
/// digest on.
#[test]
fn a_live_node_alone_says_so_and_its_next_backup_is_equal() {
    let mut world = pair();
    world.kill(B);
    world.run_until("A is alone", |w| w.link(A) == "solo");
    decay(&mut world, A);
    world.run_until("A has found it", |w| w.divergence(A).is_some());
    let notes = &world.side(A).notes;
    assert!(
        notes.iter().any(|note| note.contains("there is no backup")),
        "{notes:?}"
    );
    world.start(B);
    world.run_until("B is paired", |w| w.protected(A) && w.protected(B));
    world.digest(A);
    world.run_until("an equal digest", |w| w.digests_equal(B) == 1);
    assert_eq!(machine(&mut world, B).ram(KEPT, 1), Some(&[8][..]));
    assert_eq!(world.divergence(B), None);
}

#[test]
fn a_live_node_whose_backup_is_lost_before_it_takes_over_lives_with_its_memory() {
    let mut world = pair();
    // As if the guest had stored there, on both nodes.
    for at in [A, B] {
        let flip = Flip::Ram { pa: UNUSED, bit: 0 };
        machine(&mut world, at).flip(flip).unwrap();
    }
    world.digest(A);
    world.run_until("an equal digest", |w| w.digests_equal(B) == 2);
    let (pa, bit) = (UNUSED + 8, 3);
    machine(&mut world, A)
        .flip(Flip::Decay { pa, bit })
        .unwrap();
    world.run_until("A has found it", |w| w.divergence(A).is_some());
    world.kill(B);
    world.run_until("A is alone", |w| w.link(A) == "solo");
    world.start(B);
    world.run_until("B is paired", |w| w.protected(A) && w.protected(B));
    world.digest(A);
    world.run_until("an equal digest", |w| w.digests_equal(B) == 1);
    assert_eq!(world.divergence(B), None, "{:#?}", world.side(A).notes);
}
