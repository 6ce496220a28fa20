//! What must be equal on both hosts for a guest to run the same on them.

use crate::MACHINE_VERSION;
use crate::image::{ImageKind, Images};
use twinvm_devices::SlotConfig;

/// What a guest's reset request does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum OnReset {
    /// The machine starts again.
    Restart,
    /// The machine ends.
    Exit,
}

/// The configuration of a machine.
#[derive(Clone)]
pub struct MachineConfig {
    /// Size of RAM in bytes.
    pub ram_bytes: u64,
    /// Number of harts, 1 to [`crate::MAX_HARTS`].
    pub harts: u32,
    /// What each of the eight virtio slots holds.
    pub slots: Vec<SlotConfig>,
    /// Command line of the kernel.
    pub cmdline: String,
    /// What the guest boots from.
    pub images: Images,
    /// What a guest's reset does.
    pub on_reset: OnReset,
}

impl MachineConfig {
    /// The slot of the virtio console, where what is typed goes to if there is one; without it,
    /// to the serial console.
    pub fn console_slot(&self) -> Option<u8> {
        (0..)
            .zip(&self.slots)
            .find_map(|(slot, config)| (*config == SlotConfig::Console).then_some(slot))
    }

    /// The fields that two hosts compare before one continues what the other
    /// started: name and value, in a fixed order. Unequal values mean refusal.
    pub fn fields(&self) -> Vec<(String, String)> {
        let mut fields = vec![
            ("machine_version".to_owned(), MACHINE_VERSION.to_string()),
            ("memory".to_owned(), self.ram_bytes.to_string()),
            ("harts".to_owned(), self.harts.to_string()),
        ];
        for kind in ImageKind::ALL {
            fields.push((kind.to_string(), self.images.hash(kind)));
        }
        fields.extend([
            ("cmdline".to_owned(), self.cmdline.clone()),
            (
                "on_reset".to_owned(),
                format!("{:?}", self.on_reset).to_lowercase(),
            ),
        ]);
        for (n, slot) in self.slots.iter().enumerate() {
            let value = match slot {
                SlotConfig::Empty => "empty".to_owned(),
                SlotConfig::Rng => "entropy".to_owned(),
                SlotConfig::Console => "console".to_owned(),
                SlotConfig::Disk(disk) => format!(
                    "disk {} of {} sectors{}",
                    disk.number,
                    disk.sectors,
                    if disk.read_only { ", read-only" } else { "" }
                ),
                SlotConfig::Net { mac } => {
                    let bytes: Vec<String> = mac.iter().map(|b| format!("{b:02x}")).collect();
                    format!("network card {}", bytes.join(":"))
                }
            };
            fields.push((format!("virtio slot {n}"), value));
        }
        fields
    }
}

/// What is drawn once, at power-on, and from then on is the machine's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PowerOn {
    /// Seed of the guest kernel's random number generator (device tree).
    pub rng_seed: [u8; 32],
    /// Wall time at virtual time 0, nanoseconds since 1970-01-01 UTC.
    pub rtc_base_ns: u64,
}

/// A field of [`MachineConfig::fields`] in which two configurations differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldDifference {
    /// Its name.
    pub field: String,
    /// Its value in the first, or "missing".
    pub left: String,
    /// Its value in the second, or "missing".
    pub right: String,
}

/// The first field in which two configurations differ.
pub fn first_field_difference(
    left: &[(String, String)],
    right: &[(String, String)],
) -> Option<FieldDifference> {
    let differs = |n: &usize| left.get(*n) != right.get(*n);
    let n = (0..left.len().max(right.len())).find(differs)?;
    let value = |fields: &[(String, String)]| {
        let field = fields.get(n);
        field.map_or("missing".to_owned(), |(_, value)| value.clone())
    };
    let (field, _) = left.get(n).or(right.get(n))?;
    Some(FieldDifference {
        field: field.clone(),
        left: value(left),
        right: value(right),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_field_that_differs_is_named() {
        let fields = |values: &[&str]| -> Vec<(String, String)> {
            let names = ["a", "b", "c"].into_iter().zip(values);
            names
                .map(|(n, v)| (n.to_owned(), (*v).to_owned()))
                .collect()
        };
        let first = |left: &[&str], right: &[&str]| {
            let found = first_field_difference(&fields(left), &fields(right))?;
            Some([found.field, found.left, found.right].join(" "))
        };
        assert_eq!(first(&["1", "2"], &["1", "2"]), None);
        assert_eq!(first(&["1", "2", "3"], &["1", "4", "5"]).unwrap(), "b 2 4");
        assert_eq!(first(&["1"], &["1", "2"]).unwrap(), "b missing 2");
        assert_eq!(first(&["1", "2"], &["1"]).unwrap(), "b 2 missing");
    }
}
