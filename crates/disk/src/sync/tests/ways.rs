//! The ways a synchronization can go.

use super::*;

fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..bytes).map(|_| next()).collect()
}

#[test]
fn a_new_node_gets_the_disk_as_it_was_at_the_snapshot() {
    let (a, b) = (Place::with_file(64 * MIB + 512), Place::new());
    let mut live = a.open();
    live.set.found().unwrap();
    for n in 0..40 {
        assert_eq!(live.write(n * MIB, &noise(n, 9 * 4096)), 0);
    }
    let mut joiner = b.open();
    assert_eq!(joiner.set.sizes(), [None]);
    joiner.set.check_whole().expect_err("no file");
    // The guest writes on: into what was sent, into what will be, and after the snapshot.
    let mut written = 0;
    let mut meanwhile = |live: &mut Node, sent: u64| {
        let data = noise(1000 + sent, 3 * 4096 + 512);
        live.submit(
            DiskOp::Write { durable: false },
            (sent % 63) * MIB + 1024..(sent % 63) * MIB + 1024 + data.len() as u64,
            &data,
        );
        live.results(1);
        written += 1;
    };
    let outcome = synchronize(
        &mut live,
        &mut joiner,
        Script {
            meanwhile: Some(&mut meanwhile),
            ..Script::default()
        },
    );
    outcome.assert_copied(&joiner);
    assert!(written > 5);
    let (ours, theirs) = (live.set.mark().unwrap(), joiner.set.mark().unwrap());
    assert_eq!((ours.vm, ours.epoch), (theirs.vm, theirs.epoch));
    assert_ne!(ours.epoch, 0);
}
