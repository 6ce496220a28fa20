use super::*;
use crate::lock::Lock;

#[test]
fn the_lock_in_the_source_belongs_to_this_recipe() {
    let lock = Lock::parse(RECIPE.lock).unwrap();
    assert_eq!(
        lock.recipe,
        digest(),
        "the recipe has changed: cargo run --release -p twinvm-image --example build -- redis \
         --out target/image/redis --lock crates/image/redis.lock --rehash"
    );
    for name in RECIPE.packages {
        assert!(
            lock.packages.iter().any(|package| package.name == *name),
            "{name}"
        );
    }
    let outputs: Vec<&str> = lock
        .outputs
        .iter()
        .map(|output| output.name.as_str())
        .collect();
    assert_eq!(outputs, ["initrd.cpio", "kernel"]);
}

#[test]
fn init_finds_every_command_and_module_that_it_uses() {
    for command in [
        "mount", "mkdir", "insmod", "hostname", "ip", "kill", "grep", "usleep", "cat", "setsid",
        "sh", "[", "echo", "printf", "nc", "udhcpc",
    ] {
        assert!(INIT.contains(command), "{command} is no longer used");
        assert!(APPLETS.contains(&command), "{command} is no applet");
    }
    for module in MODULES {
        let name = module.rsplit('/').next().unwrap();
        assert!(INIT.contains(name), "{name} is never loaded");
    }
}
