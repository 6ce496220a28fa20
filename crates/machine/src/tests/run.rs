use super::guest::*;
use crate::*;
use twinvm_log::{Body, Record};

fn anchor(icount: u64, mtime: u64) -> Record {
    Record {
        icount,
        body: Body::Anchor {
            mtime,
            rate: 1 << 32,
            span: 1000,
            tell_tale: 0,
        },
    }
}

#[test]
fn prints_and_powers_off_as_a_gated_output() {
    let mut m = machine(Asm::default().print(b'h').print(b'i').system_reset(0));
    assert_eq!(m.run(1000), Exit::Output);
    let output = m.take_output().unwrap();
    assert_eq!(output.items, [OutputItem::Halt(Halt::PowerOff)]);
    assert_eq!(output.icount, m.icount());
    assert_eq!(m.take_console(), b"hi");
    let at = m.icount();
    assert_eq!(m.run(10_000), Exit::Halted(Halt::PowerOff));
    assert_eq!(m.icount(), at);
}

#[test]
fn reset_is_a_step_that_zeroes_ram_and_loads_the_images_again() {
    let guest = || {
        Asm::default()
            .address(T0, 0x8040_0000)
            .ld(T1, T0, 0)
            .addi(T1, T1, 1)
            .sd(T1, T0, 0)
            .system_reset(1)
    };
    let mut m = machine(guest());
    // The jump of the header, then 12 instructions, the last of them the call.
    assert_eq!(m.run(1_000_000), Exit::Reset);
    assert_eq!(m.icount(), 13);
    assert_eq!(m.harts.running().pc(), ENTRY);
    assert_eq!(m.mem.load_u64(0x8040_0000), Ok(0));
    assert_eq!(m.run(13 + 7), Exit::Limit);
    assert_eq!(m.mem.load_u64(0x8040_0000), Ok(1));
    let mut config = config(guest());
    config.on_reset = OnReset::Exit;
    let mut m = Machine::new(config, POWER_ON).unwrap();
    assert_eq!(m.run(1000), Exit::Output);
    assert_eq!(
        m.take_output().unwrap().items,
        [OutputItem::Halt(Halt::Reset)]
    );
}

#[test]
fn slices_do_not_matter() {
    let end = 20_000;
    let mut whole = machine(counter());
    assert_eq!(whole.run(end), Exit::Limit);
    let want = whole.digest();
    assert!(whole.mem.load_u64(0x8040_0000) == Ok(1), "the guest stores");
    for slice in [1, 2, 7, 100, 4099] {
        let mut m = machine(counter());
        while m.icount() < end {
            let until = (m.icount() + slice).min(end);
            assert_eq!(m.run(until), Exit::Limit);
            if slice == 7 && m.icount().is_multiple_of(49) {
                m.flush_engine();
            }
            if slice == 100 {
                m.digest();
            }
        }
        assert_eq!(m.digest(), want, "slice {slice}");
    }
    let mut other = machine(counter());
    other.run(end - 1);
    assert_eq!(other.digest().first_difference(&want), Some("time"));
}

#[test]
fn a_waiting_guest_goes_on_only_by_a_record() {
    // sie.STIE, stimecmp = 50, then wait.
    let mut m = machine(
        Asm::default()
            .li(T0, 32)
            .op(0x1042_a073) // csrs sie, t0
            .li(T0, 50)
            .op(0x14d2_9073) // csrw stimecmp, t0
            .wfi()
            .addi(T1, 0, 1),
    );
    assert_eq!(m.run(100), Exit::Idle { timer: Some(50) });
    let at = m.icount();
    assert_eq!(m.run(100), Exit::Idle { timer: Some(50) });
    m.inject(&anchor(at, 49)).unwrap();
    // Time has a rate now, but a waiting hart takes no steps.
    assert_eq!(m.run(100), Exit::Idle { timer: Some(50) });
    m.inject(&anchor(at, 50)).unwrap();
    assert_eq!(m.run(at + 1), Exit::Limit);
    assert_eq!(m.harts.running().x(6), 1);
}

#[test]
fn records_of_another_step_or_time_are_refused() {
    let mut m = machine(counter());
    m.run(10);
    assert!(matches!(
        m.inject(&anchor(9, 0)),
        Err(InjectError::WrongStep { .. })
    ));
    m.inject(&anchor(10, 500)).unwrap();
    m.run(20);
    assert_eq!(m.mtime(), 510);
    assert!(matches!(
        m.inject(&anchor(20, 509)),
        Err(InjectError::TimeBack { .. })
    ));
    let frame = |device| Record {
        icount: 20,
        body: Body::NetRx {
            device,
            frame: vec![0; 60],
        },
    };
    assert!(matches!(
        m.inject(&frame(1)),
        Err(InjectError::Device { .. })
    ));
    assert!(matches!(
        m.inject(&frame(200)),
        Err(InjectError::Device { .. })
    ));
    let body = Body::Output { hash: 0 };
    assert_eq!(
        m.inject(&Record { icount: 20, body }),
        Err(InjectError::NotInput)
    );
}

#[test]
fn a_machine_has_one_to_eight_harts() {
    for (harts, good) in [(0, false), (1, true), (8, true), (9, false)] {
        let mut config = config(counter());
        config.harts = harts;
        match Machine::new(config, POWER_ON) {
            Ok(_) => assert!(good, "{harts}"),
            Err(error) => assert_eq!(
                (good, error.to_string()),
                (false, format!("harts = {harts}: expected 1 to 8"))
            ),
        }
    }
}
