//! The guest that `make image` leaves, Debian's kernel and Redis, and a network for it.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Folder, Running};

/// Its network card, plugged into the switch that [`switch`] starts.
pub(crate) const SWITCHED: &str =
    "[[net]]\nmac = \"52:54:00:12:34:56\"\nbackend = \"lan:lan.sock\"\n";

/// The image's folder.
pub(crate) fn image() -> PathBuf {
    let image = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/image/redis");
    assert!(
        image.join("image.toml").exists(),
        "no guest image: run `make image` first (`make test` does)"
    );
    image.canonicalize().unwrap()
}

/// The VM's file, with these lines more.
pub(crate) fn vm_toml(folder: &Folder, more: &str) -> String {
    let image = image();
    let text = fs::read_to_string(image.join("image.toml")).unwrap();
    let lines: toml::Table = text.parse().unwrap();
    let path = |key: &str| image.join(lines[key].as_str().unwrap());
    folder.file(
        "VM.toml",
        format!(
            "name = \"redis\"\nmemory = \"256M\"\nkernel = {:?}\ninitrd = {:?}\ncmdline = {:?}\n\
             {more}",
            path("kernel"),
            path("initrd"),
            lines["cmdline"].as_str().unwrap()
        ),
    )
}

/// Starts the switch; the address at which the guest's Redis answers.
pub(crate) fn switch(folder: &Folder) -> (Running, String) {
    let socket = folder.text("lan.sock");
    let forward = "127.0.0.1:0=10.0.2.15:6379";
    let mut lan = Running::start(&["lan", "--listen", &socket, "--forward", forward]);
    let bound = lan.line_with("forward ");
    let address = bound["forward ".len()..].split('=').next().unwrap();
    (lan, address.to_owned())
}
