//! Every arbiter backend against the sentences of `ArbiterContract`, one body for all.

mod contract;
mod etcd;
mod history;
mod keys;
mod places;
mod proxy;

use contract::contract;
use places::{FilePlace, MemoryPlace, Patient, TcpPlace};

#[test]
fn memory_keeps_the_contract() {
    contract(&MemoryPlace::default(), 200);
}

#[test]
fn a_folder_keeps_the_contract() {
    contract(&FilePlace::new(), 60);
}

#[test]
fn the_small_server_keeps_the_contract() {
    contract(&Patient(&TcpPlace::new()), 60);
}
