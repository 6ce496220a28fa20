//! What the filter of system calls costs: calls that a node makes all the time, timed before and
//! behind it. Prints nanoseconds for each.

use std::fs::File;
use std::hint::black_box;
use std::io::Write;
use std::time::Instant;

use twinvm_host::sandbox::Confinement;

const CALLS: u32 = 2_000_000;
const ROUNDS: usize = 5;

/// The least time of a call in nanoseconds, over some rounds.
fn least(mut call: impl FnMut()) -> f64 {
    let rounds = (0..ROUNDS).map(|_| {
        let start = Instant::now();
        (0..CALLS).for_each(|_| call());
        start.elapsed().as_nanos() as f64 / f64::from(CALLS)
    });
    rounds.fold(f64::INFINITY, f64::min)
}

fn all(null: &mut File) -> [f64; 2] {
    let write = least(|| {
        let _ = black_box(null.write(b"x"));
    });
    // One whose arguments the filter looks at.
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let ioctl = least(|| {
        let _ = black_box(socket.set_nonblocking(true));
    });
    [write, ioctl]
}

fn main() {
    let mut null = File::options()
        .write(true)
        .open("/dev/null")
        .expect("/dev/null");
    let before = all(&mut null);
    let sandbox = Confinement {
        user: None,
        sandbox: true,
    };
    sandbox.enter(&[]).expect("the filter");
    let behind = all(&mut null);
    println!(
        "write(2) to /dev/null: {:.0} ns, behind the filter {:.0} ns; ioctl(2), whose arguments it looks \
         at: {:.0} ns, {:.0} ns",
        before[0], behind[0], before[1], behind[1]
    );
}
