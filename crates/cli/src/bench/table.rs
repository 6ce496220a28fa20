//! The report as tables, for a terminal and for a document.

use super::report::{Bar, Report, Row, Section};
use super::stats::{Summary, digits};

/// Stands where nothing was measured.
const NOTHING: &str = "–";

/// For a terminal.
pub(crate) fn text(report: &Report) -> String {
    let mut out = format!("machine: {}\n", report.machine);
    for section in &report.sections {
        out.push_str(&format!("\n{}\n", heading(section)));
        let grid = grid(section);
        let widths = widths(&grid);
        for line in &grid {
            let cells = line.iter().zip(&widths).map(|(cell, &width)| {
                let pad = " ".repeat(width - cell.chars().count());
                format!("{cell}{pad}")
            });
            let line = cells.collect::<Vec<_>>().join("   ");
            out.push_str(&format!("  {}\n", line.trim_end()));
        }
        for bar in &section.bars {
            out.push_str(&format!("  {}\n", verdict(bar)));
        }
        for note in &section.notes {
            out.push_str(&format!("  {note}\n"));
        }
    }
    out
}

/// For a document.
pub(crate) fn markdown(report: &Report) -> String {
    let mut out = format!("Machine: {}\n", report.machine);
    for section in &report.sections {
        out.push_str(&format!("\n### {}\n\n", heading(section)));
        for (index, line) in grid(section).iter().enumerate() {
            out.push_str(&format!("| {} |\n", line.join(" | ")));
            if index == 0 {
                out.push_str(&format!("|{}\n", "---|".repeat(line.len())));
            }
        }
        if !section.rows.is_empty() {
            out.push('\n');
        }
        for bar in &section.bars {
            out.push_str(&format!("- {}\n", verdict(bar)));
        }
        for note in &section.notes {
            out.push_str(&format!("- {note}\n"));
        }
    }
    out
}

fn heading(section: &Section) -> String {
    if section.rows.is_empty() {
        return format!("{}: {}", section.name, section.title);
    }
    let n = section
        .rows
        .iter()
        .flat_map(|row| &row.series)
        .filter_map(|series| Some(series.summary?.n))
        .min();
    let n = n.map_or(NOTHING.to_owned(), |n| n.to_string());
    format!(
        "{}: {} (median, smallest–largest; n = {n})",
        section.name, section.title
    )
}

/// The table's cells, its head first. Columns stand in the order in which the rows name them.
fn grid(section: &Section) -> Vec<Vec<String>> {
    if section.rows.is_empty() {
        return Vec::new();
    }
    let mut columns: Vec<(&str, &str)> = Vec::new();
    for series in section.rows.iter().flat_map(|row| &row.series) {
        let column = (series.quantity.as_str(), series.unit.as_str());
        if !columns.contains(&column) {
            columns.push(column);
        }
    }
    let head = columns.iter().map(|(quantity, unit)| match *unit {
        "" => (*quantity).to_owned(),
        unit => format!("{quantity}, {unit}"),
    });
    let mut grid = vec![[String::new()].into_iter().chain(head).collect::<Vec<_>>()];
    for row in &section.rows {
        let cells = columns.iter().map(|(quantity, _)| cell(row, quantity));
        grid.push([row.name.clone()].into_iter().chain(cells).collect());
    }
    grid
}

fn cell(row: &Row, quantity: &str) -> String {
    let series = row.series.iter().find(|s| s.quantity == quantity);
    match series.and_then(|series| series.summary) {
        None => NOTHING.to_owned(),
        Some(Summary { n: 1, median, .. }) => digits(median),
        Some(Summary {
            median, min, max, ..
        }) => format!("{} ({}–{})", digits(median), digits(min), digits(max)),
    }
}

fn widths(grid: &[Vec<String>]) -> Vec<usize> {
    let columns = grid.first().map_or(0, Vec::len);
    (0..columns)
        .map(|column| {
            let cells = grid.iter().filter_map(|line| line.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect()
}

fn verdict(bar: &Bar) -> String {
    let word = if bar.is_met() { "pass" } else { "FAIL" };
    let space = if bar.unit.is_empty() { "" } else { " " };
    format!(
        "{word}: {} {}{space}{}, at most {}{space}{}",
        bar.what,
        digits(bar.value),
        bar.unit,
        bar.most,
        bar.unit
    )
}

#[cfg(test)]
mod tests;
