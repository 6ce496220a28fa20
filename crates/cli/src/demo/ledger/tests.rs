use super::*;

fn present(clients: [(u64, u64, u64); CLIENTS as usize]) -> Present {
    Present {
        sum: i64::from(ACCOUNTS) * BALANCE,
        clients,
    }
}

const RIGHT: [(u64, u64, u64); CLIENTS as usize] = [(3, 3, 3), (0, 0, 0), (7, 7, 7), (1, 1, 1)];

#[test]
fn an_audit_counts_what_is_there() {
    assert_eq!(audit(&[3, 0, 7, 1], &present(RIGHT)), Ok(11));
    // What was committed since the journal was read may be there too.
    assert_eq!(audit(&[2, 0, 6, 0], &present(RIGHT)), Ok(11));
}

#[test]
fn an_audit_finds_what_is_wrong() {
    let mut short = present(RIGHT);
    short.sum -= 1;
    assert!(audit(&[0; 4], &short).unwrap_err().contains("sum"));
    let lost = audit(&[4, 0, 7, 1], &present(RIGHT)).unwrap_err();
    assert!(lost.contains("client 0: 4 transfers were"), "{lost}");
    let mut hole = RIGHT;
    hole[2] = (6, 6, 7);
    assert!(audit(&[3, 0, 6, 1], &present(hole)).is_err());
    let mut twice = RIGHT;
    twice[2] = (8, 7, 7);
    let twice = audit(&[3, 0, 7, 1], &present(twice)).unwrap_err();
    assert!(
        twice.contains("1 transfers are in the table twice"),
        "{twice}"
    );
}
