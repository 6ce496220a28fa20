//! What was measured: every sample, and what is told of them.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::compare::{Compared, Speed};
use super::machine::MachineLine;
use super::stats::Summary;
use crate::demo::error::DemoError;

/// Everything that was measured in one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Where.
    pub(crate) machine: MachineLine,
    /// What, one after the other.
    pub(crate) sections: Vec<Section>,
}

/// One table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Section {
    /// What it is called on the command line.
    pub(crate) name: String,
    /// What the table shows.
    pub(crate) title: String,
    /// One for each thing that is compared.
    pub(crate) rows: Vec<Row>,
    /// What has to be reached.
    pub(crate) bars: Vec<Bar>,
    /// How it was measured.
    pub(crate) notes: Vec<String>,
    /// Our processor time beside the yardstick's, where that is what the table is about.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) compared: Vec<Compared>,
}

/// One thing that is compared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    /// Its name.
    pub(crate) name: String,
    /// What was measured of it.
    pub(crate) series: Vec<Series>,
    /// Single round trips in microseconds, by rounds, where the series are made of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) round_trips_us: Vec<Vec<u32>>,
}

/// Samples of one quantity.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Series {
    /// What it is; rows with the same quantity share a column.
    pub(crate) quantity: String,
    /// Its unit, or nothing for a pure number.
    pub(crate) unit: String,
    /// In the order in which they were taken.
    pub(crate) samples: Vec<f64>,
    /// What is told of them.
    pub(crate) summary: Option<Summary>,
}

/// A value that must not be exceeded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Bar {
    /// What is judged.
    pub(crate) what: String,
    /// The median that was measured.
    pub(crate) value: f64,
    /// The most it may be.
    pub(crate) most: f64,
    /// The unit of both.
    pub(crate) unit: String,
}

impl Report {
    /// Nothing measured yet.
    pub(crate) fn new(machine: MachineLine) -> Self {
        Self {
            machine,
            sections: Vec::new(),
        }
    }

    /// Reads what [`Self::write`] has written.
    pub(crate) fn read(path: &Path) -> Result<Self, DemoError> {
        let bad = |why: String| {
            DemoError::Input(format!(
                "--from {}: {why}: expected the JSON file of an earlier bench",
                path.display()
            ))
        };
        let text = fs::read_to_string(path).map_err(|error| bad(error.to_string()))?;
        serde_json::from_str(&text).map_err(|error| bad(error.to_string()))
    }

    /// Writes everything as JSON.
    pub(crate) fn write(&self, path: &Path) -> Result<(), DemoError> {
        fs::write(path, self.to_json()?).map_err(DemoError::io(path))
    }

    /// Everything as JSON.
    pub(crate) fn to_json(&self) -> Result<String, DemoError> {
        let text = serde_json::to_string(self)
            .map_err(|error| DemoError::failed(format!("the samples as JSON: {error}")))?;
        Ok(text + "\n")
    }
}

impl Section {
    /// Stands for what could not be measured here, and says why.
    pub(crate) fn skipped(name: &str, title: &str, why: &str) -> Self {
        Self {
            name: name.to_owned(),
            title: title.to_owned(),
            rows: Vec::new(),
            bars: Vec::new(),
            notes: vec![format!("not measured: {why}")],
            compared: Vec::new(),
        }
    }
}

impl Row {
    /// A row without samples.
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            series: Vec::new(),
            round_trips_us: Vec::new(),
        }
    }

    /// Adds one sample, in a new column if there is none of that name.
    pub(crate) fn sample(&mut self, quantity: &str, unit: &str, value: f64) {
        let at = self.series.iter().position(|s| s.quantity == quantity);
        let at = at.unwrap_or_else(|| {
            self.series.push(Series {
                quantity: quantity.to_owned(),
                unit: unit.to_owned(),
                samples: Vec::new(),
                summary: None,
            });
            self.series.len() - 1
        });
        let series = &mut self.series[at];
        series.samples.push(value);
        series.summary = Summary::of(&series.samples);
    }

    /// The samples of one column.
    pub(crate) fn samples(&self, quantity: &str) -> &[f64] {
        self.series
            .iter()
            .find(|series| series.quantity == quantity)
            .map_or(&[], |series| &series.samples)
    }

    /// Adds a column of this row's samples over another's, pair by pair.
    pub(crate) fn compare(&mut self, quantity: &str, name: &str, other: &Row) {
        let ratios: Vec<f64> = self
            .samples(quantity)
            .iter()
            .zip(other.samples(quantity))
            .filter(|(_, below)| **below > 0.0)
            .map(|(above, below)| above / below)
            .collect();
        for ratio in ratios {
            self.sample(name, "", ratio);
        }
    }

    /// Adds a column of how many times as fast as the yardstick we are. The middle one is that of
    /// the medians, which stand beside it.
    pub(crate) fn speed(&mut self, name: &str, compared: &Compared) {
        let Some(Speed { ratio, min, max }) = compared.speed() else {
            return;
        };
        let pairs = compared.other_cpu_s.iter().zip(&compared.ours_cpu_s);
        for (other, ours) in pairs.filter(|(_, ours)| **ours > 0.0) {
            self.sample(name, "", other / ours);
        }
        let column = self.series.iter_mut().find(|s| s.quantity == name);
        if let Some(summary) = column.and_then(|series| series.summary.as_mut()) {
            (summary.median, summary.min, summary.max) = (ratio, min, max);
        }
    }

    /// A bar for the median of one column; `None` where nothing was measured.
    pub(crate) fn bar(&self, quantity: &str, most: f64) -> Option<Bar> {
        let series = self.series.iter().find(|s| s.quantity == quantity)?;
        Some(Bar {
            what: format!("{}: {quantity}", self.name),
            value: series.summary?.median,
            most,
            unit: series.unit.clone(),
        })
    }
}

impl Bar {
    /// It is not exceeded.
    pub(crate) fn is_met(&self) -> bool {
        self.value <= self.most
    }
}
