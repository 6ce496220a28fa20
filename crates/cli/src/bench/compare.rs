//! Our processor time beside the yardstick's for the same work, as numbers for other programs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::report::{Report, Section};
use super::stats::{Summary, digits};
use crate::demo::error::DemoError;

/// One piece of work under both, in pairs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Compared {
    /// The work.
    pub(crate) name: String,
    /// Our processor time in seconds, in the order of the pairs.
    pub(crate) ours_cpu_s: Vec<f64>,
    /// The yardstick's.
    pub(crate) other_cpu_s: Vec<f64>,
    /// What else is known of the two, by name and unit.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) more: BTreeMap<String, f64>,
}

/// How many times as fast we are: the yardstick's processor time over ours.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Speed {
    /// Of the medians.
    pub(crate) ratio: f64,
    /// The smallest of a pair.
    pub(crate) min: f64,
    /// The largest of a pair.
    pub(crate) max: f64,
}

impl Compared {
    /// Nothing measured yet.
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            ours_cpu_s: Vec::new(),
            other_cpu_s: Vec::new(),
            more: BTreeMap::new(),
        }
    }

    /// Adds one pair.
    pub(crate) fn pair(&mut self, ours_cpu_s: f64, other_cpu_s: f64) {
        self.ours_cpu_s.push(ours_cpu_s);
        self.other_cpu_s.push(other_cpu_s);
    }

    /// `None` where nothing was measured, or too little for the resolution of processor time.
    pub(crate) fn speed(&self) -> Option<Speed> {
        let ours = Summary::of(&self.ours_cpu_s)?;
        let other = Summary::of(&self.other_cpu_s)?;
        let pairs: Vec<f64> = self
            .other_cpu_s
            .iter()
            .zip(&self.ours_cpu_s)
            .filter(|(_, ours)| **ours > 0.0)
            .map(|(other, ours)| other / ours)
            .collect();
        let pairs = Summary::of(&pairs)?;
        (ours.median > 0.0 && other.median > 0.0).then_some(Speed {
            ratio: other.median / ours.median,
            min: pairs.min,
            max: pairs.max,
        })
    }

    /// A note for the table.
    pub(crate) fn note(&self, other: &str) -> Option<String> {
        let Speed { ratio, min, max } = self.speed()?;
        Some(format!(
            "{}: {} × the speed of {other} ({}–{}).",
            self.name,
            digits(ratio),
            digits(min),
            digits(max)
        ))
    }
}

/// The geometric mean of what is above zero; `None` of nothing.
pub(crate) fn geometric_mean(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let (mut sum, mut count) = (0.0, 0_u32);
    for value in values.into_iter().filter(|value| *value > 0.0) {
        sum += value.ln();
        count += 1;
    }
    (count > 0).then(|| (sum / f64::from(count)).exp())
}

/// What `--json` prints of a comparison.
#[derive(Debug, PartialEq, Serialize)]
struct Comparison<'a> {
    /// Of the rows' ratios.
    geomean: Option<f64>,
    rows: Vec<Line<'a>>,
    against: &'a str,
    /// Ours.
    engine: &'a str,
    machine: &'a super::machine::MachineLine,
}

#[derive(Debug, PartialEq, Serialize)]
struct Line<'a> {
    name: &'a str,
    ours_cpu_s: Option<f64>,
    other_cpu_s: Option<f64>,
    /// Above 1 where we are faster.
    ratio: Option<f64>,
    ratio_min: Option<f64>,
    ratio_max: Option<f64>,
    ours_samples_cpu_s: &'a [f64],
    other_samples_cpu_s: &'a [f64],
    #[serde(flatten)]
    more: &'a BTreeMap<String, f64>,
}

/// The comparisons of all sections as one JSON object.
pub(crate) fn to_json(report: &Report, against: &str, engine: &str) -> Result<String, DemoError> {
    let all = report.sections.iter().flat_map(|section| &section.compared);
    let rows: Vec<Line<'_>> = all.map(Line::of).collect();
    let comparison = Comparison {
        geomean: geometric_mean(rows.iter().filter_map(|row| row.ratio)),
        rows,
        against,
        engine,
        machine: &report.machine,
    };
    let text = serde_json::to_string_pretty(&comparison)
        .map_err(|error| DemoError::failed(format!("the comparison as JSON: {error}")))?;
    Ok(text + "\n")
}

impl<'a> Line<'a> {
    fn of(compared: &'a Compared) -> Self {
        let median = |samples| Summary::of(samples).map(|summary| summary.median);
        let speed = compared.speed();
        Self {
            name: &compared.name,
            ours_cpu_s: median(&compared.ours_cpu_s),
            other_cpu_s: median(&compared.other_cpu_s),
            ratio: speed.map(|speed| speed.ratio),
            ratio_min: speed.map(|speed| speed.min),
            ratio_max: speed.map(|speed| speed.max),
            ours_samples_cpu_s: &compared.ours_cpu_s,
            other_samples_cpu_s: &compared.other_cpu_s,
            more: &compared.more,
        }
    }
}

/// The note below a table of several works.
pub(crate) fn mean_note(section: &Section, other: &str) -> Option<String> {
    let speeds = section.compared.iter().filter_map(Compared::speed);
    let mean = geometric_mean(speeds.map(|speed| speed.ratio))?;
    Some(format!(
        "Geometric mean: {} × the speed of {other}.",
        digits(mean)
    ))
}

#[cfg(test)]
mod tests;
