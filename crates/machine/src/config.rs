//! What must be equal on both hosts for a guest to run the same on them.

use crate::MACHINE_VERSION;
use std::fmt;
use std::sync::Arc;
use twinvm_devices::SlotConfig;

/// A file that the guest boots from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageKind {
    /// Machine-mode firmware, or any other program for a bare machine.
    Firmware,
    /// Linux Image or ELF file.
    Kernel,
    /// Initial RAM disk.
    Initrd,
    /// A device tree in place of the machine's own.
    DeviceTree,
}

impl ImageKind {
    /// All of them, in the order in which snapshots and configurations name them.
    pub const ALL: [Self; 4] = [Self::Firmware, Self::Kernel, Self::Initrd, Self::DeviceTree];
}

impl fmt::Display for ImageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Firmware => "firmware",
            Self::Kernel => "kernel",
            Self::Initrd => "initrd",
            Self::DeviceTree => "device tree",
        })
    }
}

#[derive(Clone)]
struct Image {
    // Not a slice: tens of megabytes would be copied to make one.
    bytes: Arc<Vec<u8>>,
    hash: [u8; 32],
}

/// The files the guest boots from, kept for the machine's whole life because a
/// reset loads them again.
#[derive(Clone, Default)]
pub struct Images([Option<Image>; ImageKind::ALL.len()]);

impl Images {
    /// A kernel, and an initial RAM disk if there is one.
    pub fn new(kernel: Vec<u8>, initrd: Option<Vec<u8>>) -> Self {
        let images = Self::default().with(ImageKind::Kernel, kernel);
        match initrd {
            Some(initrd) => images.with(ImageKind::Initrd, initrd),
            None => images,
        }
    }

    /// The same with one file more: takes its contents and hashes them.
    #[must_use]
    pub fn with(mut self, kind: ImageKind, bytes: Vec<u8>) -> Self {
        self.0[kind as usize] = Some(Image {
            hash: *blake3::hash(&bytes).as_bytes(),
            bytes: Arc::new(bytes),
        });
        self
    }

    /// The contents of a file, if it was given.
    pub fn get(&self, kind: ImageKind) -> Option<&[u8]> {
        self.0[kind as usize]
            .as_ref()
            .map(|image| image.bytes.as_slice())
    }

    fn hash(&self, kind: ImageKind) -> String {
        match &self.0[kind as usize] {
            Some(image) => image.hash.iter().map(|b| format!("{b:02x}")).collect(),
            None => "none".to_owned(),
        }
    }
}

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
