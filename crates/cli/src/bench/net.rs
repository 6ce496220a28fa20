//! A guest's Redis through TAP interfaces, ours recording, beside the yardstick.

use super::guests::Kind;
use super::report::Section;
use super::tap::{TAPS, boot, pipelined, round_trips};
use super::{Bench, netns, say};
use crate::demo::error::DemoError;

/// Measures in a namespace of its own, or says why it can't.
pub(crate) fn measure(bench: &Bench) -> Result<Vec<Section>, DemoError> {
    if bench.in_namespace {
        return inside(bench);
    }
    say("net        in a network namespace of its own");
    match netns::bench_inside(bench, &["net", "--against", bench.against.name()])? {
        Ok(sections) => Ok(sections),
        Err(why) => {
            say(&format!("net        not measured: {why}"));
            let title = "a guest's Redis through TAP interfaces";
            Ok(vec![Section::skipped("net", title, &why)])
        }
    }
}

fn inside(bench: &Bench) -> Result<Vec<Section>, DemoError> {
    netns::settle(bench, &TAPS)?;
    let kinds = [bench.against.kind(), Kind::Record];
    let mut guests = boot(bench, "net", kinds)?;
    let sections = vec![
        round_trips(bench, "net", &mut guests)?,
        pipelined(bench, "net", &mut guests)?,
    ];
    for guest in guests {
        guest.finish()?;
    }
    Ok(sections)
}
