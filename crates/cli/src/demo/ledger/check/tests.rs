use super::*;

/// A ledger that transfers are done on, one after the other.
struct Bank {
    accounts: Vec<(i64, i64)>,
    journal: Journal,
    rows: Vec<Row>,
    clock_us: u64,
}

impl Bank {
    fn new() -> Self {
        Self {
            accounts: vec![(BALANCE, 0); usize::from(ACCOUNTS)],
            journal: Journal::default(),
            rows: Vec::new(),
            clock_us: 0,
        }
    }

    fn transfer(&mut self, client: u16, from: u16, to: u16, amount: i64) {
        let number = self.journal.acked[usize::from(client)];
        let read = |account: u16| self.accounts[usize::from(account)];
        let transfer = Transfer {
            client,
            number,
            from,
            to,
            amount,
            from_read: read(from),
            to_read: read(to),
            asked_us: self.clock_us,
            acked_us: Some(self.clock_us + 5),
        };
        self.clock_us += 10;
        for (account, change) in [(from, -amount), (to, amount)] {
            let (balance, version) = &mut self.accounts[usize::from(account)];
            *balance += change;
            *version += 1;
        }
        self.rows.push(row_of(&transfer));
        self.journal.transfers.push(transfer);
        self.journal.acked[usize::from(client)] += 1;
    }

    fn look(&mut self) {
        self.journal.looks.push(Look {
            accounts: self.accounts.clone(),
            asked_us: self.clock_us,
            answered_us: self.clock_us + 5,
        });
        self.clock_us += 10;
    }

    fn judge(&self) -> Finding {
        let stored = Stored {
            accounts: self.accounts.clone(),
            rows: self.rows.clone(),
        };
        judge(&self.journal, &stored)
    }
}

fn bank() -> Bank {
    let mut bank = Bank::new();
    bank.look();
    bank.transfer(0, 0, 1, 10);
    bank.transfer(1, 1, 2, 1005);
    bank.look();
    bank.transfer(0, 2, 0, 7);
    bank.transfer(2, 3, 4, 1);
    bank
}

#[test]
fn a_right_ledger_is_right() {
    let finding = bank().judge();
    assert!(finding.is_clean(), "{finding:?}");
    assert_eq!(finding.judged, 6);
}

#[test]
fn an_acknowledged_transfer_that_is_gone_is_lost() {
    let mut bank = bank();
    // As after a restart from an older disk: the row and its money are gone.
    bank.rows.pop();
    bank.accounts[3] = (BALANCE, 0);
    bank.accounts[4] = (BALANCE, 0);
    let finding = bank.judge();
    assert_eq!(finding.lost, 1);
    assert_eq!(finding.wrong, [""; 0]);
    assert!(!finding.is_clean());
}

#[test]
fn a_row_that_is_there_twice_is_found() {
    let mut bank = bank();
    bank.rows.push(bank.rows[1]);
    let finding = bank.judge();
    assert_eq!((finding.lost, finding.duplicated), (0, 1));
    assert!(!finding.is_clean());
}

#[test]
fn money_that_moved_twice_or_never_is_found() {
    let mut twice = bank();
    twice.accounts[3].0 -= 1;
    twice.accounts[4].0 += 1;
    assert_eq!(twice.judge().wrong.len(), 2);
    let mut strange = bank();
    strange.rows.push(Row {
        number: 77,
        ..strange.rows[0]
    });
    assert!(strange.judge().wrong[0].contains("nobody asked"));
    let mut changed = bank();
    changed.rows[0].amount += 1;
    assert!(changed.judge().wrong[0].contains("is not that of"));
}

#[test]
fn a_commit_without_an_answer_is_resolved_by_its_number() {
    let mut done = bank();
    done.journal.transfers[3].acked_us = None;
    let finding = done.judge();
    assert_eq!(finding.unknown, (1, 0));
    assert!(finding.is_clean());
    let mut undone = done;
    undone.rows.pop();
    undone.accounts[3] = (BALANCE, 0);
    undone.accounts[4] = (BALANCE, 0);
    let finding = undone.judge();
    assert_eq!(finding.unknown, (0, 1));
    assert!(finding.is_clean(), "{finding:?}");
}

#[test]
fn an_answer_from_an_older_state_has_no_place() {
    // The last look sees what was there before the first transfer, which had been acknowledged.
    let mut stale = bank();
    stale.look();
    let first = stale.journal.looks[0].accounts.clone();
    stale.journal.looks[2].accounts = first;
    let finding = stale.judge();
    assert!(finding.no_order.is_some(), "{finding:?}");
    // At the same time as the first transfer it may.
    stale.journal.looks[2].asked_us = 0;
    assert!(stale.judge().is_clean());
}

#[test]
fn a_look_that_sees_half_of_a_transfer_has_no_place() {
    let mut torn = bank();
    torn.look();
    let look = torn.journal.looks.last_mut().unwrap();
    // All of the time is its own: only what it read speaks against it.
    look.asked_us = 0;
    look.accounts[3] = (BALANCE, 0);
    let finding = torn.judge();
    assert!(finding.no_order.unwrap().contains("no order"), "half");
    let mut never = bank();
    never.journal.looks[1].accounts[1].0 += 1;
    assert!(never.judge().no_order.unwrap().contains("never had"));
}

#[test]
fn a_lost_update_is_found() {
    let mut bank = bank();
    // Client 2 read account 3 as if client 0's transfer to it had never been.
    bank.transfer(0, 5, 3, 50);
    let last = bank.journal.transfers.last().unwrap();
    let (mut stale, version) = (*last, last.to_read.1);
    stale.client = 3;
    stale.number = 0;
    stale.from = 6;
    stale.from_read = (BALANCE, 0);
    assert_eq!(version, 1);
    bank.rows.push(row_of(&stale));
    bank.journal.transfers.push(stale);
    let finding = bank.judge();
    assert!(finding.no_order.unwrap().contains("two transfers gave"));
}
