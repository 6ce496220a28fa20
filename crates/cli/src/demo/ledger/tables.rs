//! The ledger's tables.

use std::time::Instant;

use super::{ACCOUNTS, ASK_LIMIT, BALANCE, CLIENTS};
use crate::demo::error::DemoError;
use crate::lab::pg::{Pg, PgError, Values};

/// A row of the table of transfers: whose, which, and the versions that it gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Row {
    pub(crate) client: u16,
    pub(crate) number: u64,
    pub(crate) from: u16,
    pub(crate) to: u16,
    pub(crate) amount: i64,
    pub(crate) from_version: i64,
    pub(crate) to_version: i64,
}

/// Both tables at the end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Stored {
    /// Balance and version, by account.
    pub(crate) accounts: Vec<(i64, i64)>,
    pub(crate) rows: Vec<Row>,
}

/// What is in the tables, in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Present {
    pub(crate) sum: i64,
    /// Of each client: rows, different numbers among them, and the highest number plus one.
    pub(crate) clients: [(u64, u64, u64); CLIENTS as usize],
}

/// Makes both tables anew.
pub(crate) fn make(pg: &mut Pg) -> Result<(), DemoError> {
    let sql = format!(
        "SET client_min_messages = warning; DROP TABLE IF EXISTS account, transfer; \
         CREATE TABLE account (id int PRIMARY KEY, balance bigint NOT NULL, \
         version bigint NOT NULL); \
         CREATE TABLE transfer (client int, number bigint, source int, target int, \
         amount bigint, source_version bigint, target_version bigint); \
         INSERT INTO account SELECT id, {BALANCE}, 0 FROM generate_series(0, {}) id",
        ACCOUNTS - 1
    );
    ask(pg, &sql).map(drop).map_err(super::refused)
}

fn ask(pg: &mut Pg, sql: &str) -> Result<Vec<Values>, PgError> {
    let until = Instant::now() + ASK_LIMIT;
    pg.query(sql, || Instant::now() < until)
}

/// Counts, in one statement, so of one moment.
pub(crate) fn count(pg: &mut Pg) -> Result<Present, PgError> {
    let rows = ask(
        pg,
        "SELECT -1, sum(balance), 0, 0 FROM account UNION ALL \
         SELECT client, count(*), count(DISTINCT number), max(number) + 1 FROM transfer \
         GROUP BY client",
    )?;
    let mut present = Present::default();
    for row in &rows {
        let [client, a, b, c] = numbers(row)?;
        match usize::try_from(client) {
            Err(_) => present.sum = a,
            Ok(client) => {
                let found = present
                    .clients
                    .get_mut(client)
                    .ok_or_else(|| strange(row))?;
                let unsigned = |n: i64| u64::try_from(n).map_err(|_| strange(row));
                *found = (unsigned(a)?, unsigned(b)?, unsigned(c)?);
            }
        }
    }
    Ok(present)
}

/// Reads both tables. Nobody writes them any more.
pub(crate) fn read(pg: &mut Pg) -> Result<Stored, PgError> {
    let accounts = ask(pg, "SELECT balance, version FROM account ORDER BY id")?;
    let accounts = accounts.iter().map(|row| {
        let [balance, version] = numbers(row)?;
        Ok((balance, version))
    });
    let rows = ask(
        pg,
        "SELECT client, number, source, target, amount, source_version, target_version \
         FROM transfer",
    )?;
    let rows = rows.iter().map(|row| {
        let [client, number, from, to, amount, from_version, to_version] = numbers(row)?;
        let small = |n: i64| u16::try_from(n).map_err(|_| strange(row));
        Ok(Row {
            client: small(client)?,
            number: u64::try_from(number).map_err(|_| strange(row))?,
            from: small(from)?,
            to: small(to)?,
            amount,
            from_version,
            to_version,
        })
    });
    Ok(Stored {
        accounts: accounts.collect::<Result<_, PgError>>()?,
        rows: rows.collect::<Result<_, PgError>>()?,
    })
}

/// The numbers of a row of exactly so many.
pub(crate) fn numbers<const N: usize>(row: &Values) -> Result<[i64; N], PgError> {
    let numbers = row.iter().map(|value| value.as_ref()?.parse().ok());
    let numbers: Option<Vec<i64>> = numbers.collect();
    let numbers = numbers.and_then(|numbers| numbers.try_into().ok());
    numbers.ok_or_else(|| strange(row))
}

fn strange(row: &Values) -> PgError {
    PgError::Protocol(format!("a row that can't be: {row:?}"))
}
