//! Whether the tables are what clients were told, and whether all they were told is that of one
//! ledger in one order.
//!
//! Every transfer has read the versions of its two accounts and given the next ones, every look
//! has read those of all. So who came before whom at an account is known and needn't be searched
//! for: the order is a graph. Whoever was answered before another one asked also came before it.
//! If the graph has no cycle, there is one order of whole transactions that explains all answers
//! and that never turns around what clients could see the order of: the history is linearizable,
//! with a transaction for each operation (strictly serializable; Papadimitriou: "The
//! serializability of concurrent database updates", 1979). If it has one, there is none.

use std::collections::BTreeMap;

use super::tables::{Row, Stored};
use super::{ACCOUNTS, BALANCE, Journal, Look, Transfer};

/// Complaints that are kept; the first says what there is to say.
const MAX_WRONG: usize = 8;

/// What is wrong with a ledger, if anything is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Finding {
    /// Transfers that were acknowledged and are not in the table.
    pub(crate) lost: u64,
    /// Rows that are there again.
    pub(crate) duplicated: u64,
    /// Transfers whose commit was sent and never answered: found in the table, or not.
    pub(crate) unknown: (u64, u64),
    /// Balances, the sum or rows that can't be, in words.
    pub(crate) wrong: Vec<String>,
    /// Why no order explains all answers; none if one does.
    pub(crate) no_order: Option<String>,
    /// Transactions that the order was looked for of.
    pub(crate) judged: usize,
}

impl Finding {
    /// Nothing is.
    #[cfg(test)]
    pub(crate) fn is_clean(&self) -> bool {
        self.lost == 0 && self.duplicated == 0 && self.wrong.is_empty() && self.no_order.is_none()
    }

    fn wrong(&mut self, what: String) {
        if self.wrong.len() < MAX_WRONG {
            self.wrong.push(what);
        }
    }
}

/// Judges a journal by the tables at its end.
pub(crate) fn judge(journal: &Journal, stored: &Stored) -> Finding {
    let mut finding = Finding::default();
    let mut rows: BTreeMap<(u16, u64), Row> = BTreeMap::new();
    for row in &stored.rows {
        if rows.insert((row.client, row.number), *row).is_some() {
            finding.duplicated += 1;
        }
    }
    let mut done = Vec::new();
    for transfer in &journal.transfers {
        let row = rows.remove(&(transfer.client, transfer.number));
        match (row, transfer.acked_us) {
            (None, Some(_)) => finding.lost += 1,
            (None, None) => finding.unknown.1 += 1,
            (Some(_), None) => finding.unknown.0 += 1,
            (Some(_), Some(_)) => {}
        }
        let Some(row) = row else { continue };
        if row != row_of(transfer) {
            finding.wrong(format!("the row {row:?} is not that of {transfer:?}"));
        }
        done.push(*transfer);
    }
    for row in rows.values() {
        finding.wrong(format!("nobody asked for the row {row:?}"));
    }
    balances(&done, stored, &mut finding);
    finding.judged = done.len() + journal.looks.len();
    finding.no_order = order(&done, &journal.looks).err();
    finding
}

fn row_of(transfer: &Transfer) -> Row {
    Row {
        client: transfer.client,
        number: transfer.number,
        from: transfer.from,
        to: transfer.to,
        amount: transfer.amount,
        from_version: transfer.from_read.1 + 1,
        to_version: transfer.to_read.1 + 1,
    }
}

/// Each account holds what its transfers leave of what it began with.
fn balances(done: &[Transfer], stored: &Stored, finding: &mut Finding) {
    let mut expected = vec![(BALANCE, 0); usize::from(ACCOUNTS)];
    for transfer in done {
        for (account, change) in [
            (transfer.from, -transfer.amount),
            (transfer.to, transfer.amount),
        ] {
            if let Some((balance, version)) = expected.get_mut(usize::from(account)) {
                *balance += change;
                *version += 1;
            }
        }
    }
    if stored.accounts.len() != expected.len() {
        finding.wrong(format!(
            "{} accounts and not {ACCOUNTS}",
            stored.accounts.len()
        ));
    }
    for (account, (found, expected)) in stored.accounts.iter().zip(&expected).enumerate() {
        if found != expected {
            finding.wrong(format!(
                "account {account} has balance {} at version {}, and by its transfers {} at {}",
                found.0, found.1, expected.0, expected.1
            ));
        }
    }
}

/// What is at the place of a version of an account.
#[derive(Debug, Clone, Copy)]
struct Step {
    /// The transfer that gave it.
    operation: usize,
    /// What that had read, and what it left.
    read: i64,
    left: i64,
}

/// Whether there is an order; why not.
fn order(done: &[Transfer], looks: &[Look]) -> Result<(), String> {
    let steps = steps(done)?;
    let mut graph = Graph::new(done.len() + looks.len());
    for steps in &steps {
        for pair in steps.windows(2) {
            graph.edge(pair[0].operation, pair[1].operation);
        }
    }
    for (number, look) in looks.iter().enumerate() {
        let operation = done.len() + number;
        if look.accounts.len() != steps.len() {
            return Err(format!(
                "a look at {} us saw {} accounts",
                look.asked_us,
                look.accounts.len()
            ));
        }
        for (account, (&(balance, version), steps)) in look.accounts.iter().zip(&steps).enumerate()
        {
            let at = usize::try_from(version).unwrap_or(usize::MAX);
            let left = match at {
                0 => Some(BALANCE),
                _ => steps.get(at - 1).map(|step| step.left),
            };
            if left != Some(balance) {
                return Err(format!(
                    "a look at {} us saw account {account} with {balance} at version {version}, \
                     which it never had",
                    look.asked_us
                ));
            }
            if let Some(step) = at.checked_sub(1).and_then(|at| steps.get(at)) {
                graph.edge(step.operation, operation);
            }
            if let Some(step) = steps.get(at) {
                graph.edge(operation, step.operation);
            }
        }
    }
    let times = done
        .iter()
        .map(|transfer| (transfer.asked_us, transfer.acked_us));
    let looked = looks
        .iter()
        .map(|look| (look.asked_us, Some(look.answered_us)));
    graph.follow_time(&times.chain(looked).collect::<Vec<_>>());
    match graph.cycle() {
        None => Ok(()),
        Some(operation) => Err(match done.get(operation) {
            Some(transfer) => format!("no order has a place for {transfer:?}"),
            None => format!(
                "no order has a place for {:?}",
                looks[operation - done.len()]
            ),
        }),
    }
}

/// The transfers at each account by the versions that they gave: none left out, none twice, each
/// reading what the one before it left.
fn steps(done: &[Transfer]) -> Result<Vec<Vec<Step>>, String> {
    let mut by_version: Vec<BTreeMap<i64, Step>> = vec![BTreeMap::new(); usize::from(ACCOUNTS)];
    for (operation, transfer) in done.iter().enumerate() {
        let Transfer {
            from,
            to,
            amount,
            from_read,
            to_read,
            ..
        } = *transfer;
        for (account, (read, version), change) in
            [(from, from_read, -amount), (to, to_read, amount)]
        {
            let step = Step {
                operation,
                read,
                left: read + change,
            };
            let versions = by_version
                .get_mut(usize::from(account))
                .ok_or_else(|| format!("there is no account {account}"))?;
            if let Some(other) = versions.insert(version + 1, step) {
                return Err(format!(
                    "two transfers gave account {account} version {}: {:?} and {transfer:?}",
                    version + 1,
                    done[other.operation]
                ));
            }
        }
    }
    let mut all = Vec::new();
    for (account, versions) in by_version.into_iter().enumerate() {
        let mut balance = BALANCE;
        for (place, (version, step)) in versions.iter().enumerate() {
            if *version != place as i64 + 1 || step.read != balance {
                return Err(format!(
                    "at account {account} after version {place} with {balance} comes version \
                     {version}, which read {}: {:?}",
                    step.read, done[step.operation]
                ));
            }
            balance = step.left;
        }
        all.push(versions.into_values().collect());
    }
    Ok(all)
}

/// Who came before whom. Behind the operations there is a node for each answer: all that was
/// answered until then. It comes before all that was asked later.
struct Graph {
    operations: usize,
    after: Vec<Vec<usize>>,
}

impl Graph {
    fn new(operations: usize) -> Self {
        Self {
            operations,
            after: vec![Vec::new(); operations],
        }
    }

    fn edge(&mut self, from: usize, to: usize) {
        self.after[from].push(to);
    }

    /// When each operation was asked and answered.
    fn follow_time(&mut self, times: &[(u64, Option<u64>)]) {
        let mut answers: Vec<(u64, usize)> = Vec::new();
        for (operation, (_, answered_us)) in times.iter().enumerate() {
            answers.extend(answered_us.map(|at| (at, operation)));
        }
        answers.sort_unstable();
        self.after
            .resize(self.operations + answers.len(), Vec::new());
        for (place, (_, operation)) in answers.iter().enumerate() {
            let node = self.operations + place;
            self.edge(*operation, node);
            if place > 0 {
                self.edge(node - 1, node);
            }
        }
        for (operation, (asked_us, _)) in times.iter().enumerate() {
            let before = answers.partition_point(|(at, _)| at < asked_us);
            if before > 0 {
                self.edge(self.operations + before - 1, operation);
            }
        }
    }

    /// An operation that can't come at any place, if there is one (Kahn: "Topological sorting of
    /// large networks", 1962).
    fn cycle(&self) -> Option<usize> {
        let mut before = vec![0_usize; self.after.len()];
        for to in self.after.iter().flatten() {
            before[*to] += 1;
        }
        let mut free: Vec<usize> = (0..before.len())
            .filter(|&node| before[node] == 0)
            .collect();
        while let Some(node) = free.pop() {
            for &to in &self.after[node] {
                before[to] -= 1;
                if before[to] == 0 {
                    free.push(to);
                }
            }
        }
        (0..self.operations).find(|&node| before[node] > 0)
    }
}

#[cfg(test)]
mod tests;
