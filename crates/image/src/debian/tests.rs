use super::*;
use crate::lock::Lock;

#[test]
fn the_lock_in_the_source_belongs_to_this_recipe() {
    let lock = Lock::parse(RECIPE.lock).unwrap();
    assert_eq!(
        lock.recipe,
        digest(),
        "the recipe has changed: cargo run --release -p twinvm-image --example build -- debian \
         --out target/image/debian --lock crates/image/debian.lock --rehash"
    );
    let has = |name: &str| lock.packages.iter().any(|package| package.name == name);
    for name in RECIPE.packages {
        assert!(has(name), "{name}");
    }
    // Essential ones come by themselves; a kernel comes beside what is installed.
    assert!(has("dpkg") && has("libc6"));
    let kernels = lock.packages.iter();
    let kernels = kernels.filter(|package| package.name.starts_with("linux-image-"));
    assert_eq!(kernels.count(), 1);
    let outputs: Vec<&str> = lock.outputs.iter().map(|o| o.name.as_str()).collect();
    assert_eq!(outputs, ["initrd.cpio", "kernel"]);
}

#[test]
fn init_finds_every_command_and_module_that_it_uses() {
    for command in [
        "mount",
        "insmod",
        "umount",
        "setsid",
        "sh",
        "switch_root",
        "[",
        "echo",
    ] {
        assert!(INIT.contains(command), "{command} is no longer used");
        assert!(APPLETS.contains(&command), "{command} is no applet");
    }
    // Each where the ones that it uses are there already.
    let mut from = 0;
    for module in MODULES {
        let name = module.rsplit('/').next().unwrap();
        let at = INIT[from..].find(name);
        from += at.unwrap_or_else(|| panic!("{name} is not loaded in its place"));
    }
}

#[test]
fn modules_of_other_hardware_stay_away() {
    for wanted in [
        "fs/ext4/ext4.ko.xz",
        "drivers/net/tun.ko.xz",
        "drivers/net/wireguard/wireguard.ko.xz",
        "net/netfilter/nf_tables.ko.xz",
    ] {
        assert!(is_wanted(wanted), "{wanted}");
    }
    for other in [
        "sound/core/snd.ko.xz",
        "drivers/net/ethernet/intel/e1000/e1000.ko.xz",
        "drivers/network/x.ko.xz",
        "net/wireless/cfg80211.ko.xz",
        "fsx/y.ko.xz",
    ] {
        assert!(!is_wanted(other), "{other}");
    }
}

#[test]
fn what_is_laid_over_the_packages_is_complete() {
    // A unit or setting that setup.sh names must be among the files, and the other way round.
    for (name, _, _) in FILES {
        let unit = name.strip_prefix("etc/systemd/system/");
        assert!(
            unit.is_none_or(|unit| SETUP.contains(unit)),
            "{name} is never enabled"
        );
    }
    for (name, program, text) in FILES {
        assert!(text.ends_with('\n'), "{name} has no end of line");
        assert_eq!(program, text.starts_with("#!"), "{name}");
        let source = name.ends_with(".c");
        let says = format!(
            "{}: ",
            name.rsplit('/').next().unwrap().trim_end_matches(".c")
        );
        assert!(
            !source || text.contains(&says),
            "{name} doesn't say what it did"
        );
    }
}
