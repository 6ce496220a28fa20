//! Both nodes are killed, in every phase and order, and started again in every order: what the guest
//! has answered is there, or the node says for whom it waits. (`crates/sim/tests/cold.rs` tries far
//! more moments, and losses of power.)

use std::fs::{self, File};

use rustix::process::Signal;

use crate::cluster::{A, B, Cluster, NAMES, wait_for};
use crate::server::{self, Counting};

/// What the pair is doing when the last of them is killed.
#[derive(Clone, Copy, Debug)]
enum Phase {
    /// The backup is gone, and the live node knows.
    Solo,
    /// Protected: both at once.
    Protected,
    /// The backup has just taken over.
    TookOver,
}

/// Who is started first.
#[derive(Clone, Copy, Debug)]
enum First {
    /// The node that the record names live.
    Named,
    Other,
    Both,
}

/// Kills both and starts them again; who is live then.
#[track_caller]
fn both_die(vm: &mut Cluster, counting: &mut Counting, live: usize, how: (Phase, First)) -> usize {
    eprintln!("{how:?}, live on {}", NAMES[live]);
    let (phase, first) = how;
    let backup = 1 - live;
    counting.add();
    let named = match phase {
        Phase::Solo => {
            vm.kill(backup);
            vm.await_solo(live);
            counting.add();
            vm.kill(live);
            live
        }
        Phase::TookOver => {
            vm.kill(live);
            vm.await_role(backup, "live");
            counting.add();
            vm.kill(backup);
            backup
        }
        Phase::Protected => {
            // Neither sees the other one's end.
            vm.signal(backup, Signal::STOP);
            vm.kill(live);
            vm.kill(backup);
            live
        }
    };
    match first {
        First::Named => {
            vm.start(named);
            match phase {
                Phase::Protected => vm.await_note(named, "which may hold a newer state"),
                _ => vm.await_role(named, "live"),
            }
            vm.start(1 - named);
        }
        First::Other => {
            vm.start(1 - named);
            let waits = format!("waiting to join node {} (id ", NAMES[named]);
            vm.await_note(1 - named, &waits);
            vm.start(named);
        }
        First::Both => {
            vm.start(A);
            vm.start(B);
        }
    }
    vm.await_protected(named);
    assert_eq!(counting.add(), 1, "the guest was powered on anew");
    named
}

#[test]
fn whatever_the_order_the_guest_goes_on_from_its_last_answer() {
    let mut vm = server::cluster();
    vm.start_pair();
    let mut counting = Counting::connect(&vm);
    let mut live = A;
    for phase in [Phase::Protected, Phase::TookOver, Phase::Solo] {
        for first in [First::Named, First::Other, First::Both] {
            live = both_die(&mut vm, &mut counting, live, (phase, first));
        }
    }
    // One after the other, faster than anybody can take over, or just not.
    for (first, second) in [(live, 1 - live), (1 - live, live)] {
        counting.begin();
        vm.kill(first);
        vm.kill(second);
        vm.start(A);
        vm.start(B);
        wait_for("a protected VM", || {
            let protected = |node| Some(vm.status(node)?["protected"] == true);
            (protected(A)? && protected(B)?).then_some(())
        });
        counting.end();
    }
    assert!(counting.count > 20);
}

#[test]
fn a_node_that_has_the_vm_in_its_memory_goes_on_with_that() {
    let mut vm = server::cluster();
    vm.start_pair();
    let mut counting = Counting::connect(&vm);
    counting.add();
    // B stands still, so that it can't claim; A is back before it goes on.
    vm.signal(B, Signal::STOP);
    vm.kill(A);
    vm.start(A);
    vm.await_note(A, "which may hold a newer state");
    assert_eq!(vm.role(A).as_deref(), Some("cold"));
    vm.signal(B, Signal::CONT);
    vm.await_protected(B);
    assert_eq!(counting.add(), 2, "the guest was never powered off");
}

/// A pair whose first copy of the disk takes seconds.
fn slow_copy() -> Cluster {
    let mut vm = server::cluster();
    vm.file.protect = "sync_mib_s = 8\n".to_owned();
    vm.write();
    server::fill(&vm);
    vm
}

/// Waits until some of the disk has left a live node.
#[track_caller]
fn copying_from(vm: &Cluster, live: usize) {
    wait_for("blocks on their way", || {
        let done = vm.status(live)?["disks"]["copying"]["done_bytes"].as_u64()?;
        (done > 1 << 20).then_some(())
    });
}

#[test]
fn a_copy_that_was_cut_off_is_never_started() {
    let mut vm = slow_copy();
    vm.start(A);
    vm.await_role(A, "live");
    let mut counting = Counting::connect(&vm);
    for kills in [[B, A], [A, B]] {
        vm.start(B);
        copying_from(&vm, A);
        counting.add();
        for node in kills {
            vm.kill(node);
        }
        // B has nothing to start from, and is not meant.
        vm.start(B);
        vm.await_note(B, "waiting to join node a (id ");
        vm.kill(B);
        vm.start(A);
        vm.await_role(A, "live");
        assert_eq!(counting.add(), 1, "anew");
    }
    vm.kill(A);
    vm.start(B);
    vm.await_note(B, "waiting to join node a");
    vm.start(A);
    vm.await_protected(A);
    assert_eq!(counting.add(), 1, "anew");
    // What it is now worth, and has.
    vm.kill(A);
    vm.await_role(B, "live");
    assert_eq!(counting.add(), 2);
}

#[test]
fn half_a_copy_that_a_person_has_started_is_the_vms_from_then_on() {
    let mut vm = slow_copy();
    vm.start(A);
    vm.await_role(A, "live");
    vm.start(B);
    copying_from(&vm, A);
    vm.kill(A);
    vm.kill(B);
    let half = ["half overwritten", "--from-half-a-copy"];
    crate::force::refuses(&vm, B, &["--peer-is-off"], &half);
    let force = ["--force", "--peer-is-off", "--from-half-a-copy"];
    vm.start_with(B, &force, &[]);
    vm.await_role(B, "live");
    vm.kill(B);
    vm.start(B);
    vm.await_role(B, "live");
}

#[test]
fn disks_of_another_vm_are_refused_and_stay_what_they_are() {
    let mut vm = server::cluster();
    // B has had a VM of its own.
    let another = vm.path("another");
    let arbiter = std::mem::replace(&mut vm.file.arbiter, another);
    let disk = File::create(vm.path("b.img")).unwrap();
    disk.set_len(server::DISK_BYTES).unwrap();
    vm.write();
    vm.start(B);
    vm.await_role(B, "live");
    Counting::connect(&vm).add();
    vm.kill(B);
    let before = server::copy(&vm, B);
    let mark = vm.file.state_dir.join("b").join("disks.mark");
    let worth = fs::read(&mark).unwrap();

    vm.file.arbiter = arbiter;
    vm.write();
    vm.start(A);
    vm.await_role(A, "live");
    vm.start(B);
    wait_for("both to say why", || {
        let says = |node, text: &str| vm.log(node).contains(text).then_some(());
        says(A, "the joining node's belong to another VM")?;
        says(B, "the joining node's belong to another VM")
    });
    vm.kill(B);
    assert_eq!(fs::read(&mark).unwrap(), worth);
    assert!(server::copy(&vm, B) == before);
    assert_eq!(vm.role(A).as_deref(), Some("live"));
}
