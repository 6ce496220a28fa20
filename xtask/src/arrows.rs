//! Which crate may use which. The table in the architecture document is the rule itself, so the
//! document can't go false: this module reads it and holds the crates against it.

use std::collections::BTreeMap;

use crate::Finding;
use crate::workspace::Member;

const BEGIN: &str = "<!-- arrows:begin -->";
const END: &str = "<!-- arrows:end -->";

/// What one row allows.
#[derive(Debug, PartialEq, Eq)]
enum Allowed {
    All,
    Only(Vec<String>),
}

/// One row of the table and the line it stands on.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    line: usize,
    allowed: Allowed,
}

/// Holds every crate's dependencies against the table in `document`, found at `path`.
pub(crate) fn check(members: &[Member], path: &str, document: &str) -> Vec<Finding> {
    let (rows, mut findings) = parse(path, document);
    for member in members {
        let Some(row) = rows.get(&member.name) else {
            findings.push(Finding::failure(
                path,
                0,
                format!(
                    "no row for crate {}: add `| {} | … |` to the table of arrows",
                    member.name, member.name
                ),
            ));
            continue;
        };
        let Allowed::Only(allowed) = &row.allowed else {
            continue;
        };
        for used in &member.uses {
            if !allowed.contains(used) {
                findings.push(Finding::failure(
                    &member.manifest,
                    0,
                    format!(
                        "{} may not use {used}: {path}:{} allows {}",
                        member.name,
                        row.line,
                        if allowed.is_empty() {
                            "none".to_owned()
                        } else {
                            allowed.join(", ")
                        }
                    ),
                ));
            }
        }
    }
    let exists = |name: &String| members.iter().any(|member| member.name == *name);
    for (name, row) in &rows {
        let named = match &row.allowed {
            Allowed::All => &[][..],
            Allowed::Only(allowed) => allowed,
        };
        for absent in [name].into_iter().chain(named).filter(|name| !exists(name)) {
            findings.push(Finding::failure(
                path,
                row.line,
                format!("names crate {absent}, which the workspace doesn't have"),
            ));
        }
    }
    findings
}

/// The rows between the markers, by crate; and what is wrong with them.
fn parse(path: &str, document: &str) -> (BTreeMap<String, Row>, Vec<Finding>) {
    let mut rows = BTreeMap::new();
    let mut findings = Vec::new();
    let mut inside = false;
    let mut tables = 0;
    for (index, text) in document.lines().enumerate() {
        let line = index + 1;
        let text = text.trim();
        match text {
            BEGIN => {
                inside = true;
                tables += 1;
                continue;
            }
            END => {
                inside = false;
                continue;
            }
            _ if !inside || text.is_empty() => continue,
            _ => {}
        }
        let cells: Vec<&str> = text.trim_matches('|').split('|').map(str::trim).collect();
        let [name, allowed] = cells[..] else {
            findings.push(Finding::failure(
                path,
                line,
                "expected a row `| crate | may use |`",
            ));
            continue;
        };
        if name == "crate" || name.starts_with("--") {
            continue;
        }
        let name = name.trim_matches('`').to_owned();
        let allowed = match allowed {
            "all" => Allowed::All,
            "none" => Allowed::Only(Vec::new()),
            list => Allowed::Only(
                list.split(',')
                    .map(|name| name.trim().trim_matches('`').to_owned())
                    .collect(),
            ),
        };
        if rows.insert(name.clone(), Row { line, allowed }).is_some() {
            findings.push(Finding::failure(
                path,
                line,
                format!("a second row for crate {name}"),
            ));
        }
    }
    if tables != 1 || inside {
        findings.push(Finding::failure(
            path,
            0,
            format!("expected one table of arrows between `{BEGIN}` and `{END}`, found {tables}"),
        ));
    }
    (rows, findings)
}

#[cfg(test)]
mod tests;
