//! twinvm

// Until the commands that read it are here.
#[allow(dead_code)]
mod vmtoml;

fn main() {}
