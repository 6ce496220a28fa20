//! Serving a few clients at a time, each on a thread of its own.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// Pause after an error of the host, such as no free descriptors.
const PAUSE: Duration = Duration::from_millis(50);

/// Accepts clients until `ended`, which is looked at behind each: one more has to come to end it.
/// At most `most` are served at one time; who comes then is handed to `refuse`, which must not
/// wait, and gone.
pub(crate) fn accept_few<S: Send + 'static>(
    name: &str,
    most: usize,
    ended: &AtomicBool,
    accept: impl Fn() -> io::Result<S>,
    refuse: impl Fn(&S),
    serve: impl Fn(&S) + Clone + Send + 'static,
) {
    let clients = Arc::new(AtomicUsize::new(0));
    loop {
        let accepted = accept();
        if ended.load(Ordering::Relaxed) {
            return;
        }
        let Ok(stream) = accepted else {
            thread::sleep(PAUSE);
            continue;
        };
        if clients.load(Ordering::Relaxed) >= most {
            refuse(&stream);
            continue;
        }
        clients.fetch_add(1, Ordering::Relaxed);
        let (serve, leaving) = (serve.clone(), Arc::clone(&clients));
        let served = thread::Builder::new().name(name.to_owned()).spawn(move || {
            serve(&stream);
            leaving.fetch_sub(1, Ordering::Relaxed);
        });
        if served.is_err() {
            clients.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
