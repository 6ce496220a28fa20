//! Tests of what is said before a forced start.

use super::*;
use crate::record::{BackupName, Incarnation, LiveName, SessionId};

const ME: NodeId = NodeId(1);
const PEER: NodeId = NodeId(2);

fn mark(generation: u64) -> DiskMark {
    DiskMark {
        generation: Generation(generation),
        ..DiskMark::FRESH
    }
}

fn record(generation: u64, live: NodeId) -> Record {
    Record {
        generation: Generation(generation),
        live: LiveName {
            id: live,
            incarnation: Incarnation(9),
        },
        backup: Some(BackupName {
            id: ME,
            session: SessionId(3),
        }),
        halted: false,
    }
}

fn hello(role: RoleKind, disks: DiskMark) -> Hello {
    Hello {
        version: crate::message::PROTOCOL_VERSION,
        id: PEER,
        name: "b".into(),
        incarnation: Incarnation(4),
        role,
        generation: Generation(7),
        holds: None,
        machine: Vec::new(),
        disks,
    }
}

fn prospect(disks: DiskMark, record: Option<Record>, peer: Option<Hello>) -> Prospect {
    Prospect {
        id: ME,
        generation: Generation(3),
        disks,
        peer_name: "b".into(),
        record,
        peer,
    }
}

#[test]
fn a_peer_that_answers_is_not_off() {
    for role in [RoleKind::Live, RoleKind::Backup, RoleKind::Cold] {
        let it = prospect(mark(7), Some(record(7, ME)), Some(hello(role, mark(6))));
        let why = it.refusal(Force::default()).unwrap();
        assert!(why.contains("is not off"), "{why}");
    }
    let it = prospect(mark(7), Some(record(7, PEER)), None);
    assert_eq!(it.refusal(Force::default()), None);
}

#[test]
fn a_lost_record_is_to_be_mended_first() {
    for found in [None, Some(record(2, PEER))] {
        let why = prospect(mark(3), found, None).refusal(Force::default());
        assert!(why.unwrap().contains("arbiter reset"));
    }
}

#[test]
fn half_a_copy_takes_another_word() {
    let half = DiskMark {
        consistent: false,
        ..mark(7)
    };
    let it = prospect(half, Some(record(7, PEER)), None);
    assert!(it.refusal(Force::default()).unwrap().contains("half"));
    let force = Force {
        from_half_a_copy: true,
        ..Force::default()
    };
    assert_eq!(it.refusal(force), None);
    // Without disks there is nothing to be half.
    let it = prospect(DiskMark::NONE, Some(record(7, PEER)), None);
    assert_eq!(it.refusal(Force::default()), None);
}

#[test]
fn what_would_be_lost_is_said() {
    let of = |disks, peer| prospect(disks, Some(record(7, PEER)), peer).to_string();
    let alone = of(mark(5), None);
    assert!(alone.contains("disks of generation 5"), "{alone}");
    assert!(
        alone.contains("generation 7 and names node b live"),
        "{alone}"
    );
    assert!(alone.contains("may be off, or cut off and live"), "{alone}");
    let behind = of(mark(5), Some(hello(RoleKind::Cold, mark(7))));
    assert!(behind.contains("Node b has the newest copy"), "{behind}");
    let ahead = of(mark(7), Some(hello(RoleKind::Cold, mark(5))));
    assert!(ahead.contains("This node has the newest copy"), "{ahead}");
    let level = of(mark(7), Some(hello(RoleKind::Live, mark(7))));
    assert!(level.contains("can't tell"), "{level}");
    assert!(level.contains("it is live"), "{level}");
    assert!(of(DiskMark::NONE, None).contains("begins anew"));
    let own = prospect(mark(7), Some(record(7, ME)), None).to_string();
    assert!(
        own.contains("nothing that was on the disks is lost"),
        "{own}"
    );
}
