//! A start by force: what is said first, when it is refused, and what comes of it.

use std::fs;
use std::process::Output;

use crate::client::Asker;
use crate::cluster::{A, B, Cluster, NAMES, short_run};
use crate::server::{self, Counting};

fn forced(vm: &Cluster, node: usize, more: &[&str]) -> Output {
    let mut command = short_run();
    command.args(vm.node_args(node)).arg("--force").args(more);
    command.output().unwrap()
}

/// Asserts that node `node` refuses, saying all of `words`, and changes nothing.
#[track_caller]
pub(crate) fn refuses(vm: &Cluster, node: usize, more: &[&str], words: &[&str]) {
    let known = vm.file.state_dir.join(NAMES[node]).join("generation");
    let before = (vm.generation(), fs::read(&known).ok());
    let done = forced(vm, node, more);
    let said = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(2), "{said}");
    for word in words {
        assert!(said.contains(word), "{word:?} is not in: {said}");
    }
    assert_eq!((vm.generation(), fs::read(&known).ok()), before);
}

#[test]
fn the_backup_starts_when_the_live_node_never_comes_back() {
    let mut vm = Cluster::echo();
    vm.start_pair();
    assert_eq!(Asker::connect(&vm.file.lan).ask(), 1);

    // The VM is there: nobody needs force.
    vm.kill(B);
    vm.await_solo(A);
    refuses(
        &vm,
        B,
        &["--peer-is-off"],
        &["Node a answers: it is live", "so it is not off"],
    );
    assert_eq!(vm.role(A).as_deref(), Some("live"));
    assert_eq!(Asker::connect(&vm.file.lan).ask(), 2);

    vm.kill(A);
    let words = ["Node a doesn't answer", "memory is lost", "--peer-is-off"];
    refuses(&vm, B, &[], &words);
    let before = vm.generation();
    vm.start_with(B, &["--force", "--peer-is-off"], &[]);
    vm.await_role(B, "live");
    assert_eq!(vm.generation(), before + 1);
    assert!(vm.log(B).contains("starting by force"), "{}", vm.log(B));
    // Anew: the counter was in the memory that is lost.
    assert_eq!(Asker::connect(&vm.file.lan).ask(), 1);

    // What was live before joins it, as ever.
    vm.start(A);
    vm.await_protected(B);
    assert_eq!(Asker::connect(&vm.file.lan).ask(), 2);
}

#[test]
fn force_needs_its_words_and_an_arbiter() {
    let mut vm = Cluster::echo();
    vm.write();
    fs::create_dir_all(&vm.file.arbiter).unwrap();
    // A node that has never run leaves nothing behind.
    refuses(&vm, A, &[], &["has no record", "--peer-is-off"]);
    assert!(!vm.file.state_dir.join(NAMES[A]).exists());
    let mut command = short_run();
    let done = command.args(vm.node_args(A)).arg("--peer-is-off").output();
    assert_eq!(done.unwrap().status.code(), Some(2));
    vm.file.arbiter_server = Some("127.0.0.1:1".into());
    vm.write();
    let words = ["127.0.0.1:1", "a change of its record", "mend it first"];
    refuses(&vm, A, &["--peer-is-off"], &words);
}

#[test]
fn with_disks_it_is_said_which_copy_is_lost_and_the_other_side_keeps_out() {
    let mut vm = server::cluster();
    vm.start_pair();
    let mut counting = Counting::connect(&vm);
    for _ in 0..3 {
        counting.add();
    }
    // The backup may be behind: its answer to this comes when it has executed as far.
    assert!(vm.ctl(A, "digest").status.success());
    vm.kill(B);
    vm.await_solo(A);
    counting.add();
    counting.add();
    // Whose copy is current, and who runs it, is said by the other node itself.
    let live = ["Node a answers: it is live", "so it is not off"];
    refuses(&vm, B, &["--peer-is-off"], &live);
    vm.kill(A);
    let lost = [
        "names node a live",
        "what node a wrote since is lost",
        "--peer-is-off",
    ];
    refuses(&vm, B, &[], &lost);
    vm.start_with(B, &["--force", "--peer-is-off"], &[]);
    vm.await_role(B, "live");
    counting.lose(2);
    assert_eq!(counting.add(), 1);
    // The other side has what was live before. It neither starts that nor is anything left of it
    // once it has joined.
    vm.kill(B);
    vm.start(A);
    vm.await_note(A, "waiting to join node b (id ");
    assert!(counting.is_silence());
    assert_eq!(vm.role(A).as_deref(), Some("cold"));
    let cold = ["Node a answers: it is cold", "so it is not off"];
    refuses(&vm, B, &["--peer-is-off"], &cold);
    vm.kill(A);
    let lost = ["names node b live", "what node b wrote since is lost"];
    refuses(&vm, A, &[], &lost);
    // What the record means: nothing is lost, and that is said.
    refuses(&vm, B, &[], &["nothing that was on the disks is lost"]);
    vm.start(B);
    vm.await_role(B, "live");
    vm.start(A);
    vm.await_protected(B);
    assert_eq!(counting.add(), 1);
    assert_eq!(server::copy(&vm, A), server::copy(&vm, B));
}
