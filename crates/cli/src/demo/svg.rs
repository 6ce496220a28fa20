//! report.svg: the answers over time, and each takeover from near.

use std::fmt::Write as _;

use super::report::Kill;
use super::timeline::bins;

const WIDTH: f64 = 1200.0;
const HEIGHT: f64 = 640.0;
const LEFT: f64 = 72.0;
const RIGHT: f64 = 1172.0;

/// Most columns of a chart: about one for each pixel.
const MAX_COLUMNS: u64 = 2200;
/// Widths of a column to choose from, in milliseconds; the narrowest that fits is taken.
const COLUMN_MS: [u64; 9] = [10, 20, 50, 100, 200, 500, 1_000, 5_000, 60_000];
/// Narrowest column of the charts from near.
const NEAR_COLUMN_US: u64 = 5_000;
/// Most columns of a chart from near.
const MAX_NEAR_COLUMNS: u64 = 60;
/// Takeovers that are shown from near: those with the longest pauses.
const MAX_NEAR: usize = 4;
/// With more kills than this only the longest pause is labelled in the overview.
const MAX_LABELS: usize = 10;
/// Rows over the overview in which labels find a place beside each other.
const LABEL_ROWS: usize = 2;

const INK: &str = "#1f2933";
const QUIET: &str = "#616e7c";
const GRID: &str = "#e4e7eb";
const BARS: &str = "#4477aa";
const KILL: &str = "#cc3344";
const SAFE: &str = "#5aa469";
const ALONE: &str = "#f0b429";

/// What is drawn.
#[derive(Debug)]
pub(crate) struct Chart<'a> {
    /// When each answer came, in microseconds since the client's start.
    pub(crate) times_us: &'a [u64],
    /// The kills.
    pub(crate) kills: &'a [Kill],
    /// The line on top.
    pub(crate) title: &'static str,
    /// What the columns count.
    pub(crate) what: &'static str,
    /// The line under the title.
    pub(crate) subtitle: String,
}

/// A chart's place in the picture and the ranges of its axes.
struct Plot {
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
    from_us: u64,
    to_us: u64,
    y_max: f64,
}

impl Plot {
    fn x(&self, at_us: u64) -> f64 {
        let at_us = at_us.clamp(self.from_us, self.to_us);
        let part = (at_us - self.from_us) as f64 / (self.to_us - self.from_us) as f64;
        self.left + part * (self.right - self.left)
    }

    fn y(&self, value: f64) -> f64 {
        self.bottom - value / self.y_max * (self.bottom - self.top)
    }

    fn holds(&self, at_us: u64) -> bool {
        (self.from_us..=self.to_us).contains(&at_us)
    }
}

impl Chart<'_> {
    /// The picture.
    pub(crate) fn draw(&self) -> String {
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             width=\"{WIDTH}\" height=\"{HEIGHT}\" \
             font-family=\"system-ui, 'Segoe UI', Helvetica, Arial, 'DejaVu Sans', sans-serif\">\n\
             <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>\n"
        );
        text(
            &mut svg,
            (LEFT, 34.0),
            &Style::new(20.0, INK).bold(),
            self.title,
        );
        text(
            &mut svg,
            (LEFT, 56.0),
            &Style::new(13.0, QUIET),
            &self.subtitle,
        );
        self.overview(&mut svg);
        self.near(&mut svg);
        svg.push_str("</svg>\n");
        svg
    }

    fn overview(&self, svg: &mut String) {
        let end_us = self.times_us.last().copied().unwrap_or(0).max(1_000_000);
        let column_ms = COLUMN_MS
            .into_iter()
            .find(|ms| end_us.div_ceil(ms * 1000) <= MAX_COLUMNS)
            .unwrap_or(COLUMN_MS[COLUMN_MS.len() - 1]);
        let columns = bins(self.times_us, 0, end_us + 1, column_ms * 1000);
        let plot = Plot {
            left: LEFT,
            right: RIGHT,
            top: 112.0,
            bottom: 330.0,
            from_us: 0,
            to_us: end_us,
            y_max: nice_max(&columns),
        };
        legend(svg);
        grid_y(svg, &plot, 5);
        for kill in self.kills {
            shade_pause(svg, &plot, kill);
        }
        area(svg, &plot, &columns, column_ms * 1000);
        self.protection(svg, &plot);
        self.kill_marks(svg, &plot);
        axis_x(svg, &plot, (12, plot.bottom + 16.0), |us| {
            seconds(us as f64 / 1e6)
        });
        let middle = (plot.left + plot.right) / 2.0;
        let style = Style::new(12.0, QUIET).middle();
        text(
            svg,
            (middle, plot.bottom + 34.0),
            &style,
            "seconds since the client's start",
        );
        label_y(svg, &plot, &format!("{} per {column_ms} ms", self.what));
    }

    /// A strip under the overview: whether a backup stood ready.
    fn protection(&self, svg: &mut String, plot: &Plot) {
        let mut strip = |from: u64, to: u64, colour: &str| {
            let (x, end) = (plot.x(from), plot.x(to));
            let _ = writeln!(
                svg,
                "<rect x=\"{x:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"5\" fill=\"{colour}\"/>",
                plot.bottom - 1.0,
                (end - x).max(0.0)
            );
        };
        strip(plot.from_us, plot.to_us, SAFE);
        for kill in self.kills {
            strip(kill.at_us, kill.protected_us.unwrap_or(plot.to_us), ALONE);
        }
    }

    fn kill_marks(&self, svg: &mut String, plot: &Plot) {
        let longest = self.by_pause().first().copied();
        let mut row_ends = [f64::MIN; LABEL_ROWS];
        for (index, kill) in self.kills.iter().enumerate() {
            let x = plot.x(kill.at_us);
            let _ = writeln!(
                svg,
                "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.1}\" y2=\"{:.1}\" stroke=\"{KILL}\" \
                 stroke-width=\"1.2\" stroke-dasharray=\"4 3\"/>",
                plot.top - 6.0,
                plot.bottom
            );
            if self.kills.len() > MAX_LABELS && longest != Some(index) {
                continue;
            }
            let label = match kill.pause {
                Some(gap) => format!("kill {}: {:.0} ms", kill.node, gap.ms()),
                None => format!("kill {}", kill.node),
            };
            // The first row in which it doesn't run into its neighbour.
            let half = label.chars().count() as f64 * 3.4;
            let centre = x.clamp(plot.left + half, plot.right - half);
            let row = (0..LABEL_ROWS)
                .find(|&row| row_ends[row] + 8.0 < centre - half)
                .unwrap_or(0);
            row_ends[row] = centre + half;
            let y = plot.top - 11.0 - 15.0 * row as f64;
            text(svg, (centre, y), &Style::new(12.0, KILL).middle(), &label);
        }
    }

    /// The kills with the longest pauses first.
    fn by_pause(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.kills.len()).collect();
        let length = |index: usize| {
            self.kills[index]
                .pause
                .map_or(0, |gap| gap.end_us - gap.start_us)
        };
        order.sort_by_key(|&index| std::cmp::Reverse(length(index)));
        order
    }

    /// Up to [`MAX_NEAR`] takeovers from near, side by side, with the same axes.
    fn near(&self, svg: &mut String) {
        let mut shown: Vec<usize> = self.by_pause();
        shown.truncate(MAX_NEAR);
        shown.sort_unstable();
        let Some(longest_us) = shown
            .iter()
            .filter_map(|&index| self.kills[index].pause)
            .map(|gap| gap.end_us - gap.start_us)
            .max()
        else {
            return;
        };
        // Enough to see the pause whole and what is on both sides of it.
        let before_us = (longest_us / 3).clamp(80_000, 1_000_000);
        let after_us = longest_us + before_us;
        let column_us =
            ((before_us + after_us) / MAX_NEAR_COLUMNS).next_multiple_of(NEAR_COLUMN_US);
        let windows: Vec<(usize, u64, Vec<u32>)> = shown
            .into_iter()
            .map(|index| {
                let from_us = self.kills[index].at_us.saturating_sub(before_us);
                let to_us = self.kills[index].at_us + after_us;
                (
                    index,
                    from_us,
                    bins(self.times_us, from_us, to_us, column_us),
                )
            })
            .collect();
        let all: Vec<u32> = windows
            .iter()
            .flat_map(|(_, _, bins)| bins)
            .copied()
            .collect();
        let y_max = nice_max(&all);
        let heading = match self.kills.len() > MAX_NEAR {
            true => format!("The {MAX_NEAR} longest pauses from near"),
            false => "The pauses from near".to_owned(),
        };
        text(svg, (LEFT, 402.0), &Style::new(15.0, INK).bold(), &heading);
        const GUTTER: f64 = 46.0;
        let width = (RIGHT - LEFT - GUTTER * (MAX_NEAR as f64 - 1.0)) / MAX_NEAR as f64;
        for (place, (index, from_us, columns)) in windows.iter().enumerate() {
            let left = LEFT + place as f64 * (width + GUTTER);
            let kill = &self.kills[*index];
            let plot = Plot {
                left,
                right: left + width,
                top: 456.0,
                bottom: 582.0,
                from_us: *from_us,
                to_us: kill.at_us + after_us,
                y_max,
            };
            near_plot(svg, &plot, kill, columns, column_us);
            let title = format!(
                "kill {} of {}: node {}",
                index + 1,
                self.kills.len(),
                kill.node
            );
            text(svg, (left, 428.0), &Style::new(12.0, QUIET), &title);
            if place == 0 {
                label_y(
                    svg,
                    &plot,
                    &format!("{} per {} ms", self.what, column_us / 1000),
                );
            }
        }
        let style = Style::new(12.0, QUIET).middle();
        let middle = (LEFT + RIGHT) / 2.0;
        text(svg, (middle, 618.0), &style, "milliseconds since the kill");
    }
}

fn near_plot(svg: &mut String, plot: &Plot, kill: &Kill, columns: &[u32], column_us: u64) {
    grid_y(svg, plot, 3);
    shade_pause(svg, plot, kill);
    area(svg, plot, columns, column_us);
    let x = plot.x(kill.at_us);
    let _ = writeln!(
        svg,
        "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.1}\" y2=\"{:.1}\" stroke=\"{KILL}\" \
         stroke-width=\"1.2\" stroke-dasharray=\"4 3\"/>\n\
         <line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{1:.1}\" y2=\"{1:.1}\" stroke=\"{QUIET}\"/>",
        plot.top, plot.bottom, plot.left, plot.right
    );
    if let Some(gap) = kill.pause {
        let label = format!("{:.0} ms", gap.ms());
        // In the middle of the pause if it fits there, else in the free strip over it.
        let (start, end) = (plot.x(gap.start_us), plot.x(gap.end_us));
        let half = label.chars().count() as f64 * 4.6;
        let fits = end - start > 2.0 * half;
        let centre = ((start + end) / 2.0).clamp(plot.left + half, plot.right - half);
        let y = match fits {
            true => (plot.top + plot.bottom) / 2.0,
            false => plot.top - 4.0,
        };
        text(
            svg,
            (centre, y),
            &Style::new(15.0, KILL).bold().middle(),
            &label,
        );
    }
    let kill_us = kill.at_us;
    let span_ms = (plot.to_us - plot.from_us) as f64 / 1000.0;
    let step = tick_step(span_ms, 4);
    // Whole steps before the kill; without them the first is 0, not -0.
    let steps = ((kill_us - plot.from_us) as f64 / 1000.0 / step).floor();
    let mut tick = 0.0 - steps * step;
    while tick <= (plot.to_us - kill_us) as f64 / 1000.0 {
        let at_us = (kill_us as f64 + tick * 1000.0) as u64;
        tick_mark(svg, plot, at_us, plot.bottom + 16.0, &format!("{tick:.0}"));
        tick += step;
    }
}

/// The time without answers, as a pale field behind the columns.
fn shade_pause(svg: &mut String, plot: &Plot, kill: &Kill) {
    let Some(gap) = kill.pause else { return };
    let (start, end) = (plot.x(gap.start_us), plot.x(gap.end_us));
    let _ = writeln!(
        svg,
        "<rect x=\"{start:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{KILL}\" \
         fill-opacity=\"0.12\"/>",
        plot.top,
        (end - start).max(1.0),
        plot.bottom - plot.top
    );
}

/// Columns as one filled path; neighbours of the same height are one step.
fn area(svg: &mut String, plot: &Plot, columns: &[u32], column_us: u64) {
    let _ = write!(
        svg,
        "<path fill=\"{BARS}\" d=\"M{:.1} {:.1}",
        plot.left, plot.bottom
    );
    let mut start = 0;
    while start < columns.len() {
        let run = columns[start..]
            .iter()
            .take_while(|&&value| value == columns[start]);
        let end = start + run.count();
        let end_us = plot.from_us + end as u64 * column_us;
        let _ = write!(
            svg,
            "V{:.1}H{:.1}",
            plot.y(f64::from(columns[start])),
            plot.x(end_us)
        );
        start = end;
    }
    let _ = writeln!(svg, "V{:.1}Z\"/>", plot.bottom);
}

fn grid_y(svg: &mut String, plot: &Plot, ticks: u32) {
    let step = tick_step(plot.y_max, ticks).max(1.0);
    let mut value = 0.0;
    while value <= plot.y_max {
        let y = plot.y(value);
        let _ = writeln!(
            svg,
            "<line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"{GRID}\"/>",
            plot.left, plot.right
        );
        let style = Style::new(11.0, QUIET).end();
        text(
            svg,
            (plot.left - 7.0, y + 4.0),
            &style,
            &format!("{value:.0}"),
        );
        value += step;
    }
}

fn axis_x(svg: &mut String, plot: &Plot, (ticks, y): (u32, f64), label: impl Fn(u64) -> String) {
    let step = tick_step((plot.to_us - plot.from_us) as f64 / 1e6, ticks);
    let step_us = ((step * 1e6) as u64).max(1);
    let mut at_us = plot.from_us.next_multiple_of(step_us);
    while plot.holds(at_us) {
        tick_mark(svg, plot, at_us, y + 4.0, &label(at_us));
        at_us += step_us;
    }
}

fn tick_mark(svg: &mut String, plot: &Plot, at_us: u64, y: f64, label: &str) {
    let x = plot.x(at_us);
    let _ = writeln!(
        svg,
        "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.1}\" y2=\"{:.1}\" stroke=\"{QUIET}\"/>",
        plot.bottom,
        y - 11.0
    );
    text(svg, (x, y), &Style::new(11.0, QUIET).middle(), label);
}

fn label_y(svg: &mut String, plot: &Plot, label: &str) {
    let (x, y) = (plot.left - 46.0, (plot.top + plot.bottom) / 2.0);
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"12\" fill=\"{QUIET}\" \
         text-anchor=\"middle\" transform=\"rotate(-90 {x:.1} {y:.1})\">{}</text>",
        escape(label)
    );
}

fn legend(svg: &mut String) {
    let entries = [
        (SAFE, "protected"),
        (ALONE, "one node only"),
        (KILL, "kill -9"),
    ];
    let mut x = RIGHT - 330.0;
    for (colour, label) in entries {
        let _ = writeln!(
            svg,
            "<rect x=\"{x:.1}\" y=\"46\" width=\"14\" height=\"8\" rx=\"1.5\" fill=\"{colour}\"/>"
        );
        text(svg, (x + 20.0, 54.5), &Style::new(12.0, QUIET), label);
        x += 38.0 + label.chars().count() as f64 * 7.0;
    }
}

/// How a text looks.
struct Style {
    size: f64,
    colour: &'static str,
    anchor: &'static str,
    weight: u32,
}

impl Style {
    fn new(size: f64, colour: &'static str) -> Self {
        Self {
            size,
            colour,
            anchor: "start",
            weight: 400,
        }
    }

    fn bold(mut self) -> Self {
        self.weight = 600;
        self
    }

    fn middle(mut self) -> Self {
        self.anchor = "middle";
        self
    }

    fn end(mut self) -> Self {
        self.anchor = "end";
        self
    }
}

fn text(svg: &mut String, (x, y): (f64, f64), style: &Style, words: &str) {
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"{}\" font-weight=\"{}\" fill=\"{}\" \
         text-anchor=\"{}\">{}</text>",
        style.size,
        style.weight,
        style.colour,
        style.anchor,
        escape(words)
    );
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// The step of 1, 2 or 5 times a power of ten that gives at most `ticks` steps.
fn tick_step(span: f64, ticks: u32) -> f64 {
    let rough = (span / f64::from(ticks.max(1))).max(1e-9);
    let power = 10f64.powf(rough.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|factor| factor * power)
        .find(|step| *step >= rough * 0.999_999)
        .unwrap_or(10.0 * power)
}

/// The top of an axis that holds every column and leaves a little room over it.
fn nice_max(columns: &[u32]) -> f64 {
    let highest = f64::from(columns.iter().copied().max().unwrap_or(0)).max(1.0);
    highest * 1.08
}

fn seconds(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

#[cfg(test)]
mod tests;
