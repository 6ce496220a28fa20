//! The same over distances: what a guest's answers wait for when the other host is far away.

use std::time::{Duration, Instant};

use super::{start, take};
use crate::bench::load::Pipelines;
use crate::bench::plot::Plot;
use crate::bench::redis::{Client, WARM_UP};
use crate::bench::report::{Row, Section};
use crate::bench::{Bench, say};
use crate::demo::error::DemoError;
use crate::lab::pair::REDIS;

/// How much later the channel hands on what it takes, one way, in milliseconds.
const DELAYS_MS: [u64; 4] = [0, 1, 5, 20];
const NAME: &str = "distance";
const MEMORY: &str = "256M";
/// Round trips of a turn.
const REQUESTS: usize = 200;
/// Blocks of pipelined requests of a turn.
const BLOCKS: usize = 20;
const RATE: &str = "requests, 50 × 16";

pub(super) fn measure(bench: &Bench) -> Result<Section, DemoError> {
    let mut rows = Vec::new();
    for ms in DELAYS_MS {
        say(&format!(
            "protect    a guest boots, {ms} ms from its backup"
        ));
        let mut row = Row::new(&format!("{ms} ms"));
        let (pair, live) = start(bench, MEMORY, Duration::from_millis(ms))?;
        let (mut client, mut pipelines) = (Client::new(REDIS, NAME)?, Pipelines::new(REDIS)?);
        client.turn(bench, WARM_UP)?;
        pipelines.turn(bench, 1)?;
        for _ in 0..bench.runs {
            take(&mut row, client.turn(bench, REQUESTS)?);
            let began = Instant::now();
            let requests = pipelines.turn(bench, BLOCKS)? as f64;
            row.sample(RATE, "1/s", requests / began.elapsed().as_secs_f64());
            if pair.protected() != Some(live) {
                let logs = pair.logs();
                return Err(DemoError::failed(format!("not protected any more\n{logs}")));
            }
        }
        rows.push(row);
    }
    let plot = Plot {
        title: "A protected VM and the distance to its backup",
        x: "channel's delay, one way, ms",
        series: [
            ("round trip p50, ms", "p50"),
            ("thousand requests/s, 50 × 16", RATE),
        ]
        .map(|(name, quantity)| {
            let scale = if quantity == RATE { 1e-3 } else { 1.0 };
            let points = DELAYS_MS.iter().zip(&rows).filter_map(|(ms, row)| {
                let series = row.series.iter().find(|s| s.quantity == quantity)?;
                Some((*ms as f64, series.summary?.median * scale))
            });
            (name, points.collect())
        })
        .into(),
    };
    let path = bench.dir.join("distance.svg");
    std::fs::write(&path, plot.svg()).map_err(DemoError::io(&path))?;
    Ok(Section {
        name: NAME.to_owned(),
        title: "a protected VM whose channel takes its time".to_owned(),
        rows,
        bars: Vec::new(),
        notes: vec![format!(
            "Round trips on one connection, and SET on 50 connections with 16 under way on each; \
             each piece of the channel arrives so much later than it was sent, both ways. Picture: \
             {}.",
            path.display()
        )],
        compared: Vec::new(),
    })
}
