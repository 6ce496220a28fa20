//! A kill at every position of the log.

use std::io::{self, Write as _};

use twinvm_protocol::OutputFrom;
use twinvm_sim::sweep;

#[test]
fn a_kill_at_every_position_of_the_log_loses_nothing() {
    swept(OutputFrom::Live);
}

#[test]
fn nor_does_one_while_the_backup_emits() {
    swept(OutputFrom::Backup);
}

fn swept(output: OutputFrom) {
    let swept = sweep(1, output).unwrap();
    let _ = writeln!(
        io::stderr(),
        "simulation: a kill at every position: {swept:?}"
    );
    assert!(swept.positions > 60, "{swept:?}");
    // Five moments, two victims, what is on its way lost or not.
    assert_eq!(swept.kills, swept.positions * 5 * 2 * 2);
    assert_eq!(swept.live_kills * 2, swept.kills);
    assert_eq!(swept.takeovers + swept.power_ons, swept.live_kills);
}
