//! Who is answered, and how.

use super::harness::*;
use crate::config::MAX_CONNS;
use crate::event::{Action, Event};
use crate::message::{Message, Refusal};
use crate::record::ConnId;
use crate::{Config, RoleKind};

fn refusal(acts: &Acts) -> Option<Refusal> {
    sent(acts).iter().find_map(|m| match m {
        Message::Refuse(refusal) => Some(refusal.clone()),
        _ => None,
    })
}

fn call(change: impl FnOnce(&mut crate::message::Hello)) -> Acts {
    let mut one = One::solo();
    one.up(false);
    let Message::Hello(mut hello) = hello(RoleKind::Cold, 1, None) else {
        unreachable!()
    };
    change(&mut hello);
    one.got(Message::Hello(hello))
}

#[test]
fn a_hello_is_always_answered_with_a_hello() {
    for mut one in [One::solo(), One::told(), One::lost().0] {
        let conn = ConnId(50);
        one.ev(Event::ChannelUp {
            conn,
            dialed: false,
            nonce: 1,
        });
        let message = hello(RoleKind::Cold, 1, None);
        let acts = one.ev(Event::Received { conn, message });
        let Some(Message::Hello(answer)) = sent(&acts).first() else {
            panic!("{acts:?}");
        };
        assert_eq!(
            answer.role == RoleKind::Backup,
            answer.holds == Some(SESSION)
        );
    }
}

#[test]
fn a_claiming_node_says_what_it_holds() {
    let mut one = One::told();
    one.ev(Event::ChannelDown { conn: CONN });
    let conn = ConnId(50);
    one.ev(Event::ChannelUp {
        conn,
        dialed: false,
        nonce: 1,
    });
    let message = hello(RoleKind::Cold, 1, None);
    let acts = one.ev(Event::Received { conn, message });
    assert!(matches!(sent(&acts)[0], Message::Hello(h) if h.holds == Some(SESSION)));
    assert_eq!(refusal(&acts), Some(Refusal::NotLive));
}

#[test]
fn unequal_machines_are_refused_by_field() {
    let acts = call(|hello| hello.machine[1].value = "8192".into());
    let Some(Refusal::Machine(mismatch)) = refusal(&acts) else {
        panic!("{acts:?}");
    };
    assert_eq!(mismatch.field, "ram_bytes");
    assert_eq!((&*mismatch.ours, &*mismatch.theirs), ("4096", "8192"));
    assert!(has!(acts, Action::Mismatch(_)));
    let acts = call(|hello| drop(hello.machine.pop()));
    assert!(matches!(refusal(&acts), Some(Refusal::Machine(m)) if m.field == "ram_bytes"));
}

#[test]
fn a_live_node_says_why_nobody_joins_it() {
    let mut one = One::solo();
    one.up(false);
    let Message::Hello(mut hello) = hello(RoleKind::Cold, 1, None) else {
        unreachable!()
    };
    hello.machine[0].value = "2".into();
    one.got(Message::Hello(hello));
    assert_eq!(
        one.node.status().note,
        "the nodes differ in machine_version: here \"1\", there \"2\"; make them equal"
    );
}

#[test]
fn other_versions_and_our_own_id_are_refused() {
    let acts = call(|hello| hello.version += 1);
    assert!(matches!(refusal(&acts), Some(Refusal::Version { .. })));
    let acts = call(|hello| hello.id = ME);
    assert_eq!(refusal(&acts), Some(Refusal::SameNode));
    // A backup does not ask to join.
    let acts = call(|hello| hello.role = RoleKind::Backup);
    assert_eq!(refusal(&acts), Some(Refusal::Busy));
}

#[test]
fn a_joiner_notices_an_unequal_machine_too() {
    let (mut one, _) = One::started(Config::default(), 0);
    one.up(true);
    let Message::Hello(mut hello) = hello(RoleKind::Live, 1, None) else {
        unreachable!()
    };
    hello.machine[0].value = "2".into();
    let acts = one.got(Message::Hello(hello));
    assert!(has!(acts, Action::Mismatch(m) if m.field == "machine_version"));
    assert!(has!(acts, Action::Close { .. }));
    // And does not hammer.
    assert!(!has!(one.wait(4000), Action::Dial));
    assert!(has!(one.wait(1500), Action::Dial));
}

#[test]
fn connections_are_bounded_and_must_get_on() {
    let mut one = One::solo();
    for i in 0..MAX_CONNS as u64 {
        let conn = ConnId(100 + i);
        let acts = one.ev(Event::ChannelUp {
            conn,
            dialed: false,
            nonce: 1,
        });
        assert!(acts.is_empty());
    }
    let conn = ConnId(999);
    let acts = one.ev(Event::ChannelUp {
        conn,
        dialed: false,
        nonce: 1,
    });
    assert!(has!(
        acts,
        Action::Close {
            conn: ConnId(999),
            ..
        }
    ));
    let acts = one.wait(2100);
    let closed = acts.iter().filter(|a| matches!(a, Action::Close { .. }));
    assert_eq!(closed.count(), MAX_CONNS);
}

#[test]
fn two_hellos_or_none_end_the_connection() {
    let mut one = One::solo();
    one.up(false);
    let acts = one.got(Message::Installed);
    assert!(has!(acts, Action::Close { .. }));
    for mut one in [One::welcomed(), One::told()] {
        let acts = one.got(hello(RoleKind::Cold, 1, None));
        assert!(has!(acts, Action::Close { .. }));
        assert!(!has!(acts, Action::Fatal { .. }));
        assert_eq!(one.node.status().peer, None);
    }
}

#[test]
fn a_waiting_node_says_what_keeps_it_from_joining_until_that_is_mended() {
    let mut one = One::lost().0;
    let meet = |one: &mut One, conn: u64, theirs: &str| {
        let conn = ConnId(conn);
        one.wait(6000);
        one.ev(Event::ChannelUp {
            conn,
            dialed: true,
            nonce: 1,
        });
        let Message::Hello(mut hello) = hello(RoleKind::Cold, 1, None) else {
            unreachable!()
        };
        hello.machine[1].value = theirs.into();
        let message = Message::Hello(hello);
        one.ev(Event::Received { conn, message });
    };
    meet(&mut one, 50, "8192");
    // The record is looked at again and noted meanwhile.
    one.wait(3000);
    let note = one.node.status().note;
    assert!(note.starts_with("the nodes differ in ram_bytes"), "{note}");
    meet(&mut one, 51, "4096");
    let note = one.node.status().note;
    assert!(!note.contains("differ"), "{note}");
}
